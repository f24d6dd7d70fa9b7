//! Connections to servers that do not stand yet: names being looked up, addresses being tried.
//!
//! A name may have several addresses; they are tried in turn before the attempt counts as failed.
//! An attempt that the engine gives up (its deadline passed) moves the next one of that server to
//! the next address, so that a silent first address does not hide a working second one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::vec;

use twemproxy_core::engine::Closed;
use twemproxy_core::ids::{ConnId, ServerConnId, ServerIdx};

use crate::config::{ProxyConfig, ServerAddress};
use crate::mail::Lookup;
use crate::net::errno;
use crate::net::poller::Poller;
use crate::net::stream::Stream;
use crate::slots::Slots;

/// Where a server is, as far as it can be known without asking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    /// A literal address.
    Address(SocketAddr),
    /// A name for the resolver.
    Name {
        /// Host name.
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// The endpoints of all servers, by [`ServerIdx`].
pub(crate) fn endpoints(config: &ProxyConfig) -> Arc<[Endpoint]> {
    config
        .pools
        .iter()
        .flat_map(|pool| &pool.servers)
        .map(Endpoint::from)
        .collect()
}

impl From<&ServerAddress> for Endpoint {
    fn from(address: &ServerAddress) -> Self {
        match address {
            ServerAddress::Unix(path) => Self::Unix(path.clone()),
            ServerAddress::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => Self::Address(SocketAddr::new(ip, *port)),
                Err(_) => Self::Name {
                    host: host.clone(),
                    port: *port,
                },
            },
        }
    }
}

/// The attempts of one worker.
#[derive(Debug)]
pub(crate) struct Dialer {
    endpoints: Arc<[Endpoint]>,
    attempts: Slots<Attempt>,
    /// Per server: where in its list of addresses the next attempt begins.
    first_address: Box<[usize]>,
    resolver: Sender<Lookup>,
    worker: usize,
}

#[derive(Debug)]
struct Attempt {
    server: ServerIdx,
    /// `None` while the name is looked up.
    stream: Option<Stream>,
    untried: vec::IntoIter<SocketAddr>,
}

/// How an attempt stands.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Neither one nor the other yet.
    Pending,
    /// It succeeded, and is no attempt any more.
    Connected(Stream),
    /// It failed at all addresses, and is no attempt any more.
    Failed(Closed),
}

impl Dialer {
    /// A dialer of `worker`, which asks `resolver` for names.
    pub(crate) fn new(endpoints: Arc<[Endpoint]>, resolver: Sender<Lookup>, worker: usize) -> Self {
        Self {
            first_address: vec![0; endpoints.len()].into(),
            endpoints,
            attempts: Slots::new(),
            resolver,
            worker,
        }
    }

    /// Begins an attempt.
    pub(crate) fn dial(
        &mut self,
        poller: &Poller,
        conn: ServerConnId,
        server: ServerIdx,
    ) -> Progress {
        let mut attempt = Attempt {
            server,
            stream: None,
            untried: Vec::new().into_iter(),
        };
        let begun = match &self.endpoints[server.index()] {
            Endpoint::Unix(path) => Stream::connect_unix(path)
                .and_then(|stream| attempt.watch(poller, conn, stream))
                .map_err(|error| errno::closed(&error)),
            Endpoint::Address(address) => {
                attempt.untried = vec![*address].into_iter();
                attempt.try_next(poller, conn, Closed::HostDown)
            }
            Endpoint::Name { .. } => {
                let question = Lookup {
                    worker: self.worker,
                    conn,
                    server,
                };
                // The resolver ends after the workers.
                self.resolver.send(question).map_err(|_| Closed::HostDown)
            }
        };
        self.keep(conn, attempt, begun)
    }

    /// Goes on with an attempt whose name was looked up.
    pub(crate) fn resolved(
        &mut self,
        poller: &Poller,
        conn: ServerConnId,
        addresses: io::Result<Vec<SocketAddr>>,
    ) -> Progress {
        let Some(mut attempt) = self.take(conn) else {
            return Progress::Pending;
        };
        let mut addresses = addresses.unwrap_or_default();
        if !addresses.is_empty() {
            let first = self.first_address[attempt.server.index()] % addresses.len();
            addresses.rotate_left(first);
        }
        attempt.untried = addresses.into_iter();
        let begun = attempt.try_next(poller, conn, Closed::HostDown);
        self.keep(conn, attempt, begun)
    }

    /// Looks what an edge of the attempt's socket means.
    pub(crate) fn ready(&mut self, poller: &Poller, conn: ServerConnId) -> Progress {
        let Some(mut attempt) = self.take(conn) else {
            return Progress::Pending;
        };
        let Some(stream) = attempt.stream.take() else {
            return self.keep(conn, attempt, Ok(()));
        };
        let why = match stream.take_error() {
            Ok(None) => return Progress::Connected(stream),
            Ok(Some(error)) | Err(error) => errno::closed(&error),
        };
        drop(stream);
        let begun = attempt.try_next(poller, conn, why);
        self.keep(conn, attempt, begun)
    }

    /// Gives an attempt up.
    pub(crate) fn cancel(&mut self, conn: ServerConnId) {
        if let Some(attempt) = self.take(conn)
            && attempt.stream.is_some()
        {
            let first = &mut self.first_address[attempt.server.index()];
            *first = first.wrapping_add(1);
        }
    }

    fn take(&mut self, conn: ServerConnId) -> Option<Attempt> {
        self.attempts.remove(conn.index, conn.generation)
    }

    fn keep(
        &mut self,
        conn: ServerConnId,
        attempt: Attempt,
        begun: Result<(), Closed>,
    ) -> Progress {
        match begun {
            Ok(()) => {
                self.attempts.insert(conn.index, conn.generation, attempt);
                Progress::Pending
            }
            Err(why) => Progress::Failed(why),
        }
    }
}

impl Attempt {
    /// Begins with the next address that does not fail at once; `why` is what the last one failed
    /// with.
    fn try_next(
        &mut self,
        poller: &Poller,
        conn: ServerConnId,
        mut why: Closed,
    ) -> Result<(), Closed> {
        for address in self.untried.by_ref() {
            let begun = Stream::connect_tcp(address);
            match begun.and_then(|stream| watch(poller, conn, stream)) {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error) => why = errno::closed(&error),
            }
        }
        Err(why)
    }

    fn watch(&mut self, poller: &Poller, conn: ServerConnId, stream: Stream) -> io::Result<()> {
        self.stream = Some(watch(poller, conn, stream)?);
        Ok(())
    }
}

/// Registers the socket for as long as it lives: the connection that comes of it keeps its token.
fn watch(poller: &Poller, conn: ServerConnId, mut stream: Stream) -> io::Result<Stream> {
    poller.add(&mut stream, ConnId::from(conn).token())?;
    Ok(stream)
}
