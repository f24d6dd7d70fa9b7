//! Which server owns a key, bit for bit as twemproxy 0.5 on x86-64 says.

pub mod hash;
pub mod tag;

use alloc::vec::Vec;

pub use hash::HashKind;

/// `distribution:`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distribution {
    /// Consistent hashing with weighted points.
    Ketama,
    /// Hash modulo the servers, each repeated weight times.
    Modula,
    /// A random server for each key.
    Random,
}

/// What a ring must know of a server.
#[derive(Clone, Copy, Debug)]
pub struct RingServer<'a> {
    /// The name hashed for ketama points.
    pub name: &'a str,
    /// Weight, at least 1.
    pub weight: u32,
    /// Whether it takes part; an ejected server does not.
    pub live: bool,
}

/// The built structure: replaced whole when a server is ejected or restored, never changed in place.
#[derive(Clone, Debug)]
pub struct Ring {
    points: Vec<u32>,
}

impl Ring {
    /// Builds the ring of the live ones among `servers` (in server index order).
    #[must_use]
    pub fn build(distribution: Distribution, servers: &[RingServer<'_>]) -> Self {
        let _ = (distribution, servers);
        Self { points: Vec::new() }
    }

    /// Position in `servers` of the owner of `hash`; with [`Distribution::Random`], `hash` is the
    /// caller's random number. `None` if no server is live.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u32) -> Option<u32> {
        self.points.first().map(|_| hash)
    }
}
