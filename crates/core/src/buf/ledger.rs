//! The one count of the bytes that an engine holds for its clients and servers.
//!
//! A queue or buffer charges what it takes and frees what it gives up where it changes, so nobody else
//! adds or subtracts. All of them are changed with the [`super::ChunkPool`] at hand, and the count is in it.
//!
//! Charged are the bytes that wait in a send queue (and the unused rest of a buffer that was moved there),
//! what a receive buffer takes, what the order queue and split requests keep, one record for each request
//! in flight and each slot, and the names of clients. Free chunks and records kept for reuse are not: their
//! number is bounded in [`crate::limits`].

use crate::num::to_u64;

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    held: u64,
}

impl Ledger {
    /// Bytes held.
    #[inline]
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// `len` bytes more are held.
    #[inline]
    pub fn charge(&mut self, len: usize) {
        self.held += to_u64(len);
    }

    /// `len` bytes that were charged are given up.
    #[inline]
    pub fn free(&mut self, len: usize) {
        let len = to_u64(len);
        debug_assert!(len <= self.held, "only what was charged is given up");
        self.held -= len;
    }

    /// Something that took `before` bytes takes `after` now.
    #[inline]
    pub fn change(&mut self, before: usize, after: usize) {
        self.charge(after);
        self.free(before);
    }

    /// Like [`Self::free`], for a length counted in 64 bits.
    #[inline]
    pub fn free_long(&mut self, len: u64) {
        debug_assert!(len <= self.held, "only what was charged is given up");
        self.held -= len;
    }
}
