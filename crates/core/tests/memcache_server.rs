//! The parser's decisions and its own words, held against a real memcached.
//!
//! For every line the server is asked too, on a connection of its own, with a `version` behind it
//! that shows where the server took the request to end.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with a real server waits for it, and fails by panicking"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use twemproxy_core::proto::{
    Parse, Protocol, RequestLimits, RequestParser, ResponseParser, ResponseStep, Then,
};

struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// `None` where memcached is not installed and need not be.
    fn start() -> Option<Self> {
        let socket = std::env::temp_dir().join(format!("memcache-{}.sock", std::process::id()));
        let child = Command::new("memcached")
            .args(["-u", "root", "-t", "1", "-s"])
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if std::env::var_os("CI").is_none() => {
                println!("skipped: memcached: {error}");
                return None;
            }
            Err(error) => panic!("memcached: {error}"),
        };
        let server = Self { child, socket };
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&server.socket).is_err() {
            assert!(Instant::now() < deadline, "memcached does not listen");
            std::thread::yield_now();
        }
        Some(server)
    }

    /// Everything the server says until it has read all of `request`; it is told that no more comes.
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(&self.socket).unwrap();
    }
}

const LIMITS: RequestLimits = RequestLimits {
    frame_len_max: 1 << 20,
    unauthenticated: false,
    allow_flush: true,
};
const VERSION: &[u8] = b"version\r\n";

/// Lines that we refuse although memcached 1.6.18 takes them: control bytes, and numbers that it
/// wraps or that only C calls numbers.
fn is_stricter(line: &str) -> bool {
    let numbers = [
        "+5",
        "-0",
        "4294967295",
        "4294967296",
        "2147483648",
        "-2147483649",
        "18446744073709551615",
    ];
    line.split(' ')
        .any(|word| numbers.contains(&word) || word.contains(['\t', '\u{1}']))
}

/// Lines whose words are drawn from what each place may hold, good and bad.
fn lines() -> Vec<String> {
    let long = "k".repeat(251);
    let longest = "k".repeat(250);
    let keys = [
        "k", "none", "noreply", "", &long, &longest, "a\tb", "a\u{1}", "h\u{e9}",
    ];
    let numbers = [
        "0",
        "1",
        "007",
        "-1",
        "-0",
        "+5",
        "x",
        "1x",
        "-",
        "",
        "noreply",
        "4294967295",
        "4294967296",
        "2147483647",
        "2147483648",
        "-2147483648",
        "-2147483649",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999",
    ];
    let tails = [
        "",
        " ",
        " noreply",
        " noreply ",
        " other",
        " 0",
        " 0 noreply",
        " a b c d e f",
    ];
    let mut lines: Vec<String> = [
        "",
        " ",
        "a",
        "bogus",
        "SET k 0 0 3",
        "get\tk",
        "bogus HTTP/1.0 x",
    ]
    .map(String::from)
    .to_vec();
    for key in keys {
        for name in ["set", "add", "cas", "append"] {
            lines.push(format!("{name} {key} 0 0 3"));
            lines.push(format!("{name} {key} 0 0 3 7"));
            lines.push(format!("{name} {key} 0 0 3 7 noreply"));
        }
        for tail in tails {
            for name in [
                "get", "gets", "gat", "gat 0", "gats -1", "gat x", "delete", "incr", "touch",
            ] {
                lines.push(format!("{name} {key}{tail}"));
            }
        }
    }
    for number in numbers {
        for line in [
            format!("set k {number} 0 3"),
            format!("set k 0 {number} 3"),
            format!("cas k 0 0 3 {number}"),
            format!("incr n {number}"),
            format!("decr n {number}"),
            format!("touch k {number}"),
            format!("gat {number} k"),
            format!("verbosity {number}"),
            format!("flush_all {number}"),
            format!("delete k {number}"),
        ] {
            lines.extend(tails.map(|tail| format!("{line}{tail}")));
        }
    }
    for name in [
        "version",
        "verbosity",
        "flush_all",
        "get",
        "set k 0 0",
        "  set  k  0  0  3",
    ] {
        lines.extend(tails.map(|tail| format!("{name}{tail}")));
    }
    lines
}

/// The number of responses in `bytes`, all of them whole.
fn responses(mut bytes: &[u8]) -> usize {
    let mut parser = ResponseParser::new(Protocol::Memcache);
    let mut count = 0;
    while !bytes.is_empty() {
        let ResponseStep::Done(len) = parser.step(bytes) else {
            panic!("not a response: {}", String::from_utf8_lossy(bytes));
        };
        bytes = &bytes[len..];
        count += 1;
    }
    count
}

#[test]
fn lines_mean_what_they_mean_to_memcached() {
    let Some(server) = Server::start() else {
        return;
    };
    let version = server.answer(VERSION);
    let (mut forwarded, mut refused) = (0, 0);
    for line in lines() {
        let is_storage = ["set", "add", "cas", "append"]
            .iter()
            .any(|name| line.trim_start().starts_with(name));
        for end in ["\r\n", "\n"] {
            let block = if is_storage { "abc\r\n" } else { "" };
            let input = format!("{line}{end}{block}");
            let input = input.as_bytes();
            let theirs = server.answer(&[input, VERSION].concat());
            let theirs = theirs.strip_suffix(&version[..]);
            let mut parser = RequestParser::new(Protocol::Memcache);
            let (len, reply) = match parser.parse(input, &LIMITS) {
                Parse::Complete(request) => {
                    assert_eq!(
                        usize::try_from(request.len).unwrap(),
                        input.len(),
                        "{line:?}"
                    );
                    let theirs = theirs.expect("a request that is sent ends where it ends");
                    let count = if request.noreply { 0 } else { 1 };
                    assert_eq!(responses(theirs), count, "{line:?}");
                    assert!(!theirs.starts_with(b"ERROR"), "{line:?}");
                    let ours = !request.noreply && theirs.starts_with(b"CLIENT_ERROR");
                    let is_value = theirs.ends_with(b"non-numeric value\r\n");
                    assert!(!ours || is_value, "{line:?} could have been refused");
                    forwarded += 1;
                    continue;
                }
                Parse::Invalid { invalid, len, then } => {
                    assert_eq!(then, Then::Continue, "{line:?}");
                    let mut reply = Vec::new();
                    invalid.write(&input[..len], &mut reply);
                    (len, reply)
                }
                Parse::Skip { len } => (len, Vec::new()),
                // The line announces more than the block that stands behind it.
                Parse::Incomplete { .. } => continue,
                other => panic!("{line:?}: {other:?}"),
            };
            assert!(len >= line.len() + end.len(), "{line:?}");
            refused += 1;
            // memcached may read the block as a further command.
            let theirs = theirs.expect("memcached reads on at the next line");
            let theirs = theirs
                .strip_suffix(b"ERROR\r\n")
                .filter(|_| is_storage)
                .unwrap_or(theirs);
            if !is_stricter(&line) {
                assert_eq!(
                    String::from_utf8_lossy(&reply),
                    String::from_utf8_lossy(theirs),
                    "{line:?}"
                );
            }
        }
    }
    assert!(forwarded > 500 && refused > 500, "{forwarded} {refused}");
}
