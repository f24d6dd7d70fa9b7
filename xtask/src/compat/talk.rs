//! Responses to clients, in front of real servers and of broken ones.
//!
//! Each conversation is one write, a request behind it that shows whether the connection is still
//! open, and the end of the client's half; the answer is everything up to the proxy's close. Each
//! side has real servers of its own, so that both begin in the same state.

mod script;

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use twemproxy_testkit::harness::{Server, ServerKind, private_dir};
use twemproxy_testkit::model::redis::{array_of, split_words};

use super::Pair;
use super::canned::{Canned, Manner};
use super::side::{Side, converse};
use super::verdict::{Cell, DIED, Expect};

/// A pool in front of one broken server.
const BROKEN: [(&str, ServerKind, Manner); 12] = [
    ("r-hang", ServerKind::Redis, Manner::Hangs),
    ("r-fin", ServerKind::Redis, Manner::Closes),
    (
        "r-oom",
        ServerKind::Redis,
        Manner::Says(b"-OOM command not allowed\r\n"),
    ),
    (
        "r-busy",
        ServerKind::Redis,
        Manner::Says(b"-BUSY Redis is busy\r\n"),
    ),
    (
        "r-loading",
        ServerKind::Redis,
        Manner::Says(b"-LOADING Redis is loading\r\n"),
    ),
    (
        "r-readonly",
        ServerKind::Redis,
        Manner::Says(b"-READONLY You can't write\r\n"),
    ),
    ("r-nonsense", ServerKind::Redis, Manner::Says(b"hello\r\n")),
    ("r-resp3", ServerKind::Redis, Manner::Says(b"_\r\n")),
    ("m-hang", ServerKind::Memcached, Manner::Hangs),
    ("m-fin", ServerKind::Memcached, Manner::Closes),
    (
        "m-error",
        ServerKind::Memcached,
        Manner::Says(b"SERVER_ERROR out of memory\r\n"),
    ),
    (
        "m-nonsense",
        ServerKind::Memcached,
        Manner::Says(b"hello\r\n"),
    ),
];

/// Everything that serves one side.
struct Stage {
    // Kept for as long as the conversations last.
    _servers: Vec<Server>,
    yaml: String,
    sockets: Vec<PathBuf>,
}

pub(super) fn compare(pair: &Pair) -> Vec<Cell> {
    let (Some(theirs), Some(ours)) = (spoken(&pair.theirs), spoken(&pair.ours)) else {
        return Vec::new();
    };
    let answers = theirs.into_iter().zip(ours);
    script::LINES
        .iter()
        .zip(answers)
        .map(|(line, (theirs, ours))| {
            let expect = if line.reason.is_empty() {
                Expect::Same
            } else {
                Expect::better(line.reason, with_line_ends(line.ours))
            };
            Cell {
                area: "replies",
                name: format!("{}: {}", line.pool, line.text),
                expect,
                theirs,
                ours,
            }
        })
        .collect()
}

fn with_line_ends(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// The answers to every line of the script, in order.
fn spoken(side: &Side) -> Option<Vec<Vec<u8>>> {
    let dir = private_dir();
    let stage = Stage::set(dir.path())?;
    let mut running = match side.serve(dir.path(), &stage.yaml, &stage.sockets) {
        Ok(running) => running,
        Err(error) => return Some(vec![error.into_bytes(); script::LINES.len()]),
    };
    let answers = script::LINES.iter().map(|line| {
        let socket = dir.path().join(format!("{}.pool", line.pool));
        let answer = converse(&socket, &request(line.pool, line.text));
        if running.ended() {
            return DIED.as_bytes().to_vec();
        }
        answer
    });
    Some(answers.collect())
}

/// The bytes of a line of the script. In a redis pool `|` stands between requests written as words,
/// and a text that begins with `=` is sent as it is; `\n` stands for a line end. The last request
/// shows whether the connection is still open.
fn request(pool: &str, text: &str) -> Vec<u8> {
    if pool.starts_with('m') {
        return [with_line_ends(text), b"get fence\r\n".to_vec()].concat();
    }
    let mut bytes = Vec::new();
    if let Some(raw) = text.strip_prefix('=') {
        bytes.extend(with_line_ends(raw));
    } else {
        for words in text.split('|') {
            let words = split_words(words.as_bytes()).expect("the script has no open quotes");
            bytes.extend(array_of(&words));
        }
    }
    bytes.extend(array_of(&["PING"]));
    bytes
}

impl Stage {
    fn set(dir: &Path) -> Option<Self> {
        let mut stage = Self {
            _servers: Vec::new(),
            yaml: String::new(),
            sockets: Vec::new(),
        };
        for (pool, kind, args, directives) in [
            ("r", ServerKind::Redis, &[][..], ""),
            (
                "r-auth",
                ServerKind::Redis,
                &["--requirepass", "secret"],
                "  redis_auth: secret\n",
            ),
            (
                "r-wrong",
                ServerKind::Redis,
                &["--requirepass", "secret"],
                "  redis_auth: wrong\n",
            ),
            ("m", ServerKind::Memcached, &[], ""),
        ] {
            let count = if pool.len() == 1 { 3 } else { 1 };
            let mut lines = String::new();
            for i in 0..count {
                let server = Server::start(kind, dir, &format!("{pool}{i}"), args)?;
                writeln!(lines, "    - {}:1 {pool}{i}", server.socket().display())
                    .expect("a string takes everything");
                stage._servers.push(server);
            }
            stage.pool(dir, pool, kind, directives, &lines);
        }
        for (pool, kind, manner) in BROKEN {
            let server = Canned::unix(dir, pool, manner);
            stage.pool(dir, pool, kind, "  timeout: 100\n", &server.line(1));
        }
        // Nobody listens on a port that was just given back.
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("the loopback interface is up")
            .port();
        for (kind, letter, manner) in [
            (ServerKind::Redis, "r", Manner::Redis),
            (ServerKind::Memcached, "m", Manner::Memcached),
        ] {
            let refused = format!("    - 127.0.0.1:{port}:1 down\n");
            stage.pool(dir, &format!("{letter}-refused"), kind, "", &refused);
            stage.pool(
                dir,
                &format!("{letter}-missing"),
                kind,
                "",
                "    - /nowhere/at/all:1 down\n",
            );
            stage.pool(
                dir,
                &format!("{letter}-host"),
                kind,
                "",
                "    - no.such.host.invalid:1:1 down\n",
            );
            let up = Canned::unix(dir, &format!("{letter}-up"), manner);
            stage.pool(
                dir,
                &format!("{letter}-half"),
                kind,
                "",
                &format!("{}{refused}", up.line(1)),
            );
        }
        Some(stage)
    }

    fn pool(&mut self, dir: &Path, name: &str, kind: ServerKind, directives: &str, servers: &str) {
        let socket = dir.join(format!("{name}.pool"));
        let redis = kind == ServerKind::Redis;
        write!(
            self.yaml,
            "{name}:\n  listen: {}\n  redis: {redis}\n{directives}  servers:\n{servers}",
            socket.display()
        )
        .expect("a string takes everything");
        self.sockets.push(socket);
    }
}
