//! Faults that count against a server, and faults that do not: servers that take a connection and refuse to serve it,
//! and errors that are the proxy's own. A hand-driven engine in virtual time.
//! The numbers before the tests are those of `docs/compat.md`.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, redis, with_timeout};
use twemproxy_core::config::PoolConfig;
use twemproxy_core::engine::{Closed, Notice};
use twemproxy_core::ids::{ClientId, ServerId};
use twemproxy_core::limits;
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_testkit::hand::{Hand, OnConnect, pool};

const SERVER: ServerId = ServerId::initial(0);

/// Request, hit and refusal of each protocol.
fn words(protocol: Protocol) -> (String, String, &'static str) {
    match protocol {
        Protocol::Redis => (
            cmd("GET a"),
            bulk("a"),
            "-ERR max number of clients reached\r\n",
        ),
        Protocol::Memcache => (
            "get a\r\n".into(),
            "VALUE a 0 1\r\na\r\nEND\r\n".into(),
            "ERROR Too many open connections\r\n",
        ),
    }
}

fn ejecting(mut config: PoolConfig, failure_limit: u32) -> PoolConfig {
    config.auto_eject_hosts = true;
    config.server_failure_limit = failure_limit;
    config.server_retry_timeout = Span::from_millis(1000);
    config
}

fn ejects(hand: &Hand) -> u64 {
    hand.engine.counters().pools[0].server_ejects.value()
}

/// The client asks, the server refuses and closes.
fn be_refused(hand: &mut Hand, client: ClientId, protocol: Protocol) {
    let (request, _, refusal) = words(protocol);
    hand.send(client, request.as_bytes());
    hand.say(hand.conn(0), refusal.as_bytes());
    assert_eq!(hand.got(client), refusal);
    hand.half_closes(hand.conn(0));
}

// D59
#[test]
fn an_error_and_a_close_are_a_failure_on_a_new_connection() {
    for protocol in [Protocol::Redis, Protocol::Memcache] {
        for limit in 1..=5 {
            let mut hand = Hand::new(ejecting(pool(protocol, 1), limit));
            let client = hand.client();
            for failures in 1..=limit {
                assert_eq!(ejects(&hand), 0, "after {failures} of {limit}");
                be_refused(&mut hand, client, protocol);
            }
            assert_eq!(ejects(&hand), 1);
            let told = Notice::ServerTurnedAway(SERVER);
            let count = hand.notices.iter().filter(|&&notice| notice == told);
            assert_eq!(u32::try_from(count.count()), Ok(limit));
            let lost = |notice: &Notice| matches!(notice, Notice::ServerLost { .. });
            assert!(!hand.notices.iter().any(lost));
        }
    }
}

// D59 D13
#[test]
fn an_error_is_no_refusal_if_anything_else_came_or_the_close_comes_late() {
    for protocol in [Protocol::Redis, Protocol::Memcache] {
        let (request, hit, error) = words(protocol);
        for (said, wait_ms) in [
            (hit.clone() + error, 0),
            (error.to_owned() + &hit, 0),
            (error.to_owned(), 501),
        ] {
            let config = with_timeout(ejecting(pool(protocol, 1), 1), 500);
            let mut hand = Hand::new(config);
            let client = hand.client();
            let asked = if said == error { 1 } else { 2 };
            hand.send(client, request.repeat(asked).as_bytes());
            hand.say(hand.conn(0), said.as_bytes());
            assert_eq!(hand.got(client), said);
            hand.wait_ms(wait_ms);
            hand.half_closes(hand.conn(0));
            assert_eq!(ejects(&hand), 0, "{said} {wait_ms}");
        }
    }
}

// D59
#[test]
fn the_end_of_a_refusal_is_awaited_for_the_time_out_or_a_second() {
    for (timeout_ms, wait_ms, is_failure) in [
        (Some(2500), 2500, true),
        (Some(2500), 2501, false),
        (None, 1000, true),
        (None, 1001, false),
    ] {
        let mut config = ejecting(redis(1), 1);
        config.timeout = timeout_ms.map(Span::from_millis);
        let mut hand = Hand::new(config);
        let client = hand.client();
        hand.send(client, cmd("GET a").as_bytes());
        hand.say(
            hand.conn(0),
            b"-DENIED Redis is running in protected mode\r\n",
        );
        hand.wait_ms(wait_ms);
        hand.half_closes(hand.conn(0));
        assert_eq!(ejects(&hand) == 1, is_failure, "{timeout_ms:?} {wait_ms}");
    }
}

// D59
#[test]
fn a_part_of_a_further_response_is_something_in_between() {
    let mut hand = Hand::new(ejecting(redis(1), 2));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").repeat(2).as_bytes());
    hand.say(hand.conn(0), b"-WRONGTYPE no\r\n$5\r\nab");
    hand.half_closes(hand.conn(0));
    assert!(!hand.notices.contains(&Notice::ServerTurnedAway(SERVER)));
}

// D59: the refusal of a new connection does not make earlier failures forgotten.
#[test]
fn a_refusal_is_no_healthy_response() {
    let mut hand = Hand::new(ejecting(redis(1), 3));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    hand.got(client);
    be_refused(&mut hand, client, Protocol::Redis);
    assert_eq!(ejects(&hand), 0);
    be_refused(&mut hand, client, Protocol::Redis);
    assert_eq!(ejects(&hand), 1);

    // An error that the server survives is followed by what makes them forgotten.
    let mut hand = Hand::new(ejecting(redis(1), 2));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    hand.send(client, cmd("GET a").repeat(2).as_bytes());
    hand.say(hand.conn(0), b"-WRONGTYPE no\r\n$-1\r\n");
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    assert_eq!(ejects(&hand), 0);
}

// D59 D32
#[test]
fn a_refusal_is_no_answer_to_a_probe() {
    for protocol in [Protocol::Redis, Protocol::Memcache] {
        let (_, _, refusal) = words(protocol);
        let question = match protocol {
            Protocol::Redis => cmd("PING"),
            Protocol::Memcache => "version\r\n".to_owned(),
        };
        let mut hand = Hand::new(ejecting(pool(protocol, 1), 1));
        let client = hand.client();
        be_refused(&mut hand, client, protocol);
        assert_eq!(ejects(&hand), 1);
        // Whether the refusal comes after the question or before it.
        for is_asked in [true, false] {
            if !is_asked {
                hand.on_connect.insert(SERVER, OnConnect::Hang);
            }
            hand.wait_ms(1001);
            let probe = hand.conn(0);
            if !is_asked {
                hand.limit_writes(probe, 0);
                hand.connected(probe);
            }
            assert_eq!(
                hand.got(probe),
                if is_asked { question.as_str() } else { "" }
            );
            hand.say(probe, refusal.as_bytes());
            assert!(hand.is_closed(probe));
            assert!(!hand.notices.contains(&Notice::Restored(SERVER)));
        }
        hand.on_connect.clear();
        hand.wait_ms(1001);
        let answer: &[u8] = match protocol {
            Protocol::Redis => b"+PONG\r\n",
            Protocol::Memcache => b"VERSION 1.6.18\r\n",
        };
        hand.say(hand.conn(0), answer);
        assert!(hand.notices.contains(&Notice::Restored(SERVER)));
    }
}

// D59: before anything was asked, with someone who waits or without.
#[test]
fn words_before_anything_was_asked_are_a_failure() {
    for protocol in [Protocol::Redis, Protocol::Memcache] {
        let (request, hit, refusal) = words(protocol);
        for (said, notice) in [
            (refusal, Notice::ServerTurnedAway(SERVER)),
            (hit.as_str(), Notice::ServerInvalid(SERVER)),
        ] {
            for waits in [true, false] {
                let mut config = ejecting(pool(protocol, 1), 1);
                config.preconnect = true;
                let mut hand = Hand::new(config);
                let client = hand.client();
                let conn = hand.conn(0);
                hand.limit_writes(conn, 0);
                if waits {
                    hand.send(client, request.as_bytes());
                }
                hand.say(conn, said.as_bytes());
                assert_eq!(ejects(&hand), 1, "{said}");
                assert!(hand.notices.contains(&notice), "{said}");
            }
        }
    }
}

// D59 D13
#[test]
fn a_server_that_closes_before_it_took_a_waiting_request_has_failed() {
    for waits in [true, false] {
        let mut config = ejecting(redis(1), 1);
        config.preconnect = true;
        let mut hand = Hand::new(config);
        let client = hand.client();
        let conn = hand.conn(0);
        hand.limit_writes(conn, 0);
        if waits {
            hand.send(client, cmd("GET a").as_bytes());
        }
        hand.breaks(conn, Closed::BrokenPipe);
        assert_eq!(ejects(&hand) == 1, waits);
    }
}

/// A server that refuses again and again is not asked at each request.
#[test]
fn without_ejection_attempts_back_off_from_a_server_that_refuses() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    for _ in 0..limits::RECONNECT_FREE_MAX {
        be_refused(&mut hand, client, Protocol::Redis);
    }
    let attempts = hand.conns_of(0).len();
    hand.send(client, cmd("GET a").as_bytes());
    assert_eq!(hand.got(client), "-ERR Server refused the connection\r\n");
    assert_eq!(hand.conns_of(0).len(), attempts);
    hand.wait_ms(20);
    hand.send(client, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(client), bulk("a"));
    // One that serves may fail as often again before anyone waits.
    hand.half_closes(hand.conn(0));
    be_refused(&mut hand, client, Protocol::Redis);
    hand.send(client, cmd("GET a").as_bytes());
    assert_eq!(hand.conns_of(0).len(), attempts + 3);
}

/// A mutant that took any stray error for a refusal survived.
#[test]
fn a_stray_error_after_traffic_is_told_to_nobody() {
    for protocol in [Protocol::Redis, Protocol::Memcache] {
        let (request, hit, error) = words(protocol);
        let mut hand = Hand::new(pool(protocol, 1));
        let (one, two) = (hand.client(), hand.client());
        hand.send(one, request.as_bytes());
        let conn = hand.conn(0);
        hand.say(conn, hit.as_bytes());
        assert_eq!(hand.got(one), hit);
        hand.limit_writes(conn, 0);
        hand.send(one, request.as_bytes());
        hand.send(two, request.as_bytes());
        hand.say(conn, error.as_bytes());
        assert!(hand.is_closed(conn));
        assert_eq!(
            (hand.got(one), hand.got(two)),
            (String::new(), String::new())
        );
        assert!(hand.notices.contains(&Notice::ServerInvalid(SERVER)));
        assert_eq!(
            hand.got(hand.conn(0)),
            request.repeat(2),
            "both are sent again"
        );
    }
}

#[test]
fn a_server_that_serves_again_without_having_been_ejected_is_told_once() {
    let back = |hand: &Hand| {
        let told = |notice: &&Notice| **notice == Notice::ServerBack(SERVER);
        hand.notices.iter().filter(told).count()
    };
    let mut config = redis(1);
    for redis_db in [0, 1] {
        config.redis_db = redis_db;
        let serve = |hand: &mut Hand| {
            for _ in 0..=redis_db {
                hand.say(hand.conn(0), b"+OK\r\n");
            }
        };
        let mut hand = Hand::new(config.clone());
        let client = hand.client();
        for _ in 0..2 {
            hand.send(client, cmd("SET a 1").as_bytes());
            serve(&mut hand);
            assert_eq!(back(&hand), 0);
            // The close of an idle connection is no failure.
            hand.half_closes(hand.conn(0));
        }
        hand.on_connect
            .insert(SERVER, OnConnect::Fail(Closed::Refused));
        hand.send(client, cmd("SET a 1").repeat(3).as_bytes());
        hand.on_connect.clear();
        hand.send(client, cmd("SET a 1").as_bytes());
        assert_eq!(back(&hand), 0, "not before it has served");
        serve(&mut hand);
        assert_eq!(back(&hand), 1);
        hand.send(client, cmd("SET a 1").as_bytes());
        hand.say(hand.conn(0), b"+OK\r\n");
        assert_eq!(back(&hand), 1);
    }
}

// D60
#[test]
fn what_the_process_itself_lacks_never_counts_against_a_server() {
    let words = [
        (Closed::TooManyFiles, "Too many open files"),
        (Closed::NoMemory, "Cannot allocate memory"),
        (Closed::NoBuffers, "No buffer space available"),
        (Closed::NoLocalAddress, "Cannot assign requested address"),
    ];
    for why in Closed::ALL {
        let ours = words.iter().find(|(reason, _)| *reason == why);
        assert_eq!(why.is_ours(), ours.is_some(), "{why:?}");
        let mut hand = Hand::new(ejecting(redis(1), 1));
        let client = hand.client();
        hand.on_connect.insert(SERVER, OnConnect::Fail(why));
        hand.send(client, cmd("SET a 1").as_bytes());
        assert_eq!(ejects(&hand) == 0, ours.is_some(), "{why:?}");
        if let Some((_, text)) = ours {
            assert_eq!(hand.got(client), format!("-ERR {text}\r\n"));
            let back = Notice::ServerBack(SERVER);
            hand.on_connect.clear();
            hand.send(client, cmd("SET a 1").as_bytes());
            hand.say(hand.conn(0), b"+OK\r\n");
            assert!(!hand.notices.contains(&back), "it had not failed");
        }
        // On a connection that stands, too.
        let mut hand = Hand::new(ejecting(redis(1), 1));
        let client = hand.client();
        hand.send(client, cmd("SET a 1").as_bytes());
        hand.breaks(hand.conn(0), why);
        assert_eq!(ejects(&hand) == 0, ours.is_some(), "{why:?}");
    }
}
