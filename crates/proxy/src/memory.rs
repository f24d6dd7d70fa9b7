//! The memory that the engines hold together, and how memory that they gave up goes back to the system.
//!
//! The allocator keeps what lies between pieces still in use. The steady state allocates nothing, so
//! a pass over its free lists disturbs nobody; it is made only after a burst has given enough back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use twemproxy_core::counters::Counters;
use twemproxy_core::engine::{Engine, Others};
use twemproxy_core::time::Micros;

use crate::limits::{TRIM_AFTER_LEN, TRIM_PERIOD};

/// Holdings of each engine, and when its clients will have waited long enough: `memory_limit` is
/// a limit of the process. Each worker writes its own numbers once per tick.
#[derive(Clone, Debug)]
pub(crate) struct Holdings {
    engines: Arc<[Holding]>,
    /// The place of this worker's.
    own: usize,
}

#[derive(Debug, Default)]
struct Holding {
    held: AtomicU64,
    /// 0 for none.
    due: AtomicU64,
}

impl Holdings {
    /// One for each of `count` workers.
    pub(crate) fn all(count: usize) -> Vec<Self> {
        let engines: Arc<[Holding]> = (0..count).map(|_| Holding::default()).collect();
        (0..count)
            .map(|own| Self {
                engines: Arc::clone(&engines),
                own,
            })
            .collect()
    }

    /// A tick begins: the engine learns what the others hold, if there are any.
    #[inline]
    pub(crate) fn read(&self, engine: &mut Engine, now: Micros) {
        if self.engines.len() > 1 {
            engine.note_others(self.others(), now);
        }
    }

    /// A tick has ended.
    #[inline]
    pub(crate) fn write(&self, engine: &Engine) {
        if self.engines.len() > 1 {
            let (own, due) = (&self.engines[self.own], engine.memory_due());
            own.held.store(engine.held(), Ordering::Relaxed);
            own.due.store(due.map_or(0, |at| at.0), Ordering::Relaxed);
        }
    }

    fn others(&self) -> Others {
        let mut others = Others::default();
        for (index, engine) in self.engines.iter().enumerate() {
            if index != self.own {
                others.held += engine.held.load(Ordering::Relaxed);
                let due = Some(engine.due.load(Ordering::Relaxed)).filter(|&at| at > 0);
                let earlier = others.due.map_or(u64::MAX, |at| at.0);
                others.due = due.map(|at| Micros(at.min(earlier))).or(others.due);
            }
        }
        others
    }
}

/// Watches the engines for the rest of the process' life.
pub(crate) fn run(engines: &[Arc<Counters>]) {
    let released = || {
        engines
            .iter()
            .map(|engine| engine.released.value())
            .sum::<u64>()
    };
    let mut trimmed_at = 0;
    loop {
        thread::park_timeout(TRIM_PERIOD);
        let now = released();
        if now - trimmed_at >= TRIM_AFTER_LEN {
            trimmed_at = now;
            trim();
        }
    }
}

/// Gives free pages of the allocator back, wherever they lie.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "the allocator has no safe interface for this")]
fn trim() {
    // SAFETY: malloc_trim has no preconditions, takes the allocator's own locks and touches free
    // memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do it by themselves.
#[cfg(not(target_env = "gnu"))]
const fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_sees_the_sum_of_the_others_and_who_waits_longest() {
        let holdings = Holdings::all(3);
        for (index, (held, due)) in [(5, 0), (70, 9), (900, 7)].into_iter().enumerate() {
            let own = &holdings[index].engines[index];
            own.held.store(held, Ordering::Relaxed);
            own.due.store(due, Ordering::Relaxed);
        }
        let seen = holdings.iter().map(Holdings::others);
        let seen: Vec<_> = seen.map(|others| (others.held, others.due)).collect();
        let at = |at| Some(Micros(at));
        assert_eq!(seen, [(970, at(7)), (905, at(7)), (75, at(9))]);
    }
}
