use super::*;
use crate::net::Outbox;
use crate::protocol::{KeyLengths, Served, Shapes, serve};

fn traffic(protocol: Protocol, op: Op, keys: u32, value_size: u32) -> Traffic {
    Traffic {
        protocol,
        op,
        keys,
        value_size,
        key_lengths: KeyLengths::Mixed,
    }
}

fn all_traffic() -> Vec<Traffic> {
    let mut all = Vec::new();
    for value_size in [1, 2, 10, 19, 20, 32, 6000] {
        for protocol in [Protocol::Redis, Protocol::Memcache] {
            for (op, keys) in [(Op::Get, 1), (Op::Set, 1), (Op::Mget, 3), (Op::Mset, 3)] {
                if (protocol, op) != (Protocol::Memcache, Op::Mset) {
                    all.push(traffic(protocol, op, keys, value_size));
                }
            }
        }
    }
    all
}

/// What a canned server answers to `count` requests from the start of the sequence.
fn answers(script: &Script, count: usize) -> Vec<u8> {
    let mut out = Outbox::default();
    let mut words = Vec::new();
    for index in 0..count {
        let request = &script.requests[script.request(index)];
        let traffic = script.traffic;
        let served = serve(
            traffic.protocol,
            Shapes {
                main: traffic.shape(),
                beside: traffic.shape(),
            },
            &mut words,
            request,
            &mut out,
        );
        assert_eq!(served, Served::Request(request.len()), "{traffic:?}");
    }
    out.to_bytes()
}

fn feed_all<'a>(script: &Script, parts: impl Iterator<Item = &'a [u8]>) -> Result<usize, Mismatch> {
    let mut ordered = Cursor::new(0);
    let mut unordered = SetCursor::new(script, 0);
    let mut completed = 0;
    for part in parts {
        completed += if script.traffic.is_unordered() {
            unordered.feed(script, part)?
        } else {
            ordered.feed(script, part)?
        };
    }
    Ok(completed)
}

#[test]
fn canned_answers_pass_the_check_for_every_kind_of_traffic() {
    for traffic in all_traffic() {
        let script = Script::new(traffic, 0);
        let replies = answers(&script, 5);
        assert_eq!(
            feed_all(&script, std::iter::once(&replies[..])),
            Ok(5),
            "{traffic:?}"
        );
    }
}

#[test]
fn check_does_not_depend_on_where_reads_end() {
    for traffic in all_traffic() {
        let script = Script::new(traffic, 0);
        let replies = answers(&script, 2);
        for step in [1, 2, 3, 7, 100] {
            assert_eq!(
                feed_all(&script, replies.chunks(step)),
                Ok(2),
                "{traffic:?}"
            );
        }
    }
}

#[test]
fn a_reply_to_another_request_does_not_pass() {
    for traffic in all_traffic() {
        if matches!(traffic.op, Op::Set | Op::Mset) {
            continue;
        }
        let script = Script::new(traffic, 0);
        let first = answers(&script, 1).len();
        let replies = answers(&script, 2);
        assert!(
            feed_all(&script, std::iter::once(&replies[first..])).is_err(),
            "{traffic:?}"
        );
    }
}

#[test]
fn an_error_reply_does_not_pass() {
    for traffic in all_traffic() {
        let script = Script::new(traffic, 0);
        for error in [
            &b"-ERR Connection refused\r\n"[..],
            b"SERVER_ERROR Connection refused\r\n",
        ] {
            assert!(
                feed_all(&script, std::iter::once(error)).is_err(),
                "{traffic:?}"
            );
        }
    }
}

#[test]
fn values_of_a_multi_get_pass_in_any_order_but_only_once() {
    let script = Script::new(traffic(Protocol::Memcache, Op::Mget, 2, 10), 0);
    let one = |id: u64| {
        let mut out = b"VALUE ".to_vec();
        crate::protocol::push_key(&mut out, id, KeyLengths::Mixed);
        out.extend_from_slice(format!(" 0 10\r\n{id:010}\r\n").as_bytes());
        out
    };
    let reply = |ids: &[u64]| {
        let mut out: Vec<u8> = ids.iter().flat_map(|id| one(*id)).collect();
        out.extend_from_slice(b"END\r\n");
        out
    };
    assert_eq!(
        feed_all(&script, std::iter::once(&reply(&[1, 0])[..])),
        Ok(1)
    );
    for wrong in [&[0, 0][..], &[0], &[0, 2], &[0, 1, 1]] {
        assert!(
            feed_all(&script, std::iter::once(&reply(wrong)[..])).is_err(),
            "{wrong:?}"
        );
    }
}

#[test]
fn clients_start_at_places_of_their_own() {
    let script = Script::new(traffic(Protocol::Redis, Op::Get, 1, 32), 0);
    let mut starts: Vec<usize> = (0..50).map(|client| script.start_of(client, 50)).collect();
    starts.dedup();
    assert_eq!(starts.len(), 50);
}

#[test]
fn fixed_keys_give_every_exchange_one_length() {
    let traffic = Traffic {
        key_lengths: KeyLengths::Fixed,
        ..traffic(Protocol::Redis, Op::Get, 1, 32)
    };
    let script = Script::new(traffic, 0);
    let len = script.request(0).len();
    assert!((0..script.len()).all(|index| script.request(index).len() == len));
    assert_eq!(script.reply_len(), "$32\r\n".len() + 32 + 2);
}
