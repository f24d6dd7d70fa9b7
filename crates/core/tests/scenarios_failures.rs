//! Requests and servers when servers fail: a hand-driven engine in virtual time.
//! The numbers before the tests are those of `docs/compat.md`.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, key_of, redis, with_timeout};
use twemproxy_core::config::{EjectPolicy, PoolConfig};
use twemproxy_core::engine::{ClientEnd, Closed, Notice};
use twemproxy_core::ids::{PoolIdx, ServerId};
use twemproxy_core::limits;
use twemproxy_core::owner::{Mail, Report};
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_core::topology::{Distribution, ShardState, Topology};
use twemproxy_testkit::hand::{Hand, OnConnect, pool};

const SERVER: ServerId = ServerId::initial(0);

fn ejecting(mut config: PoolConfig, failure_limit: u32) -> PoolConfig {
    config.auto_eject_hosts = true;
    config.server_failure_limit = failure_limit;
    config.server_retry_timeout = Span::from_millis(1000);
    config
}

fn refusing(hand: &mut Hand) {
    hand.on_connect
        .insert(SERVER, OnConnect::Fail(Closed::Refused));
}

fn ejects(hand: &Hand) -> u64 {
    hand.engine.counters().pools[0].server_ejects.value()
}

// D13
#[test]
fn a_read_only_request_is_sent_once_more_when_the_server_closes() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), &bulk("old").into_bytes());
    assert_eq!(hand.got(client), bulk("old"));
    hand.send(client, cmd("GET b").as_bytes());
    let first = hand.conn(0);
    hand.half_closes(first);
    let second = hand.conn(0);
    assert_ne!(first, second);
    assert_eq!(hand.got(second), cmd("GET b"));
    assert_eq!(hand.got(client), "");
    hand.say(second, bulk("b").as_bytes());
    assert_eq!(hand.got(client), bulk("b"));
    let counters = hand.engine.counters();
    assert_eq!(counters.servers[ServerId::initial(0)].requests.value(), 2);
    assert_eq!(counters.pools[0].forward_error.value(), 0);
    assert_eq!(hand.engine.held(), 0);
}

// D13
#[test]
fn a_read_only_request_that_left_behind_a_large_value_is_sent_once_more() {
    let mut hand = Hand::new(redis(1));
    let (writer, reader) = (hand.client(), hand.client());
    hand.send(writer, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), b"$-1\r\n");
    let first = hand.conn(0);
    hand.limit_writes(first, 0);
    hand.send(
        writer,
        cmd(&format!("SET a {}", "x".repeat(30_000))).as_bytes(),
    );
    hand.send(reader, cmd("GET b").as_bytes());
    // Both leave in one write: the value in the buffer it was read into, the other in a chunk.
    hand.unlimit_writes(first);
    hand.say(first, b"+OK\r\n");
    hand.half_closes(first);
    let second = hand.conn(0);
    assert_eq!(hand.got(second), cmd("GET b"));
    hand.say(second, bulk("b").as_bytes());
    assert_eq!(hand.got(reader), bulk("b"));
    assert_eq!(hand.engine.held(), 0);
}

// D13
#[test]
fn no_request_is_sent_three_times() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    assert_eq!(hand.got(hand.conn(0)), cmd("GET a"));
    hand.breaks(hand.conn(0), Closed::Reset);
    assert_eq!(hand.got(client), "-ERR Connection reset by peer\r\n");
    assert_eq!(hand.conns_of(0).len(), 2);
}

// D13 D14
#[test]
fn a_request_that_may_have_changed_something_is_never_sent_again() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    let requests = cmd("GET a") + &cmd("INCR n") + &cmd("GET b");
    hand.send(client, requests.as_bytes());
    hand.half_closes(hand.conn(0));
    assert_eq!(hand.got(hand.conn(0)), cmd("GET a") + &cmd("GET b"));
    hand.say(hand.conn(0), (bulk("a") + &bulk("b")).as_bytes());
    let error = "-ERR Server closed the connection\r\n";
    assert_eq!(hand.got(client), bulk("a") + error + &bulk("b"));
}

// D13
#[test]
fn of_a_half_written_request_only_a_read_only_one_is_sent_again_whole() {
    for (request, is_repeated) in [("GET abcdef", true), ("INCR abcdef", false)] {
        let mut hand = Hand::new(redis(1));
        let client = hand.client();
        hand.send(client, cmd("GET a").as_bytes());
        let first = hand.conn(0);
        hand.say(first, b"$-1\r\n");
        hand.got(client);
        hand.limit_writes(first, 7);
        hand.send(client, cmd(request).as_bytes());
        hand.breaks(first, Closed::Eof);
        if is_repeated {
            assert_eq!(hand.got(hand.conn(0)), cmd(request));
        } else {
            assert_eq!(hand.got(client), "-ERR Server closed the connection\r\n");
        }
        let server = &hand.engine.counters().servers[ServerId::initial(0)];
        assert_eq!(server.in_queue.value(), 0);
        assert_eq!(server.out_queue.value(), u64::from(is_repeated));
    }
}

// D13
#[test]
fn a_fragment_is_sent_again_and_a_response_that_has_begun_is_not_awaited_twice() {
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    let mget = cmd(&format!("MGET {a} {b}"));
    hand.send(client, mget.as_bytes());
    hand.say(hand.conn(1), format!("*1\r\n{}", bulk("B")).as_bytes());
    hand.half_closes(hand.conn(0));
    assert_eq!(hand.got(hand.conn(0)), cmd(&format!("mget {a}")));
    hand.say(hand.conn(0), format!("*1\r\n{}", bulk("A")).as_bytes());
    let both = format!("*2\r\n{}{}", bulk("A"), bulk("B"));
    assert_eq!(hand.got(client), both);

    hand.send(client, mget.as_bytes());
    hand.say(hand.conn(0), b"*1\r\n$4\r\nha");
    hand.half_closes(hand.conn(0));
    hand.say(hand.conn(1), format!("*1\r\n{}", bulk("B")).as_bytes());
    assert_eq!(hand.got(client), "-ERR Server closed the connection\r\n");
    assert_eq!(hand.engine.held(), 0);
}

// D13
#[test]
fn what_was_sent_long_ago_is_not_kept_and_fails() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET old").as_bytes());
    for i in 0..limits::KEPT_CHUNKS_MAX {
        hand.send(client, cmd(&format!("GET {i}")).as_bytes());
    }
    hand.half_closes(hand.conn(0));
    assert_eq!(hand.got(client), "-ERR Server closed the connection\r\n");
    let again: String = (0..limits::KEPT_CHUNKS_MAX)
        .map(|i| cmd(&format!("GET {i}")))
        .collect();
    assert_eq!(hand.got(hand.conn(0)), again);
}

// D13
#[test]
fn a_reading_request_of_a_client_that_is_gone_is_not_sent_again() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    hand.breaks(client, Closed::Reset);
    hand.half_closes(hand.conn(0));
    assert_eq!(hand.conns_of(0).len(), 1);
}

// D13
#[test]
fn neither_end_of_an_idle_connection_is_a_failure() {
    let mut hand = Hand::new(ejecting(redis(1), 1));
    let client = hand.client();
    for why in [Closed::Eof, Closed::Reset] {
        hand.send(client, cmd("GET a").as_bytes());
        hand.say(hand.conn(0), b"$-1\r\n");
        hand.breaks(hand.conn(0), why);
    }
    // Something was queued, but the server had none of it.
    hand.send(client, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), b"$-1\r\n");
    let idle = hand.conn(0);
    hand.limit_writes(idle, 0);
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.breaks(idle, Closed::BrokenPipe);
    assert_eq!(hand.got(hand.conn(0)), cmd("SET a 1"));
    assert_eq!(ejects(&hand), 0);
}

// D10
#[test]
fn at_the_close_of_a_silent_connection_unwritten_requests_move_and_keep_their_deadline() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    let silent = hand.conn(0);
    hand.got(silent);
    hand.wait_ms(50);
    hand.limit_writes(silent, 0);
    hand.wait_ms(100);
    assert_eq!(hand.got(client), "-ERR Connection timed out\r\n");
    hand.send(client, cmd("SET b 1").as_bytes());
    hand.on_connect.insert(SERVER, OnConnect::Hang);
    hand.wait_ms(60);
    assert!(hand.is_closed(silent), "silent for two time-outs");
    let second = hand.conn(0);
    assert_eq!(hand.got(client), "");
    hand.wait_ms(45);
    assert_eq!(hand.got(client), "-ERR Connection timed out\r\n");
    assert!(!hand.is_closed(second), "this attempt's time is not over");
    hand.connected(second);
    assert_eq!(hand.got(second), "", "withdrawn: never sent");
}

// D10
#[test]
fn requests_that_waited_for_a_dead_attempt_to_connect_get_another_until_their_own_deadline() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    hand.on_connect.insert(SERVER, OnConnect::Hang);
    let (early, late) = (hand.client(), hand.client());
    hand.send(early, cmd("SET a 1").as_bytes());
    hand.wait_ms(80);
    hand.send(late, cmd("SET b 1").as_bytes());
    hand.wait_ms(21);
    assert_eq!(hand.got(early), "-ERR Connection timed out\r\n");
    assert_eq!(hand.got(late), "");
    hand.connected(hand.conn(0));
    assert_eq!(hand.got(hand.conn(0)), cmd("SET b 1"));
    hand.say(hand.conn(0), b"+OK\r\n");
    assert_eq!(hand.got(late), "+OK\r\n");
}

// D10
#[test]
fn only_the_time_that_the_server_had_a_request_counts_against_it() {
    let mut hand = Hand::new(ejecting(with_timeout(redis(1), 100), 1));
    let client = hand.client();
    hand.on_connect.insert(SERVER, OnConnect::Hang);
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.wait_ms(90);
    hand.connected(hand.conn(0));
    hand.wait_ms(20);
    assert_eq!(hand.got(client), "-ERR Connection timed out\r\n");
    let timed_out = |hand: &Hand| {
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_timedout
            .value()
    };
    assert_eq!((timed_out(&hand), ejects(&hand)), (0, 0));
    hand.say(hand.conn(0), b"+OK\r\n");
    hand.send(client, cmd("SET b 1").as_bytes());
    hand.wait_ms(101);
    assert_eq!((timed_out(&hand), ejects(&hand)), (1, 1));
}

// D10
#[test]
fn a_half_given_reply_that_expires_closes_its_client() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd("GET big").as_bytes());
    hand.send(two, cmd("GET small").as_bytes());
    hand.say(hand.conn(0), b"$100000\r\n01234");
    hand.wait_ms(101);
    assert!(hand.is_closed(one));
    assert_eq!(hand.end_of(one), Some(ClientEnd::ReplyBroken));
    assert_eq!(hand.got(two), "-ERR Connection timed out\r\n");
    assert!(!hand.is_closed(hand.conn(0)));
}

// D10 D15
#[test]
fn a_client_leaves_a_silent_connection_when_nothing_of_its_own_can_be_overtaken() {
    let mut config = with_timeout(redis(1), 100);
    config.server_connections = 2;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    let silent = hand.conn(0);
    hand.wait_ms(60);
    hand.send(client, cmd("SET b 1").as_bytes());
    hand.wait_ms(60);
    assert_eq!(hand.got(client), "-ERR Connection timed out\r\n");
    hand.got(silent);
    hand.send(client, cmd("SET c 1").as_bytes());
    assert_eq!(hand.got(silent), cmd("SET c 1"), "b is still outstanding");
    let other = hand.client();
    hand.send(other, cmd("GET x").as_bytes());
    assert_eq!(hand.got(hand.conn(0)), cmd("GET x"), "new ones avoid it");
    assert_ne!(hand.conn(0), silent);
    hand.breaks(silent, Closed::Reset);
    hand.send(client, cmd("GET a").as_bytes());
    assert_eq!(hand.got(hand.conn(0)), cmd("GET a"));
}

// D15
#[test]
fn a_noreply_request_binds_its_client_until_a_later_response_shows_that_it_was_executed() {
    let mut config = with_timeout(pool(Protocol::Memcache, 1), 100);
    config.server_connections = 2;
    for is_confirmed in [false, true] {
        let mut hand = Hand::new(config.clone());
        let (one, other) = (hand.client(), hand.client());
        hand.send(one, b"set a 0 0 1 noreply\r\nx\r\n");
        let conn = hand.conn(0);
        if is_confirmed {
            hand.send(one, b"get a\r\n");
            hand.say(conn, b"END\r\n");
            hand.got(one);
        }
        hand.send(other, b"get slow\r\n");
        hand.wait_ms(110);
        assert_eq!(hand.got(other), "SERVER_ERROR Connection timed out\r\n");
        hand.got(conn);
        hand.send(one, b"get a\r\n");
        let expected = if is_confirmed { "" } else { "get a\r\n" };
        assert_eq!(hand.got(conn), expected);
    }
}

// D11 D36
#[test]
fn an_error_of_a_failing_server_is_passed_on_and_counts_once_for_what_was_in_flight() {
    let mut hand = Hand::new(ejecting(redis(1), 2));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").repeat(3).as_bytes());
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    for _ in 0..3 {
        hand.say(hand.conn(0), oom.as_bytes());
    }
    assert_eq!(hand.got(client), oom.repeat(3));
    assert_eq!(ejects(&hand), 0);
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.say(hand.conn(0), oom.as_bytes());
    assert_eq!(ejects(&hand), 1);
    assert!(!hand.is_closed(hand.conn(0)));
}

// D36
#[test]
fn a_silent_connection_counts_each_failure_once_for_what_was_in_flight() {
    let mut hand = Hand::new(ejecting(with_timeout(redis(1), 100), 2));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.wait_ms(50);
    hand.send(client, cmd("SET b 1").as_bytes());
    hand.wait_ms(160);
    assert!(hand.is_closed(hand.conn(0)));
    assert_eq!(ejects(&hand), 0, "both were in flight at the first failure");
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_timedout
            .value(),
        1
    );
    // On the next connection a request is sent after the first failure was counted.
    let mut hand = Hand::new(ejecting(with_timeout(redis(1), 100), 2));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.wait_ms(110);
    hand.send(client, cmd("SET b 1").as_bytes());
    hand.wait_ms(100);
    assert_eq!(ejects(&hand), 1);
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_timedout
            .value(),
        1
    );
}

// D36
#[test]
fn a_lost_connection_is_one_failure_however_many_requests_were_in_flight() {
    let mut config = ejecting(redis(1), 2);
    config.server_connections = 2;
    let mut hand = Hand::new(config);
    let (one, two) = (hand.client(), hand.client());
    hand.send(one, cmd("INCR a").repeat(10).as_bytes());
    hand.send(two, cmd("INCR b").repeat(10).as_bytes());
    let conns = hand.conns_of(0);
    assert_eq!(conns.len(), 2);
    hand.breaks(conns[0], Closed::Reset);
    assert_eq!(ejects(&hand), 0);
    // The other connection fails by itself.
    hand.breaks(conns[1], Closed::Reset);
    assert_eq!(ejects(&hand), 1);
    assert_eq!(
        hand.engine.counters().servers[ServerId::initial(0)]
            .server_err
            .value(),
        2
    );
}

// D36
#[test]
fn an_error_and_the_loss_that_follows_it_are_one_failure_for_the_same_requests() {
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    for (asks_again, failures) in [(false, 1), (true, 2)] {
        let mut hand = Hand::new(ejecting(redis(1), failures));
        let client = hand.client();
        hand.send(client, cmd("SET a 1").repeat(2).as_bytes());
        hand.say(hand.conn(0), oom.as_bytes());
        assert_eq!(ejects(&hand), u64::from(failures == 1));
        if asks_again {
            hand.send(client, cmd("SET a 1").as_bytes());
        }
        hand.breaks(hand.conn(0), Closed::Reset);
        assert_eq!(ejects(&hand), 1);
        let mut hand = Hand::new(ejecting(redis(1), failures + 1));
        let client = hand.client();
        hand.send(client, cmd("SET a 1").repeat(2).as_bytes());
        hand.say(hand.conn(0), oom.as_bytes());
        if asks_again {
            hand.send(client, cmd("SET a 1").as_bytes());
        }
        hand.breaks(hand.conn(0), Closed::Reset);
        assert_eq!(ejects(&hand), 0, "no more than {failures} were counted");
    }
}

// D36
#[test]
fn each_silence_is_counted_once_and_a_new_one_again() {
    let mut hand = Hand::new(with_timeout(redis(1), 100));
    let client = hand.client();
    for episode in 1..4 {
        hand.send(client, cmd("GET a").repeat(5).as_bytes());
        hand.wait_ms(110);
        assert_eq!(
            hand.engine.counters().servers[ServerId::initial(0)]
                .server_timedout
                .value(),
            episode
        );
        assert_eq!(hand.got(client), "-ERR Connection timed out\r\n".repeat(5));
        // The server has woken up: what is late is discarded, and the silence is over.
        hand.say(hand.conn(0), b"$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n");
        assert_eq!(hand.got(client), "");
    }
    assert_eq!(hand.conns_of(0).len(), 1);
}

// D32
#[test]
fn an_ejected_server_returns_only_after_a_probe_was_answered() {
    let config = ejecting(redis(2), 1);
    let key = key_of(&config, 0, 0);
    let mut hand = Hand::new(config);
    let client = hand.client();
    let get = cmd(&format!("GET {key}"));
    refusing(&mut hand);
    hand.send(client, get.as_bytes());
    hand.wait_ms(1001);
    assert_eq!(hand.conns_of(0).len(), 2, "one request, one probe");
    assert!(!hand.notices.contains(&Notice::Restored(SERVER)));
    hand.on_connect.clear();
    hand.wait_ms(998);
    assert_eq!(hand.conns_of(0).len(), 2, "not before the next period");
    hand.wait_ms(2);
    let probe = hand.conn(0);
    assert_eq!(hand.got(probe), cmd("PING"));
    hand.got(client);
    hand.send(client, get.as_bytes());
    assert_eq!(hand.got(hand.conn(1)), get, "still away");
    hand.say(hand.conn(1), b"$-1\r\n");
    hand.say(probe, b"+PONG\r\n");
    assert!(hand.notices.contains(&Notice::Restored(SERVER)));
    hand.send(client, get.as_bytes());
    assert_eq!(hand.got(probe), get, "the probe's connection serves");
    assert_eq!(ejects(&hand), 1);
}

// D32
#[test]
fn a_loading_server_stays_away_and_one_that_wants_a_password_returns() {
    let cases = [
        ("-LOADING Redis is loading the dataset in memory\r\n", false),
        ("-MASTERDOWN Link with MASTER is down\r\n", false),
        ("-NOAUTH Authentication required.\r\n", true),
    ];
    for (answer, is_back) in cases {
        let mut hand = Hand::new(ejecting(redis(1), 1));
        let client = hand.client();
        hand.send(client, cmd("SET a 1").as_bytes());
        hand.breaks(hand.conn(0), Closed::Reset);
        hand.wait_ms(1001);
        hand.say(hand.conn(0), answer.as_bytes());
        let is_restored = hand.notices.contains(&Notice::Restored(SERVER));
        assert_eq!(is_restored, is_back, "{answer}");
        assert_eq!(hand.is_closed(hand.conn(0)), !is_back);
        hand.wait_ms(1001);
        assert_eq!(hand.conns_of(0).len(), if is_back { 2 } else { 3 });
    }
}

// D32 D18
#[test]
fn a_probe_authenticates_first_and_one_without_an_answer_is_replaced() {
    let mut config = ejecting(redis(1), 1);
    config.redis_auth = Some(b"pw".as_slice().into());
    config.redis_db = 2;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(client, (cmd("AUTH pw") + &cmd("GET a")).as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    hand.wait_ms(1001);
    let late = hand.conn(0);
    assert_eq!(
        hand.got(late),
        cmd("AUTH pw") + &cmd("SELECT 2") + &cmd("PING")
    );
    hand.wait_ms(1000);
    assert!(hand.is_closed(late));
    let probe = hand.conn(0);
    hand.say(probe, b"+OK\r\n+OK\r\n+PONG\r\n");
    assert!(hand.notices.contains(&Notice::Restored(SERVER)));
    hand.got(probe);
    hand.send(client, cmd("GET a").as_bytes());
    assert_eq!(hand.got(probe), cmd("GET a"));
}

// D32
#[test]
fn memcached_is_asked_for_its_version_and_a_probe_too_many_is_closed() {
    let mut hand = Hand::new(ejecting(pool(Protocol::Memcache, 1), 1));
    let client = hand.client();
    hand.send(client, b"get a\r\nget b\r\n");
    let old = hand.conn(0);
    hand.say(old, b"SERVER_ERROR out of memory\r\n");
    hand.on_connect.insert(SERVER, OnConnect::Hang);
    hand.breaks(old, Closed::Reset);
    assert_eq!(ejects(&hand), 1);
    hand.wait_ms(1001);
    let probe = hand.conn(0);
    hand.connected(probe);
    assert_eq!(hand.got(probe), "version\r\n");
    hand.say(probe, b"VERSION 1.6.29\r\n");
    assert!(!hand.is_closed(probe));
    hand.got(client);
    hand.send(client, b"get a\r\n");
    assert_eq!(hand.got(probe), "get a\r\n");
}

// D32. The hand refuses to close a connection twice.
#[test]
fn a_probe_that_is_answered_twice_in_one_read_is_closed_once() {
    let mut hand = Hand::new(ejecting(redis(1), 1));
    let client = hand.client();
    hand.send(client, cmd("SET a 1").as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    hand.wait_ms(1001);
    let probe = hand.conn(0);
    assert_eq!(hand.got(probe), cmd("PING"));
    hand.say(probe, b"-LOADING wait\r\n-LOADING wait\r\n");
    assert!(hand.is_closed(probe));
    hand.wait_ms(1001);
    assert_ne!(hand.conn(0), probe, "the next period has its own");
}

// C124
#[test]
fn without_a_wait_between_attempts_failures_reach_the_limit() {
    let mut hand = Hand::new(ejecting(redis(1), 20));
    refusing(&mut hand);
    let client = hand.client();
    for _ in 0..20 {
        assert_eq!(ejects(&hand), 0);
        hand.send(client, cmd("GET a").as_bytes());
    }
    assert_eq!(ejects(&hand), 1);
}

// C108
#[test]
fn attempts_to_connect_back_off_after_several_failures_and_requests_do_not_wait() {
    let mut hand = Hand::new(redis(1));
    refusing(&mut hand);
    let client = hand.client();
    for _ in 0..100 {
        hand.send(client, cmd("GET a").as_bytes());
        assert_eq!(hand.got(client), "-ERR Connection refused\r\n");
    }
    let attempts = hand.conns_of(0).len();
    assert_eq!(
        attempts,
        usize::try_from(limits::RECONNECT_FREE_MAX).unwrap()
    );
    assert_eq!(hand.engine.counters().pools[0].forward_error.value(), 100);
    for _ in 0..1000 {
        hand.wait_ms(10);
        hand.send(client, cmd("MGET a b").as_bytes());
    }
    let attempts = hand.conns_of(0).len() - attempts;
    assert!((30..80).contains(&attempts), "{attempts} in ten seconds");
    hand.on_connect.clear();
    hand.wait_ms(limits::RECONNECT_WAIT_MAX.0 / 1000 * 5 / 4);
    hand.got(client);
    hand.send(client, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), b"$-1\r\n");
    assert_eq!(hand.got(client), "$-1\r\n");
}

// D18
#[test]
fn a_refused_handshake_backs_off_and_repeats_the_servers_words() {
    let mut config = redis(1);
    config.redis_db = 99;
    let mut hand = Hand::new(config);
    let client = hand.client();
    let refusal = "-ERR DB index is out of range\r\n";
    for _ in 0..limits::RECONNECT_FREE_MAX {
        hand.send(client, cmd("GET a").as_bytes());
        hand.say(hand.conn(0), refusal.as_bytes());
        assert_eq!(hand.got(client), refusal);
    }
    let attempts = hand.conns_of(0).len();
    hand.send(client, (cmd("GET a") + &cmd("MGET a b")).as_bytes());
    assert_eq!(hand.got(client), refusal.repeat(2));
    assert_eq!(hand.conns_of(0).len(), attempts);
    let server = &hand.engine.counters().servers[ServerId::initial(0)];
    assert_eq!(
        server.server_err.value(),
        u64::from(limits::RECONNECT_FREE_MAX)
    );
}

#[test]
fn keys_of_a_dead_server_fail_at_once_or_are_missing_where_the_pool_says_so() {
    for policy in [EjectPolicy::Fail, EjectPolicy::Miss] {
        let mut config = ejecting(redis(2), 1);
        config.auto_eject_policy = policy;
        let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
        let mut hand = Hand::new(config);
        refusing(&mut hand);
        let client = hand.client();
        let get = cmd(&format!("GET {a}"));
        hand.send(client, get.as_bytes());
        assert_eq!(hand.got(client), "-ERR Connection refused\r\n");
        let set = cmd(&format!("SET {a} 1"));
        let mget = cmd(&format!("MGET {a} {b} {a}"));
        hand.send(client, (get.clone() + &set + &mget).as_bytes());
        hand.say(hand.conn(1), format!("*1\r\n{}", bulk("B")).as_bytes());
        let error = "-ERR Connection refused\r\n";
        let expected = match policy {
            EjectPolicy::Miss => {
                format!("$-1\r\n{error}*3\r\n$-1\r\n{}$-1\r\n", bulk("B"))
            }
            _ => error.repeat(3),
        };
        assert_eq!(hand.got(client), expected);
        assert_eq!(hand.conns_of(0).len(), 1, "nothing is tried meanwhile");
        hand.on_connect.clear();
        hand.wait_ms(1001);
        hand.say(hand.conn(0), b"+PONG\r\n");
        hand.got(hand.conn(0));
        hand.send(client, get.as_bytes());
        assert_eq!(hand.got(hand.conn(0)), get);
    }
}

#[test]
fn every_memcached_command_misses_in_its_own_words() {
    let mut config = ejecting(pool(Protocol::Memcache, 1), 1);
    config.auto_eject_policy = EjectPolicy::Miss;
    let mut hand = Hand::new(config);
    refusing(&mut hand);
    let client = hand.client();
    hand.send(client, b"get a\r\n");
    let error = "SERVER_ERROR Connection refused\r\n";
    assert_eq!(hand.got(client), error);
    for (request, answer) in [
        ("get a\r\n", "END\r\n"),
        ("gets a b\r\n", "END\r\n"),
        ("gat 0 a\r\n", "END\r\n"),
        ("gats 0 a b\r\n", "END\r\n"),
        ("set a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("add a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("replace a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("append a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("prepend a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("cas a 0 0 1 7\r\nx\r\n", "NOT_FOUND\r\n"),
        ("incr a 1\r\n", "NOT_FOUND\r\n"),
        ("decr a 1\r\n", "NOT_FOUND\r\n"),
        ("touch a 0\r\n", "NOT_FOUND\r\n"),
        ("delete a\r\n", "NOT_FOUND\r\n"),
        ("set a 0 0 1 noreply\r\nx\r\n", ""),
        ("delete a noreply\r\n", ""),
        ("version\r\n", error),
        ("verbosity 1\r\n", error),
    ] {
        hand.send(client, request.as_bytes());
        assert_eq!(hand.got(client), answer, "{request}");
    }
}

#[test]
fn an_idle_client_is_closed_and_one_that_waits_or_talks_is_not() {
    let mut config = redis(1);
    config.client_idle_timeout = Some(Span::from_millis(100));
    let mut hand = Hand::new(config);
    let (idle, talks, waits) = (hand.client(), hand.client(), hand.client());
    hand.send(idle, cmd("PING").as_bytes());
    hand.send(waits, cmd("GET a").as_bytes());
    for _ in 0..4 {
        hand.wait_ms(90);
        hand.send(talks, cmd("PING").as_bytes());
    }
    assert!(hand.is_closed(idle));
    assert_eq!(hand.end_of(idle), Some(ClientEnd::Idle));
    assert!(!hand.is_closed(talks) && !hand.is_closed(waits));
    hand.say(hand.conn(0), b"$-1\r\n");
    hand.wait_ms(99);
    assert!(!hand.is_closed(waits), "its time begins with its response");
    hand.wait_ms(101);
    assert!(hand.is_closed(waits));
    assert_eq!(hand.engine.counters().pools[0].client_err.value(), 3);
}

#[test]
fn an_attempt_that_outlives_its_requests_ends_with_its_own_time() {
    let mut config = with_timeout(redis(1), 100);
    config.preconnect = true;
    let mut hand = Hand::new(config);
    hand.breaks(hand.conn(0), Closed::Eof);
    hand.on_connect.insert(SERVER, OnConnect::Hang);
    let client = hand.client();
    hand.send(client, cmd("GET a").as_bytes());
    hand.wait_ms(50);
    hand.send(client, cmd("GET b").as_bytes());
    hand.wait_ms(51);
    let second = hand.conn(0);
    hand.wait_ms(50);
    assert_eq!(hand.got(client), "-ERR Connection timed out\r\n".repeat(2));
    assert!(!hand.is_closed(second));
    hand.wait_ms(51);
    assert!(hand.is_closed(second));
}

#[test]
fn one_of_several_engines_reports_failures_and_obeys_the_owner() {
    let config = ejecting(redis(2), 2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let owner = hand.owner.take().expect("the test plays its part");
    let client = hand.client();
    let get = cmd(&format!("GET {a}"));
    hand.send(client, get.as_bytes());
    hand.breaks(hand.conn(0), Closed::Reset);
    hand.breaks(hand.conn(0), Closed::Reset);
    for nth in [1, 2] {
        let failed = Some(Report::Failed(SERVER, nth));
        assert_eq!(hand.engine.poll_mail(), failed);
    }
    hand.send(client, get.as_bytes());
    assert_eq!(hand.conns_of(0).len(), 2, "it waits for the owner");
    hand.engine.handle_mail(Mail::Watch(SERVER, 1), hand.now);
    hand.settle();
    assert_eq!(hand.conns_of(0).len(), 2, "that was the first failure");
    hand.engine.handle_mail(Mail::Watch(SERVER, 2), hand.now);
    hand.settle();
    hand.say(hand.conn(0), b"$-1\r\n");
    assert_eq!(hand.engine.poll_mail(), Some(Report::Healthy(SERVER)));
    hand.send(client, cmd(&format!("GET {b}")).as_bytes());
    hand.say(hand.conn(1), b"$-1\r\n");
    assert_eq!(hand.engine.poll_mail(), None, "this one never failed");

    let topology = |version, state| {
        let mut shards = owner.topologies()[0].shards.to_vec();
        shards[0].state = state;
        let topology = Topology::build(PoolIdx(0), version, shards, Distribution::Ketama);
        Mail::Topology(topology.into())
    };
    hand.engine
        .handle_mail(topology(2, ShardState::Rehashed), hand.now);
    hand.engine
        .handle_mail(topology(1, ShardState::Up), hand.now);
    hand.got(hand.conn(1));
    hand.send(client, get.as_bytes());
    assert_eq!(hand.got(hand.conn(1)), get, "an older topology is ignored");
    hand.wait_ms(10_000);
    assert_eq!(hand.conns_of(0).len(), 3, "no probe of its own accord");
    hand.engine.handle_mail(Mail::Probe(SERVER), hand.now);
    hand.settle();
    hand.say(hand.conn(0), b"+PONG\r\n");
    let answered = Some(Report::ProbeAnswered(SERVER));
    assert_eq!(hand.engine.poll_mail(), answered);
    assert_eq!(ejects(&hand), 0, "counted by the engine that is told");
}
