//! The twelve hash functions of `hash:`.

/// `hash:`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashKind {
    /// `one_at_a_time`
    OneAtATime,
    /// `md5`
    Md5,
    /// `crc16`
    Crc16,
    /// `crc32`
    Crc32,
    /// `crc32a`
    Crc32a,
    /// `fnv1_64`
    Fnv1x64,
    /// `fnv1a_64`
    Fnv1a64,
    /// `fnv1_32`
    Fnv1x32,
    /// `fnv1a_32`
    Fnv1a32,
    /// `hsieh`
    Hsieh,
    /// `murmur`
    Murmur,
    /// `jenkins`
    Jenkins,
}

impl HashKind {
    /// The hash of a key (already reduced to its hash tag).
    #[inline]
    #[must_use]
    pub fn hash(self, key: &[u8]) -> u32 {
        let _ = key;
        0
    }
}
