//! Redis as redis 7.0 speaks it (checked against 7.0.15), and a store of strings.

use std::collections::BTreeMap;

use super::{Measure, canonical_number, line};

/// Words of one request; more is a protocol error.
const ARGS_MAX: i64 = 1024 * 1024;
/// Bytes of one bulk string.
const BULK_MAX: i64 = 512 * 1024 * 1024;

/// The meaning of the front of a client's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A request as an array.
    Array {
        /// Its words, at least one.
        words: Vec<Vec<u8>>,
        /// Its bytes.
        len: usize,
    },
    /// A request as a line.
    Inline {
        /// Its words, at least one.
        words: Vec<Vec<u8>>,
        /// Its bytes, line end included.
        len: usize,
    },
    /// This many bytes mean nothing: an empty line or array.
    Nothing {
        /// The bytes.
        len: usize,
    },
    /// It goes on.
    Unfinished,
    /// A protocol error; the text after `-ERR Protocol error: ` where it is redis' own.
    Broken(Option<String>),
    /// A way to end the connection without a word: HTTP.
    Hangup,
    /// No opinion.
    Unpinned,
}

/// Reads the first frame.
#[must_use]
pub fn request(bytes: &[u8]) -> Frame {
    match bytes.first() {
        None => Frame::Unfinished,
        Some(b'*') => array(bytes),
        Some(_) => inline(bytes),
    }
}

fn array(bytes: &[u8]) -> Frame {
    let (count, mut at) = match header(bytes, "invalid multibulk length") {
        Ok(header) => header,
        Err(frame) => return frame,
    };
    if count > ARGS_MAX {
        return broken("invalid multibulk length");
    }
    if count <= 0 {
        return Frame::Nothing { len: at };
    }
    let mut words = Vec::new();
    for _ in 0..count {
        // Redis looks at a header when its line is there.
        let Some((text, _)) = line(&bytes[at..], b"\r\n") else {
            return unfinished_header(&bytes[at..], b'$');
        };
        match text.first() {
            Some(b'$') => {}
            Some(other) if other.is_ascii_graphic() && !text.contains(&b'\r') => {
                return broken(&format!("expected '$', got '{}'", char::from(*other)));
            }
            // How redis shows a byte that is no letter is not worth copying.
            _ => return Frame::Unpinned,
        }
        let (len, header_len) = match header(&bytes[at..], "invalid bulk length") {
            Ok(header) => header,
            Err(frame) => return frame,
        };
        if !(0..=BULK_MAX).contains(&len) {
            return broken("invalid bulk length");
        }
        let start = at + header_len;
        let end = start + usize::try_from(len).expect("checked");
        if bytes.len() < end + 2 {
            // A wrong line end may already be visible.
            let wrong = bytes.get(end).is_some_and(|&byte| byte != b'\r');
            return if wrong {
                Frame::Unpinned
            } else {
                Frame::Unfinished
            };
        }
        if &bytes[end..end + 2] != b"\r\n" {
            // Redis skips the two bytes whatever they are; we need not.
            return Frame::Unpinned;
        }
        words.push(bytes[start..end].to_vec());
        at = end + 2;
    }
    Frame::Array { words, len: at }
}

/// The number of a header line and the line's length.
fn header(bytes: &[u8], complaint: &str) -> Result<(i64, usize), Frame> {
    let Some((text, len)) = line(bytes, b"\r\n") else {
        return Err(unfinished_header(bytes, bytes[0]));
    };
    if text.contains(&b'\r') || text.len() > 20 {
        return Err(Frame::Unpinned);
    }
    canonical_number(&text[1..])
        .map(|number| (number, len))
        .ok_or_else(|| broken(complaint))
}

/// A header line without its end. Nonsense, or more than any number takes, may be called that before
/// the end arrives, or later.
fn unfinished_header(bytes: &[u8], kind: u8) -> Frame {
    let digits = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let plausible = digits.iter().skip(1).all(u8::is_ascii_digit);
    if bytes.first().is_none_or(|&first| first == kind) && plausible && bytes.len() < 20 {
        Frame::Unfinished
    } else {
        Frame::Unpinned
    }
}

fn inline(bytes: &[u8]) -> Frame {
    let Some((mut text, len)) = line(bytes, b"\n") else {
        return Frame::Unfinished;
    };
    text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.contains(&0) || text.contains(&b'\r') {
        return Frame::Unpinned;
    }
    match split_words(text) {
        None => broken("unbalanced quotes in request"),
        Some(words) if words.is_empty() => Frame::Nothing { len },
        Some(words) => match words[0].to_ascii_lowercase().as_slice() {
            b"post" | b"host:" => Frame::Hangup,
            _ => Frame::Inline { words, len },
        },
    }
}

fn broken(text: &str) -> Frame {
    Frame::Broken(Some(text.to_owned()))
}

/// Splits a line into words as redis does: double quotes with escapes, single quotes with `\'`.
/// `None`: a quote is not closed, or is closed in the middle of a word.
#[must_use]
pub fn split_words(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        while rest.first().is_some_and(|&byte| is_space(byte)) {
            rest = &rest[1..];
        }
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after;
    }
}

fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Some((word, rest)),
            // Fewer than are skipped between words: the other two are part of a word.
            [b' ' | b'\t' | b'\n' | b'\r', ..] => return Some((word, rest)),
            [b'"', after @ ..] => {
                let after = double_quoted(after, &mut word)?;
                return at_word_end(after).then_some((word, after));
            }
            [b'\'', after @ ..] => {
                let after = single_quoted(after, &mut word)?;
                return at_word_end(after).then_some((word, after));
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn at_word_end(rest: &[u8]) -> bool {
    rest.first().is_none_or(|&byte| is_space(byte))
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digits = [*high, *low];
                let text = std::str::from_utf8(&digits).expect("ASCII");
                word.push(u8::from_str_radix(text, 16).expect("two hex digits"));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

/// C's `isspace` in the C locale.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// The work that a request asks of a sharding proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// It is for the owners of these keys.
    Keys(Vec<Vec<u8>>),
    /// It is refused, and the connection goes on.
    Refused,
    /// No opinion: a command the store does not know.
    Unpinned,
}

/// Judges the commands of [`Store`].
#[must_use]
pub fn meaning(words: &[Vec<u8>]) -> Meaning {
    let keys: Vec<Vec<u8>> = match words[0].to_ascii_lowercase().as_slice() {
        // Other mistakes in their arity are left to the server.
        b"get" | b"set" | b"incr" | b"append" | b"strlen" => {
            words[1..].iter().take(1).cloned().collect()
        }
        b"del" | b"unlink" | b"touch" | b"exists" | b"mget" => words[1..].to_vec(),
        b"mset" if words.len() % 2 == 1 => words[1..].iter().step_by(2).cloned().collect(),
        b"mset" => Vec::new(),
        _ => return Meaning::Unpinned,
    };
    if keys.is_empty() {
        Meaning::Refused
    } else {
        Meaning::Keys(keys)
    }
}

/// A request as an array of bulk strings.
#[must_use]
pub fn array_of<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(bulk(word.as_ref()));
    }
    bytes
}

/// One bulk string.
#[must_use]
pub fn bulk(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 16);
    bytes.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    bytes.extend_from_slice(text);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// How far the first reply of a server reaches (RESP2).
#[must_use]
pub fn measure_reply(bytes: &[u8]) -> Measure {
    let Some(kind) = bytes.first() else {
        return Measure::More;
    };
    if !b"+-:$*".contains(kind) {
        return Measure::Broken;
    }
    let Some((text, len)) = line(bytes, b"\r\n") else {
        return Measure::More;
    };
    match kind {
        // Half a line end within a line is damage, no redis sends it.
        _ if text.contains(&b'\r') || text.contains(&b'\n') => Measure::Broken,
        b'+' | b'-' => Measure::Done(len),
        b':' => match canonical_number(&text[1..]) {
            Some(_) => Measure::Done(len),
            None => Measure::Broken,
        },
        _ => match canonical_number(&text[1..]) {
            Some(-1) => Measure::Done(len),
            Some(count) if count >= 0 => {
                let count = usize::try_from(count).expect("checked");
                if *kind == b'$' {
                    measure_bulk(bytes, len, count)
                } else {
                    measure_elements(bytes, len, count)
                }
            }
            _ => Measure::Broken,
        },
    }
}

fn measure_bulk(bytes: &[u8], start: usize, count: usize) -> Measure {
    let Some(end) = bytes.get(start + count..) else {
        return Measure::More;
    };
    match end {
        [b'\r', b'\n', ..] => Measure::Done(start + count + 2),
        [] | [b'\r'] => Measure::More,
        _ => Measure::Broken,
    }
}

fn measure_elements(bytes: &[u8], start: usize, count: usize) -> Measure {
    let mut at = start;
    for _ in 0..count {
        match measure_reply(&bytes[at..]) {
            Measure::Done(len) => at += len,
            other => return other,
        }
    }
    Measure::Done(at)
}

/// A redis that knows strings only.
#[derive(Clone, Debug, Default)]
pub struct Store {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Store {
    /// Executes a request and answers with redis' bytes.
    pub fn apply(&mut self, words: &[Vec<u8>]) -> Vec<u8> {
        let name = words[0].to_ascii_lowercase();
        let name = std::str::from_utf8(&name).unwrap_or_default();
        match (name, &words[1..]) {
            ("get", [key]) => self.value(key),
            ("set", [key, value]) => {
                self.values.insert(key.clone(), value.clone());
                ok()
            }
            ("mget", keys @ [_, ..]) => {
                let mut reply = format!("*{}\r\n", keys.len()).into_bytes();
                for key in keys {
                    reply.extend_from_slice(&self.value(key));
                }
                reply
            }
            ("mset", pairs @ [_, _, ..]) if pairs.len() % 2 == 0 => {
                for pair in pairs.chunks(2) {
                    self.values.insert(pair[0].clone(), pair[1].clone());
                }
                ok()
            }
            ("del" | "unlink", keys @ [_, ..]) => number(
                keys.iter()
                    .filter(|key| self.values.remove(*key).is_some())
                    .count(),
            ),
            ("exists" | "touch", keys @ [_, ..]) => number(
                keys.iter()
                    .filter(|key| self.values.contains_key(*key))
                    .count(),
            ),
            ("incr", [key]) => self.increment(key),
            ("append", [key, more]) => {
                let value = self.values.entry(key.clone()).or_default();
                value.extend_from_slice(more);
                number(value.len())
            }
            ("strlen", [key]) => number(self.values.get(key).map_or(0, Vec::len)),
            (
                "get" | "set" | "mget" | "mset" | "del" | "unlink" | "exists" | "touch" | "incr"
                | "append" | "strlen",
                _,
            ) => format!("-ERR wrong number of arguments for '{name}' command\r\n").into_bytes(),
            _ => panic!("the model does not know {name}"),
        }
    }

    fn value(&self, key: &[u8]) -> Vec<u8> {
        self.values
            .get(key)
            .map_or_else(|| b"$-1\r\n".to_vec(), |value| bulk(value))
    }

    fn increment(&mut self, key: &[u8]) -> Vec<u8> {
        let old = self.values.get(key).map_or(&b"0"[..], |value| value);
        let Some(old) = canonical_number(old) else {
            return b"-ERR value is not an integer or out of range\r\n".to_vec();
        };
        let Some(new) = old.checked_add(1) else {
            return b"-ERR increment or decrement would overflow\r\n".to_vec();
        };
        self.values
            .insert(key.to_vec(), new.to_string().into_bytes());
        format!(":{new}\r\n").into_bytes()
    }
}

fn ok() -> Vec<u8> {
    b"+OK\r\n".to_vec()
}

fn number(n: usize) -> Vec<u8> {
    format!(":{n}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vertical_tab_separates_words_only_beside_another_blank() {
        let words = |text: &[u8]| split_words(text).unwrap();
        assert_eq!(words(b"a \x0bb"), [b"a", b"b"]);
        assert_eq!(words(b"a\x0bb"), [b"a\x0bb"]);
    }

    #[test]
    fn quotes_and_escapes_split_as_in_redis() {
        let words = split_words(br#"SET a "\x41\n\q" 'it\'s \n' x"#).unwrap();
        let expected: [&[u8]; 5] = [b"SET", b"a", b"A\nq", b"it's \\n", b"x"];
        assert_eq!(words, expected);
        assert_eq!(split_words(br#""a"b"#), None);
        assert_eq!(split_words(b"'a"), None);
        assert_eq!(split_words(b" \t "), Some(vec![]));
    }

    #[test]
    fn frames_end_where_their_lengths_say() {
        let frame = request(b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\nrest");
        let words = vec![b"GET".to_vec(), b"\r\n".to_vec()];
        assert_eq!(frame, Frame::Array { words, len: 21 });
        assert_eq!(request(b"*2\r\n$3\r\nGET\r\n"), Frame::Unfinished);
        assert_eq!(request(b"*0\r\n"), Frame::Nothing { len: 4 });
        assert_eq!(request(b"*01\r\n"), broken("invalid multibulk length"));
        assert_eq!(request(b"*1\r\n:1\r\n"), broken("expected '$', got ':'"));
    }

    #[test]
    fn nested_replies_are_measured() {
        let reply = b"*2\r\n*1\r\n$-1\r\n$1\r\nx\r\n";
        assert_eq!(measure_reply(reply), Measure::Done(reply.len()));
        for cut in 0..reply.len() {
            assert_eq!(measure_reply(&reply[..cut]), Measure::More);
        }
        assert_eq!(measure_reply(b"$1\r\nxy"), Measure::Broken);
    }
}
