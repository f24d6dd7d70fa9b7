//! Runs: the ordinary requests, or responses, of one read, one after the other.
//!
//! What one request needs to know of its client, its pool and its server hardly changes from the next
//! one's, so a run looks it up once. Nothing is decided here: whatever is not ordinary ends the run
//! and is left to [`super::parse`] or [`super::respond`], which could do it all alone.

use super::Engine;
use super::clients::answered;
use super::forward::Sender;
use super::respond::Reader;
use super::server::{Origin, Slot};
use super::shared::Shared;
use crate::canary::{Canary, is_planted};
use crate::ids::ClientId;
use crate::num::{to_u64, to_usize};
use crate::proto::{Parse, Protocol, ResponseStep, Route};

impl Engine {
    /// Parses and forwards requests from `at` on, as long as each has one key and a server connection
    /// that takes it, and moves `at` behind them. Returns what was parsed of the first other one;
    /// `None` if the bytes end, or if the client may have to wait before the next.
    ///
    /// The caller has seen that one more request may be parsed.
    #[inline]
    pub(super) fn forward_run(
        &mut self,
        id: ClientId,
        bytes: &[u8],
        at: &mut usize,
    ) -> Option<Parse> {
        let client = self.clients.slab.get_mut(id)?;
        let pool = &self.pools[client.pool.index()];
        // Nothing is answered meanwhile.
        let mut room = client.room();
        loop {
            let rest = &bytes[*at..];
            let noted = &mut self.work.parts;
            let parse = client.parser.parse_noting(rest, &client.limits, noted);
            let Parse::Complete(request) = &parse else {
                return Some(parse);
            };
            let Route::Key(key) = request.route else {
                return Some(parse);
            };
            if client.limits.unauthenticated && !is_planted(Canary::StrangerAdmitted) {
                return Some(parse);
            }
            let frame = &rest[..to_usize(request.len)];
            let Some(owner) = pool.owner(key.of(frame), &mut self.rng) else {
                return Some(parse);
            };
            let server = pool.server(owner);
            let chosen = self.upstream.choose(pool, server, client, &mut self.shared);
            let Some(conn) = chosen.filter(|&conn| !self.upstream.is_full(conn)) else {
                return Some(parse);
            };
            let from = Sender { id, client, pool };
            self.upstream
                .enqueue(conn, from, request, &mut self.shared, |out, chunks| {
                    out.append(frame, chunks);
                });
            *at += frame.len();
            room -= 1;
            if *at == bytes.len() || room == 0 || self.shared.memory.is_short() {
                return None;
            }
        }
    }
}

impl Reader<'_> {
    /// Passes on responses from `at` on, as long as each is whole, no failure, and the whole answer to
    /// a client that waits for it, and moves `at` behind them. Returns what was measured of the first
    /// other one; `None` if nothing was.
    #[inline]
    pub(super) fn answer_run(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        shared: &mut Shared,
    ) -> Option<ResponseStep> {
        let conn = &mut *self.conn;
        if conn.expired > 0 || conn.response_len > 0 || self.health.is_watched {
            return None;
        }
        let (slots, _) = conn.pipeline.as_slices();
        let written = &slots[..conn.written.min(slots.len())];
        let errors_begin = match self.protocol {
            Protocol::Redis => Some(b'-'),
            Protocol::Memcache => None,
        };
        let (start, mut done, mut left) = (*at, 0, None);
        for slot in written {
            let Origin::Whole { client: id, seq } = slot.origin else {
                break;
            };
            let rest = &bytes[*at..];
            if rest.is_empty() {
                break;
            }
            let step = conn.parser.step(rest);
            left = Some(step);
            let ResponseStep::Done(len) = step else {
                break;
            };
            let response = &rest[..len];
            if response.first().copied() == errors_begin {
                break;
            }
            let Some(client) = self.clients.slab.get_mut(id) else {
                break;
            };
            left = None;
            shared.memory.held += to_u64(len);
            let flush = client.respond(seq, response, &mut shared.chunks);
            client.note_response(to_u64(len));
            answered(id, client, flush, shared);
            *at += len;
            done += 1;
        }
        if done > 0 {
            let waited = shared.now.since(written[0].queued_at);
            shared.gather.note_response(waited);
            let len = written[..done].iter().map(Slot::len).sum();
            self.conn
                .finish_run(done, len, to_u64(*at - start), &mut shared.chunks);
        }
        left
    }
}
