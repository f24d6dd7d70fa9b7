//! Redis: RESP2 arrays and inline commands from clients, RESP2 replies from servers.
//!
//! Source: the RESP specification and the behaviour of redis 7.0.
//!
//! | module | knows |
//! |---|---|
//! | `commands` | the command table: how each command is served, where its keys stand |
//! | `bulk` | one whole bulk string |
//! | `words` | the words of a complete request |
//! | `keys` | which words of a request are keys |
//! | [`request`], [`inline`] | where a request ends |
//! | `fast`, `many` | the commonest whole requests: where they end and what they are |
//! | `classify` | what a complete request is, and where it goes |
//! | `invalid` | redis' words for what is wrong with a request |
//! | [`response`] | where a response ends |
//! | [`split`], [`merge`] | requests for several servers |
//! | [`local`] | what the proxy answers itself |
//! | `session` | what it remembers of a client, and which requests that lets pass |
//! | [`own`] | the words it says that are not redis' |

mod bulk;
mod classify;
mod commands;
#[rustfmt::skip] // generated
mod commands_table;
mod fast;
pub mod inline;
mod invalid;
mod keys;
pub mod local;
mod many;
pub mod merge;
pub mod own;
pub mod request;
pub mod response;
mod session;
pub mod split;
mod words;

use alloc::vec::Vec;

pub use invalid::Invalid;

/// Whether a client may read the responses behind an error in place of this command's response wrongly, so that
/// it is to be closed after such an error.
#[must_use]
pub fn closes_on_error(command: u16) -> bool {
    commands::is_scan(command)
}

/// Appends a bulk string.
fn write_bulk(text: &[u8], out: &mut Vec<u8>) {
    write_header(b'$', text.len(), out);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Appends a header line: the length of a bulk string or the size of an array.
fn write_header(kind: u8, n: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}
