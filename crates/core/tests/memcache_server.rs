//! The parser's decisions and its own words, held against a real memcached whose words it
//! speaks. `memcache_grammar.rs` asks every version, of more lines, for less.
//!
//! For every line the server is asked too, on a connection of its own, with a `version` behind it
//! that shows where the server took the request to end.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with a real server waits for it, and fails by panicking"
)]

#[path = "support/memcached.rs"]
mod memcached;

use memcached::{Server, VERSION, start_all};
use twemproxy_core::proto::{
    Parse, Protocol, RequestLimits, RequestParser, ResponseParser, ResponseStep, Then, compose,
};

const LIMITS: RequestLimits = RequestLimits {
    frame_len_max: 1 << 20,
    unauthenticated: false,
    allow_flush: true,
};

/// The first server that words its errors as 1.6.18 does; 1.6.40 and later say some of them otherwise.
fn start() -> Option<Server> {
    let is_like = |server: &Server| {
        let text = String::from_utf8_lossy(&server.version).into_owned();
        let number = text.trim_end().rsplit_once('.').map(|(_, number)| number);
        number.and_then(|number| number.parse().ok()) < Some(40_u32)
    };
    let found = start_all().into_iter().find(is_like);
    if found.is_none() {
        println!("skipped: no memcached before 1.6.40 among the servers");
    }
    found
}

/// Lines that we refuse although memcached 1.6.18 takes them: what versions read differently.
fn is_stricter(line: &str) -> bool {
    let words: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let is_storage = matches!(words[..], ["set" | "add" | "cas" | "append", ..]);
    // Numbers that only C calls numbers, or beyond 32 bits.
    let numbers = [
        "+5",
        "-0",
        "4294967295",
        "4294967296",
        "2147483648",
        "-2147483649",
        "18446744073709551615",
    ];
    // The expiry time of a storage command is read as memcached reads it.
    let read_alike = if is_storage { 3 } else { words.len() };
    let mut others = (0..).zip(&words).filter(|(at, _)| *at != read_alike);
    others.any(|(_, word)| numbers.contains(word))
        || words == ["delete", "noreply"]
        || (words.len() == 2 && matches!(words[0], "gat" | "gats"))
}

/// Lines whose words are drawn from what each place may hold, good and bad.
fn lines() -> Vec<String> {
    let long = "k".repeat(251);
    let longest = "k".repeat(250);
    let keys = [
        "k", "none", "noreply", "", &long, &longest, "a\tb", "a\u{1}", "h\u{e9}",
    ];
    let numbers = [
        "0",
        "1",
        "007",
        "-1",
        "-0",
        "+5",
        "x",
        "1x",
        "-",
        "",
        "noreply",
        "4294967295",
        "4294967296",
        "2147483647",
        "2147483648",
        "-2147483648",
        "-2147483649",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999",
    ];
    let tails = [
        "",
        " ",
        " noreply",
        " noreply ",
        " other",
        " 0",
        " 0 noreply",
        " a b c d e f",
    ];
    let mut lines: Vec<String> = [
        "",
        " ",
        "a",
        "bogus",
        "SET k 0 0 3",
        "get\tk",
        "bogus HTTP/1.0 x",
    ]
    .map(String::from)
    .to_vec();
    for key in keys {
        for name in ["set", "add", "cas", "append"] {
            lines.push(format!("{name} {key} 0 0 3"));
            lines.push(format!("{name} {key} 0 0 3 7"));
            lines.push(format!("{name} {key} 0 0 3 7 noreply"));
        }
        for tail in tails {
            for name in [
                "get", "gets", "gat", "gat 0", "gats -1", "gat x", "delete", "incr", "touch",
            ] {
                lines.push(format!("{name} {key}{tail}"));
            }
        }
    }
    for number in numbers {
        for line in [
            format!("set k {number} 0 3"),
            format!("set k 0 {number} 3"),
            format!("cas k 0 0 3 {number}"),
            format!("incr n {number}"),
            format!("decr n {number}"),
            format!("touch k {number}"),
            format!("gat {number} k"),
            format!("verbosity {number}"),
            format!("flush_all {number}"),
            format!("delete k {number}"),
        ] {
            lines.extend(tails.map(|tail| format!("{line}{tail}")));
        }
    }
    for name in [
        "version",
        "verbosity",
        "flush_all",
        "get",
        "set k 0 0",
        "  set  k  0  0  3",
    ] {
        lines.extend(tails.map(|tail| format!("{name}{tail}")));
    }
    lines
}

/// The number of responses in `bytes`, all of them whole.
fn responses(mut bytes: &[u8]) -> usize {
    let mut parser = ResponseParser::new(Protocol::Memcache);
    let mut count = 0;
    while !bytes.is_empty() {
        let ResponseStep::Done(len) = parser.step(bytes) else {
            panic!("not a response: {}", String::from_utf8_lossy(bytes));
        };
        bytes = &bytes[len..];
        count += 1;
    }
    count
}

/// The verdict on the front of `input`, or on what is composed of it.
fn parse(input: &[u8]) -> Parse {
    let mut parser = RequestParser::new(Protocol::Memcache);
    let parse = parser.parse(input, &LIMITS);
    match parse {
        Parse::Complete(request) => {
            assert_eq!(usize::try_from(request.len).unwrap(), input.len());
        }
        Parse::Inline { len } => {
            assert_eq!(len, input.len());
            let mut line = Vec::new();
            compose(Protocol::Memcache, input, &mut line).unwrap();
            return RequestParser::new(Protocol::Memcache).parse(&line, &LIMITS);
        }
        _ => {}
    }
    parse
}

#[test]
fn lines_mean_what_they_mean_to_memcached() {
    let Some(server) = start() else {
        return;
    };
    let version = server.answer(VERSION);
    let (mut forwarded, mut refused) = (0, 0);
    for line in lines() {
        let is_storage = ["set", "add", "cas", "append"]
            .iter()
            .any(|name| line.trim_start().starts_with(name));
        for end in ["\r\n", "\n"] {
            let block = if is_storage { "abc\r\n" } else { "" };
            let input = format!("{line}{end}{block}");
            let input = input.as_bytes();
            let theirs = server.answer(&[input, VERSION].concat());
            let theirs = theirs.strip_suffix(&version[..]);
            let blanks = input.iter().take_while(|byte| **byte == b' ').count();
            let (len, reply) = match parse(&input[blanks..]) {
                Parse::Complete(request) => {
                    let theirs = theirs.expect("a request that is sent ends where it ends");
                    let count = if request.noreply { 0 } else { 1 };
                    assert_eq!(responses(theirs), count, "{line:?}");
                    assert!(!theirs.starts_with(b"ERROR"), "{line:?}");
                    let ours = !request.noreply && theirs.starts_with(b"CLIENT_ERROR");
                    let is_value = theirs.ends_with(b"non-numeric value\r\n");
                    assert!(!ours || is_value, "{line:?} could have been refused");
                    forwarded += 1;
                    continue;
                }
                Parse::Invalid { invalid, len, then } => {
                    assert_eq!(then, Then::Continue, "{line:?}");
                    let mut reply = Vec::new();
                    invalid.write(&input[blanks..blanks + len], &mut reply);
                    (blanks + len, reply)
                }
                Parse::Skip { len } => (blanks + len, Vec::new()),
                // The line announces more than the block that stands behind it.
                Parse::Incomplete { .. } => continue,
                other => panic!("{line:?}: {other:?}"),
            };
            assert!(len >= line.len() + end.len(), "{line:?}");
            refused += 1;
            // memcached may read the block as a further command.
            let theirs = theirs.expect("memcached reads on at the next line");
            let theirs = theirs
                .strip_suffix(b"ERROR\r\n")
                .filter(|_| is_storage)
                .unwrap_or(theirs);
            if !is_stricter(&line) {
                assert_eq!(
                    String::from_utf8_lossy(&reply),
                    String::from_utf8_lossy(theirs),
                    "{line:?}"
                );
            }
        }
    }
    assert!(forwarded > 500 && refused > 500, "{forwarded} {refused}");
}
