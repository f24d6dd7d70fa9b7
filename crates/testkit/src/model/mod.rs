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
fn line<'a>(bytes: &'a [u8], end: &[u8]) -> Option<(&'a [u8], usize)> {
    let at = bytes.windows(end.len()).position(|part| part == end)?;
    Some((&bytes[..at], at + end.len()))
}

/// A decimal number in the one way of writing it that redis takes: no sign but `-`, no leading zero.
fn canonical_number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [b'0'] => text == b"0",
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|_| is_canonical)
}
