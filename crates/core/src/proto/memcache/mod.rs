//! The memcached text protocol.
//!
//! Source: memcached's protocol.txt and the behaviour of memcached 1.6.

pub mod local;
pub mod merge;
pub mod request;
pub mod response;
pub mod split;

use alloc::vec::Vec;

/// What is wrong with a request (being filled).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// `ERROR`
    Command,
}

impl Invalid {
    /// See [`super::Invalid::write`].
    pub fn write(self, frame: &[u8], out: &mut Vec<u8>) {
        let _ = frame;
        out.extend_from_slice(b"ERROR\r\n");
    }
}
