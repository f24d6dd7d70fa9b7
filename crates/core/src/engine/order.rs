//! The *order queue* of one client: the requests it sent and that are not answered, in the order they came.
//!
//! Requests are answered strictly in that order. The queue has one entry per request in flight; a response that
//! comes early is parked until its request is at the head. What is due goes to the client's send queue, which
//! is the caller's.
//!
//! Most requests wait for one server and are answered in their turn, so the entries at the end of the
//! queue that say no more than that are counted and not stored.
//!
//! Invariants: `entries` is in request order and entry `i` has the sequence number `head_seq + i`; the
//! entries from its end to `in_flight` are [`Pending::Waiting`];
//! `parked_live` counts the entries that point into `parked`; with no such entry `parked` is empty. Charged are
//! the early responses, all of `parked`, and [`REQUEST_HELD_LEN`] for each request in flight.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use super::split::SplitId;
use crate::buf::{ChunkPool, ChunkSize, SendQueue};
use crate::canary::{Canary, is_planted};
use crate::limits::{
    CLIENT_IN_FLIGHT_MAX, FREE_ORDER_LEN_MAX, PARKED_DEAD_MAX, REQUEST_HELD_LEN, RUN_COPY_LEN_MAX,
    SEND_MOVE_MIN,
};
use crate::num::{to_u32, to_u64, to_usize};

const _: () = assert!(size_of::<Pending>() <= REQUEST_HELD_LEN);

/// What has become of one request.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A server has it.
    Waiting,
    /// Its response comes in pieces, and before its turn or, if it is not long, in its turn.
    Partial {
        /// The bytes that have come.
        held: Vec<u8>,
        /// It will be passed on piece by piece when its turn comes.
        is_long: bool,
        /// See [`Self::Brittle`].
        is_brittle: bool,
    },
    /// Its response is long, comes in pieces and is passing through to the client.
    Streaming {
        /// How much of it has been queued so far.
        queued: u64,
        /// See [`Self::Brittle`].
        is_brittle: bool,
    },
    /// A server has it, and the client wants no response.
    Muted,
    /// A server has it, and an error of ours in place of its response ends the connection.
    Brittle,
    /// Several servers have parts of it.
    Split(SplitId),
    /// Answered; the response waits for its turn in `parked`.
    Parked { start: usize, len: u32 },
    /// Answered; the response waits for its turn in a buffer of its own.
    Ready(Vec<u8>),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Order {
    entries: VecDeque<Pending>,
    in_flight: u32,
    head_seq: u32,
    parked: Vec<u8>,
    parked_live: u32,
    /// Bytes in `parked` of responses that have left.
    parked_dead: usize,
    /// Bytes of early responses, in `parked` and in buffers of their own.
    early_len: u64,
}

impl Order {
    /// The sequence number of the head, if there is one, or of the next request.
    #[inline]
    pub(crate) const fn head_seq(&self) -> u32 {
        self.head_seq
    }

    /// Goes on counting where the queue of a client that rested has ended.
    #[inline]
    pub(crate) fn go_on_at(&mut self, head_seq: u32) {
        debug_assert!(self.in_flight == 0, "a blank record owes nothing");
        self.head_seq = head_seq;
    }

    #[inline]
    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    #[inline]
    pub(crate) const fn early_len(&self) -> u64 {
        self.early_len
    }

    /// Gives back what a burst left behind, when nothing is in flight.
    #[inline]
    pub(crate) fn forget_room(&mut self) {
        if self.entries.capacity() > FREE_ORDER_LEN_MAX {
            self.entries = VecDeque::new();
        }
    }

    /// Takes the next place; returns its sequence number.
    #[inline]
    pub(crate) fn push(&mut self, pending: Pending, pool: &mut ChunkPool) -> u32 {
        let seq = self.push_waiting(pool);
        if !matches!(pending, Pending::Waiting) {
            *self.pending_mut(seq) = pending;
        }
        seq
    }

    /// As [`Self::push`], for a request that one server has.
    #[inline]
    pub(crate) fn push_waiting(&mut self, pool: &mut ChunkPool) -> u32 {
        self.push_many(1, pool)
    }

    /// Takes the next `count` places, for requests that one server has each; returns the sequence
    /// number of the first.
    #[inline]
    pub(crate) fn push_many(&mut self, count: u32, pool: &mut ChunkPool) -> u32 {
        pool.ledger.charge(to_usize(count) * REQUEST_HELD_LEN);
        let seq = self.head_seq.wrapping_add(self.in_flight);
        self.in_flight += count;
        seq
    }

    /// The place of the request `seq`, which must be in flight.
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
        self.entries
            .get(self.place(seq))
            .unwrap_or(&Pending::Waiting)
    }

    /// Whether the client wants no response to the request `seq`, which must be in flight.
    #[inline]
    pub(crate) fn is_muted(&self, seq: u32) -> bool {
        !self.entries.is_empty() && matches!(self.pending(seq), Pending::Muted)
    }

    /// The client wants no response to the request that came last, which is in flight.
    pub(crate) fn mute_last(&mut self) {
        let seq = self.head_seq.wrapping_add(self.in_flight - 1);
        if matches!(self.pending(seq), Pending::Waiting | Pending::Brittle) {
            *self.pending_mut(seq) = Pending::Muted;
        }
    }

    /// The request that came last is brittle. Returns false if none came since `in_flight` was as given, or if
    /// it does not wait any more.
    pub(crate) fn make_last_brittle(&mut self, in_flight: u32) -> bool {
        if self.in_flight == in_flight {
            return false;
        }
        let seq = self.head_seq.wrapping_add(self.in_flight - 1);
        let is_waiting = matches!(self.pending(seq), Pending::Waiting);
        if is_waiting {
            *self.pending_mut(seq) = Pending::Brittle;
        }
        is_waiting
    }

    /// Whether an error of ours in place of the response to the request `seq`, which must be in flight, ends the
    /// connection.
    pub(crate) fn is_brittle(&self, seq: u32) -> bool {
        match self.pending(seq) {
            Pending::Brittle => true,
            Pending::Partial { is_brittle, .. } | Pending::Streaming { is_brittle, .. } => {
                *is_brittle
            }
            _ => false,
        }
    }

    /// The parts of the request `seq`, of which a fragment is in flight.
    #[inline]
    pub(crate) fn split(&self, seq: u32) -> SplitId {
        let Pending::Split(split) = *self.pending(seq) else {
            unreachable!("a fragment's request is split until the last fragment came")
        };
        split
    }

    /// As [`Self::pending`], to be changed.
    #[inline]
    pub(crate) fn pending_mut(&mut self, seq: u32) -> &mut Pending {
        let place = self.place(seq);
        if place >= self.entries.len() {
            self.entries.resize_with(place + 1, || Pending::Waiting);
        }
        &mut self.entries[place]
    }

    #[inline]
    pub(crate) const fn is_head(&self, seq: u32) -> bool {
        seq == self.head_seq
    }

    /// Takes the next place, for a request that is answered with `bytes` already.
    pub(crate) fn push_answered(&mut self, bytes: &[u8], pool: &mut ChunkPool) {
        let pending = self.park(bytes, pool);
        self.push(pending, pool);
    }

    /// More of the response to `seq`, which goes on, and is not yet at the head or not long: keeps it.
    pub(crate) fn hold(&mut self, seq: u32, bytes: &[u8], is_now_long: bool, pool: &mut ChunkPool) {
        pool.ledger.charge(bytes.len());
        self.early_len += to_u64(bytes.len());
        match self.pending_mut(seq) {
            Pending::Partial { held, is_long, .. } => {
                held.extend_from_slice(bytes);
                *is_long = is_now_long;
            }
            pending => {
                *pending = Pending::Partial {
                    held: bytes.to_vec(),
                    is_long: is_now_long,
                    is_brittle: matches!(pending, Pending::Brittle),
                };
            }
        }
    }

    /// Whether pieces of the response to the head are held.
    #[inline]
    pub(crate) fn is_head_held(&self) -> bool {
        matches!(self.entries.front(), Some(Pending::Partial { .. }))
    }

    /// The response to the head begins to leave, with what is held of it.
    #[inline(never)]
    pub(crate) fn stream(&mut self, out: &mut SendQueue, pool: &mut ChunkPool) {
        let is_brittle = self.is_brittle(self.head_seq);
        let head = self.pending_mut(self.head_seq);
        if matches!(head, Pending::Streaming { .. }) {
            return;
        }
        let begun = Pending::Streaming {
            queued: 0,
            is_brittle,
        };
        if let Pending::Partial { held, .. } = mem::replace(head, begun) {
            self.take_early(held.len(), pool);
            self.count_streamed(to_u64(held.len()));
            out.push(held, pool);
        }
    }

    /// Notes that `len` more bytes of the head's streaming response were queued.
    pub(crate) fn count_streamed(&mut self, len: u64) {
        if let Pending::Streaming { queued, .. } = self.pending_mut(self.head_seq) {
            *queued += len;
        }
    }

    /// The response to `seq`, which is not yet at the head, ends with `bytes`.
    pub(crate) fn respond_early(&mut self, seq: u32, bytes: &[u8], pool: &mut ChunkPool) {
        let answered = if let Pending::Partial { held, .. } = self.pending_mut(seq) {
            let mut held = mem::take(held);
            held.extend_from_slice(bytes);
            pool.ledger.charge(bytes.len());
            self.early_len += to_u64(bytes.len());
            Pending::Ready(held)
        } else {
            self.park(bytes, pool)
        };
        *self.pending_mut(seq) = answered;
    }

    /// Notes that the response to `seq`, which is not yet at the head, will be parked, `behind` bytes
    /// after those that are parked now. Returns false, and does nothing, if it is not to be parked or
    /// not the last of all that are known of.
    #[inline(always)]
    pub(crate) fn expect_parked(&mut self, seq: u32, behind: usize, len: usize) -> bool {
        let place = self.place(seq);
        if place < self.entries.len() || len >= SEND_MOVE_MIN {
            return false;
        }
        while self.entries.len() < place {
            self.entries.push_back(Pending::Waiting);
        }
        self.entries.push_back(Pending::Parked {
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
        pool.ledger.charge(bytes.len());
        self.early_len += to_u64(bytes.len());
        self.parked.extend_from_slice(bytes);
    }

    /// The whole response to `seq`, which is not yet at the head, in a buffer of its own.
    pub(crate) fn respond_owned_early(&mut self, seq: u32, bytes: Vec<u8>, pool: &mut ChunkPool) {
        pool.ledger.charge(bytes.len());
        self.early_len += to_u64(bytes.len());
        *self.pending_mut(seq) = Pending::Ready(bytes);
    }

    /// Drops what was held of the response to `seq`, which failed.
    pub(crate) fn forget_partial(&mut self, seq: u32, pool: &mut ChunkPool) {
        if !matches!(self.pending(seq), Pending::Partial { .. }) {
            return;
        }
        let pending = mem::replace(self.pending_mut(seq), Pending::Waiting);
        if let Pending::Partial { held, .. } = pending {
            self.take_early(held.len(), pool);
        }
    }

    /// A buffer of `len` bytes of an early response is no longer here.
    fn take_early(&mut self, len: usize, pool: &mut ChunkPool) {
        pool.ledger.free(len);
        self.early_len -= to_u64(len);
    }

    /// Requests in flight that went to several servers.
    pub(crate) fn splits(&self) -> impl Iterator<Item = SplitId> {
        self.entries.iter().filter_map(|pending| match pending {
            Pending::Split(split) => Some(*split),
            _ => None,
        })
    }

    /// Takes everything that waits for servers out of the queue, for a client that is gone.
    pub(crate) fn take_splits(&mut self) -> impl Iterator<Item = SplitId> {
        self.entries.drain(..).filter_map(|pending| match pending {
            Pending::Split(split) => Some(split),
            _ => None,
        })
    }

    /// Takes the head, which is answered.
    #[inline]
    pub(crate) fn pop_head(&mut self, pool: &mut ChunkPool) {
        pool.ledger.free(REQUEST_HELD_LEN);
        self.entries.pop_front();
        self.head_seq = self.head_seq.wrapping_add(1);
        self.in_flight -= 1;
    }

    /// The sequence number of the head, if of no request more is known than that it waits.
    #[inline]
    pub(crate) fn waiting_head(&self) -> Option<u32> {
        self.entries.is_empty().then_some(self.head_seq)
    }

    /// Takes `count` requests from the head, where [`Self::waiting_head`] was seen.
    #[inline]
    pub(crate) fn pop_waiting(&mut self, count: u32, pool: &mut ChunkPool) {
        pool.ledger.free(to_usize(count) * REQUEST_HELD_LEN);
        debug_assert!(self.entries.is_empty() && count <= self.in_flight);
        self.head_seq = self.head_seq.wrapping_add(count);
        self.in_flight -= count;
    }

    /// Whether what is now at the head may have been answered already.
    #[inline]
    pub(crate) fn is_head_answered(&self) -> bool {
        !matches!(self.entries.front(), None | Some(Pending::Waiting))
            && !is_planted(Canary::ReleaseForgotten)
    }

    fn park(&mut self, bytes: &[u8], pool: &mut ChunkPool) -> Pending {
        pool.ledger.charge(bytes.len());
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
    fn compact_parked(&mut self, pool: &mut ChunkPool) {
        pool.ledger.free(self.parked_dead);
        let mut live = Vec::with_capacity(self.parked.len() - self.parked_dead);
        for pending in &mut self.entries {
            if let Pending::Parked { start, len } = pending {
                let bytes = &self.parked[*start..*start + to_usize(*len)];
                *start = live.len();
                live.extend_from_slice(bytes);
            }
        }
        self.parked = live;
        self.parked_dead = 0;
    }

    /// Passes on to `out` what has become due at the head.
    #[inline(never)]
    pub(crate) fn release(&mut self, out: &mut SendQueue, pool: &mut ChunkPool) {
        while let Some(head) = self.entries.front_mut() {
            match head {
                Pending::Waiting
                | Pending::Muted
                | Pending::Brittle
                | Pending::Streaming { .. }
                | Pending::Split(_) => break,
                &mut Pending::Partial { is_long, .. } => {
                    if is_long {
                        self.stream(out, pool);
                    }
                    break;
                }
                Pending::Ready(bytes) => {
                    let bytes = mem::take(bytes);
                    self.take_early(bytes.len(), pool);
                    out.push(bytes, pool);
                }
                Pending::Parked { .. } => {
                    self.release_parked(out, pool);
                    continue;
                }
            }
            self.pop_head(pool);
        }
        if self.parked_dead > PARKED_DEAD_MAX.max(self.parked.len() / 2) {
            self.compact_parked(pool);
        }
    }

    /// Passes on what is parked at the head, up to the first that was not parked right behind the one
    /// before it.
    #[inline(always)]
    fn release_parked(&mut self, out: &mut SendQueue, pool: &mut ChunkPool) {
        let (mut range, mut count) = (0..0, 0);
        while let Some(&Pending::Parked { start, len }) = self.entries.front() {
            let end = start + to_usize(len);
            if count == 0 {
                range = start..end;
            } else if start == range.end && end - range.start <= RUN_COPY_LEN_MAX {
                range.end = end;
            } else {
                break;
            }
            self.entries.pop_front();
            count += 1;
        }
        self.head_seq = self.head_seq.wrapping_add(count);
        self.in_flight -= count;
        pool.ledger.free(to_usize(count) * REQUEST_HELD_LEN);
        self.early_len -= to_u64(range.len());
        self.parked_dead += range.len();
        out.append(&self.parked[range], pool);
        self.parked_live -= count;
        if self.parked_live == 0 {
            self.parked_dead = 0;
            pool.ledger.free(self.parked.len());
            pool.give(mem::take(&mut self.parked));
        }
    }

    /// Gives all memory back, for a client that is gone, but room for the entries of the next. Nothing is in
    /// flight then.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        pool.ledger.free_long(self.held());
        pool.give(mem::take(&mut self.parked));
        let mut entries = mem::take(&mut self.entries);
        entries.clear();
        *self = Self {
            entries,
            ..Self::default()
        };
    }

    /// Bytes it is charged for.
    pub(crate) fn held(&self) -> u64 {
        self.early_len + to_u64(self.parked_dead + to_usize(self.in_flight) * REQUEST_HELD_LEN)
    }

    /// Bytes of memory it takes.
    pub(crate) fn footprint(&self) -> u64 {
        let own = self.entries.iter().map(|pending| match pending {
            Pending::Ready(bytes) | Pending::Partial { held: bytes, .. } => bytes.capacity(),
            _ => 0,
        });
        let entries = self.entries.capacity() * size_of::<Pending>();
        to_u64(own.sum::<usize>() + entries + self.parked.capacity())
    }

    /// Panics if the queue contradicts itself.
    pub(crate) fn check_invariants(&self) {
        // One pass: the simulation does this after every tick.
        let (mut parked, mut live, mut early) = (0, 0, 0);
        for (i, pending) in self.entries.iter().enumerate() {
            match pending {
                Pending::Waiting | Pending::Muted | Pending::Brittle | Pending::Split(_) => {
                    continue;
                }
                Pending::Streaming { .. } => {
                    assert_eq!(i, 0, "only the head streams");
                    continue;
                }
                Pending::Parked { len, .. } => {
                    parked += 1;
                    live += to_usize(*len);
                }
                Pending::Partial { held, is_long, .. } => {
                    early += held.len();
                    assert!(i > 0 || !is_long, "what is long passes through");
                    continue;
                }
                Pending::Ready(bytes) => early += bytes.len(),
            }
            assert!(i > 0, "what is due has left");
        }
        assert_eq!(parked, self.parked_live);
        assert!(parked > 0 || self.parked.is_empty());
        assert_eq!(self.parked.len(), live + self.parked_dead);
        let bound = PARKED_DEAD_MAX.max(live);
        assert!(self.parked_dead <= bound, "what has left is forgotten");
        assert_eq!(to_u64(early + live), self.early_len);
        assert!(self.entries.len() <= to_usize(self.in_flight));
        assert!(self.in_flight <= CLIENT_IN_FLIGHT_MAX);
    }
}
