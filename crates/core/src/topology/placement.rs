//! The built structure that names the owner of a hash, one per distribution.

use super::ketama::Ketama;
use super::modula::Modula;
use super::random::Random;
use crate::num::to_u32;
use crate::words::configured_word;

configured_word! {
    /// `distribution:`
    pub enum Distribution {
        /// Consistent hashing with weighted points.
        Ketama = "ketama",
        /// Hash modulo the servers, each repeated weight times.
        Modula = "modula",
        /// A random server for each key.
        Random = "random",
    }
}

/// What a ring must know of a server.
#[derive(Clone, Copy, Debug)]
pub struct RingServer<'a> {
    /// The name hashed for ketama points.
    pub name: &'a str,
    /// Weight, at least 1.
    pub weight: u32,
    /// Whether it takes part; an ejected server does not.
    pub live: bool,
}

/// The end of an arc of a ketama ring: hashes from the previous point's value (exclusive) to this
/// one's (inclusive) belong to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Where on the ring.
    pub value: u32,
    /// Position of the owner in the servers the ring was built from.
    pub server: u32,
}

/// The built structure: replaced whole when a server is ejected or restored, never changed in place.
#[derive(Clone, Debug)]
pub struct Placement {
    owners: Owners,
}

/// Its tag is a byte of its own: found in a niche of the vectors it costs every lookup more.
#[derive(Clone, Debug)]
#[repr(u8)]
enum Owners {
    Ketama(Ketama),
    Modula(Modula),
    Random(Random),
}

impl Placement {
    /// Places keys on the live ones among `servers` (in server index order).
    #[must_use]
    pub fn build(distribution: Distribution, servers: &[RingServer<'_>]) -> Self {
        let owners = match distribution {
            Distribution::Ketama => Owners::Ketama(Ketama::build(servers)),
            Distribution::Modula => Owners::Modula(Modula::build(servers)),
            Distribution::Random => Owners::Random(Random::build(servers)),
        };
        Self { owners }
    }

    /// Position in `servers` of the owner of `hash`; with [`Distribution::Random`], `hash` is the
    /// caller's random number. `None` if no server is live.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u32) -> Option<u32> {
        match &self.owners {
            Owners::Ketama(ketama) => ketama.pick(hash),
            Owners::Modula(modula) => modula.pick(hash),
            Owners::Random(random) => random.pick(hash),
        }
    }

    /// The points of a ketama ring by ascending value; none for other distributions.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        match &self.owners {
            Owners::Ketama(ketama) => ketama.points(),
            Owners::Modula(_) | Owners::Random(_) => &[],
        }
    }
}

/// The live servers with their positions.
pub(super) fn live<'s, 'n>(
    servers: &'s [RingServer<'n>],
) -> impl Iterator<Item = (u32, &'s RingServer<'n>)> {
    let positioned = servers.iter().enumerate();
    positioned
        .filter(|(_, server)| server.live)
        .map(|(position, server)| (to_u32(position), server))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::num::to_usize;

    const NAMES: [&str; 8] = [
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta",
    ];

    /// Up to eight servers; at most one in four is not live.
    fn some_servers() -> impl Strategy<Value = Vec<RingServer<'static>>> {
        let server = (1..6_u32, prop::bool::weighted(0.75));
        prop::collection::vec(server, 1..=NAMES.len()).prop_map(|servers| {
            let named = NAMES.iter().zip(servers);
            named
                .map(|(name, (weight, live))| RingServer { name, weight, live })
                .collect()
        })
    }

    fn equal_servers() -> Vec<RingServer<'static>> {
        let server = |&name| RingServer {
            name,
            weight: 1,
            live: true,
        };
        NAMES.iter().map(server).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_owner_is_live_and_there_is_one_while_any_server_is(
            servers in some_servers(),
            hash in any::<u32>(),
        ) {
            for &(name, distribution) in Distribution::ALL {
                let ring = Placement::build(distribution, &servers);
                let any_live = servers.iter().any(|server| server.live);
                for hash in [hash, 0, u32::MAX] {
                    let owner = ring.pick(hash);
                    prop_assert_eq!(owner.is_some(), any_live, "{}", name);
                    prop_assert!(owner.is_none_or(|owner| servers[to_usize(owner)].live), "{}", name);
                }
            }
        }

        #[test]
        fn ejecting_one_of_equal_servers_moves_only_its_keys_on_a_ketama_ring(
            ejected in 0..NAMES.len(),
            hashes in prop::collection::vec(any::<u32>(), 100),
        ) {
            let mut servers = equal_servers();
            let before = Placement::build(Distribution::Ketama, &servers);
            servers[ejected].live = false;
            let after = Placement::build(Distribution::Ketama, &servers);
            for hash in hashes {
                let owner = before.pick(hash);
                if owner != Some(to_u32(ejected)) {
                    prop_assert_eq!(after.pick(hash), owner);
                }
            }
        }
    }

    #[test]
    fn restoring_a_server_brings_the_first_ring_back() {
        let mut servers = equal_servers();
        let first = Placement::build(Distribution::Ketama, &servers);
        servers[3].live = false;
        let without = Placement::build(Distribution::Ketama, &servers);
        servers[3].live = true;
        let again = Placement::build(Distribution::Ketama, &servers);
        assert_ne!(first.points(), without.points());
        assert_eq!(first.points(), again.points());
    }

    #[test]
    fn every_distribution_has_one_name_and_is_found_by_it() {
        assert_eq!(Distribution::ALL.len(), 3);
        for &(name, distribution) in Distribution::ALL {
            assert_eq!(distribution.name(), name);
            assert_eq!(Distribution::from_name(name), Some(distribution));
        }
        assert_eq!(Distribution::from_name("Ketama"), None);
    }
}
