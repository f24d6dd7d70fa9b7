//! The twelve hash functions of `hash:`, bit for bit as twemproxy 0.5 on x86-64 computes them.
//!
//! Each function below is private and may rely on a key of at least one byte;
//! [`HashKind::hash`] is the only way in and holds the rule for the empty key.
//!
//! Several of them are not what their name promises (a truncated FNV, a CRC of 15 bits, another of
//! more than 16). They stay that way: a corrected function would move every user's keys.

use core::num::Wrapping;

use md5::{Digest, Md5};

use crate::num::{to_u32, to_usize};
use crate::words::configured_word;

configured_word! {
    /// `hash:`
    pub enum HashKind {
        /// Bob Jenkins' one-at-a-time.
        OneAtATime = "one_at_a_time",
        /// The first word of an MD5 digest.
        Md5 = "md5",
        /// CRC-16/XMODEM with the state's upper bits left in.
        Crc16 = "crc16",
        /// Fifteen bits of CRC-32: values up to 32767 only.
        Crc32 = "crc32",
        /// CRC-32.
        Crc32a = "crc32a",
        /// The low half of 64-bit FNV-1.
        Fnv1x64 = "fnv1_64",
        /// The low half of 64-bit FNV-1a; the default.
        Fnv1a64 = "fnv1a_64",
        /// 32-bit FNV-1.
        Fnv1x32 = "fnv1_32",
        /// 32-bit FNV-1a.
        Fnv1a32 = "fnv1a_32",
        /// Paul Hsieh's SuperFastHash, started at 0.
        Hsieh = "hsieh",
        /// MurmurHash2 with a seed made from the length.
        Murmur = "murmur",
        /// Bob Jenkins' lookup3.
        Jenkins = "jenkins",
    }
}

impl HashKind {
    /// The hash of a key (already reduced to its hash tag).
    #[inline]
    #[must_use]
    pub fn hash(self, key: &[u8]) -> u32 {
        // compat: an empty key is 0 whatever the function.
        if key.is_empty() {
            return 0;
        }
        if self == Self::Fnv1a64 {
            return fnv1a(key, FNV_64);
        }
        self.hash_any(key)
    }

    /// [`Self::Fnv1a64`], the default.
    #[inline(always)]
    pub(crate) fn fnv1a_64(key: &[u8]) -> u32 {
        // compat: an empty key is 0 whatever the function.
        if key.is_empty() {
            0
        } else {
            fnv1a(key, FNV_64)
        }
    }

    /// Kept apart from the default, which nearly everybody uses.
    #[inline(never)]
    fn hash_any(self, key: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time(key),
            Self::Md5 => md5(key),
            Self::Crc16 => crc16(key),
            Self::Crc32 => crc32(key),
            Self::Crc32a => crc32a(key),
            Self::Fnv1x64 => fnv1(key, FNV_64),
            Self::Fnv1a64 => fnv1a(key, FNV_64),
            Self::Fnv1x32 => fnv1(key, FNV_32),
            Self::Fnv1a32 => fnv1a(key, FNV_32),
            Self::Hsieh => hsieh(key),
            Self::Murmur => murmur(key),
            Self::Jenkins => jenkins(key),
        }
    }
}

/// A byte as a C `char` of x86-64 becomes an unsigned number: sign first, then width.
// compat: keys with bytes from 0x80 on hash like this on every platform of ours.
#[inline(always)]
fn sign_extended(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut v = Wrapping(0);
    for &byte in key {
        v += sign_extended(byte);
        v += v << 10;
        v ^= v >> 6;
    }
    v += v << 3;
    v ^= v >> 11;
    v += v << 15;
    v.0
}

fn md5(key: &[u8]) -> u32 {
    md5_words(key)[0]
}

/// An MD5 digest as four little-endian numbers: one hash, or four points of a ketama ring.
pub(super) fn md5_words(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    let (words, _) = digest.as_chunks();
    [0, 1, 2, 3].map(|i| u32::from_le_bytes(words[i]))
}

fn crc16(key: &[u8]) -> u32 {
    // compat: 32 bits of state, never masked to 16.
    key.iter().fold(0, |crc, &byte| {
        (crc << 8) ^ CRC16_TABLE[to_usize(((crc >> 8) ^ u32::from(byte)) & 0xff)]
    })
}

fn crc32(key: &[u8]) -> u32 {
    // compat: the upper half without its top bit, as libmemcached has it.
    (crc32a(key) >> 16) & 0x7fff
}

fn crc32a(key: &[u8]) -> u32 {
    !key.iter().fold(!0, |crc, &byte| {
        (crc >> 8) ^ CRC32_TABLE[to_usize((crc ^ u32::from(byte)) & 0xff)]
    })
}

/// Offset basis and prime of an FNV.
struct Fnv {
    offset: u32,
    prime: u32,
}

// compat: the 64-bit constants cut to 32 bits before the first multiplication.
const FNV_64: Fnv = Fnv {
    offset: 0x8422_2325,
    prime: 0x1b3,
};

const FNV_32: Fnv = Fnv {
    offset: 0x811c_9dc5,
    prime: 0x0100_0193,
};

#[inline(always)]
fn fnv1(key: &[u8], fnv: Fnv) -> u32 {
    let step = |h: u32, &byte: &u8| h.wrapping_mul(fnv.prime) ^ sign_extended(byte);
    fold_by_eights(key, fnv.offset, step)
}

#[inline(always)]
fn fnv1a(key: &[u8], fnv: Fnv) -> u32 {
    let step = |h: u32, &byte: &u8| (h ^ sign_extended(byte)).wrapping_mul(fnv.prime);
    fold_by_eights(key, fnv.offset, step)
}

/// A fold over all bytes, unrolled: keys are short, and the loop would cost as much as the step.
#[inline(always)]
fn fold_by_eights(key: &[u8], start: u32, step: impl Fn(u32, &u8) -> u32) -> u32 {
    let (blocks, tail) = key.as_chunks::<8>();
    let h = blocks
        .iter()
        .fold(start, |h, block| block.iter().fold(h, &step));
    tail.iter().fold(h, &step)
}

fn hsieh(key: &[u8]) -> u32 {
    let half = |low, high| Wrapping(u32::from(u16::from_le_bytes([low, high])));
    let (blocks, tail) = key.as_chunks::<4>();

    // compat: upstream's function starts with the length.
    let mut h = Wrapping(0);
    for &[a, b, c, d] in blocks {
        h += half(a, b);
        let t = (half(c, d) << 11) ^ h;
        h = (h << 16) ^ t;
        h += h >> 11;
    }
    match *tail {
        [a, b, c] => {
            h += half(a, b);
            h ^= h << 16;
            h ^= Wrapping(sign_extended(c)) << 18;
            h += h >> 11;
        }
        [a, b] => {
            h += half(a, b);
            h ^= h << 11;
            h += h >> 17;
        }
        [a] => {
            h += u32::from(a);
            h ^= h << 10;
            h += h >> 1;
        }
        _ => {}
    }
    h ^= h << 3;
    h += h >> 5;
    h ^= h << 4;
    h += h >> 17;
    h ^= h << 25;
    h += h >> 6;
    h.0
}

fn murmur(key: &[u8]) -> u32 {
    const M: Wrapping<u32> = Wrapping(0x5bd1_e995);
    const R: usize = 24;
    let length = Wrapping(to_u32(key.len()));
    let (blocks, tail) = key.as_chunks();

    // compat: the seed itself depends on the length.
    let seed = Wrapping(0xdead_beef_u32) * length;
    let mut h = seed ^ length;
    for &block in blocks {
        let mut k = Wrapping(u32::from_le_bytes(block)) * M;
        k ^= k >> R;
        h = (h * M) ^ (k * M);
    }
    if !tail.is_empty() {
        h ^= little_endian(tail);
        h *= M;
    }
    h ^= h >> 13;
    h *= M;
    h ^= h >> 15;
    h.0
}

fn jenkins(key: &[u8]) -> u32 {
    const BLOCK: usize = 12;
    const INITIAL_VALUE: u32 = 13;
    let length = to_u32(key.len());
    let start = Wrapping(0xdead_beef) + Wrapping(length) + Wrapping(INITIAL_VALUE);

    // The last block, full or not, is finished instead of mixed: one byte at least is kept for it.
    let mut words = [start; 3];
    let mut rest = key;
    while rest.len() > BLOCK {
        let (block, after) = rest.split_at(BLOCK);
        words = jenkins_mixed(jenkins_added(words, block));
        rest = after;
    }
    jenkins_finished(jenkins_added(words, rest))
}

#[inline(always)]
fn jenkins_added(mut words: [Wrapping<u32>; 3], block: &[u8]) -> [Wrapping<u32>; 3] {
    for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
        *word += little_endian(bytes);
    }
    words
}

/// The published mixing is one step repeated with the three words changing places.
#[inline(always)]
fn jenkins_mixed([mut a, mut b, mut c]: [Wrapping<u32>; 3]) -> [Wrapping<u32>; 3] {
    for turn in [4, 6, 8, 16, 19, 4] {
        a = (a - c) ^ Wrapping(c.0.rotate_left(turn));
        c += b;
        (a, b, c) = (b, c, a);
    }
    [a, b, c]
}

/// As above; the step that is repeated starts with the third word, and ends with it.
#[inline(always)]
fn jenkins_finished([mut b, mut c, mut a]: [Wrapping<u32>; 3]) -> u32 {
    for turn in [14, 11, 25, 16, 4, 14, 24] {
        a = (a ^ c) - Wrapping(c.0.rotate_left(turn));
        (a, b, c) = (b, c, a);
    }
    c.0
}

/// Up to four bytes as a little-endian number; missing ones are 0.
#[inline(always)]
fn little_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| (word << 8) | u32::from(byte))
}

/// Table of CRC-16/XMODEM: polynomial 0x1021, not reflected.
const CRC16_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[to_usize(byte)] = crc & 0xffff;
        byte += 1;
    }
    table
};

/// Table of the usual CRC-32: polynomial 0x04c11db7, reflected.
const CRC32_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 {
                crc >> 1
            } else {
                (crc >> 1) ^ 0xedb8_8320
            };
            bit += 1;
        }
        table[to_usize(byte)] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_name_and_is_found_by_it() {
        assert_eq!(HashKind::ALL.len(), 12);
        for &(name, kind) in HashKind::ALL {
            assert_eq!(kind.name(), name);
            assert_eq!(HashKind::from_name(name), Some(kind));
        }
        for wrong in ["", "FNV1A_64", "fnv1a_64 ", "crc"] {
            assert_eq!(HashKind::from_name(wrong), None);
        }
    }

    // C57
    #[test]
    fn an_empty_key_hashes_to_zero() {
        for &(name, kind) in HashKind::ALL {
            assert_eq!(kind.hash(b""), 0, "{name}");
        }
    }

    #[test]
    fn a_char_has_a_sign() {
        assert_eq!(sign_extended(0x7f), 0x7f);
        assert_eq!(sign_extended(0x80), 0xffff_ff80);
        assert_eq!(sign_extended(0xff), 0xffff_ffff);
    }

    // C58
    #[test]
    fn crc16_keeps_more_than_sixteen_bits_and_crc32_fifteen() {
        // The check values of the true CRCs over this string are 0x31c3 and 0xcbf43926.
        assert_eq!(HashKind::Crc16.hash(b"123456789") & 0xffff, 0x31c3);
        assert!(HashKind::Crc16.hash(b"123456789") > 0xffff);
        assert_eq!(HashKind::Crc32a.hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(HashKind::Crc32.hash(b"123456789"), 0x4bf4);
    }

    #[test]
    fn a_full_last_block_of_jenkins_is_finished_and_not_mixed() {
        // lookup3 publishes no values for this initial value, so the boundary is stated as a law:
        // one block of twelve bytes goes through the finish only.
        let words = [Wrapping(0xdead_beef_u32) + Wrapping(12) + Wrapping(13); 3];
        let expected = jenkins_finished(jenkins_added(words, b"twelve bytes"));
        assert_eq!(HashKind::Jenkins.hash(b"twelve bytes"), expected);
    }
}
