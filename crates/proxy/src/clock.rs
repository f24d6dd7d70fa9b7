//! The clock of the process: microseconds since its start, the same for all workers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use twemproxy_core::time::Micros;

/// Turns the operating system's monotonic clock into the engine's [`Micros`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// The moment now.
    pub(crate) fn now(self) -> Micros {
        Micros(micros(self.origin.elapsed()))
    }

    /// The wall clock at this clock's origin, in microseconds since 1970.
    pub(crate) fn wall_clock_origin(self) -> u64 {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        micros(since_1970).saturating_sub(self.now().0)
    }
}

/// How long to sleep at `now` so as to wake at `deadline`; `None` sleeps until something happens.
pub(crate) fn sleep_until(deadline: Option<Micros>, now: Micros) -> Option<Duration> {
    deadline.map(|deadline| Duration::from_micros(deadline.since(now).0))
}

/// Saturates after half a million years.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_in_the_past_does_not_sleep() {
        let sleep = sleep_until(Some(Micros(5)), Micros(9));
        assert_eq!(sleep, Some(Duration::ZERO));
        assert_eq!(
            sleep_until(Some(Micros(9)), Micros(5)),
            Some(Duration::from_micros(4))
        );
        assert_eq!(sleep_until(None, Micros(5)), None);
    }

    #[test]
    fn the_wall_clock_origin_lies_before_now() {
        let clock = Clock::start();
        let origin = clock.wall_clock_origin();
        let now = micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        assert!(origin <= now && now - origin < 60_000_000);
    }
}
