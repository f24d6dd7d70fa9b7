//! The unfinished frame of one connection.

use alloc::vec::Vec;
use core::mem;

use super::{ChunkPool, ChunkSize};
use crate::limits::{
    RECV_GROWTH_MAX, RECV_ROOM_MIN, SCRATCH_LEN, SCRATCH_TAIL_MAX, SEND_CHUNK_LEN,
    SEND_LARGE_CHUNK_LEN,
};
use crate::num::to_u64;

/// Bytes that were read but are not yet a whole frame.
///
/// While the frame is short, the next read goes to the worker's scratch buffer and the bytes kept
/// here are copied in front of it. A long frame grows here, in place.
///
/// Invariant: `filled <= bytes.len()`; what lies between is space lent to a read. Charged is the capacity
/// of `bytes`.
#[derive(Debug, Default)]
pub struct RecvBuf {
    bytes: Vec<u8>,
    filled: usize,
    /// Length of the frame, as far as it is known; 0 if it is not.
    need: usize,
}

impl RecvBuf {
    /// Bytes kept.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing is kept.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The bytes kept.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Whether the next read goes into [`Self::space`] instead of the scratch buffer.
    #[inline]
    #[must_use]
    pub const fn grows_in_place(&self) -> bool {
        self.filled > SCRATCH_TAIL_MAX
    }

    /// Whether less is here than the frame is known to need.
    #[inline]
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.filled < self.need
    }

    /// Bytes it is charged for.
    #[must_use]
    pub fn held(&self) -> u64 {
        to_u64(self.bytes.capacity())
    }

    /// Room for a read that continues a long frame: as much as the frame still needs, if that is known, but
    /// the buffer at most doubles what has really arrived, so that a header alone claims no memory.
    pub fn space(&mut self, pool: &mut ChunkPool) -> &mut [u8] {
        let (wanted, most) = match self.need.saturating_sub(self.filled) {
            0 => (self.filled.clamp(RECV_ROOM_MIN, SCRATCH_LEN), SCRATCH_LEN),
            known => (known, self.filled.min(RECV_GROWTH_MAX)),
        };
        // A little room is not enlarged at once: each enlargement may copy everything.
        if self.bytes.len() - self.filled < wanted.min(most / 2 + 1) {
            let before = self.bytes.capacity();
            let target = self.filled + wanted.min(most);
            if self.is_worth_a_chunk() {
                let mut chunk = pool.take(ChunkSize::Large);
                chunk.extend_from_slice(&self.bytes[..self.filled]);
                pool.give(mem::replace(&mut self.bytes, chunk));
            }
            self.bytes
                .reserve_exact(target.saturating_sub(self.bytes.len()));
            self.bytes.resize(target, 0);
            pool.ledger.change(before, self.bytes.capacity());
        }
        let room = wanted.min(self.bytes.len() - self.filled);
        &mut self.bytes[self.filled..self.filled + room]
    }

    /// Whether so much of a large frame, but not a huge one, is there that it goes to a chunk which holds it
    /// whole, so that it never moves again before it is sent.
    fn is_worth_a_chunk(&self) -> bool {
        (SEND_CHUNK_LEN..=SEND_LARGE_CHUNK_LEN).contains(&self.need)
            && self.filled <= SEND_LARGE_CHUNK_LEN
            && self.filled >= SEND_CHUNK_LEN.max(self.need / 4)
            && self.bytes.capacity() < self.need
    }

    /// `len` bytes of [`Self::space`] were filled.
    pub fn commit(&mut self, len: usize) {
        self.filled += len;
        assert!(
            self.filled <= self.bytes.len(),
            "a read cannot fill more than it was lent"
        );
    }

    /// Takes the bytes out, leaving nothing; they come back through [`Self::restore`].
    #[must_use]
    pub fn take(&mut self, pool: &mut ChunkPool) -> Vec<u8> {
        let mut bytes = mem::take(&mut self.bytes);
        pool.ledger.free(bytes.capacity());
        bytes.truncate(self.filled);
        self.filled = 0;
        self.need = 0;
        bytes
    }

    /// Puts back what [`Self::take`] gave, less its first `parsed` bytes.
    pub fn restore(&mut self, mut bytes: Vec<u8>, parsed: usize, pool: &mut ChunkPool) {
        if parsed == bytes.len() {
            pool.give(bytes);
            return;
        }
        if parsed > 0 {
            bytes.drain(..parsed);
            bytes.shrink_to(2 * bytes.len());
        }
        self.filled = bytes.len();
        pool.ledger.charge(bytes.capacity());
        self.bytes = bytes;
    }

    /// Keeps a copy of `rest`, the unparsed end of a read.
    pub fn save(&mut self, rest: &[u8], pool: &mut ChunkPool) {
        let before = self.bytes.capacity();
        self.filled = rest.len();
        if self.is_worth_a_chunk() {
            self.bytes = pool.take(ChunkSize::Large);
        }
        self.bytes.clear();
        self.bytes.reserve_exact(rest.len());
        self.bytes.extend_from_slice(rest);
        pool.ledger.change(before, self.bytes.capacity());
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        pool.ledger.free(self.bytes.capacity());
        *self = Self::default();
    }

    /// Notes how long the frame will be, or will be at least; 0 if that is not known.
    pub const fn expect(&mut self, need: usize) {
        self.need = need;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_alone_claims_no_memory() {
        let (mut buf, mut pool) = (RecvBuf::default(), ChunkPool::default());
        buf.expect(500_000_014);
        buf.save(b"$500000000\r\n", &mut pool);
        assert!(!buf.grows_in_place());
        assert!(pool.held() < 100);
        buf.save(&[b'x'; SCRATCH_TAIL_MAX + 1], &mut pool);
        assert!(buf.grows_in_place());
        for _ in 0..20 {
            let lent = buf.space(&mut pool).len();
            assert!(lent >= buf.len() / 2 && lent <= buf.len());
            assert!(pool.held() <= 2 * to_u64(buf.len()));
            buf.commit(lent / 3);
            assert_eq!(pool.held(), buf.held());
        }
        buf.clear(&mut pool);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn space_never_reaches_beyond_the_frame() {
        let (mut buf, mut pool) = (RecvBuf::default(), ChunkPool::default());
        buf.expect(SCRATCH_TAIL_MAX + 101);
        buf.save(&[7; SCRATCH_TAIL_MAX + 1], &mut pool);
        assert_eq!(buf.space(&mut pool).len(), 100);
    }

    #[test]
    fn a_frame_of_unknown_length_gets_room_for_as_much_again() {
        let (mut buf, mut pool) = (RecvBuf::default(), ChunkPool::default());
        buf.save(&[7; SCRATCH_TAIL_MAX + 1], &mut pool);
        buf.expect(0);
        let room = RECV_ROOM_MIN.max(SCRATCH_TAIL_MAX + 1);
        assert_eq!(buf.space(&mut pool).len(), room);
        for _ in 0..10 {
            let lent = buf.space(&mut pool).len();
            buf.commit(lent);
        }
        assert_eq!(buf.space(&mut pool).len(), SCRATCH_LEN);
    }

    #[test]
    fn restore_keeps_the_unparsed_rest() {
        let (mut buf, mut pool) = (RecvBuf::default(), ChunkPool::default());
        buf.save(b"abcdef", &mut pool);
        let bytes = buf.take(&mut pool);
        assert!(buf.is_empty() && pool.held() == 0);
        buf.restore(bytes, 4, &mut pool);
        assert_eq!(buf.filled(), b"ef");
        assert_eq!(pool.held(), buf.held());
        let bytes = buf.take(&mut pool);
        buf.restore(bytes, 2, &mut pool);
        assert!(buf.is_empty() && pool.held() == 0);
        assert!(!buf.grows_in_place());
    }
}
