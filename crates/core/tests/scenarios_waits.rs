//! Stories about waiting: nobody waits for ever, and nobody who waits is forgotten. A hand-driven
//! engine in virtual time.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::memory::{half_a_request, short_of_memory};
use support::{bulk, cmd, redis, with_timeout};
use twemproxy_core::config::PoolConfig;
use twemproxy_core::engine::Notice;
use twemproxy_core::ids::{ClientId, ServerConnId, ServerId};
use twemproxy_core::limits::{
    CLIENT_IN_FLIGHT_FIRST, GATHER_MAX, LARGE_IN_FLIGHT_LEN, SERVER_OUTPUT_SOFT,
};
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_testkit::hand::{Hand, OnConnect, pool};

const SERVER: ServerId = ServerId::initial(0);
const QUIET_SET: &[u8] = b"set a 0 0 1 noreply\r\nx\r\n";

/// A memcached server whose connection stands and takes no more bytes.
fn frozen(config: PoolConfig) -> (Hand, ClientId, ServerConnId) {
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, b"get a\r\n");
    let conn = hand.conn(0);
    hand.say(conn, b"END\r\n");
    hand.got(conn);
    assert_eq!(hand.got(client), "END\r\n");
    hand.limit_writes(conn, 0);
    (hand, client, conn)
}

fn timed_out(hand: &Hand) -> u64 {
    hand.engine.counters().servers[ServerId::initial(0)]
        .server_timedout
        .value()
}

#[test]
fn a_server_that_takes_nothing_but_noreply_requests_is_given_up_after_a_time_out() {
    let mut config = with_timeout(pool(Protocol::Memcache, 1), 100);
    config.auto_eject_hosts = true;
    config.server_failure_limit = 1;
    config.server_retry_timeout = Span::from_millis(10_000);
    let (mut hand, client, conn) = frozen(config);
    hand.wait_ms(1_000);
    hand.send(client, QUIET_SET);
    hand.wait_ms(99);
    assert!(!hand.is_closed(conn));
    assert_eq!(timed_out(&hand), 0);
    hand.wait_ms(1);
    assert!(hand.is_closed(conn));
    assert_eq!(timed_out(&hand), 1);
    assert!(hand.notices.contains(&Notice::ServerTimedOut(SERVER)));
    assert!(hand.notices.contains(&Notice::Ejected(SERVER)));
    assert_eq!(hand.engine.held(), 0);
}

// The simulation's seed 75096 of 13a9dc4.
#[test]
fn a_connection_that_stands_as_its_alarm_rings_is_watched_all_the_same() {
    let mut hand = Hand::new(with_timeout(pool(Protocol::Memcache, 1), 100));
    hand.on_connect.insert(SERVER, OnConnect::Hang);
    let client = hand.client();
    hand.send(client, QUIET_SET);
    let conn = hand.conn(0);
    hand.limit_writes(conn, 0);
    hand.wait_ms(99);
    hand.now = hand.now + Span::from_millis(1);
    hand.engine.handle_connected(conn, hand.now);
    hand.engine.handle_timeout(hand.now);
    hand.settle();
    hand.wait_ms(99);
    assert!(!hand.is_closed(conn));
    hand.wait_ms(1);
    assert!(hand.is_closed(conn));
    assert_eq!(timed_out(&hand), 1);
}

#[test]
fn clients_that_wait_for_a_frozen_server_go_on_when_it_is_given_up() {
    let (mut hand, client, _) = frozen(with_timeout(pool(Protocol::Memcache, 1), 100));
    let many = QUIET_SET.repeat(1_000);
    while hand.send(client, &many) == many.len() {}
    assert!(hand.is_read_paused(client));
    assert!(hand.engine.held() > SERVER_OUTPUT_SOFT);
    hand.wait_ms(100);
    assert!(!hand.is_read_paused(client));
    // The requests that follow go to a new connection.
    hand.send(client, b"get b\r\n");
    hand.say(hand.conn(0), b"END\r\n");
    assert_eq!(hand.conns_of(0).len(), 2);
    assert_eq!(hand.got(client), "END\r\n");
    assert_eq!(timed_out(&hand), 1);
    assert_eq!(hand.engine.held(), 0);
}

#[test]
fn a_server_that_takes_a_little_or_says_something_in_each_time_out_is_kept() {
    let (mut hand, client, conn) = frozen(with_timeout(pool(Protocol::Memcache, 1), 100));
    hand.send(client, QUIET_SET);
    for _ in 0..5 {
        hand.wait_ms(60);
        hand.take_more(conn, 1);
    }
    assert_eq!(hand.got(conn).len(), 5);
    // It is asked something, and answers without reading on.
    hand.unlimit_writes(conn);
    hand.send(client, &b"get a\r\n".repeat(5));
    hand.limit_writes(conn, 0);
    hand.send(client, QUIET_SET);
    for _ in 0..5 {
        hand.wait_ms(60);
        hand.say(conn, b"END\r\n");
    }
    assert!(!hand.is_closed(conn));
    let before = timed_out(&hand);
    hand.wait_ms(100);
    assert!(hand.is_closed(conn));
    assert_eq!(timed_out(&hand), before + 1);
}

#[test]
fn what_waits_behind_a_frozen_write_moves_on_and_is_answered() {
    let (mut hand, client, conn) = frozen(with_timeout(pool(Protocol::Memcache, 1), 100));
    hand.limit_writes(conn, 4);
    hand.send(client, b"set a 0 0 1\r\nx\r\n");
    hand.wait_ms(60);
    let other = hand.client();
    hand.send(other, b"get b\r\n");
    hand.wait_ms(40);
    // The first one's time is over; the second one's is not, and nothing of it was sent.
    assert_eq!(hand.got(client), "SERVER_ERROR Connection timed out\r\n");
    assert!(hand.is_closed(conn));
    assert_eq!(hand.got(hand.conn(0)), "get b\r\n");
    hand.say(hand.conn(0), b"END\r\n");
    assert_eq!(hand.got(other), "END\r\n");
    assert_eq!(timed_out(&hand), 1);
    assert_eq!(hand.engine.held(), 0);
}

// D20
#[test]
fn a_drain_answers_clients_that_wait_for_room() {
    let mut hand = Hand::new(redis(1));
    let (big, waits) = (hand.client(), hand.client());
    hand.send(big, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    hand.limit_writes(conn, 0);
    let set = cmd(&format!("SET k {}", "v".repeat(5_000_000)));
    hand.send(big, set.as_bytes());
    hand.send(waits, (cmd("GET b") + &cmd("GET c")).as_bytes());
    hand.engine.start_drain(hand.now);
    hand.settle();
    assert!(!hand.is_closed(waits), "it asked before the drain");
    hand.unlimit_writes(conn);
    hand.say(
        conn,
        (bulk("a") + "+OK\r\n" + &bulk("b") + &bulk("c")).as_bytes(),
    );
    assert_eq!(hand.got(waits), bulk("b") + &bulk("c"));
    assert!(hand.is_closed(waits) && hand.is_closed(big));
    assert!(hand.engine.is_drained());
}

// D20
#[test]
fn a_drain_answers_clients_that_wait_for_memory_or_for_their_own_replies() {
    let mut hand = short_of_memory();
    let (holder, waits) = (hand.client(), hand.client());
    hand.send(holder, half_a_request(85_000).as_bytes());
    hand.send(waits, cmd("GET a").as_bytes());
    hand.engine.start_drain(hand.now);
    hand.settle();
    // Half a request is not finished by a drain, and gives its memory back.
    assert!(hand.is_closed(holder) && !hand.is_closed(waits));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(waits), bulk("a"));
    assert!(hand.engine.is_drained());

    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    let count = 5_000;
    hand.send(client, cmd("GET a").repeat(count).as_bytes());
    hand.engine.start_drain(hand.now);
    hand.settle();
    for _ in 0..count {
        hand.say(hand.conn(0), b"$-1\r\n");
    }
    assert_eq!(hand.got(client), "$-1\r\n".repeat(count));
    assert!(hand.engine.is_drained());
}

/// The work of a worker while each of fifty responses takes its server `millis`, and its own ticks next to
/// nothing: whether it then lets events gather.
fn gathers_when_responses_take(millis: u64) -> bool {
    let mut hand = Hand::new(pool(Protocol::Memcache, 1));
    let client = hand.client();
    let mut until = None;
    for _ in 0..50 {
        hand.send(client, b"get a\r\n");
        let conn = hand.conn(0);
        hand.wait_ms(millis);
        hand.say(conn, b"END\r\n");
        let now = hand.now;
        until = hand.engine.poll_gather(now);
        assert!(until.is_none_or(|until| until > now && until <= now + GATHER_MAX));
    }
    until.is_some()
}

#[test]
fn events_gather_only_while_servers_take_their_time() {
    assert!(gathers_when_responses_take(2));
    assert!(!gathers_when_responses_take(0));
}

/// How many requests a server was sent since it was last asked.
fn requests_at(hand: &mut Hand, conn: ServerConnId) -> usize {
    hand.got(conn).matches("get a").count()
}

// With small limits every response is a large one.
#[cfg(not(small_limits))]
#[test]
fn of_a_client_with_large_responses_few_requests_are_in_flight() {
    const LARGE: usize = 32 * 1024;
    let at_once = usize::try_from(LARGE_IN_FLIGHT_LEN).unwrap() / LARGE;
    let value = "x".repeat(LARGE - 18);
    let large = format!("VALUE a 0 {}\r\n{value}\r\n", value.len()) + "END\r\n";
    let mut hand = Hand::new(pool(Protocol::Memcache, 1));
    let (greedy, modest) = (hand.client(), hand.client());
    hand.send(greedy, b"get a\r\n");
    let conn = hand.conn(0);
    hand.say(conn, large.as_bytes());
    assert_eq!(hand.got(greedy), large);
    assert_eq!(requests_at(&mut hand, conn), 1);

    // Although it rested meanwhile.
    hand.send(greedy, &b"get a\r\n".repeat(16));
    hand.send(modest, &b"get a\r\n".repeat(16));
    assert_eq!(requests_at(&mut hand, conn), at_once + 16);
    for answered in 1..=at_once {
        hand.say(conn, large.as_bytes());
        assert_eq!(hand.got(greedy), large);
        // It goes on whenever half of them are answered.
        let half = at_once / 2;
        let more = if answered % half == 0 { half } else { 0 };
        assert_eq!(requests_at(&mut hand, conn), more);
    }
    hand.say(conn, b"END\r\n".repeat(16).as_slice());
    assert_eq!(hand.got(modest), "END\r\n".repeat(16));

    // Small responses open the window again, by and by.
    let mut left = 16 - at_once;
    let mut in_flight = at_once;
    while left > 0 {
        hand.say(conn, &b"END\r\n".repeat(in_flight));
        left -= in_flight;
        in_flight = requests_at(&mut hand, conn);
    }
    assert_eq!(hand.got(greedy), "END\r\n".repeat(16 - at_once));
    hand.send(greedy, &b"get a\r\n".repeat(100));
    let first = usize::try_from(CLIENT_IN_FLIGHT_FIRST).unwrap();
    assert_eq!(requests_at(&mut hand, conn), first);
}
