//! One client's connection: what it sent and what it is owed. Of a client that neither sent nor is owed
//! anything only a [`Resting`] is kept, see [`super::roster`].
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

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use super::split::SplitId;
use super::window::Window;
use crate::buf::{ChunkPool, ChunkSize, RecvBuf, SendQueue};
use crate::canary::{Canary, is_planted};
use crate::config::PoolConfig;
use crate::ids::{ClientId, PoolIdx, ServerConnId, ServerIdx};
use crate::limits::{
    CLIENT_IN_FLIGHT_MAX, CLIENT_OUTPUT_SOFT, FREE_ORDER_LEN_MAX, PARKED_DEAD_MAX,
    RUN_COPY_LEN_MAX, SEND_MOVE_MIN,
};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::redis::local::Session;
use crate::proto::{Protocol, RequestLimits, RequestParser};
use crate::time::Micros;

/// Of a record that served no client yet.
const NO_POOL: PoolIdx = PoolIdx(u32::MAX);

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

/// The connections that a client keeps to, where there are several per server. Behind one word, because
/// few clients have any.
#[derive(Debug, Default)]
struct Bindings(Vec<Binding>);

/// What is left of a client while it rests.
#[derive(Debug)]
pub(crate) struct Resting {
    pub(crate) pool: PoolIdx,
    head_seq: u32,
    pub(crate) last_active: Micros,
    session: Session,
    bindings: Option<Box<Bindings>>,
    window: Window,
}

impl Resting {
    pub(crate) fn new(pool: PoolIdx, session_id: u64, now: Micros) -> Self {
        Self {
            pool,
            head_seq: 0,
            last_active: now,
            session: Session {
                id: session_id,
                ..Session::default()
            },
            bindings: None,
            window: Window::default(),
        }
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
    bindings: Option<Box<Bindings>>,
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
    window: Window,
}

impl Client {
    /// Nobody's.
    pub(crate) fn blank() -> Self {
        Self {
            id: ClientId {
                index: 0,
                generation: 0,
            },
            pool: NO_POOL,
            phase: Phase::Open,
            pause: Pause::No,
            read_refused: false,
            dirty: false,
            resuming: false,
            eof_read: false,
            output_limit: 0,
            parser: RequestParser::new(Protocol::Redis),
            limits: RequestLimits {
                frame_len_max: 0,
                unauthenticated: true,
                allow_flush: false,
            },
            recv: RecvBuf::default(),
            out: SendQueue::default(),
            session: Session::default(),
            bindings: None,
            last_active: Micros(0),
            order: VecDeque::new(),
            in_flight: 0,
            head_seq: 0,
            parked: Vec::new(),
            parked_live: 0,
            parked_dead: 0,
            early_len: 0,
            window: Window::default(),
        }
    }

    /// Becomes the record of the client `id` of a pool, which rested until now. A record that served the
    /// pool before is ready for it.
    pub(crate) fn wake(&mut self, id: ClientId, resting: Resting, config: &PoolConfig) {
        self.id = id;
        if self.pool != resting.pool {
            self.pool = resting.pool;
            self.output_limit = config.client_output_limit;
            self.parser = RequestParser::new(config.protocol);
            self.limits.frame_len_max = config.request_size_limit;
            self.limits.allow_flush = config.allow_flush;
        }
        if !is_planted(Canary::PasswordInherited) {
            let is_open = config.redis_auth.is_none() || resting.session.authenticated;
            self.limits.unauthenticated = !is_open;
        }
        self.session = resting.session;
        self.bindings = resting.bindings;
        self.last_active = resting.last_active;
        self.head_seq = resting.head_seq;
        self.window = resting.window;
    }

    /// Whether all that is to be kept of it is a [`Resting`]: nothing is owed to it, nothing it sent is
    /// unfinished, and no list names it.
    #[inline]
    pub(crate) fn may_rest(&self) -> bool {
        self.is_settled()
            && (self.recv.is_empty() && self.parser.is_at_start()
                || is_planted(Canary::RestsTooSoon))
            && self.phase == Phase::Open
            && self.pause == Pause::No
            && !self.dirty
    }

    /// Whether nothing of any client is in it.
    pub(crate) fn is_blank(&self) -> bool {
        self.may_rest()
            && self.session.id == 0
            && self.session.name.is_none()
            && !self.session.authenticated
            && self.bindings.is_none()
            && self.window == Window::default()
    }

    /// Takes out what is to be kept of a client that may rest. The record is blank then.
    #[inline]
    pub(crate) fn rest(&mut self) -> Resting {
        Resting {
            pool: self.pool,
            head_seq: self.head_seq,
            last_active: self.last_active,
            session: mem::take(&mut self.session),
            bindings: self.bindings.take(),
            window: mem::take(&mut self.window),
        }
    }

    /// Gives back what a burst left behind in a record that is to be used again.
    #[inline]
    pub(crate) fn forget_room(&mut self) {
        if self.order.capacity() > FREE_ORDER_LEN_MAX {
            self.order = VecDeque::new();
        }
        self.out.forget_room();
    }

    /// The connection of `server` that it keeps to; it may be gone.
    pub(crate) fn binding(&self, server: ServerIdx) -> Option<&Binding> {
        let bindings = &self.bindings.as_ref()?.0;
        bindings.iter().find(|bound| bound.server == server)
    }

    /// Keeps to `conn` of `server` from now on.
    pub(crate) fn bind(&mut self, server: ServerIdx, conn: ServerConnId) {
        let bindings = &mut self.bindings.get_or_insert_default().0;
        bindings.retain(|bound| bound.server != server);
        bindings.push(Binding {
            server,
            conn,
            noreply_end: 0,
        });
    }

    /// A noreply request of its own ends at `end` of the stream of `server`'s connection.
    pub(crate) fn note_noreply(&mut self, server: ServerIdx, end: u64) {
        let bindings = self
            .bindings
            .iter_mut()
            .flat_map(|bindings| &mut bindings.0);
        if let Some(binding) = bindings.into_iter().find(|bound| bound.server == server) {
            binding.noreply_end = end;
        }
    }

    /// Since when it is idle, if it may be.
    pub(crate) fn idle_since(&self) -> Option<Micros> {
        let may_be_idle = self.may_be_idle() || is_planted(Canary::DebtsAreIdle);
        may_be_idle.then_some(self.last_active)
    }

    /// Whether nothing is owed to it and it is not kept waiting.
    fn may_be_idle(&self) -> bool {
        self.pause == Pause::No && self.is_settled()
    }

    /// How many more requests may be parsed before responses leave.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        if self.output_len() < CLIENT_OUTPUT_SOFT {
            self.window.in_flight_max().saturating_sub(self.in_flight)
        } else {
            0
        }
    }

    /// Whether so much has left that parsing goes on after [`Pause::Own`]. Half, so that a client at
    /// its limit is resumed once per many responses and not once per response.
    pub(crate) fn has_drained(&self) -> bool {
        self.in_flight <= self.window.in_flight_max() / 2
            && self.output_len() <= CLIENT_OUTPUT_SOFT / 2
    }

    /// A response to it of `len` bytes in all has come.
    #[inline]
    pub(crate) fn note_response(&mut self, len: u64) {
        self.window.note(len);
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
    #[inline]
    pub(crate) fn push(&mut self, pending: Pending) -> u32 {
        let seq = self.push_waiting();
        if !matches!(pending, Pending::Waiting) {
            *self.pending_mut(seq) = pending;
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
    pub(crate) fn pending_mut(&mut self, seq: u32) -> &mut Pending {
        let place = self.place(seq);
        if place >= self.order.len() {
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
    pub(crate) fn push_answer(&mut self, bytes: &[u8], pool: &mut ChunkPool) -> bool {
        if self.in_flight == 0 {
            self.out.append(bytes, pool);
            return true;
        }
        let pending = self.park(bytes, pool);
        self.push(pending);
        false
    }

    /// More of the response to `seq`; it goes on. Returns whether there is something to flush.
    pub(crate) fn respond_more(&mut self, seq: u32, bytes: &[u8], pool: &mut ChunkPool) -> bool {
        let len = to_u64(bytes.len());
        if self.is_head(seq) {
            self.out.append(bytes, pool);
            match self.pending_mut(seq) {
                Pending::Streaming { queued } => *queued += len,
                pending => *pending = Pending::Streaming { queued: len },
            }
            return true;
        }
        self.early_len += len;
        match self.pending_mut(seq) {
            Pending::Partial(held) => held.extend_from_slice(bytes),
            pending => *pending = Pending::Partial(bytes.to_vec()),
        }
        false
    }

    /// The response to `seq` ends with `bytes`. Returns whether there is something to flush.
    pub(crate) fn respond(&mut self, seq: u32, bytes: &[u8], pool: &mut ChunkPool) -> bool {
        if !self.is_head(seq) {
            self.respond_early(seq, bytes, pool);
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
    pub(crate) fn respond_early(&mut self, seq: u32, bytes: &[u8], pool: &mut ChunkPool) {
        let answered = if let Pending::Partial(held) = self.pending_mut(seq) {
            let mut held = mem::take(held);
            held.extend_from_slice(bytes);
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
        if place < self.order.len() || len >= SEND_MOVE_MIN {
            return false;
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
    pub(crate) fn respond_owned(&mut self, seq: u32, bytes: Vec<u8>, pool: &mut ChunkPool) -> bool {
        if !self.is_head(seq) && bytes.len() >= SEND_MOVE_MIN {
            self.early_len += to_u64(bytes.len());
            *self.pending_mut(seq) = Pending::Ready(bytes);
            return false;
        }
        if self.is_head(seq) && bytes.len() >= SEND_MOVE_MIN {
            self.out.push(bytes, pool);
            self.pop_head();
            self.release(pool);
            return true;
        }
        self.respond(seq, &bytes, pool)
    }

    /// Takes back what was queued of the response to `seq`, which failed; returns its length, or
    /// `None` if a part of it has been sent, so that no other response can take its place.
    pub(crate) fn retract(&mut self, seq: u32, pool: &mut ChunkPool) -> Option<u64> {
        let Pending::Streaming { queued } = *self.pending(seq) else {
            return Some(0);
        };
        if queued > self.out.len() {
            return None;
        }
        self.out.cut_end(queued, pool);
        *self.pending_mut(seq) = Pending::Waiting;
        Some(queued)
    }

    /// Drops what was held of the response to `seq`, which failed; returns its length.
    pub(crate) fn forget_partial(&mut self, seq: u32) -> u64 {
        if !matches!(self.pending(seq), Pending::Partial(_)) {
            return 0;
        }
        let Pending::Partial(held) = mem::replace(self.pending_mut(seq), Pending::Waiting) else {
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

    /// Takes `count` requests from the head, where [`Self::waiting_head`] was seen; their responses are
    /// small.
    #[inline]
    pub(crate) fn pop_waiting(&mut self, count: u32) {
        debug_assert!(self.order.is_empty() && count <= self.in_flight);
        self.window.note_small(count);
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

    /// Gives all memory back, for a client that is gone. The record is blank then.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        self.out.clear(pool);
        pool.give(mem::take(&mut self.parked));
        let (mut order, out) = (mem::take(&mut self.order), mem::take(&mut self.out));
        order.clear();
        *self = Self {
            order,
            out,
            ..Self::blank()
        };
    }

    /// Panics if the client contradicts itself.
    pub(crate) fn check_invariants(&self) {
        assert!(
            self.pause != Pause::No
                || self.phase != Phase::Open
                || !(self.resuming || self.read_refused || self.eof_read),
            "who does not wait needs not be told to go on"
        );
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
