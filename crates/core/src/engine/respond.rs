//! A server's bytes become responses, each given to whom it belongs.

use alloc::vec::Vec;
use core::mem;

use super::Engine;
use super::clients::Clients;
use super::closed::Closed;
use super::server::{ConnPhase, Health, ServerConn};
use super::shared::Shared;
use super::slot::{Origin, Slot};
use crate::canary::{Canary, is_planted};
use crate::ids::ServerConnId;
use crate::num::to_u64;
use crate::owner::Report;
use crate::proto::redis::local::auth_accepted;
use crate::proto::redis::response::{Verdict, verdict};
use crate::proto::{self, Protocol, ResponseStep, memcache};

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
    /// With [`Closed::HandshakeRefused`]: what the server said.
    refusal: Option<Vec<u8>>,
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
        let before = to_u64(reader.conn.recv.len());
        let outcome = if reader.conn.recv.grows_in_place() {
            reader.conn.recv.commit(len);
            let bytes = reader.conn.recv.take();
            let outcome = reader.read(&bytes, &mut self.shared);
            reader.conn.recv.restore(bytes, outcome.parsed);
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
                reader.conn.recv.clear();
            }
            outcome
        };
        let after = to_u64(conn.recv.len());
        conn.recv.expect(conn.recv.len() + 1);
        self.shared.memory.held = self.shared.memory.held - before + after;
        if outcome.ready {
            conn.phase = ConnPhase::Ready;
            server_state.backoff.failures = 0;
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
                ResponseStep::More(len) => {
                    if len > 0 {
                        self.clients.answer_more(origin, &rest[..len], shared);
                        self.conn.response_len += to_u64(len);
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
            && proto::is_error(self.protocol, &bytes[..len])
        {
            outcome.fatal = Some(Closed::HandshakeRefused);
            outcome.refusal = Some(bytes[..len].to_vec());
        }
    }

    /// The response at the head of the pipeline ends with `bytes`.
    #[inline]
    fn finish(&mut self, origin: Origin, bytes: &[u8], outcome: &mut Outcome, shared: &mut Shared) {
        let response_len = mem::take(&mut self.conn.response_len) + to_u64(bytes.len());
        // A response that came in several reads is no error line, whatever its last part looks like.
        let is_whole = response_len == to_u64(bytes.len());
        let slot = self.conn.pop_slot();
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
        match origin {
            Origin::Auth | Origin::Select | Origin::Probe => {
                self.finish_handshake(origin, bytes, outcome);
                return;
            }
            Origin::Whole { .. } | Origin::Fragment { .. } | Origin::Discarded => {}
        }
        let is_failing = is_whole
            && self.protocol == Protocol::Redis
            && bytes[0] == b'-'
            && verdict(bytes) == Verdict::Failing;
        if self.clients.answer(origin, bytes, shared) {
            self.clients.note_response(origin, response_len);
            self.conn.counters.responses.add(1);
            self.conn.counters.response_bytes.add(response_len);
            if !is_failing && self.health.is_watched {
                self.health.is_watched = false;
                self.health.failures = 0;
                outcome.is_healthy = true;
            }
        }
        if is_failing {
            outcome.is_failing |= self.conn.count_failure(slot.end);
        }
    }

    fn finish_handshake(&self, origin: Origin, bytes: &[u8], outcome: &mut Outcome) {
        let accepted = match origin {
            Origin::Auth => auth_accepted(bytes),
            Origin::Probe => {
                outcome.probed = Some(self.is_well(bytes));
                true
            }
            _ => bytes.starts_with(b"+"),
        };
        if !accepted && !is_planted(Canary::RefusalIgnored) {
            outcome.fatal = Some(Closed::HandshakeRefused);
            outcome.refusal = bytes.starts_with(b"-").then(|| bytes.to_vec());
            return;
        }
        let more = self.conn.pipeline.front().is_some_and(Slot::is_ours);
        outcome.ready = !more;
    }

    /// Whether the answer to a probe is a healthy server's. Any error but those of a server that
    /// cannot serve will do: who asks for a password is awake.
    fn is_well(&self, bytes: &[u8]) -> bool {
        match self.protocol {
            Protocol::Redis => verdict(bytes) == Verdict::Healthy,
            Protocol::Memcache => memcache::own::answers_probe(bytes),
        }
    }
}
