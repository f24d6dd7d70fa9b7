//! Parsers and stores so plain that they are right by reading them: slow, recursive, copying, and
//! sharing no code with the core crate. Where servers are lax in ways nobody relies on and our
//! choice is free, they say [`redis::Frame::Unpinned`] (or alike) instead of guessing.

pub mod memcache;
pub mod redis;

/// How far the first message of some bytes reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// This many bytes.
    Done(usize),
    /// Further than the bytes do.
    More,
    /// No such message begins like that.
    Broken,
}

/// The line that `bytes` start with, without its end, and the length with it.
fn line(bytes: &[u8], end: &[u8]) -> Option<(Vec<u8>, usize)> {
    (0..bytes.len())
        .find(|&at| bytes[at..].starts_with(end))
        .map(|at| (bytes[..at].to_vec(), at + end.len()))
}

/// A decimal number in the one way of writing it that redis takes: no sign but `-`, no leading zero.
fn canonical_number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}
