//! Names of pools, servers and connections.
//!
//! Dense indexes ([`PoolIdx`], [`ServerIdx`]) are positions in tables that live as long as a
//! configuration. Connection ids carry a generation, so that an event for a connection that is
//! gone misses instead of reaching its successor.

use crate::num::to_usize;

/// Position of a pool in [`crate::config::Config::pools`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolIdx(pub u32);

/// A server, counted over all pools of the process: the servers of the first pool come first, each
/// pool's in the order of its table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerIdx(pub u32);

impl PoolIdx {
    /// The index as memory wants it.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        to_usize(self.0)
    }
}

impl ServerIdx {
    /// The index as memory wants it.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        to_usize(self.0)
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
