//! The blank-separated words of one line, as memcached's tokenizer sees them.
//!
//! Only a blank separates. Other control bytes and DEL are part of a word, as in memcached. What versions
//! of memcached read differently (NUL, CR inside the line) stays in the word and is reported, so that
//! the caller can refuse the line.

use crate::num::{to_u32, to_usize};
use crate::proto::Span;

/// Iterates over the words of a line that is given without its line end.
pub(super) struct Words<'a> {
    line: &'a [u8],
    at: usize,
    /// A word so far held a NUL, at which memcached before 1.6.40 ends the line, or a CR.
    pub(super) has_forbidden: bool,
}

impl<'a> Words<'a> {
    #[inline]
    pub(super) const fn new(line: &'a [u8]) -> Self {
        Self {
            line,
            at: 0,
            has_forbidden: false,
        }
    }
}

impl Iterator for Words<'_> {
    type Item = Span;

    #[inline(always)]
    fn next(&mut self) -> Option<Span> {
        let mut at = self.at;
        while self.line.get(at) == Some(&b' ') {
            at += 1;
        }
        let start = at;
        at = word_end(self.line, at);
        if self.line.get(at).is_some_and(|&byte| byte != b' ') {
            at = self.odd_word_end(at);
        }
        self.at = at;
        (at > start).then(|| Span {
            start: to_u32(start),
            end: to_u32(at),
        })
    }
}

impl Words<'_> {
    /// The end of a word that has a control byte or DEL at `at`.
    #[cold]
    fn odd_word_end(&mut self, mut at: usize) -> usize {
        while let Some(byte) = self.line.get(at)
            && *byte != b' '
        {
            self.has_forbidden |= matches!(byte, 0 | b'\r');
            at = word_end(self.line, at + 1);
        }
        at
    }
}

/// The place of the first blank, control byte or DEL at or after `at`, or the end.
#[inline]
pub(super) fn word_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let stops = stops(u64::from_le_bytes(*eight));
        if stops != 0 {
            return at + to_usize(stops.trailing_zeros() / 8);
        }
        at += 8;
    }
    let left = bytes.len().saturating_sub(at);
    if left == 0 {
        return bytes.len();
    }
    if let Some(eight) = bytes.last_chunk::<8>() {
        // The bytes that are shifted in are zero, and zero is a stop.
        let rest = u64::from_le_bytes(*eight) >> (64 - 8 * left);
        return at + to_usize(stops(rest).trailing_zeros() / 8);
    }
    while bytes
        .get(at)
        .is_some_and(|&byte| byte > b' ' && byte != DEL)
    {
        at += 1;
    }
    at
}

/// The place of the first blank or control byte (DEL is not looked for) at or after `at`, or the end.
#[inline(always)]
pub(super) fn low_end(bytes: &[u8], at: usize) -> usize {
    let (eights, rest) = bytes.get(at..).unwrap_or_default().as_chunks::<8>();
    let mut end = at;
    for eight in eights {
        let eight = u64::from_le_bytes(*eight);
        // As in `stops`.
        let low = eight.wrapping_sub(EACH * 0x21) & !eight & (EACH * 0x80);
        if low != 0 {
            return end + to_usize(low.trailing_zeros() / 8);
        }
        end += 8;
    }
    end + rest
        .iter()
        .position(|&byte| byte <= b' ')
        .unwrap_or(rest.len())
}

/// As [`short_number`], behind the one blank at `blank`.
#[inline]
pub(super) fn short_number_after(bytes: &[u8], blank: usize) -> Option<(u32, usize)> {
    (bytes.get(blank) == Some(&b' '))
        .then(|| short_number(bytes, blank + 1))
        .flatten()
}

/// Reads the one to nine digits at `at`, which cannot overflow; the number and the place after it.
#[inline]
fn short_number(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let (mut number, mut end) = (0, at);
    while let Some(digit @ 0..=9) = bytes.get(end).map(|byte| byte.wrapping_sub(b'0')) {
        if end - at == 9 {
            return None;
        }
        number = number * 10 + u32::from(digit);
        end += 1;
    }
    (end > at).then_some((number, end))
}

/// Sets the top bit of bytes that end a word. Borrows may set it in bytes above the lowest such
/// byte too, so only the lowest set bit means anything.
const fn stops(eight: u64) -> u64 {
    let below_21 = eight.wrapping_sub(EACH * 0x21) & !eight;
    let del = eight ^ (EACH * 0x7f);
    let is_del = del.wrapping_sub(EACH) & !del;
    (below_21 | is_del) & (EACH * 0x80)
}

const EACH: u64 = 0x0101_0101_0101_0101;
pub(super) const DEL: u8 = 0x7f;

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn each_byte_at_each_place_ends_a_word_exactly_if_it_may_not_stand_in_one() {
        for byte in 0..=u8::MAX {
            let is_stop = byte <= b' ' || byte == 0x7f;
            for len in 1..20 {
                for place in 0..len {
                    let mut line = [b'k'; 20];
                    line[place] = byte;
                    let end = if is_stop { place } else { len };
                    assert_eq!(word_end(&line[..len], 0), end, "{byte} at {place} of {len}");
                    assert_eq!(word_end(&line[..len], place), end);
                    let low = if byte == 0x7f { len } else { end };
                    assert_eq!(low_end(&line[..len], 0), low);
                    assert_eq!(low_end(&line[..len], place), low);
                    assert_eq!(word_end(&line[..len], len), len);
                }
            }
        }
    }

    #[test]
    fn of_two_stops_the_first_counts() {
        for first in [0, b' ', b'\n', 0x7f] {
            for second in [0, b' ', 0x1f, 0x7f, 0x21, 0x80, 0xff] {
                let line = [b'a', 0x80, first, second, second, 0xff, b'~', b'!'];
                assert_eq!(word_end(&line, 0), 2, "{first} {second}");
            }
        }
    }

    #[test]
    fn a_short_number_ends_where_its_digits_end() {
        assert_eq!(short_number(b"x0 ", 1), Some((0, 2)));
        assert_eq!(short_number(b"999999999", 0), Some((999_999_999, 9)));
        for none in [&b""[..], b"x", b"-1", b" 1", b"1234567890"] {
            assert_eq!(short_number(none, 0), None);
        }
    }

    #[test]
    fn only_blanks_separate() {
        let line = b"  get a\tb  c\0 ";
        let mut words = Words::new(line);
        let first = words.next().unwrap();
        assert_eq!(first.of(line), b"get");
        assert!(!words.has_forbidden);
        let rest: Vec<&[u8]> = words.by_ref().map(|word| word.of(line)).collect();
        assert_eq!(rest, [&b"a\tb"[..], b"c\0"]);
        assert!(words.has_forbidden);
        assert_eq!(words.next(), None);
        assert_eq!(Words::new(b"   ").next(), None);
    }
}
