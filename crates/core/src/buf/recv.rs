//! The unfinished frame of one connection.

use alloc::vec::Vec;
use core::mem;

use super::{ChunkPool, ChunkSize};
use crate::limits::{
    RECV_ROOM_MIN, SCRATCH_LEN, SCRATCH_TAIL_MAX, SEND_CHUNK_LEN, SEND_LARGE_CHUNK_LEN,
};

/// Bytes that were read but are not yet a whole frame.
///
/// While the frame is short, the next read goes to the worker's scratch buffer and the bytes kept
/// here are copied in front of it. A long frame grows here, in place.
///
/// Invariant: `filled <= bytes.len()`; what lies between is space lent to a read.
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
        self.filled > SCRATCH_TAIL_MAX || (self.filled > 0 && self.need > SCRATCH_LEN)
    }

    /// Room for a read that continues a long frame: as much as the frame still needs, if that is known,
    /// but never more than doubles what has really arrived, so that a header alone claims no memory.
    pub fn space(&mut self) -> &mut [u8] {
        let room = match self.need.saturating_sub(self.filled) {
            0 => self.filled.clamp(RECV_ROOM_MIN, SCRATCH_LEN),
            known => known.min(self.filled.max(SCRATCH_LEN)),
        };
        let target = self.filled + room;
        if self.bytes.len() < target {
            self.bytes.resize(target, 0);
        }
        &mut self.bytes[self.filled..target]
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
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.truncate(self.filled);
        self.filled = 0;
        self.need = 0;
        bytes
    }

    /// Puts back what [`Self::take`] gave, less its first `parsed` bytes.
    pub fn restore(&mut self, mut bytes: Vec<u8>, parsed: usize) {
        if parsed == bytes.len() {
            return;
        }
        if parsed > 0 {
            bytes.drain(..parsed);
            bytes.shrink_to(2 * bytes.len());
        }
        self.filled = bytes.len();
        self.bytes = bytes;
    }

    /// Keeps a copy of `rest`, the unparsed end of a read. If the frame will be large but not huge,
    /// it begins in a chunk that holds it whole, so that it never moves before it is sent.
    pub fn save(&mut self, rest: &[u8], pool: &mut ChunkPool) {
        let expects_large = (SEND_CHUNK_LEN..=SEND_LARGE_CHUNK_LEN).contains(&self.need)
            && rest.len() <= SEND_LARGE_CHUNK_LEN;
        if expects_large && self.bytes.capacity() < self.need {
            self.bytes = pool.take(ChunkSize::Large);
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(rest);
        self.filled = rest.len();
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
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
        let mut buf = RecvBuf::default();
        buf.save(b"$500000000\r\n", &mut ChunkPool::default());
        buf.expect(500_000_014);
        assert!(buf.grows_in_place());
        assert!(buf.space().len() <= SCRATCH_LEN);
        let lent = buf.space().len();
        buf.commit(lent);
        assert!(buf.space().len() <= buf.len());
    }

    #[test]
    fn space_never_reaches_beyond_the_frame() {
        let mut buf = RecvBuf::default();
        buf.save(&[7; 100], &mut ChunkPool::default());
        buf.expect(SCRATCH_LEN + 1);
        assert_eq!(buf.space().len(), SCRATCH_LEN + 1 - 100);
    }

    #[test]
    fn a_frame_of_unknown_length_gets_room_for_as_much_again() {
        let mut buf = RecvBuf::default();
        buf.save(&[7; SCRATCH_TAIL_MAX + 1], &mut ChunkPool::default());
        buf.expect(0);
        assert_eq!(buf.space().len(), RECV_ROOM_MIN.max(SCRATCH_TAIL_MAX + 1));
        for _ in 0..10 {
            let lent = buf.space().len();
            buf.commit(lent);
        }
        assert_eq!(buf.space().len(), SCRATCH_LEN);
    }

    #[test]
    fn restore_keeps_the_unparsed_rest() {
        let mut buf = RecvBuf::default();
        buf.save(b"abcdef", &mut ChunkPool::default());
        let bytes = buf.take();
        assert!(buf.is_empty());
        buf.restore(bytes, 4);
        assert_eq!(buf.filled(), b"ef");
        let bytes = buf.take();
        buf.restore(bytes, 2);
        assert!(buf.is_empty());
        assert!(!buf.grows_in_place());
    }
}
