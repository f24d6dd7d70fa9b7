//! `GET key` and `SET key value`, recognised whole: most of the world's traffic.
//!
//! Nothing here decides anything. What is recognised is exactly what the general path would have
//! read; the split law proves it, because bytes that come one by one never get here.

use super::bulk::{self, Word};
use super::commands;
use crate::num::to_usize;
use crate::proto::{Request, Route};

/// The number of words and the length of the first.
const TWO_WORDS: u64 = u64::from_le_bytes(*b"*2\r\n$3\r\n");
const THREE_WORDS: u64 = u64::from_le_bytes(*b"*3\r\n$3\r\n");
/// From the length of the first word on.
const GET: u64 = u64::from_le_bytes(*b"3\r\nget\r\n");
const SET: u64 = u64::from_le_bytes(*b"3\r\nset\r\n");
/// Bit 5 of the three letters: blind to their case, and nothing else becomes one of them.
const LOWER: u64 = u64::from_le_bytes(*b"\0\0\0   \0\0");
/// `*2`, `$3`, `GET` and their line ends.
const NAME_END: u32 = 13;
/// As far as the header of the key may reach.
const HEAD_LEN: usize = to_usize(NAME_END) + 8;

/// The request at the front of `bytes`, if it is one of the two, whole, with short headers, and no
/// longer than `len_max`. `None` says nothing.
#[inline(always)]
pub(super) fn recognise(bytes: &[u8], len_max: u32) -> Option<Request> {
    let (words, name) = head(bytes)?;
    if words == TWO_WORDS && name == GET {
        let key = bulk::at(bytes, NAME_END)?;
        return request(commands::GET, true, key, key.raw.end, len_max);
    }
    if words == THREE_WORDS && name == SET {
        return set(bytes, len_max);
    }
    None
}

/// The requests at the front of `bytes`, as far as [`recognise`] knows them and `out` has room; how
/// many, and their bytes.
#[inline(never)]
pub(super) fn recognise_many(bytes: &[u8], len_max: u32, out: &mut [Request]) -> (usize, usize) {
    let (mut at, mut count) = (0, 0);
    for place in out {
        let rest = &bytes[at..];
        let Some((words, name)) = head(rest) else {
            break;
        };
        let found = if words == TWO_WORDS
            && name == GET
            && let Some(key) = bulk::two_digit_at(rest, NAME_END)
        {
            request(commands::GET, true, key, key.raw.end, len_max)
        } else {
            recognise_apart(rest, len_max)
        };
        let Some(found) = found else {
            break;
        };
        at += to_usize(found.len);
        count += 1;
        *place = found;
    }
    (count, at)
}

/// Apart, so that it costs the loop above no register.
#[inline(never)]
fn recognise_apart(bytes: &[u8], len_max: u32) -> Option<Request> {
    recognise(bytes, len_max)
}

#[inline(always)]
fn set(bytes: &[u8], len_max: u32) -> Option<Request> {
    let key = bulk::at(bytes, NAME_END)?;
    let value = bulk::at(bytes, key.raw.end)?;
    request(commands::SET, false, key, value.raw.end, len_max)
}

/// The number of words, and what follows, in lower case.
#[inline(always)]
fn head(bytes: &[u8]) -> Option<(u64, u64)> {
    let head = bytes.first_chunk::<HEAD_LEN>()?;
    let (words, _) = head.split_first_chunk::<8>()?;
    let (_, name) = head.split_last_chunk::<16>()?;
    let (name, _) = name.split_first_chunk::<8>()?;
    Some((
        u64::from_le_bytes(*words),
        u64::from_le_bytes(*name) | LOWER,
    ))
}

#[inline(always)]
fn request(command: u16, readonly: bool, key: Word, len: u32, len_max: u32) -> Option<Request> {
    (len <= len_max).then_some(Request {
        len,
        command,
        noreply: false,
        readonly,
        route: Route::Key(key.text),
    })
}

const _: () = assert!(to_usize(NAME_END) == b"*2\r\n$3\r\nGET\r\n".len());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::to_u32;
    use crate::proto::Span;

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
