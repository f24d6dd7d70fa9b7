//! One response out of several.

use alloc::vec::Vec;

use super::response::{END, is_error, value_block_len};
use crate::num::to_usize;
use crate::proto::{self, FragmentResponse, Merge, Protocol, Run};

/// See [`crate::proto::merge`].
pub fn merge(how: Merge, runs: &[Run], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) {
    if let Some(error) = fragments.iter().find(|one| is_error(&one.bytes)) {
        out.extend_from_slice(&error.bytes);
        return;
    }
    let start = out.len();
    let merged = match how {
        Merge::Values => values(runs, fragments, out),
        Merge::Line => line(fragments, out),
        Merge::Array | Merge::Sum | Merge::Status | Merge::Nothing => {
            unreachable!("these are not merged here")
        }
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
fn values(runs: &[Run], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) -> Option<()> {
    let mut len = END.len();
    for fragment in fragments.iter_mut() {
        mark(fragment)?;
        len += fragment.bytes.len();
    }
    out.reserve(len);
    for run in runs {
        fragments[usize::from(run.fragment)].append_next(run.keys, out)?;
    }
    for FragmentResponse {
        bytes, marks, next, ..
    } in fragments
    {
        // More blocks than keys: odd, but the server did say so.
        out.extend_from_slice(bytes.strip_suffix(END)?.get(*marks.get(*next)?..)?);
    }
    out.extend_from_slice(END);
    Some(())
}

/// Finds where the blocks of a fragment's response begin and end, unless that is known; of those
/// behind the last that was asked for only that they are blocks. `None` if it is something else.
fn mark(fragment: &mut FragmentResponse) -> Option<()> {
    let FragmentResponse {
        bytes, keys, marks, ..
    } = fragment;
    if marks.is_empty() {
        let mut at = 0;
        marks.push(at);
        while bytes[at..] != *END {
            at += value_block_len(&bytes[at..])?;
            if marks.len() <= to_usize(*keys) {
                marks.push(at);
            }
        }
    }
    Some(())
}

/// The first response, if all are what `flush_all` and `verbosity` are answered with.
fn line(fragments: &[FragmentResponse], out: &mut Vec<u8>) -> Option<()> {
    let all_ok = fragments.iter().all(|one| one.bytes == b"OK\r\n");
    out.extend_from_slice(&fragments.first().filter(|_| all_ok)?.bytes);
    Some(())
}

#[cfg(test)]
mod tests;
