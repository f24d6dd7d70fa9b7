//! Requests with many keys: what each server gets of them and what the client gets, however long the
//! pieces are and however the bytes are cut.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, key_of, redis};
use twemproxy_core::config::PoolConfig;
use twemproxy_core::limits::RESPONSE_MARKS_MAX;
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

/// Lengths around everything that is decided by a length.
const LENGTHS: [usize; 14] = [
    0, 1, 9, 10, 32, 99, 100, 127, 128, 129, 512, 513, 1000, 5000,
];

/// Keys and the servers that own them, in no regular order.
fn keys(config: &PoolConfig, count: usize) -> Vec<(String, u32)> {
    let mut used = [0, 0];
    let places = (0..count).map(|n| usize::from((n * n / 3) % 2 == 1));
    let keys = places.map(|server| {
        let owner = u32::try_from(server).expect("0 or 1");
        used[server] += 1;
        (key_of(config, owner, used[server]), owner)
    });
    keys.collect()
}

fn array(words: &[String]) -> String {
    let bulks: String = words.iter().map(|word| bulk(word)).collect();
    format!("*{}\r\n{bulks}", words.len())
}

fn value(n: usize) -> String {
    "v".repeat(LENGTHS[n % LENGTHS.len()])
}

/// Feeds `bytes` whole, or in two pieces that are cut at `cut`.
fn pieces(bytes: &[u8], cut: Option<usize>) -> Vec<&[u8]> {
    match cut.filter(|&cut| cut < bytes.len()) {
        Some(cut) => vec![&bytes[..cut], &bytes[cut..]],
        None => vec![bytes],
    }
}

const CUTS: [Option<usize>; 6] = [None, Some(1), Some(20), Some(131), Some(1000), Some(7000)];

#[test]
fn each_server_gets_its_pairs_of_an_mset_in_order_whatever_their_lengths() {
    let config = redis(2);
    let keys = keys(&config, 60);
    let mut words = vec!["MSET".to_owned()];
    let mut expected = [vec!["mset".to_owned()], vec!["mset".to_owned()]];
    for (n, (key, server)) in keys.iter().enumerate() {
        words.extend([key.clone(), value(n)]);
        expected[usize::try_from(*server).unwrap()].extend([key.clone(), value(n)]);
    }
    let request = array(&words);
    for cut in CUTS {
        let mut hand = Hand::new(config.clone());
        let client = hand.client();
        for piece in pieces(request.as_bytes(), cut) {
            hand.send(client, piece);
        }
        for (server, words) in (0..).zip(&expected) {
            assert!(
                hand.got(hand.conn(server)) == array(words),
                "cut at {cut:?}"
            );
            hand.say(hand.conn(server), b"+OK\r\n");
        }
        assert_eq!(hand.got(client), "+OK\r\n");
        assert_eq!(hand.engine.held(), 0);
    }
}

#[test]
fn values_come_in_key_order_whatever_their_lengths_and_however_they_are_cut() {
    let config = redis(2);
    let keys = keys(&config, 120);
    let request = array(
        &[
            vec!["mget".to_owned()],
            keys.iter().map(|(key, _)| key.clone()).collect(),
        ]
        .concat(),
    );
    let element = |n: usize| match n % 5 {
        0 => "$-1\r\n".to_owned(),
        _ => bulk(&value(n)),
    };
    let mut replies = [String::new(), String::new()];
    let mut counts = [0, 0];
    for (n, (_, server)) in keys.iter().enumerate() {
        let server = usize::try_from(*server).unwrap();
        replies[server] += &element(n);
        counts[server] += 1;
    }
    let all: String = (0..keys.len()).map(element).collect();
    for cut in CUTS {
        let mut hand = Hand::new(config.clone());
        let client = hand.client();
        hand.send(client, request.as_bytes());
        for server in [1, 0] {
            let index = usize::try_from(server).unwrap();
            let reply = format!("*{}\r\n{}", counts[index], replies[index]);
            for piece in pieces(reply.as_bytes(), cut) {
                hand.say(hand.conn(server), piece);
            }
        }
        let expected = format!("*{}\r\n{all}", keys.len());
        assert!(hand.got(client) == expected, "cut at {cut:?}");
        assert_eq!(hand.engine.held(), 0);
    }
}

#[test]
fn more_elements_than_are_remembered_are_found_again() {
    let mut config = redis(2);
    // All keys but one on one server, without a search for thousands of keys.
    config.hash_tag = Some(*b"{}");
    let (many, one) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let count = RESPONSE_MARKS_MAX + 3;
    let mut words = vec!["MGET".to_owned()];
    words.extend((0..count).map(|n| format!("{{{many}}}{n}")));
    words.push(one);
    let mut hand = Hand::new(config);
    let client = hand.client();
    let request = array(&words);
    for piece in request.as_bytes().chunks(4000) {
        hand.send(client, piece);
    }
    let values: String = (0..count).map(|n| bulk(&n.to_string())).collect();
    let reply = format!("*{count}\r\n{values}");
    for piece in reply.as_bytes().chunks(100_000) {
        hand.say(hand.conn(0), piece);
    }
    hand.say(hand.conn(1), b"*1\r\n$4\r\nlast\r\n");
    let expected = format!("*{}\r\n{values}{}", count + 1, bulk("last"));
    assert!(hand.got(client) == expected);
    assert_eq!(hand.engine.held(), 0);
}

#[test]
fn a_get_of_many_keys_is_split_the_same_however_its_line_is_written() {
    let config = pool(Protocol::Memcache, 2);
    let keys = keys(&config, 40);
    let words: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
    let block = |n: usize, key: &str| {
        let value = value(n);
        let (flags, cas) = (["0", "4294967295"][n % 2], ["", " 77"][n / 2 % 2]);
        format!("VALUE {key} {flags} {}{cas}\r\n{value}\r\n", value.len())
    };
    let all: String = (0..).zip(&words).map(|(n, key)| block(n, key)).collect();
    for (line, cut) in [
        (format!("gets {}\r\n", words.join(" ")), None),
        (format!("gets {}\r\n", words.join(" ")), Some(50)),
        (format!("gets {}\n", words.join(" ")), None),
        (format!("  gets   {}  \r\n", words.join("  ")), None),
        (format!("gets {} \r\n", words.join(" ")), Some(131)),
    ] {
        let mut hand = Hand::new(config.clone());
        let client = hand.client();
        for piece in pieces(line.as_bytes(), cut) {
            hand.send(client, piece);
        }
        for server in [0, 1] {
            let (mut mine, mut reply) = ("gets ".to_owned(), String::new());
            for (n, (key, _)) in (0..).zip(&keys).filter(|(_, (_, of))| *of == server) {
                mine += &format!("{key} ");
                reply += &block(n, key);
            }
            assert_eq!(hand.got(hand.conn(server)), mine + "\r\n", "{line:?}");
            reply += "END\r\n";
            for piece in pieces(reply.as_bytes(), cut) {
                hand.say(hand.conn(server), piece);
            }
        }
        assert!(hand.got(client) == all.clone() + "END\r\n", "{line:?}");
        assert_eq!(hand.engine.held(), 0);
    }
}
