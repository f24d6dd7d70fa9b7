//! Failures of servers: ejection from the ring and return to it, the end of server connections, and
//! the wait between attempts to make new ones.
//!
//! A server is ejected by twemproxy's rules. It returns when a probe on a connection of its own is
//! answered in health; that connection then becomes an ordinary one. Who decides is in `owner`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Engine;
use super::action::{Action, Notice};
use super::closed::Closed;
use super::rng::Rng;
use super::server::{ConnPhase, Gate, ServerConn};
use super::slot::Origin;
use crate::ids::{ServerConnId, ServerId};
use crate::limits::{RECONNECT_FREE_MAX, RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN, REFUSAL_WAIT};
use crate::num::to_usize;
use crate::owner::{Mail, Report};
use crate::proto;
use crate::time::Span;
use crate::topology::{ShardState, Topology};

impl Engine {
    /// A server connection is over: everything on it fails, in order, except what moves to another
    /// connection, once: what the kernel never took any byte of and, if the server closed it, what
    /// changes nothing. `refusal` is what the server said, to be passed on instead of our own words.
    pub(super) fn fail_conn(&mut self, id: ServerConnId, why: Closed, refusal: Option<Vec<u8>>) {
        let Some(mut conn) = self.forget_conn(id) else {
            return;
        };
        let server = conn.server;
        // A time-out that was counted when the first request expired is not counted again.
        if !(conn.blamed && why == Closed::TimedOut) {
            why.count(&conn.counters);
        }
        let now = self.shared.now;
        let patience = self.refusal_wait(server);
        let is_by_server = is_closed_by_server(why);
        let is_refused = is_by_server && conn.is_refused(now, patience);
        let told = if is_refused { Closed::TurnedAway } else { why };
        self.shared.outbox.notice(match told {
            Closed::Invalid => Notice::ServerInvalid(server),
            Closed::HandshakeRefused => Notice::ServerRefusedHandshake(server),
            Closed::TurnedAway => Notice::ServerTurnedAway(server),
            Closed::TimedOut => Notice::ServerTimedOut(server),
            _ => Notice::ServerLost { server, why },
        });
        if conn.is_probe {
            self.fail_all(&mut conn, &[]);
            return;
        }
        let reply = refusal.unwrap_or_else(|| self.failure_reply(server, told));
        if told == Closed::TurnedAway {
            conn.refused(&mut self.upstream.server_mut(server).backoff);
        }
        if conn.phase != ConnPhase::Ready || told == Closed::TurnedAway {
            self.back_off(server, &reply);
        }
        // That the server closes an idle connection is no failure; that it refuses one is.
        let was_idle =
            is_by_server && conn.is_idle() && !is_refused && !conn.is_shut_out(now, patience);
        let newest_end = conn.pipeline.back().map_or(u64::MAX, |slot| slot.end);
        if !was_idle && !why.is_ours() && conn.count_failure(newest_end) {
            self.upstream.server_mut(server).health.is_away = true;
            self.note_failure(server);
        }
        let moved = if self.may_move(&conn, why) {
            conn.take_resendable(is_by_server, &mut self.shared.chunks)
        } else {
            Vec::new()
        };
        self.fail_all(&mut conn, &reply);
        for request in moved {
            self.queue_again(server, request, &reply);
        }
    }

    /// How soon after its first response, an error, a server must close for that to be a refusal.
    fn refusal_wait(&self, server: ServerId) -> Span {
        let pool = self.upstream.servers[server].pool;
        let timeout = self.pools[pool.index()].config.timeout;
        timeout.unwrap_or(REFUSAL_WAIT)
    }

    /// Whether requests of a connection that is over may go to another one. When none could be made
    /// that is only sensible if its time is over and theirs is not.
    fn may_move(&self, conn: &ServerConn, why: Closed) -> bool {
        let pool = self.upstream.servers[conn.server].pool;
        match why {
            Closed::HandshakeRefused | Closed::TurnedAway => false,
            Closed::TimedOut => self.pools[pool.index()].config.timeout.is_some(),
            _ => conn.phase != ConnPhase::Connecting,
        }
    }

    /// Takes a connection out of all tables; what is on it is the caller's.
    fn forget_conn(&mut self, id: ServerConnId) -> Option<ServerConn> {
        let mut conn = self.upstream.conns.remove(id)?;
        let state = self.upstream.server_mut(conn.server);
        state.conns.retain(|&listed| listed != id);
        if state.health.probe == Some(id) {
            state.health.probe = None;
        }
        self.shared.counters.curr_connections.sub(1);
        if conn.phase != ConnPhase::Connecting {
            conn.counters.server_connections.sub(1);
        }
        self.shared.outbox.resume.extend(conn.stalled.drain(..));
        self.forget_dead_alarms();
        Some(conn)
    }

    /// Every request left on a dead connection gets an error.
    fn fail_all(&mut self, conn: &mut ServerConn, reply: &[u8]) {
        let mut written = conn.written;
        for slot in conn.clear(&mut self.shared.chunks) {
            let (queue, bytes) = if written > 0 {
                written -= 1;
                (&conn.counters.out_queue, &conn.counters.out_queue_bytes)
            } else {
                (&conn.counters.in_queue, &conn.counters.in_queue_bytes)
            };
            queue.sub(1);
            bytes.sub(u64::from(slot.len));
            self.fail_one(conn.server, slot.origin, reply);
        }
    }

    /// One request (or fragment) gets an error.
    pub(super) fn fail_one(&mut self, server: ServerId, origin: Origin, reply: &[u8]) {
        if self.clients.fail(origin, reply, &mut self.shared) {
            let pool = self.upstream.servers[server].pool;
            self.pools[pool.index()].counters.forward_error.add(1);
        }
    }

    /// The error line for a request that `server` failed.
    pub(super) fn failure_reply(&self, server: ServerId, why: Closed) -> Vec<u8> {
        let pool = self.upstream.servers[server].pool;
        let mut reply = Vec::new();
        proto::write_error(
            self.pools[pool.index()].config.protocol,
            why.text(),
            &mut reply,
        );
        reply
    }

    /// An attempt to connect failed with `reply` for those who waited: after several in a row the
    /// next one has to wait. Ejection, where it is on, has its own and longer wait.
    fn back_off(&mut self, server: ServerId, reply: &[u8]) {
        let pool = self.upstream.servers[server].pool;
        if self.pools[pool.index()].config.auto_eject_hosts {
            return;
        }
        let backoff = &mut self.upstream.server_mut(server).backoff;
        backoff.failures = backoff.failures.saturating_add(1);
        backoff.reply.clear();
        backoff.reply.extend_from_slice(reply);
        if let Some(wait) = reconnect_wait(backoff.failures, &mut self.rng) {
            backoff.until = self.shared.now + wait;
        }
    }

    /// Reports one failure of a server: the owner of its health decides what follows.
    pub(super) fn note_failure(&mut self, server: ServerId) {
        let state = self.upstream.server_mut(server);
        let pool = &self.pools[state.pool.index()];
        if pool.config.auto_eject_hosts {
            // Its next healthy response matters, whether or not the owner is told of this first.
            state.health.is_watched = true;
            state.health.failures = state.health.failures.saturating_add(1);
            if state.gate == Gate::Open
                && !state
                    .health
                    .may_be_tried_again(pool.config.server_failure_limit)
                && !state.health.is_ejected
            {
                state.gate = Gate::Held;
            }
            state.health.reports = state.health.reports.wrapping_add(1);
            let nth = state.health.reports;
            self.report(Report::Failed(server, nth));
        }
    }

    /// Tells the owner of the servers' health.
    pub(super) fn report(&mut self, report: Report) {
        self.reports.push_back(report);
    }

    /// Does what the owner of the servers' health says.
    pub(super) fn obey(&mut self, mail: Mail) {
        match mail {
            Mail::Watch(server, nth) => self.watch(server, nth),
            Mail::Topology(topology) => self.adopt(topology),
            Mail::Probe(server) => self.probe(server),
            Mail::Ejected(server) => {
                let state = self.upstream.server_mut(server);
                let wall_clock = self.config.wall_clock_origin + self.shared.now.0;
                state.counters.server_ejected_at.set(wall_clock);
                self.pools[state.pool.index()].counters.server_ejects.add(1);
                self.shared.outbox.notice(Notice::Ejected(server));
            }
            Mail::Restored(server) => self.shared.outbox.notice(Notice::Restored(server)),
        }
    }

    /// A server has failed, here or elsewhere, and is not ejected for it: `nth` is the number of the report.
    fn watch(&mut self, server: ServerId, nth: u32) {
        let state = self.upstream.server_mut(server);
        state.health.is_watched = true;
        // An answer to an earlier report says nothing of the last one.
        if state.gate == Gate::Held && nth == state.health.reports {
            // It was well elsewhere meanwhile: the owner counts from one.
            state.health.failures = 1;
            self.upstream.release(server, Gate::Open, &mut self.shared);
        }
    }

    /// Places keys by `topology` from now on.
    fn adopt(&mut self, topology: Arc<Topology>) {
        let pool = &mut self.pools[topology.pool.index()];
        if topology.version <= pool.topology.version {
            return;
        }
        for shard in &topology.shards {
            let state = self.upstream.server_mut(shard.primary);
            if shard.state == ShardState::Up && state.health.is_ejected {
                state.health.failures = 0;
            }
            state.health.is_ejected = shard.state != ShardState::Up;
            let gate = match shard.state {
                // The owner's answer to the last failure is still to come.
                ShardState::Up if state.gate == Gate::Held => continue,
                ShardState::Up | ShardState::Rehashed => Gate::Open,
                ShardState::Down => Gate::Down,
            };
            self.upstream.release(shard.primary, gate, &mut self.shared);
        }
        pool.adopt(topology);
    }

    /// Asks an ejected server whether it is well; gives up an older question.
    fn probe(&mut self, server: ServerId) {
        if let Some(late) = self.upstream.server_mut(server).health.probe {
            self.shared
                .outbox
                .urgent
                .push_back(Action::Close(late.into()));
            self.fail_conn(late, Closed::TimedOut, None);
        }
        let state = &self.upstream.servers[server];
        let pool = &self.pools[state.pool.index()];
        let probe = self.upstream.open_probe(pool, server, &mut self.shared);
        self.upstream.server_mut(server).health.probe = Some(probe);
    }

    /// The probe `id` was answered: the connection of a healthy server becomes an ordinary one, if
    /// there is room.
    pub(super) fn probed(&mut self, id: ServerConnId, is_healthy: bool) {
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return;
        };
        let server = conn.server;
        let state = &mut self.upstream.servers[server];
        let config = &self.pools[state.pool.index()].config;
        let has_room = state.conns.len() < to_usize(config.server_connections);
        if is_healthy && has_room {
            conn.is_probe = false;
            state.health.probe = None;
            state.conns.push(id);
        } else {
            self.shared
                .outbox
                .urgent
                .push_back(Action::Close(id.into()));
            if let Some(mut conn) = self.forget_conn(id) {
                self.fail_all(&mut conn, &[]);
            }
        }
        if is_healthy {
            self.report(Report::ProbeAnswered(server));
        }
    }
}

/// Whether the server ended the connection, or had when we wrote.
const fn is_closed_by_server(why: Closed) -> bool {
    matches!(why, Closed::Eof | Closed::Reset | Closed::BrokenPipe)
}

/// How long to wait after so many failed attempts in a row.
fn reconnect_wait(failures: u32, rng: &mut Rng) -> Option<Span> {
    let doublings = failures.checked_sub(RECONNECT_FREE_MAX)?;
    let Span(longest) = RECONNECT_WAIT_MAX;
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let wait = RECONNECT_WAIT_MIN.0.saturating_mul(factor).min(longest);
    // A quarter less to a quarter more, so that many proxies do not come at once.
    Some(Span(wait - wait / 4 + rng.next_u64() % (wait / 2 + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_begins_after_the_free_attempts_and_never_exceeds_its_bound() {
        let mut rng = Rng::new(1);
        for failures in 0..RECONNECT_FREE_MAX {
            assert_eq!(reconnect_wait(failures, &mut rng), None);
        }
        for failures in [RECONNECT_FREE_MAX, RECONNECT_FREE_MAX + 3, 100, u32::MAX] {
            let nominal = RECONNECT_WAIT_MAX
                .0
                .min(RECONNECT_WAIT_MIN.0 << (failures - RECONNECT_FREE_MAX).min(20));
            for _ in 0..100 {
                let Span(wait) = reconnect_wait(failures, &mut rng).unwrap();
                assert!(
                    (nominal * 3 / 4..=nominal * 5 / 4).contains(&wait),
                    "{wait}"
                );
            }
        }
    }
}
