//! Where clients are kept: each that works has a record of its own, each that rests a few words.
//!
//! Most clients of a busy proxy are idle at any moment, so what an idle one costs decides how much
//! memory many of them need. A client *rests* when nothing is owed to it, nothing it sent is
//! unfinished and no list names it; its record then goes to the next that wakes. Bytes wake it.
//!
//! Invariants: a client that a slot names works, or is gone; the records kept for reuse are blank, so
//! that nothing of one client is the next one's.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use super::client::{Client, Resting};
use super::pool::Pool;
use crate::ids::{ClientId, PoolIdx};
use crate::limits::{FREE_CLIENTS_MAX, FREE_CLIENTS_MIN};
use crate::num::to_u64;
use crate::slab::Slab;
use crate::time::Micros;

/// A client's place.
#[derive(Debug)]
pub(crate) enum Seat {
    Resting(Resting),
    Working(Box<Client>),
}

/// All clients of an engine. The look-ups find those that work; to the others nothing can happen but
/// that they send something, or go.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    seats: Slab<ClientId, Seat>,
    spare: SpareClients,
}

/// Blank records, for clients that wake.
#[derive(Debug, Default)]
struct SpareClients {
    #[allow(
        clippy::vec_box,
        reason = "a record moves between here and its client without being copied"
    )]
    free: Vec<Box<Client>>,
    /// The fewest there were since the last [`Roster::tidy`].
    least: usize,
    /// How many went to the allocator.
    released: u64,
}

impl SpareClients {
    #[inline]
    fn take(&mut self) -> Box<Client> {
        let client = self.free.pop();
        self.least = self.least.min(self.free.len());
        client.unwrap_or_else(|| Box::new(Client::blank()))
    }

    #[inline]
    fn give(&mut self, mut client: Box<Client>) {
        if self.free.len() < FREE_CLIENTS_MAX {
            client.forget_room();
            self.free.push(client);
        } else {
            self.released += 1;
        }
    }
}

impl Roster {
    /// A new client; it rests.
    pub(crate) fn insert(&mut self, client: Resting) -> ClientId {
        self.seats.insert_with(|_| Seat::Resting(client))
    }

    /// A client that works.
    #[inline]
    pub(crate) fn get(&self, id: ClientId) -> Option<&Client> {
        match self.seats.get(id)? {
            Seat::Working(client) => Some(client),
            Seat::Resting(_) => None,
        }
    }

    /// A client that works.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        match self.seats.get_mut(id)? {
            Seat::Working(client) => Some(client),
            Seat::Resting(_) => None,
        }
    }

    /// A client of which the caller has just seen that it works.
    #[inline]
    pub(crate) fn found(&self, id: ClientId) -> &Client {
        self.get(id).expect("the caller has just found it")
    }

    /// As [`Self::found`], to be changed.
    #[inline]
    pub(crate) fn found_mut(&mut self, id: ClientId) -> &mut Client {
        self.get_mut(id).expect("the caller has just found it")
    }

    /// A client, whatever it does.
    #[inline]
    pub(crate) fn seat_mut(&mut self, id: ClientId) -> Option<&mut Seat> {
        self.seats.get_mut(id)
    }

    /// Whether it is there.
    pub(crate) fn contains(&self, id: ClientId) -> bool {
        self.seats.get(id).is_some()
    }

    /// The pool of a client, and since when it is idle: `None` while it is owed something or waits.
    pub(crate) fn idle_since(&self, id: ClientId) -> Option<(PoolIdx, Option<Micros>)> {
        Some(match self.seats.get(id)? {
            Seat::Resting(client) => (client.pool, Some(client.last_active)),
            Seat::Working(client) => (client.pool, client.idle_since()),
        })
    }

    /// A client that works from now on.
    #[inline]
    pub(crate) fn wake(&mut self, id: ClientId, pools: &[Pool]) -> Option<&mut Client> {
        let seat = self.seats.get_mut(id)?;
        if matches!(seat, Seat::Resting(_)) {
            let record = Seat::Working(self.spare.take());
            if let Seat::Resting(resting) = mem::replace(seat, record)
                && let Seat::Working(client) = seat
            {
                let config = &pools[resting.pool.index()].config;
                client.wake(id, resting, config);
            }
        }
        match seat {
            Seat::Working(client) => Some(client),
            Seat::Resting(_) => unreachable!("it was just woken"),
        }
    }

    /// Takes its record from a client that has nothing to do any more.
    #[inline]
    pub(crate) fn rest(&mut self, id: ClientId) {
        if let Some(seat) = self.seats.get_mut(id)
            && let Seat::Working(client) = seat
            && client.may_rest()
        {
            let resting = Seat::Resting(client.rest());
            if let Seat::Working(record) = mem::replace(seat, resting) {
                self.spare.give(record);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Seat> {
        self.seats.remove(id)
    }

    /// Takes back the blank record of a client that is gone.
    pub(crate) fn give_back(&mut self, record: Box<Client>) {
        self.spare.give(record);
    }

    /// Those that work.
    pub(crate) fn working(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.seats.iter().filter_map(|(id, seat)| match seat {
            Seat::Working(client) => Some((id, &**client)),
            Seat::Resting(_) => None,
        })
    }

    /// Bytes held for those that rest.
    pub(crate) fn held_at_rest(&self) -> u64 {
        let resting = self.seats.iter().map(|(_, seat)| match seat {
            Seat::Working(_) => 0,
            Seat::Resting(client) => client.held(),
        });
        to_u64(resting.sum())
    }

    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }

    pub(crate) fn ids(&self) -> Vec<ClientId> {
        self.seats.ids()
    }

    /// Gives back the records that were not needed since the last call. The few that any traffic needs
    /// stay.
    pub(crate) fn tidy(&mut self) {
        let free = &mut self.spare.free;
        let unneeded = self.spare.least.saturating_sub(FREE_CLIENTS_MIN);
        // The first ones are those that lay longest.
        free.drain(..unneeded);
        free.shrink_to(2 * free.len());
        self.spare.least = free.len();
        self.spare.released += to_u64(unneeded);
    }

    /// Bytes of records that went to the allocator so far.
    #[inline]
    pub(crate) fn released(&self) -> u64 {
        self.spare.released * to_u64(size_of::<Client>())
    }

    /// Whether [`Self::tidy`] may have something to do, now or later.
    #[inline]
    pub(crate) fn is_untidy(&self) -> bool {
        self.spare.free.len() > FREE_CLIENTS_MIN
    }

    /// Panics if the roster contradicts itself.
    pub(crate) fn check_invariants(&self) {
        for (id, client) in self.working() {
            assert_eq!(id, client.id);
            client.check_invariants();
            assert!(!client.may_rest(), "who has nothing to do rests");
        }
        for record in &self.spare.free {
            record.check_invariants();
            assert!(record.is_blank(), "nothing is left of who had it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that an idle client may take in an engine: ten thousand of them half a megabyte.
    const RESTING_LEN_MAX: usize = 64;

    #[test]
    fn a_client_that_rests_takes_little_room() {
        let len = Slab::<ClientId, Seat>::PLACE_LEN;
        assert!(len <= RESTING_LEN_MAX, "{len}");
    }
}
