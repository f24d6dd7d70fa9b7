//! Real servers and the proxy's binary on private sockets.
//!
//! Everything lives in one temporary directory per test: no fixed ports, nothing shared, so that
//! tests run alone and in parallel. Waiting is polling with a deadline. Children die with the value
//! that owns them, and with the test process even when that is killed.

mod config;
mod process;
mod proxy;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

pub use config::{ConfigBuilder, PoolBuilder};
pub use process::Process;
pub use proxy::Proxy;
pub use server::{Server, ServerKind};
use tempfile::TempDir;

use crate::wire::{DEADLINE, Wire};

/// The name of the pool of a [`Bed`].
pub const POOL: &str = "alpha";

/// The set-up of most tests: servers, one more server to ask directly, and a proxy with one pool in
/// front of the former.
#[derive(Debug)]
pub struct Bed {
    // Dropped in this order: the proxy before its servers, the directory last.
    /// The proxy.
    pub proxy: Proxy,
    /// The pool's servers, in the order of the file.
    pub servers: Vec<Server>,
    /// A server that is not in the pool: what would a lone server say?
    pub direct: Server,
    dir: TempDir,
}

impl Bed {
    /// Starts `count` servers, the direct one, and `binary` in front. `None`: the server program is
    /// not installed and the test is skipped, which was printed.
    #[must_use]
    pub fn start(binary: &str, kind: ServerKind, count: usize) -> Option<Self> {
        Self::start_with(binary, kind, count, |pool| pool)
    }

    /// The same, with the pool changed by `change`.
    #[must_use]
    pub fn start_with(
        binary: &str,
        kind: ServerKind,
        count: usize,
        change: impl FnOnce(PoolBuilder) -> PoolBuilder,
    ) -> Option<Self> {
        Self::start_with_servers(binary, kind, count, &[], change)
    }

    /// The same, with extra arguments for all servers.
    #[must_use]
    pub fn start_with_servers(
        binary: &str,
        kind: ServerKind,
        count: usize,
        server_args: &[&str],
        change: impl FnOnce(PoolBuilder) -> PoolBuilder,
    ) -> Option<Self> {
        let dir = private_dir();
        let direct = Server::start(kind, dir.path(), "direct", server_args)?;
        let servers: Vec<Server> = (0..count)
            .map(|i| Server::start(kind, dir.path(), &format!("s{i}"), server_args))
            .collect::<Option<_>>()?;
        let pool = change(PoolBuilder::new(POOL, kind).servers(&servers));
        let config = ConfigBuilder::new(dir.path()).pool(pool);
        let proxy = Proxy::start(binary, dir.path(), &config, &[]);
        Some(Self {
            proxy,
            servers,
            direct,
            dir,
        })
    }

    /// A new client of the proxy.
    #[must_use]
    #[track_caller]
    pub fn client(&self) -> Wire {
        self.proxy.connect(POOL)
    }

    /// The test's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A directory that vanishes with the returned value.
#[must_use]
pub fn private_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("nc-")
        .tempdir()
        .expect("a temporary directory can be made")
}

/// An address of the loopback interface on which nobody listened a moment ago. Another process may
/// take it in between: a listener of one's own is better where it can be handed over.
#[must_use]
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("the loopback interface is up")
}

/// Asks `question` again and again until it answers; `what` names the wait in the failure.
#[track_caller]
pub fn wait_for<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < until, "deadline passed: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
