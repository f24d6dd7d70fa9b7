//! Requests whose server cannot take them: answered at once, or moved to its next connection.

use alloc::vec::Vec;

use super::Engine;
use super::clients::answered;
use super::closed::Closed;
use super::forward::Sender;
use super::pool::Pool;
use super::server::Gate;
use super::shared::Shared;
use super::slot::{Moved, Origin, Slot};
use super::upstream::Upstream;
use crate::config::EjectPolicy;
use crate::ids::ServerId;
use crate::proto::{self, Request};

/// What a request gets instead of its server's response.
struct Answer {
    reply: Vec<u8>,
    is_error: bool,
}

impl Upstream {
    /// Answers a whole request to a server that is down. It has not taken its place in the order
    /// queue yet.
    #[cold]
    pub(super) fn answer_down(
        &self,
        from: Sender<'_>,
        server: ServerId,
        request: &Request,
        shared: &mut Shared,
    ) {
        let Sender { id, client, pool } = from;
        if request.noreply || client.session.is_muted() {
            return;
        }
        let answer = self.down(pool, server, request, 1);
        pool.counters.forward_error.add(u64::from(answer.is_error));
        let flush = client.push_answer(&answer.reply, &mut shared.chunks);
        answered(id, client, flush, shared);
    }

    /// The answer to a request for `key_count` keys of a server that is down.
    fn down(&self, pool: &Pool, server: ServerId, request: &Request, key_count: u32) -> Answer {
        let state = &self.servers[server];
        let protocol = pool.config.protocol;
        let mut reply = Vec::new();
        let is_missed = state.gate == Gate::Down
            && pool.config.auto_eject_policy == EjectPolicy::Miss
            && proto::write_miss(protocol, request, key_count, &mut reply);
        if !is_missed {
            if state.gate == Gate::Down {
                // As with all servers ejected.
                proto::write_error(protocol, Closed::Refused.text(), &mut reply);
            } else {
                reply.extend_from_slice(&state.backoff.reply);
            }
        }
        Answer {
            reply,
            is_error: !is_missed,
        }
    }
}

impl Engine {
    /// Answers the fragment `origin`, which has `key_count` of its request's keys.
    pub(super) fn fail_down(
        &mut self,
        server: ServerId,
        origin: Origin,
        request: &Request,
        key_count: u32,
    ) {
        let pool = &self.pools[self.upstream.servers[server].pool.index()];
        let answer = self.upstream.down(pool, server, request, key_count);
        if self.clients.fail(origin, &answer.reply, &mut self.shared) {
            pool.counters.forward_error.add(u64::from(answer.is_error));
        }
    }

    /// Queues a request taken out of a connection that closed on another one of the same server;
    /// `reply` is its answer if there is none to be had.
    pub(super) fn queue_again(&mut self, server: ServerId, moved: Moved, reply: &[u8]) {
        let origin = moved.slot.origin;
        let is_gone = origin
            .client()
            .is_none_or(|client| self.clients.roster.get(client).is_none());
        if moved.slot.readonly && is_gone {
            return;
        }
        let state = &self.upstream.servers[server];
        let pool = &self.pools[state.pool.index()];
        let bound = origin
            .client()
            .and_then(|client| self.clients.roster.get_mut(client));
        let chosen = match bound {
            _ if !state
                .health
                .may_be_tried_again(pool.config.server_failure_limit) =>
            {
                None
            }
            Some(client) => self.upstream.choose(pool, server, client, &mut self.shared),
            None => self.upstream.choose_among(pool, server, &mut self.shared),
        };
        let Some(conn_id) = chosen else {
            self.fail_one(server, origin, reply);
            return;
        };
        let conn = self.upstream.chosen_mut(conn_id);
        conn.out.push(moved.bytes, &mut self.shared.chunks);
        let behind = conn.pipeline.back();
        conn.unsorted |= behind.is_some_and(|slot| slot.queued_at > moved.slot.queued_at);
        let slot = Slot {
            moved: true,
            ..moved.slot
        };
        conn.push_slot(slot, &mut self.shared.chunks);
        // What came first is the oldest: to look at all that moved for each would be quadratic.
        if let Some(timeout) = pool.config.timeout
            && conn
                .alarm_at
                .is_none_or(|at| moved.slot.queued_at + timeout < at)
        {
            self.upstream.arm(conn_id, timeout, &mut self.shared);
        }
        self.upstream.touch(conn_id, &mut self.shared);
    }
}
