//! Tagged keys and values, and the identity of writes.
//!
//! Every key of a client carries the client's number, and every value carries its key, its request
//! and its own length. So a reply can be checked by itself: a byte that belongs to anybody else
//! shows, even where faults make it uncertain which of its own values a client must see.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// A set of [`fingerprint`]s. They are hashes already.
pub(super) type Fingerprints = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// Hashes a hash.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("fingerprints are numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Names one write so that its execution can be counted: what was done to which key with what.
pub(super) fn fingerprint(verb: &[u8], key: &[u8], value: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [verb, key, &value[..value.len().min(80)]] {
        for &byte in part.iter().chain(b" ") {
            hash = (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The writes of a redis request (or fragment).
pub(super) fn redis_writes(words: &[Vec<u8>]) -> Vec<u64> {
    match words[0].to_ascii_lowercase().as_slice() {
        b"set" | b"append" => vec![fingerprint(&words[0], &words[1], &words[2])],
        b"incr" => vec![fingerprint(&words[0], &words[1], b"")],
        b"mset" => words[1..]
            .chunks(2)
            .map(|pair| fingerprint(&words[0], &pair[0], &pair[1]))
            .collect(),
        b"del" => words[1..]
            .iter()
            .map(|key| fingerprint(&words[0], key, b""))
            .collect(),
        _ => Vec::new(),
    }
}

/// The writes of a memcached request.
pub(super) fn memcache_writes(words: &[Vec<u8>], data: &[u8]) -> Vec<u64> {
    match words[0].as_slice() {
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => {
            vec![fingerprint(&words[0], &words[1], data)]
        }
        b"delete" => vec![fingerprint(&words[0], &words[1], b"")],
        b"incr" | b"touch" => vec![fingerprint(&words[0], &words[1], &words[2])],
        _ => Vec::new(),
    }
}

/// The flush with this delay as one server executes it.
pub(super) fn flush_write(server: usize, delay: &[u8]) -> u64 {
    fingerprint(b"flush_all", server.to_string().as_bytes(), delay)
}

/// The value that request `seq` writes to `key`, padded with `fill` bytes.
pub(super) fn value(key: &[u8], seq: u32, fill: usize) -> Vec<u8> {
    let mut value = b"<".to_vec();
    value.extend_from_slice(key);
    value.extend_from_slice(format!("|{seq}|{fill}>").as_bytes());
    value.resize(value.len() + fill, fill_byte(seq));
    value
}

fn fill_byte(seq: u32) -> u8 {
    b'a' + u8::try_from(seq % 26).expect("below 26")
}

/// Whether `bytes` are values of `key`, one behind the other, or a number.
pub(super) fn is_value_of(key: &[u8], mut bytes: &[u8]) -> bool {
    if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        return true;
    }
    while !bytes.is_empty() {
        match split_value(key, bytes) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    true
}

/// Takes one value of `key` off the front.
fn split_value<'a>(key: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let tag = bytes
        .strip_prefix(b"<")?
        .strip_prefix(key)?
        .strip_prefix(b"|")?;
    let end = tag.iter().position(|&byte| byte == b'>')?;
    let text = std::str::from_utf8(&tag[..end]).ok()?;
    let (seq, fill) = text.split_once('|')?;
    let (seq, fill): (u32, usize) = (seq.parse().ok()?, fill.parse().ok()?);
    let (filled, rest) = tag[end + 1..].split_at_checked(fill)?;
    filled
        .iter()
        .all(|&byte| byte == fill_byte(seq))
        .then_some(rest)
}

/// Whether `bytes`, possibly cut anywhere, hold a tag that belongs to another client than `owner`.
pub(super) fn holds_foreign_tag(owner: &str, bytes: &[u8]) -> bool {
    bytes.windows(2).enumerate().any(|(at, two)| {
        let rest = &bytes[at + 1..];
        let shown = rest.len().min(owner.len());
        (two == b"<c" || two == b"<{") && rest[..shown] != owner.as_bytes()[..shown]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_key_and_whole_only() {
        let one = value(b"c1:k2", 7, 30);
        let two = [one.clone(), value(b"c1:k2", 8, 0)].concat();
        assert!(is_value_of(b"c1:k2", &one) && is_value_of(b"c1:k2", &two));
        assert!(!is_value_of(b"c1:k", &one) && !is_value_of(b"c2:k2", &one));
        assert!(!is_value_of(b"c1:k2", &one[..one.len() - 1]));
        let mut other = one;
        let last = other.len() - 1;
        other[last] = b'!';
        assert!(!is_value_of(b"c1:k2", &other));
    }

    #[test]
    fn foreign_tags_show_in_cut_replies() {
        let value = value(b"c12:k2", 7, 3);
        assert!(!holds_foreign_tag("c12:", &value));
        assert!(holds_foreign_tag("c1:", &value));
        assert!(!holds_foreign_tag("c1:", &value[..3]));
    }
}
