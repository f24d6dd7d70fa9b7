//! Reading integers and the header lines that hold them, for both protocols.
//!
//! Many bytes at a time are looked at here and, for the ends of memcached's words, in `memcache::words`.

/// Reads ASCII digits only; `None` for an empty text, another byte, or a number above `u32::MAX`.
#[inline]
#[must_use]
pub fn digits_u32(text: &[u8]) -> Option<u32> {
    digits_u64(text).and_then(|n| u32::try_from(n).ok())
}

/// Reads ASCII digits only; `None` for an empty text, another byte, or a number above `u64::MAX`.
#[inline]
#[must_use]
pub fn digits_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |n, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Reads an integer as redis does: an optional `-`, then digits without leading zeros. `None` for
/// everything else, `-0` and numbers beyond `i64` included.
#[inline]
#[must_use]
pub fn canonical_i64(text: &[u8]) -> Option<i64> {
    match text {
        [b'0'] => Some(0),
        [b'-', digits @ ..] if starts_canonically(digits) => {
            0_i64.checked_sub_unsigned(digits_u64(digits)?)
        }
        digits if starts_canonically(digits) => i64::try_from(digits_u64(digits)?).ok(),
        _ => None,
    }
}

fn starts_canonically(digits: &[u8]) -> bool {
    matches!(digits, [b'1'..=b'9', ..])
}

/// The number in the header line that `line` begins with, and the line's length, if the line is
/// `kind`, one to three digits without leading zeros, and `CRLF`. Nearly every header on the wire is;
/// `None` says nothing.
#[inline]
#[must_use]
pub fn short_header(kind: u8, line: &[u8]) -> Option<(u32, u32)> {
    // Words instead of bytes: one load and few comparisons for each number of digits.
    let (head, rest) = line.split_first_chunk()?;
    let head = u32::from_le_bytes(*head);
    let kind = u32::from(kind);
    let (a, b) = (digit(head >> 8), digit(head >> 16));
    if head & 0xFFFF_00FF == (CRLF << 16) | kind {
        return (a <= 9).then_some((a, 4));
    }
    let &[c, d] = rest.first_chunk()?;
    let tail = u32::from(u16::from_le_bytes([c, d]));
    if head & 0xFF00_00FF == (CRLF << 24) | kind && tail & 0xFF == CRLF >> 8 {
        let is_number = a.wrapping_sub(1) <= 8 && b <= 9;
        return is_number.then(|| (10 * a + b, 5));
    }
    let c = digit(head >> 24);
    let is_number = a.wrapping_sub(1) <= 8 && b <= 9 && c <= 9;
    (is_number && head & 0xFF == kind && tail == CRLF).then(|| (100 * a + 10 * b + c, 6))
}

/// Like [`short_header`], quicker for one or two digits with at least eight bytes behind them: the
/// header of nearly every key and value.
///
/// The expected bytes are taken out with `^`, all at once. A digit leaves its value, at most 9,
/// and anything else leaves 10 or more: with 6 added or without, its high half is not 0.
#[inline(always)]
#[must_use]
pub fn likely_short_header(kind: u8, line: &[u8]) -> Option<(u32, u32)> {
    const ONE: u64 = u64::from_le_bytes(*b"\x000\r\n\0\0\0\0");
    if let Some(head) = line.first_chunk() {
        if let Some(number) = two_digit_header(kind, line) {
            return Some((number, 5));
        }
        let one = u64::from_le_bytes(*head) ^ u64::from(kind) ^ ONE;
        if (one | one.wrapping_add(0x0600)) & 0xFFFF_F0FF == 0 {
            return Some((low_byte(one >> 8), 4));
        }
    }
    short_header(kind, line)
}

/// The header line of the previous element. Most values of one response have the same length, so the next
/// header often equals it: then its length is known, and the CPU does not wait for the load.
#[derive(Clone, Copy, Debug)]
pub struct Known<T> {
    bytes: u64,
    mask: u64,
    meaning: T,
}

impl<T: Copy> Known<T> {
    /// The first `len` of `bytes`, from 1 to 8, mean `meaning`.
    #[inline(always)]
    #[must_use]
    pub fn new(bytes: [u8; 8], len: usize, meaning: T) -> Self {
        assert!((1..=8).contains(&len), "an empty line would be everywhere");
        let mask = u64::MAX >> (64 - 8 * len);
        Self {
            bytes: u64::from_le_bytes(bytes) & mask,
            mask,
            meaning,
        }
    }

    /// The meaning, if `line` begins with this header.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, line: &[u8; 8]) -> Option<T> {
        if u64::from_le_bytes(*line) & self.mask == self.bytes {
            Some(self.meaning)
        } else {
            None
        }
    }
}

/// Like [`likely_short_header`], for the commonest case alone: two digits.
#[inline(always)]
#[must_use]
pub fn two_digit_header(kind: u8, line: &[u8]) -> Option<u32> {
    const TWO: u64 = u64::from_le_bytes(*b"\x0000\r\n\0\0\0");
    let head = u64::from_le_bytes(*line.first_chunk()?);
    let head = head ^ (TWO | u64::from(kind));
    let (a, b) = (low_byte(head >> 8), low_byte(head >> 16));
    let is_header = (head | head.wrapping_add(0x06_0600)) & 0xFF_FFF0_F0FF == 0 && a != 0;
    is_header.then_some(10 * a + b)
}

#[inline(always)]
#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "one byte is left"
)]
const fn low_byte(bytes: u64) -> u32 {
    (bytes & 0xFF) as u32
}

const CRLF: u32 = u32::from_le_bytes(*b"\r\n\0\0");

/// The digit in the lowest byte; above 9 for what is no digit.
#[inline(always)]
const fn digit(bytes: u32) -> u32 {
    (bytes & 0xFF).wrapping_sub(0x30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::to_u32;
    use alloc::format;

    #[test]
    fn integers_are_read_as_strictly_as_redis_reads_them() {
        assert_eq!(canonical_i64(b"0"), Some(0));
        assert_eq!(canonical_i64(b"-1"), Some(-1));
        assert_eq!(canonical_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(canonical_i64(b"-9223372036854775808"), Some(i64::MIN));
        for bad in [
            &b""[..],
            b"-",
            b"-0",
            b"00",
            b"01",
            b"-01",
            b"+1",
            b" 1",
            b"1 ",
            b"1x",
            b"--1",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"99999999999999999999",
        ] {
            assert_eq!(canonical_i64(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn short_headers_are_numbers_of_up_to_three_digits_and_a_line_end() {
        assert_eq!(short_header(b'$', b"$0\r\n"), Some((0, 4)));
        assert_eq!(short_header(b'*', b"*12\r\nrest"), Some((12, 5)));
        assert_eq!(short_header(b':', b":999\r\n"), Some((999, 6)));
        assert_eq!(short_header(b'$', b"$0\r\n\r\n$1\r\n"), Some((0, 4)));
        assert_eq!(short_header(b'$', b"$12\r\nhello"), Some((12, 5)));
        assert_eq!(short_header(b'$', b"$345\r\nhello"), Some((345, 6)));
        for digits in 0..1000 {
            for tail in ["xy", "hello, world"] {
                let line = format!("${digits}\r\n{tail}");
                let exact = short_header(b'$', line.as_bytes());
                assert_eq!(exact, Some((digits, to_u32(line.len() - tail.len()))));
                assert_eq!(likely_short_header(b'$', line.as_bytes()), exact);
            }
        }
        for other in [
            &b""[..],
            b"$",
            b"$\r\n",
            b"$1",
            b"$1\r",
            b"$1\rx",
            b"$01\r\n",
            b"$001\r\n",
            b"$-1\r\n",
            b"$+1\r\n",
            b"$1x\r\n",
            b"$x\r\n",
            b"$10x\r\n",
            b"$1000\r\n",
            b"*1\r\n",
            b"*12\r\n",
            b"*123\r\n",
            b"$\xff\xff\xff\r\n",
        ] {
            assert_eq!(short_header(b'$', other), None, "{other:?}");
            let longer = [other, b"\0\0\0\0\0\0\0\0"].concat();
            assert_eq!(short_header(b'$', &longer), None, "{longer:?}");
            assert_eq!(likely_short_header(b'$', &longer), None, "{longer:?}");
        }
    }

    #[test]
    fn what_is_known_is_found_where_it_stands_and_nowhere_else() {
        let known = Known::new(*b"$12\r\nabc", 5, 12);
        assert_eq!(known.at(b"$12\r\nxyz"), Some(12));
        for other in [b"$13\r\nabc", b"$12\r\rabc", b"*12\r\nabc"] {
            assert_eq!(known.at(other), None);
        }
        assert_eq!(Known::new(*b"12345678", 8, 1).at(b"12345679"), None);
        assert_eq!(Known::new(*b"12345678", 1, 1).at(b"1xxxxxxx"), Some(1));
    }

    #[test]
    fn digits_are_all_there_may_be() {
        assert_eq!(digits_u32(b"0"), Some(0));
        assert_eq!(digits_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(digits_u32(b"4294967296"), None);
        assert_eq!(digits_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(digits_u64(b"18446744073709551616"), None);
        for bad in [&b""[..], b"-1", b"+1", b" 1", b"1 ", b"0x1"] {
            assert_eq!(digits_u64(bad), None);
        }
    }
}
