//! How long a server connection is waited for: the deadlines of its requests, and the end of the patience with it.

use super::server::{ConnPhase, ServerConn};
use super::slot::Origin;
use crate::canary::{Canary, is_planted};
use crate::time::{Micros, Span};

impl ServerConn {
    /// When this connection must be looked at, if nothing comes until then: the deadline of the
    /// oldest unexpired request, the end of the attempt to connect or, once a request has expired,
    /// when the server has had it for a whole time-out, and the end of the patience with it.
    pub(crate) fn next_alarm(&self, timeout: Span) -> Option<Micros> {
        let connecting = self.phase == ConnPhase::Connecting;
        let times = [
            connecting.then_some(self.opened_at + timeout),
            self.next_deadline(timeout),
            self.blame_at(timeout),
            self.silent_at(timeout),
            self.stuck_at(timeout),
        ];
        times.into_iter().flatten().min()
    }

    /// The earliest deadline of the requests that have not expired.
    pub(crate) fn next_deadline(&self, timeout: Span) -> Option<Micros> {
        let first = if self.unsorted {
            let waiting = self.pipeline.iter().skip(self.expired);
            waiting
                .filter(|slot| slot.origin != Origin::Discarded)
                .map(|slot| slot.queued_at)
                .min()?
        } else {
            self.pipeline.get(self.expired)?.queued_at
        };
        Some(first + timeout)
    }

    /// When the server has had an expired request for a whole time-out: what it waited for before,
    /// a connection or its turn to be written, is not the server's fault.
    pub(crate) fn blame_at(&self, timeout: Span) -> Option<Micros> {
        if self.expired == 0 || self.blamed || self.written == 0 {
            return None;
        }
        let front = self.pipeline.front()?;
        let write = self.writes.iter().find(|write| write.end >= front.end);
        Some(write.expect("a written slot was written").at + timeout)
    }

    /// When it counts as dead: it holds an expired request and no byte has come for one further
    /// time-out.
    pub(crate) fn silent_at(&self, timeout: Span) -> Option<Micros> {
        if self.expired == 0 {
            return None;
        }
        let oldest = self.pipeline.front()?.queued_at;
        if is_planted(Canary::SilenceMisjudged) {
            return Some(oldest + timeout + timeout);
        }
        Some((oldest + timeout + timeout).max(self.last_recv + timeout))
    }

    /// When it counts as dead although no request of it has a deadline, as `noreply` requests have
    /// none: for a whole time-out it has neither taken nor sent a byte, and bytes wait for it.
    pub(crate) fn stuck_at(&self, timeout: Span) -> Option<Micros> {
        Some(self.stuck_since?.max(self.last_recv) + timeout)
    }

    /// Whether it is to be given up.
    pub(crate) fn is_dead(&self, timeout: Span, now: Micros) -> bool {
        let times = [self.silent_at(timeout), self.stuck_at(timeout)];
        times.into_iter().flatten().any(|at| at <= now)
    }
}
