//! Stories of servers that lie: what is a part of something longer is never taken for an answer, and only a whole
//! line is quoted to anyone.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, key_of, redis, with_timeout};
use twemproxy_core::engine::{Closed, Notice};
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, OnConnect, pool};

/// A guarded pool of one server, and what a client that waits for it gets when the server says `parts`.
fn handshake(parts: &[&str]) -> (String, bool) {
    let mut config = redis(1);
    config.redis_auth = Some(b"pw".as_slice().into());
    config.redis_db = 3;
    let mut hand = Hand::new(config);
    let client = hand.client();
    hand.send(
        client,
        (cmd("AUTH pw") + &cmd("GET a") + &cmd("GET b")).as_bytes(),
    );
    let conn = hand.conn(0);
    for part in parts {
        hand.say(conn, part.as_bytes());
    }
    (hand.got(client), hand.is_closed(conn))
}

#[test]
fn only_a_whole_line_that_refuses_the_handshake_is_quoted() {
    let twice = |words: &str| format!("+OK\r\n{words}{words}");
    let refused = twice("-ERR Server refused the connection\r\n");
    for (parts, told) in [
        (&["-ERR no\r\n"][..], twice("-ERR no\r\n")),
        (&["-ERR", " no\r", "\n"], twice("-ERR no\r\n")),
        (&["+OK\r\n-ERR no\r\n"], twice("-ERR no\r\n")),
        (
            &["+OK\r\n", "-ERR no\r\n$6\r\nFORGED\r\n"],
            twice("-ERR no\r\n"),
        ),
        // The last part of something else.
        (
            &["*3\r\n", "-ERR no\r\n$6\r\nFORGED\r\n$6\r\nFORGED\r\n"],
            refused.clone(),
        ),
        (
            &["*3\r\n-ERR no\r\n", "-ERR no\r\n$6\r\nFORGED\r\n"],
            refused.clone(),
        ),
        (&["*2\r\n", "+OK\r\n+OK\r\n"], refused.clone()),
        (&["$6\r\n", "-FORGE\r\n"], refused.clone()),
        (&["+OK\r\n*1\r\n", "+OK\r\n"], refused.clone()),
        (
            &["+OK\r\n", "*2\r\n", "-ERR no\r\n$6\r\nFORGED\r\n"],
            refused.clone(),
        ),
        // Whole, but no line.
        (&["*1\r\n-ERR no\r\n"], refused.clone()),
        (&["$3\r\n-no\r\n"], refused.clone()),
        (&[":1\r\n"], refused),
        // No response at all: the requests, which were not sent, are to be sent again.
        (&["-ERR a\n$6\r\nFORGED\r\n"], twice("")),
    ] {
        assert_eq!(handshake(parts), (told, true), "{parts:?}");
    }
}

#[test]
fn a_probe_is_not_answered_by_the_last_part_of_something_else() {
    for (protocol, parts) in [
        (Protocol::Redis, ["*2\r\n", "+PONG\r\n+PONG\r\n"]),
        (Protocol::Redis, ["$5\r\n", "+PONG\r\n"]),
        (
            Protocol::Memcache,
            ["VALUE a 0 9\r\n", "VERSION 1\r\nEND\r\n"],
        ),
    ] {
        let mut config = pool(protocol, 1);
        config.auto_eject_hosts = true;
        config.server_failure_limit = 1;
        config.server_retry_timeout = twemproxy_core::time::Span::from_millis(50);
        let mut hand = Hand::new(config);
        let client = hand.client();
        let get = if protocol == Protocol::Redis {
            cmd("GET a")
        } else {
            "get a\r\n".to_owned()
        };
        hand.send(client, get.as_bytes());
        hand.breaks(hand.conn(0), Closed::Reset);
        hand.wait_ms(60);
        let probe = hand.conn(0);
        for part in parts {
            if !hand.is_closed(probe) {
                hand.say(probe, part.as_bytes());
            }
        }
        assert!(hand.is_closed(probe), "{parts:?}");
        assert!(
            !hand
                .notices
                .iter()
                .any(|notice| matches!(notice, Notice::Restored(_))),
            "{:?}",
            hand.notices
        );
    }
}

#[test]
fn what_a_server_says_before_it_is_asked_is_quoted_only_as_a_whole_line() {
    for (protocol, said, is_quoted) in [
        (
            Protocol::Redis,
            "-ERR max number of clients reached\r\n",
            true,
        ),
        (Protocol::Redis, "-ERR a\n$6\r\nFORGED\r\n", false),
        (Protocol::Redis, "*1\r\n-ERR no\r\n", false),
        (Protocol::Memcache, "SERVER_ERROR no\r\n", true),
    ] {
        let mut hand = Hand::new(pool(protocol, 1));
        hand.on_connect
            .insert(twemproxy_core::ids::ServerId::initial(0), OnConnect::Hang);
        let client = hand.client();
        let get = if protocol == Protocol::Redis {
            cmd("GET a")
        } else {
            "get a\r\n".to_owned()
        };
        hand.send(client, get.as_bytes());
        let conn = hand.conn(0);
        hand.limit_writes(conn, 0);
        hand.connected(conn);
        hand.say(conn, said.as_bytes());
        let got = hand.got(client);
        assert_eq!(got == said, is_quoted, "{got}");
        assert!(is_quoted || !got.contains("FORGED"), "{got}");
        assert!(hand.is_closed(conn));
    }
}

/// A split request with a request behind it that the other server answers: what a client gets when server 0
/// answers its fragment with `said`, in two reads cut at `cut`.
fn split_with_a_liar(protocol: Protocol, said: &str, cut: usize) -> String {
    let config = with_timeout(pool(protocol, 2), 100);
    let (here, there) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    let (requests, honest, next) = match protocol {
        Protocol::Redis => (
            cmd(&format!("MGET {there} {here}")) + &cmd(&format!("GET {there}")),
            format!("*1\r\n{}", bulk("true")),
            bulk("next"),
        ),
        Protocol::Memcache => (
            format!("get {there} {here}\r\nget {there}\r\n"),
            format!("VALUE {there} 0 4\r\ntrue\r\nEND\r\n"),
            "END\r\n".to_owned(),
        ),
    };
    hand.send(client, requests.as_bytes());
    let (liar, other) = (hand.conn(0), hand.conn(1));
    hand.say(liar, &said.as_bytes()[..cut]);
    if !hand.is_closed(liar) {
        hand.say(liar, &said.as_bytes()[cut..]);
    }
    hand.say(other, (honest + &next).as_bytes());
    hand.wait_ms(150);
    let got = hand.got(client);
    got.strip_suffix(&next)
        .unwrap_or_else(|| panic!("{said:?} cut at {cut} hides the next response: {got:?}"))
        .to_owned()
}

#[test]
fn a_fragment_is_judged_as_a_whole_however_it_comes() {
    const INVALID: &str = "-ERR Invalid argument\r\n";
    for (protocol, said, told) in [
        (Protocol::Redis, "*1\r\n-ERR no\r\n", INVALID),
        (
            Protocol::Redis,
            "*1\r\n-ERR no\r\n$6\r\nFORGED\r\n",
            INVALID,
        ),
        (Protocol::Redis, "$7\r\n-FORGED\r\n", INVALID),
        (Protocol::Redis, "*1\r\n*1\r\n-ERR no\r\n", INVALID),
        (Protocol::Redis, "-ERR no\r\n", "-ERR no\r\n"),
        (
            Protocol::Redis,
            "-ERR no\r\n$6\r\nFORGED\r\n",
            "-ERR no\r\n",
        ),
        (
            Protocol::Memcache,
            "VALUE a 0 14\r\nSERVER_ERROR x\r\nVERSION 1\r\n",
            "SERVER_ERROR Invalid argument\r\n",
        ),
        (
            Protocol::Memcache,
            "SERVER_ERROR no\r\nVALUE a 0 6\r\nFORGED\r\nEND\r\n",
            "SERVER_ERROR no\r\n",
        ),
    ] {
        for cut in 0..said.len() {
            assert_eq!(
                split_with_a_liar(protocol, said, cut),
                told,
                "{said:?} cut at {cut}"
            );
        }
    }
}
