//! One direction of one connection: bytes on their way, in order, each with its time of arrival.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Pipe {
    bytes: Vec<u8>,
    /// Bytes ever written.
    written: u64,
    /// Bytes ever read.
    taken: u64,
    /// How many of `bytes` have been read.
    start: usize,
    /// Lengths of what is under way, with the time at which it arrives.
    segments: VecDeque<(u64, usize)>,
    /// Bytes the reader may read now.
    arrived: usize,
    capacity: usize,
    /// Nothing arrives before.
    stalled_until: u64,
    last_arrival: u64,
    /// When the reader learns that no more will come.
    fin_at: Option<u64>,
}

impl Pipe {
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            taken: 0,
            start: 0,
            segments: VecDeque::new(),
            arrived: 0,
            capacity,
            stalled_until: 0,
            last_arrival: 0,
            fin_at: None,
        }
    }

    /// Bytes ever written.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Bytes ever read.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// How many bytes fit.
    pub(super) const fn room(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len() - self.start)
    }

    /// Whether all that was written has been read.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.len() == self.start
    }

    /// Writes bytes that would arrive at `at`; returns when they do.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64) -> u64 {
        let at = self.arrival(at);
        if self.start > 0 && self.start * 2 > self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.written += u64::try_from(bytes.len()).expect("a length");
        match self.segments.back_mut() {
            Some((last, len)) if *last == at => *len += bytes.len(),
            _ => self.segments.push_back((at, bytes.len())),
        }
        at
    }

    /// Ends the stream; returns when the reader learns of it.
    pub(super) fn finish(&mut self, at: u64) -> u64 {
        let at = self.arrival(at);
        self.fin_at.get_or_insert(at);
        at
    }

    fn arrival(&mut self, at: u64) -> u64 {
        self.last_arrival = self.last_arrival.max(at).max(self.stalled_until);
        self.last_arrival
    }

    /// From now on nothing arrives before `until`, not even what is under way.
    pub(super) fn stall(&mut self, until: u64) {
        self.stalled_until = until;
        self.last_arrival = self.last_arrival.max(until);
        for (at, _) in &mut self.segments {
            *at = (*at).max(until);
        }
        if let Some(at) = &mut self.fin_at {
            *at = (*at).max(until);
        }
    }

    /// The stall is over: everything arrives at once.
    pub(super) fn unstall(&mut self, now: u64) {
        self.stalled_until = 0;
        self.last_arrival = now;
        for (at, _) in &mut self.segments {
            *at = (*at).min(now);
        }
        if let Some(at) = &mut self.fin_at {
            *at = (*at).min(now);
        }
    }

    /// What may be read now.
    pub(super) fn readable(&mut self, now: u64) -> &[u8] {
        while let Some(&(at, len)) = self.segments.front() {
            if at > now {
                break;
            }
            self.arrived += len;
            self.segments.pop_front();
        }
        &self.bytes[self.start..self.start + self.arrived]
    }

    /// The reader took `len` bytes.
    pub(super) fn took(&mut self, len: usize) {
        assert!(len <= self.arrived, "only what has arrived is read");
        self.arrived -= len;
        self.start += len;
        self.taken += u64::try_from(len).expect("a length");
    }

    /// Whether the reader has read everything and learns now that no more will come.
    pub(super) fn is_finished(&self, now: u64) -> bool {
        self.is_empty() && self.fin_at.is_some_and(|at| at <= now)
    }
}
