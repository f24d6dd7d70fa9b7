//! The statistics port: whoever connects gets one JSON object and is closed.
//!
//! One thread answers one client at a time; a client that does not take its answer is cut off, so
//! that it cannot hold up the next one for long. Workers are not involved: the thread reads their
//! counters at each query.

#[cfg(test)]
mod docs;
mod json;
mod snapshot;

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use twemproxy_core::config::Config;
use twemproxy_core::counters::Counters;
use twemproxy_core::topology::Topology;

use crate::limits::{ACCEPT_PAUSE, STATS_WRITE_WAIT};
use crate::log::{Level, log};
use crate::net::errno;
use crate::net::listener::SocketFile;
use snapshot::Snapshot;

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

/// What an answer is made of.
#[derive(Debug)]
pub(crate) struct StatsSource {
    /// Names of pools and servers.
    pub(crate) config: Arc<Config>,
    /// Of each pool.
    pub(crate) topologies: Vec<Arc<Topology>>,
    /// Of each worker.
    pub(crate) counters: Vec<Arc<Counters>>,
    /// How many listeners are open.
    pub(crate) open_listeners: Arc<AtomicU64>,
    /// The host's name.
    pub(crate) source: String,
    /// When the process started.
    pub(crate) started: Instant,
}

impl StatsListener {
    /// Opens the port; with a unix path, also returns its file.
    pub(crate) fn open(address: &str, port: u16) -> Result<(Self, Option<SocketFile>), StatsError> {
        let name = format!("'{address}:{port}'");
        if address.starts_with('/') {
            let path = Path::new(address);
            let target = SockAddr::unix(path).map_err(step("stats server addr", &name))?;
            // compat: a file that is in the way stays, and is an error.
            let socket = bind(Domain::UNIX, &target, &name)?;
            let file = SocketFile::of(path).map_err(step("stats server addr", &name))?;
            return Ok((Self(socket), Some(file)));
        }
        let target: SocketAddr = twemproxy_config::addresses(address, port)
            .and_then(|all| {
                all.into_iter()
                    .next()
                    .ok_or_else(|| io::ErrorKind::NotFound.into())
            })
            .map_err(step("address resolution of stats server addr", &name))?;
        let socket = bind(Domain::for_address(target), &target.into(), &name)?;
        Ok((Self(socket), None))
    }

    /// Answers for ever.
    pub(crate) fn run(&self, source: &StatsSource) {
        let m = self.0.as_raw_fd();
        loop {
            match self.0.accept() {
                Ok((client, _)) => answer(&client, source),
                Err(error) => {
                    log!(
                        Level::Error,
                        "accept on m {m} failed: {}",
                        errno::text(&error)
                    );
                    if errno::is_exhaustion(&error) {
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
        }
    }
}

fn answer(client: &Socket, source: &StatsSource) {
    if let Err(error) = send_all(client, source.render().as_bytes(), STATS_WRITE_WAIT) {
        let (sd, text) = (client.as_raw_fd(), errno::text(&error));
        log!(Level::Error, "send stats on sd {sd} failed: {text}");
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

/// The wait is for the whole answer, or a client that takes it byte by byte holds up others.
fn send_all(mut client: &Socket, mut bytes: &[u8], wait: Duration) -> io::Result<()> {
    let deadline = Instant::now() + wait;
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_write_timeout(Some(left))?;
        match client.write(bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    client.shutdown(Shutdown::Write)
}

fn bind(domain: Domain, target: &SockAddr, name: &str) -> Result<Socket, StatsError> {
    let socket = Socket::new(domain, Type::STREAM, None)
        .map_err(step("socket for stats server addr", name))?;
    let m = socket.as_raw_fd();
    if domain != Domain::UNIX {
        socket.set_reuse_address(true).map_err(step(
            &format!("set reuseaddr on m {m} for stats server"),
            name,
        ))?;
    }
    socket
        .bind(target)
        .map_err(step(&format!("bind on m {m} to stats server addr"), name))?;
    socket
        .listen(BACKLOG)
        .map_err(step(&format!("listen on m {m} for stats server"), name))?;
    Ok(socket)
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
    use std::os::unix::net::UnixStream;
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
        let (listener, file) = StatsListener::open("127.0.0.1", 0).unwrap();
        assert!(file.is_none());
        let client = TcpStream::connect(("127.0.0.1", local_port(&listener))).unwrap();
        answer(&listener.0.accept().unwrap().0, &source());
        let text = read_all(client);
        assert!(
            text.starts_with(r#"{"service":"nutcracker", "source":"host1", "version":"0.5.0", "#)
        );
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn an_asterisk_is_the_loopback_interface() {
        let (listener, _) = StatsListener::open("*", 0).unwrap();
        let address = listener.0.local_addr().unwrap().as_socket().unwrap();
        assert!(address.ip().is_loopback(), "{address}");
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_unix_path_serves_too_and_is_not_taken_from_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats").display().to_string();
        let (listener, file) = StatsListener::open(&path, 22222).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        answer(&listener.0.accept().unwrap().0, &source());
        assert!(read_all(client).contains(r#""alpha": {"#));

        let error = StatsListener::open(&path, 22222).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!(
                " to stats server addr '{path}:22222' failed: Address already in use"
            )),
            "{error}"
        );
        drop(file);
        assert!(!Path::new(&path).exists());
    }

    #[test]
    fn a_port_in_use_is_an_error_even_for_the_same_user() {
        let (first, _) = StatsListener::open("127.0.0.1", 0).unwrap();
        let port = local_port(&first);
        let text = StatsListener::open("127.0.0.1", port)
            .unwrap_err()
            .to_string();
        assert!(text.starts_with("bind on m "), "{text}");
        let want =
            format!("to stats server addr '127.0.0.1:{port}' failed: Address already in use");
        assert!(text.ends_with(&want), "{text}");
    }

    #[test]
    fn a_client_that_reads_nothing_is_cut_off() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let more_than_a_socket_buffers = vec![b'x'; 16 << 20];
        let wait = Duration::from_millis(50);
        let sent = send_all(&ours.into(), &more_than_a_socket_buffers, wait);
        let kind = sent.unwrap_err().kind();
        assert!(matches!(
            kind,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ));
    }
}
