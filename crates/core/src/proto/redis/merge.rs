//! One response out of several.

use alloc::vec::Vec;

use super::response::ResponseParser;
use crate::proto::{
    FragmentResponse, Merge, Protocol, ResponseStep, redis::words::write_array_header, scan,
    write_error,
};

/// See [`crate::proto::merge`].
pub fn merge(how: Merge, order: &[u16], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) {
    if let Some(failed) = fragments
        .iter()
        .find(|fragment| fragment.bytes.first() == Some(&b'-'))
    {
        out.extend_from_slice(&failed.bytes);
        return;
    }
    let start = out.len();
    let merged = match how {
        Merge::Array => merge_arrays(order, fragments, out),
        Merge::Sum => merge_sums(fragments, out),
        Merge::Status => merge_statuses(fragments, out),
        Merge::Values | Merge::Line => panic!("memcached's merges are not ours"),
    };
    if merged.is_none() {
        out.truncate(start);
        write_error(Protocol::Redis, "Invalid argument", out);
    }
}

/// Takes each key's element from the fragment that asked for it. `None`: some fragment is no array
/// of as many bulk strings as it had keys.
fn merge_arrays(
    order: &[u16],
    fragments: &mut [FragmentResponse],
    out: &mut Vec<u8>,
) -> Option<()> {
    for fragment in fragments.iter_mut() {
        let end = memchr::memchr(b'\n', &fragment.bytes)? + 1;
        let is_array = fragment.bytes.starts_with(b"*") && !fragment.bytes.starts_with(b"*-");
        fragment.cursor = is_array.then_some(end)?;
    }
    write_array_header(order.len(), out);
    // Elements that follow each other in one fragment are copied together.
    for run in order.chunk_by(|a, b| a == b) {
        let fragment = &mut fragments[usize::from(run[0])];
        let rest = &fragment.bytes[fragment.cursor..];
        let len = bulks_len(rest, run.len())?;
        out.extend_from_slice(&rest[..len]);
        fragment.cursor += len;
    }
    fragments
        .iter()
        .all(|fragment| fragment.cursor == fragment.bytes.len())
        .then_some(())
}

/// The length of the `count` bulk strings that `bytes` begin with.
fn bulks_len(bytes: &[u8], count: usize) -> Option<usize> {
    let mut len = 0;
    for _ in 0..count {
        let rest = &bytes[len..];
        if rest.first() != Some(&b'$') {
            return None;
        }
        let ResponseStep::Done(one) = ResponseParser::default().step(rest) else {
            return None;
        };
        len += one;
    }
    Some(len)
}

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

    fn merged(how: Merge, order: &[u16], fragments: &[&[u8]]) -> Vec<u8> {
        let mut fragments: Vec<FragmentResponse> = fragments
            .iter()
            .map(|bytes| FragmentResponse {
                bytes: bytes.to_vec(),
                cursor: 0,
            })
            .collect();
        let mut out = b"before".to_vec();
        merge(how, order, &mut fragments, &mut out);
        out.split_off(6)
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
