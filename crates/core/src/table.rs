//! Values under generational ids that somebody else gives out.
//!
//! The owner of the topology gives out the ids of servers (its slab is how); engines and the
//! shell keep what they know of a server in tables like this one. A stale id misses instead of reaching
//! the server that has its place now.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::{Index, IndexMut};

use crate::ids::Key;
use crate::num::{to_u32, to_usize};

#[derive(Clone, Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Table<K, T> {
    places: Vec<Place<T>>,
    key: PhantomData<K>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            key: PhantomData,
        }
    }
}

impl<K: Key, T> Table<K, T> {
    /// Stores the value of `id`. Returns what was stored in its place, under this id or another one.
    pub fn insert(&mut self, id: K, value: T) -> Option<T> {
        let index = to_usize(id.index());
        while self.places.len() <= index {
            self.places.push(Place {
                generation: 0,
                value: None,
            });
        }
        let place = &mut self.places[index];
        place.generation = id.generation();
        place.value.replace(value)
    }

    /// Takes out the value of `id`.
    pub fn remove(&mut self, id: K) -> Option<T> {
        let place = self.places.get_mut(to_usize(id.index()))?;
        if place.generation != id.generation() {
            return None;
        }
        place.value.take()
    }

    /// The value of `id`; `None` if it is gone or was never there.
    #[inline]
    #[must_use]
    pub fn get(&self, id: K) -> Option<&T> {
        let place = self.places.get(to_usize(id.index()))?;
        if place.generation == id.generation() {
            place.value.as_ref()
        } else {
            None
        }
    }

    /// Like [`Self::get`], to be changed.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, id: K) -> Option<&mut T> {
        let place = self.places.get_mut(to_usize(id.index()))?;
        if place.generation == id.generation() {
            place.value.as_mut()
        } else {
            None
        }
    }

    /// Everything stored, by place.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let value = place.value.as_ref()?;
            Some((K::new(to_u32(index), place.generation), value))
        })
    }

    /// The values, by place.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }
}

/// For ids of which the caller knows that they are in the table.
impl<K: Key, T> Index<K> for Table<K, T> {
    type Output = T;

    #[inline]
    fn index(&self, id: K) -> &T {
        self.get(id).expect("the id is in the table")
    }
}

impl<K: Key, T> IndexMut<K> for Table<K, T> {
    #[inline]
    fn index_mut(&mut self, id: K) -> &mut T {
        self.get_mut(id).expect("the id is in the table")
    }
}

impl<K: Key, T> FromIterator<(K, T)> for Table<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(values: I) -> Self {
        let mut table = Self::default();
        for (id, value) in values {
            table.insert(id, value);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServerId;

    #[test]
    fn a_stale_id_misses_its_successor() {
        let id = |index, generation| ServerId { index, generation };
        let mut table: Table<ServerId, &str> = [(id(2, 0), "first")].into_iter().collect();
        assert_eq!(table.get(id(0, 0)), None, "a place never used");
        assert_eq!(table.remove(id(2, 0)), Some("first"));
        assert_eq!(table.get(id(2, 0)), None);
        assert_eq!(table.insert(id(2, 1), "second"), None);
        assert_eq!(table.get(id(2, 0)), None);
        assert_eq!(table.get_mut(id(2, 0)), None);
        assert_eq!(table.remove(id(2, 0)), None);
        assert_eq!(table[id(2, 1)], "second");
        assert!(table.iter().eq([(id(2, 1), &"second")]));
    }
}
