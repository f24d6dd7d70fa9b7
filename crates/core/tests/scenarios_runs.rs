//! Stories about requests that come together: what holds for one alone holds among many. A hand-driven
//! engine in virtual time.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, redis, with_timeout};
use twemproxy_core::config::Config;
use twemproxy_core::ids::{ClientId, ServerId};
use twemproxy_core::limits::{
    CLIENT_IN_FLIGHT_FIRST, LARGE_RESPONSE_LEN, REQUEST_HELD_LEN, SLOT_HELD_LEN,
};
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, OnConnect, pool};

/// A client of a process with little memory, whose server's connection does not stand yet.
fn with_memory(limit: u64) -> (Hand, ClientId) {
    let mut hand = Hand::with_config(Config {
        pools: vec![redis(1)],
        memory_limit: limit,
        ..Config::default()
    });
    hand.on_connect
        .insert(ServerId::initial(0), OnConnect::Hang);
    let client = hand.client();
    (hand, client)
}

/// Bytes held for a request before its server has it.
fn held_len(request: &str) -> usize {
    request.len() + REQUEST_HELD_LEN + SLOT_HELD_LEN
}

fn requests(hand: &Hand) -> u64 {
    hand.engine.counters().servers[ServerId::initial(0)]
        .requests
        .value()
}

#[test]
fn what_follows_the_request_that_makes_memory_short_waits() {
    let (mut hand, client) = with_memory(1000);
    let get = cmd(&format!("GET {}", "k".repeat(80)));
    // The soft limit is at four fifths.
    let fit = 800 / held_len(&get) + 1;
    let many = cmd(&format!("MGET {} b", "a".repeat(40)));
    hand.send(client, (get.repeat(fit) + &many).as_bytes());
    assert_eq!(requests(&hand), u64::try_from(fit).unwrap());
}

#[test]
fn a_plan_cut_short_by_memory_goes_on_where_it_was_cut() {
    let (mut hand, client) = with_memory(20_000);
    let get = |n: usize| cmd(&format!("GET {}{n:03}", "k".repeat(400)));
    let fit = 16_000 / held_len(&get(0)) + 1;
    let count = fit + 5;
    // The last one has another shape, so that what is known of it fits no other.
    let last = cmd(&format!("SET {} {}", "l".repeat(50), "v".repeat(60)));
    let all: String = (1..count).map(get).collect::<String>() + &last;
    let (most, end) = all.split_at(all.len() - 30);
    hand.send(client, most.as_bytes());
    if cfg!(not(small_limits)) {
        assert_eq!(requests(&hand), u64::try_from(fit).unwrap());
    }
    let conn = hand.conn(0);
    hand.connected(conn);
    let mut sent = String::new();
    let mut left = end;
    let mut answers = 0;
    while answers < count {
        sent += &hand.got(conn);
        let asked = sent.matches("\r\nGET\r\n").count() + sent.matches("\r\nSET\r\n").count();
        hand.say(conn, bulk("v").repeat(asked - answers).as_bytes());
        assert_eq!(hand.end_of(client), None);
        assert!(asked > answers || !left.is_empty(), "it goes on");
        answers = asked;
        left = &left[hand.send(client, left.as_bytes())..];
    }
    assert_eq!(hand.got(client), bulk("v").repeat(count));
    assert_eq!(sent, all);
    assert_eq!(hand.engine.held(), 0);
}

#[test]
fn a_noreply_request_among_others_binds_its_client_as_one_alone_does() {
    let mut config = with_timeout(pool(Protocol::Memcache, 1), 100);
    config.server_connections = 2;
    let quiet = "set a 0 0 1 noreply\r\nx\r\n";
    for (run, is_confirmed) in [
        (format!("get b\r\n{quiet}"), false),
        (format!("{quiet}get b\r\n"), true),
    ] {
        let mut hand = Hand::new(config.clone());
        let (one, other) = (hand.client(), hand.client());
        hand.send(one, run.as_bytes());
        let conn = hand.conn(0);
        hand.say(conn, b"END\r\n");
        assert_eq!(hand.got(one), "END\r\n");
        hand.send(other, b"get slow\r\n");
        hand.wait_ms(110);
        assert_eq!(hand.got(other), "SERVER_ERROR Connection timed out\r\n");
        hand.got(conn);
        // It leaves the silent connection only if nothing of its own can be overtaken.
        hand.send(one, b"get a\r\n");
        let expected = if is_confirmed { "" } else { "get a\r\n" };
        assert_eq!(hand.got(conn), expected, "{run:?}");
    }
}

#[test]
fn small_responses_open_the_window_of_a_client_again() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    let large = "x".repeat(usize::try_from(LARGE_RESPONSE_LEN).unwrap());
    hand.say(conn, bulk(&large).as_bytes());
    hand.got(conn);
    for _ in 0..8 {
        hand.send(client, cmd("GET a").as_bytes());
        hand.got(conn);
        hand.say(conn, b"$-1\r\n");
    }
    hand.send(client, cmd("GET a").repeat(8).as_bytes());
    let first = usize::try_from(CLIENT_IN_FLIGHT_FIRST).unwrap();
    assert_eq!(hand.got(conn).matches("GET").count(), first.min(8));
}
