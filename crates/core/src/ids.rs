//! Names of pools, servers and connections.
//!
//! [`PoolIdx`] is a position in a table that lives as long as a configuration. The other ids carry a
//! generation, so that what is said of a server or a connection that is gone misses instead of reaching
//! its successor.

use crate::num::to_usize;

/// Position of a pool in [`crate::config::Config::pools`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolIdx(pub u32);

/// A server. The owner of the topology ([`crate::owner`]) gives ids out, the same for all engines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId {
    /// Its place in tables of servers.
    pub index: u32,
    /// How often the place was taken before; 31 bits are significant.
    pub generation: u32,
}

/// An id made of a place and the place's generation.
pub trait Key: Copy {
    /// The id of a place.
    fn new(index: u32, generation: u32) -> Self;
    /// The place.
    fn index(self) -> u32;
    /// How often the place was taken before.
    fn generation(self) -> u32;
}

macro_rules! key {
    ($id:ident) => {
        impl Key for $id {
            #[inline]
            fn new(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }
            #[inline]
            fn index(self) -> u32 {
                self.index
            }
            #[inline]
            fn generation(self) -> u32 {
                self.generation
            }
        }
    };
}

key!(ClientId);
key!(ServerConnId);
key!(ServerId);

impl PoolIdx {
    /// The index as memory wants it.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        to_usize(self.0)
    }
}

impl ServerId {
    /// The `nth` server of a configuration, counted over all pools: the first pool's come first, each
    /// pool's in the order of its table.
    #[inline]
    #[must_use]
    pub const fn initial(nth: u32) -> Self {
        Self {
            index: nth,
            generation: 0,
        }
    }
}

/// One accepted connection of a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId {
    /// Slot in the engine's roster of clients; the shell may use it for a slab of its own.
    pub index: u32,
    /// How often the slot was taken before; 31 bits are significant.
    pub generation: u32,
}

/// One connection to a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerConnId {
    /// Slot in the engine's server connection slab; the shell may use it for a slab of its own.
    pub index: u32,
    /// How often the slot was taken before; 31 bits are significant.
    pub generation: u32,
}

/// Either kind of connection: what a poller's token names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConnId {
    /// A client's connection.
    Client(ClientId),
    /// A connection to a server.
    Server(ServerConnId),
}

/// Generations wrap within these bits, so that kind, generation and index fit one 64-bit token.
pub const GENERATION_MASK: u32 = 0x7fff_ffff;

const SERVER_BIT: u64 = 1 << 63;

impl ConnId {
    /// Packs kind (1 bit), generation (31 bits) and index (32 bits).
    #[inline]
    #[must_use]
    pub fn token(self) -> u64 {
        match self {
            Self::Client(id) => pack(id.generation, id.index),
            Self::Server(id) => SERVER_BIT | pack(id.generation, id.index),
        }
    }

    /// The connection a token of [`Self::token`] names.
    #[inline]
    #[must_use]
    pub fn from_token(token: u64) -> Self {
        let generation = low32(token >> 32) & GENERATION_MASK;
        let index = low32(token);
        if token & SERVER_BIT == 0 {
            Self::Client(ClientId { index, generation })
        } else {
            Self::Server(ServerConnId { index, generation })
        }
    }
}

impl From<ClientId> for ConnId {
    fn from(id: ClientId) -> Self {
        Self::Client(id)
    }
}

impl From<ServerConnId> for ConnId {
    fn from(id: ServerConnId) -> Self {
        Self::Server(id)
    }
}

fn pack(generation: u32, index: u32) -> u64 {
    u64::from(generation & GENERATION_MASK) << 32 | u64::from(index)
}

#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the low half is meant"
)]
const fn low32(n: u64) -> u32 {
    n as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_at_the_edges() {
        for index in [0, 1, u32::MAX] {
            for generation in [0, 1, GENERATION_MASK] {
                let client = ConnId::Client(ClientId { index, generation });
                let server = ConnId::Server(ServerConnId { index, generation });
                assert_eq!(ConnId::from_token(client.token()), client);
                assert_eq!(ConnId::from_token(server.token()), server);
                assert_ne!(client.token(), server.token());
            }
        }
    }
}
