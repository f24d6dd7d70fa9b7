//! Consistent hashing: each server owns the arcs of a circle of 2^32 values that end at its points.
//!
//! How many points a server has and where they lie is twemproxy's, rounding included. How the owner
//! of a hash is found is ours: `cells` cuts the circle into 2 to 4 times as many equal parts as
//! there are points. Each names the first point that may own a hash in it. Nearly always that or the next
//! one does; which, no processor can guess, so the two are compared without a branch.
//!
//! ```text
//! hash     [ top bits = c | rest ]
//!                │
//! cells    [ … | c | … ]
//!                └───────────────────┐ the scan starts here, ends at the first value ≥ hash
//! points   [ … | value < c << shift | value ≥ c << shift | … | sentinel | sentinel ]
//! ```
//!
//! Invariants:
//! 1. `points` is empty, or sorted by value and ended by two sentinels of value `u32::MAX` that repeat
//!    the first point's server. So every scan ends, past the last point means the first one, and every
//!    candidate has a next one.
//! 2. `cells[c]` is the index of the first point whose value is not below `c << shift`.
//! 3. `cells` is empty if and only if `points` is.

use alloc::vec::Vec;

use super::hash::md5_words;
use super::placement::{Point, RingServer, live};
use crate::num::{to_u32, to_usize};

/// The circle twemproxy's source calls the continuum.
#[derive(Clone, Debug)]
pub(super) struct Ketama {
    points: Vec<Point>,
    cells: Vec<u32>,
    shift: u32,
}

impl Ketama {
    pub(super) fn build(servers: &[RingServer<'_>]) -> Self {
        // Not twemproxy's 32 bits: a total that wraps there makes shares above 1, and points without
        // bound.
        let weight_total = live(servers)
            .map(|(_, server)| u64::from(server.weight))
            .sum();
        let live_count = live(servers).count();

        let mut points = Vec::new();
        let mut label = Vec::new();
        for (position, server) in live(servers) {
            let groups = group_count(server.weight, weight_total, live_count);
            for group in 0..groups {
                write_label(&mut label, server.name, group);
                points.extend(md5_words(&label).map(|value| Point {
                    value,
                    server: position,
                }));
            }
        }
        Self::from_points(points)
    }

    /// Of points with equal values the earlier one wins.
    fn from_points(mut points: Vec<Point>) -> Self {
        points.sort_by_key(|point| point.value);
        let Some(first) = points.first() else {
            return Self {
                points,
                cells: Vec::new(),
                shift: 0,
            };
        };
        let sentinel = Point {
            value: u32::MAX,
            server: first.server,
        };
        let shift = cell_shift(points.len() + 1);
        points.extend([sentinel; SENTINELS]);
        let cells = first_candidates(&points, shift);
        Self {
            points,
            cells,
            shift,
        }
    }

    #[inline]
    pub(super) fn pick(&self, hash: u32) -> Option<u32> {
        let first = *self.cells.get(to_usize(hash >> self.shift))?;
        let candidates = self.points.get(to_usize(first)..)?;
        let likely: &[Point; 2] = candidates.first_chunk()?;
        let owner = likely[usize::from(likely[0].value < hash)];
        if owner.value >= hash {
            return Some(owner.server);
        }
        let owner = candidates.iter().find(|point| point.value >= hash)?;
        Some(owner.server)
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points[..self.points.len().saturating_sub(SENTINELS)]
    }
}

/// How many points at the end are none of a server's own.
const SENTINELS: usize = 2;

/// A hash shifted right by this is the number of its cell.
fn cell_shift(point_count: usize) -> u32 {
    let cell_count = to_u32(2 * point_count).next_power_of_two();
    u32::BITS - cell_count.trailing_zeros()
}

fn first_candidates(points: &[Point], shift: u32) -> Vec<u32> {
    let last_cell = u32::MAX >> shift;
    let mut first = 0;
    let cells = (0..=last_cell).map(|cell| {
        let start = cell << shift;
        let below = |point: &&Point| point.value < start;
        first += points[first..].iter().take_while(below).count();
        to_u32(first)
    });
    cells.collect()
}

/// How many digests, of four points each, a server gets: its weight's share of 40 for each live
/// server.
// compat: single precision, rounded after every step. Equal weights get 39 instead of 40 for some
// numbers of servers, and a very light server gets none.
#[allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "losing precision is the point; the result is positive and `as` rounds it down"
)]
fn group_count(weight: u32, weight_total: u64, live_count: usize) -> u32 {
    let share = weight as f32 / weight_total as f32;
    let groups = share * POINTS_PER_SERVER / POINTS_PER_GROUP * live_count as f32;
    (f64::from(groups) + 1e-10) as f32 as u32
}

/// The bytes whose digest makes four points: `<name>-<group>`.
fn write_label(label: &mut Vec<u8>, name: &str, group: u32) {
    label.clear();
    label.extend_from_slice(name.as_bytes());
    label.push(b'-');
    label.extend_from_slice(itoa::Buffer::new().format(group).as_bytes());
    // compat: what twemproxy's buffer holds.
    label.truncate(LABEL_LEN_MAX);
}

const POINTS_PER_SERVER: f32 = 160.0;
const POINTS_PER_GROUP: f32 = 4.0;
const LABEL_LEN_MAX: usize = 272;

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use proptest::collection::vec as vec_of;
    use proptest::prelude::*;

    use super::*;

    /// What `pick` must answer, without the table and the sentinel.
    fn pick_by_search(points: &[Point], hash: u32) -> Option<u32> {
        let owner = points.iter().find(|point| point.value >= hash);
        owner.or_else(|| points.first()).map(|point| point.server)
    }

    /// Points in the order given, each of a server of its own.
    fn points_at(values: &[u32]) -> Vec<Point> {
        let numbered = values.iter().zip(0..);
        numbered
            .map(|(&value, server)| Point { value, server })
            .collect()
    }

    fn assert_picks_as_a_search_does(values: &[u32], hashes: &[u32]) {
        let ketama = Ketama::from_points(points_at(values));
        let mut sorted = points_at(values);
        sorted.sort_by_key(|point| point.value);
        assert_eq!(ketama.points(), sorted);

        let near_values = values
            .iter()
            .flat_map(|v| [v.wrapping_sub(1), *v, v.wrapping_add(1)]);
        let near_cells = (0..=u32::MAX >> ketama.shift).flat_map(|cell| {
            let start = cell << ketama.shift;
            [start, start.wrapping_sub(1)]
        });
        for hash in near_values.chain(near_cells).chain(hashes.iter().copied()) {
            let expected = pick_by_search(&sorted, hash);
            assert_eq!(ketama.pick(hash), expected, "hash {hash}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_cells_answer_what_a_search_of_the_points_answers(
            values in vec_of(any::<u32>(), 1..200),
            hashes in vec_of(any::<u32>(), 0..50),
        ) {
            assert_picks_as_a_search_does(&values, &hashes);
        }

        #[test]
        fn crowded_and_equal_points_answer_the_same(
            values in vec_of(prop_oneof![0..40_u32, u32::MAX - 40..=u32::MAX, Just(1 << 31)], 1..200),
        ) {
            assert_picks_as_a_search_does(&values, &[]);
        }
    }

    #[test]
    fn one_point_owns_everything() {
        for value in [0, 1, 1 << 31, u32::MAX] {
            assert_picks_as_a_search_does(&[value], &[0, 1, 1 << 31, u32::MAX]);
        }
    }

    #[test]
    fn a_real_point_at_the_end_of_the_circle_is_not_taken_for_the_sentinel() {
        let ketama = Ketama::from_points(points_at(&[5, u32::MAX]));
        assert_eq!(ketama.pick(u32::MAX), Some(1));
        assert_eq!(ketama.pick(6), Some(1));
        assert_eq!(ketama.pick(5), Some(0));
    }

    #[test]
    fn no_points_answer_nothing() {
        let ketama = Ketama::from_points(Vec::new());
        assert_eq!(ketama.pick(0), None);
        assert_eq!(ketama.pick(u32::MAX), None);
        assert_eq!(ketama.points(), []);
    }

    #[test]
    fn cells_are_two_to_four_times_as_many_as_points() {
        for point_count in [2, 3, 4, 5, 640, 641, 1023, 1024, 1025, 16_000] {
            let cell_count = 1_usize << (u32::BITS - cell_shift(point_count));
            assert!(
                (2 * point_count..4 * point_count).contains(&cell_count),
                "{cell_count} cells for {point_count} points",
            );
        }
    }

    #[test]
    fn equal_weights_have_thirty_nine_groups_for_the_known_numbers_of_servers() {
        let short: Vec<u32> = (1..=209)
            .filter(|&count| group_count(1, u64::from(count), to_usize(count)) != 40)
            .collect();
        let known = vec![
            25, 47, 50, 55, 61, 71, 94, 100, 107, 109, 110, 115, 122, 142, 159, 163, 188, 193, 200,
            209,
        ];
        assert_eq!(short, known);
        for count in known {
            assert_eq!(group_count(1, u64::from(count), to_usize(count)), 39);
        }
    }

    #[test]
    fn groups_follow_the_weight() {
        assert_eq!(group_count(3, 4, 2), 60);
        assert_eq!(group_count(1, 4, 2), 20);
        assert_eq!(group_count(100_000, 100_001, 2), 79);
        assert_eq!(group_count(1, 100_001, 2), 0);
    }

    #[test]
    fn the_heaviest_weights_together_get_their_forty_groups_each() {
        let heaviest = 0x7fff_ffff;
        assert_eq!(group_count(heaviest, 8 * u64::from(heaviest), 8), 40);
    }

    #[test]
    fn a_digest_makes_four_little_endian_values() {
        let words = md5_words(b"server1-8");
        assert_eq!((words[0], words[3]), (3_853_726_576, 2_667_054_752));
    }

    #[test]
    fn labels_are_cut() {
        let mut label = Vec::new();
        write_label(&mut label, "server1", 8);
        assert_eq!(label, b"server1-8");

        let name: String = core::iter::repeat_n('n', 270).collect();
        write_label(&mut label, &name, 39);
        assert_eq!(label.len(), 272);
        assert!(label.ends_with(b"n-3"));
    }
}
