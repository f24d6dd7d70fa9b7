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

use twemproxy_config::{ProxyConfig, ServerAddress};
use twemproxy_core::engine::Closed;
use twemproxy_core::ids::{ConnId, ServerConnId, ServerId};
use twemproxy_core::table::Table;
use twemproxy_core::topology::Topology;

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

/// Where each server is.
pub(crate) type Endpoints = Table<ServerId, Endpoint>;

/// The endpoints of the servers of `config`, whose pools have `topologies`.
pub(crate) fn endpoints(config: &ProxyConfig, topologies: &[Arc<Topology>]) -> Arc<Endpoints> {
    let pools = config.pools.iter().zip(topologies);
    let servers = pools.flat_map(|(pool, topology)| topology.shards.iter().zip(&pool.servers));
    let endpoints = servers.map(|(shard, address)| (shard.primary, Endpoint::from(address)));
    Arc::new(endpoints.collect())
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
    endpoints: Arc<Endpoints>,
    attempts: Slots<Attempt>,
    /// Where in a server's list of addresses the next attempt begins, if not at its start.
    first_address: Table<ServerId, usize>,
    resolver: Sender<Lookup>,
    worker: usize,
}

#[derive(Debug)]
struct Attempt {
    server: ServerId,
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
    pub(crate) fn new(endpoints: Arc<Endpoints>, resolver: Sender<Lookup>, worker: usize) -> Self {
        Self {
            first_address: Table::default(),
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
        server: ServerId,
    ) -> Progress {
        let mut attempt = Attempt {
            server,
            stream: None,
            untried: Vec::new().into_iter(),
        };
        let begun = match self.endpoints.get(server) {
            // It has left meanwhile.
            None => Err(Closed::HostDown),
            Some(Endpoint::Unix(path)) => Stream::connect_unix(path)
                .and_then(|stream| attempt.watch(poller, conn, stream))
                .map_err(|error| errno::closed(&error)),
            Some(Endpoint::Address(address)) => {
                attempt.untried = vec![*address].into_iter();
                attempt.try_next(poller, conn, Closed::HostDown)
            }
            Some(Endpoint::Name { .. }) => {
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

    /// Goes on with an attempt whose name was looked up; `Err` says why it could not be.
    pub(crate) fn resolved(
        &mut self,
        poller: &Poller,
        conn: ServerConnId,
        addresses: Result<Vec<SocketAddr>, Closed>,
    ) -> Progress {
        let Some(mut attempt) = self.take(conn) else {
            return Progress::Pending;
        };
        let (mut addresses, why) = match addresses {
            Ok(addresses) => (addresses, Closed::HostDown),
            Err(why) => (Vec::new(), why),
        };
        if !addresses.is_empty() {
            let first = self.first_address.get(attempt.server);
            let first = first.copied().unwrap_or_default() % addresses.len();
            addresses.rotate_left(first);
        }
        attempt.untried = addresses.into_iter();
        let begun = attempt.try_next(poller, conn, why);
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
            let first = self.first_address.get(attempt.server);
            let next = first.copied().unwrap_or_default().wrapping_add(1);
            self.first_address.insert(attempt.server, next);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::poller::Events;
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    const CONN: ServerConnId = ServerConnId {
        index: 5,
        generation: 2,
    };
    const SERVER: ServerId = ServerId::initial(0);

    struct World {
        dialer: Dialer,
        poller: Poller,
        lookups: Receiver<Lookup>,
    }

    impl World {
        fn new(endpoint: Endpoint) -> Self {
            let (resolver, lookups) = channel();
            Self {
                dialer: Dialer::new(
                    Arc::new([(SERVER, endpoint)].into_iter().collect()),
                    resolver,
                    0,
                ),
                poller: Poller::new().unwrap(),
                lookups,
            }
        }

        fn named() -> Self {
            Self::new(Endpoint::Name {
                host: "name".into(),
                port: 1,
            })
        }

        fn dial(&mut self) -> Progress {
            self.dialer.dial(&self.poller, CONN, SERVER)
        }

        /// Dials, and answers the look-up.
        fn dial_name(&mut self, addresses: &[SocketAddr]) -> Progress {
            assert!(matches!(self.dial(), Progress::Pending));
            let lookup = self.lookups.try_recv().expect("the name is asked for");
            assert_eq!((lookup.conn, lookup.server), (CONN, SERVER));
            let answer = Ok(addresses.to_vec());
            self.dialer.resolved(&self.poller, CONN, answer)
        }

        /// Follows the edges until the attempt has ended.
        fn finish(&mut self, mut progress: Progress) -> Result<Stream, Closed> {
            let mut events = Events::with_capacity(8);
            loop {
                match progress {
                    Progress::Connected(stream) => return Ok(stream),
                    Progress::Failed(why) => return Err(why),
                    Progress::Pending => {}
                }
                self.poller.wait(&mut events, Some(Duration::from_secs(10)));
                let event = events.iter().next().expect("an edge before the deadline");
                assert_eq!(event.token, ConnId::from(CONN).token());
                progress = self.dialer.ready(&self.poller, CONN);
            }
        }
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Bound, so that nobody else takes it, but not listened on.
    fn refusing() -> (socket2::Socket, SocketAddr) {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    #[test]
    fn a_literal_address_is_connected_without_a_look_up() {
        let (_listener, address) = listener();
        let mut world = World::new(Endpoint::Address(address));
        let begun = world.dial();
        let stream = world.finish(begun).unwrap();
        assert_eq!(stream.peer(), address.to_string());
        assert!(world.lookups.try_recv().is_err());
    }

    #[test]
    fn all_addresses_of_a_name_are_tried_in_turn() {
        let (_refusing, bad) = refusing();
        let (_listener, good) = listener();
        let mut world = World::named();
        let begun = world.dial_name(&[bad, bad, good]);
        assert_eq!(world.finish(begun).unwrap().peer(), good.to_string());
    }

    #[test]
    fn an_attempt_fails_with_the_reason_of_its_last_address() {
        let (_refusing, bad) = refusing();
        let mut world = World::named();
        let begun = world.dial_name(&[bad, bad]);
        assert_eq!(world.finish(begun).unwrap_err(), Closed::Refused);

        assert!(matches!(world.dial(), Progress::Pending));
        let none = Err(Closed::TooManyFiles);
        let begun = world.dialer.resolved(&world.poller, CONN, none);
        assert_eq!(world.finish(begun).unwrap_err(), Closed::TooManyFiles);

        let begun = world.dial_name(&[]);
        assert_eq!(world.finish(begun).unwrap_err(), Closed::HostDown);
    }

    #[test]
    fn an_attempt_given_up_moves_the_next_one_to_the_next_address() {
        let (_first, first) = listener();
        let (_second, second) = listener();
        let mut world = World::named();
        assert!(matches!(
            world.dial_name(&[first, second]),
            Progress::Pending
        ));
        world.dialer.cancel(CONN);
        let begun = world.dial_name(&[first, second]);
        assert_eq!(world.finish(begun).unwrap().peer(), second.to_string());
    }

    #[test]
    fn an_answer_for_an_attempt_given_up_is_dropped() {
        let (_listener, address) = listener();
        let mut world = World::named();
        assert!(matches!(world.dial(), Progress::Pending));
        world.dialer.cancel(CONN);
        let late = world
            .dialer
            .resolved(&world.poller, CONN, Ok(vec![address]));
        assert!(matches!(late, Progress::Pending));
        let ready = world.dialer.ready(&world.poller, CONN);
        assert!(matches!(ready, Progress::Pending));
    }

    #[test]
    fn unix_sockets_fail_with_their_own_reasons() {
        let missing = Endpoint::Unix("/nonexistent/socket".into());
        let mut world = World::new(missing);
        let begun = world.dial();
        assert_eq!(world.finish(begun).unwrap_err(), Closed::NoSuchFile);

        let mut world = World::new(Endpoint::Unix(format!("/{}", "x".repeat(200)).into()));
        let begun = world.dial();
        assert_eq!(world.finish(begun).unwrap_err(), Closed::HostDown);
    }

    #[test]
    fn only_names_need_a_resolver() {
        let tcp = |host: &str| {
            Endpoint::from(&ServerAddress::Tcp {
                host: host.into(),
                port: 7,
            })
        };
        assert_eq!(
            tcp("10.0.0.1"),
            Endpoint::Address("10.0.0.1:7".parse().unwrap())
        );
        assert_eq!(tcp("::1"), Endpoint::Address("[::1]:7".parse().unwrap()));
        assert!(matches!(tcp("localhost"), Endpoint::Name { .. }));
    }
}
