//! The only byte-twiddling: finding line ends and reading integers, for both protocols.

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

/// The number in front of the first `CRLF` and the bytes up to the end of that `CRLF`, if it has one
/// to three digits without leading zeros. Nearly every length on the wire has; `None` says nothing.
#[inline]
#[must_use]
pub fn short_header(text: &[u8]) -> Option<(u32, usize)> {
    match *text {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a), 3)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => Some((10 * digit(a) + digit(b), 4)),
        [
            a @ b'1'..=b'9',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            b'\r',
            b'\n',
            ..,
        ] => Some((100 * digit(a) + 10 * digit(b) + digit(c), 5)),
        _ => None,
    }
}

#[inline(always)]
fn digit(byte: u8) -> u32 {
    u32::from(byte - b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(short_header(b"0\r\n"), Some((0, 3)));
        assert_eq!(short_header(b"12\r\nrest"), Some((12, 4)));
        assert_eq!(short_header(b"999\r\n"), Some((999, 5)));
        for other in [
            &b""[..],
            b"1",
            b"1\r",
            b"1\rx",
            b"01\r\n",
            b"-1\r\n",
            b"1000\r\n",
            b"1x\r\n",
        ] {
            assert_eq!(short_header(other), None, "{other:?}");
        }
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
