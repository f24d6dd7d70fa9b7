//! Every line of a small grammar, asked of each memcached that the environment names: what we forward
//! gets as many answers as we expect, and its data block is data. This holds whatever the version, and
//! keeps the answers of one client from another.
//!
//! The lines are those that up to six words of a small alphabet make behind each command of the table,
//! with blanks before, between and behind them and with both line ends.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with a real server waits for it, and fails by panicking"
)]

#[path = "support/memcached.rs"]
mod memcached;

use std::io::{Read, Write};

use memcached::{Server, VERSION, start_all};
use twemproxy_core::proto::memcache::commands::{COMMANDS, Shape};
use twemproxy_core::proto::{
    Parse, Protocol, Request, RequestLimits, RequestParser, ResponseParser, ResponseStep, Route,
    compose, fragment_end, fragment_head, part_end, parts,
};

const LIMITS: RequestLimits = RequestLimits {
    frame_len_max: 1 << 20,
    unauthenticated: false,
    allow_flush: true,
};

/// A request as it goes to a server.
struct Forwarded {
    /// The client's bytes.
    line: String,
    bytes: Vec<u8>,
    is_answered: bool,
}

/// The bytes sent to a server for `input`, if any.
fn forwarded(input: &[u8]) -> Option<Forwarded> {
    let mut parser = RequestParser::new(Protocol::Memcache);
    let mut rest = input;
    let (frame, request) = loop {
        match parser.parse(rest, &LIMITS) {
            Parse::Complete(request) => {
                let len = usize::try_from(request.len).unwrap();
                break (rest[..len].to_vec(), request);
            }
            Parse::Inline { len } => {
                let mut line = Vec::new();
                compose(Protocol::Memcache, &rest[..len], &mut line).unwrap();
                let parse = RequestParser::new(Protocol::Memcache).parse(&line, &LIMITS);
                let Parse::Complete(request) = parse else {
                    panic!("{parse:?} of a composed line");
                };
                break (line, request);
            }
            // Only what stands in front of the line, or in the place of the refused one.
            Parse::Skip { len } if rest[..len].iter().all(|&byte| byte == b' ') => {
                rest = &rest[len..];
            }
            _ => return None,
        }
    };
    if request.route == Route::Local {
        return None;
    }
    Some(Forwarded {
        line: String::from_utf8_lossy(input).into_owned(),
        bytes: sent(&frame, &request),
        is_answered: !request.noreply,
    })
}

/// A request of several keys goes in fragments; all keys have one server here.
fn sent(frame: &[u8], request: &Request) -> Vec<u8> {
    if !matches!(request.route, Route::Keys(_)) {
        return frame.to_vec();
    }
    let protocol = Protocol::Memcache;
    let (mut keys, mut out) = (Vec::new(), Vec::new());
    parts(protocol, frame, request, &mut keys);
    fragment_head(
        protocol,
        frame,
        request,
        keys.len().try_into().unwrap(),
        &mut out,
    );
    for key in keys {
        out.extend_from_slice(key.raw.of(frame));
        out.extend_from_slice(part_end(protocol));
    }
    out.extend_from_slice(fragment_end(protocol));
    out
}

/// Whether the server answers each request as often as expected. Behind each stands a `version`, the
/// answer to which no data and no other command brings.
fn agrees(server: &Server, requests: &[Forwarded]) -> Result<(), String> {
    let mut input = Vec::new();
    for request in requests {
        input.extend_from_slice(&request.bytes);
        input.extend_from_slice(VERSION);
    }
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        // An error shows in what is read.
        drop(writer.write_all(&input));
        drop(writer.shutdown(std::net::Shutdown::Write));
    });
    let mut answers = Vec::new();
    let read = stream.read_to_end(&mut answers);
    writing.join().unwrap();
    read.map_err(|error| error.to_string())?;
    let mut rest = answers.as_slice();
    for request in requests {
        if request.is_answered {
            rest = &rest[response_len(rest).ok_or("no answer")?..];
        }
        let behind = rest.strip_prefix(server.version.as_slice());
        rest = behind.ok_or_else(|| format!("{:?}", String::from_utf8_lossy(rest)))?;
    }
    rest.is_empty()
        .then_some(())
        .ok_or_else(|| "more answers".to_owned())
}

fn response_len(bytes: &[u8]) -> Option<usize> {
    match ResponseParser::new(Protocol::Memcache).step(bytes) {
        ResponseStep::Done(len) => Some(len),
        _ => None,
    }
}

/// Asks many at once, and each alone if that does not go as expected.
fn check(servers: &[Server], requests: &[Forwarded]) {
    for server in servers {
        for some in requests.chunks(2_000) {
            if agrees(server, some).is_ok() {
                continue;
            }
            for one in some {
                if let Err(why) = agrees(server, std::slice::from_ref(one)) {
                    panic!(
                        "{:?}, sent as {:?}, to {}: {why}",
                        one.line,
                        String::from_utf8_lossy(&one.bytes),
                        String::from_utf8_lossy(&server.version),
                    );
                }
            }
        }
    }
}

/// Every sequence of at most `len_max` of `words`.
fn sequences<'a>(words: &[&'a str], len_max: usize) -> Vec<Vec<&'a str>> {
    let mut all = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..len_max {
        let until = all.len();
        for index in from..until {
            for word in words {
                let mut longer = all[index].clone();
                longer.push(*word);
                all.push(longer);
            }
        }
        from = until;
    }
    all
}

/// A line of a command and words, with blanks and line ends of all kinds, and a data block behind it that
/// would be answered if it were read as a line.
fn spellings(name: &str, words: &[&str], block: &str) -> Vec<String> {
    let line = [&[name], words].concat();
    let (plain, wide) = (line.join(" "), line.join("   "));
    vec![
        format!("{plain}\r\n{block}"),
        format!("{plain}\n{block}"),
        format!(" {plain}\r\n{block}"),
        format!("{plain} \r\n{block}"),
        format!("  {wide}  \n{block}"),
    ]
}

/// The block that a storage line of these words announces, if it is a small one.
fn block(shape: Shape, words: &[&str]) -> &'static str {
    let at = match shape {
        Shape::Store | Shape::Cas => 3,
        Shape::RefusedWithBlock => 1,
        _ => return "",
    };
    match words.get(at).and_then(|word| word.parse().ok()) {
        Some(0_u64) => "\r\n",
        Some(1) => "x\r\n",
        Some(3) => "get\r\n",
        _ => "",
    }
}

#[test]
fn every_short_line_is_answered_as_often_as_we_expect_by_every_memcached() {
    let servers = start_all();
    let mut requests = Vec::new();
    let mut seen = 0_usize;
    for command in COMMANDS {
        let (alphabet, len_max): (&[&str], usize) = match command.shape {
            Shape::Store | Shape::Cas => (&["k", "noreply", "0", "3"], 6),
            _ => (&["k", "noreply", "0", "1", "-1", "HTTP/1.0"], 4),
        };
        for words in sequences(alphabet, len_max) {
            let block = block(command.shape, &words);
            for line in spellings(command.name, &words, block) {
                seen += 1;
                requests.extend(forwarded(line.as_bytes()));
            }
        }
    }
    println!("{} of {seen} lines are forwarded", requests.len());
    assert!(requests.len() > 10_000, "{}", requests.len());
    check(&servers, &requests);
}

const NUMBERS: [&str; 34] = [
    "0",
    "1",
    "3",
    "007",
    "0000000003",
    "00000000003",
    "000000000000000003",
    "0000000000000000000003",
    "00000000000000000000000003",
    "-",
    "-0",
    "-1",
    "--1",
    "+",
    "+0",
    "+5",
    "-+5",
    "0x10",
    "1e3",
    "3.0",
    "x",
    "2147483645",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "5000000000",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-99999999999999999999",
];

#[test]
fn every_number_we_forward_is_one_to_every_memcached() {
    let servers = start_all();
    let mut requests = Vec::new();
    for number in NUMBERS {
        for noreply in ["", " noreply"] {
            for line in [
                format!("set k {number} 0 3{noreply}\r\nget\r\n"),
                format!("set k 0 {number} 3{noreply}\r\nget\r\n"),
                format!("add k 0 0 {number}{noreply}\r\nget\r\n"),
                format!("append k {number} {number} 3{noreply}\r\nget\r\n"),
                format!("cas k 0 {number} 3 1{noreply}\r\nget\r\n"),
                format!("cas k 0 0 3 {number}{noreply}\r\nget\r\n"),
                format!("incr n {number}{noreply}\r\n"),
                format!("decr n {number}{noreply}\r\n"),
                format!("touch k {number}{noreply}\r\n"),
                format!("gat {number} k\r\n"),
                format!("gats {number} k k\r\n"),
                format!("delete k {number}{noreply}\r\n"),
                format!("verbosity {number}{noreply}\r\n"),
                format!("flush_all {number}{noreply}\r\n"),
            ] {
                requests.extend(forwarded(line.as_bytes()));
            }
        }
    }
    assert!(requests.len() > 100, "{}", requests.len());
    check(&servers, &requests);
}

/// A key holds the same here and on a server.
#[test]
fn every_byte_that_we_let_into_a_key_is_in_the_key_of_every_memcached() {
    let servers = start_all();
    let mut bytes = Vec::new();
    for byte in 0..=u8::MAX {
        for key in [&[b'a', byte, b'b'][..], &[byte, b'b'], &[b'a', byte]] {
            let set = [b"set ", key, b" 0 0 3\r\nget\r\n"].concat();
            let get = [b"get ", key, b"\r\n"].concat();
            let several = [b"gets none ", key, b" ", key, b"\r\n"].concat();
            let forwarded = [set, get, several].map(|input| forwarded(&input));
            // A blank makes two words of it, or ends it.
            let is_key = !matches!(byte, 0 | b'\n' | b'\r' | b' ');
            let is_binary = byte == 0x80;
            assert!(!is_key || forwarded.iter().all(Option::is_some), "{byte}");
            assert!(is_key || matches!(byte, b' ' | b'\r' | b'\n') || forwarded[1].is_none());
            if !is_key || is_binary {
                continue;
            }
            bytes.push(byte);
            for server in &servers {
                let [set, get, _] = &forwarded;
                let input = [
                    &set.as_ref().unwrap().bytes[..],
                    &get.as_ref().unwrap().bytes,
                ];
                let expected = [b"STORED\r\nVALUE ", key, b" 0 3\r\nget\r\nEND\r\n"].concat();
                assert_eq!(server.answer(&input.concat()), expected, "{byte}");
            }
            let requests: Vec<_> = forwarded.into_iter().flatten().collect();
            check(&servers, &requests);
        }
    }
    assert!(bytes.len() > 700, "{}", bytes.len());
}

/// A connection may bring a line in pieces of any size.
// D44
#[test]
fn the_longest_lines_we_forward_may_come_in_pieces() {
    let servers = start_all();
    let key = "k".repeat(250);
    let blanks = " ".repeat(1_700);
    for line in [
        format!("get{blanks}{key}\r\n"),
        format!("gat{blanks}0 {key}\r\n"),
        format!("gats 0{blanks} {key} \n"),
        format!("touch{blanks}{key} 0\r\n"),
        format!("delete {key}{blanks}\r\n"),
        format!("incr n{blanks}1\r\n"),
        format!("incr n 1 {}\r\n", "x".repeat(1_500)),
        format!("set {key} 0 0 3 {}\r\nget\r\n", "x".repeat(740)),
        format!("set {key}{}0 0 3\r\nget\r\n", &blanks[..740]),
    ] {
        let request = forwarded(line.as_bytes()).unwrap();
        for server in &servers {
            let mut stream = server.connect();
            stream.write_all(VERSION).unwrap();
            let mut answer = vec![0; server.version.len()];
            stream.read_exact(&mut answer).unwrap();
            // The server has read the first part when it has answered another connection.
            let (first, rest) = request.bytes.split_at(request.bytes.len() - 9);
            stream.write_all(first).unwrap();
            server.answer(VERSION);
            stream.write_all(rest).unwrap();
            stream.write_all(VERSION).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).unwrap();
            let rest = &answers[response_len(&answers).unwrap_or(0)..];
            assert_eq!(rest, server.version, "{line}");
        }
    }
    let too_long = format!("set {key}{blanks} 0 0 3\r\nget\r\n");
    assert!(forwarded(too_long.as_bytes()).is_none());
}
