//! One response out of several.

use alloc::vec::Vec;

use super::response::{is_error, value_block_len};
use crate::proto::{self, FragmentResponse, Merge, Protocol};

/// See [`crate::proto::merge`].
pub fn merge(how: Merge, order: &[u16], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) {
    if let Some(error) = fragments.iter().find(|one| is_error(&one.bytes)) {
        out.extend_from_slice(&error.bytes);
        return;
    }
    let start = out.len();
    let merged = match how {
        Merge::Values => values(order, fragments, out),
        Merge::Line => line(fragments, out),
        Merge::Array | Merge::Sum | Merge::Status => unreachable!("redis merges these"),
    };
    if merged.is_none() {
        out.truncate(start);
        proto::write_error(Protocol::Memcache, "Invalid argument", out);
    }
}

/// All `VALUE` blocks and one `END`; `None` if a response is something else.
///
/// compat: keys are not compared. For each key of the request its fragment's next block is taken,
/// so misses may change the order of blocks of different servers; each block names its key.
fn values(order: &[u16], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) -> Option<()> {
    for run in order.chunk_by(|a, b| a == b) {
        next_blocks(&mut fragments[usize::from(run[0])], run.len(), out)?;
    }
    for fragment in fragments {
        // More blocks than keys: odd, but the server did say so.
        next_blocks(fragment, usize::MAX, out)?;
    }
    out.extend_from_slice(END);
    Some(())
}

/// Appends the fragment's next blocks, `count` of them or as many as come before its `END`; `None` at
/// anything else.
fn next_blocks(fragment: &mut FragmentResponse, count: usize, out: &mut Vec<u8>) -> Option<()> {
    let rest = fragment.bytes.get(fragment.cursor..)?;
    let mut len = 0;
    for _ in 0..count {
        if rest[len..] == *END {
            break;
        }
        len += value_block_len(&rest[len..])?;
    }
    out.extend_from_slice(&rest[..len]);
    fragment.cursor += len;
    Some(())
}

/// The first response, if all are what `flush_all` and `verbosity` are answered with.
fn line(fragments: &[FragmentResponse], out: &mut Vec<u8>) -> Option<()> {
    let all_ok = fragments.iter().all(|one| one.bytes == b"OK\r\n");
    out.extend_from_slice(&fragments.first().filter(|_| all_ok)?.bytes);
    Some(())
}

const END: &[u8] = b"END\r\n";

#[cfg(test)]
mod tests;
