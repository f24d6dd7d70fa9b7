//! Memory for buffers, kept for reuse, and the count of what the buffers hold.

use alloc::vec;
use alloc::vec::Vec;

use super::Ledger;
use crate::limits::{
    FREE_CHUNKS_MAX, FREE_LARGE_CHUNKS_MAX, FREE_SMALL_CHUNKS_MAX, SEND_CHUNK_LEN,
    SEND_LARGE_CHUNK_LEN, SEND_SMALL_CHUNK_LEN,
};
use crate::num::to_u64;

/// Free memory for both kinds of buffers, kept for reuse: a bounded number of chunks of each
/// [`ChunkSize`].
#[derive(Debug, Default)]
pub struct ChunkPool {
    free: [Vec<Vec<u8>>; CLASSES.len()],
    /// The fewest that were free since the last [`Self::tidy`]: so many were not needed.
    least: [usize; CLASSES.len()],
    released: u64,
    /// Bytes of everything that is not free.
    pub(crate) ledger: Ledger,
}

/// The capacity of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkSize {
    /// [`SEND_SMALL_CHUNK_LEN`]
    Small,
    /// [`SEND_CHUNK_LEN`]
    Medium,
    /// [`SEND_LARGE_CHUNK_LEN`]
    Large,
}

/// Capacity, and how many free ones are kept, in the order of [`ChunkSize`].
const CLASSES: [(usize, usize); 3] = [
    (SEND_SMALL_CHUNK_LEN, FREE_SMALL_CHUNKS_MAX),
    (SEND_CHUNK_LEN, FREE_CHUNKS_MAX),
    (SEND_LARGE_CHUNK_LEN, FREE_LARGE_CHUNKS_MAX),
];

/// Bytes of each class that stay free when nobody needs them.
const TIDY_LEN: usize = 64 * 1024;

impl ChunkSize {
    #[inline]
    const fn class(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Medium => 1,
            Self::Large => 2,
        }
    }
}

impl ChunkPool {
    /// An empty chunk.
    #[inline]
    #[must_use]
    pub fn take(&mut self, size: ChunkSize) -> Vec<u8> {
        let class = size.class();
        let new = || Vec::with_capacity(CLASSES[class].0);
        let mut chunk = self.pop(class).unwrap_or_else(new);
        chunk.clear();
        chunk
    }

    #[inline]
    fn pop(&mut self, class: usize) -> Option<Vec<u8>> {
        let chunk = self.free[class].pop();
        self.least[class] = self.least[class].min(self.free[class].len());
        chunk
    }

    /// A block to read into: as long as a large chunk is, all of it in place.
    #[must_use]
    pub fn take_block(&mut self) -> Vec<u8> {
        let Some(mut block) = self.pop(ChunkSize::Large.class()) else {
            return vec![0; SEND_LARGE_CHUNK_LEN];
        };
        // Nothing to do if it was one before.
        block.resize(SEND_LARGE_CHUNK_LEN, 0);
        block
    }

    /// Gives a chunk or block back; anything of another size goes to the allocator.
    #[inline]
    pub fn give(&mut self, chunk: Vec<u8>) {
        let capacity = chunk.capacity();
        let class = CLASSES.iter().position(|&(len, _)| len == capacity);
        let Some(class) = class else {
            self.released += to_u64(capacity);
            return;
        };
        if self.free[class].len() < CLASSES[class].1 {
            self.free[class].push(chunk);
        } else {
            self.released += to_u64(capacity);
        }
    }

    /// Gives back what was not needed since the last call, so that a burst does not cost memory for ever.
    /// The few kilobytes that any traffic needs stay.
    pub fn tidy(&mut self) {
        for (class, (len, _)) in CLASSES.iter().enumerate() {
            let free = &mut self.free[class];
            let unneeded = self.least[class].saturating_sub(TIDY_LEN / len);
            free.truncate(free.len() - unneeded);
            self.released += to_u64(unneeded * len);
            self.least[class] = free.len();
        }
    }

    /// Whether [`Self::tidy`] may have something to do, now or later.
    #[inline]
    #[must_use]
    pub fn is_untidy(&self) -> bool {
        let free = self.free.iter().zip(&CLASSES);
        free.into_iter()
            .any(|(free, (len, _))| free.len() > TIDY_LEN / len)
    }

    /// The chunks of one size that are free.
    #[cfg(test)]
    pub(super) fn free(&self, size: ChunkSize) -> &[Vec<u8>] {
        &self.free[size.class()]
    }

    /// Bytes that went to the allocator so far because enough were free.
    #[inline]
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// Bytes that queues and buffers hold.
    #[inline]
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.ledger.held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_were_not_needed_for_a_while_are_given_back() {
        let mut pool = ChunkPool::default();
        let class = ChunkSize::Medium.class();
        let all: Vec<_> = (0..10).map(|_| pool.take(ChunkSize::Medium)).collect();
        for chunk in all {
            pool.give(chunk);
        }
        // All were needed until now.
        pool.tidy();
        assert_eq!(pool.free[class].len(), 10);
        let busy: Vec<_> = (0..3).map(|_| pool.take(ChunkSize::Medium)).collect();
        for chunk in busy {
            pool.give(chunk);
        }
        assert!(pool.is_untidy());
        pool.tidy();
        assert_eq!(pool.free[class].len(), 3 + TIDY_LEN / SEND_CHUNK_LEN);
        pool.tidy();
        assert_eq!(pool.free[class].len(), TIDY_LEN / SEND_CHUNK_LEN);
        assert!(!pool.is_untidy());
        assert_eq!(pool.released(), to_u64(6 * SEND_CHUNK_LEN));
    }

    #[test]
    fn free_chunks_are_bounded() {
        let mut pool = ChunkPool::default();
        for size in [ChunkSize::Small, ChunkSize::Medium, ChunkSize::Large] {
            let max = CLASSES[size.class()].1;
            let chunks: Vec<_> = (0..max + 5).map(|_| pool.take(size)).collect();
            for chunk in chunks {
                pool.give(chunk);
            }
            assert_eq!(pool.free[size.class()].len(), max);
            assert_eq!(pool.released(), to_u64(5 * CLASSES[size.class()].0));
            pool.released = 0;
        }
    }
}
