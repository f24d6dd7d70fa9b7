//! `GET key` and `SET key value`, recognised whole: most of the world's traffic.
//!
//! Nothing here decides anything. What is recognised is exactly what the general path would have
//! read; the split law proves it, because bytes that come one by one never get here.

use super::commands::{GET, SET};
use crate::num::to_usize;
use crate::proto::{Request, Route, Span, scan};

/// The number of words and the length of the first.
const TWO_WORDS: u64 = u64::from_le_bytes(*b"*2\r\n$3\r\n");
const THREE_WORDS: u64 = u64::from_le_bytes(*b"*3\r\n$3\r\n");
const GET_CR: u32 = u32::from_le_bytes(*b"get\r");
const SET_CR: u32 = u32::from_le_bytes(*b"set\r");
/// Bit 5 of the three letters: blind to their case, and nothing else becomes one of them.
const LOWER: u32 = 0x0020_2020;
/// `*2`, `$3`, `GET` and their line ends.
const NAME_END: u32 = 13;

/// The request at the front of `bytes`, if it is one of the two, whole, with short headers, and no
/// longer than `len_max`. `None` says nothing.
#[inline(always)]
pub(super) fn recognise(bytes: &[u8], len_max: u32) -> Option<Request> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let (name, rest) = rest.split_first_chunk::<4>()?;
    let name = u32::from_le_bytes(*name) | LOWER;
    if rest.first() != Some(&b'\n') {
        return None;
    }
    let (command, readonly, key, end) = match (u64::from_le_bytes(*head), name) {
        (TWO_WORDS, GET_CR) => {
            let key = word(bytes, NAME_END)?;
            (GET, true, key, key.end)
        }
        (THREE_WORDS, SET_CR) => {
            let key = word(bytes, NAME_END)?;
            (SET, false, key, word(bytes, key.end + 2)?.end)
        }
        _ => return None,
    };
    let len = end + 2;
    (len <= len_max).then_some(Request {
        len,
        command,
        noreply: false,
        readonly,
        route: Route::Key(key),
    })
}

/// The word whose header begins at `at`, if it and its line end are there.
#[inline(always)]
fn word(bytes: &[u8], at: u32) -> Option<Span> {
    let (len, header_len) = scan::likely_short_header(b'$', bytes.get(to_usize(at)..)?)?;
    let start = at + header_len;
    let end = start + len;
    let after = bytes.get(to_usize(end)..)?.first_chunk::<2>()?;
    (after == b"\r\n").then_some(Span { start, end })
}

const _: () = assert!(to_usize(NAME_END) == b"*2\r\n$3\r\nGET\r\n".len());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::to_u32;

    #[test]
    fn only_the_two_commands_are_recognised_and_only_whole() {
        let get = b"*2\r\n$3\r\nGeT\r\n$2\r\nab\r\n";
        let request = recognise(get, 1000).unwrap();
        assert_eq!(to_usize(request.len), get.len());
        assert_eq!(request.route, Route::Key(Span { start: 17, end: 19 }));
        let set = b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n";
        assert_eq!(recognise(set, 1000).unwrap().len, to_u32(set.len()) - 4);
        for end in 0..get.len() {
            assert_eq!(recognise(&get[..end], 1000), None);
        }
        assert_eq!(recognise(get, to_u32(get.len()) - 1), None);
        for other in [
            &b"*2\r\n$3\r\nSET\r\n$2\r\nab\r\n"[..],
            b"*2\r\n$3\r\nTTL\r\n$2\r\nab\r\n",
            b"*2\r\n$3\r\nGET\n\n$2\r\nab\r\n",
            b"*2\r\n$3\r\nGET\r\n$2\r\nabc\n",
            b"*2\r\n$3\r\nGET\r\n$02\r\nab\r\n",
        ] {
            assert_eq!(recognise(other, 1000), None);
        }
    }
}
