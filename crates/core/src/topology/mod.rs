//! Which server owns a key, bit for bit as twemproxy 0.5 on x86-64 says.
//!
//! The part of the key that counts ([`tag`]) is hashed ([`hash`]), and a [`Placement`] built from the
//! live servers names the owner of the hash. Nothing here knows why a server is not live, and
//! nothing is ever changed in place: an ejection builds a new placement.
//!
//! Answers are part of the contract with users, whose data lies where the last release put it. The
//! golden answers of a real twemproxy (`tests/golden_ring.rs`) hold them; quirks are marked
//! `compat:`.

pub mod hash;
mod ketama;
mod modula;
mod placement;
mod random;
pub mod tag;

pub use hash::HashKind;
pub use placement::{Distribution, Placement, Point, RingServer};

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::{PoolIdx, ServerId};

/// A pool's servers and where its keys lie. The owner of the topology builds a new one for each change
/// and mails it to all engines; none is ever changed in place.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The pool.
    pub pool: PoolIdx,
    /// Grows with each change of the pool.
    pub version: u64,
    /// In the order of statistics; [`Placement::pick`] answers with a position in it.
    pub shards: Box<[Shard]>,
    /// Names the shard of each key.
    pub placement: Placement,
}

/// One position of the placement, and the server that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shard {
    /// The server that gets its requests.
    pub primary: ServerId,
    /// The name that places it on the ring and in the statistics.
    pub name: Arc<str>,
    /// Weight, at least 1.
    pub weight: u32,
    /// Whether its keys are served.
    pub state: ShardState,
}

/// Whether a shard's keys are served, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardState {
    /// By its server.
    Up,
    /// By the others, while its server is ejected.
    Rehashed,
    /// By nobody: its server is ejected and it keeps its keys, which get an answer at once.
    Down,
}

impl Topology {
    /// Places the keys of `pool` on the shards that keep theirs.
    #[must_use]
    pub fn build(
        pool: PoolIdx,
        version: u64,
        shards: Vec<Shard>,
        distribution: Distribution,
    ) -> Self {
        let servers: Vec<_> = shards
            .iter()
            .map(|shard| RingServer {
                name: &shard.name,
                weight: shard.weight,
                live: shard.state != ShardState::Rehashed,
            })
            .collect();
        let placement = Placement::build(distribution, &servers);
        Self {
            pool,
            version,
            placement,
            shards: shards.into(),
        }
    }
}
