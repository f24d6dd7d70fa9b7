//! Servers, their connections, and the pipeline of each connection.
//!
//! A connection's *pipeline* holds what was written or is about to be written and awaits a response,
//! in order. Responses are matched first in, first out; that alignment is the one thing that must
//! never slip, so whatever the client does, a slot stays until its response has come.
//!
//! Offsets count all bytes ever queued on the connection:
//! `sent <= end of the first unwritten slot`, and `sent + out.len()` is the next slot's start.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::split::FragmentIdx;
use crate::buf::{ChunkPool, RecvBuf, SendQueue};
use crate::counters::ServerCounters;
use crate::ids::{ClientId, PoolIdx, ServerConnId, ServerIdx};
use crate::num::{to_u64, to_usize};
use crate::proto::{Protocol, ResponseParser};
use crate::time::{Micros, Span};

/// Whose a response is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The whole answer to a client's request.
    Whole { client: ClientId, seq: u32 },
    /// A part of the answer to a client's request.
    Fragment {
        client: ClientId,
        seq: u32,
        fragment: FragmentIdx,
    },
    /// Nobody's any more: the client was answered when the request expired.
    Discarded,
    /// Ours: AUTH on a new connection.
    Auth,
    /// Ours: SELECT on a new connection.
    Select,
}

/// One request on a server connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) origin: Origin,
    /// When the request was queued; its deadline is a pool's time-out later.
    pub(crate) queued_at: Micros,
    /// Offset one past its last byte.
    pub(crate) end: u64,
    pub(crate) len: u32,
    /// It was already moved here from a connection that closed.
    pub(crate) moved: bool,
}

impl Slot {
    /// Whether it is the proxy's own request and no client's.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self.origin, Origin::Auth | Origin::Select)
    }

    /// Offset of its first byte.
    pub(crate) fn start(&self) -> u64 {
        self.end - u64::from(self.len)
    }
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConnPhase {
    /// The shell is opening it; requests queue.
    Connecting,
    /// AUTH or SELECT are under way: they may leave, requests wait behind them.
    Handshake,
    /// Requests flow.
    Ready,
}

#[derive(Debug)]
pub(crate) struct ServerConn {
    pub(crate) server: ServerIdx,
    pub(crate) phase: ConnPhase,
    pub(crate) parser: ResponseParser,
    pub(crate) recv: RecvBuf,
    pub(crate) out: SendQueue,
    pub(crate) pipeline: VecDeque<Slot>,
    /// How many slots at the front of the pipeline are completely written.
    pub(crate) written: usize,
    /// How many slots at the front of the pipeline have expired.
    pub(crate) expired: usize,
    /// Bytes the kernel took.
    pub(crate) sent: u64,
    /// Bytes of AUTH and SELECT at the very front of the stream.
    pub(crate) handshake_len: u64,
    /// A time-out has been counted and not all requests of that time have left the pipeline.
    pub(crate) blamed: bool,
    /// When bytes last came.
    pub(crate) last_recv: Micros,
    /// An alarm for this connection is armed.
    pub(crate) alarmed: bool,
    /// A flush has been asked for and not yet been performed.
    pub(crate) dirty: bool,
    /// Clients whose parsing waits until there is room in `out`.
    pub(crate) stalled: Vec<ClientId>,
    /// Bytes of the response at the head of the pipeline that have been passed on.
    pub(crate) response_len: u64,
    pub(crate) counters: Arc<ServerCounters>,
}

impl ServerConn {
    pub(crate) fn new(
        server: ServerIdx,
        protocol: Protocol,
        counters: Arc<ServerCounters>,
        now: Micros,
    ) -> Self {
        Self {
            server,
            phase: ConnPhase::Connecting,
            parser: ResponseParser::new(protocol),
            recv: RecvBuf::default(),
            out: SendQueue::default(),
            pipeline: VecDeque::new(),
            written: 0,
            expired: 0,
            sent: 0,
            handshake_len: 0,
            blamed: false,
            last_recv: now,
            alarmed: false,
            dirty: false,
            stalled: Vec::new(),
            response_len: 0,
            counters,
        }
    }

    /// Bytes that may leave now.
    #[inline]
    pub(crate) fn sendable(&self) -> u64 {
        match self.phase {
            ConnPhase::Connecting => 0,
            ConnPhase::Handshake => self.handshake_len.saturating_sub(self.sent),
            ConnPhase::Ready => self.out.len(),
        }
    }

    /// A client's request whose bytes have just been appended to `out`; without an `origin` it is owed
    /// no response.
    #[inline]
    pub(crate) fn queued(&mut self, origin: Option<Origin>, len: u32, now: Micros) {
        self.counters.requests.add(1);
        self.counters.request_bytes.add(u64::from(len));
        if let Some(origin) = origin {
            self.push_slot(origin, len, now, false);
        }
    }

    /// The slot of a request whose bytes have just been appended to `out`.
    #[inline]
    pub(crate) fn push_slot(&mut self, origin: Origin, len: u32, now: Micros, moved: bool) {
        let end = self.sent + self.out.len();
        self.pipeline.push_back(Slot {
            origin,
            queued_at: now,
            end,
            len,
            moved,
        });
        self.counters.in_queue.add(1);
        self.counters.in_queue_bytes.add(u64::from(len));
    }

    /// Takes out the slot whose response has come.
    #[inline]
    pub(crate) fn pop_slot(&mut self) -> Slot {
        let slot = self
            .pipeline
            .pop_front()
            .expect("a response is parsed only for a slot");
        if self.written > 0 {
            self.written -= 1;
            self.counters.out_queue.sub(1);
            self.counters.out_queue_bytes.sub(u64::from(slot.len));
        } else {
            // The server answered before it had the whole request.
            self.counters.in_queue.sub(1);
            self.counters.in_queue_bytes.sub(u64::from(slot.len));
        }
        self.expired = self.expired.saturating_sub(1);
        if self.expired == 0 {
            self.blamed = false;
        }
        slot
    }

    /// The kernel took `len` bytes: requests move from the incoming to the outgoing queue.
    pub(crate) fn commit(&mut self, len: usize, pool: &mut ChunkPool) {
        self.out.commit(len, pool);
        self.sent += to_u64(len);
        let (mut count, mut bytes) = (0, 0);
        while let Some(slot) = self.pipeline.get(self.written) {
            if slot.end > self.sent {
                break;
            }
            self.written += 1;
            count += 1;
            bytes += u64::from(slot.len);
        }
        self.counters.in_queue.sub(count);
        self.counters.in_queue_bytes.sub(bytes);
        self.counters.out_queue.add(count);
        self.counters.out_queue_bytes.add(bytes);
    }

    /// When this connection must be looked at, if nothing comes until then: the deadline of the
    /// oldest unexpired request or, once a request has expired, the end of its patience.
    pub(crate) fn next_alarm(&self, timeout: Span) -> Option<Micros> {
        let deadline = self
            .pipeline
            .get(self.expired)
            .map(|slot| slot.queued_at + timeout);
        let silence = self.silent_at(timeout);
        match (deadline, silence) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// When it counts as dead: it holds an expired request and no byte has come for one further
    /// time-out.
    pub(crate) fn silent_at(&self, timeout: Span) -> Option<Micros> {
        if self.expired == 0 {
            return None;
        }
        let oldest = self.pipeline.front()?.queued_at;
        Some((oldest + timeout + timeout).max(self.last_recv + timeout))
    }

    /// Whether the kernel took a part of `slot`.
    pub(crate) fn has_begun(&self, slot: &Slot) -> bool {
        slot.start() < self.sent
    }

    /// Panics if the connection contradicts itself.
    pub(crate) fn check_invariants(&self) {
        self.out.check_invariants();
        assert!(self.written <= self.pipeline.len());
        assert!(self.expired <= self.pipeline.len());
        let mut before = 0;
        for (i, slot) in self.pipeline.iter().enumerate() {
            assert!(slot.start() >= before, "slots do not overlap");
            assert_eq!(
                i < self.written,
                slot.end <= self.sent,
                "written is what was sent"
            );
            before = slot.end;
        }
        assert!(before <= self.sent + self.out.len());
    }
}

/// Failures and ejection of one server (twemproxy's rules).
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failures since the last healthy response.
    pub(crate) failures: u32,
    /// While ejected: when it may come back.
    pub(crate) ejected_until: Option<Micros>,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pool: PoolIdx,
    pub(crate) conns: Vec<ServerConnId>,
    pub(crate) health: Health,
    pub(crate) counters: Arc<ServerCounters>,
}

/// A request taken out of a connection that closed, to be queued on another.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) slot: Slot,
    pub(crate) bytes: Vec<u8>,
}

impl ServerConn {
    /// Takes out the requests of which the kernel took nothing. Noreply requests have no slot and
    /// are lost with their connection, as twemproxy loses them.
    pub(crate) fn take_unsent(&mut self, pool: &mut ChunkPool) -> Vec<Moved> {
        let base = self.sent;
        let first = self.pipeline.iter().position(|slot| slot.start() >= base);
        let unsent = self.out.take_all(pool);
        let Some(first) = first else {
            return Vec::new();
        };
        let slots = self.pipeline.split_off(first);
        slots
            .into_iter()
            .map(|slot| {
                self.counters.in_queue.sub(1);
                self.counters.in_queue_bytes.sub(u64::from(slot.len));
                let from = usize::try_from(slot.start() - base).expect("queued bytes fit memory");
                let bytes = unsent[from..from + to_usize(slot.len)].to_vec();
                Moved { slot, bytes }
            })
            .collect()
    }

    /// Withdraws the slots from `at` on that were queued no later than `queued_until` and of which the
    /// kernel took nothing: their bytes never leave. Returns them in order.
    pub(crate) fn withdraw(
        &mut self,
        at: usize,
        queued_until: Micros,
        pool: &mut ChunkPool,
    ) -> Vec<Slot> {
        let base = self.sent;
        let unsent = self.out.take_all(pool);
        let (mut kept, mut copied, mut removed) = (Vec::with_capacity(unsent.len()), 0, 0_u64);
        let mut withdrawn = Vec::new();
        let later = self.pipeline.split_off(at);
        for mut slot in later {
            let is_due = slot.queued_at <= queued_until && slot.start() >= base;
            if is_due {
                let from = usize::try_from(slot.start() - base).expect("queued bytes fit memory");
                kept.extend_from_slice(&unsent[copied..from]);
                copied = from + to_usize(slot.len);
                removed += u64::from(slot.len);
                self.counters.in_queue.sub(1);
                self.counters.in_queue_bytes.sub(u64::from(slot.len));
                withdrawn.push(slot);
            } else {
                slot.end -= removed;
                self.pipeline.push_back(slot);
            }
        }
        kept.extend_from_slice(&unsent[copied..]);
        self.out.push(kept, pool);
        withdrawn
    }
}
