//! Requests that went to several servers in fragments.
//!
//! Completion is counted, never scanned: `missing` falls by one with each fragment's response.

use alloc::vec::Vec;
use core::mem;

use crate::buf::ChunkPool;
use crate::limits::{FREE_FRAGMENT_LEN_MAX, FREE_FRAGMENTS_MAX, FREE_SPLITS_MAX};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::{self, FragmentResponse, Merge, Run};

/// Names a split request while it is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SplitId(u32);

/// A fragment's place among the fragments of its request, in server index order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FragmentIdx(pub(crate) u16);

#[derive(Debug)]
struct Split {
    merge: Merge,
    missing: u32,
    /// Which fragment asked for which keys, in request order.
    runs: Vec<Run>,
    /// The first `fragment_count` are in use; the others keep their memory for later.
    fragments: Vec<FragmentResponse>,
    fragment_count: usize,
    /// Bytes of responses in `fragments`.
    len: usize,
    /// Bytes charged: those, and what says where they belong.
    held: usize,
    live: bool,
}

/// All split requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Splits {
    splits: Vec<Split>,
    free: Vec<u32>,
}

impl Splits {
    /// A split of fragments that ask for so many `keys` each; `runs` as in [`proto::merge`].
    pub(crate) fn open(
        &mut self,
        merge: Merge,
        runs: impl IntoIterator<Item = Run>,
        keys: impl ExactSizeIterator<Item = u32>,
        pool: &mut ChunkPool,
    ) -> SplitId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.splits.push(Split::empty());
            to_u32(self.splits.len() - 1)
        });
        let split = &mut self.splits[to_usize(index)];
        assert!(!split.live, "a free split is not in use");
        split.live = true;
        split.merge = merge;
        split.missing = to_u32(keys.len());
        split.len = 0;
        split.runs.clear();
        split.runs.extend(runs);
        split.fragment_count = keys.len();
        if split.fragments.len() < split.fragment_count {
            split
                .fragments
                .resize_with(split.fragment_count, FragmentResponse::default);
        }
        for (fragment, keys) in split.fragments.iter_mut().zip(keys) {
            fragment.bytes.clear();
            fragment.keys = keys;
            fragment.marks.clear();
            fragment.next = 0;
        }
        split.held =
            size_of_val(&*split.runs) + split.fragment_count * size_of::<FragmentResponse>();
        pool.ledger.charge(split.held);
        SplitId(index)
    }

    /// More of a fragment's response. Returns how many bytes of responses the split has now.
    pub(crate) fn extend(
        &mut self,
        id: SplitId,
        fragment: FragmentIdx,
        bytes: &[u8],
        pool: &mut ChunkPool,
    ) -> usize {
        let split = self.live_mut(id);
        split.fragments[usize::from(fragment.0)]
            .bytes
            .extend_from_slice(bytes);
        split.len += bytes.len();
        split.held += bytes.len();
        pool.ledger.charge(bytes.len());
        split.len
    }

    /// A whole response, or the rest of one; `marks` as in [`FragmentResponse`]. Returns how many bytes of
    /// responses the split has now.
    pub(crate) fn finish(
        &mut self,
        id: SplitId,
        fragment: FragmentIdx,
        (bytes, marks): (&[u8], &[usize]),
        pool: &mut ChunkPool,
    ) -> usize {
        let len = self.extend(id, fragment, bytes, pool);
        let split = self.live_mut(id);
        let fragment = &mut split.fragments[usize::from(fragment.0)];
        fragment.marks.extend_from_slice(marks);
        split.held += size_of_val(marks);
        pool.ledger.charge(size_of_val(marks));
        len
    }

    /// A fragment's response failed: what had come of it is replaced.
    pub(crate) fn replace(
        &mut self,
        id: SplitId,
        fragment: FragmentIdx,
        bytes: &[u8],
        pool: &mut ChunkPool,
    ) {
        let split = self.live_mut(id);
        let fragment = &mut split.fragments[usize::from(fragment.0)];
        let marks_len = size_of_val(&*fragment.marks);
        fragment.marks.clear();
        let held = &mut fragment.bytes;
        let replaced = held.len();
        split.len = split.len - replaced + bytes.len();
        split.held = split.held - replaced - marks_len + bytes.len();
        pool.ledger.change(replaced + marks_len, bytes.len());
        held.clear();
        held.extend_from_slice(bytes);
    }

    /// A fragment's response is complete. Returns whether all are.
    pub(crate) fn finish_fragment(&mut self, id: SplitId) -> bool {
        let split = self.live_mut(id);
        split.missing = split
            .missing
            .checked_sub(1)
            .expect("each fragment finishes once");
        split.missing == 0
    }

    /// Bytes of the responses of a split, which are about as many as those of the one that they become.
    pub(crate) fn len_of(&self, id: SplitId) -> u64 {
        to_u64(self.splits[to_usize(id.0)].len)
    }

    /// Appends the one response and frees the split.
    pub(crate) fn merge(&mut self, id: SplitId, out: &mut Vec<u8>, pool: &mut ChunkPool) {
        let split = self.live_mut(id);
        assert_eq!(split.missing, 0, "all fragments have answered");
        let fragments = &mut split.fragments[..split.fragment_count];
        proto::merge(split.merge, &split.runs, fragments, out);
        self.close(id, pool);
    }

    /// Frees a split, finished or not.
    pub(crate) fn close(&mut self, id: SplitId, pool: &mut ChunkPool) {
        let keep = self.free.len() < FREE_SPLITS_MAX;
        let split = self.live_mut(id);
        split.live = false;
        pool.ledger.free(mem::take(&mut split.held));
        if keep {
            split.shrink();
        } else {
            *split = Split::empty();
        }
        self.free.push(id.0);
    }

    /// Bytes held by all splits in flight.
    pub(crate) fn held(&self) -> u64 {
        self.splits
            .iter()
            .filter(|split| split.live)
            .map(|split| to_u64(split.held))
            .sum()
    }

    /// Bytes held by one split in flight.
    pub(crate) fn held_by(&self, id: SplitId) -> u64 {
        to_u64(self.splits[to_usize(id.0)].held)
    }

    /// Bytes of memory that the splits in flight take.
    pub(crate) fn footprint(&self) -> u64 {
        let live = self.splits.iter().filter(|split| split.live);
        let footprint = |split: &Split| {
            let fragments = split.fragments.iter().map(|fragment| {
                fragment.bytes.capacity() + fragment.marks.capacity() * size_of::<usize>()
            });
            fragments.sum::<usize>()
                + split.fragments.capacity() * size_of::<FragmentResponse>()
                + split.runs.capacity() * size_of::<Run>()
        };
        to_u64(live.map(footprint).sum())
    }

    /// How many splits are in flight.
    pub(crate) fn len(&self) -> usize {
        self.splits.len() - self.free.len()
    }

    fn live_mut(&mut self, id: SplitId) -> &mut Split {
        let split = &mut self.splits[to_usize(id.0)];
        assert!(split.live, "a split is used only while it is open");
        split
    }
}

impl Split {
    const fn empty() -> Self {
        Self {
            merge: Merge::Array,
            missing: 0,
            runs: Vec::new(),
            fragments: Vec::new(),
            fragment_count: 0,
            len: 0,
            held: 0,
            live: false,
        }
    }

    fn shrink(&mut self) {
        self.fragments.truncate(FREE_FRAGMENTS_MAX);
        for fragment in &mut self.fragments {
            if fragment.bytes.capacity() > FREE_FRAGMENT_LEN_MAX {
                fragment.bytes = Vec::new();
            }
            if fragment.marks.capacity() > FREE_FRAGMENT_LEN_MAX / size_of::<usize>() {
                fragment.marks = Vec::new();
            }
        }
        if self.runs.capacity() > FREE_FRAGMENT_LEN_MAX / size_of::<Run>() {
            self.runs = Vec::new();
        }
    }
}
