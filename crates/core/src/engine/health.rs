//! Failures of servers: ejection from the ring and return to it (twemproxy's rules), and the end of
//! server connections.

use alloc::vec::Vec;

use super::Engine;
use super::action::Notice;
use super::closed::Closed;
use super::deadlines::Alarm;
use super::server::{ConnPhase, ServerConn};
use crate::ids::{PoolIdx, ServerConnId, ServerIdx};
use crate::num::to_u64;
use crate::proto;

impl Engine {
    /// A server connection is over: everything on it fails, in order, except what the kernel never
    /// took any byte of, which moves to another connection once. `refusal` is what the server said,
    /// to be passed on instead of our own words.
    pub(super) fn fail_conn(&mut self, id: ServerConnId, why: Closed, refusal: Option<Vec<u8>>) {
        let Some(mut conn) = self.upstream.conns.remove(id) else {
            return;
        };
        let server = conn.server;
        self.upstream
            .server_mut(server)
            .conns
            .retain(|&listed| listed != id);
        self.shared.counters.curr_connections.sub(1);
        let was_connected = conn.phase != ConnPhase::Connecting;
        if was_connected {
            conn.counters.server_connections.sub(1);
        }
        // A time-out that was counted when the first request expired is not counted again.
        let is_counted = conn.blamed && why == Closed::TimedOut;
        if !is_counted {
            why.count(&conn.counters);
        }
        self.shared.outbox.notice(match why {
            Closed::Invalid => Notice::ServerInvalid(server),
            Closed::HandshakeRefused => Notice::ServerRefusedHandshake(server),
            Closed::TimedOut => Notice::ServerTimedOut(server),
            _ => Notice::ServerLost { server, why },
        });
        self.shared.memory.held -= conn.out.len() + to_u64(conn.recv.len());
        self.shared.outbox.resume.extend(conn.stalled.drain(..));
        // An idle connection that the server closes in order is not a failure.
        let was_idle = was_connected && conn.pipeline.is_empty() && why == Closed::Eof;
        if !was_idle && !is_counted {
            self.note_failure(server);
        }
        let may_move = was_connected && why != Closed::HandshakeRefused;
        let moved = if may_move {
            conn.take_unsent(&mut self.shared.chunks)
        } else {
            Vec::new()
        };
        self.fail_all(&mut conn, why, refusal.as_deref());
        for request in moved {
            if request.slot.moved || request.slot.is_ours() {
                let reply = self.failure_reply(server, why);
                self.fail_one(server, request.slot.origin, &reply);
            } else {
                self.queue_again(server, request);
            }
        }
    }

    /// Every request left on a dead connection gets an error.
    fn fail_all(&mut self, conn: &mut ServerConn, why: Closed, refusal: Option<&[u8]>) {
        let reply = match refusal {
            Some(said) => said.to_vec(),
            None => self.failure_reply(conn.server, why),
        };
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
            self.fail_one(conn.server, slot.origin, &reply);
        }
        conn.out.clear(&mut self.shared.chunks);
    }

    /// One request (or fragment) gets an error.
    pub(super) fn fail_one(
        &mut self,
        server: ServerIdx,
        origin: super::server::Origin,
        reply: &[u8],
    ) {
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
        let until = self.shared.now + pool.config.server_retry_timeout;
        state.health.ejected_until = Some(until);
        let wall_clock = self.config.wall_clock_origin + self.shared.now.0;
        state.counters.server_ejected_at.set(wall_clock);
        pool.counters.server_ejects.add(1);
        pool.rebuild(&self.upstream.servers);
        self.shared.outbox.notice(Notice::Ejected(server));
        if !pool.alarmed {
            pool.alarmed = true;
            self.shared.deadlines.arm(until, Alarm::Restore(pool_idx));
        }
    }

    /// Puts the servers back whose time has come.
    pub(super) fn restore(&mut self, pool_idx: PoolIdx) {
        let pool = &mut self.pools[pool_idx.index()];
        pool.alarmed = false;
        let mut next = None;
        for server in pool.servers() {
            let health = &mut self.upstream.server_mut(server).health;
            match health.ejected_until {
                Some(until) if until <= self.shared.now => {
                    health.ejected_until = None;
                    self.shared.outbox.notice(Notice::Restored(server));
                }
                Some(until) => {
                    next = Some(next.map_or(until, |at: crate::time::Micros| at.min(until)))
                }
                None => {}
            }
        }
        pool.rebuild(&self.upstream.servers);
        if let Some(at) = next {
            pool.alarmed = true;
            self.shared.deadlines.arm(at, Alarm::Restore(pool_idx));
        }
    }
}
