//! A client's bytes become requests.

use alloc::vec::Vec;
use core::mem;

use super::client::{Pause, Phase};
use super::client_end::ClientEnd;
use super::clients::answered;
use super::forward::{Frame, Stalled};
use super::memory::Waiter;
use super::{Action, Engine};
use crate::buf::Segment;
use crate::canary::{Canary, is_planted};
use crate::ids::ClientId;
use crate::limits::BLOCK_MOVE_MIN;
use crate::num::to_usize;
use crate::proto::{self, Invalid, Parse, RequestLimits, RequestParser, Route, Then};

impl Engine {
    /// `len` bytes of a client came into the space lent for them.
    pub(super) fn recv_client(&mut self, id: ClientId, len: usize) {
        let Some(client) = self.clients.roster.wake(id, &self.pools) else {
            return;
        };
        client.last_active = self.shared.now;
        let before = client.recv.len();
        if client.recv.grows_in_place() {
            client.recv.commit(len);
            if client.recv.is_waiting() {
                self.after_parsing(id, before);
                return;
            }
            let bytes = client.recv.take(&mut self.shared.chunks);
            self.parse_kept(id, bytes, false);
        } else {
            let kept = client.recv.len();
            self.scratch[..kept].copy_from_slice(client.recv.filled());
            // Knowledge of this frame is of no use for the next one.
            client.recv.expect(0);
            self.parse_read(id, kept, len);
        }
        self.after_parsing(id, before);
    }

    /// Ends the parsing of a client that had kept `before` bytes: it may hold too much, or have nothing to do.
    fn after_parsing(&mut self, id: ClientId, before: usize) {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        if client.recv.len() > before && self.shared.is_exhausted() {
            self.shared.outbox.is_exhausted = true;
        }
        if client.is_settled() {
            let phase = client.phase;
            self.settle(id, phase);
        }
    }

    /// Parses the scratch buffer, in which `len` bytes follow the `kept` ones of the client.
    fn parse_read(&mut self, id: ClientId, kept: usize, len: usize) {
        let mut scratch = mem::take(&mut self.scratch);
        let filled = kept + len;
        if filled >= BLOCK_MOVE_MIN && self.may_begin(id) {
            match self.parse_whole(id, Segment::of_block(scratch, filled)) {
                None => {
                    self.scratch = self.shared.chunks.take_block();
                    if let Some(client) = self.clients.roster.get_mut(id) {
                        client.recv.clear(&mut self.shared.chunks);
                    }
                    return;
                }
                Some(segment) => scratch = segment.into_bytes(),
            }
        }
        let bytes = &scratch[..filled];
        let parsed = self.parse(id, bytes, kept == 0);
        if let Some(client) = self.clients.roster.get_mut(id) {
            let rest = &bytes[parsed..];
            if !rest.is_empty() {
                client.recv.save(rest, &mut self.shared.chunks);
            } else if kept > 0 {
                client.recv.clear(&mut self.shared.chunks);
            }
        }
        self.scratch = scratch;
    }

    /// Whether a client must wait before it begins another request, because memory is short, or because it
    /// is under pressure and many of the client's replies are unread.
    #[cold]
    fn must_wait(&mut self, id: ClientId) -> bool {
        let client = self.clients.roster.found_mut(id);
        let timeout = self.pools[client.pool.index()].config.timeout;
        let waiter = Waiter::new(id, self.shared.now, timeout);
        if self.shared.is_short() {
            client.pause = Pause::Memory;
            self.shared.wait_for_memory(waiter);
        } else if client.output_len() > self.shared.many_unread() {
            client.pause = Pause::Output;
            self.shared.wait_pressed(waiter);
        } else {
            return false;
        }
        true
    }

    /// Whether a client may begin another request at once.
    fn may_begin(&self, id: ClientId) -> bool {
        let client = self.clients.roster.get(id);
        client.is_some_and(|client| client.room() > 0) && !self.shared.is_pressed()
    }

    /// Parses bytes that the client has kept; what is not parsed is kept again. `is_fresh` as in
    /// [`Self::parse`].
    fn parse_kept(&mut self, id: ClientId, bytes: Vec<u8>, is_fresh: bool) {
        let client = self.clients.roster.get(id);
        let is_fresh = is_fresh || client.is_some_and(|client| client.is_overdue);
        let bytes = if is_fresh && !self.may_begin(id) {
            bytes
        } else {
            match self.parse_whole(id, bytes.into()) {
                None => return,
                Some(segment) => segment.into_bytes(),
            }
        };
        let parsed = self.parse(id, &bytes, is_fresh);
        if let Some(client) = self.clients.roster.get_mut(id) {
            client.recv.restore(bytes, parsed, &mut self.shared.chunks);
        }
    }

    /// If `segment` is exactly one request that goes unchanged to one server, moves it there. Else
    /// gives it back.
    fn parse_whole(&mut self, id: ClientId, segment: Segment) -> Option<Segment> {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return Some(segment);
        };
        if client.phase != Phase::Open {
            return Some(segment);
        }
        let mut ahead = client.parser;
        let Parse::Complete(request) = ahead.parse(segment.unsent(), &client.limits) else {
            return Some(segment);
        };
        if to_usize(request.len) != segment.unsent().len()
            || !matches!(request.route, Route::Key(_))
        {
            return Some(segment);
        }
        client.parser = ahead;
        match self.route(id, Frame::Owned(segment), &request) {
            Ok(()) => None,
            Err(Stalled(Frame::Owned(segment))) => {
                // Its parser is at the start of the frame again; it will be parsed again.
                Some(segment)
            }
            Err(Stalled(Frame::Lent(_))) => unreachable!("an owned frame comes back owned"),
        }
    }

    /// Parses requests from `bytes` until they end or the client must wait; returns how many bytes
    /// are done with. `is_fresh` tells that `bytes` begin with a request, not in the middle of one
    /// that has been admitted before.
    fn parse(&mut self, id: ClientId, bytes: &[u8], is_fresh: bool) -> usize {
        let mut at = 0;
        let mut may_begin_only = is_fresh;
        while at < bytes.len() {
            let Some(client) = self.clients.roster.get_mut(id) else {
                return bytes.len();
            };
            if client.phase != Phase::Open {
                return bytes.len();
            }
            if client.pause != Pause::No {
                return at;
            }
            if client.room() == 0 {
                client.pause_for_room();
                return at;
            }
            if may_begin_only && self.shared.is_pressed() {
                if client.is_overdue && self.shared.is_short() {
                    at += self.refuse_one_overdue(id, &bytes[at..]);
                    continue;
                }
                if self.must_wait(id) {
                    return at;
                }
            }
            may_begin_only = true;
            let Some(parse) = self.forward_run(id, bytes, &mut at) else {
                continue;
            };
            let rest = &bytes[at..];
            match parse {
                Parse::Complete(request) => {
                    let frame = &rest[..to_usize(request.len)];
                    if self.route(id, Frame::Lent(frame), &request).is_err() {
                        return at;
                    }
                    at += frame.len();
                }
                Parse::Incomplete { need } => {
                    if let Some(client) = self.clients.roster.get_mut(id) {
                        client.recv.expect(need);
                    }
                    return at;
                }
                Parse::Skip { len } => {
                    // An empty request is one, too, for a client that wants no response to the next. The rest of
                    // a refused one comes after its refusal, which was.
                    self.served(id);
                    at += len;
                }
                Parse::Inline { len } => {
                    if !self.parse_inline(id, &rest[..len]) {
                        return at;
                    }
                    at += len;
                }
                Parse::Invalid { invalid, len, then } => {
                    self.refuse_request(id, invalid, &rest[..len], then);
                    at += len;
                }
            }
        }
        at
    }

    /// Rewrites a line and serves it. Returns false if the client must wait with it.
    fn parse_inline(&mut self, id: ClientId, line: &[u8]) -> bool {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return true;
        };
        let protocol = self.pools[client.pool.index()].config.protocol;
        let mut array = Vec::new();
        if let Err(invalid) = proto::compose(protocol, line, &mut array) {
            self.refuse_request(id, invalid, line, Then::Close);
            return true;
        }
        // As in redis, the small limits before AUTH are those of arrays.
        let limits = RequestLimits {
            unauthenticated: false,
            ..client.limits
        };
        let noted = &mut self.work.parts;
        match RequestParser::new(protocol).parse_noting(&array, &limits, noted) {
            Parse::Complete(request) => self.route(id, Frame::Lent(&array), &request).is_ok(),
            Parse::Invalid { invalid, len, then } => {
                self.refuse_request(id, invalid, &array[..len], then);
                true
            }
            other => unreachable!("a rewritten line is a whole request: {other:?}"),
        }
    }

    /// Answers a bad request.
    pub(super) fn refuse_request(
        &mut self,
        id: ClientId,
        invalid: Invalid,
        frame: &[u8],
        then: Then,
    ) {
        let mut reply = mem::take(&mut self.shared.reply);
        match (invalid, self.clients.roster.get_mut(id)) {
            (Invalid::Redis(invalid), Some(client)) => {
                client.session.refused(invalid, frame);
                if client.session.is_in_transaction() {
                    invalid.write_in_transaction(frame, &mut reply);
                } else {
                    invalid.write(frame, &mut reply);
                }
            }
            _ => invalid.write(frame, &mut reply),
        }
        if !reply.is_empty() {
            self.answer_now(id, &reply);
        }
        reply.clear();
        self.shared.reply = reply;
        self.served(id);
        if then == Then::Close {
            self.tell_end(id, ClientEnd::Invalid);
            if let Some(client) = self.clients.roster.get_mut(id) {
                client.phase = Phase::Closing {
                    end: ClientEnd::Invalid,
                };
            }
        }
    }

    /// Puts a response of our own in its place in the order queue.
    pub(super) fn answer_now(&mut self, id: ClientId, reply: &[u8]) {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        if client.session.is_muted() {
            return;
        }
        let flush = client.push_answer(reply, &mut self.shared.chunks);
        answered(id, client, flush, &mut self.shared);
    }

    /// A client that waited parses on with what it has kept.
    pub(super) fn resume(&mut self, id: ClientId) {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        client.resuming = false;
        if client.pause == Pause::Own && !client.has_drained() {
            return;
        }
        if client.pause == Pause::Output {
            let pressed = &mut self.shared.memory.pressed;
            pressed.retain(|waiter| waiter.id != id);
        }
        // A request that waited for room has not been held against memory yet.
        let is_fresh = client.pause == Pause::Own;
        client.go_on();
        let before = client.recv.len();
        if !client.recv.is_empty() {
            let bytes = client.recv.take(&mut self.shared.chunks);
            self.parse_kept(id, bytes, is_fresh);
        }
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        client.is_overdue = false;
        if client.pause == Pause::No {
            if client.eof_read {
                client.recv.clear(&mut self.shared.chunks);
                client.phase = Phase::Closing {
                    end: ClientEnd::Eof,
                };
            } else if mem::take(&mut client.read_refused) && !is_planted(Canary::ResumeReadLost) {
                self.shared
                    .outbox
                    .urgent
                    .push_back(Action::ResumeRead(id.into()));
            }
        }
        self.after_parsing(id, before);
    }
}
