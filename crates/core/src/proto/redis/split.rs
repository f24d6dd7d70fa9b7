//! Keys of multi-key requests, and the fragments they become.

use alloc::vec::Vec;

use super::bulk::Word;
use super::commands::{self, Keys, Serve};
use super::keys::{self, Located};
use super::words::{Command, read_head, write_array_header};
use super::write_bulk;
use crate::num::to_usize;
use crate::proto::{Part, Request, Span};

/// See [`crate::proto::parts`].
pub fn parts(frame: &[u8], request: &Request, out: &mut Vec<Part>) {
    let (Serve::Forward(rule) | Serve::Split(_, rule)) = commands::row(request.command).serve
    else {
        panic!("only commands with several keys have parts");
    };
    let head = read_head(frame);
    let command = Command::new(frame, &head);
    let Located::Keys(places) = keys::locate(rule, &command) else {
        panic!("the parser found the keys of this request");
    };
    if places.extra == 0 && places.step == 1 {
        let keys = command.iter().skip(to_usize(places.first));
        out.extend(keys.take(to_usize(places.count)).map(Part::from));
        return;
    }
    let mut words = command.iter();
    let mut place = 0;
    while let Some(word) = words.next() {
        if places.contains(place) {
            let mut raw = word.raw;
            // The value of a key travels with it.
            if place != places.extra {
                for value in words.by_ref().take(step_values(places.step)) {
                    raw = Span {
                        start: raw.start,
                        end: value.raw.end,
                    };
                    place += 1;
                }
            }
            out.push(Part {
                key: word.text,
                raw,
            });
        }
        place += 1;
    }
}

/// See [`crate::proto::patterns`].
pub fn patterns(frame: &[u8], request: &Request, out: &mut Vec<Span>) {
    if let Serve::Forward(Keys::Sort | Keys::SortReadonly) = commands::row(request.command).serve {
        out.extend(keys::patterns(&Command::new(frame, &read_head(frame))));
    }
}

impl From<Word> for Part {
    #[inline]
    fn from(word: Word) -> Self {
        Self {
            key: word.text,
            raw: word.raw,
        }
    }
}

fn step_values(step: u32) -> usize {
    to_usize(step - 1)
}

/// See [`crate::proto::fragment_head`]. compat: the command in lower case.
pub fn fragment_head(request: &Request, part_count: u32, out: &mut Vec<u8>) {
    let row = commands::row(request.command);
    let Serve::Split(_, rule) = row.serve else {
        panic!("only split commands have fragments");
    };
    let words_per_part = match rule {
        Keys::Range { step, .. } => usize::from(step),
        _ => 1,
    };
    write_array_header(1 + to_usize(part_count) * words_per_part, out);
    write_bulk(row.name.as_bytes(), out);
}

/// See [`crate::proto::write_miss`].
pub fn write_miss(request: &Request, key_count: u32, out: &mut Vec<u8>) -> bool {
    const NIL: &[u8] = b"$-1\r\n";
    let count = to_usize(key_count);
    match commands::row(request.command).name {
        "get" => out.extend_from_slice(NIL),
        "mget" => {
            write_array_header(count, out);
            out.extend(NIL.iter().cycle().take(count * NIL.len()));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::request::RequestParser;
    use super::*;
    use crate::proto::{Parse, RequestLimits, Route};

    fn request(words: &[&str]) -> (Vec<u8>, Request) {
        let mut frame = Vec::new();
        write_array_header(words.len(), &mut frame);
        for word in words {
            write_bulk(word.as_bytes(), &mut frame);
        }
        let limits = RequestLimits {
            frame_len_max: u32::MAX,
            unauthenticated: false,
            allow_flush: false,
        };
        match RequestParser::default().parse(&frame, &limits) {
            Parse::Complete(request) => (frame, request),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn parts_of(words: &[&str]) -> (Vec<u8>, Vec<Part>) {
        let (frame, request) = request(words);
        assert!(matches!(request.route, Route::Keys(_)), "{words:?}");
        let mut parts = Vec::new();
        super::parts(&frame, &request, &mut parts);
        (frame, parts)
    }

    #[test]
    fn parts_are_the_keys_in_request_order_with_their_bytes() {
        let (frame, parts) = parts_of(&["mGeT", "a", "", "ccc"]);
        let keys: Vec<&[u8]> = parts.iter().map(|part| part.key.of(&frame)).collect();
        assert_eq!(keys, [&b"a"[..], b"", b"ccc"]);
        let raw: Vec<&[u8]> = parts.iter().map(|part| part.raw.of(&frame)).collect();
        assert_eq!(raw, [&b"$1\r\na\r\n"[..], b"$0\r\n\r\n", b"$3\r\nccc\r\n"]);
    }

    #[test]
    fn a_part_of_mset_carries_its_value() {
        let (frame, parts) = parts_of(&["MSET", "a", "1", "b", "2"]);
        let raw: Vec<&[u8]> = parts.iter().map(|part| part.raw.of(&frame)).collect();
        assert_eq!(
            raw,
            [&b"$1\r\na\r\n$1\r\n1\r\n"[..], b"$1\r\nb\r\n$1\r\n2\r\n"]
        );
        assert_eq!(parts[1].key.of(&frame), b"b");
    }

    #[test]
    fn commands_that_cannot_be_split_show_all_their_keys() {
        for (words, expected) in [
            (&["RENAME", "a", "b"][..], &["a", "b"][..]),
            (
                &["ZUNIONSTORE", "d", "2", "a", "b", "WEIGHTS"],
                &["d", "a", "b"],
            ),
            (&["EVAL", "s", "2", "a", "b", "c"], &["a", "b"]),
            (&["SORT", "a", "STORE", "d"], &["a", "d"]),
            (&["MSETNX", "a", "1", "b", "2"], &["a", "b"]),
            (&["MSETEX", "2", "a", "1", "b", "2", "EX", "3"], &["a", "b"]),
            (&["XREAD", "STREAMS", "a", "b", "0", "0"], &["a", "b"]),
            (&["BITOP", "AND", "d", "a", "b"], &["d", "a", "b"]),
            (
                &["GEORADIUS", "a", "1", "1", "1", "m", "STORE", "d"],
                &["a", "d"],
            ),
        ] {
            let (frame, parts) = parts_of(words);
            let keys: Vec<&[u8]> = parts.iter().map(|part| part.key.of(&frame)).collect();
            let expected: Vec<&[u8]> = expected.iter().map(|key| key.as_bytes()).collect();
            assert_eq!(keys, expected, "{words:?}");
        }
    }

    // C90
    #[test]
    fn fragments_begin_with_the_command_in_lower_case() {
        for (words, count, expected) in [
            (
                &["MGET", "a", "b", "c"][..],
                2,
                &b"*3\r\n$4\r\nmget\r\n"[..],
            ),
            (&["Del", "a", "b"], 1, b"*2\r\n$3\r\ndel\r\n"),
            (&["UNLINK", "a", "b"], 2, b"*3\r\n$6\r\nunlink\r\n"),
            (&["TOUCH", "a", "b"], 2, b"*3\r\n$5\r\ntouch\r\n"),
            (&["EXISTS", "a", "b"], 2, b"*3\r\n$6\r\nexists\r\n"),
            (&["MSET", "a", "1", "b", "2"], 2, b"*5\r\n$4\r\nmset\r\n"),
        ] {
            let (_, request) = request(words);
            let mut head = Vec::new();
            fragment_head(&request, count, &mut head);
            assert_eq!(head, expected);
        }
    }
}
