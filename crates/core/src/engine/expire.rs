//! Requests that wait too long, connections that stay silent, and clients that stay idle.
//!
//! A time-out hurts only its own request: the client is answered, a request of which nothing was
//! sent is withdrawn, the late response of any other is discarded. Only when no byte at all has come
//! for one further time-out is the connection given up, or when bytes wait for the server and it has
//! neither taken nor sent one for a time-out. The server is blamed once it has had a request for a
//! whole time-out, once per silence.

use super::Engine;
use super::action::{Action, Notice};
use super::client_end::ClientEnd;
use super::closed::Closed;
use super::deadlines::Alarm;
use super::server::{ConnPhase, ServerConn};
use super::slot::Origin;
use super::upstream::wake_stalled;
use crate::canary::{Canary, is_planted};
use crate::ids::{ClientId, ServerConnId};
use crate::limits::{SLOTS_EXPIRED_MAX, TIDY_PERIOD};
use crate::time::{Micros, Span};

impl Engine {
    pub(super) fn run_alarms(&mut self) {
        while let Some((at, alarm)) = self.shared.deadlines.pop_due(self.shared.now) {
            match alarm {
                Alarm::Conn(id) => self.check_conn(id, at),
                Alarm::Client(id) => self.check_idle(id),
                Alarm::Tidy => self.tidy(),
                Alarm::Memory => self.check_memory(at),
            }
        }
    }

    /// Gives back memory that was not needed since the last time.
    fn tidy(&mut self) {
        let of_queues = self.shared.outbox.tidy() + self.upstream.tidy();
        // Once more: a queue gives back a part of its room at a time.
        self.shared.is_bulky = of_queues > 0;
        self.shared.released += of_queues;
        self.clients.roster.tidy();
        self.shared.chunks.tidy();
        self.shared.is_tidying = false;
    }

    /// Sees to it that memory which a burst left behind is given back.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        self.shared.watch_others();
        if !self.shared.is_tidying
            && (self.shared.chunks.is_untidy()
                || self.shared.outbox.is_untidy()
                || self.clients.roster.is_untidy()
                || self.shared.is_bulky)
        {
            self.shared.is_tidying = true;
            let at = self.shared.now + TIDY_PERIOD;
            self.shared.deadlines.arm(at, Alarm::Tidy);
        }
    }

    /// Forgets the alarms of what is gone, if there are many.
    pub(super) fn forget_dead_alarms(&mut self) {
        let (conns, clients) = (&self.upstream.conns, &self.clients.roster);
        let live_count = conns.len() + clients.len();
        self.shared
            .deadlines
            .forget_dead(live_count, |alarm| match alarm {
                Alarm::Conn(id) => conns.get(id).is_some(),
                Alarm::Client(id) => clients.contains(id),
                Alarm::Tidy => true,
                Alarm::Memory => true,
            });
    }

    fn check_conn(&mut self, id: ServerConnId, at: Micros) {
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return;
        };
        if conn.alarm_at != Some(at) {
            // An earlier one was armed after this one and has seen to it.
            return;
        }
        conn.alarm_at = None;
        let pool = self.upstream.servers[conn.server].pool;
        let Some(timeout) = self.pools[pool.index()].config.timeout else {
            return;
        };
        let is_over = self.expire(id, timeout);
        self.blame(id, timeout);
        if is_over {
            self.shared
                .outbox
                .urgent
                .push_back(Action::Close(id.into()));
            self.fail_conn(id, Closed::TimedOut, None);
        } else {
            // The flush may still be to come.
            if let Some(conn) = self.upstream.conns.get_mut(id) {
                conn.note_waiting(self.shared.now);
            }
            self.upstream.arm(id, timeout, &mut self.shared);
        }
    }

    /// Answers the requests of a connection that have waited too long. Returns whether the connection
    /// is to be given up.
    fn expire(&mut self, id: ServerConnId, timeout: Span) -> bool {
        let now = self.shared.now;
        let spared = if is_planted(Canary::DeadlineReused) {
            1
        } else {
            timeout.0
        };
        let queued_until = Micros(now.0.saturating_sub(spared));
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return false;
        };
        let server = conn.server;
        let reply = self.failure_reply(server, Closed::TimedOut);
        let mut is_over = false;
        let mut at = 0;
        while let Some(conn) = self.upstream.conns.get_mut(id) {
            at = at.max(conn.expired);
            let sent = conn.sent;
            let Some(slot) = conn.pipeline.get_mut(at) else {
                break;
            };
            let is_due = slot.queued_at <= queued_until;
            if slot.start() >= sent || !(is_due || conn.unsorted) {
                break;
            }
            if is_due {
                // Without the answer to AUTH or SELECT nothing else can ever be sent.
                is_over |= slot.is_ours();
                let origin = core::mem::replace(&mut slot.origin, Origin::Discarded);
                if at == conn.expired {
                    conn.expired += 1;
                }
                self.fail_one(server, origin, &reply);
            }
            at += 1;
        }
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return false;
        };
        // An attempt that began when its requests had been waiting elsewhere may outlive them.
        is_over |= conn.phase == ConnPhase::Connecting && conn.opened_at + timeout <= now;
        if conn.next_deadline(timeout).is_some_and(|due| due <= now) {
            let withdrawn = conn.withdraw(at, queued_until, &mut self.shared.chunks);
            wake_stalled(conn, &mut self.shared);
            for slot in withdrawn {
                is_over |= slot.is_ours();
                self.fail_one(server, slot.origin, &reply);
            }
        }
        let conn = self.upstream.conns.get_mut(id);
        let is_given_up =
            |conn: &mut ServerConn| conn.is_dead(timeout, now) || conn.expired > SLOTS_EXPIRED_MAX;
        is_over || conn.is_some_and(is_given_up)
    }

    /// Counts a time-out of the server that has had an expired request for long enough.
    fn blame(&mut self, id: ServerConnId, timeout: Span) {
        let Some(conn) = self.upstream.conns.get_mut(id) else {
            return;
        };
        if conn.blame_at(timeout).is_none_or(|at| at > self.shared.now) {
            return;
        }
        conn.blamed = true;
        conn.counters.server_timedout.add(1);
        let server = conn.server;
        let oldest_end = conn.pipeline.front().map_or(0, |slot| slot.end);
        let is_failure = conn.count_failure(oldest_end) && !conn.is_probe;
        self.shared.outbox.notice(Notice::ServerTimedOut(server));
        if is_failure {
            self.note_failure(server);
        }
    }

    /// Closes a client that has been idle for as long as its pool allows.
    fn check_idle(&mut self, id: ClientId) {
        let now = self.shared.now;
        let Some((pool, idle_since)) = self.clients.roster.idle_since(id) else {
            return;
        };
        let Some(limit) = self.pools[pool.index()].config.client_idle_timeout else {
            return;
        };
        let latest = Micros(now.0.saturating_sub(limit.0));
        if idle_since.is_some_and(|since| since <= latest) {
            self.close_client(id, ClientEnd::Idle);
            return;
        }
        // One that is busy or kept waiting is looked at again a whole limit later.
        let since = idle_since.unwrap_or(now);
        let at = (since + limit).max(now + Span(1));
        self.shared.deadlines.arm(at, Alarm::Client(id));
    }
}
