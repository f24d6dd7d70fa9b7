//! Failures of servers: ejection from the ring and return to it, the end of server connections, and
//! the wait between attempts to make new ones.
//!
//! A server is ejected by twemproxy's rules. It returns when a probe on a connection of its own is
//! answered in health; that connection then becomes an ordinary one.

use alloc::vec::Vec;

use super::Engine;
use super::action::{Action, Notice};
use super::closed::Closed;
use super::deadlines::Alarm;
use super::rng::Rng;
use super::server::{ConnPhase, Ejected, Origin, ServerConn};
use crate::config::EjectPolicy;
use crate::ids::{PoolIdx, ServerConnId, ServerIdx};
use crate::limits::{PROBE_PERIOD_MIN, RECONNECT_FREE_MAX, RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN};
use crate::num::to_u64;
use crate::proto;
use crate::time::Span;

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
        self.shared.outbox.notice(match why {
            Closed::Invalid => Notice::ServerInvalid(server),
            Closed::HandshakeRefused => Notice::ServerRefusedHandshake(server),
            Closed::TimedOut => Notice::ServerTimedOut(server),
            _ => Notice::ServerLost { server, why },
        });
        if conn.is_probe {
            self.fail_all(&mut conn, &[]);
            return;
        }
        let reply = refusal.unwrap_or_else(|| self.failure_reply(server, why));
        if conn.phase != ConnPhase::Ready {
            self.back_off(server, &reply);
        }
        // That the server closes an idle connection is no failure.
        let was_idle = conn.is_idle() && is_closed_by_server(why);
        let newest_end = conn.pipeline.back().map_or(u64::MAX, |slot| slot.end);
        if !was_idle && conn.count_failure(newest_end) {
            self.note_failure(server);
        }
        let moved = if self.may_move(&conn, why) {
            conn.take_resendable(is_closed_by_server(why), &mut self.shared.chunks)
        } else {
            Vec::new()
        };
        self.fail_all(&mut conn, &reply);
        for request in moved {
            self.queue_again(server, request, &reply);
        }
    }

    /// Whether requests of a connection that is over may go to another one. When none could be made
    /// that is only sensible if its time is over and theirs is not.
    fn may_move(&self, conn: &ServerConn, why: Closed) -> bool {
        let pool = self.upstream.servers[conn.server.index()].pool;
        match why {
            Closed::HandshakeRefused => false,
            Closed::TimedOut => self.pools[pool.index()].config.timeout.is_some(),
            _ => conn.phase != ConnPhase::Connecting,
        }
    }

    /// Takes a connection out of all tables; what is on it is the caller's.
    fn forget_conn(&mut self, id: ServerConnId) -> Option<ServerConn> {
        let mut conn = self.upstream.conns.remove(id)?;
        let state = self.upstream.server_mut(conn.server);
        state.conns.retain(|&listed| listed != id);
        if let Some(ejected) = &mut state.health.ejected
            && ejected.probe == Some(id)
        {
            ejected.probe = None;
        }
        self.shared.counters.curr_connections.sub(1);
        if conn.phase != ConnPhase::Connecting {
            conn.counters.server_connections.sub(1);
        }
        self.shared.memory.held -= conn.out.len() + to_u64(conn.recv.len());
        self.shared.outbox.resume.extend(conn.stalled.drain(..));
        self.forget_dead_alarms();
        Some(conn)
    }

    /// Every request left on a dead connection gets an error.
    fn fail_all(&mut self, conn: &mut ServerConn, reply: &[u8]) {
        let mut written = conn.written;
        for slot in conn.pipeline.drain(..) {
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
        conn.out.clear(&mut self.shared.chunks);
        conn.kept.clear(&mut self.shared.chunks);
    }

    /// One request (or fragment) gets an error.
    pub(super) fn fail_one(&mut self, server: ServerIdx, origin: Origin, reply: &[u8]) {
        if self.clients.fail(origin, reply, &mut self.shared) {
            let pool = self.upstream.servers[server.index()].pool;
            self.pools[pool.index()].counters.forward_error.add(1);
        }
    }

    /// The error line for a request that `server` failed.
    pub(super) fn failure_reply(&self, server: ServerIdx, why: Closed) -> Vec<u8> {
        let pool = self.upstream.servers[server.index()].pool;
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
    fn back_off(&mut self, server: ServerIdx, reply: &[u8]) {
        let pool = self.upstream.servers[server.index()].pool;
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

    /// Counts one failure of a server; at the limit it is ejected.
    pub(super) fn note_failure(&mut self, server: ServerIdx) {
        let pool_idx = self.upstream.servers[server.index()].pool;
        let pool = &mut self.pools[pool_idx.index()];
        if !pool.config.auto_eject_hosts {
            return;
        }
        let state = self.upstream.server_mut(server);
        state.health.failures += 1;
        if state.health.failures < pool.config.server_failure_limit {
            return;
        }
        state.health.failures = 0;
        let retry_at = self.shared.now + pool.config.server_retry_timeout;
        // One that fails again while ejected, on an old connection, waits anew.
        let probe = state.health.ejected.take().and_then(|was| was.probe);
        state.health.ejected = Some(Ejected { retry_at, probe });
        state.is_down = pool.config.auto_eject_policy != EjectPolicy::Rehash;
        let wall_clock = self.config.wall_clock_origin + self.shared.now.0;
        state.counters.server_ejected_at.set(wall_clock);
        pool.counters.server_ejects.add(1);
        pool.rebuild(&self.upstream.servers);
        self.shared.outbox.notice(Notice::Ejected(server));
        self.arm_probe(pool_idx);
    }

    /// Has the ejected servers probed whose time has come.
    pub(super) fn probe(&mut self, pool_idx: PoolIdx) {
        self.pools[pool_idx.index()].alarmed = false;
        for server in self.pools[pool_idx.index()].servers() {
            let Some(ejected) = &mut self.upstream.server_mut(server).health.ejected else {
                continue;
            };
            if ejected.retry_at > self.shared.now {
                continue;
            }
            if let Some(late) = ejected.probe {
                self.shared
                    .outbox
                    .urgent
                    .push_back(Action::Close(late.into()));
                self.fail_conn(late, Closed::TimedOut, None);
            }
            let pool = &self.pools[pool_idx.index()];
            let period = pool.config.server_retry_timeout.max(PROBE_PERIOD_MIN);
            let probe = self.upstream.open_probe(pool, server, &mut self.shared);
            self.upstream.server_mut(server).health.ejected = Some(Ejected {
                retry_at: self.shared.now + period,
                probe: Some(probe),
            });
        }
        self.arm_probe(pool_idx);
    }

    /// Arms the alarm for a pool's next probe.
    fn arm_probe(&mut self, pool_idx: PoolIdx) {
        let pool = &mut self.pools[pool_idx.index()];
        if pool.alarmed {
            return;
        }
        let servers = pool
            .servers()
            .map(|server| &self.upstream.servers[server.index()]);
        let ejected = servers.filter_map(|server| server.health.ejected.as_ref());
        if let Some(at) = ejected.map(|ejected| ejected.retry_at).min() {
            pool.alarmed = true;
            self.shared.deadlines.arm(at, Alarm::Probe(pool_idx));
        }
    }

    /// The probe `id` was answered: a healthy server is back, and the connection is one of its own.
    pub(super) fn probed(&mut self, id: ServerConnId, is_healthy: bool) {
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return;
        };
        let server = conn.server;
        let state = &mut self.upstream.servers[server.index()];
        let pool = &mut self.pools[state.pool.index()];
        let has_room = state.conns.len() < crate::num::to_usize(pool.config.server_connections);
        if is_healthy {
            state.health.ejected = None;
            state.health.failures = 0;
            state.is_down = false;
        }
        if is_healthy && has_room {
            conn.is_probe = false;
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
            let pool = self.upstream.servers[server.index()].pool;
            self.pools[pool.index()].rebuild(&self.upstream.servers);
            self.shared.outbox.notice(Notice::Restored(server));
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
