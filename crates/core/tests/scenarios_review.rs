//! Stories about what must not happen however long or unluckily it goes: a hand-driven engine in
//! virtual time.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, key_of, redis};
use twemproxy_core::config::Config;
use twemproxy_core::engine::{Closed, Notice};
use twemproxy_core::ids::ServerId;
use twemproxy_core::limits;
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_testkit::hand::{Hand, OnConnect, pool};

/// The invariants, checked after each step, bound the memory of early responses.
#[test]
fn a_client_that_is_never_without_an_early_response_does_not_fill_the_memory() {
    let config = redis(2);
    let (slow, fast) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    let both = cmd(&format!("GET {slow}")) + &cmd(&format!("GET {fast}"));
    let value = |i: u32| bulk(&format!("{i:01000}"));
    hand.send(client, both.as_bytes());
    hand.say(hand.conn(1), value(0).as_bytes());
    for i in 1..200 {
        hand.send(client, both.as_bytes());
        hand.say(hand.conn(1), value(i).as_bytes());
        hand.say(hand.conn(0), b"$-1\r\n");
        assert_eq!(hand.got(client), format!("$-1\r\n{}", value(i - 1)));
    }
}

#[test]
fn an_idle_limit_does_not_keep_the_engine_awake_while_a_client_waits_for_room() {
    let mut config = redis(1);
    config.client_idle_timeout = Some(Span::from_millis(100));
    let mut hand = Hand::new(config);
    let (big, waits) = (hand.client(), hand.client());
    hand.send(big, cmd("GET a").as_bytes());
    hand.limit_writes(hand.conn(0), 0);
    let set = cmd(&format!("SET k {}", "v".repeat(5_000_000)));
    hand.send(big, set.as_bytes());
    hand.send(waits, cmd("GET b").as_bytes());
    hand.wait_ms(250);
    let next = hand
        .engine
        .poll_timeout()
        .expect("both are looked at again");
    assert!(next >= hand.now, "the past is done with");
    let until = hand.now + Span::from_millis(99);
    let mut wake_ups = 0;
    while let Some(at) = hand.engine.poll_timeout().filter(|&at| at <= until) {
        hand.now = at;
        hand.engine.handle_timeout(at);
        hand.settle();
        wake_ups += 1;
        assert!(wake_ups < 10, "once per limit and client is enough");
    }
}

#[test]
fn bytes_that_come_before_a_request_was_sent_are_not_its_response() {
    let mut hand = Hand::new(redis(1));
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    hand.say(conn, bulk("a").as_bytes());
    assert_eq!(hand.got(one), bulk("a"));
    hand.limit_writes(conn, 0);
    hand.send(two, cmd("GET secret").as_bytes());
    hand.say(conn, bulk("stray").as_bytes());
    assert_eq!(hand.got(two), "");
    assert!(hand.is_closed(conn));
    assert!(
        hand.notices
            .contains(&Notice::ServerInvalid(ServerId::initial(0)))
    );
    assert_eq!(hand.got(hand.conn(0)), cmd("GET secret"));
    hand.say(hand.conn(0), bulk("secret").as_bytes());
    assert_eq!(hand.got(two), bulk("secret"));
}

#[test]
fn a_server_that_is_full_says_so_to_all_who_wait_for_it() {
    for protocol in [Protocol::Redis, Protocol::Memcache] {
        let mut config = pool(protocol, 1);
        config.preconnect = true;
        let mut hand = Hand::new(config);
        let (one, two) = (hand.client(), hand.client());
        let conn = hand.conn(0);
        hand.limit_writes(conn, 0);
        let (request, refusal) = match protocol {
            Protocol::Redis => (cmd("GET a"), "-ERR max number of clients reached\r\n"),
            Protocol::Memcache => ("get a\r\n".into(), "ERROR Too many open connections\r\n"),
        };
        hand.send(one, request.as_bytes());
        hand.send(two, request.as_bytes());
        hand.say(conn, refusal.as_bytes());
        assert_eq!(hand.got(one), refusal);
        assert_eq!(hand.got(two), refusal);
        assert!(hand.is_closed(conn));
    }
}

#[test]
fn requests_to_all_servers_wait_for_room_like_any_other() {
    let mut config = pool(Protocol::Memcache, 2);
    config.allow_flush = true;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, b"flush_all noreply\r\n");
    hand.limit_writes(hand.conn(0), 0);
    let many = b"flush_all noreply\r\n".repeat(1000);
    for _ in 0..500 {
        if hand.send(client, &many) == 0 {
            break;
        }
    }
    assert!(hand.is_read_paused(client));
    assert!(hand.engine.held() < limits::SERVER_OUTPUT_SOFT + 200_000);
    hand.unlimit_writes(hand.conn(0));
    assert!(!hand.is_read_paused(client));
    let of_first = hand.got(hand.conn(0));
    assert_eq!(of_first, hand.got(hand.conn(1)), "each got each once");
}

#[test]
fn who_waits_for_room_goes_on_when_it_comes_from_requests_that_expired() {
    let config = support::with_timeout(redis(1), 100);
    let mut hand = Hand::new(config);
    let (first, big, waits) = (hand.client(), hand.client(), hand.client());
    hand.on_connect
        .insert(ServerId::initial(0), OnConnect::Hang);
    hand.send(first, cmd("GET a").as_bytes());
    hand.wait_ms(60);
    let set = cmd(&format!("SET k {}", "v".repeat(5_000_000)));
    hand.send(big, set.as_bytes());
    hand.send(waits, cmd("GET b").as_bytes());
    hand.wait_ms(50);
    let second = hand.conn(0);
    assert_eq!(hand.conns_of(0).len(), 2, "the first attempt is over");
    hand.wait_ms(60);
    assert_eq!(hand.got(big), "-ERR Connection timed out\r\n");
    assert!(!hand.is_closed(second), "the second attempt goes on");
    hand.connected(second);
    assert_eq!(hand.got(second), cmd("GET b"));
}

/// Each looking at all others would take a minute.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "it is the real time that matters"
)]
fn many_requests_move_behind_a_handshake_in_reasonable_time() {
    let mut config = support::with_timeout(redis(1), 400);
    config.redis_auth = Some(b"secret".to_vec().into());
    let mut hand = Hand::new(config);
    let clients: Vec<_> = (0..24).map(|_| hand.client()).collect();
    for &client in &clients {
        hand.send(client, cmd("AUTH secret").as_bytes());
        hand.got(client);
    }
    hand.send(clients[0], cmd("SET a 1").as_bytes());
    let first = hand.conn(0);
    hand.say(first, b"+OK\r\n+OK\r\n");
    hand.limit_writes(first, 0);
    let sets = cmd("SET a 1").repeat(4_000);
    for &client in &clients {
        hand.send(client, sets.as_bytes());
    }
    hand.now = hand.now + Span::from_millis(1);
    let began = std::time::Instant::now();
    hand.breaks(first, Closed::Reset);
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_client_closed_at_the_memory_limit_saves_the_others() {
    let config = Config {
        pools: vec![redis(1)],
        memory_limit: 90_000,
        ..Config::default()
    };
    let mut hand = Hand::with_config(config);
    let clients: Vec<_> = (0..4).map(|_| hand.client()).collect();
    for &client in &clients {
        hand.limit_writes(client, 0);
        hand.send(client, cmd("GET a").as_bytes());
    }
    let value = bulk(&"v".repeat(15_000)).repeat(4);
    hand.say(hand.conn(0), value.as_bytes());
    for &client in &clients {
        hand.send(client, cmd("GET a").as_bytes());
    }
    // The last two bring the engine over its limit within one read.
    let value = bulk(&"v".repeat(12_000)).repeat(4);
    hand.say(hand.conn(0), value.as_bytes());
    let closed = clients.iter().filter(|&&c| hand.is_closed(c)).count();
    assert_eq!(closed, 1);
}

/// The invariants, checked after each step, bound the lists of those who wait.
#[test]
fn clients_that_wait_and_leave_are_forgotten() {
    let mut hand = Hand::new(redis(1));
    let big = hand.client();
    hand.send(big, cmd("GET a").as_bytes());
    hand.limit_writes(hand.conn(0), 0);
    let set = cmd(&format!("SET k {}", "v".repeat(5_000_000)));
    hand.send(big, set.as_bytes());
    for _ in 0..2_500 {
        let client = hand.client();
        hand.send(client, cmd("GET b").as_bytes());
        hand.breaks(client, Closed::Reset);
    }
    hand.send(big, cmd("GET c").as_bytes());
    hand.unlimit_writes(hand.conn(0));
    assert!(hand.got(hand.conn(0)).ends_with(&cmd("GET c")));
}
