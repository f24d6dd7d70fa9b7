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

#[cfg(test)]
mod tests {
    use super::*;

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
