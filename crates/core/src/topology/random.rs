//! Any live server, whatever its weight and the key.

use alloc::vec::Vec;

use super::placement::{RingServer, live};
use crate::num::{to_u64, to_usize};

#[derive(Clone, Debug)]
pub(super) struct Random {
    servers: Vec<u32>,
}

impl Random {
    pub(super) fn build(servers: &[RingServer<'_>]) -> Self {
        Self {
            servers: live(servers).map(|(position, _)| position).collect(),
        }
    }

    /// `random` is a fresh number for each key, drawn evenly from all 32 bits.
    #[inline]
    pub(super) fn pick(&self, random: u32) -> Option<u32> {
        // A fraction of 2^32 scaled to the servers: as even as a remainder, without the division.
        let scaled = u64::from(random) * to_u64(self.servers.len());
        let index = u32::try_from(scaled >> u32::BITS).ok()?;
        self.servers.get(to_usize(index)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: [bool; 4] = [true, false, true, true];

    fn three_of_four() -> Random {
        let server = |live| RingServer {
            name: "unused",
            weight: 1,
            live,
        };
        Random::build(&LIVE.map(server))
    }

    // C55
    #[test]
    fn live_servers_share_the_numbers_evenly_whatever_their_weight() {
        let random = three_of_four();
        let third = u32::MAX / 3;
        for (number, server) in [
            (0, 0),
            (third, 0),
            (third + 1, 2),
            (2 * third, 2),
            (2 * third + 1, 3),
            (u32::MAX, 3),
        ] {
            assert_eq!(random.pick(number), Some(server), "{number}");
        }
    }

    #[test]
    fn no_live_server_answers_nothing() {
        assert_eq!(Random::build(&[]).pick(7), None);
    }
}
