//! The memcached text protocol as memcached 1.6 speaks it (checked against 1.6.18 to 1.6.45), and a store.

use std::collections::BTreeMap;

use super::{Measure, line};

/// Bytes of a key.
const KEY_MAX: usize = 250;
/// Bytes of a line that is certainly short enough.
const LINE_SAFE: usize = 1000;

/// The meaning of the front of a client's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A whole request.
    Request {
        /// The words of its line.
        words: Vec<Vec<u8>>,
        /// Its data block, for storage commands.
        data: Vec<u8>,
        /// Its keys; empty for `version` and alike.
        keys: Vec<Vec<u8>>,
        /// Whether it wants no answer.
        noreply: bool,
        /// Its bytes.
        len: usize,
    },
    /// A line that is refused with these words; the connection goes on after `len` bytes.
    Refused {
        /// The reply, line end included.
        reply: &'static [u8],
        /// The bytes, with the announced data block if there is one.
        len: usize,
    },
    /// `quit`
    Quit {
        /// Its bytes.
        len: usize,
    },
    /// It goes on.
    Unfinished,
    /// No opinion.
    Unpinned,
}

const ERROR: &[u8] = b"ERROR\r\n";
const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";
const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";

/// Reads the first request.
#[must_use]
pub fn request(bytes: &[u8]) -> Frame {
    // The binary protocol, or blanks that may be dropped as they come.
    if bytes.is_empty() {
        return Frame::Unfinished;
    }
    if matches!(bytes.trim_ascii_start().first(), None | Some(0x80)) && !bytes.contains(&b'\n') {
        return Frame::Unpinned;
    }
    if bytes.iter().find(|byte| **byte != b' ') == Some(&0x80) {
        return Frame::Unpinned;
    }
    let Some((mut text, len)) = line(bytes, b"\n") else {
        return if bytes.len() < LINE_SAFE {
            Frame::Unfinished
        } else {
            Frame::Unpinned
        };
    };
    text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() >= LINE_SAFE || text.iter().any(u8::is_ascii_control) {
        return Frame::Unpinned;
    }
    let words: Vec<Vec<u8>> = text
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    let Some(name) = words.first() else {
        return Frame::Refused { reply: ERROR, len };
    };
    if words.last().is_some_and(|last| last.starts_with(b"HTTP/")) {
        return Frame::Unpinned;
    }
    match name.as_slice() {
        b"get" | b"gets" => retrieval(words, 1, len),
        b"gat" | b"gats" => retrieval(words, 2, len),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" => storage(bytes, words, 5, len),
        b"cas" => storage(bytes, words, 6, len),
        b"delete" => keyed(words, 2, len),
        b"incr" | b"decr" | b"touch" => keyed(words, 3, len),
        b"version" if words.len() == 1 => whole(words, Vec::new(), 1, len),
        b"quit" if words.len() == 1 => Frame::Quit { len },
        name if name.iter().all(u8::is_ascii_lowercase) && !KNOWN.contains(&name) => {
            Frame::Refused { reply: ERROR, len }
        }
        _ => Frame::Unpinned,
    }
}

/// Names with a meaning in memcached, or with a special answer in the proxy.
const KNOWN: [&[u8]; 22] = [
    b"version",
    b"quit",
    b"stats",
    b"flush_all",
    b"verbosity",
    b"mg",
    b"ms",
    b"md",
    b"ma",
    b"mn",
    b"me",
    b"bget",
    b"lru",
    b"slabs",
    b"watch",
    b"shutdown",
    b"misbehave",
    b"debug",
    b"lru_crawler",
    b"cache_memlimit",
    b"refresh_certs",
    b"extstore",
];

fn retrieval(words: Vec<Vec<u8>>, before: usize, len: usize) -> Frame {
    let keys = words.get(before..).unwrap_or_default();
    if keys.is_empty() {
        // With an expiry time alone memcached looks at that first, or at the number of words.
        return if before == 1 || words.len() == 1 {
            Frame::Refused { reply: ERROR, len }
        } else {
            Frame::Unpinned
        };
    }
    if before == 2 && words[1].len() > 10 {
        return Frame::Unpinned;
    }
    if before == 2 && signed(&words[1]).is_none() {
        return Frame::Refused {
            reply: BAD_EXPTIME,
            len,
        };
    }
    if keys.iter().any(|key| key.len() > KEY_MAX) {
        return Frame::Refused {
            reply: BAD_FORMAT,
            len,
        };
    }
    Frame::Request {
        keys: keys.to_vec(),
        words,
        data: Vec::new(),
        noreply: false,
        len,
    }
}

fn keyed(words: Vec<Vec<u8>>, arity: usize, len: usize) -> Frame {
    if words.len() < arity {
        return Frame::Refused { reply: ERROR, len };
    }
    if !has_plain_tail(&words, arity) {
        return Frame::Unpinned;
    }
    if words[1].len() > KEY_MAX {
        // Whether a refusal may be silent is pinned elsewhere.
        return if words.last().is_some_and(|last| last == b"noreply") {
            Frame::Unpinned
        } else {
            Frame::Refused {
                reply: BAD_FORMAT,
                len,
            }
        };
    }
    if words.len() == 2 && words[1] == b"noreply" {
        return Frame::Refused {
            reply: BAD_FORMAT,
            len,
        };
    }
    let complaint = match words[0].as_slice() {
        b"touch" | b"incr" | b"decr" if words[2].len() > 10 => Some(BAD_FORMAT),
        b"touch" if signed(&words[2]).is_none() => Some(BAD_EXPTIME),
        b"incr" | b"decr" if unsigned(&words[2]).is_none() => Some(BAD_DELTA),
        _ => None,
    };
    if complaint.is_some() {
        // The server words it or we do: the same bytes, but forwarded or not.
        return Frame::Unpinned;
    }
    whole(words, Vec::new(), arity, len)
}

fn storage(bytes: &[u8], words: Vec<Vec<u8>>, arity: usize, line_len: usize) -> Frame {
    if words.len() < arity {
        return Frame::Unpinned;
    }
    let (Some(flags), Some(_), Some(count)) = (
        unsigned(&words[2]),
        signed(&words[3]),
        unsigned(&words[4]).and_then(|count| usize::try_from(count).ok()),
    ) else {
        return Frame::Unpinned;
    };
    let cas_fits = arity == 5 || unsigned(&words[5]).is_some();
    let digits = words[2..].iter().all(|word| word.len() <= 10);
    let short = count < 1 << 30 && flags < 1 << 32 && digits;
    if !short || !cas_fits || !has_plain_tail(&words, arity) {
        return Frame::Unpinned;
    }
    let end = line_len + count;
    if words[1].len() > KEY_MAX {
        return if words.len() > arity || bytes.len() < end + 2 {
            Frame::Unpinned
        } else {
            Frame::Refused {
                reply: BAD_FORMAT,
                len: end + 2,
            }
        };
    }
    match bytes.get(end..) {
        None | Some([] | [b'\r']) => Frame::Unfinished,
        Some([b'\r', b'\n', ..]) => {
            let data = bytes[line_len..end].to_vec();
            whole(words, data, arity, end + 2)
        }
        Some(_) => Frame::Unpinned,
    }
}

/// Whether nothing or just `noreply` follows the arguments.
fn has_plain_tail(words: &[Vec<u8>], arity: usize) -> bool {
    match &words[arity..] {
        [] => true,
        [last] => last == b"noreply",
        _ => false,
    }
}

fn whole(words: Vec<Vec<u8>>, data: Vec<u8>, arity: usize, len: usize) -> Frame {
    Frame::Request {
        keys: words.get(1).into_iter().cloned().collect(),
        noreply: words.len() > arity,
        words,
        data,
        len,
    }
}

fn unsigned(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn signed(text: &[u8]) -> Option<i32> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    unsigned(digits)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// How far the first response of a server reaches. Values repeat until `END`.
#[must_use]
pub fn measure_response(bytes: &[u8]) -> Measure {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some((text, len)) = line(rest, b"\r\n") else {
            return Measure::More;
        };
        // No memcached sends more than one blank, or a bare line feed or carriage return.
        if text.iter().any(|byte| b"\r\n".contains(byte)) {
            return Measure::Broken;
        }
        let words: Vec<&[u8]> = text.split(|&byte| byte == b' ').collect();
        match words.as_slice() {
            [b"VALUE", arguments @ ..] => {
                let Some(data_len) = value_data_len(arguments) else {
                    return Measure::Broken;
                };
                let end = len + data_len;
                match rest.get(end..) {
                    None | Some([] | [b'\r']) => return Measure::More,
                    Some([b'\r', b'\n', ..]) => at += end + 2,
                    Some(_) => return Measure::Broken,
                }
            }
            [b"END"] => return Measure::Done(at + len),
            // Every other line is a whole response: after a value it would be another client's.
            _ if at > 0 => return Measure::Broken,
            words if is_response_line(words) => return Measure::Done(len),
            _ => return Measure::Broken,
        }
    }
}

/// Reads `<key> <flags> <bytes> [<cas>]`.
fn value_data_len(arguments: &[&[u8]]) -> Option<usize> {
    let [key, flags, count, cas @ ..] = arguments else {
        return None;
    };
    let numbers = unsigned(flags).is_some() && cas.iter().all(|cas| unsigned(cas).is_some());
    if key.is_empty() || !numbers || cas.len() > 1 {
        return None;
    }
    // No memcached has larger ones.
    let count = u32::try_from(unsigned(count)?).ok()?;
    usize::try_from(count).ok()
}

/// Whether a line is a response by itself.
fn is_response_line(words: &[&[u8]]) -> bool {
    match words {
        // One that has too many connections says why after `ERROR`.
        [
            b"VERSION" | b"CLIENT_ERROR" | b"SERVER_ERROR" | b"ERROR",
            ..,
        ] => true,
        [
            b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND" | b"DELETED" | b"TOUCHED" | b"OK",
        ] => true,
        [number] => unsigned(number).is_some(),
        _ => false,
    }
}

/// A memcached without time: what has a negative exptime is gone at once, the rest stays.
#[derive(Clone, Debug, Default)]
pub struct Store {
    items: BTreeMap<Vec<u8>, Item>,
    last_cas: u64,
}

#[derive(Clone, Debug)]
struct Item {
    flags: Vec<u8>,
    data: Vec<u8>,
    cas: u64,
}

impl Store {
    /// Executes a request of [`request`] and answers with memcached's bytes, none for `noreply`.
    pub fn apply(&mut self, words: &[Vec<u8>], data: &[u8], noreply: bool) -> Vec<u8> {
        let name = std::str::from_utf8(&words[0]).unwrap_or_default();
        let reply = match name {
            "get" | "gets" => self.values(&words[1..], name == "gets"),
            "set" | "add" | "replace" | "append" | "prepend" | "cas" => self.put(name, words, data),
            "delete" => match self.items.remove(&words[1]) {
                Some(_) => b"DELETED\r\n".to_vec(),
                None => b"NOT_FOUND\r\n".to_vec(),
            },
            "incr" | "decr" => self.count(name, &words[1], &words[2]),
            "touch" => self.touch(&words[1], &words[2]),
            _ => panic!("the model does not know {name}"),
        };
        if noreply { Vec::new() } else { reply }
    }

    fn values(&self, keys: &[Vec<u8>], with_cas: bool) -> Vec<u8> {
        let mut reply = Vec::new();
        for key in keys {
            let Some(item) = self.items.get(key) else {
                continue;
            };
            reply.extend_from_slice(b"VALUE ");
            reply.extend_from_slice(key);
            reply.push(b' ');
            reply.extend_from_slice(&item.flags);
            reply.extend_from_slice(format!(" {}", item.data.len()).as_bytes());
            if with_cas {
                reply.extend_from_slice(format!(" {}", item.cas).as_bytes());
            }
            reply.extend_from_slice(b"\r\n");
            reply.extend_from_slice(&item.data);
            reply.extend_from_slice(b"\r\n");
        }
        reply.extend_from_slice(b"END\r\n");
        reply
    }

    fn put(&mut self, name: &str, words: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
        let key = &words[1];
        let old = self.items.get(key);
        let refusal: Option<&[u8]> = match (name, old) {
            ("add", Some(_)) | ("replace" | "append" | "prepend", None) => Some(b"NOT_STORED\r\n"),
            ("cas", None) => Some(b"NOT_FOUND\r\n"),
            ("cas", Some(item)) if unsigned(&words[5]) != Some(item.cas) => Some(b"EXISTS\r\n"),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return refusal.to_vec();
        }
        let (flags, data) = match (name, old) {
            ("append", Some(item)) => (item.flags.clone(), [&item.data, data].concat()),
            ("prepend", Some(item)) => (item.flags.clone(), [data, &item.data].concat()),
            _ => (words[2].clone(), data.to_vec()),
        };
        self.last_cas += 1;
        let cas = self.last_cas;
        self.items.insert(key.clone(), Item { flags, data, cas });
        // memcached ignores the exptime of these two, as it does their flags.
        let keeps_exptime = matches!(name, "append" | "prepend");
        if words[3].starts_with(b"-") && !keeps_exptime {
            self.items.remove(key);
        }
        b"STORED\r\n".to_vec()
    }

    fn count(&mut self, name: &str, key: &[u8], delta: &[u8]) -> Vec<u8> {
        let Some(delta) = unsigned(delta) else {
            return BAD_DELTA.to_vec();
        };
        let Some(item) = self.items.get_mut(key) else {
            return b"NOT_FOUND\r\n".to_vec();
        };
        // strtoull skips blanks and stops at the next one.
        let number = item.data.trim_ascii_start();
        let number = number
            .split(u8::is_ascii_whitespace)
            .next()
            .unwrap_or(number);
        let Some(old) = unsigned(number).filter(|_| !number.is_empty()) else {
            return b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n".to_vec();
        };
        let new = if name == "incr" {
            old.wrapping_add(delta)
        } else {
            old.saturating_sub(delta)
        };
        self.last_cas += 1;
        item.cas = self.last_cas;
        // memcached never shortens a number in place: it pads with blanks.
        let width = item.data.len();
        item.data = format!("{new:<width$}").into_bytes();
        format!("{new}\r\n").into_bytes()
    }

    fn touch(&mut self, key: &[u8], exptime: &[u8]) -> Vec<u8> {
        if signed(exptime).is_none() {
            return BAD_EXPTIME.to_vec();
        }
        if !self.items.contains_key(key) {
            return b"NOT_FOUND\r\n".to_vec();
        }
        if exptime.starts_with(b"-") {
            self.items.remove(key);
        }
        b"TOUCHED\r\n".to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_block_may_hold_line_ends() {
        let bytes = b"set k 1 -1 4 noreply\r\n\r\n\r\n\r\nget";
        let Frame::Request {
            data, noreply, len, ..
        } = request(bytes)
        else {
            panic!("{:?}", request(bytes));
        };
        assert_eq!(
            (data.as_slice(), noreply, len),
            (&b"\r\n\r\n"[..], true, 28)
        );
        for cut in 0..len {
            assert_eq!(request(&bytes[..cut]), Frame::Unfinished, "{cut}");
        }
    }

    #[test]
    fn refused_lines_say_so_in_memcached_s_words() {
        let refused = |bytes: &[u8], reply, len| {
            assert_eq!(request(bytes), Frame::Refused { reply, len });
        };
        refused(b"foo bar\r\nx", ERROR, 9);
        refused(b"\r\n", ERROR, 2);
        refused(b"get\r\n", ERROR, 5);
        let long = [b"get ".as_slice(), &[b'k'; 251], b"\r\n"].concat();
        refused(&long, BAD_FORMAT, long.len());
    }

    #[test]
    fn values_are_measured_by_their_lengths() {
        let response = b"VALUE a 0 5\r\nEND\r\n\r\nVALUE b 1 0 77\r\n\r\nEND\r\n";
        assert_eq!(measure_response(response), Measure::Done(response.len()));
        for cut in 0..response.len() {
            assert_eq!(measure_response(&response[..cut]), Measure::More);
        }
        assert_eq!(measure_response(b"hello\r\n"), Measure::Broken);
        let huge = b"VALUE a 0 18446744073709551615\r\n";
        assert_eq!(measure_response(huge), Measure::Broken);
    }

    #[test]
    fn nothing_but_another_value_or_the_end_follows_a_value() {
        for line in ["7", "STORED", "ERROR", "SERVER_ERROR x", "VERSION 1"] {
            let alone = format!("{line}\r\n");
            assert_eq!(
                measure_response(alone.as_bytes()),
                Measure::Done(alone.len())
            );
            let after = format!("VALUE a 0 1\r\nx\r\n{alone}");
            assert_eq!(measure_response(after.as_bytes()), Measure::Broken);
        }
    }
}
