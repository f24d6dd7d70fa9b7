//! Stories about clients that rest: what is kept of them, and what becomes of the rest. A hand-driven
//! engine in virtual time.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::cmd;
use twemproxy_core::config::Config;
use twemproxy_core::ids::PoolIdx;
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

const REDIS: PoolIdx = PoolIdx(0);
const MEMCACHE: PoolIdx = PoolIdx(1);
const GUARDED: PoolIdx = PoolIdx(2);

/// Three pools that differ in all that a client's record takes from its pool.
fn three_pools() -> Hand {
    let mut guarded = pool(Protocol::Redis, 1);
    guarded.redis_auth = Some((*b"secret").into());
    guarded.request_size_limit = 200;
    Hand::with_config(Config {
        pools: vec![
            pool(Protocol::Redis, 1),
            pool(Protocol::Memcache, 1),
            guarded,
        ],
        ..Config::default()
    })
}

#[test]
fn a_client_that_rested_is_still_itself() {
    let mut hand = three_pools();
    let clients = ["ann", "bob", "cid"].map(|name| (name, hand.client_of(REDIS)));
    for (name, client) in clients {
        hand.send(client, cmd(&format!("CLIENT SETNAME {name}")).as_bytes());
        assert_eq!(hand.got(client), "+OK\r\n");
    }
    for (number, (name, client)) in (1..).zip(clients) {
        hand.send(client, cmd("CLIENT GETNAME").as_bytes());
        assert_eq!(hand.got(client), format!("$3\r\n{name}\r\n"));
        hand.send(client, cmd("CLIENT ID").as_bytes());
        assert_eq!(hand.got(client), format!(":{number}\r\n"));
    }
}

#[test]
fn a_password_lasts_while_its_client_rests_and_opens_the_door_to_nobody_else() {
    let mut hand = three_pools();
    let [known, stranger] = [(); 2].map(|()| hand.client_of(GUARDED));
    hand.send(known, cmd("AUTH secret").as_bytes());
    assert_eq!(hand.got(known), "+OK\r\n");
    hand.send(stranger, cmd("ECHO x").as_bytes());
    assert!(hand.got(stranger).starts_with("-NOAUTH"));
    hand.send(known, cmd("ECHO x").as_bytes());
    assert_eq!(hand.got(known), "$1\r\nx\r\n");
    // Not even after its client has gone.
    hand.half_closes(known);
    assert!(hand.is_closed(known));
    let late = hand.client_of(GUARDED);
    hand.send(late, cmd("ECHO x").as_bytes());
    assert!(hand.got(late).starts_with("-NOAUTH"));
}

#[test]
fn clients_of_different_pools_take_turns_with_one_record() {
    let mut hand = three_pools();
    let redis = hand.client_of(REDIS);
    let memcache = hand.client_of(MEMCACHE);
    let guarded = hand.client_of(GUARDED);
    hand.send(guarded, cmd("AUTH secret").as_bytes());
    assert_eq!(hand.got(guarded), "+OK\r\n");
    let long = "x".repeat(300);
    for _ in 0..3 {
        hand.send(memcache, b"nonsense\r\n");
        assert_eq!(hand.got(memcache), "ERROR\r\n");
        hand.send(redis, cmd(&format!("ECHO {long}")).as_bytes());
        assert_eq!(hand.got(redis), format!("$300\r\n{long}\r\n"));
        hand.send(guarded, cmd(&format!("ECHO {long}")).as_bytes());
        assert!(hand.got(guarded).starts_with("-ERR"));
    }
}

#[test]
fn a_request_in_two_parts_survives_whatever_others_do_in_between() {
    let mut hand = three_pools();
    let [slow, other] = [(); 2].map(|()| hand.client_of(REDIS));
    let request = cmd("ECHO slow").into_bytes();
    for cut in 1..request.len() {
        hand.send(slow, &request[..cut]);
        hand.send(other, cmd("ECHO other").as_bytes());
        assert_eq!(hand.got(other), "$5\r\nother\r\n");
        hand.send(slow, &request[cut..]);
        assert_eq!(hand.got(slow), "$4\r\nslow\r\n");
    }
}

#[test]
fn a_refused_request_of_which_more_comes_is_not_forgotten() {
    let mut hand = three_pools();
    let client = hand.client_of(GUARDED);
    hand.send(client, cmd("AUTH secret").as_bytes());
    hand.got(client);
    let request = cmd(&format!("ECHO {}", "x".repeat(300)));
    let (part, rest) = request.as_bytes().split_at(100);
    hand.send(client, part);
    assert!(hand.got(client).starts_with("-ERR"));
    hand.send(client, rest);
    hand.send(client, cmd("ECHO y").as_bytes());
    assert_eq!(hand.got(client), "$1\r\ny\r\n");
}

#[test]
fn a_burst_of_clients_leaves_no_memory_behind_and_no_alarm() {
    const COUNT: usize = 3_000;
    let mut hand = Hand::new(pool(Protocol::Redis, 1));
    let clients: Vec<_> = (0..COUNT).map(|_| hand.client()).collect();
    for &client in &clients {
        hand.send(client, cmd("GET k").as_bytes());
    }
    let conn = hand.conn(0);
    hand.say(conn, &b"$1\r\nv\r\n".repeat(COUNT));
    for &client in &clients {
        assert_eq!(hand.got(client), "$1\r\nv\r\n");
    }
    assert!(hand.engine.poll_timeout().is_some());
    hand.wait_ms(10_000);
    assert_eq!(hand.engine.poll_timeout(), None);
    // More than a chunk each: their records, and the queues that were as long as they are many.
    let least = (COUNT - 100) * (4096 + 300);
    let released = hand.engine.counters().released.value();
    assert!(released > u64::try_from(least).unwrap(), "{released}");
}
