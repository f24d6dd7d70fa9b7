//! Stories about memory: nobody's hoard keeps others from being served, and what is held is bounded. A
//! hand-driven engine in virtual time.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::memory::{half_a_request, short_of_memory};
use support::{bulk, cmd, key_of, open_window, redis, with_timeout};
use twemproxy_core::config::Config;
use twemproxy_core::engine::{ClientEnd, Closed, Others};
use twemproxy_core::ids::{ClientId, PoolIdx};
use twemproxy_core::limits::{CLIENT_NAME_LEN_MAX, MEMORY_WAIT_MAX, SLOTS_EXPIRED_MAX};
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

/// Shorter by one than the longest wait for memory.
fn nearly_too_long() -> u64 {
    MEMORY_WAIT_MAX.0 / 1_000 - 1
}

// D17
#[test]
fn half_requests_do_not_keep_others_waiting_for_ever() {
    let mut hand = short_of_memory();
    let (large, small, waits) = (hand.client(), hand.client(), hand.client());
    hand.send(small, half_a_request(40_000).as_bytes());
    hand.send(large, half_a_request(45_000).as_bytes());
    hand.wait_ms(1_000);
    hand.send(waits, cmd("GET a").as_bytes());
    hand.wait_ms(nearly_too_long());
    assert!(!hand.is_closed(large));
    hand.wait_ms(1);
    assert_eq!(hand.got(large), "-ERR out of memory reading request\r\n");
    assert!(hand.is_closed(large) && !hand.is_closed(small));
    assert_eq!(hand.end_of(large), Some(ClientEnd::MemoryWait));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(waits), bulk("a"));
}

// D17
#[test]
fn replies_that_are_not_read_do_not_keep_others_waiting_for_ever() {
    let mut hand = short_of_memory();
    let (slow, waits) = (hand.client(), hand.client());
    hand.limit_writes(slow, 0);
    hand.send(slow, cmd("GET big").as_bytes());
    hand.say(hand.conn(0), bulk(&"v".repeat(90_000)).as_bytes());
    hand.send(waits, cmd("GET a").as_bytes());
    hand.wait_ms(nearly_too_long());
    assert!(!hand.is_closed(slow));
    hand.wait_ms(1);
    assert!(hand.is_closed(slow));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(waits), bulk("a"));
    assert_eq!(hand.engine.held(), 0);
}

// D17
#[test]
fn nobody_is_closed_while_nobody_waits_or_when_memory_comes_back_in_time() {
    let mut hand = short_of_memory();
    let mut holder = hand.client();
    let waits = hand.client();
    hand.send(holder, half_a_request(85_000).as_bytes());
    hand.wait_ms(10 * nearly_too_long());
    // Each wait begins anew.
    for _ in 0..3 {
        hand.send(waits, cmd("GET a").as_bytes());
        hand.wait_ms(nearly_too_long());
        assert!(!hand.is_closed(holder));
        hand.breaks(holder, Closed::Reset);
        hand.say(hand.conn(0), bulk("a").as_bytes());
        assert_eq!(hand.got(waits), bulk("a"));
        holder = hand.client();
        hand.send(holder, half_a_request(85_000).as_bytes());
    }
}

// D17
#[test]
fn clients_whose_own_waiting_requests_fill_the_memory_go_on() {
    let mut hand = short_of_memory();
    let holds = |hand: &mut Hand, len| {
        let client = hand.client();
        hand.send(client, half_a_request(len).as_bytes());
        client
    };
    let set = cmd(&format!("SET k {}", "v".repeat(11_950)));
    let large: Vec<_> = (0..5).map(|_| holds(&mut hand, 16_100)).collect();
    let (mut small, mut waiting) = (vec![holds(&mut hand, 1_000)], Vec::new());
    for holder in large {
        let client = hand.client();
        hand.send(client, set.as_bytes());
        waiting.push(client);
        hand.breaks(holder, Closed::Reset);
        small.push(holds(&mut hand, 3_900));
    }
    let client = hand.client();
    hand.send(client, set.as_bytes());
    waiting.push(client);
    for holder in small {
        hand.breaks(holder, Closed::Reset);
    }
    let held = usize::try_from(hand.engine.held()).unwrap();
    assert_eq!(held, waiting.len() * set.len(), "nobody else is left");
    hand.wait_ms(nearly_too_long() + 1);
    hand.say(hand.conn(0), "+OK\r\n".repeat(waiting.len()).as_bytes());
    for &client in &waiting {
        assert_eq!(hand.got(client), "+OK\r\n");
    }
}

// D17
#[test]
fn memory_above_the_soft_limit_lets_no_client_begin_and_above_the_limit_closes_the_largest() {
    let memory_limit = 1_000_000;
    let config = Config {
        pools: vec![redis(1)],
        memory_limit,
        ..Config::default()
    };
    let mut hand = Hand::with_config(config);
    let (big, small) = (hand.client(), hand.client());
    hand.send(small, cmd("GET a").as_bytes());
    hand.limit_writes(hand.conn(0), 0);
    hand.say(hand.conn(0), b"$-1\r\n");
    hand.got(small);
    hand.send(
        big,
        cmd(&format!("SET k {}", "v".repeat(900_000))).as_bytes(),
    );
    assert!(hand.engine.held() > 900_000);
    hand.send(small, cmd("GET b").as_bytes());
    assert_eq!(hand.send(small, b"x"), 0, "nobody begins a request now");
    hand.unlimit_writes(hand.conn(0));
    assert!(!hand.is_read_paused(small));
    let huge = hand.client();
    hand.send(huge, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000000\r\n");
    hand.send(huge, &vec![b'v'; 1_100_000]);
    assert!(hand.is_closed(huge));
    assert!(hand.engine.held() < 1_000);
}

/// Two pools, of which only the second has a time-out, of a second.
fn two_pools(memory_limit: u64) -> Hand {
    Hand::with_config(Config {
        pools: vec![redis(1), with_timeout(redis(1), 1_000)],
        memory_limit,
        ..Config::default()
    })
}

// D53
#[test]
fn a_hundred_half_requests_delay_a_client_by_half_its_time_out() {
    let mut hand = two_pools(10_000_000);
    let holders: Vec<_> = (0..100).map(|_| hand.client_of(PoolIdx(0))).collect();
    for &holder in &holders {
        hand.send(holder, half_a_request(96_950).as_bytes());
    }
    assert!(hand.engine.held() > 9_690_000);
    hand.wait_ms(2_000);
    let waits = hand.client_of(PoolIdx(1));
    hand.send(waits, cmd("GET a").as_bytes());
    hand.wait_ms(499);
    assert!(holders.iter().all(|&holder| !hand.is_closed(holder)));
    hand.wait_ms(1);
    // Enough of them, together.
    let closed = holders.iter().filter(|&&holder| hand.is_closed(holder));
    assert!((20..40).contains(&closed.count()));
    hand.say(hand.conn(1), bulk("a").as_bytes());
    assert_eq!(hand.got(waits), bulk("a"));
}

// D53
#[test]
fn holders_that_do_not_move_are_closed_before_larger_ones_that_do() {
    let mut hand = short_of_memory();
    let (silent, moving, waits) = (hand.client(), hand.client(), hand.client());
    hand.send(silent, half_a_request(20_000).as_bytes());
    hand.send(moving, half_a_request(32_000).as_bytes());
    // The buffer that it grows into counts.
    hand.send(moving, b"v");
    hand.send(waits, cmd("GET a").as_bytes());
    hand.wait_ms(nearly_too_long());
    hand.send(moving, b"v");
    hand.wait_ms(1);
    assert!(hand.is_closed(silent) && !hand.is_closed(moving));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(waits), bulk("a"));
}

// D53
#[test]
fn a_request_that_cannot_begin_for_a_whole_time_out_gets_its_error() {
    let mut hand = two_pools(1_000_000);
    let writes = hand.client_of(PoolIdx(0));
    hand.send(writes, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), b"$-1\r\n");
    hand.got(writes);
    hand.got(hand.conn(0));
    // It waits for a server that takes nothing: nobody is to blame, and nobody is closed.
    hand.limit_writes(hand.conn(0), 0);
    let set = cmd(&format!("SET k {}", "v".repeat(900_000)));
    hand.send(writes, set.as_bytes());
    let waits = hand.client_of(PoolIdx(1));
    hand.send(waits, (cmd("GET a") + "PING\r\n" + &cmd("PING")).as_bytes());
    let unfinished = hand.client_of(PoolIdx(1));
    hand.send(unfinished, b"*2\r\n$3\r\nGET\r\n$1\r\n");
    hand.wait_ms(999);
    assert_eq!(hand.got(waits), "");
    hand.wait_ms(1);
    let error = "-ERR Connection timed out\r\n";
    assert_eq!(hand.got(waits), error.repeat(2) + "+PONG\r\n");
    assert!(!hand.is_closed(waits) && !hand.is_closed(writes));
    assert_eq!(hand.got(unfinished), error);
    assert_eq!(hand.end_of(unfinished), Some(ClientEnd::Overdue));
    // The next one waits again, and is served once there is memory.
    hand.send(waits, cmd("GET b").as_bytes());
    hand.unlimit_writes(hand.conn(0));
    hand.say(hand.conn(1), bulk("b").as_bytes());
    assert_eq!(hand.got(waits), bulk("b"));
}

// D53
#[test]
fn at_the_limit_the_hogs_go_and_the_innocent_stay() {
    let mut hand = two_pools(10_000_000);
    let hogs: Vec<_> = (0..10).map(|_| hand.client_of(PoolIdx(0))).collect();
    for &hog in &hogs {
        // All but the end of it has come.
        let set = cmd(&format!("SET k {}", "v".repeat(790_000)));
        hand.send(hog, &set.as_bytes()[..790_000]);
    }
    assert!((7_900_000..8_000_000).contains(&hand.engine.held()));
    hand.wait_ms(1_500);
    let innocent = hand.client_of(PoolIdx(1));
    let set = cmd(&format!("SET k {}", "v".repeat(5_000_000)));
    for piece in set.as_bytes().chunks(100_000) {
        hand.send(innocent, piece);
    }
    assert!(!hand.is_closed(innocent));
    assert!(hand.got(hand.conn(1)) == set);
    let closed: Vec<_> = hogs.iter().filter(|&&hog| hand.is_closed(hog)).collect();
    assert!(!closed.is_empty() && closed.len() < hogs.len());
    assert_eq!(hand.end_of(*closed[0]), Some(ClientEnd::MemoryLimit));
}

/// A client that does not read, with replies of so many bytes.
fn unread(hand: &mut Hand, len: usize) -> ClientId {
    let client = hand.client();
    hand.limit_writes(client, 0);
    hand.send(client, cmd("GET a").as_bytes());
    hand.say(hand.conn(0), bulk(&"v".repeat(len)).as_bytes());
    client
}

// D54
#[test]
fn under_pressure_who_does_not_read_waits_and_is_closed_at_last() {
    let mut hand = Hand::with_config(Config {
        pools: vec![redis(1)],
        memory_limit: 4_000_000,
        ..Config::default()
    });
    let (alone, small) = (unread(&mut hand, 2_100_000), unread(&mut hand, 1_000));
    let asked = cmd("GET b");
    hand.got(hand.conn(0));
    hand.send(alone, asked.as_bytes());
    assert_eq!(hand.got(hand.conn(0)), "", "it must read first");
    hand.send(small, asked.as_bytes());
    assert_eq!(hand.got(hand.conn(0)), asked, "others go on");
    hand.say(hand.conn(0), bulk("b").as_bytes());
    hand.wait_ms(nearly_too_long());
    assert!(!hand.is_closed(alone));
    hand.wait_ms(1);
    assert!(hand.is_closed(alone) && !hand.is_closed(small));
    assert_eq!(hand.end_of(alone), Some(ClientEnd::MemoryWait));
}

// D54
#[test]
fn a_client_under_pressure_goes_on_when_it_reads_or_when_others_do() {
    let mut hand = Hand::with_config(Config {
        pools: vec![redis(1)],
        memory_limit: 4_000_000,
        ..Config::default()
    });
    for others_read in [false, true] {
        let (one, other) = (unread(&mut hand, 1_500_000), unread(&mut hand, 1_000_000));
        hand.got(hand.conn(0));
        hand.send(one, cmd("GET b").as_bytes());
        assert_eq!(hand.got(hand.conn(0)), "");
        hand.unlimit_writes(if others_read { other } else { one });
        assert_eq!(hand.got(hand.conn(0)), cmd("GET b"));
        hand.say(hand.conn(0), bulk("b").as_bytes());
        for client in [one, other] {
            hand.unlimit_writes(client);
            hand.breaks(client, Closed::Reset);
        }
        assert_eq!(hand.engine.held(), 0);
    }
}

// D53
#[test]
fn holders_of_one_engine_are_closed_for_clients_of_another() {
    let (mut one, mut other) = (short_of_memory(), short_of_memory());
    let seen = |hand: &Hand| Others {
        held: hand.engine.held(),
        due: hand.engine.memory_due(),
    };
    let (holder, waits) = (one.client(), other.client());
    one.send(holder, half_a_request(85_000).as_bytes());
    other.engine.note_others(seen(&one), other.now);
    other.send(waits, cmd("GET a").as_bytes());
    assert!(other.conns_of(0).is_empty());
    one.engine.note_others(seen(&other), one.now);
    one.wait_ms(nearly_too_long());
    assert!(!one.is_closed(holder));
    one.wait_ms(1);
    assert!(one.is_closed(holder));
    other.engine.note_others(seen(&one), other.now);
    other.settle();
    assert_eq!(other.got(other.conn(0)), cmd("GET a"));
}

// D79
#[test]
fn a_merged_reply_that_would_not_fit_closes_its_client() {
    let config = redis(2);
    let keys = [0, 1].map(|server| key_of(&config, server, 0));
    let mut hand = Hand::with_config(Config {
        pools: vec![config],
        memory_limit: 1_000_000,
        ..Config::default()
    });
    let client = hand.client();
    let mget = cmd(&format!("MGET {} {}", keys[0], keys[1]));
    for (len, fits) in [(100_000, true), (300_000, false)] {
        hand.send(client, mget.as_bytes());
        let value = bulk(&"v".repeat(len));
        for server in [0, 1] {
            let conn = hand.conn(server);
            hand.say(conn, format!("*1\r\n{value}").as_bytes());
        }
        assert_eq!(hand.is_closed(client), !fits);
        assert_eq!(hand.got(client).is_empty(), !fits);
        assert_eq!(hand.engine.held(), 0);
    }
    assert_eq!(hand.end_of(client), Some(ClientEnd::ReplyTooLarge));
}

// D55
#[test]
fn a_client_name_counts_until_it_is_taken_away() {
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    let name = |len| cmd(&format!("CLIENT SETNAME {}", "n".repeat(len)));
    hand.send(client, name(CLIENT_NAME_LEN_MAX + 1).as_bytes());
    let refusal = "-ERR Client names cannot be longer than 1024 bytes.\r\n";
    assert_eq!(hand.got(client), refusal);
    assert_eq!(hand.engine.held(), 0);
    for (request, held) in [
        (name(CLIENT_NAME_LEN_MAX), 1_024),
        (name(10), 10),
        (cmd("RESET"), 0),
        (name(20), 20),
    ] {
        hand.send(client, request.as_bytes());
        assert_eq!(hand.engine.held(), held);
    }
    hand.breaks(client, Closed::Reset);
    assert_eq!(hand.engine.held(), 0);
}

// D78
#[test]
fn a_server_that_drips_does_not_pile_up_expired_requests() {
    let mut hand = Hand::new(with_timeout(pool(Protocol::Memcache, 1), 100));
    let client = hand.client();
    open_window(&mut hand, client, "get a\r\n", "END\r\n");
    let many = b"get a\r\n".repeat(4_000);
    let mut sent = 0;
    let first = loop {
        sent += hand.send(client, &many) / b"get a\r\n".len();
        let conn = hand.conn(0);
        hand.wait_ms(50);
        // It is not silent.
        hand.say(conn, b"END\r\n");
        hand.wait_ms(40);
        if hand.is_closed(conn) {
            break conn;
        }
        assert!(sent < 2 * SLOTS_EXPIRED_MAX, "it is given up");
    };
    assert!(sent > SLOTS_EXPIRED_MAX);
    hand.send(client, b"get b\r\n");
    assert_ne!(hand.conn(0), first);
}
