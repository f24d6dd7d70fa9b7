//! The statistics port: whoever connects gets one JSON object and is closed.
//!
//! One thread serves all clients side by side (`visitors.rs`). Workers are not involved: the thread
//! reads their counters when somebody comes.

#[cfg(test)]
mod docs;
mod json;
mod snapshot;
mod visitors;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Socket, Type};
use thiserror::Error;
use twemproxy_core::config::Config;
use twemproxy_core::counters::Counters;
use twemproxy_core::topology::Topology;

use crate::net::errno;
use crate::net::listener::SocketFile;
use snapshot::Snapshot;
use visitors::Door;

/// The listening socket of the statistics port: `-a ADDRESS -s PORT` or `-a /path`.
#[derive(Debug)]
pub(crate) struct StatsListener(Socket);

/// Why the statistics port cannot be opened, in the original's words.
#[derive(Debug, Error)]
#[error("{step} failed: {}", errno::text(.error))]
pub(crate) struct StatsError {
    step: String,
    error: io::Error,
}

/// The sources of an answer.
#[derive(Debug)]
pub(crate) struct StatsSource {
    /// Names of pools and servers.
    pub(crate) config: Arc<Config>,
    /// Those of each pool.
    pub(crate) topologies: Vec<Arc<Topology>>,
    /// Those of each worker.
    pub(crate) counters: Vec<Arc<Counters>>,
    /// How many listeners are open.
    pub(crate) open_listeners: Arc<AtomicU64>,
    /// The host's name.
    pub(crate) source: String,
    /// When the process started.
    pub(crate) started: Instant,
}

impl StatsListener {
    /// Opens the port; with a unix path, also returns its file, which has `mode` or what the umask
    /// leaves.
    pub(crate) fn open(
        address: &str,
        port: u16,
        mode: Option<u32>,
    ) -> Result<(Self, Option<SocketFile>), StatsError> {
        let name = format!("'{address}:{port}'");
        if address.starts_with('/') {
            let socket = new_socket(Domain::UNIX, &name)?;
            let file = bind_unix(&socket, Path::new(address), mode)
                .map_err(step(&bind_step(&socket), &name))?;
            listen(&socket, &name)?;
            return Ok((Self(socket), Some(file)));
        }
        let target: SocketAddr = twemproxy_config::addresses(address, port)
            .and_then(|all| {
                all.into_iter()
                    .next()
                    .ok_or_else(|| io::ErrorKind::NotFound.into())
            })
            .map_err(step("address resolution of stats server addr", &name))?;
        let socket = new_socket(Domain::for_address(target), &name)?;
        let m = socket.as_raw_fd();
        socket.set_reuse_address(true).map_err(step(
            &format!("set reuseaddr on m {m} for stats server"),
            &name,
        ))?;
        socket
            .bind(&target.into())
            .map_err(step(&bind_step(&socket), &name))?;
        listen(&socket, &name)?;
        Ok((Self(socket), None))
    }

    /// Answers for ever.
    pub(crate) fn run(&self, source: &StatsSource) {
        Door::new(&self.0, &|| source.render()).run();
    }
}

impl StatsSource {
    /// The answer to one query.
    fn render(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let listeners_ever = u64::try_from(self.config.pools.len()).unwrap_or(u64::MAX);
        let listeners_now = self.open_listeners.load(Ordering::Relaxed);
        let workers = self.counters.iter();
        let total = workers.clone().map(|c| c.total_connections.value());
        let curr = workers.map(|c| c.curr_connections.value());
        json::render(&Snapshot {
            source: &self.source,
            uptime: self.started.elapsed().as_secs(),
            timestamp: now.unwrap_or_default().as_secs(),
            total_connections: snapshot::sum(total.chain([listeners_ever])),
            curr_connections: snapshot::sum(curr.chain([listeners_now])),
            pools: snapshot::pools(&self.config, &self.topologies, &self.counters),
        })
    }
}

fn new_socket(domain: Domain, name: &str) -> Result<Socket, StatsError> {
    let kind = Type::STREAM.nonblocking();
    Socket::new(domain, kind, None).map_err(step("socket for stats server addr", name))
}

/// The mode is set before anybody can connect.
fn bind_unix(socket: &Socket, path: &Path, mode: Option<u32>) -> io::Result<SocketFile> {
    let file = SocketFile::bind(socket, path)?;
    if let Some(mode) = mode {
        file.set_mode(mode)?;
    }
    Ok(file)
}

fn bind_step(socket: &Socket) -> String {
    format!("bind on m {} to stats server addr", socket.as_raw_fd())
}

fn listen(socket: &Socket, name: &str) -> Result<(), StatsError> {
    let m = socket.as_raw_fd();
    socket
        .listen(BACKLOG)
        .map_err(step(&format!("listen on m {m} for stats server"), name))
}

/// `SOMAXCONN` of old; the kernel lowers it to its own bound.
const BACKLOG: i32 = 4096;

fn step(step: &str, name: &str) -> impl FnOnce(io::Error) -> StatsError {
    let step = format!("{step} {name}");
    move |error| StatsError { step, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use twemproxy_core::config::PoolConfig;
    use twemproxy_core::owner::HealthOwner;
    use twemproxy_core::proto::Protocol;

    fn source() -> StatsSource {
        let config = Config {
            pools: vec![PoolConfig::new("alpha", Protocol::Redis)],
            ..Config::default()
        };
        let topologies = HealthOwner::new(&config).topologies();
        StatsSource {
            counters: vec![Arc::new(Counters::new(&topologies))],
            topologies,
            config: Arc::new(config),
            open_listeners: Arc::new(AtomicU64::new(1)),
            source: "host1".into(),
            started: Instant::now(),
        }
    }

    /// Answers for as long as the test lives.
    fn run(listener: StatsListener) {
        thread::spawn(move || listener.run(&source()));
    }

    fn read_all(mut client: impl Read) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    fn local_port(listener: &StatsListener) -> u16 {
        let address = listener.0.local_addr().unwrap();
        address.as_socket().unwrap().port()
    }

    #[test]
    fn a_tcp_client_gets_one_object_and_the_end() {
        let (listener, file) = StatsListener::open("127.0.0.1", 0, None).unwrap();
        assert!(file.is_none());
        let client = TcpStream::connect(("127.0.0.1", local_port(&listener))).unwrap();
        run(listener);
        let text = read_all(client);
        assert!(
            text.starts_with(r#"{"service":"nutcracker", "source":"host1", "version":"0.5.0", "#)
        );
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn an_asterisk_is_the_loopback_interface() {
        let (listener, _) = StatsListener::open("*", 0, None).unwrap();
        let address = listener.0.local_addr().unwrap().as_socket().unwrap();
        assert!(address.ip().is_loopback(), "{address}");
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_unix_path_serves_too_and_is_not_taken_from_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats").display().to_string();
        let (listener, file) = StatsListener::open(&path, 22222, None).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        run(listener);
        assert!(read_all(client).contains(r#""alpha": {"#));

        let error = StatsListener::open(&path, 22222, None)
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with(&format!(
                " to stats server addr '{path}:22222' failed: Address already in use"
            )),
            "{error}"
        );
        drop(file);
        assert!(!Path::new(&path).exists());
    }

    // D66
    #[test]
    fn the_socket_of_a_process_that_was_killed_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let name = path.display().to_string();
        let (listener, _file) = StatsListener::open(&name, 22222, Some(0o640)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let client = UnixStream::connect(&path).unwrap();
        run(listener);
        assert!(read_all(client).contains(r#""alpha": {"#));
    }

    #[test]
    fn a_port_in_use_is_an_error_even_for_the_same_user() {
        let (first, _) = StatsListener::open("127.0.0.1", 0, None).unwrap();
        let port = local_port(&first);
        let text = StatsListener::open("127.0.0.1", port, None)
            .unwrap_err()
            .to_string();
        assert!(text.starts_with("bind on m "), "{text}");
        let want =
            format!("to stats server addr '127.0.0.1:{port}' failed: Address already in use");
        assert!(text.ends_with(&want), "{text}");
    }
}
