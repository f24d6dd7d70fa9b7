//! Whatever a peer sends, in whatever pieces: the redis parsers never panic, never take more than
//! they were given, and see the same thing.

use proptest::collection::vec;
use proptest::prelude::*;
use twemproxy_core::proto::redis::inline;
use twemproxy_core::proto::{
    Parse, Part, Protocol, Request, RequestLimits, RequestParser, ResponseParser, ResponseStep,
    Route, Then, parts,
};

/// The parser's verdict; lengths of skipped bytes add up, as their cuts depend on the pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Request(Request, Vec<u8>),
    Inline(Vec<u8>),
    Skipped(usize),
    Error(Vec<u8>, Then),
}

fn requests(bytes: &[u8], cuts: &[usize], limits: &RequestLimits) -> Vec<Seen> {
    let mut parser = RequestParser::new(Protocol::Redis);
    let mut seen = Vec::new();
    let mut start = 0;
    for end in ends(bytes, cuts) {
        loop {
            let given = &bytes[start..end];
            let len = match parser.parse(given, limits) {
                Parse::Incomplete { need } => {
                    assert!(need == 0 || need > given.len());
                    break;
                }
                Parse::Complete(request) => {
                    let frame = &given[..size(request.len)];
                    check_parts(frame, &request);
                    seen.push(Seen::Request(request, frame.to_vec()));
                    frame.len()
                }
                Parse::Inline { len } => {
                    seen.push(Seen::Inline(given[..len].to_vec()));
                    check_inline(&given[..len]);
                    len
                }
                Parse::Skip { len } => {
                    assert!(len > 0);
                    match seen.last_mut() {
                        Some(Seen::Skipped(sum)) => *sum += len,
                        _ => seen.push(Seen::Skipped(len)),
                    }
                    len
                }
                Parse::Invalid { invalid, len, then } => {
                    let mut reply = Vec::new();
                    invalid.write(&given[..len], &mut reply);
                    assert!(reply.is_empty() || reply.ends_with(b"\r\n"));
                    // How much was dropped before an error that closes depends on the pieces.
                    if then == Then::Close && matches!(seen.last(), Some(Seen::Skipped(_))) {
                        seen.pop();
                    }
                    seen.push(Seen::Error(reply, then));
                    if then == Then::Close {
                        return seen;
                    }
                    len
                }
            };
            assert!(len <= given.len());
            start += len;
        }
    }
    seen
}

fn size(n: u32) -> usize {
    usize::try_from(n).expect("usize has at least 32 bits")
}

/// A request that is split has at least two keys, within the frame; one that is looked at for other reasons has one.
fn check_parts(frame: &[u8], request: &Request) {
    let mut found: Vec<Part> = Vec::new();
    match request.route {
        Route::Key(key) => {
            let _ = key.of(frame);
        }
        Route::Keys(merge) => {
            parts(Protocol::Redis, frame, request, &mut found);
            let least = if merge.is_some() { 2 } else { 1 };
            assert!(found.len() >= least, "{request:?}");
            for part in &found {
                assert!(part.raw.of(frame).len() >= part.key.of(frame).len() + 5);
            }
        }
        _ => {}
    }
}

/// A rewritten line is one whole request, or refused.
fn check_inline(line: &[u8]) {
    let limits = RequestLimits {
        frame_len_max: u32::MAX,
        unauthenticated: false,
        allow_flush: false,
    };
    let mut frame = Vec::new();
    if inline::to_array(line, &mut frame).is_ok() {
        match RequestParser::new(Protocol::Redis).parse(&frame, &limits) {
            Parse::Complete(request) => {
                assert_eq!(size(request.len), frame.len())
            }
            Parse::Invalid { len, .. } => assert_eq!(len, frame.len()),
            other => panic!("{line:?}: {other:?}"),
        }
    } else {
        assert!(frame.is_empty());
    }
}

fn responses(bytes: &[u8], cuts: &[usize]) -> (Vec<usize>, bool) {
    let mut parser = ResponseParser::new(Protocol::Redis);
    let mut done = Vec::new();
    let mut start = 0;
    for end in ends(bytes, cuts) {
        loop {
            let given = &bytes[start..end];
            match parser.step(given) {
                ResponseStep::Done(len) => {
                    assert!(0 < len && len <= given.len());
                    start += len;
                    done.push(start);
                }
                ResponseStep::More(len) => {
                    assert!(len <= given.len());
                    start += len;
                    break;
                }
                ResponseStep::Invalid => return (done, false),
            }
        }
    }
    (done, true)
}

fn ends(bytes: &[u8], cuts: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    ends
}

/// Bytes that look like the protocol more often than chance would have it.
fn protocol_like() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => Just(b"\r\n".to_vec()),
        2 => (0_u32..7).prop_map(|n| format!("*{n}\r\n").into_bytes()),
        2 => (0_u32..200).prop_map(|n| format!("${n}\r\n").into_bytes()),
        3 => "[+:*$-][-0-9]{0,3}".prop_map(String::into_bytes),
        6 => words(),
        2 => "(GET|mset|XREAD|eval|ping|'|\"|\\\\x4|OBJECT) ?[ a-c0-2]{0,6}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..40),
    ];
    vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

/// A whole array of words, commands and their options among them.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "GET",
        "set",
        "MGET",
        "del",
        "MSET",
        "msetnx",
        "EVAL",
        "ZUNIONSTORE",
        "LMPOP",
        "SORT",
        "GEORADIUS",
        "XREAD",
        "XREADGROUP",
        "MIGRATE",
        "OBJECT",
        "client",
        "BITOP",
        "RENAME",
        "MSETEX",
        "KEYS",
        "nosuch",
        "PING",
    ]);
    let word = prop_oneof![
        "[a-c]{0,2}",
        "[0-3]",
        prop::sample::select(vec![
            "STORE",
            "STREAMS",
            "COUNT",
            "GROUP",
            "BLOCK",
            "KEYS",
            "AUTH2",
            "LIMIT",
            "by",
            "-1",
            "99999999999",
            "4294967295",
            "encoding",
            "SETNAME",
        ])
        .prop_map(str::to_owned),
    ];
    (name, vec(word, 0..9)).prop_map(|(name, words)| {
        let mut frame = format!("*{}\r\n${}\r\n{name}\r\n", words.len() + 1, name.len());
        for word in words {
            frame.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        frame.into_bytes()
    })
}

proptest! {
    #[test]
    fn requests_are_the_same_in_any_pieces(
        bytes in protocol_like(),
        cuts in vec(any::<usize>(), 0..8),
        frame_len_max in prop_oneof![Just(1_u32 << 30), 8_u32..200],
        unauthenticated in any::<bool>(),
    ) {
        let limits = RequestLimits { frame_len_max, unauthenticated, allow_flush: false };
        let whole = requests(&bytes, &[], &limits);
        prop_assert_eq!(&requests(&bytes, &cuts, &limits), &whole);
        let every: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&requests(&bytes, &every, &limits), &whole);
    }

    #[test]
    fn responses_are_the_same_in_any_pieces(
        bytes in protocol_like(),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let whole = responses(&bytes, &[]);
        prop_assert_eq!(&responses(&bytes, &cuts), &whole);
        let every: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&responses(&bytes, &every), &whole);
    }
}
