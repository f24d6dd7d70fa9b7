//! One pool: its topology (which server owns a key) and its share of the statistics.

use alloc::sync::Arc;

use super::rng::Rng;
use crate::config::PoolConfig;
use crate::counters::PoolCounters;
use crate::ids::ServerId;
use crate::num::to_usize;
use crate::topology::{Distribution, HashKind, Topology, tag};

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    /// Its keys are hashed whole with the default function, as those of most pools are.
    hashes_plainly: bool,
    /// In force; replaced whole.
    pub(crate) topology: Arc<Topology>,
    pub(crate) counters: Arc<PoolCounters>,
}

impl Pool {
    pub(crate) fn new(
        config: PoolConfig,
        topology: Arc<Topology>,
        counters: Arc<PoolCounters>,
    ) -> Self {
        let mut pool = Self {
            config,
            hashes_plainly: false,
            topology: Arc::clone(&topology),
            counters,
        };
        pool.adopt(topology);
        pool
    }

    /// Places keys by `topology` from now on.
    pub(crate) fn adopt(&mut self, topology: Arc<Topology>) {
        self.hashes_plainly = topology.shards.len() > 1
            && self.config.distribution != Distribution::Random
            && self.config.hash_tag.is_none()
            && self.config.hash == HashKind::Fnv1a64;
        self.topology = topology;
    }

    /// How many positions there are to place keys on.
    #[inline]
    pub(crate) fn shard_count(&self) -> usize {
        self.topology.shards.len()
    }

    /// The server at a position.
    #[inline]
    pub(crate) fn server(&self, position: u32) -> ServerId {
        self.topology.shards[to_usize(position)].primary
    }

    /// The servers, by position.
    pub(crate) fn servers(&self) -> impl Iterator<Item = ServerId> {
        self.topology.shards.iter().map(|shard| shard.primary)
    }

    /// Position of the server that owns `key`; `None` if all are ejected.
    #[inline(always)]
    pub(crate) fn owner(&self, key: &[u8], rng: &mut Rng) -> Option<u32> {
        if self.hashes_plainly {
            self.topology.placement.pick(HashKind::fnv1a_64(key))
        } else {
            self.owner_any(key, rng)
        }
    }

    /// As [`Self::owner`], for any pool.
    #[inline(never)]
    fn owner_any(&self, key: &[u8], rng: &mut Rng) -> Option<u32> {
        self.pick(self.hash(key, rng))
    }

    /// What `key` is placed by.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &[u8], rng: &mut Rng) -> u32 {
        if self.topology.shards.len() == 1 {
            // compat: a pool with one server hashes nothing, and an ejected single server owns nothing.
            0
        } else if self.config.distribution == Distribution::Random {
            rng.next_u32()
        } else {
            let hashed = tag::hashed_part(key, self.config.hash_tag);
            self.config.hash.hash(hashed)
        }
    }

    /// What each of `keys` is placed by, in order. Many at once cost less than one by one: no key's hash waits
    /// for another's.
    #[inline(always)]
    pub(crate) fn hash_each<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        rng: &mut Rng,
        mut put: impl FnMut(u32),
    ) {
        if self.hashes_plainly {
            // The same, without looking at the configuration for each key.
            keys.for_each(|key| put(HashKind::fnv1a_64(key)));
        } else {
            keys.for_each(|key| put(self.hash(key, rng)));
        }
    }

    /// Position of the server that owns the keys of this hash; `None` if all are ejected.
    #[inline(always)]
    pub(crate) fn pick(&self, hash: u32) -> Option<u32> {
        self.topology.placement.pick(hash)
    }
}
