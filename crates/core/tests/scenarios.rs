//! Failure branches by name: a hand-driven engine in virtual time. Each test is a story.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, key_of, open_window, redis, with_timeout};
use twemproxy_core::config::CrossServerKeys;
use twemproxy_core::engine::{ClientEnd, Closed, Notice};
use twemproxy_core::ids::ServerId;
use twemproxy_core::limits;
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_testkit::hand::{Hand, OnConnect, pool};

#[test]
fn a_request_goes_unchanged_to_its_server_and_the_reply_comes_back() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    let request = "*2\r\n$3\r\nGeT\r\n$1\r\na\r\n";
    hand.send(client, request.as_bytes());
    assert_eq!(hand.got(hand.conn(0)), request);
    hand.say(hand.conn(0), b"$1\r\nx\r\n");
    assert_eq!(hand.got(client), "$1\r\nx\r\n");
    let server = &hand.engine.counters().servers[ServerId::initial(0)];
    assert_eq!((server.requests.value(), server.responses.value()), (1, 1));
    assert_eq!(hand.engine.held(), 0);
}

#[test]
fn a_split_request_waits_for_every_fragment_and_for_what_came_before_it() {
    let config = redis(2);
    let (a, b, c) = (
        key_of(&config, 0, 0),
        key_of(&config, 1, 0),
        key_of(&config, 0, 1),
    );
    let x = key_of(&config, 1, 1);
    let mut hand = Hand::new(config);
    let client = hand.client();
    let both = cmd(&format!("GET {x}")) + &cmd(&format!("MGET {a} {b} {c}"));
    hand.send(client, both.as_bytes());
    let (s0, s1) = (hand.conn(0), hand.conn(1));
    assert_eq!(hand.got(s0), cmd(&format!("mget {a} {c}")));
    assert_eq!(
        hand.got(s1),
        cmd(&format!("GET {x}")) + &cmd(&format!("mget {b}"))
    );
    hand.say(s0, format!("*2\r\n{}{}", bulk("A"), bulk("C")).as_bytes());
    assert_eq!(hand.got(client), "");
    hand.say(s1, format!("{}*1\r\n$-1\r\n", bulk("X")).as_bytes());
    let expected = format!("{}*3\r\n{}$-1\r\n{}", bulk("X"), bulk("A"), bulk("C"));
    assert_eq!(hand.got(client), expected);
    assert_eq!(hand.engine.counters().pools[0].fragments.value(), 2);
    assert_eq!(hand.engine.held(), 0);
}

#[test]
fn early_responses_wait_until_the_older_ones_have_left() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(
        client,
        (cmd(&format!("GET {a}")) + &cmd(&format!("GET {b}"))).as_bytes(),
    );
    hand.send(client, cmd("PING").as_bytes());
    hand.say(hand.conn(1), bulk("B").as_bytes());
    assert_eq!(hand.got(client), "");
    hand.say(hand.conn(0), bulk("A").as_bytes());
    assert_eq!(hand.got(client), bulk("A") + &bulk("B") + "+PONG\r\n");
}

// C107 C127
#[test]
fn a_refused_connection_fails_what_waits_for_it_in_order_and_the_next_request_tries_again() {
    let mut hand = Hand::new(redis(1));
    hand.on_connect
        .insert(ServerId::initial(0), OnConnect::Hang);
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, (cmd("GET a") + &cmd("GET b")).as_bytes());
    hand.send(two, cmd("GET c").as_bytes());
    hand.breaks(hand.conn(0), Closed::Refused);
    let error = "-ERR Connection refused\r\n";
    assert_eq!(hand.got(one), error.repeat(2));
    assert_eq!(hand.got(two), error);
    assert_eq!(hand.engine.counters().pools[0].forward_error.value(), 3);
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_err
            .value(),
        1
    );
    hand.on_connect.clear();
    hand.send(one, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), b"$-1\r\n");
    assert_eq!(hand.got(one), "$-1\r\n");
}

#[test]
fn a_lost_connection_fails_its_whole_pipeline_and_no_one_elses() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd(&format!("INCR {a}")).repeat(3).as_bytes());
    hand.send(two, cmd(&format!("GET {b}")).as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    assert_eq!(hand.got(one), "-ERR Connection reset by peer\r\n".repeat(3));
    assert_eq!(hand.got(two), "");
    hand.say(hand.conn(1), bulk("B").as_bytes());
    assert_eq!(hand.got(two), bulk("B"));
    assert!(!hand.is_closed(one));
}

// C111 D14
#[test]
fn a_server_that_closes_in_order_says_so_to_those_who_wait() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("INCR a").as_bytes());
    let conn = hand.conn(0);
    hand.half_closes(conn);
    assert_eq!(hand.got(client), "-ERR Server closed the connection\r\n");
    assert!(hand.is_closed(conn));
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_eof
            .value(),
        1
    );
}

// C110 D10
#[test]
fn a_time_out_hurts_only_its_own_request_and_the_late_response_is_discarded() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    let (slow, quick) = (hand.client(), hand.client());
    hand.send(slow, cmd("GET slow").as_bytes());
    hand.wait_ms(60);
    hand.send(quick, cmd("GET quick").as_bytes());
    hand.wait_ms(60);
    assert_eq!(hand.got(slow), "-ERR Connection timed out\r\n");
    assert_eq!(hand.got(quick), "");
    let conn = hand.conn(0);
    hand.say(conn, (bulk("late") + &bulk("mine")).as_bytes());
    assert_eq!(hand.got(slow), "");
    assert_eq!(hand.got(quick), bulk("mine"));
    assert!(!hand.is_closed(conn));
    let server = &hand.engine.counters().servers[ServerId::initial(0)];
    assert_eq!(server.server_timedout.value(), 1);
    assert_eq!(
        (server.out_queue.value(), server.out_queue_bytes.value()),
        (0, 0)
    );
}

// D10
#[test]
fn an_expired_request_of_which_nothing_was_sent_is_withdrawn() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    hand.got(conn);
    hand.limit_writes(conn, 0);
    hand.send(client, cmd("SET b 1").as_bytes());
    hand.wait_ms(90);
    hand.send(client, cmd("SET c 1").as_bytes());
    hand.say(conn, b"$-1\r\n");
    hand.wait_ms(20);
    assert_eq!(hand.got(client), "$-1\r\n-ERR Connection timed out\r\n");
    hand.unlimit_writes(conn);
    assert_eq!(hand.got(conn), cmd("SET c 1"));
    hand.say(conn, b"+OK\r\n");
    assert_eq!(hand.got(client), "+OK\r\n");
}

// D10 D36
#[test]
fn a_connection_that_stays_silent_for_one_more_time_out_is_given_up() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    hand.wait_ms(150);
    assert!(!hand.is_closed(conn));
    hand.send(client, cmd("GET b").as_bytes());
    hand.wait_ms(60);
    assert!(hand.is_closed(conn));
    assert_eq!(hand.got(client), "-ERR Connection timed out\r\n".repeat(2));
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_timedout
            .value(),
        1,
        "one silent episode"
    );
    hand.send(client, cmd("GET c").as_bytes());
    assert_ne!(hand.conn(0), conn);
    hand.say(hand.conn(0), bulk("c").as_bytes());
    assert_eq!(hand.got(client), bulk("c"));
}

#[test]
fn a_connection_attempt_that_hangs_is_given_up_with_its_oldest_request() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    hand.on_connect
        .insert(ServerId::initial(0), OnConnect::Hang);
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    hand.wait_ms(99);
    assert_eq!(hand.got(client), "");
    hand.wait_ms(2);
    assert_eq!(hand.got(client), "-ERR Connection timed out\r\n");
    assert!(hand.is_closed(hand.conn(0)));
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_timedout
            .value(),
        1
    );
}

// C120
#[test]
fn a_client_that_leaves_early_does_not_disturb_the_pipeline() {
    let mut hand = Hand::new(redis(1));
    let (gone, stays) = (hand.client(), hand.client());
    hand.send(gone, cmd("GET secret").as_bytes());
    hand.send(stays, cmd("GET mine").as_bytes());
    hand.breaks(gone, Closed::Reset);
    let later = hand.client();
    assert_eq!(later.index, gone.index, "the place is used again");
    hand.say(hand.conn(0), (bulk("secret") + &bulk("mine")).as_bytes());
    assert_eq!(hand.got(stays), bulk("mine"));
    assert_eq!(hand.got(later), "");
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .responses
            .value(),
        1,
        "discarded ones do not count"
    );
    assert_eq!(hand.engine.counters().pools[0].client_err.value(), 1);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_split_request_leaves_nothing_behind() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, cmd(&format!("MGET {a} {b}")).as_bytes());
    hand.say(hand.conn(0), format!("*1\r\n{}", bulk("A")).as_bytes());
    hand.breaks(client, Closed::Eof);
    hand.say(hand.conn(1), format!("*1\r\n{}", bulk("B")).as_bytes());
    assert_eq!(hand.engine.held(), 0);
    assert!(!hand.is_closed(hand.conn(1)));
}

// C94 D30
#[test]
fn the_first_fragment_error_in_server_order_answers_the_whole_request_once() {
    let config = redis(3);
    let keys: Vec<_> = (0..3).map(|server| key_of(&config, server, 0)).collect();
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, cmd(&format!("DEL {}", keys.join(" "))).as_bytes());
    hand.say(hand.conn(2), b"-ERR third\r\n");
    hand.say(hand.conn(0), b":1\r\n");
    assert_eq!(hand.got(client), "");
    hand.say(hand.conn(1), b"-MISCONF second\r\n");
    assert_eq!(hand.got(client), "-MISCONF second\r\n");
    assert!(!hand.is_closed(client));
}

// C117 C119 D12
#[test]
fn a_dead_fragment_gives_one_error_and_the_client_stays() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    hand.on_connect
        .insert(ServerId::initial(1), OnConnect::Fail(Closed::Refused));
    let client = hand.client();
    hand.send(
        client,
        (cmd(&format!("MGET {a} {b}")) + &cmd("PING")).as_bytes(),
    );
    hand.say(hand.conn(0), format!("*1\r\n{}", bulk("A")).as_bytes());
    assert_eq!(hand.got(client), "-ERR Connection refused\r\n+PONG\r\n");
}

// C114
#[test]
fn a_stray_response_closes_the_server_connection() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    hand.say(conn, (bulk("a") + &bulk("stray")).as_bytes());
    assert_eq!(hand.got(client), bulk("a"));
    assert!(hand.is_closed(conn));
    assert!(
        hand.notices
            .contains(&Notice::ServerInvalid(ServerId::initial(0)))
    );
    hand.send(client, cmd("GET b").as_bytes());
    assert_eq!(hand.got(client), "");
    hand.say(hand.conn(0), bulk("b").as_bytes());
    assert_eq!(hand.got(client), bulk("b"));
}

#[test]
fn bytes_that_are_no_response_fail_everyone_on_that_connection() {
    let mut hand = Hand::new(redis(1));
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd("GET a").as_bytes());
    hand.send(two, cmd("GET b").as_bytes());
    hand.say(hand.conn(0), b"HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(hand.got(one), "-ERR Invalid argument\r\n");
    assert_eq!(hand.got(two), "-ERR Invalid argument\r\n");
    assert!(hand.is_closed(hand.conn(0)));
}

#[test]
fn a_server_may_answer_before_it_has_the_whole_request() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    hand.say(conn, b"$-1\r\n");
    hand.limit_writes(conn, 5);
    hand.send(client, cmd("SET a toolarge").as_bytes());
    hand.say(conn, b"-ERR no\r\n");
    hand.unlimit_writes(conn);
    hand.send(client, cmd("GET a").as_bytes());
    hand.say(conn, b"$-1\r\n");
    assert_eq!(hand.got(client), "$-1\r\n-ERR no\r\n$-1\r\n");
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .in_queue
            .value(),
        0
    );
}

#[test]
fn requests_of_which_nothing_was_sent_move_to_the_next_connection_once() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    let first = hand.conn(0);
    hand.limit_writes(first, 0);
    hand.send(client, (cmd("SET b 1") + &cmd("SET c 1")).as_bytes());
    hand.breaks(first, Closed::Eof);
    let second = hand.conn(0);
    assert_ne!(second, first);
    assert_eq!(hand.got(second), cmd("SET b 1") + &cmd("SET c 1"));
    assert_eq!(hand.got(client), "-ERR Server closed the connection\r\n");
    hand.say(second, b"+OK\r\n+OK\r\n");
    assert_eq!(hand.got(client), "+OK\r\n+OK\r\n");
}

// C123 C125
#[test]
fn an_ejected_server_leaves_its_keys_to_the_others_and_returns() {
    let mut config = redis(2);
    config.auto_eject_hosts = true;
    config.server_failure_limit = 2;
    config.server_retry_timeout = Span::from_millis(1000);
    let key = key_of(&config, 0, 0);
    let mut hand = Hand::new(config);
    hand.on_connect
        .insert(ServerId::initial(0), OnConnect::Fail(Closed::Refused));
    let client = hand.client();
    let get = cmd(&format!("GET {key}"));
    for _ in 0..2 {
        hand.send(client, get.as_bytes());
        assert_eq!(hand.got(client), "-ERR Connection refused\r\n");
    }
    assert!(
        hand.notices
            .contains(&Notice::Ejected(ServerId::initial(0)))
    );
    hand.send(client, get.as_bytes());
    assert_eq!(hand.got(hand.conn(1)), get);
    hand.say(hand.conn(1), b"$-1\r\n");
    let counters = hand.engine.counters();
    assert_eq!(counters.pools[0].server_ejects.value(), 1);
    assert_ne!(
        counters.servers[ServerId::initial(0)]
            .server_ejected_at
            .value(),
        0
    );
    hand.on_connect.clear();
    hand.wait_ms(1001);
    hand.got(hand.conn(0));
    hand.say(hand.conn(0), b"+PONG\r\n");
    assert!(
        hand.notices
            .contains(&Notice::Restored(ServerId::initial(0)))
    );
    hand.send(client, get.as_bytes());
    assert_eq!(hand.got(hand.conn(0)), get);
}

// C118 C126 D12
#[test]
fn with_all_servers_ejected_requests_are_refused_without_a_connection_attempt() {
    let mut config = redis(1);
    config.auto_eject_hosts = true;
    config.server_failure_limit = 1;
    let mut hand = Hand::new(config);
    hand.on_connect.insert(
        ServerId::initial(0),
        OnConnect::Fail(Closed::HostUnreachable),
    );
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    assert_eq!(hand.got(client), "-ERR No route to host\r\n");
    hand.send(
        client,
        (cmd("GET a") + &cmd("MGET a b") + &cmd("PING")).as_bytes(),
    );
    assert_eq!(
        hand.got(client),
        "-ERR Connection refused\r\n".repeat(2) + "+PONG\r\n"
    );
    assert_eq!(hand.conns_of(0).len(), 1);
}

// C124
#[test]
fn a_healthy_response_forgets_earlier_failures() {
    let mut config = redis(1);
    config.auto_eject_hosts = true;
    config.server_failure_limit = 2;
    let mut hand = Hand::new(config);
    let client = hand.client();
    for _ in 0..3 {
        hand.send(client, cmd("GET a").as_bytes());
        hand.breaks(hand.conn(0), Closed::Reset);
        hand.send(client, cmd("GET a").as_bytes());
        hand.say(hand.conn(0), b"$-1\r\n");
    }
    assert_eq!(hand.engine.counters().pools[0].server_ejects.value(), 0);
}

#[test]
fn an_idle_connection_closed_by_the_server_is_no_failure() {
    let mut config = redis(1);
    config.auto_eject_hosts = true;
    config.server_failure_limit = 1;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), b"$-1\r\n");
    hand.half_closes(hand.conn(0));
    let counters = hand.engine.counters();
    assert_eq!(counters.pools[0].server_ejects.value(), 0);
    assert_eq!(counters.servers[ServerId::initial(0)].server_eof.value(), 1);
}

#[test]
fn noreply_requests_owe_nothing() {
    let mut hand = Hand::new(pool(Protocol::Memcache, 1));
    let client = hand.client();
    hand.send(client, b"set a 0 0 1 noreply\r\nx\r\nget a\r\n");
    let conn = hand.conn(0);
    assert_eq!(hand.got(conn), "set a 0 0 1 noreply\r\nx\r\nget a\r\n");
    hand.say(conn, b"VALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(hand.got(client), "VALUE a 0 1\r\nx\r\nEND\r\n");
    let server = &hand.engine.counters().servers[ServerId::initial(0)];
    assert_eq!((server.requests.value(), server.responses.value()), (2, 1));
}

#[test]
fn quit_closes_after_what_is_owed() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(
        client,
        (cmd("GET a") + &cmd("QUIT") + &cmd("GET b")).as_bytes(),
    );
    assert_eq!(hand.got(hand.conn(0)), cmd("GET a"));
    assert!(!hand.is_closed(client));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(client), bulk("a") + "+OK\r\n");
    assert!(hand.is_closed(client));
    assert_eq!(hand.engine.counters().pools[0].client_eof.value(), 1);
}

// C121
#[test]
fn a_half_closed_client_still_gets_what_it_is_owed() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, (cmd("GET a") + "*2\r\n$3\r\nGE").as_bytes());
    hand.half_closes(client);
    assert!(!hand.is_closed(client));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(client), bulk("a"));
    assert!(hand.is_closed(client));
    assert_eq!(hand.engine.held(), 0);
}

// C122 D2
#[test]
fn replies_to_valid_requests_leave_before_a_protocol_error_closes() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, (cmd("GET a") + "*1\r\n!x\r\n").as_bytes());
    assert!(!hand.is_closed(client));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    let expected = bulk("a") + "-ERR Protocol error: expected '$', got '!'\r\n";
    assert_eq!(hand.got(client), expected);
    assert!(hand.is_closed(client));
}

// D16
#[test]
fn a_full_pool_tells_the_client_why() {
    let mut config = redis(1);
    config.client_connections = 1;
    let mut hand = Hand::new(config);
    let first = hand.client();
    let refused = hand.try_client().unwrap_err();
    assert_eq!(refused.reply, b"-ERR max number of clients reached\r\n");
    hand.breaks(first, Closed::Eof);
    hand.client();
    assert_eq!(
        hand.engine.counters().pools[0].client_connections.value(),
        1
    );
}

#[test]
fn a_client_with_too_much_in_flight_is_not_read_until_half_has_left() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    let request = cmd("GET a");
    let max = usize::try_from(limits::CLIENT_IN_FLIGHT_MAX).unwrap();
    open_window(&mut hand, client, &request, &bulk("1"));
    hand.send(client, request.repeat(max + 10).as_bytes());
    assert!(hand.send(client, b"x") == 0 && hand.is_read_paused(client));
    let conn = hand.conn(0);
    assert_eq!(hand.got(conn).len(), max * request.len());
    hand.say(conn, bulk("1").repeat(max / 2).as_bytes());
    assert!(!hand.is_read_paused(client));
    assert_eq!(hand.got(conn), request.repeat(10));
    hand.say(conn, bulk("1").repeat(max / 2 + 10).as_bytes());
    assert_eq!(hand.got(client).len(), bulk("1").len() * (max + 10));
}

// D17
#[test]
fn a_client_that_does_not_read_is_served_up_to_its_limit_and_its_neighbours_go_on() {
    let mut config = redis(1);
    config.client_output_limit = 1_000_000;
    let mut hand = Hand::new(config);
    let (slow, other) = (hand.client(), hand.client());
    hand.limit_writes(slow, 0);
    let value = bulk(&"v".repeat(100_000));
    for _ in 0..9 {
        hand.send(slow, cmd("GET big").as_bytes());
        assert_eq!(hand.got(hand.conn(0)), cmd("GET big"));
        hand.say(hand.conn(0), value.as_bytes());
    }
    assert!(!hand.is_closed(slow));
    // One whose replies go beyond the limit.
    let greedy = hand.client();
    hand.limit_writes(greedy, 0);
    hand.send(other, cmd("GET small").as_bytes());
    hand.say(hand.conn(0), bulk("small").as_bytes());
    for _ in 0..10 {
        hand.send(greedy, cmd("GET big").as_bytes());
        hand.say(hand.conn(0), value.as_bytes());
    }
    assert!(hand.is_closed(greedy));
    assert_eq!(hand.end_of(greedy), Some(ClientEnd::OutputLimit));
    assert_eq!(hand.got(other), bulk("small"));
    // The first one gets everything when it reads.
    hand.unlimit_writes(slow);
    assert_eq!(hand.got(slow), value.repeat(9));
    assert_eq!(hand.engine.held(), 0);
}

#[test]
fn clients_wait_for_a_server_connection_that_has_too_much_to_send() {
    let mut hand = Hand::new(redis(1));
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd("GET a").as_bytes());
    let conn = hand.conn(0);
    hand.got(conn);
    hand.limit_writes(conn, 0);
    let set = cmd(&format!("SET k {}", "v".repeat(1_000_000)));
    let mut taken = 0;
    for _ in 0..20 {
        if hand.send(one, set.as_bytes()) < set.len() {
            break;
        }
        taken += 1;
    }
    assert!(
        (4..8).contains(&taken),
        "stalls above the soft limit, not at {taken}"
    );
    hand.send(two, cmd("GET b").as_bytes());
    assert!(hand.engine.held() < 3 * limits::SERVER_OUTPUT_SOFT);
    hand.unlimit_writes(conn);
    let got = hand.got(conn);
    assert!(got.contains(&cmd("GET b")), "the stalled clients go on");
    assert!(!hand.is_read_paused(one));
}

#[test]
fn a_large_response_streams_through_and_a_break_in_it_closes_the_client() {
    let mut hand = Hand::new(redis(1));
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd("GET big").as_bytes());
    hand.send(two, cmd("INCR next").as_bytes());
    let conn = hand.conn(0);
    hand.say(conn, b"$1000000\r\n");
    hand.say(conn, &[b'v'; 300_000]);
    assert_eq!(hand.got(one).len(), 300_010, "what has come has left");
    hand.breaks(conn, Closed::Reset);
    assert_eq!(hand.got(one), "");
    assert!(
        hand.is_closed(one),
        "half a reply can only end with the connection"
    );
    assert_eq!(hand.got(two), "-ERR Connection reset by peer\r\n");
}

#[test]
fn a_reply_that_breaks_before_any_of_it_was_sent_becomes_an_error() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET a").repeat(2).as_bytes());
    let conn = hand.conn(0);
    // Both come in one read and are not flushed before the connection breaks in the same tick.
    let said = bulk("whole") + "$1000\r\nhalf";
    let space = hand.engine.recv_space(conn.into());
    space[..said.len()].copy_from_slice(said.as_bytes());
    hand.engine.recv_commit(conn.into(), said.len(), hand.now);
    hand.breaks(conn, Closed::Reset);
    let expected = bulk("whole") + "-ERR Connection reset by peer\r\n";
    assert_eq!(hand.got(client), expected);
    assert!(!hand.is_closed(client));
}

#[test]
fn a_large_response_before_its_turn_waits_and_then_streams() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(
        client,
        (cmd(&format!("GET {a}")) + &cmd(&format!("GET {b}"))).as_bytes(),
    );
    let large = bulk(&"0123456789".repeat(10_000));
    let (begin, end) = large.split_at(15);
    hand.say(hand.conn(1), begin.as_bytes());
    assert_eq!(hand.got(client), "");
    hand.say(hand.conn(0), bulk("A").as_bytes());
    assert_eq!(hand.got(client), bulk("A") + begin);
    hand.say(hand.conn(1), end.as_bytes());
    assert_eq!(hand.got(client), end);
}

#[test]
fn a_failed_half_response_before_its_turn_is_replaced_by_the_error() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(
        client,
        (cmd(&format!("GET {a}")) + &cmd(&format!("GET {b}"))).as_bytes(),
    );
    hand.say(hand.conn(1), b"$20\r\n0123456789");
    hand.breaks(hand.conn(1), Closed::Reset);
    hand.say(hand.conn(0), bulk("A").as_bytes());
    assert_eq!(
        hand.got(client),
        bulk("A") + "-ERR Connection reset by peer\r\n"
    );
    assert!(!hand.is_closed(client));
}

// C100 C104 C105 D18
#[test]
fn no_request_leaves_before_auth_and_select_are_accepted() {
    let mut config = redis(1);
    config.redis_auth = Some(b"pw".as_slice().into());
    config.redis_db = 3;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    assert_eq!(hand.got(client), "-NOAUTH Authentication required.\r\n");
    hand.send(client, (cmd("AUTH pw") + &cmd("GET a")).as_bytes());
    assert_eq!(hand.got(client), "+OK\r\n");
    let conn = hand.conn(0);
    assert_eq!(hand.got(conn), cmd("AUTH pw") + &cmd("SELECT 3"));
    hand.say(conn, b"+OK\r\n");
    assert_eq!(hand.got(conn), "");
    hand.say(conn, b"+OK\r\n");
    assert_eq!(hand.got(conn), cmd("GET a"));
    hand.say(conn, b"$-1\r\n");
    assert_eq!(hand.got(client), "$-1\r\n");
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .requests
            .value(),
        1,
        "ours do not count"
    );
}

// C102 D18
#[test]
fn a_refused_password_is_told_to_the_waiting_clients() {
    let mut config = redis(1);
    config.redis_auth = Some(b"pw".as_slice().into());
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, (cmd("AUTH pw") + &cmd("GET a")).as_bytes());
    hand.got(client);
    let conn = hand.conn(0);
    hand.say(
        conn,
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    );
    assert!(hand.got(client).starts_with("-WRONGPASS"));
    assert!(hand.is_closed(conn));
    assert!(
        hand.notices
            .contains(&Notice::ServerRefusedHandshake(ServerId::initial(0)))
    );
}

// C130 D15
#[test]
fn a_client_keeps_to_one_of_several_connections() {
    let mut config = redis(1);
    config.server_connections = 2;
    let mut hand = Hand::new(config);
    let (one, two, three) = (hand.client(), hand.client(), hand.client());
    hand.send(one, cmd("GET 1").as_bytes());
    hand.send(two, cmd("GET 2").as_bytes());
    hand.send(three, cmd("GET 3").as_bytes());
    hand.send(one, cmd("SET 1 x").as_bytes());
    let conns = hand.conns_of(0);
    assert_eq!(conns.len(), 2, "no more than allowed");
    assert_eq!(
        hand.got(conns[0]),
        cmd("GET 1") + &cmd("GET 3") + &cmd("SET 1 x")
    );
    assert_eq!(hand.got(conns[1]), cmd("GET 2"));
}

// D15
#[test]
fn an_idle_connection_is_used_before_another_is_opened() {
    let mut config = redis(1);
    config.server_connections = 3;
    let mut hand = Hand::new(config);
    for _ in 0..3 {
        let client = hand.client();
        hand.send(client, cmd("GET 1").as_bytes());
        hand.say(hand.conn(0), b"$-1\r\n");
    }
    assert_eq!(hand.conns_of(0).len(), 1);
}

// D29
#[test]
fn keys_on_several_servers_are_an_error_unless_the_pool_says_otherwise() {
    let mut config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let request = cmd(&format!("RENAME {a} {b}"));
    let mut hand = Hand::new(config.clone());
    let client = hand.client();
    hand.send(client, request.as_bytes());
    let expected =
        format!("-CROSSSLOT Keys in request don't hash to the same server ({a}: s0, {b}: s1)\r\n");
    assert_eq!(hand.got(client), expected);
    config.cross_server_keys = CrossServerKeys::First;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, request.as_bytes());
    assert_eq!(hand.got(hand.conn(0)), request);
}

#[test]
fn a_drain_closes_idle_clients_at_once_and_the_others_when_they_are_answered() {
    let mut hand = Hand::new(redis(1));
    let (idle, busy) = (hand.client(), hand.client());
    hand.send(busy, cmd("GET a").as_bytes());
    hand.engine.start_drain(hand.now);
    hand.settle();
    assert!(hand.is_closed(idle));
    assert!(!hand.is_closed(busy) && !hand.engine.is_drained());
    assert!(hand.try_client().is_err());
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(busy), bulk("a"));
    assert!(hand.is_closed(busy) && hand.engine.is_drained());
}

#[test]
fn flush_all_goes_to_every_server_where_it_is_allowed() {
    let mut config = pool(Protocol::Memcache, 3);
    config.allow_flush = true;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, b"flush_all\r\n");
    for server in 0..3 {
        assert_eq!(hand.got(hand.conn(server)), "flush_all\r\n");
        assert_eq!(hand.got(client), "");
        hand.say(hand.conn(server), b"OK\r\n");
    }
    assert_eq!(hand.got(client), "OK\r\n");
}
