//! An engine driven by hand: a test plays the shell, the clients and the servers, in virtual time.
//!
//! After every step all actions are performed and the engine's invariants are checked, so a
//! scenario reads like the story it tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use twemproxy_core::config::{Config, PoolConfig, ServerConfig};
use twemproxy_core::engine::{Action, ClientEnd, Closed, Engine, Notice, Refused};
use twemproxy_core::ids::{ClientId, ConnId, PoolIdx, ServerConnId, ServerId};
use twemproxy_core::owner::HealthOwner;
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::{Micros, Span};

/// The outcome of a connection attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnConnect {
    /// It stands at once.
    Accept,
    /// It fails at once.
    Fail(Closed),
    /// Nothing happens until the test says so.
    Hang,
}

/// One end of a connection as the test sees it.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes the proxy wrote and the test has not looked at.
    written: Vec<u8>,
    /// How many more bytes the kernel takes; `None` is any number.
    room: Option<usize>,
    closed: bool,
    read_paused: bool,
}

/// The engine and the world around it.
#[derive(Debug)]
pub struct Hand {
    /// The engine itself.
    pub engine: Engine,
    /// The owner of the servers' health; without it a test plays its part.
    pub owner: Option<HealthOwner>,
    /// Now.
    pub now: Micros,
    /// Everything the engine thought worth saying.
    pub notices: Vec<Notice>,
    /// How each server treats connection attempts; accepting is the default.
    pub on_connect: BTreeMap<ServerId, OnConnect>,
    pipes: BTreeMap<ConnId, Pipe>,
    conns: Vec<(ServerId, ServerConnId)>,
}

/// A pool `name` of `servers` equal servers called `s0`, `s1`, ..., with twemproxy's defaults.
#[must_use]
pub fn pool(protocol: Protocol, servers: usize) -> PoolConfig {
    let mut pool = PoolConfig::new("pool", protocol);
    pool.servers = (0..servers)
        .map(|i| ServerConfig {
            name: format!("s{i}").into(),
            weight: 1,
        })
        .collect();
    pool
}

impl Hand {
    /// A world around an engine that serves `pool`.
    #[must_use]
    pub fn new(pool: PoolConfig) -> Self {
        Self::with_config(Config {
            pools: vec![pool],
            ..Config::default()
        })
    }

    /// A world around an engine with a whole configuration.
    #[must_use]
    pub fn with_config(config: Config) -> Self {
        let now = Micros(1_000_000);
        let owner = HealthOwner::new(&config);
        let mut engine = Engine::new(Arc::new(config), &owner.topologies(), 1);
        engine.start(now);
        let mut hand = Self {
            engine,
            owner: Some(owner),
            now,
            notices: Vec::new(),
            on_connect: BTreeMap::new(),
            pipes: BTreeMap::new(),
            conns: Vec::new(),
        };
        hand.settle();
        hand
    }

    /// A client connects to the first pool.
    pub fn client(&mut self) -> ClientId {
        self.try_client().expect("the pool takes a client")
    }

    /// A client connects to `pool`.
    pub fn client_of(&mut self, pool: PoolIdx) -> ClientId {
        self.accept(pool).expect("the pool takes a client")
    }

    /// A client tries to connect to the first pool.
    ///
    /// # Errors
    /// The pool is full.
    pub fn try_client(&mut self) -> Result<ClientId, Refused> {
        self.accept(PoolIdx(0))
    }

    fn accept(&mut self, pool: PoolIdx) -> Result<ClientId, Refused> {
        let id = self.engine.handle_accept(pool, self.now)?;
        self.pipes.insert(id.into(), Pipe::default());
        Ok(id)
    }

    /// Why a client was closed, or will be, as far as the engine has said.
    #[must_use]
    pub fn end_of(&self, of: ClientId) -> Option<ClientEnd> {
        self.notices.iter().find_map(|notice| match *notice {
            Notice::ClientEnds { client, end, .. } if client == of => Some(end),
            _ => None,
        })
    }

    /// The client sends `bytes`; returns how many the proxy read before it paused.
    pub fn send(&mut self, client: ClientId, bytes: &[u8]) -> usize {
        self.feed(client.into(), bytes)
    }

    /// The server says `bytes` on a connection; returns how many the proxy read.
    pub fn say(&mut self, conn: ServerConnId, bytes: &[u8]) -> usize {
        self.feed(conn.into(), bytes)
    }

    fn feed(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let mut fed = 0;
        while fed < bytes.len() && !self.is_closed(conn) {
            let space = self.engine.recv_space(conn);
            if space.is_empty() {
                self.pipe(conn).read_paused = true;
                break;
            }
            let len = space.len().min(bytes.len() - fed);
            space[..len].copy_from_slice(&bytes[fed..fed + len]);
            self.engine.recv_commit(conn, len, self.now);
            fed += len;
            self.settle();
        }
        fed
    }

    /// Bytes that the proxy has written on a connection since the last call.
    pub fn got(&mut self, conn: impl Into<ConnId>) -> String {
        let bytes = std::mem::take(&mut self.pipe(conn.into()).written);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes the proxy has written on a connection since the last look.
    pub fn got_bytes(&mut self, conn: impl Into<ConnId>) -> Vec<u8> {
        std::mem::take(&mut self.pipe(conn.into()).written)
    }

    /// The newest connection to a server.
    #[must_use]
    pub fn conn(&self, server: u32) -> ServerConnId {
        *self
            .conns_of(server)
            .last()
            .expect("the proxy has connected to this server")
    }

    /// All connections ever asked for to a server, in order.
    #[must_use]
    pub fn conns_of(&self, server: u32) -> Vec<ServerConnId> {
        self.conns
            .iter()
            .filter(|(of, _)| *of == ServerId::initial(server))
            .map(|&(_, id)| id)
            .collect()
    }

    /// Whether the proxy (or the test) has closed a connection.
    #[must_use]
    pub fn is_closed(&self, conn: impl Into<ConnId>) -> bool {
        self.pipes.get(&conn.into()).is_none_or(|pipe| pipe.closed)
    }

    /// Whether the proxy was offered bytes of a connection and did not want them.
    #[must_use]
    pub fn is_read_paused(&self, conn: impl Into<ConnId>) -> bool {
        self.pipes
            .get(&conn.into())
            .is_some_and(|pipe| pipe.read_paused)
    }

    /// From now on the kernel takes only `len` bytes on a connection.
    pub fn limit_writes(&mut self, conn: impl Into<ConnId>, len: usize) {
        self.pipe(conn.into()).room = Some(len);
    }

    /// The kernel takes `len` bytes more on a limited connection.
    pub fn take_more(&mut self, conn: impl Into<ConnId>, len: usize) {
        let conn = conn.into();
        let pipe = self.pipe(conn);
        pipe.room = pipe.room.map(|room| room + len);
        self.flush(conn);
        self.settle();
    }

    /// The kernel takes any number of bytes again; what waited leaves.
    pub fn unlimit_writes(&mut self, conn: impl Into<ConnId>) {
        let conn = conn.into();
        self.pipe(conn).room = None;
        self.flush(conn);
        self.settle();
    }

    /// A hanging connection attempt succeeds.
    pub fn connected(&mut self, conn: ServerConnId) {
        self.engine.handle_connected(conn, self.now);
        self.settle();
    }

    /// A connection breaks.
    pub fn breaks(&mut self, conn: impl Into<ConnId>, why: Closed) {
        let conn = conn.into();
        self.pipe(conn).closed = true;
        self.engine.handle_closed(conn, why, self.now);
        self.settle();
    }

    /// The peer half-closes a connection.
    pub fn half_closes(&mut self, conn: impl Into<ConnId>) {
        self.engine.handle_read_eof(conn.into(), self.now);
        self.settle();
    }

    /// Time passes; deadlines take effect when they come.
    pub fn wait_ms(&mut self, millis: u64) {
        let until = self.now + Span::from_millis(millis);
        while let Some(at) = self.poll_timeout().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            if let Some(owner) = &mut self.owner {
                owner.handle_timeout(self.now);
            }
            let next = self.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "a deadline is dealt with when due"
            );
            self.settle();
        }
        self.now = until;
    }

    /// When something is due next, in the engine or with the owner.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Micros> {
        let owner = self.owner.as_ref().and_then(HealthOwner::poll_timeout);
        self.engine.poll_timeout().into_iter().chain(owner).min()
    }

    /// Performs everything the engine asks for, and carries what it and the owner tell each other.
    pub fn settle(&mut self) {
        let mut steps = 0;
        loop {
            self.carry_mail();
            let Some(action) = self.engine.poll_action() else {
                break;
            };
            self.perform(action);
            steps += 1;
            assert!(steps < 100_000, "the engine comes to rest");
        }
        self.engine.check_invariants();
    }

    fn carry_mail(&mut self) {
        let Some(owner) = &mut self.owner else {
            return;
        };
        while let Some(report) = self.engine.poll_mail() {
            owner.handle_report(report, self.now);
        }
        while let Some(mail) = owner.poll_mail() {
            self.engine.handle_mail(mail, self.now);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { conn, server } => {
                self.pipes.insert(conn.into(), Pipe::default());
                self.conns.push((server, conn));
                match self
                    .on_connect
                    .get(&server)
                    .copied()
                    .unwrap_or(OnConnect::Accept)
                {
                    OnConnect::Accept => self.engine.handle_connected(conn, self.now),
                    OnConnect::Fail(why) => {
                        self.pipe(conn.into()).closed = true;
                        self.engine.handle_closed(conn.into(), why, self.now);
                    }
                    OnConnect::Hang => {}
                }
            }
            Action::Flush(conn) => self.flush(conn),
            Action::ResumeRead(conn) => self.pipe(conn).read_paused = false,
            Action::Close(conn) => {
                let pipe = self.pipe(conn);
                assert!(!pipe.closed, "a connection is closed once");
                pipe.closed = true;
            }
            Action::Notice(notice) => self.notices.push(notice),
        }
    }

    fn flush(&mut self, conn: ConnId) {
        loop {
            let room = self.pipe(conn).room.unwrap_or(usize::MAX);
            let mut slices = [&[][..]; 4];
            let count = self.engine.send_slices(conn, &mut slices);
            let mut bytes = slices[..count].concat();
            bytes.truncate(room);
            if bytes.is_empty() {
                return;
            }
            let len = bytes.len();
            let pipe = self.pipe(conn);
            pipe.room = pipe.room.map(|room| room - len);
            pipe.written.extend_from_slice(&bytes);
            self.engine.send_commit(conn, len, self.now);
        }
    }

    fn pipe(&mut self, conn: ConnId) -> &mut Pipe {
        self.pipes
            .get_mut(&conn)
            .expect("a connection of this world")
    }
}
