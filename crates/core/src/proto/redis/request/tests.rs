//! Expectations marked "as redis" were read off a redis-server 7.0.15.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::super::{words::write_array_header, write_bulk};
use super::*;
use crate::proto::{Merge, Route};

const LIMITS: RequestLimits = RequestLimits {
    frame_len_max: 1 << 30,
    unauthenticated: false,
    allow_flush: false,
};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Request(Request, Vec<u8>),
    Inline(Vec<u8>),
    Skipped(usize),
    Error(Vec<u8>, Then),
}

/// Feeds `pieces` as they would arrive and writes down what the parser makes of them.
fn events(pieces: &[&[u8]], limits: &RequestLimits) -> Vec<Event> {
    let mut parser = RequestParser::default();
    let mut bytes = Vec::new();
    let mut events = Vec::new();
    let mut least = 0;
    for piece in pieces {
        bytes.extend_from_slice(piece);
        loop {
            let parse = parser.parse(&bytes, limits);
            let len = match parse {
                Parse::Complete(request) => {
                    let len = to_usize(request.len);
                    assert!(least <= len, "promised {least} bytes, took {len}");
                    events.push(Event::Request(request, bytes[..len].to_vec()));
                    len
                }
                Parse::Inline { len } => {
                    events.push(Event::Inline(bytes[..len].to_vec()));
                    len
                }
                Parse::Incomplete { need } => {
                    assert!(need == 0 || need > bytes.len());
                    least = need;
                    break;
                }
                Parse::Skip { len } => {
                    assert!(len > 0);
                    match events.last_mut() {
                        Some(Event::Skipped(sum)) => *sum += len,
                        _ => events.push(Event::Skipped(len)),
                    }
                    len
                }
                Parse::Invalid { invalid, len, then } => {
                    let mut reply = Vec::new();
                    invalid.write(&bytes[..len], &mut reply);
                    events.push(Event::Error(reply, then));
                    if then == Then::Close {
                        return events;
                    }
                    len
                }
            };
            least = 0;
            assert!(len <= bytes.len());
            bytes.drain(..len);
        }
    }
    events
}

fn whole(bytes: &[u8]) -> Vec<Event> {
    events(&[bytes], &LIMITS)
}

fn frame(words: &[&[u8]]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_array_header(words.len(), &mut frame);
    for word in words {
        write_bulk(word, &mut frame);
    }
    frame
}

fn request(words: &[&[u8]]) -> Request {
    match whole(&frame(words)).as_slice() {
        [Event::Request(request, _)] => *request,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

fn route_of(line: &str) -> Route {
    request(&words(line)).route
}

/// The text of the single error that `words` are answered with; the stream must go on.
fn error_of(words: &[&[u8]]) -> String {
    let mut bytes = frame(words);
    bytes.extend_from_slice(PING);
    match whole(&bytes).as_slice() {
        [Event::Error(reply, Then::Continue), Event::Request(..)] => {
            String::from_utf8_lossy(reply).into_owned()
        }
        other => panic!("{words:?}: {other:?}"),
    }
}

fn closes_with(bytes: &[u8], text: &[u8]) {
    let mut reply = b"-ERR Protocol error: ".to_vec();
    reply.extend_from_slice(text);
    reply.extend_from_slice(b"\r\n");
    assert_eq!(
        whole(bytes),
        [Event::Error(reply, Then::Close)],
        "{:?}",
        &bytes[..bytes.len().min(40)]
    );
}

// C75
#[test]
fn single_key_requests_pass_whole_to_their_keys_owner() {
    for line in [
        "GET key",
        "get key",
        "gEt key",
        "SET key value",
        "set key",
        "SET key v EX 10",
        "EXPIRE key 10 NX",
        "DEL key",
        "MGET key",
        "MSET key v",
        "EXISTS key",
        "XADD key * f v",
        "LPUSH key a b c d e f",
        "HSET key f v",
        "MOVE key 1",
        "RESTORE key 0 x",
    ] {
        let bytes = frame(&words(line));
        let events = whole(&bytes);
        let [Event::Request(request, seen)] = events.as_slice() else {
            panic!("{line}: {events:?}");
        };
        assert_eq!(seen, &bytes);
        let Route::Key(key) = request.route else {
            panic!("{line}: {:?}", request.route);
        };
        assert_eq!(key.of(&bytes), b"key", "{line}");
        assert!(!request.noreply);
    }
    for (line, key) in [
        ("OBJECT ENCODING a", &b"a"[..]),
        ("memory usage b SAMPLES 5", b"b"),
        ("XGROUP CREATE s g $", b"s"),
        ("XINFO STREAM s FULL", b"s"),
        ("EVAL script 1 k arg", b"k"),
        ("ZUNION 1 k", b"k"),
        ("XREAD COUNT 1 STREAMS k 0", b"k"),
    ] {
        let bytes = frame(&words(line));
        let Route::Key(span) = route_of(line) else {
            panic!("{line}");
        };
        assert_eq!(span.of(&bytes), key, "{line}");
    }
}

#[test]
fn other_requests_are_routed_by_the_table() {
    for (line, route) in [
        ("MGET a b", Route::Keys(Some(Merge::Array))),
        ("DEL a b", Route::Keys(Some(Merge::Sum))),
        ("UNLINK a b", Route::Keys(Some(Merge::Sum))),
        ("TOUCH a b", Route::Keys(Some(Merge::Sum))),
        ("EXISTS a a", Route::Keys(Some(Merge::Sum))),
        ("MSET a 1 b 2", Route::Keys(Some(Merge::Status))),
        ("RENAME a b", Route::Keys(None)),
        ("EVAL s 2 a b", Route::Keys(None)),
        ("SORT a STORE b", Route::Keys(None)),
        ("EVAL s 0", Route::Placeholder),
        ("FCALL f 0 arg", Route::Placeholder),
        ("EVAL s x", Route::Placeholder),
        ("COMMAND", Route::Placeholder),
        ("COMMAND DOCS get", Route::Placeholder),
        ("LOLWUT", Route::Placeholder),
        ("LOLWUT VERSION 5", Route::Placeholder),
        ("TIME", Route::Placeholder),
        ("OBJECT HELP", Route::Placeholder),
        ("PING", Route::Local),
        ("ping hello", Route::Local),
        ("ECHO x", Route::Local),
        ("QUIT", Route::Local),
        ("SELECT 0", Route::Local),
        ("HELLO 3", Route::Local),
        ("AUTH x", Route::Local),
        ("RESET", Route::Local),
        ("CLIENT SETNAME x", Route::Local),
        ("client id", Route::Local),
    ] {
        assert_eq!(route_of(line), route, "{line}");
    }
}

#[test]
fn requests_that_change_nothing_are_marked() {
    for (line, readonly) in [
        ("GET a", true),
        ("MGET a b", true),
        ("EVAL_RO s 1 a", true),
        ("OBJECT ENCODING a", true),
        ("XREAD STREAMS a 0", true),
        ("TIME", true),
        ("SET a b", false),
        ("GETEX a", false),
        ("EVAL s 1 a", false),
        ("XGROUP CREATE s g $", false),
        ("XREADGROUP GROUP g c STREAMS a >", false),
        ("DEL a b", false),
    ] {
        assert_eq!(request(&words(line)).readonly, readonly, "{line}");
    }
}

#[test]
fn unknown_commands_are_worded_as_redis() {
    let y = |n| vec![b'y'; n];
    let quoted = |n| String::from_utf8(vec![b'y'; n]).unwrap();
    let begin = "-ERR unknown command 'foo', with args beginning with: ";
    for (words, text) in [
        (&[&b"foo"[..]][..], String::from("")),
        (&[b"foo", b"a", b"b"], "'a' 'b' ".into()),
        (&[b"foo", b"", b""], "'' '' ".into()),
        (
            &[b"foo", b"a\r\nb", b"it's", b"\0z\xff"],
            "'a  b' 'it's' '' ".into(),
        ),
        (&[b"foo", &y(127), b"z"], quoted_then(&quoted(127), "")),
        (&[b"foo", &y(128), b"z"], quoted_then(&quoted(128), "")),
        (&[b"foo", &y(200), b"z"], quoted_then(&quoted(128), "")),
        (&[b"foo", &y(124), b"z"], quoted_then(&quoted(124), "'z' ")),
        (&[b"foo", &y(125), b"z"], quoted_then(&quoted(125), "")),
        (
            &[b"foo", &y(60), &y(60), &y(60)],
            quoted_then(&quoted(60), &quoted_then(&quoted(60), "'yy' ")),
        ),
    ] {
        assert_eq!(error_of(words), alloc::format!("{begin}{text}\r\n"));
    }
    let name = String::from_utf8(vec![b'x'; 128]).unwrap();
    for (words, text) in [
        (
            &[&b"FoO"[..], b"a"][..],
            "'FoO', with args beginning with: 'a' ",
        ),
        (&[b"f\r\no\0o"], "'f  o', with args beginning with: "),
        (&[b"", b"a"], "'', with args beginning with: 'a' "),
        (
            &[&[b'x'; 200], b"y"],
            &alloc::format!("'{name}', with args beginning with: 'y' "),
        ),
    ] {
        assert_eq!(
            error_of(words),
            alloc::format!("-ERR unknown command {text}\r\n")
        );
    }
}

fn quoted_then(text: &str, rest: &str) -> String {
    alloc::format!("'{text}' {rest}")
}

#[test]
fn command_errors_are_worded_and_the_stream_goes_on() {
    for (line, text) in [
        // As redis.
        ("GET", "wrong number of arguments for 'get' command"),
        ("mset a", "wrong number of arguments for 'mset' command"),
        ("MSET a 1 b", "wrong number of arguments for 'mset' command"),
        ("rename a", "wrong number of arguments for 'rename' command"),
        (
            "EVAL script",
            "wrong number of arguments for 'eval' command",
        ),
        ("OBJECT", "wrong number of arguments for 'object' command"),
        (
            "object ENCODING",
            "wrong number of arguments for 'object|encoding' command",
        ),
        (
            "XGROUP CREATE",
            "wrong number of arguments for 'xgroup|create' command",
        ),
        (
            "memory usage",
            "wrong number of arguments for 'memory|usage' command",
        ),
        ("OBJECT foo k", "unknown subcommand 'foo'. Try OBJECT HELP."),
        ("client FOO", "unknown subcommand 'FOO'. Try CLIENT HELP."),
        // Our own.
        (
            "KEYS *",
            "'keys' is not supported by this proxy: it covers all keys of a single server",
        ),
        (
            "WATCH a",
            "'watch' is not supported by this proxy: transactions need a connection of their own",
        ),
        (
            "MIGRATE h 1 k 0 1",
            "'migrate' is not supported by this proxy: it makes a server connect elsewhere",
        ),
        (
            "Subscribe a",
            "'subscribe' is not supported by this proxy: pub/sub needs a connection of its own",
        ),
        (
            "BLPOP a 0",
            "'blpop' is not supported by this proxy: it blocks a connection that clients share",
        ),
        (
            "XREAD BLOCK 0 STREAMS a 0",
            "'xread' is not supported by this proxy: it blocks a connection that clients share",
        ),
        (
            "CONFIG GET x",
            "'config' is not supported by this proxy: it administers a single server",
        ),
        (
            "CLIENT TRACKING ON",
            "'client|tracking' is not supported by this proxy: it concerns a connection that clients share",
        ),
        (
            "MEMORY DOCTOR",
            "'memory|doctor' is not supported by this proxy: it administers a single server",
        ),
    ] {
        assert_eq!(
            error_of(&words(line)),
            alloc::format!("-ERR {text}\r\n"),
            "{line}"
        );
    }
    let mut long = vec![b'F'; 200];
    assert_eq!(
        error_of(&[b"xgroup", &long, b"k"]),
        alloc::format!(
            "-ERR unknown subcommand '{}'. Try XGROUP HELP.\r\n",
            String::from_utf8(vec![b'F'; 128]).unwrap()
        )
    );
    long.splice(..0, *b"a\r\n\0");
    assert!(error_of(&[b"xgroup", &long]).starts_with("-ERR unknown subcommand 'a  '. Try"));
}

#[test]
fn frames_without_words_and_blank_lines_are_skipped_as_in_redis() {
    for nothing in [
        &b"*0\r\n"[..],
        b"*-1\r\n",
        b"*-2\r\n",
        b"*-9223372036854775808\r\n",
        b"\r\n",
        b"\n",
        b" \t\x0b \r\n",
    ] {
        let mut bytes = nothing.to_vec();
        bytes.extend_from_slice(PING);
        match whole(&bytes).as_slice() {
            [Event::Skipped(len), Event::Request(..)] => assert_eq!(*len, nothing.len()),
            other => panic!("{nothing:?}: {other:?}"),
        }
    }
}

#[test]
fn broken_headers_close_in_the_words_of_redis() {
    for bytes in [
        &b"*\r\n"[..],
        b"*00\r\n",
        b"*01\r\n",
        b"*+1\r\n",
        b"*-0\r\n",
        b"* 1\r\n",
        b"*1 \r\n",
        b"*1x\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*-9999999999999999999\r\n",
        // compat: redis before 7 has this limit, redis 7 takes up to 2147483647.
        b"*1048577\r\n",
        b"*2000000000\r\n",
    ] {
        closes_with(bytes, b"invalid multibulk length");
    }
    for bytes in [
        &b"*1\r\n$-1\r\n"[..],
        b"*1\r\n$\r\n",
        b"*1\r\n$-0\r\n\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$+4\r\nPING\r\n",
        b"*1\r\n$4x\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$99999999999999999999\r\n",
    ] {
        closes_with(bytes, b"invalid bulk length");
    }
    closes_with(b"*1\r\n+4\r\n", b"expected '$', got '+'");
    closes_with(b"*1\r\n\r\n", b"expected '$', got ' '");
    closes_with(b"*1\r\n\x80\r\n", b"expected '$', got '\x80'");
    closes_with(b"*2\r\n$3\r\nGET\r\n*1\r\n", b"expected '$', got '*'");
}

#[test]
fn line_ends_must_be_whole_where_redis_skips_them_unseen() {
    closes_with(b"*1\rX$4\r\nPING\r\n", b"invalid multibulk length");
    closes_with(b"*1\r\n$4\rXPING\r\n", b"invalid bulk length");
    closes_with(b"*1\r\n$4\r\nPINGZZ", b"invalid bulk length");
    closes_with(b"*1\r\n$3\r\nPING\r\n", b"invalid bulk length");
    assert_eq!(whole(b"*1\n$4\nPING\n"), []);
}

#[test]
fn endless_lines_close_in_the_words_of_redis() {
    let line = |start: &[u8], fill: u8| {
        let mut line = start.to_vec();
        line.resize(start.len() + REDIS_INLINE_LEN_MAX, fill);
        line
    };
    closes_with(&line(b"*", b'1'), b"too big mbulk count string");
    closes_with(&line(b"*1\r\n$", b'1'), b"too big bulk count string");
    closes_with(&line(b"x", b'x'), b"too big inline request");
    let mut longest = line(b"", b'x');
    longest.push(b'\n');
    assert_eq!(whole(&longest), [Event::Inline(longest.clone())]);
}

#[test]
fn words_that_a_browser_would_send_close_without_an_answer() {
    for name in [&b"POST"[..], b"post", b"Host:", b"host:"] {
        assert_eq!(whole(&frame(&[name])), [Event::Error(vec![], Then::Close)]);
    }
}

#[test]
fn before_authentication_the_small_limits_of_redis_apply() {
    let limits = RequestLimits {
        unauthenticated: true,
        ..LIMITS
    };
    let closes = |bytes: &[u8], text: &[u8]| {
        let mut reply = b"-ERR Protocol error: ".to_vec();
        reply.extend_from_slice(text);
        reply.extend_from_slice(b"\r\n");
        assert_eq!(
            events(&[bytes], &limits),
            [Event::Error(reply, Then::Close)]
        );
    };
    closes(b"*11\r\n", b"unauthenticated multibulk length");
    closes(b"*1\r\n$16385\r\n", b"unauthenticated bulk length");
    assert_eq!(events(&[b"*10\r\n"], &limits), []);
    assert_eq!(events(&[b"*1\r\n$16384\r\n"], &limits), []);
}

#[test]
fn a_frame_above_the_limit_is_refused_and_swallowed() {
    let limits = RequestLimits {
        frame_len_max: 1000,
        ..LIMITS
    };
    let refusal = b"-ERR request is larger than request_size_limit\r\n".to_vec();
    let many = vec![&b"k"[..]; 200];
    for words in [
        &[&b"SET"[..], b"k", &[b'v'; 2000]][..],
        &[b"SET", b"k", &[b'v'; 900], &[b'v'; 100]],
        &[b"SET", &[b'v'; 990], b"", b"", b"x"],
        &many,
    ] {
        let large = frame(words);
        let mut bytes = large.clone();
        bytes.extend_from_slice(PING);
        let seen = events(&[&bytes], &limits);
        let [
            Event::Error(reply, Then::Continue),
            Event::Skipped(len),
            Event::Request(..),
        ] = seen.as_slice()
        else {
            panic!("{seen:?}");
        };
        assert_eq!(*reply, refusal);
        assert!(*len < large.len());
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events(&pieces, &limits), seen);
    }
    let fits = frame(&[b"SET", b"k", &[b'v'; 970]]);
    assert!(fits.len() <= 1000);
    assert!(matches!(
        events(&[&fits], &limits).as_slice(),
        [Event::Request(..)]
    ));
}

#[test]
fn a_refused_frame_is_never_buffered_and_still_checked() {
    let limits = RequestLimits {
        frame_len_max: 100,
        ..LIMITS
    };
    let mut parser = RequestParser::default();
    let head = b"*2\r\n$3\r\nGET\r\n$1000\r\n";
    let Parse::Invalid { len, .. } = parser.parse(head, &limits) else {
        panic!("refused");
    };
    assert_eq!(len, head.len());
    assert_eq!(
        parser.parse(&[b'x'; 999], &limits),
        Parse::Skip { len: 999 }
    );
    assert!(matches!(
        parser.parse(b"x\r", &limits),
        Parse::Skip { len: 1 }
    ));
    assert!(matches!(
        parser.parse(b"\rx", &limits),
        Parse::Invalid {
            then: Then::Close,
            ..
        }
    ));
}

#[test]
fn the_need_of_an_unfinished_frame_is_its_length_or_far_more_than_there_is() {
    let need = |bytes: &[u8]| match RequestParser::default().parse(bytes, &LIMITS) {
        Parse::Incomplete { need } => need,
        other => panic!("{bytes:?}: {other:?}"),
    };
    for unknown in [
        "",
        "*",
        "*2\r\n",
        "*2\r\n$3\r\n",
        "*3\r\n$3\r\nSET\r\n$10\r\nx",
        "GET",
    ] {
        assert_eq!(need(unknown.as_bytes()), 0, "{unknown:?}");
    }
    assert_eq!(need(b"*2\r\n$3\r\nGET\r\n$10\r\nx"), 18 + 12);
    assert_eq!(need(b"*2\r\n$3\r\nGET\r\n$100000\r\nx"), 22 + 100_002);
    assert_eq!(need(b"*3\r\n$3\r\nSET\r\n$100000\r\nx"), 22 + 100_002 + 6);
    assert_eq!(need(b"*100000\r\n"), 9 + 600_000);
}

#[test]
fn pieces_make_no_difference() {
    let mut pipeline = Vec::new();
    for words in [
        &[&b"GET"[..], b"key"][..],
        &[b"SET", b"key", &[b'v'; 120]],
        &[b"mget", b"a", b"", b"ccc"],
        &[b"nosuch", b"x\r\ny"],
        &[b"LPUSH", b"k", b"1", b"2", b"3", b"4", b"5"],
        &[b"GET"],
    ] {
        pipeline.extend_from_slice(&frame(words));
    }
    pipeline.extend_from_slice(b"*-1\r\n\r\nGET \"a b\"\r\n*0\r\nPING\n");
    let transcripts: [&[u8]; 6] = [
        &pipeline,
        b"*1\r\n$4\r\nPING\r\n*1\r\n$4\rXPING",
        b"*1\r\n+\r\n",
        b"*2\r\n$3\r\nGET\r\n$04\r\n",
        b"*01\r\n",
        b"\"unbalanced\r\n*3x\r\n",
    ];
    let small = RequestLimits {
        frame_len_max: 90,
        ..LIMITS
    };
    for transcript in transcripts {
        for limits in [&LIMITS, &small] {
            let expected = events(&[transcript], limits);
            assert!(!expected.is_empty());
            for middle in 0..=transcript.len() {
                let (a, b) = transcript.split_at(middle);
                assert_eq!(events(&[a, b], limits), expected, "split at {middle}");
            }
            let bytes: Vec<&[u8]> = transcript.chunks(1).collect();
            assert_eq!(events(&bytes, limits), expected, "byte by byte");
        }
    }
}

#[test]
fn bytes_are_looked_at_once() {
    // A line of 60 KB and a word of 1 MB, byte by byte: quadratic work would take minutes.
    let mut bytes = vec![b' '; 60_000];
    bytes.extend_from_slice(b"\n");
    bytes.extend_from_slice(&frame(&[b"SET", b"k", &vec![b'v'; 1 << 20]]));
    let mut parser = RequestParser::default();
    let mut start = 0;
    let mut complete = 0;
    for end in 1..=bytes.len() {
        match parser.parse(&bytes[start..end], &LIMITS) {
            Parse::Incomplete { .. } => {}
            Parse::Skip { len } => start += len,
            Parse::Complete(_) => complete += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((start, complete), (60_001, 1));
}

#[test]
fn keys_of_a_frame_come_from_that_frame() {
    // The parser keeps the places of earlier frames' words; they must not show.
    let mut bytes = frame(&[b"SET", b"first", b"x", b"y"]);
    let start = bytes.len();
    bytes.extend_from_slice(&frame(&[b"GET"]));
    bytes.extend_from_slice(&frame(&[b"EVAL", b"s"]));
    let events = whole(&bytes);
    assert!(matches!(
        events.as_slice(),
        [Event::Request(..), Event::Error(..), Event::Error(..)]
    ));
    assert_eq!(bytes[start], b'*');
}
