//! How long a worker lets events gather before it looks at them again.
//!
//! A proxy that is quicker than what it connects makes work for others: each request that it passes on
//! alone wakes a server, each byte that finds it asleep makes the sender wake it. Where servers take their
//! time anyway, a pause much shorter than that costs nobody anything that counts, and what came meanwhile
//! is one wake-up, one tick and one write per server.
//!
//! So ticks begin at least a small share of a response time apart, and only
//! - of what responses *do* take at the moment: quick servers are never waited for;
//! - while the worker has time to spare: one that is busy finds enough gathered each time it looks;
//! - when it would otherwise sleep: the shell looks once more before it lets anything gather.
//!
//! Nothing that is ready to be sent waits: a tick ends with everything flushed. A request or response
//! alone, with no tick just before it, is dealt with at once.

use crate::limits::{GATHER_BUSY_MAX, GATHER_BUSY_MIN, GATHER_MAX, GATHER_MIN, GATHER_SHARE};
use crate::time::{Micros, Span};

/// Means are taken over at least this long.
const WINDOW: Span = Span::from_millis(1);

/// What has been seen of ticks and responses, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Least time from the beginning of a tick to that of the next.
    distance: Span,
    /// When the window began.
    began: Micros,
    /// Time that ticks took in it.
    busy: u64,
    /// Sum of the response times in it, and how many.
    waited: u64,
    responses: u64,
}

impl Gather {
    /// A response came `waited` after its request had been queued. One of each read is enough.
    #[inline]
    pub(super) const fn note_response(&mut self, waited: Span) {
        self.waited = self.waited.saturating_add(waited.0);
        self.responses += 1;
    }

    /// A tick that began at `began` has ended at `now`. Until when events may gather before the next.
    #[inline]
    pub(super) fn tick_ended(&mut self, began: Micros, now: Micros) -> Option<Micros> {
        self.busy += now.since(began).0;
        let window = now.since(self.began);
        if window >= WINDOW {
            self.distance = self.distance_after(window);
            *self = Self {
                distance: self.distance,
                began: now,
                ..Self::default()
            };
        }
        let until = began + self.distance;
        (until > now).then_some(until)
    }

    /// The distance that follows from a window of this length.
    fn distance_after(&self, window: Span) -> Span {
        let Some(response_time) = self.waited.checked_div(self.responses) else {
            return Span::ZERO;
        };
        let busy_percent =
            (self.busy.saturating_mul(100) / window.0).clamp(GATHER_BUSY_MIN, GATHER_BUSY_MAX);
        let spare = GATHER_BUSY_MAX - busy_percent;
        let share = (response_time / GATHER_SHARE).min(GATHER_MAX.0);
        let distance = Span(share * spare / (GATHER_BUSY_MAX - GATHER_BUSY_MIN));
        if distance < GATHER_MIN {
            return Span::ZERO;
        }
        distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks of `busy` microseconds that begin `period` apart, each with a response that took `waited`,
    /// for ten windows; how far apart ticks are to be afterwards.
    fn distance(busy: u64, period: u64, waited: u64) -> u64 {
        let mut gather = Gather::default();
        let mut now = 1;
        while now < 10 * WINDOW.0 {
            gather.note_response(Span(waited));
            gather.tick_ended(Micros(now), Micros(now + busy));
            now += period;
        }
        gather.distance.0
    }

    #[test]
    fn ticks_keep_a_share_of_the_response_time_apart_within_bounds() {
        assert_eq!(distance(5, 20, 160), 160 / GATHER_SHARE);
        assert_eq!(distance(5, 20, 1_000_000), GATHER_MAX.0);
        assert_eq!(distance(5, 20, GATHER_MIN.0 * GATHER_SHARE - 1), 0);
    }

    #[test]
    fn a_busy_worker_lets_nothing_gather() {
        assert_eq!(distance(95, 100, 1_000), 0);
        let half = GATHER_BUSY_MIN.midpoint(GATHER_BUSY_MAX);
        assert_eq!(distance(half, 100, 1_000), GATHER_MAX.0 / 2);
        assert_eq!(distance(0, 100, 1_000), GATHER_MAX.0);
    }

    #[test]
    fn without_responses_nothing_is_waited_for() {
        let mut gather = Gather::default();
        for now in (1..5_000).step_by(10) {
            assert_eq!(gather.tick_ended(Micros(now), Micros(now + 1)), None);
        }
    }

    #[test]
    fn the_end_of_the_wait_counts_from_the_beginning_of_the_tick() {
        let mut gather = Gather {
            distance: Span(30),
            began: Micros(1000),
            ..Gather::default()
        };
        assert_eq!(
            gather.tick_ended(Micros(1100), Micros(1110)),
            Some(Micros(1130))
        );
        assert_eq!(gather.tick_ended(Micros(1200), Micros(1230)), None);
    }

    #[test]
    fn what_was_true_a_window_ago_is_forgotten() {
        let mut gather = Gather::default();
        gather.note_response(Span(800));
        gather.tick_ended(Micros(1), Micros(2000));
        gather.note_response(Span(8));
        gather.tick_ended(Micros(3_500), Micros(3_501));
        assert_eq!(gather.distance, Span::ZERO);
    }
}
