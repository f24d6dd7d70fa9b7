//! The words that `hash:` and `distribution:` take.

use twemproxy_core::ring::{Distribution, HashKind};

pub(super) const HASHES: &[(&str, HashKind)] = &[
    ("one_at_a_time", HashKind::OneAtATime),
    ("md5", HashKind::Md5),
    ("crc16", HashKind::Crc16),
    ("crc32", HashKind::Crc32),
    ("crc32a", HashKind::Crc32a),
    ("fnv1_64", HashKind::Fnv1x64),
    ("fnv1a_64", HashKind::Fnv1a64),
    ("fnv1_32", HashKind::Fnv1x32),
    ("fnv1a_32", HashKind::Fnv1a32),
    ("hsieh", HashKind::Hsieh),
    ("murmur", HashKind::Murmur),
    ("jenkins", HashKind::Jenkins),
];

pub(super) const DISTRIBUTIONS: &[(&str, Distribution)] = &[
    ("ketama", Distribution::Ketama),
    ("modula", Distribution::Modula),
    ("random", Distribution::Random),
];

/// The meaning of `word`, which must be typed exactly.
pub(super) fn find<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    let mut matches = words.iter().filter(|(name, _)| *name == word);
    matches.next().map(|(_, meaning)| *meaning)
}
