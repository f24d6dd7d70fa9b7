//! Laws: the properties that two servers' responses to one command must share.

use crate::model::Measure;
use crate::model::redis::measure_reply;

/// How equal two replies must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Law {
    /// The same bytes.
    Exact,
    /// The same elements at every level, in any order: the server says so in its command's tips.
    AnyOrder,
    /// The same pairs of elements, in any order.
    AnyOrderOfPairs,
    /// The same types, the same lengths of arrays; time or chance decide the rest.
    Shape,
    /// The same, and numbers differ by no more than a slow machine may take (`NEAR`).
    Near,
    /// memcached values in any order, END last.
    Values,
    /// The same but for the cas numbers, which count each server's own writes.
    ValuesButCas,
}

/// Twenty seconds, for commands that count milliseconds.
const NEAR: i64 = 20_000;

impl Law {
    /// Whether the replies obey it.
    #[must_use]
    pub fn holds(self, expected: &[u8], actual: &[u8]) -> bool {
        match self {
            Self::Exact => expected == actual,
            Self::AnyOrder => reply(expected).sorted(1) == reply(actual).sorted(1),
            Self::AnyOrderOfPairs => reply(expected).sorted(2) == reply(actual).sorted(2),
            Self::Shape => reply(expected).is_like(&reply(actual), &|_, _| true),
            Self::Near => reply(expected).is_like(&reply(actual), &near),
            Self::Values => values(expected, false) == values(actual, false),
            Self::ValuesButCas => values(expected, true) == values(actual, true),
        }
    }
}

fn near(a: i64, b: i64) -> bool {
    a == b || (a >= 0 && b >= 0 && a.abs_diff(b) <= NEAR.unsigned_abs())
}

/// A reply as a tree; leaves keep their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reply {
    Leaf(Vec<u8>),
    Array(Vec<Self>),
}

fn reply(bytes: &[u8]) -> Reply {
    let mut rest = bytes;
    let tree = take(&mut rest);
    assert!(rest.is_empty(), "one reply at a time");
    tree
}

fn take(rest: &mut &[u8]) -> Reply {
    let Measure::Done(len) = measure_reply(rest) else {
        panic!("the wire reads whole replies only");
    };
    let (whole, after) = rest.split_at(len);
    if whole[0] != b'*' || whole.starts_with(b"*-1") {
        *rest = after;
        return Reply::Leaf(whole.to_vec());
    }
    let header = whole
        .iter()
        .position(|&byte| byte == b'\n')
        .expect("a header ends")
        + 1;
    let mut inner = &whole[header..];
    let mut elements = Vec::new();
    while !inner.is_empty() {
        elements.push(take(&mut inner));
    }
    *rest = after;
    Reply::Array(elements)
}

impl Reply {
    /// With the elements of every array in groups of `group`, and those sorted.
    fn sorted(self, group: usize) -> Self {
        let Self::Array(elements) = self else {
            return self;
        };
        let elements: Vec<Self> = elements
            .into_iter()
            .map(|element| element.sorted(group))
            .collect();
        let mut groups: Vec<&[Self]> = elements.chunks(group).collect();
        groups.sort();
        Self::Array(groups.concat())
    }

    fn is_like(&self, other: &Self, numbers: &dyn Fn(i64, i64) -> bool) -> bool {
        match (self, other) {
            (Self::Leaf(a), Self::Leaf(b)) => {
                let nil = |leaf: &[u8]| leaf.starts_with(b"$-1") || leaf.starts_with(b"*-1");
                let alike = a[0] == b[0] && nil(a) == nil(b) && (a[0] != b'-' || a == b);
                alike
                    && match (number(a), number(b)) {
                        (Some(a), Some(b)) => numbers(a, b),
                        _ => true,
                    }
            }
            (Self::Array(a), Self::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_like(b, numbers))
            }
            _ => false,
        }
    }
}

fn number(leaf: &[u8]) -> Option<i64> {
    let text = leaf.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The parts of a memcached response to a retrieval, sorted: value blocks, and the line at the end.
fn values(mut bytes: &[u8], without_cas: bool) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
        let line = &bytes[..=end];
        let mut words: Vec<&[u8]> = line.trim_ascii_end().split(|&byte| byte == b' ').collect();
        if words[0] != b"VALUE" {
            parts.push(line.to_vec());
            bytes = &bytes[line.len()..];
            continue;
        }
        let len: usize = std::str::from_utf8(words[3])
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("the wire reads whole responses only");
        let whole = line.len() + len + b"\r\n".len();
        if without_cas {
            words.truncate(4);
        }
        parts.push([&words.join(&b' '), &bytes[line.len()..whole]].concat());
        bytes = &bytes[whole..];
    }
    parts.sort();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_forgiven_only_where_the_law_says_so() {
        let (a, b) = (b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:2\r\n:1\r\n");
        assert!(!Law::Exact.holds(a, b));
        assert!(Law::AnyOrder.holds(a, b));
        assert!(!Law::AnyOrder.holds(a, b"*2\r\n:2\r\n:2\r\n"));
        let (a, b) = (
            b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
            b"*4\r\n:3\r\n:4\r\n:1\r\n:2\r\n",
        );
        assert!(Law::AnyOrderOfPairs.holds(a, b));
        assert!(!Law::AnyOrderOfPairs.holds(a, b"*4\r\n:1\r\n:4\r\n:3\r\n:2\r\n"));
    }

    #[test]
    fn a_shape_has_types_and_lengths() {
        assert!(Law::Shape.holds(b"*1\r\n$1\r\na\r\n", b"*1\r\n$2\r\nab\r\n"));
        assert!(!Law::Shape.holds(b"*1\r\n$1\r\na\r\n", b"*1\r\n$-1\r\n"));
        assert!(!Law::Shape.holds(b"*1\r\n:1\r\n", b"*2\r\n:1\r\n:1\r\n"));
        assert!(!Law::Shape.holds(b"-ERR a\r\n", b"-ERR b\r\n"));
        assert!(Law::Near.holds(b":100\r\n", b":99\r\n"));
        assert!(!Law::Near.holds(b":100\r\n", b":-1\r\n"));
        assert!(!Law::Near.holds(b":100000\r\n", b":10\r\n"));
    }

    #[test]
    fn values_are_compared_block_by_block() {
        let a = b"VALUE a 0 2 7\r\n\n\n\r\nVALUE b 0 1 8\r\nx\r\nEND\r\n";
        let b = b"VALUE b 0 1 1\r\nx\r\nVALUE a 0 2 2\r\n\n\n\r\nEND\r\n";
        assert!(Law::ValuesButCas.holds(a, b));
        assert!(!Law::Values.holds(a, b));
        assert!(!Law::ValuesButCas.holds(a, b"VALUE b 0 1 1\r\nx\r\nEND\r\n"));
    }
}
