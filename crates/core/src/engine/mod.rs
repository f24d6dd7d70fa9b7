//! The engine: everything that happens between a client and its servers.
//!
//! # Contract
//! Tell it what happened (`handle_*`, `recv_commit`), then, before sleeping, do what it asks
//! ([`Engine::poll_action`] until `None`) and sleep no later than [`Engine::poll_timeout`]. `now`
//! never decreases across calls.
//!
//! # Who owns what
//! ```text
//!   Client ── order queue ──▶ Pending (one per request in flight, in request order)
//!     ▲                          │ Split ──▶ Splits: fragments of one request
//!     │ (client id, seq)         │
//!   ServerConn ── pipeline ──▶ Slot (one per response owed, in the order sent)
//! ```
//! A slot names its client by id and sequence number and nothing points back: a client that is gone
//! is missed by its id, and its responses are read and discarded to keep the pipeline aligned.
//!
//! # Invariants
//! 1. Each request in flight has exactly one pending entry, and one slot (or one per fragment) or an
//!    answer.
//! 2. Responses leave in request order.
//! 3. A slot leaves its pipeline only with its response or with the connection; one of which no byte
//!    was sent may be withdrawn.
//! 4. Every connection in a server's list is in the slab, and the other way round but for probes,
//!    which their server's health names.
//! 5. Only read-only requests are ever sent twice, and none is sent three times.

mod action;
mod client;
mod client_counts;
mod client_end;
mod clients;
mod closed;
mod deadlines;
mod down;
mod errand;
mod expire;
mod forward;
mod fragments;
mod gate;
mod gather;
mod health;
mod kept;
mod lifecycle;
mod memory;
mod order;
mod parse;
mod patience;
mod pool;
mod refusal;
mod respond;
mod rng;
mod roster;
mod runs;
mod server;
mod shared;
mod slot;
mod split;
mod upstream;
mod window;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

pub use action::{Action, Notice};
pub use client_counts::ClientCounts;
pub use client_end::{ClientEnd, Weight};
pub use closed::Closed;
pub use memory::Others;

use crate::config::Config;
use crate::counters::Counters;
use crate::ids::{ClientId, ConnId, PoolIdx, ServerConnId};
use crate::limits::{SCRATCH_LEN, SEND_LARGE_CHUNK_LEN};
use crate::owner::{Mail, Report};
use crate::time::Micros;
use crate::topology::Topology;
use client::{Pause, Phase};
use clients::Clients;
use fragments::Work;
use pool::Pool;
use rng::Rng;
use roster::Seat;
use runs::Plan;
use shared::Shared;
use upstream::Upstream;

/// The whole proxy of one worker, without sockets, clocks, threads or logs.
#[derive(Debug)]
pub struct Engine {
    config: Arc<Config>,
    counters: Arc<Counters>,
    pools: Vec<Pool>,
    clients: Clients,
    upstream: Upstream,
    shared: Shared,
    /// Every read goes here, behind room for the connection's saved tail. A block of the chunk pool.
    scratch: Vec<u8>,
    /// Memory of the routing of one multi-key request, kept for the next.
    work: Work,
    /// Memory of the routing of the ordinary requests of one read, kept for the next.
    plan: Plan,
    rng: Rng,
    client_counts: ClientCounts,
    draining: bool,
    /// For the owner of the servers' health.
    reports: VecDeque<Report>,
}

/// A client that may not come in: what to tell it before closing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Bytes to send, best effort.
    pub reply: &'static [u8],
}

impl Engine {
    /// An engine for `config`, whose pools have `topologies`; `seed` drives the `random` distribution.
    #[must_use]
    pub fn new(config: Arc<Config>, topologies: &[Arc<Topology>], seed: u64) -> Self {
        let counters = Arc::new(Counters::new(topologies));
        let pools = config.pools.iter().zip(topologies).zip(&counters.pools);
        let pools = pools.map(|((pool, topology), counters)| {
            Pool::new(pool.clone(), Arc::clone(topology), Arc::clone(counters))
        });
        let pools: Vec<_> = pools.collect();
        Self {
            upstream: Upstream::new(&pools, &counters),
            clients: Clients::default(),
            shared: Shared::new(config.memory_limit, Arc::clone(&counters)),
            scratch: vec![0; SEND_LARGE_CHUNK_LEN],
            work: Work::default(),
            plan: Plan::default(),
            rng: Rng::new(seed),
            client_counts: ClientCounts::new(config.pools.len()),
            draining: false,
            reports: VecDeque::new(),
            config,
            counters,
            pools,
        }
    }

    /// Opens the connections of `preconnect: true` pools.
    pub fn start(&mut self, now: Micros) {
        self.shared.now = now;
        for pool in &self.pools {
            if pool.config.preconnect {
                for server in pool.servers() {
                    self.upstream.open(pool, server, &mut self.shared);
                }
            }
        }
    }

    /// Makes `CLIENT ID`s unique among several engines: this one counts `first`, `first + step`, ...
    pub const fn number_clients(&mut self, first: u64, step: u64) {
        self.clients.number(first, step);
    }

    /// The owner of the servers' health, which is the same for all engines, says something. To be called
    /// in the order said.
    pub fn handle_mail(&mut self, mail: Mail, now: Micros) {
        self.shared.now = now;
        self.obey(mail);
    }

    /// The next report for the owner of the servers' health; `None` if there is none.
    #[must_use]
    pub fn poll_mail(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// Counts clients together with other engines, before the first one comes.
    pub fn share_clients(&mut self, counts: ClientCounts) {
        self.client_counts = counts;
    }

    /// A client connected to `pool`'s listener.
    ///
    /// # Errors
    /// The pool has as many clients as it may have, or the engine is draining.
    pub fn handle_accept(&mut self, pool: PoolIdx, now: Micros) -> Result<ClientId, Refused> {
        self.shared.now = now;
        self.accept(pool)
    }

    /// The connection asked for with [`Action::Connect`] stands.
    pub fn handle_connected(&mut self, conn: ServerConnId, now: Micros) {
        self.shared.now = now;
        self.upstream.connected(conn, &mut self.shared);
    }

    /// A connection broke, or could not be made. The shell closes the socket by itself.
    pub fn handle_closed(&mut self, conn: ConnId, why: Closed, now: Micros) {
        self.shared.now = now;
        match conn {
            ConnId::Client(id) => self.client_closed(id, why),
            ConnId::Server(id) => self.fail_conn(id, why, None),
        }
    }

    /// The peer will send no more, but may still read.
    pub fn handle_read_eof(&mut self, conn: ConnId, now: Micros) {
        self.shared.now = now;
        match conn {
            ConnId::Client(id) => self.client_eof(id),
            ConnId::Server(id) => {
                if self.upstream.conns.get(id).is_some() {
                    self.shared.outbox.urgent.push_back(Action::Close(conn));
                    self.fail_conn(id, Closed::Eof, None);
                }
            }
        }
    }

    /// Deadlines that have passed take effect.
    pub fn handle_timeout(&mut self, now: Micros) {
        self.shared.now = now;
        self.run_alarms();
    }

    /// No new requests: what is in flight finishes, idle clients are closed at once.
    pub fn start_drain(&mut self, now: Micros) {
        self.shared.now = now;
        self.drain();
    }

    /// Whether a drain has ended: no client is left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.clients.roster.len() == 0
    }

    /// Where to read into; empty means do not read now ([`Action::ResumeRead`] follows). A read that
    /// brought something must be followed by [`Self::recv_commit`] before any other call.
    #[inline]
    pub fn recv_space(&mut self, conn: ConnId) -> &mut [u8] {
        let recv = match conn {
            ConnId::Client(id) => match self.clients.roster.seat_mut(id) {
                Some(Seat::Working(client)) => {
                    if client.pause != Pause::No || client.phase != Phase::Open {
                        client.read_refused = true;
                        return &mut [];
                    }
                    &mut client.recv
                }
                Some(Seat::Resting(_)) => return &mut self.scratch[..SCRATCH_LEN],
                None => return &mut [],
            },
            ConnId::Server(id) => match self.upstream.conns.get_mut(id) {
                Some(conn) => &mut conn.recv,
                None => return &mut [],
            },
        };
        if recv.grows_in_place() {
            recv.space(&mut self.shared.chunks)
        } else {
            &mut self.scratch[recv.len()..][..SCRATCH_LEN]
        }
    }

    /// `len` bytes (at least 1) were read into the space.
    #[inline]
    pub fn recv_commit(&mut self, conn: ConnId, len: usize, now: Micros) {
        self.shared.now = now;
        match conn {
            ConnId::Client(id) => self.recv_client(id, len),
            ConnId::Server(id) => self.recv_server(id, len),
        }
    }

    /// The next thing to do, until `None`.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.wake_if_recovered();
        loop {
            if let Some(action) = self.shared.outbox.urgent.pop_front() {
                return Some(action);
            }
            if let Some((id, end)) = self.shared.outbox.doomed.pop() {
                self.close_doomed(id, end);
            } else if core::mem::take(&mut self.shared.outbox.is_exhausted) {
                self.close_for_limit();
            } else if let Some(id) = self.shared.outbox.resume.pop_front() {
                self.resume(id);
            } else if let Some(id) = self.shared.outbox.dirty_servers.pop_front() {
                if self.upstream.wants_flush(id, self.shared.now) {
                    return Some(Action::Flush(id.into()));
                }
            } else if let Some(id) = self.shared.outbox.dirty_clients.pop_front() {
                if self.clients.wants_flush(id) {
                    return Some(Action::Flush(id.into()));
                }
                // The last response was one that the client wants nothing of.
                self.close_if_settled(id);
            } else {
                self.shared.outbox.is_urgent = false;
                self.watch_memory();
                self.counters.released.set(
                    self.shared.released
                        + self.shared.chunks.released()
                        + self.clients.roster.released(),
                );
                return None;
            }
        }
    }

    /// Whether [`Self::poll_action`] should be drained before the tick's other reads.
    #[inline]
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        self.shared.outbox.is_urgent
    }

    /// When [`Self::handle_timeout`] wants to be called next; after it was called, later than then.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.shared.deadlines.next()
    }

    /// All actions have been performed, at `now`. Until when the worker may sleep through whatever happens,
    /// so that it is dealt with together; `None` if that gains nothing.
    #[inline]
    #[must_use]
    pub fn poll_gather(&mut self, now: Micros) -> Option<Micros> {
        self.shared.gather.tick_ended(self.shared.now, now)
    }

    /// Fills `out` with what is to be sent on `conn`, in order; returns how many slices. They do not
    /// move before they are committed.
    #[inline]
    pub fn send_slices<'a>(&'a self, conn: ConnId, out: &mut [&'a [u8]]) -> usize {
        match conn {
            ConnId::Client(id) => self
                .clients
                .roster
                .get(id)
                .map_or(0, |client| client.out.slices(u64::MAX, out)),
            ConnId::Server(id) => self
                .upstream
                .conns
                .get(id)
                .map_or(0, |conn| conn.out.slices(conn.sendable(), out)),
        }
    }

    /// `len` bytes of the slices were taken by the kernel.
    #[inline]
    pub fn send_commit(&mut self, conn: ConnId, len: usize, now: Micros) {
        self.shared.now = now;
        match conn {
            ConnId::Client(id) => self.sent_to_client(id, len),
            ConnId::Server(id) => self.upstream.sent(id, len, &mut self.shared),
        }
    }

    /// The statistics, to be shared with the thread that shows them.
    #[must_use]
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The configuration it was made from.
    #[must_use]
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Bytes held in all buffers.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.shared.chunks.held()
    }

    /// Bytes of memory that the buffers and queues of all connections take, measured one by one; for tests.
    #[must_use]
    pub fn footprint(&self) -> u64 {
        let conns = self.upstream.conns.iter();
        self.clients.footprint() + conns.map(|(_, conn)| conn.footprint()).sum::<u64>()
    }

    /// Panics if the engine contradicts itself; for tests, after every step.
    pub fn check_invariants(&self) {
        self.clients.check_invariants();
        self.upstream.check_invariants(&self.pools);
        let held = self.clients.held() + self.upstream.held();
        assert_eq!(held, self.held(), "memory is counted exactly");
        let stalled = self.upstream.conns.iter().map(|(_, conn)| &conn.stalled);
        let slots = self
            .upstream
            .conns
            .iter()
            .flat_map(|(_, conn)| &conn.pipeline);
        for id in slots.filter_map(|slot| slot.origin.client()) {
            let roster = &self.clients.roster;
            let works = roster.get(id).is_some();
            assert!(works || !roster.contains(id), "who is owed something works");
        }
        let memory = &self.shared.memory;
        let lists = [memory.waiting.len(), memory.pressed.len()];
        for waiting in stalled.map(Vec::len).chain(lists) {
            let most = 2 * self.clients.roster.len() + lifecycle::DEAD_WAITERS_MAX;
            assert!(waiting <= most + 1, "who waits is there");
        }
    }
}
