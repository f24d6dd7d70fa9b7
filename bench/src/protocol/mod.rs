//! What both ends of the sandwich agree on: keys, ids, values and the few commands in use.
//!
//! Each key ends in its id, ten digits. A value starts with its id and, when long enough, ends with it, so a
//! reply that belongs to another request, or is cut, cannot pass. Invariants:
//! 1. whatever is rendered for an id here is what the canned servers answer for that id;
//! 2. ids below 10^10 only, so that a rendered key or value never changes its length with the id.

pub(crate) mod memcache;
pub(crate) mod redis;

use crate::failure::{Failure, Outcome};
use crate::net::Outbox;

/// Which language client, proxy and servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Redis,
    Memcache,
}

impl Protocol {
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        match text {
            "redis" => Ok(Self::Redis),
            "memcache" | "memcached" => Ok(Self::Memcache),
            _ => Err(Failure::new(format!(
                "protocol '{text}' is neither redis nor memcache"
            ))),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Memcache => "memcache",
        }
    }
}

/// What each request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Get,
    Set,
    /// Several keys in one read: MGET, or `get` with many keys.
    Mget,
    /// Several keys in one write; redis only.
    Mset,
}

impl Op {
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        match text {
            "get" => Ok(Self::Get),
            "set" => Ok(Self::Set),
            "mget" => Ok(Self::Mget),
            "mset" => Ok(Self::Mset),
            _ => Err(Failure::new(format!(
                "operation '{text}' is none of get, set, mget, mset"
            ))),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Mget => "mget",
            Self::Mset => "mset",
        }
    }
}

/// Digits of an id in keys and values.
pub(crate) const ID_LEN: usize = 10;

/// An id as it stands in keys and values.
pub(crate) type IdDigits = [u8; ID_LEN];

/// Renders an id.
pub(crate) fn digits(id: u64) -> IdDigits {
    let mut out = [b'0'; ID_LEN];
    let mut left = id;
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(left % 10).expect("a decimal digit");
        left /= 10;
    }
    assert!(left == 0, "ids have at most ten digits");
    out
}

/// Reads an id back; `None` if these are not ten digits.
pub(crate) fn id_of(digits: &[u8]) -> Option<u64> {
    if digits.len() != ID_LEN || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |id, digit| id * 10 + u64::from(digit - b'0')),
    )
}

/// How long keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyLengths {
    /// From 14 to 21 bytes, so that no branch of a parser is always right.
    Mixed,
    /// 18 bytes each, for a relay that knows only lengths.
    Fixed,
}

/// Appends the key of an id.
pub(crate) fn push_key(out: &mut Vec<u8>, id: u64, lengths: KeyLengths) {
    let padding = [b'x'; 7];
    let used = match lengths {
        KeyLengths::Mixed => crate::num::index(id % 8),
        KeyLengths::Fixed => 4,
    };
    out.extend_from_slice(b"key:");
    out.extend_from_slice(&padding[..used]);
    out.extend_from_slice(&digits(id));
}

/// The last ten bytes of a key, which are its id.
pub(crate) fn key_digits(key: &[u8]) -> Option<&[u8]> {
    let start = key.len().checked_sub(ID_LEN)?;
    key.get(start..)
}

/// How a value of one size is laid out: `head` digits of the id, filler, `tail` digits of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueShape {
    pub(crate) head: usize,
    pub(crate) filler: usize,
    pub(crate) tail: usize,
}

/// What the middle of a value is made of.
pub(crate) const FILLER: u8 = b'v';

impl ValueShape {
    pub(crate) const fn of_size(size: usize) -> Self {
        if size >= 2 * ID_LEN {
            Self {
                head: ID_LEN,
                filler: size - 2 * ID_LEN,
                tail: ID_LEN,
            }
        } else if size >= ID_LEN {
            Self {
                head: ID_LEN,
                filler: size - ID_LEN,
                tail: 0,
            }
        } else {
            Self {
                head: size,
                filler: 0,
                tail: 0,
            }
        }
    }

    pub(crate) const fn size(self) -> usize {
        self.head + self.filler + self.tail
    }

    /// The digits a value starts with: the last ones, which differ between neighbours.
    pub(crate) fn head_of(self, digits: &[u8]) -> &[u8] {
        &digits[digits.len() - self.head..]
    }

    /// The digits a value ends with.
    pub(crate) fn tail_of(self, digits: &[u8]) -> &[u8] {
        &digits[..self.tail]
    }

    pub(crate) fn push(self, out: &mut Vec<u8>, digits: &[u8]) {
        out.extend_from_slice(self.head_of(digits));
        out.resize(out.len() + self.filler, FILLER);
        out.extend_from_slice(self.tail_of(digits));
    }

    /// The same into a send queue, where a long filler is referenced and not copied.
    pub(crate) fn send(self, out: &mut Outbox, digits: &[u8]) {
        out.push(self.head_of(digits));
        out.push_filler(self.filler);
        out.push(self.tail_of(digits));
    }

    /// Whether `value` is the one that belongs to `digits`.
    pub(crate) fn matches(self, value: &[u8], digits: &[u8]) -> bool {
        value.len() == self.size()
            && value.starts_with(self.head_of(digits))
            && value.ends_with(self.tail_of(digits))
    }
}

/// The values of both groups of clients: ids from [`BESIDE`] on belong to the group beside the measured one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shapes {
    pub(crate) main: ValueShape,
    pub(crate) beside: ValueShape,
}

impl Shapes {
    /// The shape of the value that belongs to these digits of an id.
    pub(crate) fn of(self, digits: &[u8]) -> ValueShape {
        if digits.first().is_some_and(|digit| *digit >= b'5') {
            self.beside
        } else {
            self.main
        }
    }
}

/// The first id of the group beside the measured one; its first digit tells.
pub(crate) const BESIDE: u64 = 5_000_000_000;

/// What a canned server found in its input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// One request was answered; this many bytes of input are done.
    Request(usize),
    /// The request is not complete yet.
    Incomplete,
    /// The proxy forwarded something that no client of this tool sent.
    Violation(&'static str),
}

/// Answers the first request of `input` into `out`. `words` is scratch space, kept to save allocations.
pub(crate) fn serve(
    protocol: Protocol,
    shapes: Shapes,
    words: &mut Vec<(usize, usize)>,
    input: &[u8],
    out: &mut Outbox,
) -> Served {
    match protocol {
        Protocol::Redis => redis::serve(shapes, words, input, out),
        Protocol::Memcache => memcache::serve(shapes, words, input, out),
    }
}

/// A decimal number of at most nine digits at `at`, and the index of the byte after it.
pub(crate) fn number(input: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut end = at;
    let mut value = 0_usize;
    while let Some(digit) = input.get(end).filter(|byte| byte.is_ascii_digit()) {
        if end - at == 9 {
            return None;
        }
        value = value * 10 + usize::from(digit - b'0');
        end += 1;
    }
    (end > at).then_some((value, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_round_trip_through_digits() {
        for id in [0, 7, 1_234_567_890, 9_999_999_999] {
            assert_eq!(id_of(&digits(id)), Some(id));
        }
        assert_eq!(id_of(b"12345"), None);
        assert_eq!(id_of(b"123456789x"), None);
    }

    #[test]
    fn keys_end_in_their_id_and_vary_in_length() {
        let lengths: Vec<usize> = (0..8)
            .map(|id| {
                let mut key = Vec::new();
                push_key(&mut key, id, KeyLengths::Mixed);
                assert_eq!(key_digits(&key), Some(&digits(id)[..]));
                key.len()
            })
            .collect();
        assert_eq!(lengths, [14, 15, 16, 17, 18, 19, 20, 21]);
    }

    #[test]
    fn a_value_of_another_id_does_not_match() {
        for size in [2, 10, 19, 20, 32, 65_536] {
            let shape = ValueShape::of_size(size);
            let mut value = Vec::new();
            shape.push(&mut value, &digits(41));
            assert_eq!(value.len(), size);
            assert!(shape.matches(&value, &digits(41)), "size {size}");
            assert!(!shape.matches(&value, &digits(42)), "size {size}");
        }
    }
}
