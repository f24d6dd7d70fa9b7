//! Output that is taken back, and output that is more than a client may have.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, key_of, redis};
use twemproxy_core::engine::{ClientEnd, Closed};
use twemproxy_core::ids::ClientId;
use twemproxy_core::limits::{CLIENT_OUTPUT_SOFT, RESPONSE_HOLD_LEN_MAX};
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

#[test]
fn a_long_response_is_taken_back_if_and_only_if_no_byte_of_it_has_left() {
    let value = "v".repeat(2 * usize::try_from(RESPONSE_HOLD_LEN_MAX).unwrap());
    for taken in [0, 1, 2] {
        for (protocol, request, response, error) in [
            (Protocol::Redis, cmd("GET key"), bulk(&value), "-ERR"),
            (
                Protocol::Memcache,
                "get key\r\n".into(),
                format!("VALUE key 0 {}\r\n{value}\r\nEND\r\n", value.len()),
                "SERVER_ERROR",
            ),
        ] {
            let mut hand = Hand::new(pool(protocol, 1));
            let client = hand.client();
            hand.limit_writes(client, taken);
            hand.send(client, request.as_bytes());
            let conn = hand.conn(0);
            hand.say(conn, &response.as_bytes()[..100]);
            hand.breaks(conn, Closed::Reset);
            assert_eq!(hand.is_closed(client), taken > 0);
            let end = (taken > 0).then_some(ClientEnd::ReplyBroken);
            assert_eq!(hand.end_of(client), end);
            if taken == 0 {
                hand.unlimit_writes(client);
                assert_eq!(
                    hand.got(client),
                    format!("{error} Connection reset by peer\r\n")
                );
            }
            assert_eq!(hand.engine.held(), 0);
        }
    }
}

/// A client of which one part of a split request is answered with `begin`, and the other is not answered.
fn split_with_limit(limit: u64, begin: &str) -> (Hand, ClientId) {
    let mut config = redis(2);
    config.client_output_limit = limit;
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, cmd(&format!("MGET {a} {b}")).as_bytes());
    hand.say(hand.conn(0), begin.as_bytes());
    (hand, client)
}

#[test]
fn parts_of_split_requests_count_at_the_output_limit_before_they_are_merged() {
    let limit = 2 * CLIENT_OUTPUT_SOFT;
    let len = usize::try_from(limit).unwrap();
    let whole = format!("*1\r\n{}", bulk(&"v".repeat(len)));
    // Its last part, or one of several.
    for begin in [&whole[..], &whole[..whole.len() - 1]] {
        let (mut hand, client) = split_with_limit(limit, begin);
        assert!(hand.is_closed(client));
        assert_eq!(hand.end_of(client), Some(ClientEnd::OutputLimit));
        hand.breaks(hand.conn(0), Closed::Reset);
        hand.breaks(hand.conn(1), Closed::Reset);
        assert_eq!(hand.engine.held(), 0);
    }
    let (hand, client) = split_with_limit(limit, &whole[..len]);
    assert!(!hand.is_closed(client));
}

#[test]
fn a_short_part_counts_at_the_output_limit_when_it_comes_whole() {
    let whole = format!("*1\r\n{}", bulk(&"v".repeat(200)));
    let (mut hand, client) = split_with_limit(200, &whole);
    assert!(hand.is_closed(client));
    hand.breaks(hand.conn(1), Closed::Reset);
    assert_eq!(hand.engine.held(), 0);
}
