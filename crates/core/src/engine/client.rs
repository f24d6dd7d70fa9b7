//! One client's connection: what it sent and what it is owed. Of a client that neither sent nor is owed
//! anything only a [`Resting`] is kept, see [`super::roster`].
//!
//! Which of its requests are in flight, and which answers wait for their turn, the [`Order`] knows; it is decided
//! here whether a response may leave at once.
//!
//! Invariants: `out` has only responses whose turn has come; who waits for nothing is on no list of those to be
//! told to go on.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use super::client_end::ClientEnd;
use super::order::{Order, Pending};
use super::window::Window;
use crate::buf::{ChunkPool, RecvBuf, SendQueue};
use crate::canary::{Canary, is_planted};
use crate::config::PoolConfig;
use crate::ids::{ClientId, PoolIdx, ServerConnId, ServerId};
use crate::limits::{CLIENT_OUTPUT_SOFT, RESPONSE_HOLD_LEN_MAX, SEND_MOVE_MIN};
use crate::num::to_u64;
use crate::proto::redis::local::Session;
use crate::proto::{Protocol, RequestLimits, RequestParser};
use crate::time::Micros;

/// Of a record that served no client yet.
const NO_POOL: PoolIdx = PoolIdx(u32::MAX);

/// How the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Requests are read.
    Open,
    /// No more requests: it closes when all responses have left, for this reason.
    Closing { end: ClientEnd },
}

/// Why a client's requests are not parsed at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pause {
    /// Not paused: requests are parsed.
    No,
    /// It has as many requests in flight as it may have.
    Own,
    /// Memory is under pressure, and many of its replies are unread.
    Output,
    /// A server connection has too much to send.
    Server,
    /// The process has too much in its buffers.
    Memory,
}

/// The connection of one server that a client keeps to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) server: ServerId,
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
            session: Session::new(session_id),
            bindings: None,
            window: Window::default(),
        }
    }
}

impl Resting {
    /// Bytes held for it.
    pub(crate) fn held(&self) -> usize {
        self.session.held()
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
    /// Its kept requests have waited for memory for too long: each gets an error.
    pub(crate) is_overdue: bool,
    /// `client_output_limit`
    pub(crate) output_limit: u64,
    pub(crate) parser: RequestParser,
    pub(crate) limits: RequestLimits,
    pub(crate) recv: RecvBuf,
    pub(crate) out: SendQueue,
    pub(crate) session: Session,
    /// Its session is looked at before each request: it has not authenticated, or asked for something special.
    pub(crate) is_gated: bool,
    bindings: Option<Box<Bindings>>,
    /// When bytes last came from it or left for it.
    pub(crate) last_active: Micros,
    pub(crate) order: Order,
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
            is_overdue: false,
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
            is_gated: true,
            bindings: None,
            last_active: Micros(0),
            order: Order::default(),
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
        self.look_at_session();
        self.bindings = resting.bindings;
        self.last_active = resting.last_active;
        self.order.go_on_at(resting.head_seq);
        self.window = resting.window;
    }

    /// Notes whether its session is to be looked at before the next request.
    #[inline]
    pub(crate) fn look_at_session(&mut self) {
        self.is_gated = self.limits.unauthenticated || !self.session.is_plain();
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
            && self.session.is_plain()
            && self.bindings.is_none()
            && self.window == Window::default()
    }

    /// Takes out what is to be kept of a client that may rest. The record is blank then.
    #[inline]
    pub(crate) fn rest(&mut self) -> Resting {
        Resting {
            pool: self.pool,
            head_seq: self.order.head_seq(),
            last_active: self.last_active,
            session: mem::take(&mut self.session),
            bindings: self.bindings.take(),
            window: mem::take(&mut self.window),
        }
    }

    /// Gives back what a burst left behind in a record that is to be used again.
    #[inline]
    pub(crate) fn forget_room(&mut self) {
        self.order.forget_room();
        self.out.forget_room();
    }

    /// The connection of `server` that it keeps to; it may be gone.
    pub(crate) fn binding(&self, server: ServerId) -> Option<&Binding> {
        let bindings = &self.bindings.as_ref()?.0;
        bindings.iter().find(|bound| bound.server == server)
    }

    /// Keeps to `conn` of `server` from now on.
    pub(crate) fn bind(&mut self, server: ServerId, conn: ServerConnId) {
        let bindings = &mut self.bindings.get_or_insert_default().0;
        bindings.retain(|bound| bound.server != server);
        bindings.push(Binding {
            server,
            conn,
            noreply_end: 0,
        });
    }

    /// A noreply request of its own ends at `end` of the stream of `server`'s connection.
    pub(crate) fn note_noreply(&mut self, server: ServerId, end: u64) {
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
        self.window
            .in_flight_max()
            .saturating_sub(self.order.in_flight())
    }

    /// Waits until responses have left: there is no room for another request.
    pub(crate) fn pause_for_room(&mut self) {
        self.pause = Pause::Own;
        self.window.note_in_flight(self.order.in_flight());
    }

    /// Goes on, whatever it has waited for.
    pub(crate) fn go_on(&mut self) {
        if self.pause == Pause::Own {
            self.window.note_drained();
        }
        self.pause = Pause::No;
    }

    /// Whether so much has left that parsing goes on after [`Pause::Own`] or [`Pause::Output`]. Half, so that
    /// a client at its limit is resumed once per many responses and not once per response.
    pub(crate) fn has_drained(&self) -> bool {
        if self.pause == Pause::Output {
            return self.output_len() <= CLIENT_OUTPUT_SOFT / 2;
        }
        self.order.in_flight() <= self.window.in_flight_max() / 2
    }

    /// A response to it of `len` bytes in all has come.
    #[inline]
    pub(crate) fn note_response(&mut self, len: u64) {
        self.window.note(len);
    }

    /// Bytes of responses held for this client.
    #[inline]
    pub(crate) const fn output_len(&self) -> u64 {
        self.out.len() + self.order.early_len()
    }

    /// Bytes held for it, but for the parts of its split requests.
    pub(crate) fn held(&self) -> u64 {
        let session = to_u64(self.session.held());
        session + self.recv.held() + self.out.held() + self.order.held()
    }

    /// Bytes of memory its buffers and queues take.
    pub(crate) fn footprint(&self) -> u64 {
        let session = to_u64(self.session.held());
        session + self.recv.held() + self.out.footprint() + self.order.footprint()
    }

    /// Whether nothing is owed to it any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.order.in_flight() == 0 && self.out.is_empty()
    }

    /// A response composed by the proxy to a request just parsed: sent at once if nothing is owed
    /// before it. Returns whether there is something to flush.
    pub(crate) fn push_answer(&mut self, bytes: &[u8], pool: &mut ChunkPool) -> bool {
        if self.order.in_flight() == 0 {
            self.out.append(bytes, pool);
            return true;
        }
        self.order.push_answered(bytes, pool);
        false
    }

    /// The part of the response to `seq` that the client wants: all or nothing.
    #[inline]
    pub(crate) fn wanted<'a>(&self, seq: u32, response: &'a [u8]) -> &'a [u8] {
        if self.order.is_muted(seq) {
            return &[];
        }
        response
    }

    /// More of the response to `seq`; it goes on, and has `least_len` bytes in all at least. Returns whether there
    /// is something to flush.
    pub(crate) fn respond_more(
        &mut self,
        seq: u32,
        bytes: &[u8],
        least_len: u64,
        pool: &mut ChunkPool,
    ) -> bool {
        let is_long = least_len > RESPONSE_HOLD_LEN_MAX;
        if !self.order.is_head(seq) || !is_long {
            self.order.hold(seq, bytes, is_long, pool);
            return false;
        }
        self.order.stream(&mut self.out, pool);
        self.out.append(bytes, pool);
        self.order.count_streamed(to_u64(bytes.len()));
        true
    }

    /// The response to `seq` ends with `bytes`. Returns whether there is something to flush.
    pub(crate) fn respond(&mut self, seq: u32, bytes: &[u8], pool: &mut ChunkPool) -> bool {
        if !self.order.is_head(seq) {
            self.order.respond_early(seq, bytes, pool);
            return false;
        }
        if self.order.is_head_held() {
            self.order.stream(&mut self.out, pool);
        }
        self.out.append(bytes, pool);
        self.order.pop_head(pool);
        if self.order.is_head_answered() {
            self.order.release(&mut self.out, pool);
        }
        true
    }

    /// The whole response to `seq`, in a buffer of its own. Returns whether there is something to
    /// flush.
    pub(crate) fn respond_owned(&mut self, seq: u32, bytes: Vec<u8>, pool: &mut ChunkPool) -> bool {
        if bytes.len() < SEND_MOVE_MIN {
            return self.respond(seq, &bytes, pool);
        }
        if !self.order.is_head(seq) {
            self.order.respond_owned_early(seq, bytes, pool);
            return false;
        }
        self.out.push(bytes, pool);
        self.order.pop_head(pool);
        self.order.release(&mut self.out, pool);
        true
    }

    /// Takes back what was queued of the response to `seq`, which failed. Returns false if a part of it
    /// has been sent, so that no other response can take its place.
    pub(crate) fn retract(&mut self, seq: u32, pool: &mut ChunkPool) -> bool {
        let Pending::Streaming { queued, .. } = *self.order.pending(seq) else {
            return true;
        };
        if queued > self.out.len() {
            return false;
        }
        self.out.cut_end(queued, pool);
        *self.order.pending_mut(seq) = Pending::Waiting;
        true
    }

    /// Takes `count` requests from the head, where [`Order::waiting_head`] was seen; their responses are
    /// small.
    #[inline]
    pub(crate) fn pop_waiting(&mut self, count: u32, pool: &mut ChunkPool) {
        self.window.note_small(count);
        self.order.pop_waiting(count, pool);
    }

    /// Gives all memory back, for a client that is gone. The record is blank then.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        pool.ledger.free(self.session.held());
        self.recv.clear(pool);
        self.out.clear(pool);
        self.order.clear(pool);
        let (order, out) = (mem::take(&mut self.order), mem::take(&mut self.out));
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
        self.order.check_invariants();
    }
}
