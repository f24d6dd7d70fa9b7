//! Generational slabs: an id of something that is gone misses instead of reaching its successor.

use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::canary::{Canary, is_planted};
use crate::ids::{GENERATION_MASK, Key};
use crate::num::{to_u32, to_usize};

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Values under generational ids. Freed places are reused last in, first out.
#[derive(Debug)]
pub(crate) struct Slab<K, T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    key: PhantomData<K>,
}

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            key: PhantomData,
        }
    }
}

impl<K: Key, T> Slab<K, T> {
    /// Bytes that each value takes.
    #[cfg(test)]
    pub(crate) const PLACE_LEN: usize = size_of::<Place<T>>();

    /// Stores what `make` builds for its own id.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(K) -> T) -> K {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                value: None,
            });
            to_u32(self.places.len() - 1)
        });
        let place = &mut self.places[to_usize(index)];
        let id = K::new(index, place.generation);
        place.value = Some(make(id));
        id
    }

    pub(crate) fn remove(&mut self, id: K) -> Option<T> {
        let place = self.places.get_mut(to_usize(id.index()))?;
        if place.generation != id.generation() {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(id.index());
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, id: K) -> Option<&T> {
        let place = self.places.get(to_usize(id.index()))?;
        if place.generation == id.generation() {
            place.value.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: K) -> Option<&mut T> {
        let place = self.places.get_mut(to_usize(id.index()))?;
        if place.generation == id.generation() || is_planted(Canary::GenerationIgnored) {
            place.value.as_mut()
        } else {
            None
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Everything stored, by place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let value = place.value.as_ref()?;
            Some((K::new(to_u32(index), place.generation), value))
        })
    }

    /// Everything stored, by place.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places
            .iter_mut()
            .filter_map(|place| place.value.as_mut())
    }

    /// The ids of everything stored, by place.
    pub(crate) fn ids(&self) -> Vec<K> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    #[test]
    fn a_stale_id_misses_its_successor() {
        let mut slab = Slab::<ClientId, &str>::default();
        let first = slab.insert_with(|_| "first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert_with(|_| "second");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
        assert_eq!(slab.len(), 1);
    }
}
