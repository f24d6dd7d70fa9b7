//! Every word that the proxy itself says in memcached's protocol: to clients, and to servers.
//!
//! The words depend on the table of commands and on what the engine knows. A client's bytes are echoed
//! only where the binary protocol wants it.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::commands::{COMMANDS, Shape};
use super::{Invalid, response};
use crate::limits::MEMCACHE_BINARY_HEADER_LEN;
use crate::num::to_u32;
use crate::proto::Request;

/// The question that any healthy server answers.
pub const PROBE: &[u8] = b"version\r\n";

/// The words to a client that may not come in.
pub const TOO_MANY_CLIENTS: &[u8] = b"ERROR Too many open connections\r\n";

/// Whether this is what [`PROBE`] is answered with.
#[must_use]
pub fn answers_probe(response: &[u8]) -> bool {
    response.starts_with(b"VERSION ")
}

/// Appends a failure of the proxy or of a server.
pub fn write_error(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SERVER_ERROR ");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Invalid {
    /// See [`crate::proto::Invalid::write`].
    pub fn write(self, frame: &[u8], out: &mut Vec<u8>) {
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
                out.extend_from_slice(COMMANDS[usize::from(command)].name.as_bytes());
                b"' is not supported by this proxy\r\n"
            }
            Self::Binary => return write_binary_error(frame, out),
            Self::Http => b"",
        };
        out.extend_from_slice(text);
    }
}

/// Appends the error frame of the binary protocol to a request that begins with this header, or with a
/// part of it.
fn write_binary_error(header: &[u8], out: &mut Vec<u8>) {
    const TEXT: &[u8] = b"The binary protocol is not supported";
    const RESPONSE: u8 = 0x81;
    const UNKNOWN_COMMAND: u8 = 0x81;
    let mut frame = [0; MEMCACHE_BINARY_HEADER_LEN];
    frame[0] = RESPONSE;
    frame[1] = header.get(1).copied().unwrap_or_default();
    frame[7] = UNKNOWN_COMMAND;
    frame[8..12].copy_from_slice(&to_u32(TEXT.len()).to_be_bytes());
    let opaque = header.get(12..16).unwrap_or_default();
    frame[12..12 + opaque.len()].copy_from_slice(opaque);
    out.extend_from_slice(&frame);
    out.extend_from_slice(TEXT);
}

/// See [`crate::proto::write_miss`].
pub fn write_miss(request: &Request, out: &mut Vec<u8>) -> bool {
    let miss: &[u8] = match COMMANDS[usize::from(request.command)].shape {
        Shape::Get | Shape::GetAndTouch => response::END,
        Shape::Store => b"NOT_STORED\r\n",
        // To memcached a key that is not there is not found even in a storage command.
        Shape::Cas | Shape::Arithmetic | Shape::Delete | Shape::Touch => b"NOT_FOUND\r\n",
        _ => return false,
    };
    out.extend_from_slice(miss);
    true
}

/// The figures of `stats`: known without a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Number of the process.
    pub process_id: u32,
    /// Seconds since the process started.
    pub uptime: u64,
    /// Seconds since 1970.
    pub wall_clock: u64,
    /// Clients of the pool.
    pub client_count: u32,
}

/// Appends the general statistics, or the empty list of any other kind. Clients read to `END`.
pub fn write_stats(is_general: bool, stats: &Stats, out: &mut Vec<u8>) {
    if is_general {
        for (name, value) in [
            ("pid", u64::from(stats.process_id)),
            ("uptime", stats.uptime),
            ("time", stats.wall_clock),
        ] {
            write_stat(name, &value.to_string(), out);
        }
        write_stat("version", env!("CARGO_PKG_VERSION"), out);
        write_stat("pointer_size", "64", out);
        write_stat("curr_connections", &stats.client_count.to_string(), out);
    }
    out.extend_from_slice(response::END);
}

fn write_stat(name: &str, value: &str, out: &mut Vec<u8>) {
    for text in ["STAT ", name, " ", value, "\r\n"] {
        out.extend_from_slice(text.as_bytes());
    }
}
