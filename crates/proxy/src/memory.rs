//! Memory that the engines gave up goes back to the system.
//!
//! The allocator keeps what lies between pieces still in use. The steady state allocates nothing, so
//! a pass over its free lists disturbs nobody; it is made only after a burst has given enough back.

use std::sync::Arc;
use std::thread;

use twemproxy_core::counters::Counters;

use crate::limits::{TRIM_AFTER_LEN, TRIM_PERIOD};

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
