//! The engine: everything that happens between a client and its servers.
//!
//! # Contract
//! Tell it what happened (`handle_*`, `recv_commit`), then, before sleeping, do what it asks
//! ([`Engine::poll_action`] until `None`) and sleep no later than [`Engine::poll_timeout`]. `now`
//! never decreases across calls.

use alloc::{sync::Arc, vec::Vec};

use crate::config::Config;
use crate::counters::Counters;
use crate::ids::{ClientId, ConnId, PoolIdx, ServerConnId, ServerIdx};
use crate::time::Micros;

/// The whole proxy of one worker.
#[derive(Debug)]
pub struct Engine {
    counters: Arc<Counters>,
    scratch: Vec<u8>,
}

/// Why a connection ended or could not be made: the shell's errno, reduced to what matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The peer closed in order.
    Eof,
    /// Nobody listens.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// The kernel gave up.
    TimedOut,
    /// A write to a connection that is gone.
    BrokenPipe,
    /// No route to the host.
    HostUnreachable,
    /// The network is down or unknown.
    NetworkUnreachable,
    /// The name does not resolve, or the unix path is too long.
    HostDown,
    /// The unix socket does not exist.
    NoSuchFile,
    /// The unix socket may not be opened.
    PermissionDenied,
    /// The unix socket's backlog is full.
    WouldBlock,
    /// No descriptors left.
    TooManyFiles,
    /// Anything else.
    Other,
}

/// A client that may not come in: what to tell it before closing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Bytes to send, best effort.
    pub reply: &'static [u8],
}

/// What the engine asks of the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open a connection; answer with [`Engine::handle_connected`] or [`Engine::handle_closed`].
    Connect {
        /// The connection's id from now on.
        conn: ServerConnId,
        /// Whose address.
        server: ServerIdx,
    },
    /// There are bytes to send (at most one pending per connection).
    Flush(ConnId),
    /// Read again: `recv_space` was empty and is no longer.
    ResumeRead(ConnId),
    /// Close the socket. The id is dead already: no `handle_closed` follows.
    Close(ConnId),
    /// Worth a log line.
    Notice(Notice),
}

/// A rare fact for humans. The shell words and rate-limits it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// A server was taken off the ring.
    Ejected(ServerIdx),
    /// A server is back on the ring.
    Restored(ServerIdx),
    /// A server connection ended or could not be made.
    ServerLost {
        /// Whose.
        server: ServerIdx,
        /// Why.
        why: Closed,
    },
    /// A server sent something that is no response.
    ServerInvalid(ServerIdx),
    /// A server did not answer in time.
    ServerTimedOut(ServerIdx),
    /// A server refused AUTH or SELECT.
    ServerRefusedHandshake(ServerIdx),
    /// A client sent something that is no request.
    ClientInvalid(ClientId),
    /// A client did not read its replies.
    ClientOutputLimit(ClientId),
}

impl Engine {
    /// An engine for `config`; `seed` drives the `random` distribution and jitter.
    #[must_use]
    pub fn new(config: Arc<Config>, seed: u64) -> Self {
        let _ = seed;
        Self {
            counters: Arc::new(Counters::new(&config)),
            scratch: alloc::vec![0; crate::limits::SCRATCH_LEN],
        }
    }

    /// Opens the connections of `preconnect: true` pools.
    pub fn start(&mut self, now: Micros) {
        let _ = now;
    }

    /// A client connected to `pool`'s listener.
    ///
    /// # Errors
    /// The pool has as many clients as it may have.
    pub fn handle_accept(&mut self, pool: PoolIdx, now: Micros) -> Result<ClientId, Refused> {
        let _ = (pool, now);
        Err(Refused { reply: b"" })
    }

    /// The connection asked for with [`Action::Connect`] stands.
    pub fn handle_connected(&mut self, conn: ServerConnId, now: Micros) {
        let _ = (conn, now);
    }

    /// A connection broke, or could not be made. The shell has closed (or will close) the socket.
    pub fn handle_closed(&mut self, conn: ConnId, why: Closed, now: Micros) {
        let _ = (conn, why, now);
    }

    /// The peer will send no more, but may still read.
    pub fn handle_read_eof(&mut self, conn: ConnId, now: Micros) {
        let _ = (conn, now);
    }

    /// Deadlines that have passed take effect.
    pub fn handle_timeout(&mut self, now: Micros) {
        let _ = now;
    }

    /// No new requests: what is in flight finishes, idle clients are closed at once.
    pub fn start_drain(&mut self, now: Micros) {
        let _ = now;
    }

    /// Whether a drain has ended: no client is left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        true
    }

    /// Where to read into; empty means do not read now ([`Action::ResumeRead`] follows). At least
    /// one call to [`Self::recv_commit`] must follow a read before any other call.
    pub fn recv_space(&mut self, conn: ConnId) -> &mut [u8] {
        let _ = conn;
        &mut self.scratch
    }

    /// `len` bytes (at least 1) were read into the space.
    pub fn recv_commit(&mut self, conn: ConnId, len: usize, now: Micros) {
        let _ = (conn, len, now);
    }

    /// The next thing to do, until `None`.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Micros> {
        None
    }

    /// Fills `out` with what is to be sent on `conn`, in order; returns how many slices.
    pub fn send_slices<'a>(&'a self, conn: ConnId, out: &mut [&'a [u8]]) -> usize {
        let _ = (conn, out);
        0
    }

    /// `len` bytes of the slices were taken by the kernel.
    pub fn send_commit(&mut self, conn: ConnId, len: usize, now: Micros) {
        let _ = (conn, len, now);
    }

    /// The statistics, to be shared with the thread that shows them.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}
