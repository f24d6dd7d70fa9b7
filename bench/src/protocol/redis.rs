//! RESP: requests and the replies to expect, and a server that answers without storing.

use super::{Op, Served, Shapes, ValueShape, digits, key_digits, number, push_key};
use crate::net::Outbox;
use crate::script::Script;

/// Appends one request for `keys` consecutive ids and what its reply must be.
pub(crate) fn push_exchange(
    script: &mut Script,
    op: Op,
    shape: ValueShape,
    ids: std::ops::Range<u64>,
) {
    let keys = ids.end - ids.start;
    let lengths = script.traffic.key_lengths;
    let out = &mut script.requests;
    match op {
        Op::Get => out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n"),
        Op::Set => out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n"),
        Op::Mget => out.extend_from_slice(format!("*{}\r\n$4\r\nMGET\r\n", keys + 1).as_bytes()),
        Op::Mset => {
            out.extend_from_slice(format!("*{}\r\n$4\r\nMSET\r\n", 2 * keys + 1).as_bytes())
        }
    }
    let mut word = Vec::new();
    for id in ids.clone() {
        word.clear();
        push_key(&mut word, id, lengths);
        push_bulk(out, &word);
        if matches!(op, Op::Set | Op::Mset) {
            word.clear();
            shape.push(&mut word, &digits(id));
            push_bulk(out, &word);
        }
    }
    match op {
        Op::Set | Op::Mset => script.expect(b"+OK\r\n", 0),
        Op::Get | Op::Mget => expect_values(script, op, shape, ids),
    }
}

/// Pieces of fixed bytes with a filler after each but the last: `$32\r\n<id>`, filler, `<id>\r\n$32\r\n<id>`, ...
fn expect_values(script: &mut Script, op: Op, shape: ValueShape, ids: std::ops::Range<u64>) {
    let mut piece = Vec::new();
    if op == Op::Mget {
        piece.extend_from_slice(format!("*{}\r\n", ids.end - ids.start).as_bytes());
    }
    for id in ids {
        let digits = digits(id);
        piece.extend_from_slice(format!("${}\r\n", shape.size()).as_bytes());
        piece.extend_from_slice(shape.head_of(&digits));
        script.expect(&piece, shape.filler);
        piece.clear();
        piece.extend_from_slice(shape.tail_of(&digits));
        piece.extend_from_slice(b"\r\n");
    }
    script.expect(&piece, 0);
}

fn push_bulk(out: &mut Vec<u8>, word: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// See [`super::serve`].
pub(crate) fn serve(
    shapes: Shapes,
    words: &mut Vec<(usize, usize)>,
    input: &[u8],
    out: &mut Outbox,
) -> Served {
    let end = match split(words, input) {
        Ok(Some(end)) => end,
        Ok(None) => return Served::Incomplete,
        Err(reason) => return Served::Violation(reason),
    };
    let word = |i: usize| &input[words[i].0..words[i].1];
    let name = word(0);
    let answered = if name.eq_ignore_ascii_case(b"get") && words.len() == 2 {
        send_value(shapes, word(1), out)
    } else if name.eq_ignore_ascii_case(b"mget") && words.len() >= 2 {
        out.push(b"*");
        out.push_number(words.len() - 1);
        out.push(b"\r\n");
        (1..words.len()).all(|i| send_value(shapes, word(i), out))
    } else if (name.eq_ignore_ascii_case(b"set") && words.len() == 3)
        || (name.eq_ignore_ascii_case(b"mset") && words.len() >= 3 && words.len() % 2 == 1)
    {
        out.push(b"+OK\r\n");
        (1..words.len()).step_by(2).all(|i| {
            key_digits(word(i)).is_some_and(|digits| shapes.of(digits).matches(word(i + 1), digits))
        })
    } else if name.eq_ignore_ascii_case(b"del") && words.len() >= 2 {
        out.push(b":");
        out.push_number(words.len() - 1);
        out.push(b"\r\n");
        true
    } else if name.eq_ignore_ascii_case(b"ping") && words.len() == 1 {
        // A proxy that probes its servers is welcome to.
        out.push(b"+PONG\r\n");
        true
    } else {
        return Served::Violation("a redis request that no client sent");
    };
    if answered {
        Served::Request(end)
    } else {
        Served::Violation("a redis request whose key or value was changed on the way")
    }
}

fn send_value(shapes: Shapes, key: &[u8], out: &mut Outbox) -> bool {
    let Some(digits) = key_digits(key) else {
        return false;
    };
    let shape = shapes.of(digits);
    out.push(b"$");
    out.push_number(shape.size());
    out.push(b"\r\n");
    shape.send(out, digits);
    out.push(b"\r\n");
    true
}

/// Finds the words of the first request and where it ends; `None` while it is incomplete.
fn split(words: &mut Vec<(usize, usize)>, input: &[u8]) -> Result<Option<usize>, &'static str> {
    words.clear();
    let Some((count, mut at)) = header(input, 0, b'*')? else {
        return Ok(None);
    };
    if count == 0 {
        return Err("an empty redis request");
    }
    for _ in 0..count {
        let Some((len, start)) = header(input, at, b'$')? else {
            return Ok(None);
        };
        let end = start + len;
        match input.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err("a redis word without CRLF behind it"),
            None => return Ok(None),
        }
        words.push((start, end));
        at = end + 2;
    }
    Ok(Some(at))
}

/// Reads `<mark><number>\r\n` at `at`; gives the number and the index after the line.
fn header(input: &[u8], at: usize, mark: u8) -> Result<Option<(usize, usize)>, &'static str> {
    match input.get(at) {
        None => return Ok(None),
        Some(byte) if *byte == mark => {}
        Some(_) => return Err("a redis request out of frame"),
    }
    let Some((value, end)) = number(input, at + 1) else {
        return if input.len() == at + 1 {
            Ok(None)
        } else {
            Err("a bad number in a redis request")
        };
    };
    match input.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some((value, end + 2))),
        Some(_) => Err("a redis number without CRLF behind it"),
        None => Ok(None),
    }
}

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
        let get = b"*2\r\n$3\r\nget\r\n$14\r\nkey:0000000007\r\n";
        assert_eq!(
            answer(get),
            (
                Served::Request(get.len()),
                b"$10\r\n0000000007\r\n".to_vec()
            )
        );
        let del = b"*2\r\n$3\r\nDEL\r\n$14\r\nkey:0000000007\r\n";
        assert_eq!(
            answer(del),
            (Served::Request(del.len()), b":1\r\n".to_vec())
        );
    }

    #[test]
    fn the_id_tells_the_size_of_the_value() {
        let get = b"*2\r\n$3\r\nget\r\n$14\r\nkey:5000000007\r\n";
        assert_eq!(answer(get).1, b"$12\r\n5000000007vv\r\n".to_vec());
    }

    #[test]
    fn each_proper_prefix_is_incomplete() {
        let set = b"*3\r\n$3\r\nSET\r\n$14\r\nkey:0000000007\r\n$10\r\n0000000007\r\n";
        for end in 0..set.len() {
            assert_eq!(answer(&set[..end]).0, Served::Incomplete, "at {end}");
        }
        assert_eq!(answer(set).0, Served::Request(set.len()));
    }

    #[test]
    fn a_value_changed_on_the_way_is_a_violation() {
        let set = b"*3\r\n$3\r\nSET\r\n$14\r\nkey:0000000007\r\n$10\r\n0000000008\r\n";
        assert!(matches!(answer(set).0, Served::Violation(_)));
        assert!(matches!(answer(b"GET x\r\n").0, Served::Violation(_)));
        assert!(matches!(
            answer(b"*99999999999\r\n").0,
            Served::Violation(_)
        ));
    }
}
