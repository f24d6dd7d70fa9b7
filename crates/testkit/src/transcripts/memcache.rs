//! Memcached. The words of refusals were taken from memcached 1.6.18.

use super::{Requests, Responses, boundary_sizes, filler, refusal, request};
use crate::feed::ResponseEnd;

/// Transcripts of clients.
#[must_use]
pub fn requests() -> Vec<Requests> {
    let mut all = retrieval();
    all.extend(storage());
    all.extend(other());
    all.extend(refused());
    all.extend(unfinished());
    all.push(pipelined());
    for size in boundary_sizes() {
        all.push(Requests::one(
            &format!("a value of {size} bytes"),
            &set(b"key", &filler(size)),
            &[b"key"],
        ));
    }
    all
}

/// A `set` of `value`.
#[must_use]
pub fn set(key: &[u8], value: &[u8]) -> Vec<u8> {
    let head = format!(" 0 0 {}\r\n", value.len());
    [b"set ", key, head.as_bytes(), value, b"\r\n"].concat()
}

/// A request of which the blanks in front are no part.
fn behind_blanks(name: &str, bytes: &[u8], keys: &[&[u8]]) -> Requests {
    let blanks = bytes.iter().take_while(|byte| **byte == b' ').count();
    Requests::new(name, bytes, vec![request(bytes.len() - blanks, keys)])
}

fn retrieval() -> Vec<Requests> {
    let one = Requests::one;
    let long_key = [b'k'; 250];
    let keys: Vec<Vec<u8>> = (0..500).map(|i| format!("key-{i}").into_bytes()).collect();
    let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let many = [b"get ".as_slice(), &keys.join(&b' '), b"\r\n"].concat();
    vec![
        one("a get", b"get a\r\n", &[b"a"]),
        one("a get with a bare LF", b"get a\n", &[b"a"]),
        one("a gets", b"gets a\r\n", &[b"a"]),
        one("a get of three", b"get a b a\r\n", &[b"a", b"b", b"a"]),
        behind_blanks(
            "a get with blanks all over",
            b"  get  a   b  \r\n",
            &[b"a", b"b"],
        ),
        one("a get of noreply", b"get noreply\r\n", &[b"noreply"]),
        one(
            "a get of high bytes",
            b"get \xff\x80\xfe\r\n",
            &[b"\xff\x80\xfe"],
        ),
        one("a gat", b"gat 0 a\r\n", &[b"a"]),
        one("a gats of two", b"gats -1 a b\r\n", &[b"a", b"b"]),
        one(
            "the longest key",
            &[b"get ".as_slice(), &long_key, b"\r\n"].concat(),
            &[&long_key],
        ),
        one("a get of 500 keys", &many, &borrowed),
    ]
}

fn storage() -> Vec<Requests> {
    let one = |name: &str, bytes: &[u8]| Requests::one(name, bytes, &[b"k"]);
    vec![
        one("a set", b"set k 0 0 3\r\nabc\r\n"),
        one("an empty value", b"set k 0 0 0\r\n\r\n"),
        one("a value of line ends", b"set k 0 0 4\r\n\r\n\r\n\r\n"),
        one(
            "a value that looks like a request",
            b"set k 0 0 7\r\nget a\r\n\r\n",
        ),
        one("large flags", b"set k 4294967295 0 1\r\nx\r\n"),
        one("a negative exptime", b"set k 0 -1 1\r\nx\r\n"),
        one("an add", b"add k 0 0 1\r\nx\r\n"),
        one("a replace", b"replace k 0 0 1\r\nx\r\n"),
        one("an append", b"append k 0 0 1\r\nx\r\n"),
        one("a prepend", b"prepend k 0 0 1\r\nx\r\n"),
        one("a cas", b"cas k 0 0 1 18446744073709551615\r\nx\r\n"),
        one("a set without reply", b"set k 0 0 1 noreply\r\nx\r\n"),
        one("a cas without reply", b"cas k 0 0 1 7 noreply\r\nx\r\n"),
        behind_blanks(
            "blanks around a set",
            b" set  k  0  0  1  \r\nx\r\n",
            &[b"k"],
        ),
        one("a set with a bare LF", b"set k 0 0 1\nx\r\n"),
    ]
}

fn other() -> Vec<Requests> {
    let one = Requests::one;
    vec![
        one("a delete", b"delete k\r\n", &[b"k"]),
        one("a delete without reply", b"delete k noreply\r\n", &[b"k"]),
        one("an incr", b"incr k 1\r\n", &[b"k"]),
        one(
            "a decr without reply",
            b"decr k 18446744073709551615 noreply\r\n",
            &[b"k"],
        ),
        one("a touch", b"touch k -1\r\n", &[b"k"]),
        one("a touch without reply", b"touch k 0 noreply\r\n", &[b"k"]),
        one("a version", b"version\r\n", &[]),
        one("a verbosity", b"verbosity 1\r\n", &[]),
        one("a flush_all", b"flush_all\r\n", &[]),
        one("a quit", b"quit\r\n", &[]),
    ]
}

fn refused() -> Vec<Requests> {
    const ERROR: &str = "ERROR\r\n";
    const FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
    let case = |bytes: &[u8], reply: &str| {
        let name = format!("refused: {}", bytes.escape_ascii());
        let bytes = [bytes, b"version\r\n"].concat();
        let meaning = vec![refusal(reply, false), request(9, &[])];
        Requests::new(&name, &bytes, meaning)
    };
    let long_key = [b'k'; 251];
    let with_long_key = |before: &[u8], after: &[u8]| [before, &long_key, after].concat();
    vec![
        case(b"foo\r\n", ERROR),
        case(b"\r\n", ERROR),
        case(b"\n", ERROR),
        case(b"get\r\n", ERROR),
        case(b"get \r\n", ERROR),
        case(b"gets\r\n", ERROR),
        case(b"gat\r\n", ERROR),
        case(b"GET a\r\n", ERROR),
        case(b"incr k\r\n", ERROR),
        case(b"delete\r\n", ERROR),
        case(b"touch k\r\n", ERROR),
        case(b"noreply\r\n", ERROR),
        case(b"verbosity\r\n", ERROR),
        case(b"gat x k\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        case(&with_long_key(b"get ", b"\r\n"), FORMAT),
        case(&with_long_key(b"get a ", b"\r\n"), FORMAT),
        case(&with_long_key(b"get ", b" a\r\n"), FORMAT),
        case(&with_long_key(b"delete ", b"\r\n"), FORMAT),
        case(&with_long_key(b"incr ", b" 1\r\n"), FORMAT),
        case(&with_long_key(b"touch ", b" 0\r\n"), FORMAT),
        // memcached itself would read the data block as a command.
        case(&with_long_key(b"set ", b" 0 0 5\r\nquit\n\r\n"), FORMAT),
        case(b"get a\0b\r\n", FORMAT),
        case(b"get a\rb\r\n", FORMAT),
        case(b"delete noreply\r\n", FORMAT),
        case(b"set k 0 0 -1\r\n", FORMAT),
        case(b"set k 0 0 abc\r\n", FORMAT),
        case(b"set k x 0 3\r\nabc\r\n", FORMAT),
    ]
}

fn pipelined() -> Requests {
    let bytes = b"get a\r\nset k 0 0 1 noreply\r\nx\r\nfoo\r\ngets a b\r\nquit\r\n";
    let meaning = vec![
        request(7, &[b"a"]),
        request(24, &[b"k"]),
        refusal("ERROR\r\n", false),
        request(10, &[b"a", b"b"]),
        request(6, &[]),
    ];
    Requests::new("a mixed pipeline", bytes, meaning)
}

fn unfinished() -> Vec<Requests> {
    [
        &b"g"[..],
        b"get a",
        b"get a\r",
        b"set k 0 0 5\r\n",
        b"set k 0 0 5\r\nabcde",
        b"set k 0 0 5\r\nabcde\r",
        b"set k 0 0 2000000\r\nabcde\r\n",
    ]
    .iter()
    .map(|bytes| Requests::unfinished(&format!("unfinished: {}", bytes.escape_ascii()), bytes))
    .collect()
}

/// Transcripts of servers.
#[must_use]
pub fn responses() -> Vec<Responses> {
    let one = Responses::one;
    let mut all: Vec<Responses> = [
        &b"STORED\r\n"[..],
        b"NOT_STORED\r\n",
        b"EXISTS\r\n",
        b"NOT_FOUND\r\n",
        b"DELETED\r\n",
        b"TOUCHED\r\n",
        b"OK\r\n",
        b"ERROR\r\n",
        b"CLIENT_ERROR bad data chunk\r\n",
        b"SERVER_ERROR object too large for cache\r\n",
        b"VERSION 1.6.18\r\n",
        b"18446744073709551615\r\n",
        b"0\r\n",
        b"END\r\n",
        b"VALUE a 0 0\r\n\r\nEND\r\n",
        b"VALUE a 0 5\r\nEND\r\n\r\nEND\r\n",
        b"VALUE a 4294967295 1 77\r\nx\r\nVALUE b 0 2 78\r\n\r\n\r\nEND\r\n",
    ]
    .iter()
    .map(|bytes| one(&bytes.escape_ascii().to_string(), bytes))
    .collect();
    all.push(Responses::new(
        "one after the other",
        b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n12\r\nEND\r\n",
        &[8, 21, 4, 5],
        ResponseEnd::Clean,
    ));
    for bytes in [
        &b"VALUE a 0 5\r\nab"[..],
        b"VALUE a 0 1\r\nx\r\n",
        b"STO",
        b"END\r",
        b"12",
    ] {
        let name = format!("unfinished: {}", bytes.escape_ascii());
        all.push(Responses::new(&name, bytes, &[], ResponseEnd::Unfinished));
    }
    for bytes in [
        &b"hello\r\n"[..],
        b"\r\n",
        b"VALUE a\r\n",
        b"VALUE a 0 x\r\n",
        b"VALUE a 0 -1\r\n",
        b"VALUE a 0 1\r\nxyz\r\nEND\r\n",
        b"-1\r\n",
    ] {
        let name = format!("no response: {}", bytes.escape_ascii());
        all.push(Responses::new(&name, bytes, &[], ResponseEnd::Invalid));
    }
    for size in boundary_sizes() {
        let head = format!("VALUE k 0 {size}\r\n");
        let bytes = [head.as_bytes(), &filler(size), b"\r\nEND\r\n"].concat();
        all.push(one(&format!("a value of {size} bytes"), &bytes));
    }
    all
}
