//! Responses that come in pieces: short ones are held until they are whole, long ones pass through.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, key_of, redis, with_timeout};
use twemproxy_core::engine::Closed;
use twemproxy_core::limits::RESPONSE_HOLD_LEN_MAX;
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

const RESET: &str = "Connection reset by peer";

/// A read, the value that answers it, and how an error is told.
fn dialects(value: &str) -> [(Protocol, String, String, String); 2] {
    [
        (
            Protocol::Redis,
            cmd("GET key"),
            bulk(value),
            format!("-ERR {RESET}\r\n"),
        ),
        (
            Protocol::Memcache,
            "get key\r\n".into(),
            format!("VALUE key 0 {}\r\n{value}\r\nEND\r\n", value.len()),
            format!("SERVER_ERROR {RESET}\r\n"),
        ),
    ]
}

fn hold_len_max() -> usize {
    usize::try_from(RESPONSE_HOLD_LEN_MAX).expect("a small number")
}

#[test]
fn a_break_in_a_short_response_is_one_error_and_the_client_stays() {
    for (protocol, request, response, error) in dialects("0123456789") {
        for cut in 1..response.len() {
            let mut hand = Hand::new(pool(protocol, 1));
            let client = hand.client();
            hand.send(client, request.repeat(2).as_bytes());
            let conn = hand.conn(0);
            hand.say(conn, &response.as_bytes()[..cut]);
            assert_eq!(hand.got(client), "", "it is held");
            hand.breaks(conn, Closed::Reset);
            // Both requests only read, and go once more if no byte of their response has come.
            let again = hand.conn(0);
            if again != conn {
                hand.say(again, response.repeat(2).as_bytes());
            }
            let got = hand.got(client);
            let first = &error;
            assert!(
                got == response.repeat(2)
                    || got == format!("{first}{response}{response}")
                    || got == format!("{first}{response}"),
                "{cut}: {got:?}"
            );
            assert!(!hand.is_closed(client));
            assert_eq!(hand.engine.held(), 0);
        }
    }
}

// D57
#[test]
fn a_short_response_in_pieces_is_given_whole() {
    for (protocol, request, response, _) in dialects(&"v".repeat(20)) {
        let mut hand = Hand::new(pool(protocol, 1));
        let (one, two) = (hand.client(), hand.client());
        hand.send(one, request.repeat(2).as_bytes());
        hand.send(two, request.as_bytes());
        let conn = hand.conn(0);
        for _ in 0..2 {
            for byte in response.as_bytes() {
                assert_eq!(hand.got(one), "");
                hand.say(conn, &[*byte]);
            }
            assert_eq!(hand.got(one), response);
        }
        hand.say(conn, response.as_bytes());
        assert_eq!(hand.got(two), response);
        assert_eq!(hand.engine.held(), 0);
    }
}

#[test]
fn the_length_that_is_known_decides_what_is_held() {
    // With its header and line ends, a value of this length is as long as may be held.
    for (extra, is_held) in [(0, true), (1, false)] {
        let value_len = hold_len_max() - 25;
        for (protocol, request, response, _) in dialects(&"v".repeat(value_len)) {
            let value_len = value_len + hold_len_max() - response.len() + extra;
            let (_, _, response, _) = dialects(&"v".repeat(value_len))
                .into_iter()
                .find(|dialect| dialect.0 == protocol)
                .unwrap();
            assert_eq!(response.len(), hold_len_max() + extra);
            let mut hand = Hand::new(pool(protocol, 1));
            let client = hand.client();
            hand.send(client, request.as_bytes());
            let conn = hand.conn(0);
            let (begin, end) = response.split_at(40);
            hand.say(conn, begin.as_bytes());
            assert_eq!(hand.got(client), if is_held { "" } else { begin });
            hand.say(conn, end.as_bytes());
            assert_eq!(hand.got(client), if is_held { &response } else { end });
        }
    }
}

#[test]
fn what_turns_out_long_passes_through_from_then_on() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("LRANGE key 0 -1").as_bytes());
    let conn = hand.conn(0);
    let word = bulk(&"w".repeat(50));
    let count = hold_len_max() / word.len() + 2;
    let array = format!("*{count}\r\n") + &word.repeat(count);
    let begin = &array[..array.len() - 2 * word.len() - 1];
    hand.say(conn, begin.as_bytes());
    assert_eq!(hand.got(client), "");
    hand.say(conn, &array.as_bytes()[begin.len()..array.len() - 1]);
    let most = hand.got(client);
    assert!(most.len() > begin.len(), "it is known to be long");
    hand.breaks(conn, Closed::Reset);
    assert!(hand.is_closed(client), "a part of it has left");
}

#[test]
fn a_held_response_that_expires_is_an_error_and_its_rest_is_nobodys() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd("GET short").as_bytes());
    hand.send(two, cmd("GET other").as_bytes());
    hand.say(hand.conn(0), b"$10\r\n01234");
    hand.wait_ms(60);
    hand.send(two, cmd("GET third").as_bytes());
    hand.wait_ms(50);
    assert_eq!(hand.got(one), "-ERR Connection timed out\r\n");
    assert_eq!(hand.got(two), "-ERR Connection timed out\r\n");
    hand.say(hand.conn(0), b"56789\r\n$1\r\no\r\n$1\r\nt\r\n");
    assert_eq!(hand.got(two), "$1\r\nt\r\n");
    assert_eq!(hand.got(one), "");
    assert!(!hand.is_closed(one) && !hand.is_closed(two));
    assert_eq!(hand.engine.held(), 0);
}

#[test]
fn a_break_within_a_part_of_a_split_request_is_one_error() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    for cut in 1..10 {
        let mut hand = Hand::new(config.clone());
        let client = hand.client();
        hand.send(client, cmd(&format!("MGET {a} {b}")).as_bytes());
        hand.say(hand.conn(0), b"*1\r\n$1\r\nA\r\n");
        let conn = hand.conn(1);
        hand.say(conn, &b"*1\r\n$20\r\n0123456789"[..cut]);
        hand.breaks(conn, Closed::Reset);
        if hand.conn(1) != conn {
            hand.say(hand.conn(1), b"*1\r\n$1\r\nB\r\n");
        }
        let got = hand.got(client);
        let whole = "*2\r\n$1\r\nA\r\n$1\r\nB\r\n";
        assert!(
            got == whole || got == format!("-ERR {RESET}\r\n"),
            "{got:?}"
        );
        assert!(!hand.is_closed(client));
        assert_eq!(hand.engine.held(), 0);
    }
}
