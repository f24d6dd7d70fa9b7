//! Bytes sent to a memcached, and the proxy's own words in its protocol.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::key_of;
use twemproxy_core::config::{Config, PoolConfig};
use twemproxy_core::engine::Closed;
use twemproxy_core::ids::ServerId;
use twemproxy_core::limits::{MEMCACHE_FORWARDED_LINE_LEN_MAX, MEMCACHE_FRAGMENT_LEN_MAX};
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

fn memcached(servers: usize) -> PoolConfig {
    pool(Protocol::Memcache, servers)
}

/// Keys of `len` bytes each, every third on the second server.
fn long_keys(config: &PoolConfig, count: usize, len: usize) -> Vec<(String, u32)> {
    let owners = [0, 0, 1].into_iter().cycle().take(count);
    (0..)
        .zip(owners)
        .map(|(n, owner)| {
            let tag = format!("{{{}}}{n}", key_of(config, owner, 0));
            (format!("{tag:x<len$}"), owner)
        })
        .collect()
}

fn block(n: usize, key: &str) -> String {
    format!("VALUE {key} 0 3\r\n{n:03}\r\n")
}

// D37
#[test]
fn a_long_line_of_keys_reaches_each_server_in_lines_of_bounded_length() {
    let mut config = memcached(2);
    config.hash_tag = Some(*b"{}");
    let keys = long_keys(&config, 300, 50);
    let words: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
    for (head, len_max) in [
        ("get", MEMCACHE_FRAGMENT_LEN_MAX),
        ("gets", MEMCACHE_FRAGMENT_LEN_MAX),
        ("gat 0", MEMCACHE_FORWARDED_LINE_LEN_MAX),
        ("gats 100", MEMCACHE_FORWARDED_LINE_LEN_MAX),
    ] {
        for piece_len in [usize::MAX, 1448, 7] {
            let mut hand = Hand::new(config.clone());
            let client = hand.client();
            let request = format!("{head} {}\r\nversion\r\n", words.join(" "));
            for piece in request.as_bytes().chunks(piece_len.min(request.len())) {
                hand.send(client, piece);
            }
            let mut fragments = 0;
            for server in [0, 1] {
                let sent = hand.got(hand.conn(server)).replace("version\r\n", "");
                let mut theirs = (0..).zip(&keys).filter(|(_, (_, of))| *of == server);
                let (mut lines, mut responses) = (0, String::new());
                for line in sent.split_inclusive("\r\n") {
                    assert!(line.len() <= len_max, "{head}: {}", line.len());
                    let is_last = sent.ends_with(line);
                    assert!(is_last || line.len() + 51 > len_max, "{head}: cut early");
                    let of_line = line.strip_prefix(head).expect("the head is repeated");
                    for word in of_line.split_ascii_whitespace() {
                        let (n, (key, _)) = theirs.next().expect("no key too many");
                        assert_eq!(word, key);
                        responses += &block(n, key);
                    }
                    responses += "END\r\n";
                    lines += 1;
                }
                assert_eq!(theirs.next(), None, "{head}");
                assert!(lines > 1, "{head}");
                fragments += lines;
                let counters = hand.engine.counters();
                let requests = counters.servers[ServerId::initial(server)].requests.value();
                assert!(requests == lines || requests == lines + 1, "{requests}");
                hand.say(hand.conn(server), responses.as_bytes());
            }
            let counted = hand.engine.counters().pools[0].fragments.value();
            assert_eq!(counted, fragments, "{head}");
            let all: String = (0..).zip(&words).map(|(n, key)| block(n, key)).collect();
            assert!(hand.got(client) == all + "END\r\n", "{head}");
        }
    }
}

/// The other fragments are answered or not, the client hears once of it, and of nobody else's.
#[test]
fn a_connection_that_breaks_among_the_fragments_of_a_request_costs_one_answer() {
    let config = memcached(1);
    let words: Vec<_> = (0..200).map(|n| format!("{n:040}")).collect();
    let mut hand = Hand::new(config);
    let (client, other) = (hand.client(), hand.client());
    hand.send(client, format!("gat 0 {}\r\n", words.join(" ")).as_bytes());
    hand.send(other, b"incr n 1\r\n");
    let first = hand.conn(0);
    let sent = hand.got(first);
    assert_eq!(sent.matches("gat 0 ").count(), 9);
    hand.say(first, b"END\r\nEND\r\nVALUE 1 0 5\r\nab");
    hand.breaks(first, Closed::Reset);
    let error = "SERVER_ERROR Connection reset by peer\r\n";
    assert_eq!(hand.got(client), error);
    assert_eq!(hand.got(other), error);
    hand.send(client, b"get a\r\n");
    hand.say(hand.conn(0), b"END\r\n");
    assert_eq!(hand.got(client), "END\r\n");
    assert_eq!(hand.engine.held(), 0);
}

// D41 D43
#[test]
fn what_versions_of_memcached_read_differently_is_not_sent() {
    let mut hand = Hand::new(memcached(1));
    let client = hand.client();
    for (line, sent) in [
        ("get k\r\n", "get k\r\n"),
        ("  get k\r\n", "get k\r\n"),
        (" set k 0 0 1 \r\nx\r\n", "set k 0 0 1 \r\nx\r\n"),
        ("delete k 0 noreply\r\n", "delete k noreply\r\n"),
        ("delete noreply noreply\r\n", "delete noreply noreply\r\n"),
        ("version noreply\r\n", "version\r\n"),
        ("incr k 1 other\n", "incr k 1\r\n"),
        ("touch k 0   other\r\n", "touch k 0\r\n"),
    ] {
        hand.send(client, line.as_bytes());
        assert_eq!(hand.got(hand.conn(0)), sent, "{line}");
    }
    let format = "CLIENT_ERROR bad command line format\r\n";
    hand.say(hand.conn(0), b"END\r\nEND\r\nSTORED\r\n");
    hand.got(client);
    let mut hand = Hand::new(memcached(1));
    let client = hand.client();
    for (line, answer) in [
        ("delete noreply\r\n", format),
        ("set k 0 0 00000000001\r\n", format),
        ("cas k 0 0 1 000000000000000000001\r\nx\r\n", format),
        (
            "incr k 000000000000000000001\r\n",
            "CLIENT_ERROR invalid numeric delta argument\r\n",
        ),
        (
            "touch k 00000000001\r\n",
            "CLIENT_ERROR invalid exptime argument\r\n",
        ),
    ] {
        hand.send(client, line.as_bytes());
        assert_eq!(hand.got(client), answer, "{line}");
    }
    assert!(hand.conns_of(0).is_empty(), "nothing was sent");
}

// D38
#[test]
fn the_binary_protocol_is_refused_in_its_own_words_behind_earlier_responses() {
    let header = b"\x80\x0b\0\0\0\0\0\0\0\0\0\0\xde\xad\xbe\xef\0\0\0\0\0\0\0\0";
    let error = b"\x81\x0b\0\0\0\0\0\x81\0\0\0\x24\xde\xad\xbe\xef\0\0\0\0\0\0\0\0\
                  The binary protocol is not supported";
    for piece_len in [1, 23, 100] {
        let mut hand = Hand::new(memcached(1));
        let client = hand.client();
        hand.send(client, b"get k\r\n");
        for piece in header.chunks(piece_len) {
            assert!(!hand.is_closed(client));
            hand.send(client, piece);
        }
        assert_eq!(hand.got_bytes(client), b"");
        hand.say(hand.conn(0), b"END\r\n");
        assert_eq!(hand.got_bytes(client), [&b"END\r\n"[..], error].concat());
        assert!(hand.is_closed(client));
    }
}

// D39
#[test]
fn stats_is_a_list_with_an_end() {
    let mut hand = Hand::with_config(Config {
        pools: vec![memcached(1)],
        wall_clock_origin: 1_900_000_000_000_000,
        process_id: 77,
        ..Config::default()
    });
    let (client, other) = (hand.client(), hand.client());
    hand.wait_ms(8_999);
    hand.send(client, b"stats\r\n");
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "STAT pid 77\r\nSTAT uptime 9\r\nSTAT time 1900000009\r\nSTAT version {version}\r\n\
         STAT pointer_size 64\r\nSTAT curr_connections 2\r\nEND\r\n"
    );
    assert_eq!(hand.got(client), expected);
    hand.send(other, b"stats settings\r\nstats reset\r\n");
    let refused = "CLIENT_ERROR 'stats' is not supported by this proxy\r\n";
    assert_eq!(hand.got(other), format!("END\r\n{refused}"));
}
