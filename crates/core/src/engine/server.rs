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
use core::mem;

use super::client::Client;
use super::kept::Kept;
use super::refusal::Refusal;
use super::slot::{Finished, Moved, Origin, Outgoing, Queued, Slot};
use crate::buf::{ChunkPool, RecvBuf, SendQueue};
use crate::canary::{Canary, is_planted};
use crate::counters::ServerCounters;
use crate::ids::{ClientId, PoolIdx, ServerConnId, ServerId};
use crate::limits::SLOT_HELD_LEN;
use crate::num::{to_u64, to_usize};
use crate::proto::{Protocol, ResponseParser};
use crate::time::{Micros, Span};

const _: () = assert!(size_of::<Slot>() + size_of::<Write>() <= SLOT_HELD_LEN);

/// The kernel took all up to `end` of a connection's stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) end: u64,
    pub(super) at: Micros,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConnPhase {
    /// The shell is opening it; requests queue.
    Connecting,
    /// The proxy's own requests are under way: they may leave, those of clients wait behind them.
    Handshake,
    /// Requests flow.
    Ready,
}

#[derive(Debug)]
pub(crate) struct ServerConn {
    pub(crate) server: ServerId,
    pub(crate) phase: ConnPhase,
    pub(crate) parser: ResponseParser,
    pub(crate) recv: RecvBuf,
    pub(crate) out: SendQueue,
    pub(crate) pipeline: VecDeque<Slot>,
    /// How many slots at the front of the pipeline are completely written.
    pub(crate) written: usize,
    /// Bytes of the other slots, so that a write of everything need not look at each.
    unwritten_len: u64,
    /// When the kernel took what, for the slots that are written: each is of the first write whose
    /// offset is not below its end.
    pub(super) writes: VecDeque<Write>,
    /// How many slots at the front of the pipeline have expired.
    pub(crate) expired: usize,
    /// Bytes the kernel took.
    pub(crate) sent: u64,
    /// Bytes of the proxy's own requests at the very front of the stream.
    pub(crate) handshake_len: u64,
    /// It asks an ejected server whether it is well, and is on no list of connections.
    pub(crate) is_probe: bool,
    /// The silence that lasts now has been counted.
    pub(crate) blamed: bool,
    /// A failure has been counted for every request up to this offset.
    pub(crate) failed_until: u64,
    /// Every response up to this offset has come.
    pub(crate) answered: u64,
    /// A request was moved here behind younger ones: deadlines are out of order.
    pub(crate) unsorted: bool,
    /// Sent chunks, as long as something is outstanding.
    pub(crate) kept: Kept,
    /// When the attempt to connect began.
    pub(crate) opened_at: Micros,
    /// When bytes last came.
    pub(crate) last_recv: Micros,
    /// Since when bytes wait that may leave, and the kernel has taken none of them.
    pub(crate) stuck_since: Option<Micros>,
    /// When the alarm that counts for this connection is armed for.
    pub(crate) alarm_at: Option<Micros>,
    /// A flush has been asked for and not yet been performed.
    pub(crate) dirty: bool,
    /// Clients whose parsing waits until there is room in `out`.
    pub(crate) stalled: Vec<ClientId>,
    /// Bytes of the response at the head of the pipeline that have been passed on.
    pub(crate) response_len: u64,
    /// The first response was an error: it may be the server's refusal to serve.
    pub(crate) refusal: Option<Refusal>,
    /// Attempts to connect that had failed in a row before this one succeeded.
    pub(crate) failed_before: u32,
    pub(crate) counters: Arc<ServerCounters>,
}

impl ServerConn {
    pub(crate) fn new(
        server: ServerId,
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
            unwritten_len: 0,
            writes: VecDeque::new(),
            expired: 0,
            sent: 0,
            handshake_len: 0,
            is_probe: false,
            blamed: false,
            failed_until: 0,
            answered: 0,
            unsorted: false,
            kept: Kept::default(),
            opened_at: now,
            last_recv: now,
            stuck_since: None,
            alarm_at: None,
            dirty: false,
            stalled: Vec::new(),
            response_len: 0,
            refusal: None,
            failed_before: 0,
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

    /// Offset one past the last byte queued.
    #[inline]
    pub(crate) const fn stream_end(&self) -> u64 {
        self.sent + self.out.len()
    }

    /// Whether a flush is due and, with a `timeout`, an alarm armed.
    #[inline]
    pub(crate) const fn is_announced(&self, timeout: Option<Span>) -> bool {
        self.dirty && (self.alarm_at.is_some() || timeout.is_none())
    }

    /// A client's request whose bytes have just been appended to `out`.
    #[inline(always)]
    pub(crate) fn queued(&mut self, request: Outgoing, now: Micros, pool: &mut ChunkPool) {
        let Outgoing {
            origin,
            len,
            readonly,
        } = request;
        self.counters.requests.add(1);
        self.counters.request_bytes.add(u64::from(len));
        if let Some(origin) = origin {
            self.push_slot(Slot::new(origin, len, readonly, now), pool);
        }
    }

    /// Requests whose bytes have just been appended, and the slots of those that are owed a response.
    #[inline]
    pub(crate) fn push_slots(&mut self, slots: &[Slot], queued: &Queued, pool: &mut ChunkPool) {
        pool.ledger.charge(slots.len() * SLOT_HELD_LEN);
        self.pipeline.extend(slots);
        self.unwritten_len += queued.slots_len;
        self.counters.requests.add(queued.requests);
        self.counters.request_bytes.add(queued.len);
        self.counters.in_queue.add(queued.slots);
        self.counters.in_queue_bytes.add(queued.slots_len);
    }

    /// The slot of a request whose bytes have just been appended to `out`.
    #[inline]
    pub(crate) fn push_slot(&mut self, mut slot: Slot, pool: &mut ChunkPool) {
        pool.ledger.charge(SLOT_HELD_LEN);
        slot.end = self.stream_end();
        self.pipeline.push_back(slot);
        self.unwritten_len += slot.len();
        self.counters.in_queue.add(1);
        self.counters.in_queue_bytes.add(slot.len());
    }

    /// Takes out the slot whose response has come.
    #[inline]
    pub(crate) fn pop_slot(&mut self, pool: &mut ChunkPool) -> Slot {
        pool.ledger.free(SLOT_HELD_LEN);
        let slot = self
            .pipeline
            .pop_front()
            .expect("a response is parsed only for a slot");
        if self.written > 0 {
            self.uncount_written(&slot);
        } else {
            // The server answered before it had the whole request.
            self.uncount_unwritten(&slot);
        }
        self.expired = self.expired.saturating_sub(1);
        if self.expired == 0 {
            self.blamed = false;
        }
        self.answered = slot.end;
        slot
    }

    /// A slot that was completely written is no longer in the pipeline.
    #[inline]
    fn uncount_written(&mut self, slot: &Slot) {
        self.written -= 1;
        self.counters.out_queue.sub(1);
        self.counters.out_queue_bytes.sub(slot.len());
    }

    /// A slot that was not is no longer in the pipeline.
    #[inline]
    fn uncount_unwritten(&mut self, slot: &Slot) {
        self.unwritten_len -= slot.len();
        self.counters.in_queue.sub(1);
        self.counters.in_queue_bytes.sub(slot.len());
    }

    /// Takes out the first slots, which are written and have not expired: their responses have come.
    pub(crate) fn finish_run(&mut self, done: &Finished, pool: &mut ChunkPool) {
        pool.ledger.free(done.slots * SLOT_HELD_LEN);
        self.answered = self.pipeline[done.slots - 1].end;
        self.pipeline.drain(..done.slots);
        self.written -= done.slots;
        let slots = to_u64(done.slots);
        self.counters.out_queue.sub(slots);
        self.counters.out_queue_bytes.sub(done.slots_len);
        self.counters.responses.add(slots - done.unwanted);
        self.counters.response_bytes.add(done.response_len);
        if self.pipeline.is_empty() {
            self.rest(pool);
        }
    }

    /// Nothing is outstanding any more.
    pub(crate) fn rest(&mut self, pool: &mut ChunkPool) {
        self.unsorted = false;
        self.writes.clear();
        self.kept.clear(pool);
    }

    /// The kernel took `len` bytes: requests move from the incoming to the outgoing queue.
    pub(crate) fn commit(&mut self, len: usize, now: Micros, pool: &mut ChunkPool) {
        let (kept, mut end) = (&mut self.kept, self.sent);
        let mut segment_rest = to_u64(self.out.sent_prefix().len());
        self.out.commit_with(len, pool, |segment, pool| {
            // A segment is done with when what was left of it has gone.
            let taken = to_u64(segment.len()) - mem::take(&mut segment_rest);
            end += taken;
            kept.push(end, segment.into_bytes(), pool);
        });
        self.sent += to_u64(len);
        self.stuck_since = None;
        self.note_waiting(now);
        let (count, bytes) = self.newly_written();
        if count == 0 {
            return;
        }
        self.written += count;
        self.unwritten_len -= bytes;
        self.note_write(now);
        let count = to_u64(count);
        self.counters.in_queue.sub(count);
        self.counters.in_queue_bytes.sub(bytes);
        self.counters.out_queue.add(count);
        self.counters.out_queue_bytes.add(bytes);
    }

    /// How many slots became written since they were counted, and their bytes.
    fn newly_written(&self) -> (usize, u64) {
        if self.out.is_empty() {
            return (self.pipeline.len() - self.written, self.unwritten_len);
        }
        let waiting = self.pipeline.range(self.written..);
        let written = waiting.take_while(|slot| slot.end <= self.sent);
        written.fold((0, 0), |(count, bytes), slot| {
            (count + 1, bytes + slot.len())
        })
    }

    /// Notes when the slots just written were. Writes whose slots are all answered are forgotten, so
    /// there are no more writes than slots.
    fn note_write(&mut self, now: Micros) {
        while self
            .writes
            .front()
            .is_some_and(|write| write.end <= self.answered)
        {
            self.writes.pop_front();
        }
        self.writes.push_back(Write {
            end: self.sent,
            at: now,
        });
    }

    /// Bytes may wait to be sent: if so, the patience with a server that takes none begins.
    #[inline]
    pub(crate) fn note_waiting(&mut self, now: Micros) {
        if self.stuck_since.is_none() && self.sendable() > 0 {
            self.stuck_since = Some(now);
        }
    }

    /// Counts a failure for the requests in flight now, unless one was counted while `slot_end`
    /// was in flight. Returns whether it is to be counted.
    pub(crate) fn count_failure(&mut self, slot_end: u64) -> bool {
        if slot_end <= self.failed_until {
            return false;
        }
        self.failed_until = self.stream_end();
        true
    }

    /// Whether `client`, bound to this connection, may use another without being overtaken by what it
    /// sent here: nothing of it is outstanding, and its last noreply request, which ended at
    /// `noreply_end`, was followed by a response.
    pub(crate) fn may_be_left(&self, client: &Client, noreply_end: u64) -> bool {
        self.answered >= noreply_end
            && !self
                .pipeline
                .iter()
                .rev()
                .any(|slot| slot.origin.client() == Some(client.id))
    }

    /// Whether it stands and the server owes nothing: of no request a byte was sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == ConnPhase::Ready
            && self
                .pipeline
                .front()
                .is_none_or(|slot| !self.has_begun(slot))
    }

    /// Whether the kernel took a part of `slot`.
    pub(crate) fn has_begun(&self, slot: &Slot) -> bool {
        slot.start() < self.sent
    }

    /// Takes out, from a connection that is over, the requests that may be sent on another one: those
    /// of which the kernel took nothing and, if `written_too`, those that change nothing, as far as
    /// their bytes are kept and no byte of their response has come. Each only once. Noreply requests
    /// have no slot and are lost with their connection, as twemproxy loses them.
    pub(crate) fn take_resendable(
        &mut self,
        written_too: bool,
        pool: &mut ChunkPool,
    ) -> Vec<Moved> {
        let sent = self.sent;
        let mut tail = self.out.sent_prefix().to_vec();
        let mut tail_start = sent - to_u64(tail.len());
        if written_too {
            let kept = self.kept.before(tail_start);
            tail_start -= to_u64(kept.len());
            tail.splice(0..0, kept);
        }
        tail.extend_from_slice(&self.out.take_all(pool));
        let is_answering = self.response_len > 0;
        let mut moved = Vec::new();
        for (i, slot) in mem::take(&mut self.pipeline).into_iter().enumerate() {
            let may_repeat = written_too
                && slot.readonly
                && slot.start() >= tail_start
                && slot.origin != Origin::Discarded
                && !(i == 0 && is_answering);
            if slot.moved || slot.is_ours() || !(slot.start() >= sent || may_repeat) {
                self.pipeline.push_back(slot);
                continue;
            }
            if slot.end <= sent {
                self.uncount_written(&slot);
            } else {
                self.uncount_unwritten(&slot);
            }
            let from = usize::try_from(slot.start() - tail_start).expect("kept bytes fit memory");
            let bytes = tail[from..from + to_usize(slot.len)].to_vec();
            moved.push(Moved { slot, bytes });
        }
        pool.ledger.free(moved.len() * SLOT_HELD_LEN);
        moved
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
                if is_planted(Canary::WithdrawnBytesLeave) {
                    kept.extend_from_slice(&unsent[from..copied]);
                }
                removed += u64::from(slot.len);
                self.uncount_unwritten(&slot);
                withdrawn.push(slot);
            } else {
                slot.end -= removed;
                self.pipeline.push_back(slot);
            }
        }
        pool.ledger.free(withdrawn.len() * SLOT_HELD_LEN);
        kept.extend_from_slice(&unsent[copied..]);
        self.out.push(kept, pool);
        if self.out.is_empty() {
            self.stuck_since = None;
        }
        withdrawn
    }

    /// Takes out everything, for a connection that is over: the slots are the caller's.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) -> VecDeque<Slot> {
        self.recv.clear(pool);
        self.out.clear(pool);
        self.kept.clear(pool);
        pool.ledger.free(self.pipeline.len() * SLOT_HELD_LEN);
        mem::take(&mut self.pipeline)
    }

    /// Bytes it is charged for.
    pub(crate) fn held(&self) -> u64 {
        self.recv.held() + self.out.held() + to_u64(self.pipeline.len() * SLOT_HELD_LEN)
    }

    /// Bytes of memory its buffers and queues take.
    pub(crate) fn footprint(&self) -> u64 {
        let queues = self.pipeline.capacity() * size_of::<Slot>()
            + self.writes.capacity() * size_of::<Write>();
        self.recv.held() + self.out.footprint() + self.kept.footprint() + to_u64(queues)
    }

    /// Panics if the connection contradicts itself.
    pub(crate) fn check_invariants(&self) {
        self.out.check_invariants();
        self.kept.check_invariants();
        let mut before = self.answered;
        assert!(self.written <= self.pipeline.len());
        let unwritten = self.pipeline.range(self.written..);
        assert_eq!(self.unwritten_len, unwritten.map(Slot::len).sum::<u64>());
        assert!(self.expired <= self.pipeline.len());
        for (i, slot) in self.pipeline.iter().enumerate() {
            assert!(slot.start() >= before, "slots do not overlap");
            assert_eq!(
                i < self.written,
                slot.end <= self.sent,
                "written is what was sent"
            );
            before = slot.end;
        }
        assert!(before <= self.stream_end());
        assert!(
            self.dirty || self.stuck_since.is_some() == (self.sendable() > 0),
            "patience lasts exactly as long as bytes wait"
        );
    }
}

/// One server's health as this engine knows it; the count of failures that decides is the owner's.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// It has failed: its next healthy response is to be reported.
    pub(crate) is_watched: bool,
    /// Failures that this engine has reported since the last healthy response that it saw.
    pub(crate) failures: u32,
    /// How many failures this engine has reported.
    pub(crate) reports: u32,
    /// It is ejected.
    pub(crate) is_ejected: bool,
    /// A failure was told, and no connection has served since.
    pub(crate) is_away: bool,
    /// The connection of the probe under way.
    pub(crate) probe: Option<ServerConnId>,
}

/// Attempts to connect that failed.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// In a row.
    pub(crate) failures: u32,
    /// No new attempt before.
    pub(crate) until: Micros,
    /// What the clients that waited for the last attempt were told.
    pub(crate) reply: Vec<u8>,
}

/// Whether requests may go to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// They do.
    Open,
    /// It has failed as often as it may: they wait until the owner has answered the last report, which
    /// nearly always is a topology that sends them elsewhere.
    Held,
    /// It is ejected and keeps its keys: they get an answer at once.
    Down,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pool: PoolIdx,
    pub(crate) conns: Vec<ServerConnId>,
    pub(crate) health: Health,
    pub(crate) gate: Gate,
    /// Clients whose requests wait at the gate.
    pub(crate) held: Vec<ClientId>,
    pub(crate) backoff: Backoff,
    pub(crate) counters: Arc<ServerCounters>,
}

impl Health {
    /// Whether a request may move to another connection of the server. Not if it is ejected, or will be
    /// as soon as the owner has read this engine's reports.
    pub(crate) const fn may_be_tried_again(&self, failure_limit: u32) -> bool {
        !self.is_ejected && self.failures < failure_limit
    }
}

impl Server {
    /// A server without connections, of which nothing bad is known.
    pub(crate) fn new(pool: PoolIdx, counters: Arc<ServerCounters>) -> Self {
        Self {
            pool,
            conns: Vec::new(),
            health: Health::default(),
            gate: Gate::Open,
            held: Vec::new(),
            backoff: Backoff::default(),
            counters,
        }
    }
}
