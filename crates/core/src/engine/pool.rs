//! One pool: its topology (which server owns a key) and its share of the statistics.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::rng::Rng;
use super::server::Server;
use crate::config::PoolConfig;
use crate::counters::PoolCounters;
use crate::ids::ServerIdx;
use crate::num::{to_u32, to_usize};
use crate::topology::{Distribution, HashKind, Placement, RingServer, tag};

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    /// Its servers are `first_server ..` in index order.
    pub(crate) first_server: u32,
    /// Its keys are hashed whole with the default function, as those of most pools are.
    hashes_plainly: bool,
    /// Replaced whole when a server is ejected or restored.
    ring: Placement,
    /// Of the topology in force; 0 is the configuration's.
    pub(crate) topology_version: u64,
    pub(crate) counters: Arc<PoolCounters>,
}

impl Pool {
    pub(crate) fn new(config: PoolConfig, first_server: u32, counters: Arc<PoolCounters>) -> Self {
        let ring = build(&config, |_| true);
        let hashes_plainly = config.servers.len() > 1
            && config.distribution != Distribution::Random
            && config.hash_tag.is_none()
            && config.hash == HashKind::Fnv1a64;
        Self {
            config,
            first_server,
            hashes_plainly,
            ring,
            topology_version: 0,
            counters,
        }
    }

    pub(crate) fn server_count(&self) -> u32 {
        to_u32(self.config.servers.len())
    }

    pub(crate) fn server(&self, position: u32) -> ServerIdx {
        ServerIdx(self.first_server + position)
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = ServerIdx> + use<> {
        (self.first_server..self.first_server + self.server_count()).map(ServerIdx)
    }

    /// Position of the server that owns `key`; `None` if all are ejected.
    #[inline(always)]
    pub(crate) fn owner(&self, key: &[u8], rng: &mut Rng) -> Option<u32> {
        if self.hashes_plainly {
            self.ring.pick(HashKind::fnv1a_64(key))
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
        if self.config.servers.len() == 1 {
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
        self.ring.pick(hash)
    }

    /// Builds the ring anew over the servers that may get requests; `all` are the engine's servers.
    pub(crate) fn rebuild(&mut self, all: &[Server]) {
        let mine = &all[to_usize(self.first_server)..];
        self.ring = build(&self.config, |position| {
            let server = &mine[position];
            !server.health.is_ejected || server.is_down
        });
    }
}

fn build(config: &PoolConfig, is_live: impl Fn(usize) -> bool) -> Placement {
    let servers: Vec<_> = config
        .servers
        .iter()
        .enumerate()
        .map(|(position, server)| RingServer {
            name: &server.name,
            weight: server.weight,
            live: is_live(position),
        })
        .collect();
    Placement::build(config.distribution, &servers)
}
