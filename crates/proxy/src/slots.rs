//! A table addressed by the engine's connection ids.
//!
//! The engine hands out (index, generation) pairs from slabs of its own; the shell only mirrors
//! them. A look-up with a stale generation misses.

/// Values by (index, generation).
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Option<Slot<T>>>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: T,
}

impl<T> Slots<T> {
    /// No value at all.
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// Puts `value` at `index`, in place of what an older generation left there.
    pub(crate) fn insert(&mut self, index: u32, generation: u32, value: T) {
        let index = to_usize(index);
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Slot { generation, value });
    }

    /// The value, if the id is not stale.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        match self.slots.get_mut(to_usize(index)) {
            Some(Some(slot)) if slot.generation == generation => Some(&mut slot.value),
            _ => None,
        }
    }

    /// Takes the value out, if the id is not stale.
    pub(crate) fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        let slot = self.slots.get_mut(to_usize(index))?;
        if slot.as_ref()?.generation != generation {
            return None;
        }
        slot.take().map(|slot| slot.value)
    }
}

#[allow(
    clippy::as_conversions,
    reason = "widening: usize has 64 bits, asserted in net/poller.rs"
)]
const fn to_usize(index: u32) -> usize {
    index as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_generation_misses() {
        let mut slots = Slots::new();
        slots.insert(3, 7, 'a');
        assert_eq!(slots.get_mut(3, 7), Some(&mut 'a'));
        assert_eq!(slots.get_mut(3, 6), None);
        assert_eq!(slots.get_mut(2, 7), None);
        assert_eq!(slots.get_mut(4, 7), None);

        slots.insert(3, 8, 'b');
        assert_eq!(slots.remove(3, 7), None);
        assert_eq!(slots.remove(3, 8), Some('b'));
        assert_eq!(slots.remove(3, 8), None);
    }
}
