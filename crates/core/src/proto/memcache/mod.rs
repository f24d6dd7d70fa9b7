//! The memcached text protocol.
//!
//! Source: memcached's protocol.txt and the behaviour of memcached 1.6.18, against which every
//! answer here was compared byte for byte; 1.6.40 and later word some errors otherwise.
//!
//! Nothing is sent to a server that it could read differently than we did, whatever its version from 1.4
//! on: a line that versions disagree about (long numbers, a key called `noreply`, leading blanks) is
//! composed anew or refused. `tests/memcache_grammar.rs` asks the servers.

pub mod commands;
mod line;
pub mod local;
pub mod merge;
pub mod request;
pub mod response;
pub mod split;
mod words;

use alloc::vec::Vec;

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// Unknown command, or a wrong number of words.
    Command,
    /// A key or number that cannot be.
    Format,
    /// `delete` with words that it does not take.
    DeleteUsage,
    /// The expiry time of a command without a data block.
    Exptime,
    /// The number of `incr` or `decr`.
    Delta,
    /// No line end after the data block.
    DataChunk,
    /// The frame is above the size limit.
    TooLarge,
    /// The line is longer than memcached reads.
    LineTooLong,
    /// `flush_all` in a pool that does not allow it.
    FlushNotAllowed,
    /// A command of [`commands::COMMANDS`] that the proxy cannot serve.
    Unsupported(u16),
    /// The first byte says binary protocol.
    Binary,
    /// A web browser, or somebody who makes one talk to us. Gets no answer, as in memcached.
    Http,
}

impl Invalid {
    /// See [`super::Invalid::write`].
    pub fn write(self, frame: &[u8], out: &mut Vec<u8>) {
        // The words depend on the table alone: nothing a client sent is ever echoed.
        let _ = frame;
        let text: &[u8] = match self {
            Self::Command => b"ERROR\r\n",
            Self::Format => b"CLIENT_ERROR bad command line format\r\n",
            Self::DeleteUsage => {
                b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
            }
            Self::Exptime => b"CLIENT_ERROR invalid exptime argument\r\n",
            Self::Delta => b"CLIENT_ERROR invalid numeric delta argument\r\n",
            Self::DataChunk => b"CLIENT_ERROR bad data chunk\r\n",
            Self::TooLarge => b"SERVER_ERROR object too large for cache\r\n",
            Self::LineTooLong => b"CLIENT_ERROR line too long\r\n",
            Self::FlushNotAllowed => b"CLIENT_ERROR flush_all not allowed\r\n",
            Self::Unsupported(command) => {
                out.extend_from_slice(b"CLIENT_ERROR '");
                let command = &commands::COMMANDS[usize::from(command)];
                out.extend_from_slice(command.name.as_bytes());
                b"' is not supported by this proxy\r\n"
            }
            Self::Binary => b"CLIENT_ERROR the binary protocol is not supported\r\n",
            Self::Http => b"",
        };
        out.extend_from_slice(text);
    }
}
