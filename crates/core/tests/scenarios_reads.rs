//! How many reads it takes to receive what comes in pieces: one per piece, however long the frame is and however
//! little is known of its length.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::cmd;
use twemproxy_core::ids::ConnId;
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::hand::{Hand, pool};

/// Bytes of one TCP segment.
const SEGMENT: usize = 1448;

/// Feeds `bytes` as a network brings them, `piece` at a time; returns how many reads it took.
fn reads(hand: &mut Hand, conn: impl Into<ConnId>, bytes: &[u8], piece: usize) -> usize {
    let conn = conn.into();
    let mut reads = 0;
    for mut rest in bytes.chunks(piece) {
        while !rest.is_empty() {
            let space = hand.engine.recv_space(conn);
            let len = space.len().min(rest.len());
            assert!(len > 0, "nothing keeps it from being read");
            space[..len].copy_from_slice(&rest[..len]);
            hand.engine.recv_commit(conn, len, hand.now);
            hand.settle();
            rest = &rest[len..];
            reads += 1;
        }
    }
    reads
}

fn get_line(keys: usize) -> String {
    let keys: Vec<_> = (0..keys).map(|key| format!("key:{key:06}")).collect();
    format!("get {}\r\n", keys.join(" "))
}

/// A long line is sent in several, each of which begins with the command.
fn assert_keys_pass(hand: &mut Hand, line: &str) {
    let sent = hand.got(hand.conn(0));
    let words = sent.split_ascii_whitespace().filter(|word| *word != "get");
    assert!(words.eq(line.split_ascii_whitespace().skip(1)));
}

#[test]
fn a_line_of_unknown_length_takes_one_read_per_piece() {
    let mut hand = Hand::new(pool(Protocol::Memcache, 1));
    let client = hand.client();
    let line = get_line(2_000);
    assert_eq!(
        reads(&mut hand, client, line.as_bytes(), SEGMENT),
        line.len().div_ceil(SEGMENT)
    );
    assert_keys_pass(&mut hand, &line);

    let mut hand = Hand::new(pool(Protocol::Redis, 1));
    let client = hand.client();
    let line = format!("SET key {}\r\n", "x".repeat(60_000));
    assert_eq!(
        reads(&mut hand, client, line.as_bytes(), SEGMENT),
        line.len().div_ceil(SEGMENT)
    );
    assert_eq!(hand.got(hand.conn(0)).len(), cmd(line.trim()).len());
}

#[test]
fn a_huge_line_takes_reads_of_a_full_buffer() {
    let mut hand = Hand::new(pool(Protocol::Memcache, 1));
    let client = hand.client();
    let line = get_line(10_000_000 / 11);
    let reads = reads(&mut hand, client, line.as_bytes(), line.len());
    assert!(reads <= 100, "{reads} reads of {} bytes", line.len());
    assert_keys_pass(&mut hand, &line);
}

#[test]
fn short_words_of_which_no_length_is_known_take_hardly_more_than_one_read_per_piece() {
    let mut hand = Hand::new(pool(Protocol::Redis, 1));
    let client = hand.client();
    let words: Vec<_> = (0..20_000).map(|word| format!("word:{word}")).collect();
    let request = cmd(&format!("SADD key {}", words.join(" ")));
    let reads = reads(&mut hand, client, request.as_bytes(), SEGMENT);
    let pieces = request.len().div_ceil(SEGMENT);
    assert!(reads <= pieces + pieces / 20, "{reads} reads of {pieces}");
    assert_eq!(hand.got(hand.conn(0)), request);
}

#[test]
fn the_end_of_a_request_behind_a_long_word_takes_one_read() {
    let mut hand = Hand::new(pool(Protocol::Redis, 1));
    let client = hand.client();
    let request = cmd(&format!("SET key {} EX 100", "x".repeat(20_000)));
    let reads = reads(&mut hand, client, request.as_bytes(), request.len());
    assert!(reads <= 3, "{reads} reads of {} bytes", request.len());
    assert_eq!(hand.got(hand.conn(0)), request);
}

#[test]
fn a_long_word_is_read_to_its_end_and_no_further() {
    let mut hand = Hand::new(pool(Protocol::Redis, 1));
    let client = hand.client();
    let request = cmd(&format!("SET key {}", "x".repeat(20_000)));
    hand.send(client, &request.as_bytes()[..12_000]);
    let space = hand.engine.recv_space(client.into()).len();
    assert_eq!(space, request.len() - 12_000);
}

#[test]
fn a_long_line_of_a_server_takes_one_read_per_piece() {
    for (protocol, request, head) in [
        (Protocol::Redis, cmd("GET key"), "-ERR "),
        (Protocol::Memcache, "get key\r\n".into(), "SERVER_ERROR "),
    ] {
        let mut hand = Hand::new(pool(protocol, 1));
        let client = hand.client();
        hand.send(client, request.as_bytes());
        let line = format!("{head}{}\r\n", "x".repeat(60_000));
        let conn = hand.conn(0);
        assert_eq!(
            reads(&mut hand, conn, line.as_bytes(), SEGMENT),
            line.len().div_ceil(SEGMENT)
        );
        assert_eq!(hand.got(client), line);
    }
}
