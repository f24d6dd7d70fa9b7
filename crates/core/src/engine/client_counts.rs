//! How many clients each pool has in the whole process.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::ids::PoolIdx;

/// Clients of each pool, over all engines that share it: `client_connections` is a limit of the
/// process. Touched when a client comes or goes, never by a request.
#[derive(Clone, Debug)]
pub struct ClientCounts(Arc<[AtomicU32]>);

impl ClientCounts {
    /// No client in any of `pool_count` pools.
    #[must_use]
    pub fn new(pool_count: usize) -> Self {
        let counts: Vec<_> = (0..pool_count).map(|_| AtomicU32::new(0)).collect();
        Self(counts.into())
    }

    /// Takes a place for one more client unless the pool has `limit` already; 0 is no limit.
    pub(crate) fn take(&self, pool: PoolIdx, limit: u32) -> bool {
        // In one step: a place taken and given back would be missed by a client of another engine.
        self.0[pool.index()]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (limit == 0 || count < limit).then(|| count.saturating_add(1))
            })
            .is_ok()
    }

    /// How many clients a pool has.
    pub(crate) fn get(&self, pool: PoolIdx) -> u32 {
        self.0[pool.index()].load(Ordering::Relaxed)
    }

    /// Gives a client's place back.
    pub(crate) fn give(&self, pool: PoolIdx) {
        let before = self.0[pool.index()].fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "each client gives back the place it took");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_over_all_who_share_it() {
        let (one, pool) = (ClientCounts::new(1), PoolIdx(0));
        let two = one.clone();
        assert!(one.take(pool, 2) && two.take(pool, 2));
        assert!(!one.take(pool, 2) && !two.take(pool, 2));
        one.give(pool);
        assert!(two.take(pool, 2));
        assert!(one.take(pool, 0));
    }
}
