use alloc::vec;
use alloc::vec::Vec;

use super::super::own::{Verdict, verdict};
use super::*;

/// The lengths of the responses in `pieces` fed as they would arrive, and whether they end well.
fn lengths(pieces: &[&[u8]]) -> (Vec<usize>, bool) {
    let mut parser = ResponseParser::default();
    let mut bytes = Vec::new();
    let mut lengths = Vec::new();
    let mut current = 0;
    for piece in pieces {
        bytes.extend_from_slice(piece);
        loop {
            let len = match parser.step(&bytes) {
                ResponseStep::Done(len) => {
                    assert!(len > 0);
                    lengths.push(current + len);
                    current = 0;
                    bytes.drain(..len);
                    continue;
                }
                ResponseStep::More(len) => len,
                ResponseStep::Invalid => return (lengths, false),
            };
            assert!(len <= bytes.len());
            current += len;
            bytes.drain(..len);
            break;
        }
    }
    (lengths, true)
}

fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = b"*1\r\n".repeat(depth);
    bytes.extend_from_slice(b":1\r\n");
    bytes
}

#[test]
fn one_response_is_measured() {
    for response in [
        &b"+OK\r\n"[..],
        b"+PONG\r\n",
        b"+\r\n",
        b"-ERR unknown\r\n",
        b":0\r\n",
        b":-1\r\n",
        b":1000\r\n",
        b":-9223372036854775808\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$5\r\nhe\r\no\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*2\r\n$1\r\na\r\n:1\r\n",
        b"*3\r\n*0\r\n*-1\r\n*2\r\n+a\r\n-ERR b\r\n",
        b"*2\r\n*1\r\n*1\r\n$-1\r\n$2\r\n\r\n\r\n",
        &nested(20),
        &nested(10_000),
    ] {
        let mut bytes = response.to_vec();
        bytes.extend_from_slice(b"+OK\r\n");
        assert_eq!(
            ResponseParser::default().step(&bytes),
            ResponseStep::Done(response.len()),
            "{:?}",
            &response[..response.len().min(40)]
        );
    }
}

#[test]
fn pieces_make_no_difference() {
    let mut transcript = Vec::new();
    for response in [
        &b"+OK\r\n"[..],
        b"$12\r\nhello\r\nworld\r\n",
        b":-12345\r\n",
        b"*3\r\n$-1\r\n*2\r\n+a\r\n:5\r\n$0\r\n\r\n",
        b"-LOADING Redis is loading\r\n",
        b"$1234\r\n",
        &[b'x'; 1234],
        b"\r\n",
        b"*-1\r\n",
    ] {
        transcript.extend_from_slice(response);
    }
    let expected = lengths(&[&transcript]);
    assert_eq!(expected.0.len(), 7);
    assert!(expected.1);
    for middle in 0..=transcript.len() {
        let (a, b) = transcript.split_at(middle);
        assert_eq!(lengths(&[a, b]), expected, "split at {middle}");
    }
    let bytes: Vec<&[u8]> = transcript.chunks(1).collect();
    assert_eq!(lengths(&bytes), expected);
}

#[test]
fn a_large_body_is_passed_on_as_it_comes() {
    let mut parser = ResponseParser::default();
    assert_eq!(parser.step(b"$1000000\r\nab"), ResponseStep::More(12));
    let chunk = vec![b'x'; 999_998];
    assert_eq!(parser.step(&chunk), ResponseStep::More(999_998));
    assert_eq!(parser.step(b"\r"), ResponseStep::More(0));
    assert_eq!(parser.step(b"\r\n+OK\r\n"), ResponseStep::Done(2));
}

#[test]
fn unfinished_lines_are_left_over() {
    let mut parser = ResponseParser::default();
    assert_eq!(parser.step(b"*2\r\n+a\r\n$1"), ResponseStep::More(8));
    assert_eq!(parser.step(b"$1\r"), ResponseStep::More(0));
    assert_eq!(parser.step(b"$1\r\nx\r\n"), ResponseStep::Done(7));
    assert_eq!(parser.step(b":7\r\n"), ResponseStep::Done(4));
    assert_eq!(parser.step(b""), ResponseStep::More(0));
}

#[test]
fn what_no_server_says_is_invalid() {
    for bytes in [
        &b"hello\r\n"[..],
        b"\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"_\r\n",
        b"#t\r\n",
        b"~1\r\n:1\r\n",
        b"$x\r\n",
        b"$-2\r\n",
        b"$\r\n",
        b"*-2\r\n",
        b"*1x\r\n",
        b":\r\n",
        b":1.5\r\n",
        b"+OK\rX",
        b"$1\r\nabc",
        b"$1\r\na\rX",
        b"*1\r\n?",
        b"*2\r\n*18446744073709551615\r\n",
        b"*99999999999999999999\r\n",
    ] {
        assert!(!lengths(&[bytes]).1, "{bytes:?}");
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert!(!lengths(&pieces).1, "{bytes:?}");
    }
}

#[test]
fn hostile_counts_wait_without_overflow() {
    for bytes in [
        &b"*9999999999999\r\n"[..],
        b"*18446744073709551615\r\n:1\r\n",
        b"*9999999999999999999\r\n*8446744073709551615\r\n",
        b"$18446744073709551615\r\nabc",
    ] {
        assert_eq!(lengths(&[bytes]), (vec![], true), "{bytes:?}");
    }
}

#[test]
fn a_line_without_end_is_invalid_at_the_limit() {
    let line = vec![b'-'; RESPONSE_LINE_LEN_MAX];
    let mut parser = ResponseParser::default();
    assert_eq!(parser.step(&line[..line.len() - 1]), ResponseStep::More(0));
    assert_eq!(parser.step(&line), ResponseStep::Invalid);
}

#[test]
fn only_whole_first_words_say_that_a_server_fails() {
    for failing in [
        &b"-OOM command not allowed"[..],
        b"-BUSY Redis is busy",
        b"-LOADING Redis i",
        b"-MASTERDOWN Link",
        b"-OOM\r\n",
    ] {
        assert_eq!(verdict(failing), Verdict::Failing, "{failing:?}");
    }
    for healthy in [
        &b"+OK\r\n"[..],
        b"",
        b"-",
        b"-ERR OOM",
        b"-BUSYKEY Target ",
        b"-BUSYGROUP Consu",
        b"-NOAUTH Authent",
        b"-oom x",
        b"+LOADING ",
    ] {
        assert_eq!(verdict(healthy), Verdict::Healthy, "{healthy:?}");
    }
}

#[test]
fn a_line_ends_at_cr_lf_and_at_nothing_less() {
    for bytes in [
        &b"+a\rb\r\n"[..],
        b"+a\nb\r\n",
        b"-a\nb\r\n",
        b"+\n\n\n\r\n",
        b"+a\n",
        b":1\n2\r\n",
        b"$1\n\r\na\r\n",
    ] {
        for cut in 0..bytes.len() {
            let pieces = [&bytes[..cut], &bytes[cut..]];
            assert_eq!(
                lengths(&pieces),
                (vec![], false),
                "{} cut at {cut}",
                bytes.escape_ascii()
            );
        }
    }
}
