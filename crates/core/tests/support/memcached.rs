//! Every memcached that the tests are told of, for questions without a proxy in between.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Programs separated by colons. The default is the installed one.
const SERVERS: &str = "MEMCACHED_SERVERS";

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// One running memcached.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
    /// Its answer to `version`.
    pub(crate) version: Vec<u8>,
}

/// Starts each of the servers. None, with a word, if nobody named any and none is installed.
pub(crate) fn start_all() -> Vec<Server> {
    let Some(list) = std::env::var_os(SERVERS) else {
        return Server::start("memcached").into_iter().collect();
    };
    let list = list.into_string().expect("a list of paths");
    let start = |program| {
        let server = Server::start(program);
        server.unwrap_or_else(|| panic!("{SERVERS}: {program} is not there"))
    };
    let servers: Vec<_> = list.split(':').map(start).collect();
    assert!(!servers.is_empty(), "{SERVERS} is empty");
    servers
}

impl Server {
    /// `None` where the program is not installed and need not be.
    fn start(program: &str) -> Option<Self> {
        // Tests of one process start their own servers at the same time.
        let place = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("memcache-{}-{place}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let child = Command::new(program)
            .args(["-u", "root", "-t", "1", "-s"])
            .arg(&socket)
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
            version: Vec::new(),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&server.socket).is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            std::thread::yield_now();
        }
        server.version = server.answer(VERSION);
        println!("{program}: {}", String::from_utf8_lossy(&server.version));
        Some(server)
    }

    /// A connection that gives up after ten seconds.
    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        let timeout = Some(Duration::from_secs(10));
        stream.set_read_timeout(timeout).unwrap();
        stream.set_write_timeout(timeout).unwrap();
        stream
    }

    /// Everything the server says until it has read all of `request`; it is told that no more comes.
    pub(crate) fn answer(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
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

pub(crate) const VERSION: &[u8] = b"version\r\n";
