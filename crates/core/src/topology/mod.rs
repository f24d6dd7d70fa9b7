//! Which server owns a key, bit for bit as twemproxy 0.5 on x86-64 says.
//!
//! The part of the key that counts ([`tag`]) is hashed ([`hash`]), and a [`Placement`] built from the
//! live servers names the owner of the hash. Nothing here knows why a server is not live, and
//! nothing is ever changed in place: an ejection builds a new placement.
//!
//! Answers are part of the contract with users, whose data lies where the last release put it. The
//! golden answers of a real twemproxy (`tests/golden_ring.rs`) hold them; quirks are marked
//! `compat:`.

pub mod hash;
mod ketama;
mod modula;
mod placement;
mod random;
pub mod tag;

pub use hash::HashKind;
pub use placement::{Distribution, Placement, Point, RingServer};
