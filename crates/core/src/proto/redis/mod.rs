//! Redis: RESP2 arrays and inline commands from clients, RESP2 replies from servers.
//!
//! Source: the RESP specification and the behaviour of redis 7.0.

pub mod inline;
pub mod local;
pub mod merge;
pub mod request;
pub mod response;
pub mod split;

use alloc::vec::Vec;

/// What is wrong with a request (being filled).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// `-ERR Protocol error: ...`
    Protocol,
}

impl Invalid {
    /// See [`super::Invalid::write`].
    pub fn write(self, frame: &[u8], out: &mut Vec<u8>) {
        let _ = frame;
        out.extend_from_slice(b"-ERR Protocol error\r\n");
    }
}
