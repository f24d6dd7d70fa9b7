//! Every redis and valkey that the tests are told of, for questions without a proxy in between.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Programs separated by colons. The default is the installed one.
const SERVERS: &str = "REDIS_SERVERS";

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// One running server.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
    /// The program and its version, for messages.
    pub(crate) name: String,
    pub(crate) is_valkey: bool,
}

/// Starts each of the servers. None, with a word, if nobody named any and none is installed.
pub(crate) fn start_all() -> Vec<Server> {
    let Some(list) = std::env::var_os(SERVERS) else {
        return Server::start("redis-server").into_iter().collect();
    };
    let list = list.into_string().expect("a list of paths");
    let start = |program| {
        let server = Server::start(program);
        server.unwrap_or_else(|| panic!("{SERVERS}: {program} is not there"))
    };
    list.split(':').map(start).collect()
}

impl Server {
    /// `None` where the program is not installed and need not be.
    fn start(program: &str) -> Option<Self> {
        // Tests of one process start their own servers at the same time.
        let place = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("redis-{}-{place}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let child = Command::new(program)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(std::env::temp_dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if std::env::var_os("CI").is_none() => {
                println!("skipped: {program}: {error}");
                return None;
            }
            Err(error) => panic!("{program}: {error}"),
        };
        let mut server = Self {
            child,
            socket,
            name: program.to_owned(),
            is_valkey: false,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&server.socket).is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            std::thread::yield_now();
        }
        let info = server.answer(b"INFO server\r\n");
        let info = String::from_utf8_lossy(&info);
        let version = |kind: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(kind).map(str::to_owned))
        };
        server.is_valkey = version("valkey_version:").is_some();
        let version = version("valkey_version:").or_else(|| version("redis_version:"));
        server.name = format!("{program} {}", version.expect("servers say their version"));
        println!("{}", server.name);
        Some(server)
    }

    /// Everything the server says until it has read all of `request`; it is told that no more comes.
    pub(crate) fn answer(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let timeout = Some(Duration::from_secs(20));
        stream.set_read_timeout(timeout).unwrap();
        stream.set_write_timeout(timeout).unwrap();
        // A server that has closed takes no more, which the answer tells.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(&self.socket);
    }
}
