//! What was sent on a server connection and may have to be sent once more.
//!
//! The chunks of a send queue stay here when the kernel has taken them, until every request of the
//! connection is answered: nothing is copied, and a request costs nothing. What does not fit is
//! forgotten, oldest first, and can then not be sent again.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::buf::ChunkPool;
use crate::limits::{KEPT_CHUNKS_MAX, SEND_CHUNK_LEN};
use crate::num::to_u64;

/// Sent chunks with the offset one past each one's last byte, in the order sent.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    chunks: VecDeque<(u64, Vec<u8>)>,
}

impl Kept {
    /// Keeps a chunk whose last byte is at `end - 1`. A large buffer is not worth it: it holds a
    /// value, and a request with a value is no reading one.
    pub(crate) fn push(&mut self, end: u64, chunk: Vec<u8>, pool: &mut ChunkPool) {
        if chunk.capacity() > SEND_CHUNK_LEN {
            pool.give(chunk);
            return;
        }
        if self.chunks.len() == KEPT_CHUNKS_MAX
            && let Some((_, oldest)) = self.chunks.pop_front()
        {
            pool.give(oldest);
        }
        self.chunks.push_back((end, chunk));
    }

    /// Nothing is outstanding any more.
    #[inline]
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        while let Some((_, chunk)) = self.chunks.pop_back() {
            pool.give(chunk);
        }
    }

    /// The bytes kept that lie without a gap before `end`.
    pub(crate) fn before(&self, end: u64) -> Vec<u8> {
        let mut from = end;
        let joined = self.chunks.iter().rev().take_while(|(end, chunk)| {
            let is_next = *end == from;
            from = end.saturating_sub(to_u64(chunk.len()));
            is_next
        });
        let count = joined.count();
        let mut bytes = Vec::new();
        for (_, chunk) in self.chunks.iter().skip(self.chunks.len() - count) {
            bytes.extend_from_slice(chunk);
        }
        bytes
    }

    /// Bytes of memory its chunks take.
    pub(crate) fn footprint(&self) -> u64 {
        to_u64(self.chunks.iter().map(|(_, chunk)| chunk.capacity()).sum())
    }

    /// Panics if more is kept than may be.
    pub(crate) fn check_invariants(&self) {
        assert!(self.chunks.len() <= KEPT_CHUNKS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::ChunkSize;

    #[test]
    fn what_lies_behind_a_gap_or_beyond_the_limit_is_forgotten() {
        let (mut kept, mut pool) = (Kept::default(), ChunkPool::default());
        let mut push = |kept: &mut Kept, end: u64, text: &[u8]| {
            let mut chunk = pool.take(ChunkSize::Small);
            chunk.extend_from_slice(text);
            kept.push(end, chunk, &mut pool);
        };
        push(&mut kept, 3, b"abc");
        push(&mut kept, 10, b"hij");
        push(&mut kept, 12, b"kl");
        assert_eq!(kept.before(12), b"hijkl");
        assert_eq!(kept.before(13), b"");
        push(&mut kept, 13, b"m");
        push(&mut kept, 14, b"n");
        push(&mut kept, 15, b"o");
        assert_eq!(kept.before(15), b"klmno");
        kept.check_invariants();
        kept.clear(&mut pool);
        assert_eq!(kept.before(15), b"");
    }
}
