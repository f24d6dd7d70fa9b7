//! All randomness of one world.

use crate::rng::Rng;

/// A seeded source with the questions a world asks.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    rng: Rng,
}

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
        }
    }

    pub(super) const fn seed(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// `0..=max`.
    pub(super) fn upto(&mut self, max: usize) -> usize {
        self.rng.below(max + 1)
    }

    /// `0..=max`, as a length of time.
    pub(super) const fn micros(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0;
        }
        self.rng.next_u64() % (max + 1)
    }

    /// True in `per_mille` of 1000 cases. A chance of zero draws nothing.
    pub(super) fn chance(&mut self, per_mille: usize) -> bool {
        per_mille > 0 && self.rng.below(1000) < per_mille
    }

    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.rng.below(among.len())]
    }

    /// Swarm testing: a knob is off in half of all worlds, and anything up to `max` in the others.
    pub(super) fn knob(&mut self, max: usize) -> usize {
        if self.chance(500) {
            0
        } else {
            1 + self.rng.below(max)
        }
    }
}
