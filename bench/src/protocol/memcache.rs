//! memcached ASCII: requests and the replies to expect, and a server that answers without storing.

use super::{Op, Served, Shapes, ValueShape, digits, id_of, key_digits, number, push_key};
use crate::net::Outbox;
use crate::script::Script;

/// Appends one request for `keys` consecutive ids and what its reply must be.
pub(crate) fn push_exchange(
    script: &mut Script,
    op: Op,
    shape: ValueShape,
    ids: std::ops::Range<u64>,
) {
    let lengths = script.traffic.key_lengths;
    match op {
        Op::Get | Op::Mget => {
            script.requests.extend_from_slice(b"get");
            for id in ids.clone() {
                script.requests.push(b' ');
                push_key(&mut script.requests, id, lengths);
            }
            script.requests.extend_from_slice(b"\r\n");
            if op == Op::Get {
                expect_value(script, shape, ids.start);
            }
        }
        Op::Set | Op::Mset => {
            assert!(op == Op::Set, "the command line refuses mset for memcache");
            let out = &mut script.requests;
            out.extend_from_slice(b"set ");
            push_key(out, ids.start, lengths);
            out.extend_from_slice(format!(" 0 0 {}\r\n", shape.size()).as_bytes());
            shape.push(out, &digits(ids.start));
            out.extend_from_slice(b"\r\n");
            script.expect(b"STORED\r\n", 0);
        }
    }
}

fn expect_value(script: &mut Script, shape: ValueShape, id: u64) {
    let digits = digits(id);
    let mut piece = b"VALUE ".to_vec();
    push_key(&mut piece, id, script.traffic.key_lengths);
    piece.extend_from_slice(format!(" 0 {}\r\n", shape.size()).as_bytes());
    piece.extend_from_slice(shape.head_of(&digits));
    script.expect(&piece, shape.filler);
    piece.clear();
    piece.extend_from_slice(shape.tail_of(&digits));
    piece.extend_from_slice(b"\r\nEND\r\n");
    script.expect(&piece, 0);
}

/// See [`super::serve`].
pub(crate) fn serve(
    shapes: Shapes,
    words: &mut Vec<(usize, usize)>,
    input: &[u8],
    out: &mut Outbox,
) -> Served {
    let Some(line_end) = line_end(input) else {
        return if input.len() > LINE_LIMIT {
            Served::Violation("a memcache line without an end")
        } else {
            Served::Incomplete
        };
    };
    split(words, &input[..line_end]);
    let word = |i: usize| &input[words[i].0..words[i].1];
    let after_line = line_end + 2;
    match (words.first().map(|_| word(0)), words.len()) {
        (Some(b"get" | b"gets"), 2..) => {
            if !(1..words.len()).all(|i| send_value(shapes, word(i), out)) {
                return Served::Violation("a memcache key that was changed on the way");
            }
            out.push(b"END\r\n");
            Served::Request(after_line)
        }
        (Some(b"set"), 5) => serve_set(shapes, (word(1), word(4)), &input[after_line..], out)
            .map_or_else(|reply| reply, |used| Served::Request(after_line + used)),
        (Some(b"delete"), 2) => {
            out.push(b"DELETED\r\n");
            Served::Request(after_line)
        }
        // A proxy that probes its servers is welcome to.
        (Some(b"version"), 1) => {
            out.push(b"VERSION canned\r\n");
            Served::Request(after_line)
        }
        _ => Served::Violation("a memcache request that no client sent"),
    }
}

/// Checks the data block of a `set`; gives its length with CRLF.
fn serve_set(
    shapes: Shapes,
    (key, len): (&[u8], &[u8]),
    body: &[u8],
    out: &mut Outbox,
) -> Result<usize, Served> {
    let Some((len, _)) = number(len, 0) else {
        return Err(Served::Violation(
            "a memcache length that was changed on the way",
        ));
    };
    let Some(crlf) = body.get(len..len + 2) else {
        return Err(Served::Incomplete);
    };
    let intact =
        key_digits(key).is_some_and(|digits| shapes.of(digits).matches(&body[..len], digits));
    if crlf != b"\r\n" || !intact {
        return Err(Served::Violation(
            "a memcache value that was changed on the way",
        ));
    }
    out.push(b"STORED\r\n");
    Ok(len + 2)
}

fn send_value(shapes: Shapes, key: &[u8], out: &mut Outbox) -> bool {
    let Some(digits) = key_digits(key) else {
        return false;
    };
    let shape = shapes.of(digits);
    out.push(b"VALUE ");
    out.push(key);
    out.push(b" 0 ");
    out.push_number(shape.size());
    out.push(b"\r\n");
    shape.send(out, digits);
    out.push(b"\r\n");
    true
}

/// One part of a reply to a `get` with many keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The intact value of this id; the length of all its bytes.
    Value(u64, usize),
    /// `END`; its length.
    End(usize),
    Incomplete,
    Wrong,
}

/// Reads the part of a reply that `input` starts with.
pub(crate) fn item(shape: ValueShape, input: &[u8]) -> Item {
    let Some(line_end) = line_end(input) else {
        return if input.len() > LINE_LIMIT {
            Item::Wrong
        } else {
            Item::Incomplete
        };
    };
    let line = &input[..line_end];
    let start = line_end + 2;
    if line == b"END" {
        return Item::End(start);
    }
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(b"VALUE"), Some(key), Some(_flags), Some(len), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return Item::Wrong;
    };
    let Some(((len, _), digits)) = number(len, 0).zip(key_digits(key)) else {
        return Item::Wrong;
    };
    let Some(crlf) = input.get(start + len..start + len + 2) else {
        return Item::Incomplete;
    };
    match id_of(digits) {
        Some(id) if crlf == b"\r\n" && shape.matches(&input[start..start + len], digits) => {
            Item::Value(id, start + len + 2)
        }
        _ => Item::Wrong,
    }
}

fn line_end(input: &[u8]) -> Option<usize> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    (end > 0 && input[end - 1] == b'\r').then_some(end - 1)
}

fn split(words: &mut Vec<(usize, usize)>, line: &[u8]) {
    words.clear();
    let mut start = 0;
    for (at, byte) in line.iter().enumerate() {
        if *byte == b' ' {
            if at > start {
                words.push((start, at));
            }
            start = at + 1;
        }
    }
    if line.len() > start {
        words.push((start, line.len()));
    }
}

/// Longest line either side may send: a `get` with the most keys that the command line allows.
const LINE_LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> Shapes {
        Shapes {
            main: ValueShape::of_size(10),
            beside: ValueShape::of_size(12),
        }
    }

    fn answer(input: &[u8]) -> (Served, Vec<u8>) {
        let mut out = Outbox::default();
        let served = serve(shapes(), &mut Vec::new(), input, &mut out);
        (served, out.to_bytes())
    }

    #[test]
    fn canned_server_answers_each_command_it_knows() {
        let get = b"get key:0000000007 \r\n";
        let value = b"VALUE key:0000000007 0 10\r\n0000000007\r\nEND\r\n".to_vec();
        assert_eq!(answer(get), (Served::Request(get.len()), value));
        let set = b"set key:0000000007 0 0 10\r\n0000000007\r\n";
        assert_eq!(
            answer(set),
            (Served::Request(set.len()), b"STORED\r\n".to_vec())
        );
        for end in 0..set.len() {
            assert_eq!(answer(&set[..end]).0, Served::Incomplete, "at {end}");
        }
    }

    #[test]
    fn a_value_changed_on_the_way_is_a_violation() {
        let set = b"set key:0000000007 0 0 10\r\n0000000008\r\n";
        assert!(matches!(answer(set).0, Served::Violation(_)));
        assert!(matches!(answer(b"flush_all\r\n").0, Served::Violation(_)));
    }

    #[test]
    fn items_of_a_reply_are_told_apart() {
        let shape = ValueShape::of_size(10);
        let value = b"VALUE key:0000000007 0 10\r\n0000000007\r\nEND\r\n";
        assert_eq!(item(shape, value), Item::Value(7, value.len() - 5));
        assert_eq!(item(shape, b"END\r\n"), Item::End(5));
        assert_eq!(item(shape, &value[..30]), Item::Incomplete);
        assert_eq!(item(shape, b"SERVER_ERROR no\r\n"), Item::Wrong);
        assert_eq!(
            item(shape, b"VALUE key:0000000007 0 10\r\n0000000009\r\n"),
            Item::Wrong
        );
    }
}
