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
pub mod own;
pub mod request;
pub mod response;
pub mod split;
mod words;

/// Faults of a request; [`own`] has the words.
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
