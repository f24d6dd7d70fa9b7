//! Requests that wait too long, and connections that stay silent.
//!
//! A time-out hurts only its own request: the client is answered, a request of which nothing was
//! sent is withdrawn, the late response of any other is discarded. Only when no byte at all has come
//! for one further time-out is the connection given up.

use super::Engine;
use super::action::{Action, Notice};
use super::closed::Closed;
use super::deadlines::Alarm;
use super::server::{ConnPhase, Origin};
use crate::ids::ServerConnId;
use crate::time::{Micros, Span};

impl Engine {
    pub(super) fn run_alarms(&mut self) {
        while let Some(alarm) = self.shared.deadlines.pop_due(self.shared.now) {
            match alarm {
                Alarm::Conn(id) => self.check_conn(id),
                Alarm::Restore(pool) => self.restore(pool),
            }
        }
    }

    fn check_conn(&mut self, id: ServerConnId) {
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return;
        };
        conn.alarmed = false;
        let server = conn.server;
        let pool = &self.pools[self.upstream.servers[server.index()].pool.index()];
        let Some(timeout) = pool.config.timeout else {
            return;
        };
        let is_over = self.expire(id, timeout);
        if is_over {
            self.shared
                .outbox
                .urgent
                .push_back(Action::Close(id.into()));
            self.fail_conn(id, Closed::TimedOut, None);
        } else {
            self.upstream.arm(id, timeout, &mut self.shared);
        }
    }

    /// Answers the requests of a connection that have waited too long. Returns whether the connection
    /// is to be given up.
    fn expire(&mut self, id: ServerConnId, timeout: Span) -> bool {
        let now = self.shared.now;
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return false;
        };
        let server = conn.server;
        let is_due = |queued_at: Micros| queued_at + timeout <= now;
        #[cfg(canary = "deadline_reused")]
        let is_due = |queued_at: Micros| is_due(queued_at) || now > queued_at;
        let reply = self.failure_reply(server, Closed::TimedOut);
        let mut is_over = false;
        let mut blame = false;
        loop {
            let Some(conn) = self.upstream.conns.get_mut(id) else {
                return false;
            };
            let Some(&slot) = conn.pipeline.get(conn.expired) else {
                break;
            };
            if !is_due(slot.queued_at) {
                break;
            }
            if !conn.has_begun(&slot) {
                break;
            }
            conn.pipeline[conn.expired].origin = Origin::Discarded;
            conn.expired += 1;
            blame |= !conn.blamed;
            conn.blamed = true;
            // Without the answer to AUTH or SELECT nothing else can ever be sent.
            is_over |= slot.is_ours();
            self.fail_one(server, slot.origin, &reply);
        }
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return false;
        };
        let at = conn.expired;
        if conn
            .pipeline
            .get(at)
            .is_some_and(|slot| is_due(slot.queued_at))
        {
            is_over |= conn.phase == ConnPhase::Connecting;
            let queued_until = Micros(now.0.saturating_sub(timeout.0));
            let held = conn.out.len();
            let withdrawn = conn.withdraw(at, queued_until, &mut self.shared.chunks);
            self.shared.memory.held -= held - conn.out.len();
            for slot in withdrawn {
                is_over |= slot.is_ours();
                self.fail_one(server, slot.origin, &reply);
            }
        }
        if blame {
            self.upstream
                .server_mut(server)
                .counters
                .server_timedout
                .add(1);
            self.shared.outbox.notice(Notice::ServerTimedOut(server));
            self.note_failure(server);
        }
        let conn = self.upstream.conns.get_mut(id);
        is_over || conn.is_some_and(|conn| conn.silent_at(timeout).is_some_and(|at| at <= now))
    }
}
