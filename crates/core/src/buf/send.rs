//! Bytes on their way to one peer.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use super::{ChunkPool, ChunkSize};
use crate::limits::{FREE_SEGMENTS_MAX, SEND_CHUNK_LEN, SEND_MOVE_MIN, SEND_SMALL_CHUNK_LEN};
use crate::num::to_u64;

/// The bytes of a buffer from its beginning to an end that need not be the buffer's: a whole read is
/// passed on in the block it was read into, without a copy.
#[derive(Debug, Default)]
pub struct Segment {
    bytes: Vec<u8>,
    /// How many of the first bytes were sent.
    start: usize,
    /// How many of the last bytes are nobody's.
    spare: usize,
    /// Bytes of the buffer that were charged beside its bytes when it was moved to a queue.
    slack: usize,
}

impl Segment {
    /// The first `len` bytes of `block`; the others stay behind, so that it is a block again when they
    /// have been sent.
    #[must_use]
    pub fn of_block(block: Vec<u8>, len: usize) -> Self {
        assert!(
            block.len() == block.capacity(),
            "what is appended to a segment must not land behind its spare bytes"
        );
        let spare = block.len() - len;
        Self {
            bytes: block,
            start: 0,
            spare,
            slack: 0,
        }
    }

    /// The bytes that are not yet sent.
    #[inline]
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..self.bytes.len() - self.spare]
    }

    /// Its bytes, sent or not.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.spare
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole buffer.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Room behind the bytes.
    #[inline]
    const fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Takes back the last `len` unsent bytes.
    fn cut_end(&mut self, len: usize) {
        if self.spare == 0 {
            self.bytes.truncate(self.bytes.len() - len);
        } else {
            self.spare += len;
        }
    }
}

impl From<Vec<u8>> for Segment {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            start: 0,
            spare: 0,
            slack: 0,
        }
    }
}

/// A queue of bytes in segments. Small messages are copied together into chunks, large buffers are
/// moved in whole. Bytes never move before they are committed.
///
/// Invariants: only the first segment has bytes that were sent; `len` is the sum of all unsent bytes;
/// every segment has some, and if the first has none there is no other. Charged are `len` and every
/// segment's slack.
#[derive(Debug, Default)]
pub struct SendQueue {
    first: Segment,
    rest: VecDeque<Segment>,
    len: u64,
}

impl SendQueue {
    /// Bytes waiting.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing waits.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `bytes` to the end.
    #[inline]
    pub fn append(&mut self, bytes: &[u8], pool: &mut ChunkPool) {
        self.len += to_u64(bytes.len());
        pool.ledger.charge(bytes.len());
        let last = if self.rest.is_empty() {
            &mut self.first
        } else {
            self.rest.back_mut().expect("just seen")
        };
        if last.room() >= bytes.len() {
            last.bytes.extend_from_slice(bytes);
        } else {
            self.append_more(bytes, pool);
        }
    }

    /// The part of [`Self::append`] that needs another segment.
    #[inline(never)]
    fn append_more(&mut self, bytes: &[u8], pool: &mut ChunkPool) {
        let last = self.rest.back_mut().unwrap_or(&mut self.first);
        let (fits, mut bytes) = bytes.split_at(last.room());
        last.bytes.extend_from_slice(fits);
        while !bytes.is_empty() {
            let size = if bytes.len() > SEND_CHUNK_LEN {
                ChunkSize::Large
            } else if self.first.bytes.is_empty() && bytes.len() <= SEND_SMALL_CHUNK_LEN {
                ChunkSize::Small
            } else {
                ChunkSize::Medium
            };
            let mut chunk = pool.take(size);
            let (now, later) = bytes.split_at(bytes.len().min(chunk.capacity()));
            chunk.extend_from_slice(now);
            self.push_segment(chunk.into());
            bytes = later;
        }
    }

    /// Appends a segment, by moving it if it is large.
    pub fn push(&mut self, segment: impl Into<Segment>, pool: &mut ChunkPool) {
        let mut segment = segment.into();
        if segment.unsent().len() < SEND_MOVE_MIN {
            self.append(segment.unsent(), pool);
            pool.give(segment.bytes);
        } else {
            let len = segment.unsent().len();
            segment.slack = segment.bytes.capacity() - len;
            pool.ledger.charge(len + segment.slack);
            self.len += to_u64(len);
            self.push_segment(segment);
        }
    }

    fn push_segment(&mut self, segment: Segment) {
        if self.first.bytes.is_empty() {
            // An empty first segment may still own memory only if it never held anything.
            self.first = segment;
        } else {
            self.rest.push_back(segment);
        }
    }

    /// Fills `out` with the first at most `limit` unsent bytes, in order; returns how many slices.
    #[inline]
    pub fn slices<'a>(&'a self, limit: u64, out: &mut [&'a [u8]]) -> usize {
        let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut count = 0;
        for segment in core::iter::once(&self.first).chain(&self.rest) {
            let unsent = segment.unsent();
            if unsent.is_empty() || left == 0 || count == out.len() {
                break;
            }
            let shown = &unsent[..unsent.len().min(left)];
            left -= shown.len();
            out[count] = shown;
            count += 1;
        }
        count
    }

    /// The first `len` bytes were sent.
    pub fn commit(&mut self, len: usize, pool: &mut ChunkPool) {
        self.commit_with(len, pool, |segment, pool| pool.give(segment.bytes));
    }

    /// The first `len` bytes were sent; `done` gets each segment of which all bytes were.
    pub fn commit_with(
        &mut self,
        len: usize,
        pool: &mut ChunkPool,
        mut done: impl FnMut(Segment, &mut ChunkPool),
    ) {
        self.len = self
            .len
            .checked_sub(to_u64(len))
            .expect("no more is sent than was queued");
        pool.ledger.free(len);
        let mut left = len;
        loop {
            let unsent = self.first.unsent().len();
            if left < unsent {
                self.first.start += left;
                return;
            }
            left -= unsent;
            let next = self.rest.pop_front().unwrap_or_default();
            let segment = mem::replace(&mut self.first, next);
            pool.ledger.free(segment.slack);
            done(segment, pool);
            if self.first.bytes.is_empty() {
                return;
            }
        }
    }

    /// Bytes just before the unsent ones that were sent and are still here.
    #[must_use]
    pub fn sent_prefix(&self) -> &[u8] {
        &self.first.bytes[..self.first.start]
    }

    /// Takes back the last `len` bytes.
    pub fn cut_end(&mut self, len: u64, pool: &mut ChunkPool) {
        self.len = self
            .len
            .checked_sub(len)
            .expect("no more is taken back than is queued");
        pool.ledger.free_long(len);
        let mut left = usize::try_from(len).expect("queued bytes fit memory");
        while let Some(last) = self.rest.back_mut() {
            let unsent = last.unsent().len();
            if left < unsent {
                last.cut_end(left);
                return;
            }
            left -= unsent;
            let segment = self.rest.pop_back().expect("just seen");
            pool.ledger.free(segment.slack);
            pool.give(segment.bytes);
        }
        self.first.cut_end(left);
        if self.first.unsent().is_empty() {
            self.clear(pool);
        }
    }

    /// Everything unsent as one buffer, leaving the queue empty.
    #[must_use]
    pub fn take_all(&mut self, pool: &mut ChunkPool) -> Vec<u8> {
        let mut all = Vec::new();
        for segment in core::iter::once(&self.first).chain(&self.rest) {
            all.extend_from_slice(segment.unsent());
        }
        self.clear(pool);
        all
    }

    /// Gives back what an empty queue has of room for more segments than most need.
    #[inline]
    pub fn forget_room(&mut self) {
        if self.rest.capacity() > FREE_SEGMENTS_MAX {
            self.rest = VecDeque::new();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        let first = mem::take(&mut self.first);
        pool.ledger.free(first.slack);
        pool.give(first.bytes);
        for segment in self.rest.drain(..) {
            pool.ledger.free(segment.slack);
            pool.give(segment.bytes);
        }
        pool.ledger.free_long(mem::take(&mut self.len));
    }

    /// Bytes it is charged for.
    #[must_use]
    pub fn held(&self) -> u64 {
        let segments = core::iter::once(&self.first).chain(&self.rest);
        let slack: usize = segments.map(|segment| segment.slack).sum();
        self.len + to_u64(slack)
    }

    /// Bytes of memory its segments take.
    #[must_use]
    pub fn footprint(&self) -> u64 {
        let segments = core::iter::once(&self.first).chain(&self.rest);
        let len: usize = segments.map(|segment| segment.bytes.capacity()).sum();
        to_u64(len)
    }

    /// Panics if the queue contradicts itself.
    pub fn check_invariants(&self) {
        assert!(!self.first.bytes.is_empty() || self.rest.is_empty());
        let rest: usize = self
            .rest
            .iter()
            .map(|segment| {
                assert!(segment.start == 0 && !segment.unsent().is_empty());
                segment.unsent().len()
            })
            .sum();
        assert_eq!(self.len, to_u64(self.first.unsent().len() + rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SEND_LARGE_CHUNK_LEN;
    use alloc::vec;

    fn shown(queue: &SendQueue) -> Vec<u8> {
        let mut out = [&[][..]; 8];
        let count = queue.slices(u64::MAX, &mut out);
        out[..count].concat()
    }

    #[test]
    fn small_messages_share_a_chunk_and_leave_in_order() {
        let (mut queue, mut pool) = (SendQueue::default(), ChunkPool::default());
        queue.append(b"abc", &mut pool);
        queue.append(b"def", &mut pool);
        let mut out = [&[][..]; 8];
        assert_eq!(queue.slices(u64::MAX, &mut out), 1);
        queue.commit(4, &mut pool);
        queue.check_invariants();
        assert_eq!(shown(&queue), b"ef");
        queue.commit(2, &mut pool);
        queue.check_invariants();
        assert!(queue.is_empty());
        assert_eq!(pool.free(ChunkSize::Small).len(), 1);
    }

    #[test]
    fn any_mixture_of_sizes_and_commits_keeps_the_stream() {
        let (mut queue, mut pool) = (SendQueue::default(), ChunkPool::default());
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for step in 0..200_usize {
            let len = (step * 7919) % 40_000;
            let byte = u8::try_from(step % 251).unwrap();
            let message = vec![byte; len];
            expected.extend_from_slice(&message);
            if step % 3 == 0 {
                queue.push(message, &mut pool);
            } else {
                queue.append(&message, &mut pool);
            }
            queue.check_invariants();
            let all = shown(&queue);
            let take = all.len().min((step * 104_729) % 50_000);
            sent.extend_from_slice(&all[..take]);
            queue.commit(take, &mut pool);
            queue.check_invariants();
            assert_eq!(pool.held(), queue.held());
        }
        sent.extend_from_slice(&queue.take_all(&mut pool));
        queue.check_invariants();
        assert!(queue.is_empty() && pool.held() == 0);
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_block_is_sent_as_far_as_it_was_filled_and_is_a_block_again() {
        let (mut queue, mut pool) = (SendQueue::default(), ChunkPool::default());
        let mut filled = || {
            let mut block = pool.take_block();
            block[..SEND_MOVE_MIN].fill(7);
            block[SEND_MOVE_MIN..].fill(9);
            Segment::of_block(block, SEND_MOVE_MIN)
        };
        let (first, second) = (filled(), filled());
        queue.append(b"a", &mut pool);
        queue.push(first, &mut pool);
        queue.append(b"b", &mut pool);
        queue.push(second, &mut pool);
        queue.check_invariants();
        queue.cut_end(1, &mut pool);
        queue.check_invariants();
        let expected = [
            b"a".as_slice(),
            &[7; SEND_MOVE_MIN],
            b"b",
            &[7; SEND_MOVE_MIN - 1],
        ];
        assert_eq!(shown(&queue), expected.concat());
        queue.commit(4, &mut pool);
        assert_eq!(queue.sent_prefix(), [7; 3]);
        let mut lens = Vec::new();
        queue.commit_with(2 * SEND_MOVE_MIN - 3, &mut pool, |segment, pool| {
            lens.push(segment.len());
            pool.give(segment.into_bytes());
        });
        queue.check_invariants();
        assert_eq!(lens, [SEND_MOVE_MIN, 1, SEND_MOVE_MIN - 1]);
        assert!(queue.is_empty());
        let free = pool.free(ChunkSize::Large);
        assert!(free.len() == 2 && free.iter().all(|block| block.len() == SEND_LARGE_CHUNK_LEN));
        assert_eq!(pool.take(ChunkSize::Large).len(), 0);
    }

    #[test]
    fn what_is_taken_back_is_the_end() {
        let mut pool = ChunkPool::default();
        for cut in [0, 1, 99, 100, 101, 20_000, 20_099, 20_100] {
            let mut queue = SendQueue::default();
            queue.append(&[9; 3], &mut pool);
            queue.append(&[1; 100], &mut pool);
            queue.push(vec![2; 20_000], &mut pool);
            queue.commit(3, &mut pool);
            let before = queue.take_all(&mut pool);
            let mut queue = SendQueue::default();
            queue.append(&[9; 3], &mut pool);
            queue.append(&[1; 100], &mut pool);
            queue.push(vec![2; 20_000], &mut pool);
            queue.commit(3, &mut pool);
            queue.cut_end(cut, &mut pool);
            queue.check_invariants();
            let kept = before.len() - usize::try_from(cut).unwrap();
            assert_eq!(shown(&queue), &before[..kept]);
            queue.append(b"next", &mut pool);
            queue.check_invariants();
            assert_eq!(pool.held(), queue.held());
            queue.clear(&mut pool);
            assert_eq!(pool.held(), 0);
        }
    }

    #[test]
    fn slices_stop_at_the_limit() {
        let (mut queue, mut pool) = (SendQueue::default(), ChunkPool::default());
        queue.append(&[1; 10], &mut pool);
        queue.push(vec![2; SEND_MOVE_MIN], &mut pool);
        let mut out = [&[][..]; 8];
        assert_eq!(queue.slices(12, &mut out), 2);
        assert_eq!(out[1], [2, 2]);
        assert_eq!(queue.slices(10, &mut out), 1);
        assert_eq!(queue.slices(0, &mut out), 0);
    }
}
