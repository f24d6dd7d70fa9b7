//! What both halves of the engine, clients and servers, write to.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::action::Outbox;
use super::deadlines::Deadlines;
use super::gather::Gather;
use super::memory::{Others, Waiter};
use crate::buf::ChunkPool;
use crate::counters::Counters;
use crate::limits::{CLIENT_OUTPUT_SOFT, MEMORY_LIMIT_SOFT_PERCENT};
use crate::time::Micros;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) now: Micros,
    pub(crate) outbox: Outbox,
    pub(crate) deadlines: Deadlines,
    pub(super) gather: Gather,
    pub(crate) chunks: ChunkPool,
    /// The alarm that gives back unneeded memory is armed.
    pub(crate) is_tidying: bool,
    /// The last time some queue had more room than it needed.
    pub(crate) is_bulky: bool,
    /// Bytes of queues that went to the allocator so far.
    pub(crate) released: u64,
    pub(crate) memory: Memory,
    pub(crate) counters: Arc<Counters>,
    /// Of the fragment's response just measured, see [`crate::proto::FragmentResponse::marks`].
    pub(crate) marks: Vec<usize>,
    /// Where a response is composed before it is copied to where it belongs; empty between uses.
    pub(crate) reply: Vec<u8>,
}

impl Shared {
    pub(crate) fn new(memory_limit: u64, counters: Arc<Counters>) -> Self {
        Self {
            now: Micros::default(),
            outbox: Outbox::default(),
            deadlines: Deadlines::default(),
            gather: Gather::default(),
            chunks: ChunkPool::default(),
            is_tidying: false,
            is_bulky: false,
            released: 0,
            memory: Memory::new(memory_limit),
            counters,
            marks: Vec::new(),
            reply: Vec::new(),
        }
    }
}

/// The bytes held, and the limits.
impl Shared {
    /// Bytes held, by all engines of the process.
    #[inline]
    const fn held(&self) -> u64 {
        self.chunks.held() + self.memory.others.held
    }

    /// Whether so much is held here that it may be what clients of other engines wait for.
    #[inline]
    pub(crate) const fn holds_much(&self) -> bool {
        self.chunks.held() > self.memory.hard / 16
    }

    /// Whether clients with many unread replies begin no request.
    #[inline]
    pub(crate) const fn is_pressed(&self) -> bool {
        self.held() > self.memory.hard / 2
    }

    /// Whether those clients may go on: with a margin, as in [`Self::has_recovered`].
    pub(crate) const fn has_eased(&self) -> bool {
        self.held() <= self.memory.hard / 16 * 7
    }

    /// How many unread bytes are many, under pressure: a sixteenth of the limit, and the less the nearer the
    /// soft limit is, so that the largest wait first.
    pub(crate) fn many_unread(&self) -> u64 {
        let (half, most) = (self.memory.hard / 2, self.memory.hard / 16);
        let step = self.memory.soft.saturating_sub(half) / 16 + 1;
        let steps = (self.held().saturating_sub(half) / step).min(16);
        (most / 16 * (16 - steps)).max(CLIENT_OUTPUT_SOFT)
    }

    #[inline]
    pub(crate) const fn is_short(&self) -> bool {
        self.held() > self.memory.soft
    }

    /// Bytes that may still come before it is short.
    #[inline]
    pub(crate) const fn left(&self) -> u64 {
        self.memory.soft.saturating_sub(self.held())
    }

    #[inline]
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.held() > self.memory.hard
    }

    /// Whether `len` bytes more fit into the limit.
    #[inline]
    pub(crate) const fn has_room_for(&self, len: u64) -> bool {
        self.held().saturating_add(len) <= self.memory.hard
    }

    /// Whether those who wait may go on: with a margin, so that they do not all stop again at once.
    pub(crate) const fn has_recovered(&self) -> bool {
        self.held() <= self.memory.soft / 8 * 7
    }
}

/// The bounds of what is held in all buffers, see [`crate::buf::Ledger`], and who waits for them.
///
/// Above the soft limit no client may *begin* a request; those in the middle of one go on, because
/// only complete requests can ever leave. What happens when the wait for the soft limit takes too long, and
/// at the hard limit, is in `memory`.
#[derive(Debug)]
pub(crate) struct Memory {
    soft: u64,
    hard: u64,
    /// There are other engines, and what they hold.
    pub(crate) is_shared: bool,
    pub(crate) others: Others,
    /// Clients that wait for the soft limit.
    pub(crate) waiting: Vec<Waiter>,
    /// Clients that wait because they have not read their replies.
    pub(crate) pressed: Vec<Waiter>,
    /// When holders were last closed for those who wait.
    pub(crate) closed_at: Micros,
    /// When the next look at those who wait is armed for.
    pub(crate) alarm_at: Option<Micros>,
}

impl Memory {
    const fn new(limit: u64) -> Self {
        // 0 is no limit, so that a configuration made by hand need not name one.
        let hard = if limit == 0 { u64::MAX } else { limit };
        Self {
            soft: hard / 100 * MEMORY_LIMIT_SOFT_PERCENT,
            hard,
            is_shared: false,
            others: Others { held: 0, due: None },
            waiting: Vec::new(),
            pressed: Vec::new(),
            closed_at: Micros(0),
            alarm_at: None,
        }
    }
}
