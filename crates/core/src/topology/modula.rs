//! Hash modulo slots, where each live server holds as many neighbouring slots as it has weight.
//!
//! Weights go up to 2^31 - 1, so the slots are never written out: a server's range ends where the
//! next one's begins, and the answers are those of the written-out list. twemproxy counts slots in 32
//! bits and writes past its list when their number wraps; here it does not wrap.

use alloc::vec::Vec;

use super::placement::{RingServer, live};

#[derive(Clone, Debug)]
pub(super) struct Modula {
    /// One for each live server, in ascending order of `end`.
    ranges: Vec<Range>,
}

/// The slots from the previous range's end up to, not including, `end`.
#[derive(Clone, Copy, Debug)]
struct Range {
    end: u64,
    server: u32,
}

impl Modula {
    pub(super) fn build(servers: &[RingServer<'_>]) -> Self {
        let mut end = 0;
        let ranges = live(servers).map(|(position, server)| {
            end += u64::from(server.weight);
            Range {
                end,
                server: position,
            }
        });
        Self {
            ranges: ranges.collect(),
        }
    }

    #[inline]
    pub(super) fn pick(&self, hash: u32) -> Option<u32> {
        let slot_count = self.ranges.last()?.end;
        let slot = u64::from(hash).checked_rem(slot_count)?;
        let index = self.ranges.partition_point(|range| range.end <= slot);
        self.ranges.get(index).map(|range| range.server)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::num::{to_u32, to_usize};

    fn with_weights(weights: &[u32]) -> Modula {
        let server = |&weight| RingServer {
            name: "unused",
            weight,
            live: true,
        };
        Modula::build(&weights.iter().map(server).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn ranges_answer_what_written_out_slots_answer(
            weights in proptest::collection::vec(1..20_u32, 1..30),
            hash in any::<u32>(),
        ) {
            let slots: Vec<u32> = weights
                .iter()
                .zip(0..)
                .flat_map(|(&weight, server)| core::iter::repeat_n(server, to_usize(weight)))
                .collect();
            let modula = with_weights(&weights);
            prop_assert_eq!(modula.pick(hash), Some(slots[to_usize(hash) % slots.len()]));
            for slot in 0..to_u32(slots.len()) {
                prop_assert_eq!(modula.pick(slot), Some(slots[to_usize(slot)]));
            }
        }
    }

    #[test]
    fn the_heaviest_weights_cost_no_memory() {
        let heaviest = 0x7fff_ffff;
        let modula = with_weights(&[heaviest, heaviest, heaviest]);
        assert_eq!(modula.ranges.len(), 3);
        assert_eq!(modula.pick(0), Some(0));
        assert_eq!(modula.pick(heaviest - 1), Some(0));
        assert_eq!(modula.pick(heaviest), Some(1));
        // Three times 2^31 - 1 slots are more than there are hashes, so the last are out of reach.
        assert_eq!(modula.pick(u32::MAX), Some(2));
    }

    #[test]
    fn no_live_server_answers_nothing() {
        assert_eq!(with_weights(&[]).pick(7), None);
    }
}
