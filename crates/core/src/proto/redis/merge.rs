//! One response out of several.

use alloc::vec::Vec;

use super::response::ResponseParser;
use crate::num::to_usize;
use crate::proto::{
    FragmentResponse, Merge, Protocol, ResponseStep, Run, redis::words::write_array_header, scan,
    write_error,
};

/// See [`crate::proto::merge`].
pub fn merge(how: Merge, runs: &[Run], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) {
    if let Some(failed) = fragments
        .iter()
        .find(|fragment| fragment.bytes.first() == Some(&b'-'))
    {
        out.extend_from_slice(&failed.bytes);
        return;
    }
    let start = out.len();
    let merged = match how {
        Merge::Array => merge_arrays(runs, fragments, out),
        Merge::Sum => merge_sums(fragments, out),
        Merge::Status => merge_statuses(fragments, out),
        Merge::Values | Merge::Line | Merge::Nothing => panic!("these are not merged here"),
    };
    if merged.is_none() {
        out.truncate(start);
        write_error(Protocol::Redis, "Invalid argument", out);
    }
}

/// Takes each key's element from the fragment that asked for it. `None`: some fragment is no array
/// of as many bulk strings as it had keys.
fn merge_arrays(runs: &[Run], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) -> Option<()> {
    let (mut keys, mut len) = (0, 0);
    for fragment in fragments.iter_mut() {
        mark(fragment)?;
        keys += to_usize(fragment.keys);
        len += fragment.bytes.len();
    }
    out.reserve(len + HEADER_LEN_MAX);
    write_array_header(keys, out);
    for run in runs {
        fragments[usize::from(run.fragment)].append_next(run.keys, out)?;
    }
    Some(())
}

/// Finds where the elements of a fragment's response begin and end, unless that is known. `None` if it
/// is not the array that was asked for.
fn mark(fragment: &mut FragmentResponse) -> Option<()> {
    let FragmentResponse {
        bytes, keys, marks, ..
    } = fragment;
    if marks.is_empty() {
        let is_array = bytes.starts_with(b"*") && !bytes.starts_with(b"*-");
        let mut at = memchr::memchr(b'\n', bytes).filter(|_| is_array)? + 1;
        marks.push(at);
        while let rest @ [kind, ..] = &bytes[at..] {
            if *kind != b'$' || marks.len() > to_usize(*keys) {
                return None;
            }
            let ResponseStep::Done(len) = ResponseParser::default().step(rest) else {
                return None;
            };
            at += len;
            marks.push(at);
        }
    }
    (marks.len() == to_usize(*keys) + 1).then_some(())
}

/// Bytes of the longest array header.
const HEADER_LEN_MAX: usize = b"*4294967295\r\n".len();

fn merge_sums(fragments: &[FragmentResponse], out: &mut Vec<u8>) -> Option<()> {
    let mut sum = 0_i64;
    for fragment in fragments {
        let text = fragment.bytes.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
        sum = sum.checked_add(scan::canonical_i64(text)?)?;
    }
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(sum).as_bytes());
    out.extend_from_slice(b"\r\n");
    Some(())
}

fn merge_statuses(fragments: &[FragmentResponse], out: &mut Vec<u8>) -> Option<()> {
    let first = fragments.first()?;
    let all_are = fragments
        .iter()
        .all(|fragment| fragment.bytes.starts_with(b"+"));
    all_are.then(|| out.extend_from_slice(&first.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tests::split_by;

    fn merged(how: Merge, order: &[u16], fragments: &[&[u8]]) -> Vec<u8> {
        let merged = |is_marked| {
            let (runs, mut fragments) = split_by(Protocol::Redis, order, fragments, is_marked);
            let mut out = b"before".to_vec();
            merge(how, &runs, &mut fragments, &mut out);
            out.split_off(6)
        };
        let marked = merged(true);
        assert_eq!(marked, merged(false));
        marked
    }

    const INVALID: &[u8] = b"-ERR Invalid argument\r\n";

    #[test]
    fn arrays_are_put_together_in_key_order() {
        assert_eq!(
            merged(
                Merge::Array,
                &[1, 0, 1, 1],
                &[
                    b"*1\r\n$1\r\na\r\n",
                    b"*3\r\n$-1\r\n$2\r\n\r\n\r\n$0\r\n\r\n"
                ],
            ),
            b"*4\r\n$-1\r\n$1\r\na\r\n$2\r\n\r\n\r\n$0\r\n\r\n"
        );
    }

    #[test]
    fn an_array_of_another_shape_is_invalid() {
        for fragment in [
            &b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"[..],
            b"*0\r\n",
            b"*-1\r\n",
            b":1\r\n",
            b"+OK\r\n",
            b"$1\r\na\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n*1\r\n$1\r\na\r\n",
        ] {
            assert_eq!(
                merged(Merge::Array, &[0, 1], &[b"*1\r\n$1\r\na\r\n", fragment]),
                INVALID,
                "{fragment:?}"
            );
        }
    }

    #[test]
    fn integers_are_summed() {
        assert_eq!(
            merged(Merge::Sum, &[0, 1, 0], &[b":2\r\n", b":4294967296\r\n"]),
            b":4294967298\r\n"
        );
        for other in [&b"+OK\r\n"[..], b"$1\r\n1\r\n", b":9223372036854775807\r\n"] {
            assert_eq!(merged(Merge::Sum, &[0, 1], &[b":1\r\n", other]), INVALID);
        }
    }

    #[test]
    fn the_first_status_speaks_for_all() {
        assert_eq!(
            merged(Merge::Status, &[0, 1], &[b"+OK\r\n", b"+FINE\r\n"]),
            b"+OK\r\n"
        );
        assert_eq!(
            merged(Merge::Status, &[0, 1], &[b"+OK\r\n", b":1\r\n"]),
            INVALID
        );
    }

    #[test]
    fn the_first_error_passes_unchanged() {
        for how in [Merge::Array, Merge::Sum, Merge::Status] {
            assert_eq!(
                merged(
                    how,
                    &[0, 1, 2],
                    &[b"?\r\n", b"-OOM no\r\n", b"-ERR other\r\n"]
                ),
                b"-OOM no\r\n"
            );
        }
    }
}
