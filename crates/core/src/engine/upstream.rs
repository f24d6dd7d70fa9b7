//! All servers and server connections of the engine.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::action::{Action, shrink};
use super::client::Client;
use super::deadlines::Alarm;
use super::errand::Errand;
use super::pool::Pool;
use super::server::{ConnPhase, Gate, Server, ServerConn};
use super::shared::Shared;
use super::slot::{Origin, Outgoing, Slot};
use crate::canary::{Canary, is_planted};
use crate::counters::Counters;
use crate::ids::{ClientId, PoolIdx, ServerConnId, ServerId};
use crate::limits::{PIPELINE_LEN_MIN, SERVER_OUTPUT_SOFT};
use crate::num::{to_u32, to_u64};
use crate::slab::Slab;
use crate::table::Table;
use crate::time::{Micros, Span};

/// The reason for which a connection is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// Requests are to be sent on it.
    Serve,
    /// An ejected server is to be asked whether it is healthy.
    Probe,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) servers: Table<ServerId, Server>,
    pub(crate) conns: Slab<ServerConnId, ServerConn>,
}

impl Upstream {
    pub(crate) fn new(pools: &[Pool], counters: &Counters) -> Self {
        let mut servers = Table::default();
        for (pool, index) in pools.iter().zip(0..) {
            for server in pool.servers() {
                let counters = Arc::clone(&counters.servers[server]);
                servers.insert(server, Server::new(PoolIdx(index), counters));
            }
        }
        Self {
            servers,
            conns: Slab::default(),
        }
    }

    pub(crate) fn server_mut(&mut self, server: ServerId) -> &mut Server {
        &mut self.servers[server]
    }

    /// The connection a request of `client` takes to `server`; opens one if need be. `None` if the
    /// request is to be answered at once: the server is down.
    #[inline(always)]
    pub(crate) fn choose(
        &mut self,
        pool: &Pool,
        server: ServerId,
        client: &mut Client,
        shared: &mut Shared,
    ) -> Option<ServerConnId> {
        let state = &self.servers[server];
        if pool.config.server_connections == 1
            && state.gate == Gate::Open
            && let Some(&conn) = state.conns.first()
        {
            return Some(conn);
        }
        self.choose_or_open(pool, server, client, shared)
    }

    /// The uncommon part of [`Self::choose`].
    fn choose_or_open(
        &mut self,
        pool: &Pool,
        server: ServerId,
        client: &mut Client,
        shared: &mut Shared,
    ) -> Option<ServerConnId> {
        if self.servers[server].gate != Gate::Open {
            return None;
        }
        if pool.config.server_connections == 1 {
            return self.open_if_due(pool, server, shared);
        }
        self.choose_bound(pool, server, client, shared)
    }

    /// With several connections a client keeps to the one it has, so that its requests keep their
    /// order. It leaves one that is silent if nothing of its own can be overtaken.
    fn choose_bound(
        &mut self,
        pool: &Pool,
        server: ServerId,
        client: &mut Client,
        shared: &mut Shared,
    ) -> Option<ServerConnId> {
        let bound = client.binding(server).copied();
        if let Some(binding) = bound
            && let Some(conn) = self.conns.get(binding.conn)
            && (conn.expired == 0 || !conn.may_be_left(client, binding.noreply_end))
        {
            return Some(binding.conn);
        }
        let conn = self.choose_among(pool, server, shared)?;
        let is_new = bound.is_none_or(|binding| binding.conn != conn);
        if is_new && !is_planted(Canary::BindingForgotten) {
            client.bind(server, conn);
        }
        Some(conn)
    }

    /// One of several connections for a client that has none yet: an idle one, else a further one
    /// as long as more are allowed, else the least busy. A silent one only if there is no other.
    pub(crate) fn choose_among(
        &mut self,
        pool: &Pool,
        server: ServerId,
        shared: &mut Shared,
    ) -> Option<ServerConnId> {
        let state = &self.servers[server];
        let load = |id: ServerConnId| {
            let conn = self.conns.get(id).expect("a listed connection exists");
            (conn.expired > 0, conn.pipeline.len(), conn.out.len())
        };
        let best = state.conns.iter().copied().min_by_key(|&id| load(id));
        match best {
            Some(conn) if load(conn) == (false, 0, 0) => Some(conn),
            Some(conn) if to_u32(state.conns.len()) >= pool.config.server_connections => Some(conn),
            _ => self.open_if_due(pool, server, shared).or(best),
        }
    }

    /// Opens a connection unless the server has refused too many just now.
    fn open_if_due(
        &mut self,
        pool: &Pool,
        server: ServerId,
        shared: &mut Shared,
    ) -> Option<ServerConnId> {
        let is_due = self.servers[server].backoff.until <= shared.now;
        is_due.then(|| self.open(pool, server, shared))
    }

    /// Opens a connection: the shell connects, requests may queue at once.
    pub(crate) fn open(
        &mut self,
        pool: &Pool,
        server: ServerId,
        shared: &mut Shared,
    ) -> ServerConnId {
        let id = self.dial(pool, server, Purpose::Serve, shared);
        self.server_mut(server).conns.push(id);
        id
    }

    /// Opens a connection of its own that asks an ejected server whether it is well.
    pub(crate) fn open_probe(
        &mut self,
        pool: &Pool,
        server: ServerId,
        shared: &mut Shared,
    ) -> ServerConnId {
        self.dial(pool, server, Purpose::Probe, shared)
    }

    /// Has the shell connect; the proxy's own requests are the first to leave.
    fn dial(
        &mut self,
        pool: &Pool,
        server: ServerId,
        purpose: Purpose,
        shared: &mut Shared,
    ) -> ServerConnId {
        let counters = Arc::clone(&self.servers[server].counters);
        let mut conn = ServerConn::new(server, pool.config.protocol, counters, shared.now);
        conn.is_probe = purpose == Purpose::Probe;
        let mut bytes = Vec::new();
        for errand in Errand::on_connect(&pool.config, conn.is_probe) {
            bytes.clear();
            errand.write(&pool.config, &mut bytes);
            conn.out.append(&bytes, &mut shared.chunks);
            let len = to_u32(bytes.len());
            let slot = Slot::new(Origin::Own(errand), len, false, shared.now);
            conn.push_slot(slot, &mut shared.chunks);
        }
        conn.handshake_len = conn.out.len();
        let id = self.conns.insert_with(|_| conn);
        if let Some(timeout) = pool.config.timeout {
            self.arm(id, timeout, shared);
        }
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
        if conn.phase == ConnPhase::Ready {
            conn.serves(&mut self.servers[conn.server].backoff);
        }
        self.touch(id, shared);
    }

    /// A connection that the caller has just chosen.
    #[inline]
    pub(crate) fn chosen(&self, id: ServerConnId) -> &ServerConn {
        self.conns.get(id).expect("the connection was just chosen")
    }

    /// As [`Self::chosen`], to be changed.
    #[inline]
    pub(crate) fn chosen_mut(&mut self, id: ServerConnId) -> &mut ServerConn {
        self.conns
            .get_mut(id)
            .expect("the connection was just chosen")
    }

    /// What follows the queuing of a request whose bytes are in `out`.
    pub(crate) fn queued(
        &mut self,
        id: ServerConnId,
        request: Outgoing,
        timeout: Option<Span>,
        shared: &mut Shared,
    ) {
        let conn = self.chosen_mut(id);
        conn.queued(request, shared.now, &mut shared.chunks);
        self.announce(id, timeout, shared);
    }

    /// Sees to it that what was queued is sent and watched.
    pub(crate) fn announce(
        &mut self,
        id: ServerConnId,
        timeout: Option<Span>,
        shared: &mut Shared,
    ) {
        let conn = self.chosen_mut(id);
        if !conn.dirty {
            conn.dirty = true;
            shared.outbox.dirty_servers.push_back(id);
        }
        if let Some(timeout) = timeout
            && conn.alarm_at.is_none()
        {
            conn.note_waiting(shared.now);
            self.arm(id, timeout, shared);
        }
    }

    /// Arms the alarm of a connection for its next deadline, if it has one and is not awake before.
    pub(crate) fn arm(&mut self, id: ServerConnId, timeout: Span, shared: &mut Shared) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if let Some(at) = conn.next_alarm(timeout)
            && conn.alarm_at.is_none_or(|armed| at < armed)
        {
            conn.alarm_at = Some(at);
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
    pub(crate) fn wants_flush(&mut self, id: ServerConnId, now: Micros) -> bool {
        self.conns.get_mut(id).is_some_and(|conn| {
            conn.dirty = false;
            conn.note_waiting(now);
            conn.stuck_since.is_some()
        })
    }

    /// Whether so much waits on a connection that clients must wait, too.
    #[inline]
    pub(crate) fn is_full(&self, id: ServerConnId) -> bool {
        let conn = self.chosen(id);
        conn.out.len() > SERVER_OUTPUT_SOFT
    }

    /// Whether requests of `len` bytes in all may surely be queued on a connection one after the other.
    #[inline]
    pub(crate) fn has_room(&self, id: ServerConnId, len: usize) -> bool {
        let conn = self.chosen(id);
        conn.out.len() + to_u64(len) <= SERVER_OUTPUT_SOFT
    }

    /// Whether so much waits on a connection that a client must wait too; if so it will be resumed.
    #[inline]
    pub(crate) fn stalls(&mut self, id: ServerConnId, client: ClientId) -> bool {
        let conn = self.chosen_mut(id);
        if conn.out.len() <= SERVER_OUTPUT_SOFT {
            return false;
        }
        conn.stalled.push(client);
        true
    }

    /// Whether a request of `client` must wait for `server`, of whose connections `conn` was chosen; if so
    /// the client will be resumed.
    #[inline]
    pub(crate) fn must_wait(
        &mut self,
        server: ServerId,
        conn: Option<ServerConnId>,
        client: ClientId,
    ) -> bool {
        match conn {
            Some(conn) => self.stalls(conn, client),
            None => self.holds(server, client),
        }
    }

    /// Whether a client must wait until the owner has said what a server's failures mean; if so it will be
    /// resumed. No connection of such a server is ever chosen.
    #[cold]
    pub(crate) fn holds(&mut self, server: ServerId, client: ClientId) -> bool {
        let state = &mut self.servers[server];
        let is_held = state.gate == Gate::Held;
        if is_held {
            state.held.push(client);
        }
        is_held
    }

    /// The owner has answered: requests to a server go on, where `gate` lets them.
    pub(crate) fn release(&mut self, server: ServerId, gate: Gate, shared: &mut Shared) {
        let state = &mut self.servers[server];
        state.gate = gate;
        shared.outbox.resume.extend(state.held.drain(..));
    }

    /// The kernel took `len` bytes.
    pub(crate) fn sent(&mut self, id: ServerConnId, len: usize, shared: &mut Shared) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.commit(len, shared.now, &mut shared.chunks);
        wake_stalled(conn, shared);
    }

    /// Gives back room that the pipelines need no more; returns how many bytes.
    pub(crate) fn tidy(&mut self) -> u64 {
        let conns = self.conns.iter_mut();
        conns
            .map(|conn| shrink(&mut conn.pipeline, PIPELINE_LEN_MIN))
            .sum()
    }

    pub(crate) fn held(&self) -> u64 {
        self.conns.iter().map(|(_, conn)| conn.held()).sum()
    }

    pub(crate) fn check_invariants(&self, pools: &[Pool]) {
        let mut listed = 0;
        for (server_id, server) in self.servers.iter() {
            let pool = &pools[server.pool.index()];
            let (mut queued, mut written) = (0, 0);
            let probe = server.health.probe;
            for &id in server.conns.iter().chain(&probe) {
                let conn = self.conns.get(id).expect("a listed connection exists");
                assert_eq!(conn.is_probe, Some(id) == probe);
                assert_eq!(conn.server, server_id);
                conn.check_invariants();
                assert!(
                    conn.stalled.is_empty() || conn.out.len() > SERVER_OUTPUT_SOFT / 2,
                    "who waits for room waits for something"
                );
                written += conn.written;
                queued += conn.pipeline.len() - conn.written;
                listed += 1;
                let alarm = pool
                    .config
                    .timeout
                    .and_then(|timeout| conn.next_alarm(timeout));
                assert!(
                    alarm.is_none_or(|at| conn.alarm_at.is_some_and(|armed| armed <= at)),
                    "every deadline is watched"
                );
            }
            assert!(server.gate != Gate::Down || server.health.is_ejected);
            assert!(server.gate == Gate::Held || server.held.is_empty());
            assert!(to_u32(server.conns.len()) <= pool.config.server_connections);
            assert_eq!(server.counters.in_queue.value(), to_u64(queued));
            assert_eq!(server.counters.out_queue.value(), to_u64(written));
        }
        assert_eq!(listed, self.conns.len());
    }
}

/// Clients that wait for room on a connection go on once there is enough of it.
#[inline]
pub(crate) fn wake_stalled(conn: &mut ServerConn, shared: &mut Shared) {
    if !conn.stalled.is_empty() && conn.out.len() <= SERVER_OUTPUT_SOFT / 2 {
        shared.outbox.resume.extend(conn.stalled.drain(..));
    }
}
