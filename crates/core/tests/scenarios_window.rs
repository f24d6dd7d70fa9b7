//! How many requests of one client are in flight before anything is known of its responses.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use twemproxy_core::config::Config;
use twemproxy_core::ids::ClientId;
use twemproxy_core::limits::{CLIENT_IN_FLIGHT_FIRST, CLIENT_IN_FLIGHT_MAX};
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

fn size(count: u32) -> usize {
    usize::try_from(count).expect("a small number")
}

/// Sends `count` requests, and each time answers all that the server has got; returns how many times that was.
fn round_trips(hand: &mut Hand, client: ClientId, count: usize) -> usize {
    let mut request = b"get a\r\n".repeat(count);
    let mut trips = 0;
    let mut answered = 0;
    while answered < count {
        let sent = hand.send(client, &request);
        request.drain(..sent);
        let conn = hand.conn(0);
        let asked = hand.got(conn).matches("get a").count();
        assert!(asked > 0, "a client with room goes on");
        hand.say(conn, &b"END\r\n".repeat(asked));
        answered += asked;
        trips += 1;
    }
    assert_eq!(hand.got_bytes(client), b"END\r\n".repeat(count));
    trips
}

// D56
#[test]
fn the_first_burst_of_large_responses_is_bounded() {
    const LARGE: usize = 900_000;
    const MEMORY_LIMIT: usize = 128 * 1024 * 1024;
    let mut hand = Hand::with_config(Config {
        pools: vec![pool(Protocol::Memcache, 1)],
        memory_limit: u64::try_from(MEMORY_LIMIT).unwrap(),
        ..Config::default()
    });
    let client = hand.client();
    hand.limit_writes(client, 0);
    hand.send(client, &b"get a\r\n".repeat(500));
    let conn = hand.conn(0);
    let first = size(CLIENT_IN_FLIGHT_FIRST);
    assert_eq!(hand.got(conn).matches("get a").count(), first);
    let large = format!("VALUE a 0 {LARGE}\r\n{}\r\nEND\r\n", "x".repeat(LARGE));
    // While it does not read, it has one request in flight at a time, and none once memory is under pressure.
    let (mut owed, mut answered) = (first, 0);
    while owed > 0 {
        hand.say(conn, large.as_bytes());
        answered += 1;
        owed -= 1;
        let more = hand.got(conn).matches("get a").count();
        assert!(more <= usize::from(owed == 0), "{more} more, {owed} owed");
        owed += more;
    }
    let held = usize::try_from(hand.engine.held()).unwrap();
    assert!(
        held > MEMORY_LIMIT / 2 - large.len() && held < MEMORY_LIMIT / 2 + 2 * large.len(),
        "{held} bytes"
    );
    // It gets them all when it reads, with no more at a time than large responses allow.
    hand.unlimit_writes(client);
    assert_eq!(hand.got(client), large.repeat(answered));
    while answered < 500 {
        assert_eq!(hand.got(conn), "get a\r\n");
        hand.say(conn, large.as_bytes());
        assert_eq!(hand.got(client), large);
        answered += 1;
    }
}

#[test]
fn a_deep_pipeline_of_small_responses_is_soon_taken_whole() {
    let mut hand = Hand::new(pool(Protocol::Memcache, 1));
    let client = hand.client();
    let max = size(CLIENT_IN_FLIGHT_MAX);
    // Windows double, so there are as many as a number of that size has digits, more or less.
    let windows = (max / size(CLIENT_IN_FLIGHT_FIRST)).ilog2();
    let trips = round_trips(&mut hand, client, 2 * max);
    assert!(trips <= size(windows) + 2, "{trips} round trips");
    // It rested, and is still known.
    for _ in 0..3 {
        assert_eq!(round_trips(&mut hand, client, max), 1);
    }
    // A large response makes it begin anew.
    hand.send(client, b"get a\r\n");
    let large = format!("VALUE a 0 20000\r\n{}\r\nEND\r\n", "x".repeat(20_000));
    let conn = hand.conn(0);
    hand.got(conn);
    hand.say(conn, large.as_bytes());
    assert_eq!(hand.got(client), large);
    let trips = round_trips(&mut hand, client, max);
    assert!(trips > size(windows), "{trips} round trips");
}

#[test]
fn a_client_with_few_requests_at_a_time_keeps_a_small_window() {
    let mut hand = Hand::new(pool(Protocol::Memcache, 1));
    let client = hand.client();
    for _ in 0..100 {
        round_trips(&mut hand, client, 1);
    }
    hand.send(client, &b"get a\r\n".repeat(500));
    let conn = hand.conn(0);
    let asked = hand.got(conn).matches("get a").count();
    assert_eq!(asked, size(CLIENT_IN_FLIGHT_FIRST));
}
