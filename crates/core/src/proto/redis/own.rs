//! The words of the proxy's own on redis pools, and its verdicts on what servers say to it.
//!
//! Redis' own words for the same things stand where they are said ([`super::local`], `invalid`).

use alloc::vec::Vec;

use super::commands::{self, Reason};
use crate::proto::Request;

/// Said to each command of a transaction.
pub(super) const NO_TRANSACTIONS: &[u8] = b"-ERR transactions are not supported by this proxy\r\n";

/// Said to a command with keys after a SELECT that was refused.
pub(super) const NO_DATABASE: &[u8] =
    b"-ERR this proxy does not serve the database that was selected\r\n";

/// Said to a script after a SCRIPT DEBUG that was refused.
pub(super) const NO_DEBUGGER: &[u8] =
    b"-ERR debugging of scripts is not supported by this proxy\r\n";

/// Said to a request that is longer than `request_size_limit`.
pub(super) const TOO_LARGE: &[u8] = b"-ERR request is larger than request_size_limit\r\n";

/// Said to a client above `client_connections`, as redis says it.
pub(crate) const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

/// Appends a failure of the proxy or of a server.
pub(crate) fn write_error(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"-ERR ");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends why the command `name` is not served.
pub(super) fn write_refusal(name: &str, reason: Reason, out: &mut Vec<u8>) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"' is not supported by this proxy: ");
    out.extend_from_slice(reason.text().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends why a request whose keys depend on patterns is not served.
pub(crate) fn write_patterns_refused(request: &Request, out: &mut Vec<u8>) {
    write_refusal(commands::row(request.command).name, Reason::Patterns, out);
}

impl Reason {
    /// The end of the error text.
    const fn text(self) -> &'static str {
        match self {
            Self::Blocking => "it blocks a connection that clients share",
            Self::PubSub => "pub/sub needs a connection of its own",
            Self::Transaction => "transactions need a connection of their own",
            Self::Administration => "it administers a single server",
            Self::Keyspace => "it covers all keys of a single server",
            Self::Connection => "it concerns a connection that clients share",
            Self::Outward => "it makes a server connect elsewhere",
            Self::Patterns => "its patterns may name keys of several servers",
        }
    }
}

/// Appends `-CROSSSLOT ... (key: server, key: server)`. Keys are shown short and printable.
pub(crate) fn write_cross_slot(first: (&[u8], &[u8]), other: (&[u8], &[u8]), out: &mut Vec<u8>) {
    const SHOWN_MAX: usize = 64;
    let mut show = |bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(SHOWN_MAX)];
        out.extend(bytes.iter().map(|&b| {
            if b.is_ascii_graphic() || b == b' ' {
                b
            } else {
                b'?'
            }
        }));
    };
    for text in [
        b"-CROSSSLOT Keys in request don't hash to the same server (".as_slice(),
        first.0,
        b": ",
        first.1,
        b", ",
        other.0,
        b": ",
        other.1,
        b")",
    ] {
        show(text);
    }
    out.extend_from_slice(b"\r\n");
}

/// A server's state as its response tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// An ordinary reply or error: the server is healthy.
    Healthy,
    /// `-OOM`, `-BUSY`, `-LOADING`, `-MASTERDOWN`: passed on, counted as a failure.
    Failing,
}

/// Judges a response by its first bytes (as many as there are, up to 16 are needed).
#[inline]
#[must_use]
pub fn verdict(head: &[u8]) -> Verdict {
    let Some((b'-', text)) = head.split_first() else {
        return Verdict::Healthy;
    };
    let word = text
        .split(|&byte| matches!(byte, b' ' | b'\r'))
        .next()
        .unwrap_or_default();
    // `-BUSYKEY` and `-BUSYGROUP` are no failures: the word must be whole.
    match word {
        b"OOM" | b"BUSY" | b"LOADING" | b"MASTERDOWN" if word.len() < text.len() => {
            Verdict::Failing
        }
        _ => Verdict::Healthy,
    }
}

/// Whether the server's answer to our AUTH lets us go on: `+OK`, or one of the answers that say no
/// password is set there (redis before 6, redis since).
#[must_use]
pub fn auth_accepted(response: &[u8]) -> bool {
    response.starts_with(b"+")
        || response.starts_with(b"-ERR Client sent AUTH, but no password is set")
        || response.starts_with(
            b"-ERR AUTH <password> called without any password configured for the default user",
        )
}
