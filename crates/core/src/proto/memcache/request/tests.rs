use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::proto::Merge;

const LIMITS: RequestLimits = RequestLimits {
    frame_len_max: 1 << 20,
    unauthenticated: false,
    allow_flush: true,
};

/// What a connection's parser said, one text per step; neighbouring skips are one.
fn told(chunks: &[&[u8]], limits: &RequestLimits) -> Vec<String> {
    let mut parser = RequestParser::default();
    let (mut steps, mut buffer, mut skipped) = (Vec::new(), Vec::new(), 0);
    let flush = |steps: &mut Vec<String>, skipped: &mut usize| {
        if *skipped > 0 {
            steps.push(format!("skip {skipped}"));
            *skipped = 0;
        }
    };
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            let len = match parser.parse(&buffer, limits) {
                Parse::Incomplete { need } => {
                    assert!(need == 0 || need > buffer.len());
                    assert!(need <= to_usize(limits.frame_len_max));
                    break;
                }
                Parse::Skip { len } => {
                    assert!(len > 0);
                    skipped += len;
                    len
                }
                Parse::Complete(request) => {
                    flush(&mut steps, &mut skipped);
                    steps.push(shown(&request, &buffer));
                    to_usize(request.len)
                }
                Parse::Invalid { invalid, len, then } => {
                    flush(&mut steps, &mut skipped);
                    let mut reply = Vec::new();
                    invalid.write(&buffer[..len], &mut reply);
                    let reply = String::from_utf8_lossy(&reply);
                    steps.push(format!("{len} -> {}", reply.trim_end()));
                    if then == Then::Close {
                        steps.push("close".to_string());
                        return steps;
                    }
                    len
                }
                Parse::Inline { len } => {
                    flush(&mut steps, &mut skipped);
                    let mut line = Vec::new();
                    compose(&buffer[..len], &mut line);
                    assert!(line.len() <= len, "a composed line is no longer");
                    let Parse::Complete(request) = RequestParser::default().parse(&line, limits)
                    else {
                        panic!("a composed line is a whole request");
                    };
                    assert_eq!(to_usize(request.len), line.len());
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end();
                    steps.push(format!("{len} as {text:?}: {}", shown(&request, &line)));
                    len
                }
            };
            assert!(len <= buffer.len());
            buffer.drain(..len);
        }
    }
    flush(&mut steps, &mut skipped);
    steps
}

fn shown(request: &Request, bytes: &[u8]) -> String {
    let frame = &bytes[..to_usize(request.len)];
    let name = COMMANDS[usize::from(request.command)].name;
    let route = match request.route {
        Route::Key(key) => format!("key {}", String::from_utf8_lossy(key.of(frame))),
        Route::Keys(how) => {
            assert_eq!(how, Some(Merge::Values));
            "keys".to_string()
        }
        Route::Placeholder => "placeholder".to_string(),
        Route::EveryServer(how) => {
            assert_eq!(how, Merge::Line);
            "every".to_string()
        }
        Route::Local => "local".to_string(),
    };
    let noreply = if request.noreply { " noreply" } else { "" };
    let readonly = if request.readonly { " readonly" } else { "" };
    format!("{} {name} {route}{noreply}{readonly}", request.len)
}

fn check(input: &[u8], expected: &[&str]) {
    assert_eq!(
        told(&[input], &LIMITS),
        expected,
        "{}",
        String::from_utf8_lossy(&input[..input.len().min(200)])
    );
}

const FORMAT: &str = "CLIENT_ERROR bad command line format";
const USAGE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";

#[test]
fn retrieval_goes_to_the_owner_of_its_key_or_is_split() {
    check(b"get k\r\n", &["7 get key k readonly"]);
    check(b"get k\n", &["6 get key k readonly"]);
    check(b"get   k  \r\n", &["11 get key k readonly"]);
    check(b"  get k\r\n", &["skip 2", "7 get key k readonly"]);
    check(b"get noreply\r\n", &["13 get key noreply readonly"]);
    check(b"gets k\r\n", &["8 gets key k readonly"]);
    check(b"get a b\r\n", &["9 get keys readonly"]);
    check(b"get a noreply\r\n", &["15 get keys readonly"]);
    check(b"gets a a \n", &["10 gets keys readonly"]);
    check(b"gat 10 k\r\n", &["10 gat key k"]);
    check(b"gats -1 a b\r\n", &["13 gats keys"]);
    check(b"get a\tb\r\n", &["9 get key a\tb readonly"]);
    check(b"get a\x7fb\r\n", &["9 get key a\x7fb readonly"]);
    check(b"get \x01 b\r\n", &["9 get keys readonly"]);
    let longest = [&b"get "[..], &[b'k'; 250], b"\r\n"].concat();
    assert!(told(&[&longest], &LIMITS)[0].starts_with("256 get key kkk"));
    check(
        "get h\u{e9}\r\n".as_bytes(),
        &["9 get key h\u{e9} readonly"],
    );
}

#[test]
fn retrieval_is_refused_in_memcacheds_words() {
    for (input, reply) in [
        (&b"get\r\n"[..], "ERROR"),
        (b"get \r\n", "ERROR"),
        (b"gets\n", "ERROR"),
        (b"gat\r\n", "ERROR"),
        (b"gat 10\r\n", "ERROR"),
        (b"gats 10 \r\n", "ERROR"),
        (b"gat x k\r\n", "CLIENT_ERROR invalid exptime argument"),
        (
            b"gat 2147483648 k\r\n",
            "CLIENT_ERROR invalid exptime argument",
        ),
        (b"get a\0b\r\n", FORMAT),
        (b"get a\rb\r\n", FORMAT),
        (b"get a\r\r\n", FORMAT),
        (b"get a b\r c\r\n", FORMAT),
        (
            b"gat 00000000010 k\r\n",
            "CLIENT_ERROR invalid exptime argument",
        ),
    ] {
        check(input, &[&format!("{} -> {reply}", input.len())]);
    }
    let long = [b'k'; 251];
    for parts in [
        [&b"get "[..], &long, b"\r\n"],
        [b"gat 0 a ", &long, b" b\r\n"],
    ] {
        let input = parts.concat();
        check(&input, &[&format!("{} -> {FORMAT}", input.len())]);
    }
}

#[test]
fn storage_frames_include_the_data_block() {
    for name in ["set", "add", "replace", "append", "prepend"] {
        let input = format!("{name} k 0 0 3\r\nabc\r\n");
        check(
            input.as_bytes(),
            &[&format!("{} {name} key k", input.len())],
        );
    }
    check(b"set k 0 0 0\r\n\r\n", &["15 set key k"]);
    check(b"set k 0 0 5\r\n\r\n\n\r\n\r\n", &["20 set key k"]);
    check(b"set k 0 0 3\nabc\r\n", &["17 set key k"]);
    check(b"set  k  0  0  3  \r\nabc\r\n", &["24 set key k"]);
    check(b" set k 0 0 3\r\nabc\r\n", &["skip 1", "18 set key k"]);
    check(b"set k\t0 0 0 3\r\nabc\r\n", &["20 set key k\t0"]);
    check(b"set k 0 0 3 noreply\r\nabc\r\n", &["26 set key k noreply"]);
    check(
        b"set k 0 0 3 noreply \r\nabc\r\n",
        &["27 set key k noreply"],
    );
    check(b"set k 0 0 3 NOREPLY\r\nabc\r\n", &["26 set key k"]);
    check(b"set noreply 0 0 3\r\nabc\r\n", &["24 set key noreply"]);
    check(b"cas k 0 0 3 7\r\nabc\r\n", &["20 cas key k"]);
    check(
        b"cas k 0 0 3 7 noreply\r\nabc\r\n",
        &["28 cas key k noreply"],
    );
}

#[test]
fn numbers_are_accepted_exactly_as_far_as_every_memcached_accepts_them() {
    for line in [
        "set k 4294967295 0 3",
        "set k 007 -0 0003",
        "set k 0 -1 3",
        "set k 0 2147483647 3",
        "set k 0 -2147483648 3",
        // memcached keeps the lower 32 bits.
        "set k 0 2147483648 3",
        "set k 0 4294967295 3",
        "set k 0 5000000000 3",
        "set k 0 -2147483649 3",
        "set k 0 +5 3",
        "set k 0 999999999999999999 3",
        "set k 0000000001 0 0000000003",
        "cas k 0 0 3 18446744073709551615",
    ] {
        let name = &line[..3];
        let input = format!("{line}\r\nabc\r\n");
        check(
            input.as_bytes(),
            &[&format!("{} {name} key k", input.len())],
        );
    }
    for line in [
        "set k 4294967296 0 3",
        "set k -1 0 3",
        "set k +5 0 3",
        "set k x 0 3",
        "set k 99999999999999999999999 0 3",
        "set k 00000000001 0 3",
        "set k 0 1000000000000000000 3",
        "set k 0 0000000000000000000 3",
        "set k 0 -+5 3",
        "set k 0 + 3",
        "set k 0 - 3",
        "set k 0 --1 3",
        "set k 0 x 3",
        "cas k 0 0 3 18446744073709551616",
        "cas k 0 0 3 000000000000000000001",
        "cas k 0 0 3 -1",
        "cas k 0 0 3 x",
    ] {
        let input = format!("{line}\r\nabc\r\nversion\r\n");
        let refused = format!("{} -> {FORMAT}", line.len() + 2);
        let version = "9 version placeholder readonly";
        check(input.as_bytes(), &[&refused, "skip 5", version]);
    }
    for bytes in [
        "-1",
        "+3",
        "x",
        "3x",
        "00000000003",
        "2147483646",
        "2147483647",
        "4294967299",
    ] {
        let line = format!("set k 0 0 {bytes}\r\n");
        let refused = format!("{} -> {FORMAT}", line.len());
        let input = format!("{line}abc\r\n");
        check(input.as_bytes(), &[&refused, "5 -> ERROR"]);
    }
    let largest = RequestLimits {
        frame_len_max: u32::MAX,
        ..LIMITS
    };
    let parse = RequestParser::default().parse(b"set k 0 0 2147483645\r\nabc\r\n", &largest);
    let need = 22 + 2_147_483_645 + 2;
    assert_eq!(parse, Parse::Incomplete { need });
}

#[test]
fn a_refused_storage_line_takes_its_data_block_along() {
    let long = "k".repeat(251);
    let long_key = format!("set {long} 0 0 3\r\n");
    let long_key_noreply = format!("set {long} 0 0 3 noreply\r\n");
    for (line, reply) in [
        ("set k 0 0 3 foo bar\r\n", "ERROR"),
        ("cas k 0 0 3\r\n", "ERROR"),
        ("set a\0b 0 0 3\r\n", FORMAT),
        ("set k 0 \t0 3\r\n", FORMAT),
        ("set k\r 0 0 3\r\n", FORMAT),
        (&long_key, FORMAT),
        (
            "ms k 3 T0\r\n",
            "CLIENT_ERROR 'ms' is not supported by this proxy",
        ),
    ] {
        let input = format!("{line}abc\r\nget k\r\n");
        let refused = format!("{} -> {reply}", line.len());
        check(
            input.as_bytes(),
            &[&refused, "skip 5", "7 get key k readonly"],
        );
    }
    for line in [
        "cas k 0 0 3 noreply\r\n",
        "set k x 0 3 noreply\r\n",
        &long_key_noreply,
    ] {
        let input = format!("{line}abc\r\nget k\r\n");
        let skipped = format!("skip {}", line.len() + 5);
        check(input.as_bytes(), &[&skipped, "7 get key k readonly"]);
    }
    for line in ["set k 0 0\r\n", "set k\r\n", "set\r\n"] {
        let input = format!("{line}get k\r\n");
        let refused = format!("{} -> ERROR", line.len());
        check(input.as_bytes(), &[&refused, "7 get key k readonly"]);
    }
}

#[test]
fn a_bad_data_block_takes_as_many_bytes_as_were_announced() {
    let bad = "18 -> CLIENT_ERROR bad data chunk";
    check(b"set k 0 0 3\r\nabcdefgh\r\n", &[bad, "5 -> ERROR"]);
    check(
        b"set k 0 0 3\r\nabcd\r\nget k\r\n",
        &[bad, "1 -> ERROR", "7 get key k readonly"],
    );
    check(b"set k 0 0 3\r\nabc\n\r\n", &[bad, "1 -> ERROR"]);
    check(
        b"set k 0 0 3 noreply\r\nabcdefgh\r\n",
        &["skip 26", "5 -> ERROR"],
    );
}

#[test]
fn a_frame_above_the_limit_is_refused_and_dropped() {
    let limits = RequestLimits {
        frame_len_max: 20,
        ..LIMITS
    };
    let too_large = "SERVER_ERROR object too large for cache";
    let told = |input: &[u8]| told(&[input], &limits);
    assert_eq!(told(b"set k 0 0 5\r\nabcde\r\n"), ["20 set key k"]);
    assert_eq!(
        told(b"set k 0 0 6\r\nabcdef\r\nget k\r\n"),
        [
            &format!("13 -> {too_large}"),
            "skip 8",
            "7 get key k readonly"
        ]
    );
    assert_eq!(
        told(b"add k 0 0 6 noreply\nabcdef\r\nget k\r\n"),
        ["skip 28", "7 get key k readonly"]
    );
    let line_too_long = "20 -> CLIENT_ERROR line too long";
    assert_eq!(
        told(b"get 45678901234567\r\n"),
        ["20 get key 45678901234567 readonly"]
    );
    assert_eq!(
        told(b"get 456789012345678\r\nget k\r\n"),
        [line_too_long, "skip 1", "7 get key k readonly"]
    );
    assert_eq!(
        told(b"delete 7890 23456789 1\r\nget k\r\n"),
        [line_too_long, "skip 4", "7 get key k readonly"]
    );
}

#[test]
fn only_a_line_of_keys_may_be_longer_than_memcached_buffers() {
    let words = |head: &str, len: usize| {
        let mut line = head.as_bytes().to_vec();
        line.resize(len, b' ');
        line
    };
    let close = ["0 -> CLIENT_ERROR line too long", "close"];
    for head in ["x", "set k 0 0 3", "touch k 0", "get\t", "gets\t", "gat\t"] {
        assert_eq!(told(&[&words(head, 2048)], &LIMITS), [""; 0], "{head}");
        assert_eq!(told(&[&words(head, 2049)], &LIMITS), close, "{head}");
        let whole = [&words(head, 2049)[..], b"\r\n"].concat();
        assert_eq!(told(&[&whole], &LIMITS), close, "{head}");
    }
    let keys = b"key ".repeat(100_000);
    for (blanks, head, steps) in [
        (0, &b"get "[..], &["400006 get keys readonly"][..]),
        (101, b"gets ", &["skip 101", "400007 gets keys readonly"]),
        (0, b"gat 0 ", &["400008 gat keys"]),
    ] {
        let input = [&vec![b' '; blanks][..], head, &keys, b"\r\n"].concat();
        check(&input, steps);
    }
    // A line that is sent is shorter.
    for (input, step) in [
        ("touch k 0", "as \"touch k 0\": 11 touch key k"),
        (
            "delete k noreply",
            "as \"delete k noreply\": 18 delete key k noreply",
        ),
        ("get k", "as \"get k\": 7 get key k readonly"),
        ("gats 0010 k", "as \"gats 0010 k\": 13 gats key k"),
    ] {
        let line = [&words(input, 1023)[..], b"\n"].concat();
        check(&line, &[&format!("1024 {step}")]);
        let fits = [&words(input, 1022)[..], b"\r\n"].concat();
        assert!(!told(&[&fits], &LIMITS)[0].contains("as"), "{input}");
    }
    let set = [&words("set k 0 0 3", 1022)[..], b"\r\nabc\r\n"].concat();
    check(&set, &["1029 set key k"]);
    let set = [&words("set k 0 0 3", 1023)[..], b"\r\nabc\r\n"].concat();
    check(&set, &[&format!("1025 -> {FORMAT}"), "skip 5"]);
}

#[test]
fn words_without_effect_are_not_sent() {
    for (input, sent, step) in [
        (
            "version foo bar",
            "version",
            "9 version placeholder readonly",
        ),
        (
            "version noreply",
            "version",
            "9 version placeholder readonly",
        ),
        ("incr k 1 other", "incr k 1", "10 incr key k"),
        ("touch k 0 other", "touch k 0", "11 touch key k"),
        ("verbosity 1 x", "verbosity 1", "13 verbosity every"),
        ("flush_all 0 x", "flush_all 0", "13 flush_all every"),
        (
            "delete k 0 noreply",
            "delete k noreply",
            "18 delete key k noreply",
        ),
    ] {
        let line = format!("{input}\r\n");
        let expected = format!("{} as {sent:?}: {step}", line.len());
        check(line.as_bytes(), &[&expected]);
    }
}

#[test]
fn one_line_commands_are_read_as_memcached_reads_them() {
    for (input, step) in [
        ("incr k 1", "key k"),
        ("decr k 18446744073709551615", "key k"),
        ("incr k 1 noreply", "key k noreply"),
        ("delete k", "key k"),
        ("delete noreply 0", "key noreply"),
        ("delete noreply noreply", "key noreply noreply"),
        ("incr noreply 1", "key noreply"),
        ("touch noreply 0", "key noreply"),
        ("delete k 0", "key k"),
        ("delete k noreply", "key k noreply"),
        ("touch k -1", "key k"),
        ("touch k 0 noreply", "key k noreply"),
        ("touch k\x01 0", "key k\x01"),
        ("version", "placeholder readonly"),
        ("stats", "local"),
        ("stats items", "local"),
        ("verbosity 1", "every"),
        ("verbosity 0 noreply", "every noreply"),
        ("flush_all", "every"),
        ("flush_all 0", "every"),
        ("flush_all -1", "every"),
        ("flush_all noreply", "every noreply"),
        ("flush_all 10 noreply", "every noreply"),
        ("quit", "local"),
        ("quit now", "local"),
    ] {
        let name = input.split(' ').next().unwrap();
        let line = format!("{input}\r\n");
        check(line.as_bytes(), &[&format!("{} {name} {step}", line.len())]);
    }
}

#[test]
fn one_line_commands_are_refused_in_memcacheds_words() {
    let long = "k".repeat(251);
    let exptime = "CLIENT_ERROR invalid exptime argument";
    let delta = "CLIENT_ERROR invalid numeric delta argument";
    for (input, reply) in [
        ("", "ERROR"),
        ("a", "ERROR"),
        ("bogus", "ERROR"),
        ("SET k 0 0 3", "ERROR"),
        ("get\tk", "ERROR"),
        ("incr k", "ERROR"),
        ("incr k 1 2 3", "ERROR"),
        ("incr k x", delta),
        ("incr k -1", delta),
        ("decr k 18446744073709551616", delta),
        (&format!("incr {long} x"), FORMAT),
        ("delete", "ERROR"),
        ("delete a b c d", "ERROR"),
        ("delete a b c d e", "ERROR"),
        ("delete noreply", FORMAT),
        ("incr k 000000000000000000001", delta),
        ("verbosity 00000000001", FORMAT),
        ("delete k 1", USAGE),
        ("delete k 0 0", USAGE),
        ("delete k noreply 0", USAGE),
        (&format!("delete {long}"), FORMAT),
        (&format!("delete {long} 1"), USAGE),
        ("touch k", "ERROR"),
        ("touch k x", exptime),
        ("touch k 2147483648", exptime),
        (&format!("touch {long} x"), FORMAT),
        ("verbosity", "ERROR"),
        ("verbosity 1 2 3", "ERROR"),
        ("verbosity foo bar my", "ERROR"),
        ("verbosity x", FORMAT),
        ("verbosity -1", FORMAT),
        ("flush_all x", exptime),
        ("flush_all 1 2 3", "ERROR"),
        ("touch k\r 0", FORMAT),
        ("version \0", FORMAT),
        (
            "stats reset",
            "CLIENT_ERROR 'stats' is not supported by this proxy",
        ),
        ("mg k v", "CLIENT_ERROR 'mg' is not supported by this proxy"),
        ("mz", "ERROR"),
        (
            "lru_crawler crawl 1",
            "CLIENT_ERROR 'lru_crawler' is not supported by this proxy",
        ),
    ] {
        let line = format!("{input}\r\n");
        check(line.as_bytes(), &[&format!("{} -> {reply}", line.len())]);
    }
    check(b"   \r\n", &["skip 3", "2 -> ERROR"]);
    for input in [
        "incr k x noreply",
        "incr k noreply",
        "touch k noreply",
        "delete k 1 noreply",
        "verbosity noreply",
        "verbosity x noreply",
        "flush_all x noreply",
        "flush_all noreply noreply",
        "cache_memlimit 64 noreply",
    ] {
        let line = format!("{input}\r\n");
        check(line.as_bytes(), &[&format!("skip {}", line.len())]);
    }
}

#[test]
fn flush_all_needs_permission() {
    let limits = RequestLimits {
        allow_flush: false,
        ..LIMITS
    };
    let refused = "CLIENT_ERROR flush_all not allowed";
    for (input, step) in [
        (&b"flush_all\r\n"[..], &format!("11 -> {refused}")[..]),
        (b"flush_all x\r\n", &format!("13 -> {refused}")),
        (b"flush_all noreply\r\n", "skip 19"),
        (b"flush_all 1 2 3\r\n", "17 -> ERROR"),
    ] {
        assert_eq!(told(&[input], &limits), [step]);
    }
}

#[test]
fn what_is_not_the_text_protocol_is_closed() {
    let header = b"\x80\x20\0\x05\0\0\0\0\0\0\0\x05\xfe\xed\0\x01\0\0\0\0\0\0\0\0";
    let parse = |bytes: &[u8]| RequestParser::default().parse(bytes, &LIMITS);
    for len in 1..header.len() {
        assert_eq!(parse(&header[..len]), Parse::Incomplete { need: 24 });
    }
    assert_eq!(
        parse(&[&header[..], b"PLAIN"].concat()),
        invalid(Invalid::Binary, 24, Then::Close)
    );
    let mut error = Vec::new();
    Invalid::Binary.write(header, &mut error);
    // Magic, opcode, no key, no extras, "unknown command", body length, opaque, no cas.
    let expected = b"\x81\x20\0\0\0\0\0\x81\0\0\0\x24\xfe\xed\0\x01\0\0\0\0\0\0\0\0";
    assert_eq!(error[..24], expected[..]);
    assert_eq!(error[24..], b"The binary protocol is not supported"[..]);
    for input in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"HTTP/\r\n",
        b"bogus HTTP/1.0\n",
    ] {
        check(input, &[&format!("{} -> ", input.len()), "close"]);
    }
    for input in [
        &b"sbogus HTTP/1.1\r\n"[..],
        b"bogus HTTP/1.1 x\r\n",
        b"mz HTTP/\r\n",
        b"G HTTP/\n",
    ] {
        check(input, &[&format!("{} -> ERROR", input.len())]);
    }
    check(b"get HTTP/1.1\r\n", &["14 get key HTTP/1.1 readonly"]);
}

/// One pipeline with something of everything.
const PIPELINE: &[&[u8]] = &[
    b"get k\r\n",
    b"set key 1 -1 5\r\nab\r\nc\r\n",
    b"  get  a b  c \n",
    b"  version x\r\n",
    b"\r\n",
    b"set key 0 0 3 noreply\nabc\r\n",
    b"set key x 0 6\r\nget k\n\r\n",
    b"set key x 0 6 noreply\r\nget k\n\r\n",
    b"cas k 0 0 3 5\r\nabcde",
    b"cas k 0 0 3 5 noreply\r\nabcde",
    b"gat 0 k\r\n",
    b"gats 0 a b\r\n",
    b"ms k 2\r\nxx\r\n",
    b"incr k 5\r\n",
    b"set k 0 0 40\r\n0123456789012345678901234567890123456789\r\n",
    b"set k 0 0 40 noreply\r\n0123456789012345678901234567890123456789\r\n",
    b"get 0123456789012345678901234567890123456789012345\r\n",
    b"get 01234567890123456789012345678901234567890123456789\r\n",
    b"delete k 0 noreply\r\n",
    b"version\r\n",
    b"flush_all\n",
    b"quit\r\n",
    b"POST / HTTP/1.1\r\n",
];

#[test]
fn pieces_change_nothing() {
    let limits = RequestLimits {
        frame_len_max: 52,
        ..LIMITS
    };
    let input = PIPELINE.concat();
    let whole = told(&[&input], &limits);
    assert_eq!(whole.len(), 28, "{whole:#?}");
    assert_eq!(whole.last().unwrap(), "close");
    for cut in 0..=input.len() {
        let (head, tail) = input.split_at(cut);
        assert_eq!(told(&[head, tail], &limits), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(told(&single, &limits), whole);
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("get"),
        Just("set"),
        Just("cas"),
        Just("gat"),
        Just("delete"),
        Just("incr"),
        Just("ms"),
        Just("stats"),
        Just("flush_all"),
        Just("noreply"),
        Just("k"),
        Just("0"),
        Just("3"),
        Just("-1"),
        Just("2147483648"),
        Just("18446744073709551616"),
        Just(" "),
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("\0"),
        Just("\u{80}"),
        Just("HTTP/"),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" ").into_bytes())
}

/// Lines that are plain, or nearly so.
fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
    let number = || "(-?[0-9]{0,11}|noreply)";
    let line = (
        "(get|set|gets) {1,2}",
        "[a-z\u{7f}]{0,3}k{0,2}",
        number(),
        number(),
        "[0-5]",
        "( |\t|\r|x|)",
        "(\r\n|\n)",
        "[a-z]{0,5}(\r\n|x)",
    );
    line.prop_map(|(command, key, flags, exptime, bytes, odd, end, block)| {
        let numbers = if command.starts_with("set") {
            format!(" {flags} {exptime} {bytes}")
        } else {
            String::new()
        };
        format!("{command}{key}{numbers}{odd}{end}{block}").into_bytes()
    })
}

proptest! {
    #[test]
    fn the_short_way_reads_as_the_general_way(
        input in nearly_plain(),
        frame_len_max in 10_u32..50,
    ) {
        let limits = RequestLimits { frame_len_max, ..LIMITS };
        prop_assert_eq!(
            RequestParser::default().parse(&input, &limits),
            RequestParser::default().line(&input, 0, &limits)
        );
    }

    #[test]
    fn any_bytes_in_any_pieces_are_read_alike(
        input in prop_oneof![lines(), prop::collection::vec(any::<u8>(), 0..300)],
        cuts in prop::collection::vec(0_usize..300, 0..6),
        frame_len_max in 1_u32..400,
    ) {
        let limits = RequestLimits { frame_len_max, ..LIMITS };
        let whole = told(&[&input], &limits);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        prop_assert_eq!(told(&pieces, &limits), whole);
    }
}
