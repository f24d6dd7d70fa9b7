//! One client's connection: what it sent and what it is owed.
//!
//! Requests are answered strictly in the order they came. The *order queue* has one entry per
//! request in flight; a response that comes early is parked until it is at the head.
//!
//! Most requests wait for one server and are answered in their turn, so the entries at the end of the
//! queue that say no more than that are counted and not stored.
//!
//! Invariants: `order` is in request order and entry `i` has the sequence number `head_seq + i`; the
//! entries from its end to `in_flight` are [`Pending::Waiting`];
//! `parked_live` counts the entries that point into `parked`; with no such entry `parked` is empty.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use super::split::SplitId;
use crate::buf::{ChunkPool, ChunkSize, RecvBuf, SendQueue};
use crate::canary::{Canary, is_planted};
use crate::config::PoolConfig;
use crate::ids::{ClientId, PoolIdx, ServerConnId, ServerIdx};
use crate::limits::{
    CLIENT_IN_FLIGHT_MAX, CLIENT_OUTPUT_SOFT, FREE_ORDER_LEN_MAX, FREE_ORDERS_MAX, PARKED_DEAD_MAX,
    RUN_COPY_LEN_MAX, SEND_MOVE_MIN,
};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::redis::local::Session;
use crate::proto::{RequestLimits, RequestParser};
use crate::time::Micros;

/// What has become of one request.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A server has it.
    Waiting,
    /// Its response is larger than one read and comes before its turn.
    Partial(Vec<u8>),
    /// Its response is larger than one read and is passing through to the client.
    Streaming {
        /// How much of it has been queued so far.
        queued: u64,
    },
    /// Several servers have parts of it.
    Split(SplitId),
    /// Answered; the response waits for its turn in `parked`.
    Parked { start: usize, len: u32 },
    /// Answered; the response waits for its turn in a buffer of its own.
    Ready(Vec<u8>),
}

/// How the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Requests are read.
    Open,
    /// No more requests: it closes when all responses have left. `eof` tells whether the client
    /// ended it in order (EOF or quit).
    Closing { eof: bool },
}

/// Why a client's requests are not parsed at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pause {
    /// They are.
    No,
    /// Its own share is full: requests in flight or bytes of responses.
    Own,
    /// A server connection has too much to send.
    Server,
    /// The process has too much in its buffers.
    Memory,
}

/// The connection of one server that a client keeps to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) server: ServerIdx,
    pub(crate) conn: ServerConnId,
    /// Where its last noreply request ended in that connection's stream.
    pub(crate) noreply_end: u64,
}

/// Empty order queues, kept for clients that need one again: an idle client holds none.
#[derive(Debug, Default)]
pub(crate) struct SpareOrders {
    orders: Vec<VecDeque<Pending>>,
    /// The fewest there were since the last [`Self::tidy`].
    least: usize,
}

/// Order queues that may stay free when nobody needs them.
const TIDY_ORDERS: usize = 16;

impl SpareOrders {
    fn take(&mut self) -> VecDeque<Pending> {
        let order = self.orders.pop().unwrap_or_default();
        self.least = self.least.min(self.orders.len());
        order
    }

    fn give(&mut self, order: VecDeque<Pending>) {
        let is_worth_it = (1..=FREE_ORDER_LEN_MAX).contains(&order.capacity());
        if is_worth_it && self.orders.len() < FREE_ORDERS_MAX {
            self.orders.push(order);
        }
    }

    /// Whether [`Self::tidy`] may have something to do that is worth it.
    #[inline]
    pub(crate) const fn is_untidy(&self) -> bool {
        self.orders.len() > TIDY_ORDERS
    }

    /// Gives back those that were not needed since the last call.
    pub(crate) fn tidy(&mut self) {
        // The first ones are those that lay longest.
        self.orders.drain(..self.least);
        self.least = self.orders.len();
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) pool: PoolIdx,
    pub(crate) phase: Phase,
    pub(crate) pause: Pause,
    /// A read found no space; it must be told when there is some again.
    pub(crate) read_refused: bool,
    /// A flush has been asked for and not yet been performed.
    pub(crate) dirty: bool,
    /// Already on the list of clients to be parsed again.
    pub(crate) resuming: bool,
    /// The client's EOF was read while its requests were not being parsed.
    pub(crate) eof_read: bool,
    /// `client_output_limit`
    pub(crate) output_limit: u64,
    pub(crate) parser: RequestParser,
    pub(crate) limits: RequestLimits,
    pub(crate) recv: RecvBuf,
    pub(crate) out: SendQueue,
    pub(crate) session: Session,
    /// Which connection of each server it uses, where there are several.
    bindings: Vec<Binding>,
    /// When bytes last came from it or left for it.
    pub(crate) last_active: Micros,
    order: VecDeque<Pending>,
    in_flight: u32,
    head_seq: u32,
    parked: Vec<u8>,
    parked_live: u32,
    /// Bytes in `parked` of responses that have left.
    parked_dead: usize,
    /// Bytes of early responses, in `parked` and in buffers of their own.
    early_len: u64,
}

impl Client {
    pub(crate) fn new(
        id: ClientId,
        pool: PoolIdx,
        config: &PoolConfig,
        session_id: u64,
        now: Micros,
    ) -> Self {
        Self {
            id,
            pool,
            phase: Phase::Open,
            pause: Pause::No,
            read_refused: false,
            dirty: false,
            resuming: false,
            eof_read: false,
            output_limit: config.client_output_limit,
            parser: RequestParser::new(config.protocol),
            limits: RequestLimits {
                frame_len_max: config.request_size_limit,
                unauthenticated: config.redis_auth.is_some(),
                allow_flush: config.allow_flush,
            },
            recv: RecvBuf::default(),
            out: SendQueue::default(),
            session: Session {
                id: session_id,
                ..Session::default()
            },
            bindings: Vec::new(),
            last_active: now,
            order: VecDeque::new(),
            in_flight: 0,
            head_seq: 0,
            parked: Vec::new(),
            parked_live: 0,
            parked_dead: 0,
            early_len: 0,
        }
    }

    /// The connection of `server` that it keeps to; it may be gone.
    pub(crate) fn binding(&self, server: ServerIdx) -> Option<&Binding> {
        self.bindings.iter().find(|bound| bound.server == server)
    }

    /// Keeps to `conn` of `server` from now on.
    pub(crate) fn bind(&mut self, server: ServerIdx, conn: ServerConnId) {
        self.bindings.retain(|bound| bound.server != server);
        self.bindings.push(Binding {
            server,
            conn,
            noreply_end: 0,
        });
    }

    /// A noreply request of its own ends at `end` of the stream of `server`'s connection.
    pub(crate) fn note_noreply(&mut self, server: ServerIdx, end: u64) {
        let bound = self
            .bindings
            .iter_mut()
            .find(|bound| bound.server == server);
        if let Some(binding) = bound {
            binding.noreply_end = end;
        }
    }

    /// Whether it has been idle since `since`.
    pub(crate) fn is_idle_since(&self, since: Micros) -> bool {
        let may_be_idle = self.may_be_idle() || is_planted(Canary::DebtsAreIdle);
        self.last_active <= since && may_be_idle
    }

    /// Whether nothing is owed to it and it is not kept waiting.
    pub(crate) fn may_be_idle(&self) -> bool {
        self.pause == Pause::No && self.is_settled()
    }

    /// How many more requests may be parsed before responses leave.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        if self.output_len() < CLIENT_OUTPUT_SOFT {
            CLIENT_IN_FLIGHT_MAX.saturating_sub(self.in_flight)
        } else {
            0
        }
    }

    /// Whether so much has left that parsing goes on after [`Pause::Own`]. Half, so that a client at
    /// its limit is resumed once per many responses and not once per response.
    pub(crate) fn has_drained(&self) -> bool {
        self.in_flight <= CLIENT_IN_FLIGHT_MAX / 2 && self.output_len() <= CLIENT_OUTPUT_SOFT / 2
    }

    /// Bytes of responses held for this client.
    #[inline]
    pub(crate) const fn output_len(&self) -> u64 {
        self.out.len() + self.early_len
    }

    /// Whether nothing is owed to it any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight == 0 && self.out.is_empty()
    }

    /// Takes the next place in the order queue; returns its sequence number.
    pub(crate) fn push(&mut self, pending: Pending, spare: &mut SpareOrders) -> u32 {
        let seq = self.push_waiting();
        if !matches!(pending, Pending::Waiting) {
            *self.pending_mut(seq, spare) = pending;
        }
        seq
    }

    /// As [`Self::push`], for a request that one server has.
    #[inline]
    pub(crate) const fn push_waiting(&mut self) -> u32 {
        self.push_many(1)
    }

    /// Takes the next `count` places, for requests that one server has each; returns the sequence
    /// number of the first.
    #[inline]
    pub(crate) const fn push_many(&mut self, count: u32) -> u32 {
        let seq = self.head_seq.wrapping_add(self.in_flight);
        self.in_flight += count;
        seq
    }

    /// Gives back what a client that is owed nothing does not need.
    #[inline]
    pub(crate) fn rest(&mut self, spare: &mut SpareOrders) {
        if self.order.capacity() > 0 && self.is_settled() {
            spare.give(mem::take(&mut self.order));
        }
    }

    /// The place of the request `seq`, which must be in flight, in the order queue.
    #[inline]
    fn place(&self, seq: u32) -> usize {
        let place = seq.wrapping_sub(self.head_seq);
        assert!(
            place < self.in_flight,
            "a request leaves the order queue only when answered"
        );
        to_usize(place)
    }

    /// What has become of the request `seq`, which must be in flight.
    #[inline]
    pub(crate) fn pending(&self, seq: u32) -> &Pending {
        self.order.get(self.place(seq)).unwrap_or(&Pending::Waiting)
    }

    /// As [`Self::pending`], to be changed.
    #[inline]
    pub(crate) fn pending_mut(&mut self, seq: u32, spare: &mut SpareOrders) -> &mut Pending {
        let place = self.place(seq);
        if place >= self.order.len() {
            if self.order.capacity() == 0 {
                self.order = spare.take();
            }
            self.order.resize_with(place + 1, || Pending::Waiting);
        }
        &mut self.order[place]
    }

    #[inline]
    pub(crate) const fn is_head(&self, seq: u32) -> bool {
        seq == self.head_seq
    }

    /// A response composed by the proxy to a request just parsed: sent at once if nothing is owed
    /// before it. Returns whether there is something to flush.
    pub(crate) fn push_answer(
        &mut self,
        bytes: &[u8],
        pool: &mut ChunkPool,
        spare: &mut SpareOrders,
    ) -> bool {
        if self.in_flight == 0 {
            self.out.append(bytes, pool);
            return true;
        }
        let pending = self.park(bytes, pool);
        self.push(pending, spare);
        false
    }

    /// More of the response to `seq`; it goes on. Returns whether there is something to flush.
    pub(crate) fn respond_more(
        &mut self,
        seq: u32,
        bytes: &[u8],
        pool: &mut ChunkPool,
        spare: &mut SpareOrders,
    ) -> bool {
        let len = to_u64(bytes.len());
        if self.is_head(seq) {
            self.out.append(bytes, pool);
            match self.pending_mut(seq, spare) {
                Pending::Streaming { queued } => *queued += len,
                pending => *pending = Pending::Streaming { queued: len },
            }
            return true;
        }
        self.early_len += len;
        match self.pending_mut(seq, spare) {
            Pending::Partial(held) => held.extend_from_slice(bytes),
            pending => *pending = Pending::Partial(bytes.to_vec()),
        }
        false
    }

    /// The response to `seq` ends with `bytes`. Returns whether there is something to flush.
    pub(crate) fn respond(
        &mut self,
        seq: u32,
        bytes: &[u8],
        pool: &mut ChunkPool,
        spare: &mut SpareOrders,
    ) -> bool {
        if !self.is_head(seq) {
            self.respond_early(seq, bytes, pool, spare);
            return false;
        }
        self.out.append(bytes, pool);
        self.pop_head();
        if self.is_head_answered() {
            self.release(pool);
        }
        true
    }

    /// As [`Self::respond`], for a request that is not yet at the head.
    pub(crate) fn respond_early(
        &mut self,
        seq: u32,
        bytes: &[u8],
        pool: &mut ChunkPool,
        spare: &mut SpareOrders,
    ) {
        let answered = if let Pending::Partial(held) = self.pending_mut(seq, spare) {
            let mut held = mem::take(held);
            held.extend_from_slice(bytes);
            self.early_len += to_u64(bytes.len());
            Pending::Ready(held)
        } else {
            self.park(bytes, pool)
        };
        *self.pending_mut(seq, spare) = answered;
    }

    /// Notes that the response to `seq`, which is not yet at the head, will be parked, `behind` bytes
    /// after those that are parked now. Returns false, and does nothing, if it is not to be parked or
    /// not the last of all that are known of.
    #[inline(always)]
    pub(crate) fn expect_parked(
        &mut self,
        seq: u32,
        behind: usize,
        len: usize,
        spare: &mut SpareOrders,
    ) -> bool {
        let place = self.place(seq);
        if place < self.order.len() || len >= SEND_MOVE_MIN {
            return false;
        }
        if self.order.capacity() == 0 {
            self.order = spare.take();
        }
        while self.order.len() < place {
            self.order.push_back(Pending::Waiting);
        }
        self.order.push_back(Pending::Parked {
            start: self.parked.len() + behind,
            len: to_u32(len),
        });
        self.parked_live += 1;
        true
    }

    /// Parks what [`Self::expect_parked`] has announced.
    #[inline(never)]
    pub(crate) fn park_expected(&mut self, bytes: &[u8], pool: &mut ChunkPool) {
        if self.parked.capacity() == 0 {
            self.parked = pool.take(ChunkSize::Small);
        }
        self.early_len += to_u64(bytes.len());
        self.parked.extend_from_slice(bytes);
    }

    /// The whole response to `seq`, in a buffer of its own. Returns whether there is something to
    /// flush.
    pub(crate) fn respond_owned(
        &mut self,
        seq: u32,
        bytes: Vec<u8>,
        pool: &mut ChunkPool,
        spare: &mut SpareOrders,
    ) -> bool {
        if !self.is_head(seq) && bytes.len() >= SEND_MOVE_MIN {
            self.early_len += to_u64(bytes.len());
            *self.pending_mut(seq, spare) = Pending::Ready(bytes);
            return false;
        }
        if self.is_head(seq) && bytes.len() >= SEND_MOVE_MIN {
            self.out.push(bytes, pool);
            self.pop_head();
            self.release(pool);
            return true;
        }
        self.respond(seq, &bytes, pool, spare)
    }

    /// Takes back what was queued of the response to `seq`, which failed; returns its length, or
    /// `None` if a part of it has been sent, so that no other response can take its place.
    pub(crate) fn retract(
        &mut self,
        seq: u32,
        pool: &mut ChunkPool,
        spare: &mut SpareOrders,
    ) -> Option<u64> {
        let Pending::Streaming { queued } = *self.pending(seq) else {
            return Some(0);
        };
        if queued > self.out.len() {
            return None;
        }
        self.out.cut_end(queued, pool);
        *self.pending_mut(seq, spare) = Pending::Waiting;
        Some(queued)
    }

    /// Drops what was held of the response to `seq`, which failed; returns its length.
    pub(crate) fn forget_partial(&mut self, seq: u32, spare: &mut SpareOrders) -> u64 {
        if !matches!(self.pending(seq), Pending::Partial(_)) {
            return 0;
        }
        let Pending::Partial(held) = mem::replace(self.pending_mut(seq, spare), Pending::Waiting)
        else {
            return 0;
        };
        self.early_len -= to_u64(held.len());
        to_u64(held.len())
    }

    /// Requests in flight that went to several servers.
    pub(crate) fn splits(&self) -> impl Iterator<Item = SplitId> {
        self.order.iter().filter_map(|pending| match pending {
            Pending::Split(split) => Some(*split),
            _ => None,
        })
    }

    /// Takes everything that waits for servers out of the order queue, for a client that is gone.
    pub(crate) fn take_splits(&mut self) -> impl Iterator<Item = SplitId> {
        self.order.drain(..).filter_map(|pending| match pending {
            Pending::Split(split) => Some(split),
            _ => None,
        })
    }

    #[inline]
    pub(crate) fn pop_head(&mut self) {
        self.order.pop_front();
        self.head_seq = self.head_seq.wrapping_add(1);
        self.in_flight -= 1;
    }

    /// The sequence number of the head, if of no request more is known than that it waits.
    #[inline]
    pub(crate) fn waiting_head(&self) -> Option<u32> {
        self.order.is_empty().then_some(self.head_seq)
    }

    /// Takes `count` requests from the head, where [`Self::waiting_head`] was seen.
    #[inline]
    pub(crate) fn pop_waiting(&mut self, count: u32) {
        debug_assert!(self.order.is_empty() && count <= self.in_flight);
        self.head_seq = self.head_seq.wrapping_add(count);
        self.in_flight -= count;
    }

    /// Whether what is now at the head may have been answered already.
    #[inline]
    pub(crate) fn is_head_answered(&self) -> bool {
        !matches!(self.order.front(), None | Some(Pending::Waiting))
            && !is_planted(Canary::ReleaseForgotten)
    }

    fn park(&mut self, bytes: &[u8], pool: &mut ChunkPool) -> Pending {
        self.early_len += to_u64(bytes.len());
        if bytes.len() >= SEND_MOVE_MIN {
            return Pending::Ready(bytes.to_vec());
        }
        if self.parked.capacity() == 0 {
            self.parked = pool.take(ChunkSize::Small);
        }
        let start = self.parked.len();
        self.parked.extend_from_slice(bytes);
        self.parked_live += 1;
        Pending::Parked {
            start,
            len: to_u32(bytes.len()),
        }
    }

    /// Forgets the parked responses that have left: a client that always has an early response would
    /// keep them all.
    #[cold]
    fn compact_parked(&mut self) {
        let mut live = Vec::with_capacity(self.parked.len() - self.parked_dead);
        for pending in &mut self.order {
            if let Pending::Parked { start, len } = pending {
                let bytes = &self.parked[*start..*start + to_usize(*len)];
                *start = live.len();
                live.extend_from_slice(bytes);
            }
        }
        self.parked = live;
        self.parked_dead = 0;
    }

    /// Passes on what has become due at the head of the order queue.
    #[inline(never)]
    pub(crate) fn release(&mut self, pool: &mut ChunkPool) {
        while let Some(head) = self.order.front_mut() {
            match head {
                Pending::Waiting | Pending::Streaming { .. } | Pending::Split(_) => break,
                Pending::Partial(held) => {
                    let held = mem::take(held);
                    self.early_len -= to_u64(held.len());
                    *head = Pending::Streaming {
                        queued: to_u64(held.len()),
                    };
                    self.out.push(held, pool);
                    break;
                }
                Pending::Ready(bytes) => {
                    let bytes = mem::take(bytes);
                    self.early_len -= to_u64(bytes.len());
                    self.out.push(bytes, pool);
                }
                Pending::Parked { .. } => {
                    self.release_parked(pool);
                    continue;
                }
            }
            self.pop_head();
        }
        if self.parked_dead > PARKED_DEAD_MAX.max(self.parked.len() / 2) {
            self.compact_parked();
        }
    }

    /// Passes on what is parked at the head, up to the first that was not parked right behind the one
    /// before it.
    #[inline(always)]
    fn release_parked(&mut self, pool: &mut ChunkPool) {
        let (mut range, mut count) = (0..0, 0);
        while let Some(&Pending::Parked { start, len }) = self.order.front() {
            let end = start + to_usize(len);
            if count == 0 {
                range = start..end;
            } else if start == range.end && end - range.start <= RUN_COPY_LEN_MAX {
                range.end = end;
            } else {
                break;
            }
            self.order.pop_front();
            count += 1;
        }
        self.head_seq = self.head_seq.wrapping_add(count);
        self.in_flight -= count;
        self.early_len -= to_u64(range.len());
        self.parked_dead += range.len();
        self.out.append(&self.parked[range], pool);
        self.parked_live -= count;
        if self.parked_live == 0 {
            self.parked_dead = 0;
            pool.give(mem::take(&mut self.parked));
        }
    }

    /// Gives all memory back, for a client that is gone.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        self.out.clear(pool);
        self.recv.clear();
        pool.give(mem::take(&mut self.parked));
    }

    /// Panics if the client contradicts itself.
    pub(crate) fn check_invariants(&self) {
        self.out.check_invariants();
        // One pass: the simulation does this after every tick.
        let (mut parked, mut live, mut early) = (0, 0, 0);
        for (i, pending) in self.order.iter().enumerate() {
            match pending {
                Pending::Waiting | Pending::Split(_) => continue,
                Pending::Streaming { .. } => {
                    assert_eq!(i, 0, "only the head streams");
                    continue;
                }
                Pending::Parked { len, .. } => {
                    parked += 1;
                    live += to_usize(*len);
                }
                Pending::Ready(bytes) | Pending::Partial(bytes) => early += bytes.len(),
            }
            assert!(i > 0, "what is due has left");
        }
        assert_eq!(parked, self.parked_live);
        assert!(parked > 0 || self.parked.is_empty());
        assert_eq!(self.parked.len(), live + self.parked_dead);
        let bound = PARKED_DEAD_MAX.max(live);
        assert!(self.parked_dead <= bound, "what has left is forgotten");
        assert_eq!(to_u64(early + live), self.early_len);
        assert!(self.order.len() <= to_usize(self.in_flight));
        assert!(self.in_flight <= CLIENT_IN_FLIGHT_MAX);
    }
}
