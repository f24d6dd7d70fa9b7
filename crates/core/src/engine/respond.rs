//! A server's bytes become responses, each given to whom it belongs.

use alloc::vec::Vec;
use core::mem;

use super::Engine;
use super::action::Notice;
use super::clients::Clients;
use super::closed::Closed;
use super::errand::Errand;
use super::server::{ConnPhase, Health, ServerConn};
use super::shared::Shared;
use super::slot::{Origin, Slot};
use crate::canary::{Canary, is_planted};
use crate::ids::ServerConnId;
use crate::num::to_u64;
use crate::owner::Report;
use crate::proto::redis::own::{Verdict, verdict};
use crate::proto::{self, Protocol, ResponseStep};

/// What came of one read.
#[derive(Debug, Default)]
struct Outcome {
    /// Bytes done with.
    parsed: usize,
    /// A response came from a server that had failed.
    is_healthy: bool,
    /// A response says that the server is in trouble.
    is_failing: bool,
    /// The connection cannot go on.
    fatal: Option<Closed>,
    /// With [`Closed::HandshakeRefused`] or [`Closed::TurnedAway`]: what the server said.
    refusal: Option<Vec<u8>>,
    /// The first response on the connection is no refusal.
    is_served: bool,
    /// AUTH and SELECT are answered.
    ready: bool,
    /// What the answer to a probe says about the server.
    probed: Option<bool>,
}

impl Engine {
    /// `len` bytes of a server came into the space lent for them.
    pub(super) fn recv_server(&mut self, id: ServerConnId, len: usize) {
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return;
        };
        conn.last_recv = self.shared.now;
        let server = conn.server;
        let server_state = &mut self.upstream.servers[server];
        let protocol = self.pools[server_state.pool.index()].config.protocol;
        let mut reader = Reader {
            conn,
            health: &mut server_state.health,
            clients: &mut self.clients,
            protocol,
        };
        let outcome = if reader.conn.recv.grows_in_place() {
            reader.conn.recv.commit(len);
            let bytes = reader.conn.recv.take(&mut self.shared.chunks);
            let outcome = reader.read(&bytes, &mut self.shared);
            let chunks = &mut self.shared.chunks;
            reader.conn.recv.restore(bytes, outcome.parsed, chunks);
            outcome
        } else {
            let kept = reader.conn.recv.len();
            self.scratch[..kept].copy_from_slice(reader.conn.recv.filled());
            let bytes = &self.scratch[..kept + len];
            let outcome = reader.read(bytes, &mut self.shared);
            let rest = &bytes[outcome.parsed..];
            if !rest.is_empty() {
                reader.conn.recv.save(rest, &mut self.shared.chunks);
            } else if !reader.conn.recv.is_empty() {
                reader.conn.recv.clear(&mut self.shared.chunks);
            }
            outcome
        };
        // A line is kept; its end is not known.
        conn.recv.expect(0);
        if outcome.is_served
            && outcome.fatal.is_none()
            && mem::take(&mut server_state.health.is_away)
        {
            // The return of an ejected server has a notice of its own.
            if !conn.is_probe && !server_state.health.is_ejected {
                self.shared.outbox.notice(Notice::ServerBack(server));
            }
        }
        if outcome.ready {
            conn.phase = ConnPhase::Ready;
            conn.serves(&mut server_state.backoff);
            self.upstream.touch(id, &mut self.shared);
        }
        if outcome.is_healthy {
            self.report(Report::Healthy(server));
        }
        if outcome.is_failing {
            self.note_failure(server);
        }
        if let Some(is_healthy) = outcome.probed {
            self.probed(id, is_healthy);
        }
        // A probe that was answered may be closed already.
        if let Some(why) = outcome.fatal
            && self.upstream.conns.get(id).is_some()
        {
            self.shared
                .outbox
                .urgent
                .push_back(super::Action::Close(id.into()));
            self.fail_conn(id, why, outcome.refusal);
        }
    }
}

/// What reading one connection touches.
pub(super) struct Reader<'a> {
    pub(super) conn: &'a mut ServerConn,
    pub(super) health: &'a mut Health,
    pub(super) clients: &'a mut Clients,
    pub(super) protocol: Protocol,
}

impl Reader<'_> {
    fn read(&mut self, bytes: &[u8], shared: &mut Shared) -> Outcome {
        let mut outcome = Outcome::default();
        while outcome.parsed < bytes.len() && outcome.fatal.is_none() {
            let ahead = self.answer_run(bytes, &mut outcome.parsed, shared);
            let rest = &bytes[outcome.parsed..];
            if rest.is_empty() {
                break;
            }
            let asked = self.conn.pipeline.front();
            let has_asked =
                |slot: &&Slot| self.conn.has_begun(slot) || is_planted(Canary::StrayGivenOn);
            let Some(slot) = asked.filter(has_asked) else {
                // Nobody has asked: were it taken for the next request's response, everyone after it
                // would get somebody else's data.
                self.refuse_stray(rest, &mut outcome);
                return outcome;
            };
            let mut origin = slot.origin;
            if is_planted(Canary::PipelineOffByOne) {
                origin = self.conn.pipeline.get(1).map_or(origin, |slot| slot.origin);
            }
            match ahead.unwrap_or_else(|| self.measure(origin, rest, shared)) {
                ResponseStep::Done(len) => {
                    self.finish(origin, &rest[..len], &mut outcome, shared);
                    outcome.parsed += len;
                }
                // An answer to AUTH, SELECT or a probe is one line. A response in parts is none, and its
                // last part could look like any answer.
                ResponseStep::More(1..) if origin.is_ours() => {
                    outcome.fatal = Some(Closed::HandshakeRefused);
                }
                ResponseStep::More(len) => {
                    if len > 0 {
                        let begun = self.conn.response_len + to_u64(len);
                        let least_len = begun.saturating_add(self.conn.parser.least_rest());
                        let part = &rest[..len];
                        self.clients.answer_more(origin, part, least_len, shared);
                        self.conn.response_len = begun;
                    }
                    outcome.parsed += len;
                    return outcome;
                }
                ResponseStep::Invalid => outcome.fatal = Some(Closed::Invalid),
            }
        }
        outcome
    }

    /// Finds the end of the response to `origin`'s request.
    #[inline]
    fn measure(&mut self, origin: Origin, bytes: &[u8], shared: &mut Shared) -> ResponseStep {
        if self.conn.response_len == 0 && matches!(origin, Origin::Fragment { .. }) {
            return self.conn.parser.step_marking(bytes, &mut shared.marks);
        }
        shared.marks.clear();
        self.conn.parser.step(bytes)
    }

    /// Bytes that answer nothing end the connection. Before anything was sent on it an error is the
    /// server's refusal to serve, as of one that has too many connections, and is passed on.
    #[cold]
    fn refuse_stray(&mut self, bytes: &[u8], outcome: &mut Outcome) {
        outcome.fatal = Some(Closed::Invalid);
        if self.conn.sent == 0
            && let ResponseStep::Done(len) = self.conn.parser.step(bytes)
            && proto::is_quotable(self.protocol, &bytes[..len])
        {
            outcome.fatal = Some(Closed::TurnedAway);
            outcome.refusal = Some(bytes[..len].to_vec());
        }
    }

    /// The response at the head of the pipeline ends with `bytes`.
    #[inline]
    fn finish(&mut self, origin: Origin, bytes: &[u8], outcome: &mut Outcome, shared: &mut Shared) {
        let response_len = mem::take(&mut self.conn.response_len) + to_u64(bytes.len());
        // A response that came in several reads is no error line, whatever its last part looks like.
        let is_whole = response_len == to_u64(bytes.len());
        let is_first = self.conn.answered == 0;
        let slot = self.conn.pop_slot(&mut shared.chunks);
        let may_be_refusal = is_first && is_whole && proto::is_error(self.protocol, bytes);
        if may_be_refusal {
            self.conn.note_refusal(shared.now);
        }
        outcome.is_served |= is_first && !may_be_refusal;
        if self.conn.pipeline.is_empty() {
            self.conn.rest(&mut shared.chunks);
        }
        let origin = match self.conn.pipeline.front() {
            Some(next)
                if is_planted(Canary::DiscardedReplyGivenOn) && origin == Origin::Discarded =>
            {
                next.origin
            }
            _ => origin,
        };
        if let Origin::Own(errand) = origin {
            self.finish_errand(errand, bytes, outcome);
            return;
        }
        let is_failing = is_whole
            && self.protocol == Protocol::Redis
            && bytes[0] == b'-'
            && verdict(bytes) == Verdict::Failing;
        if self.clients.answer(origin, bytes, shared) {
            self.clients.note_response(origin, response_len);
            self.conn.counters.responses.add(1);
            self.conn.counters.response_bytes.add(response_len);
            if !is_failing && !may_be_refusal && self.health.is_watched {
                self.health.is_watched = false;
                self.health.failures = 0;
                outcome.is_healthy = true;
            }
        }
        if is_failing {
            outcome.is_failing |= self.conn.count_failure(slot.end);
        }
    }

    fn finish_errand(&self, errand: Errand, bytes: &[u8], outcome: &mut Outcome) {
        let accepted = errand.accepts(self.protocol, bytes);
        if errand == Errand::Probe {
            outcome.probed = Some(accepted);
        } else if !accepted && !is_planted(Canary::RefusalIgnored) {
            outcome.fatal = Some(Closed::HandshakeRefused);
            outcome.refusal = proto::is_quotable(self.protocol, bytes).then(|| bytes.to_vec());
            return;
        }
        let more = self.conn.pipeline.front().is_some_and(Slot::is_ours);
        outcome.ready = !more;
    }
}
