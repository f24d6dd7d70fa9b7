//! All servers and server connections of the engine.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::action::Action;
use super::client::Client;
use super::deadlines::Alarm;
use super::pool::Pool;
use super::server::{ConnPhase, Health, Origin, Server, ServerConn};
use super::shared::Shared;
use super::slab::Slab;
use crate::counters::Counters;
use crate::ids::{ClientId, PoolIdx, ServerConnId, ServerIdx};
use crate::limits::SERVER_OUTPUT_SOFT;
use crate::num::{to_u32, to_u64};
use crate::proto::redis::local::{write_auth, write_select};
use crate::time::Span;

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) servers: Vec<Server>,
    pub(crate) conns: Slab<ServerConnId, ServerConn>,
}

impl Upstream {
    pub(crate) fn new(pools: &[Pool], counters: &Counters) -> Self {
        let pool_of = pools
            .iter()
            .enumerate()
            .flat_map(|(index, pool)| pool.servers().map(move |_| PoolIdx(to_u32(index))));
        let servers = pool_of
            .zip(&counters.servers)
            .map(|(pool, counters)| Server {
                pool,
                conns: Vec::new(),
                health: Health::default(),
                counters: Arc::clone(counters),
            })
            .collect();
        Self {
            servers,
            conns: Slab::default(),
        }
    }

    pub(crate) fn server_mut(&mut self, server: ServerIdx) -> &mut Server {
        &mut self.servers[server.index()]
    }

    /// The connection a request of `client` takes to `server`; opens one if need be.
    #[inline(always)]
    pub(crate) fn choose(
        &mut self,
        pool: &Pool,
        server: ServerIdx,
        client: &mut Client,
        shared: &mut Shared,
    ) -> ServerConnId {
        if pool.config.server_connections == 1
            && let Some(&conn) = self.servers[server.index()].conns.first()
        {
            return conn;
        }
        self.choose_or_open(pool, server, client, shared)
    }

    /// The uncommon part of [`Self::choose`].
    fn choose_or_open(
        &mut self,
        pool: &Pool,
        server: ServerIdx,
        client: &mut Client,
        shared: &mut Shared,
    ) -> ServerConnId {
        if pool.config.server_connections == 1 {
            return self.open(pool, server, shared);
        }
        let bound = client
            .bindings
            .iter()
            .position(|&(bound, _)| bound == server);
        if let Some(at) = bound {
            let conn = client.bindings[at].1;
            if self.conns.get(conn).is_some() {
                return conn;
            }
            client.bindings.swap_remove(at);
        }
        let conn = self.choose_among(pool, server, shared);
        client.bindings.push((server, conn));
        conn
    }

    /// One of several connections for a client that has none yet: an idle one, else a further one
    /// as long as more are allowed, else the least busy. A silent one only if there is no other.
    pub(crate) fn choose_among(
        &mut self,
        pool: &Pool,
        server: ServerIdx,
        shared: &mut Shared,
    ) -> ServerConnId {
        let conns = &self.servers[server.index()].conns;
        let load = |id: ServerConnId| {
            let conn = self.conns.get(id).expect("a listed connection exists");
            (conn.expired > 0, conn.pipeline.len(), conn.out.len())
        };
        let best = conns.iter().copied().min_by_key(|&id| load(id));
        match best {
            Some(conn) if load(conn) == (false, 0, 0) => conn,
            Some(conn) if to_u32(conns.len()) >= pool.config.server_connections => conn,
            _ => self.open(pool, server, shared),
        }
    }

    /// Opens a connection: the shell connects, requests may queue at once.
    pub(crate) fn open(
        &mut self,
        pool: &Pool,
        server: ServerIdx,
        shared: &mut Shared,
    ) -> ServerConnId {
        let counters = Arc::clone(&self.servers[server.index()].counters);
        let mut conn = ServerConn::new(server, pool.config.protocol, counters, shared.now);
        let mut hello = Vec::new();
        if let Some(password) = &pool.config.redis_auth {
            write_auth(password, &mut hello);
            conn.out.append(&hello, &mut shared.chunks);
            conn.push_slot(Origin::Auth, to_u32(hello.len()), shared.now, false);
        }
        if pool.config.redis_db > 0 {
            hello.clear();
            write_select(pool.config.redis_db, &mut hello);
            conn.out.append(&hello, &mut shared.chunks);
            conn.push_slot(Origin::Select, to_u32(hello.len()), shared.now, false);
        }
        conn.handshake_len = conn.out.len();
        shared.memory.held += conn.out.len();
        let id = self.conns.insert_with(|_| conn);
        let conns = &self.conns;
        shared
            .deadlines
            .forget_dead(conns.len(), |id| conns.get(id).is_some());
        if let Some(timeout) = pool.config.timeout {
            self.arm(id, timeout, shared);
        }
        self.server_mut(server).conns.push(id);
        shared.counters.total_connections.add(1);
        shared.counters.curr_connections.add(1);
        shared
            .outbox
            .urgent
            .push_back(Action::Connect { conn: id, server });
        id
    }

    /// The shell has connected.
    pub(crate) fn connected(&mut self, id: ServerConnId, shared: &mut Shared) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        assert_eq!(
            conn.phase,
            ConnPhase::Connecting,
            "a connection connects once"
        );
        conn.phase = if conn.handshake_len > 0 {
            ConnPhase::Handshake
        } else {
            ConnPhase::Ready
        };
        conn.last_recv = shared.now;
        conn.counters.server_connections.add(1);
        self.touch(id, shared);
    }

    /// What follows the queuing of a request whose bytes are in `out`.
    pub(crate) fn queued(
        &mut self,
        id: ServerConnId,
        origin: Option<Origin>,
        len: u32,
        timeout: Option<Span>,
        shared: &mut Shared,
    ) {
        let conn = self
            .conns
            .get_mut(id)
            .expect("the connection was just chosen");
        conn.queued(origin, len, shared.now);
        shared.memory.held += u64::from(len);
        self.announce(id, timeout, shared);
    }

    /// Sees to it that what was queued is sent and watched.
    #[inline]
    pub(crate) fn announce(
        &mut self,
        id: ServerConnId,
        timeout: Option<Span>,
        shared: &mut Shared,
    ) {
        let conn = self
            .conns
            .get_mut(id)
            .expect("the connection was just chosen");
        if !conn.dirty {
            conn.dirty = true;
            shared.outbox.dirty_servers.push_back(id);
        }
        if let Some(timeout) = timeout
            && !conn.alarmed
        {
            self.arm(id, timeout, shared);
        }
    }

    /// Arms the alarm of a connection for its next deadline, if it has one.
    pub(crate) fn arm(&mut self, id: ServerConnId, timeout: Span, shared: &mut Shared) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if let Some(at) = conn.next_alarm(timeout)
            && !conn.alarmed
        {
            conn.alarmed = true;
            shared.deadlines.arm(at, Alarm::Conn(id));
        }
    }

    /// Asks for a flush.
    #[inline]
    pub(crate) fn touch(&mut self, id: ServerConnId, shared: &mut Shared) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if !conn.dirty {
            conn.dirty = true;
            shared.outbox.dirty_servers.push_back(id);
        }
    }

    /// Whether a connection on the list of dirty ones still has bytes to send.
    #[inline]
    pub(crate) fn wants_flush(&mut self, id: ServerConnId) -> bool {
        self.conns.get_mut(id).is_some_and(|conn| {
            conn.dirty = false;
            conn.sendable() > 0
        })
    }

    /// Whether so much waits on a connection that a client must wait too; if so it will be resumed.
    #[inline]
    pub(crate) fn stalls(&mut self, id: ServerConnId, client: ClientId) -> bool {
        let conn = self
            .conns
            .get_mut(id)
            .expect("the connection was just chosen");
        if conn.out.len() <= SERVER_OUTPUT_SOFT {
            return false;
        }
        conn.stalled.push(client);
        true
    }

    /// The kernel took `len` bytes.
    pub(crate) fn sent(&mut self, id: ServerConnId, len: usize, shared: &mut Shared) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.commit(len, &mut shared.chunks);
        shared.memory.held -= to_u64(len);
        if !conn.stalled.is_empty() && conn.out.len() <= SERVER_OUTPUT_SOFT / 2 {
            shared.outbox.resume.extend(conn.stalled.drain(..));
        }
    }

    pub(crate) fn held(&self) -> u64 {
        self.conns
            .iter()
            .map(|(_, conn)| conn.out.len() + to_u64(conn.recv.len()))
            .sum()
    }

    pub(crate) fn check_invariants(&self, pools: &[Pool]) {
        let mut listed = 0;
        for (index, server) in self.servers.iter().enumerate() {
            let pool = &pools[server.pool.index()];
            let (mut queued, mut written) = (0, 0);
            for &id in &server.conns {
                let conn = self.conns.get(id).expect("a listed connection exists");
                assert_eq!(conn.server.index(), index);
                conn.check_invariants();
                written += conn.written;
                queued += conn.pipeline.len() - conn.written;
                listed += 1;
                let alarm = pool
                    .config
                    .timeout
                    .and_then(|timeout| conn.next_alarm(timeout));
                assert!(alarm.is_none() || conn.alarmed, "every deadline is watched");
            }
            assert!(to_u32(server.conns.len()) <= pool.config.server_connections);
            assert_eq!(server.counters.in_queue.value(), to_u64(queued));
            assert_eq!(server.counters.out_queue.value(), to_u64(written));
        }
        assert_eq!(listed, self.conns.len());
    }
}
