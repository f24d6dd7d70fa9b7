//! A client's bytes become requests.

use alloc::vec::Vec;
use core::mem;

use super::action::{Doom, Notice};
use super::client::{Pause, Phase};
use super::clients::answered;
use super::forward::{Frame, Stalled};
use super::{Action, Engine};
use crate::ids::ClientId;
use crate::limits::SCRATCH_TAIL_MAX;
use crate::num::{to_u64, to_usize};
use crate::proto::redis::inline;
use crate::proto::{Invalid, Parse, RequestLimits, RequestParser, Route, Then};

impl Engine {
    /// `len` bytes of a client came into the space lent for them.
    pub(super) fn recv_client(&mut self, id: ClientId, len: usize) {
        let Some(client) = self.clients.slab.get_mut(id) else {
            return;
        };
        client.last_active = self.shared.now;
        let before = to_u64(client.recv.len());
        if client.recv.grows_in_place() {
            client.recv.commit(len);
            let bytes = client.recv.take();
            self.parse_kept(id, bytes);
        } else {
            let mut scratch = mem::take(&mut self.scratch);
            let start = SCRATCH_TAIL_MAX - client.recv.len();
            scratch[start..SCRATCH_TAIL_MAX].copy_from_slice(client.recv.filled());
            let bytes = &scratch[start..SCRATCH_TAIL_MAX + len];
            let is_fresh = client.recv.is_empty();
            let parsed = self.parse(id, bytes, is_fresh);
            if let Some(client) = self.clients.slab.get_mut(id) {
                let rest = &bytes[parsed..];
                if !rest.is_empty() {
                    client.recv.save(rest, &mut self.shared.chunks);
                } else if !is_fresh {
                    client.recv.clear();
                }
            }
            self.scratch = scratch;
        }
        self.account_recv(id, before);
    }

    /// Notes how many more (or fewer) bytes of unfinished requests the client holds.
    fn account_recv(&mut self, id: ClientId, before: u64) {
        // A client that went meanwhile has given back all it held, as counted before.
        let Some(client) = self.clients.slab.get_mut(id) else {
            return;
        };
        let after = to_u64(client.recv.len());
        self.shared.memory.held = self.shared.memory.held - before + after;
        if after > before && self.shared.memory.is_exhausted() {
            self.shared.outbox.doomed.push((id, Doom::Memory));
        }
        self.close_if_settled(id);
    }

    /// Parses bytes that the client has kept; what is not parsed is kept again.
    fn parse_kept(&mut self, id: ClientId, bytes: Vec<u8>) {
        let Some(bytes) = self.parse_whole(id, bytes) else {
            return;
        };
        let parsed = self.parse(id, &bytes, false);
        if let Some(client) = self.clients.slab.get_mut(id) {
            client.recv.restore(bytes, parsed);
        }
    }

    /// If `bytes` are exactly one request that goes unchanged to one server, moves them there. Else
    /// gives them back.
    fn parse_whole(&mut self, id: ClientId, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let client = self.clients.slab.get_mut(id)?;
        if client.phase != Phase::Open {
            return Some(bytes);
        }
        let mut ahead = client.parser;
        let Parse::Complete(request) = ahead.parse(&bytes, &client.limits) else {
            return Some(bytes);
        };
        if to_usize(request.len) != bytes.len() || !matches!(request.route, Route::Key(_)) {
            return Some(bytes);
        }
        client.parser = ahead;
        match self.route(id, Frame::Owned(bytes), &request) {
            Ok(()) => None,
            Err(Stalled(Frame::Owned(bytes))) => {
                // Its parser is at the start of the frame again; it will be parsed again.
                Some(bytes)
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
            let Some(client) = self.clients.slab.get_mut(id) else {
                return bytes.len();
            };
            if client.phase != Phase::Open {
                return bytes.len();
            }
            if client.pause != Pause::No {
                return at;
            }
            if !client.has_room() {
                client.pause = Pause::Own;
                return at;
            }
            if may_begin_only && self.shared.memory.is_short() {
                client.pause = Pause::Memory;
                self.shared.memory.waiting.push(id);
                return at;
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
                    if let Some(client) = self.clients.slab.get_mut(id) {
                        client.recv.expect(need);
                    }
                    return at;
                }
                Parse::Skip { len } => at += len,
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

    /// Rewrites an inline command and serves it. Returns false if the client must wait with it.
    fn parse_inline(&mut self, id: ClientId, line: &[u8]) -> bool {
        let mut array = Vec::new();
        if let Err(invalid) = inline::to_array(line, &mut array) {
            self.refuse_request(id, Invalid::Redis(invalid), line, Then::Close);
            return true;
        }
        let Some(client) = self.clients.slab.get_mut(id) else {
            return true;
        };
        let protocol = self.pools[client.pool.index()].config.protocol;
        // As in redis, the small limits before AUTH are those of arrays.
        let limits = RequestLimits {
            unauthenticated: false,
            ..client.limits
        };
        match RequestParser::new(protocol).parse(&array, &limits) {
            Parse::Complete(request) => self.route(id, Frame::Lent(&array), &request).is_ok(),
            Parse::Invalid { invalid, len, then } => {
                self.refuse_request(id, invalid, &array[..len], then);
                true
            }
            other => unreachable!("a rewritten line is a whole array: {other:?}"),
        }
    }

    /// Answers a bad request.
    fn refuse_request(&mut self, id: ClientId, invalid: Invalid, frame: &[u8], then: Then) {
        let mut reply = mem::take(&mut self.shared.reply);
        invalid.write(frame, &mut reply);
        if !reply.is_empty() {
            self.answer_now(id, &reply);
        }
        reply.clear();
        self.shared.reply = reply;
        if then == Then::Close {
            self.shared.outbox.notice(Notice::ClientInvalid(id));
            if let Some(client) = self.clients.slab.get_mut(id) {
                client.phase = Phase::Closing { eof: false };
            }
        }
    }

    /// Puts a response of our own in its place in the order queue.
    pub(super) fn answer_now(&mut self, id: ClientId, reply: &[u8]) {
        let Some(client) = self.clients.slab.get_mut(id) else {
            return;
        };
        self.shared.memory.held += to_u64(reply.len());
        let flush = client.push_answer(reply, &mut self.shared.chunks);
        answered(id, client, flush, &mut self.shared);
    }

    /// A client that waited parses on with what it has kept.
    pub(super) fn resume(&mut self, id: ClientId) {
        let Some(client) = self.clients.slab.get_mut(id) else {
            return;
        };
        client.resuming = false;
        if client.pause == Pause::Own && !client.has_drained() {
            return;
        }
        client.pause = Pause::No;
        let before = to_u64(client.recv.len());
        if !client.recv.is_empty() {
            let bytes = client.recv.take();
            self.parse_kept(id, bytes);
        }
        let Some(client) = self.clients.slab.get_mut(id) else {
            return;
        };
        if client.pause == Pause::No {
            if client.eof_read {
                client.recv.clear();
                client.phase = Phase::Closing { eof: true };
            } else if mem::take(&mut client.read_refused) {
                #[cfg(not(canary = "resume_read_lost"))]
                self.shared
                    .outbox
                    .urgent
                    .push_back(Action::ResumeRead(id.into()));
            }
        }
        self.account_recv(id, before);
    }
}
