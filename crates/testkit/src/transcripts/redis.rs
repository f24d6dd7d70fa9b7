//! Redis. The words of refusals were taken from redis 7.0.15.

use super::{Meaning, Requests, Responses, boundary_sizes, filler, refusal, request};
use crate::feed::ResponseEnd;
use crate::model::redis::{array_of, bulk};

/// Transcripts of clients.
#[must_use]
pub fn requests() -> Vec<Requests> {
    let mut all = valid();
    all.extend(inline());
    all.extend(pipelined());
    all.extend(refused());
    all.extend(broken());
    all.extend(unfinished());
    for size in boundary_sizes() {
        let value = array_of(&[b"SET".to_vec(), b"key".to_vec(), filler(size)]);
        all.push(Requests::one(
            &format!("a value of {size} bytes"),
            &value,
            &[b"key"],
        ));
        let frame_len = size;
        let overhead = array_of(&[b"GET".to_vec(), filler(size)]).len() - size;
        let key = filler(frame_len - overhead);
        let frame = array_of(&[b"GET".to_vec(), key.clone()]);
        all.push(Requests::one(
            &format!("a frame of about {size} bytes, all key"),
            &frame,
            &[&key],
        ));
    }
    all
}

fn valid() -> Vec<Requests> {
    let one =
        |name: &str, words: &[&[u8]], keys: &[&[u8]]| Requests::one(name, &array_of(words), keys);
    vec![
        one("a get", &[b"GET", b"foo"], &[b"foo"]),
        one("a get in small letters", &[b"get", b"foo"], &[b"foo"]),
        one("a get in mixed letters", &[b"gEt", b"foo"], &[b"foo"]),
        one("an empty key", &[b"GET", b""], &[b""]),
        one("an empty value", &[b"SET", b"k", b""], &[b"k"]),
        one("a binary key", &[b"GET", b"\0\r\n\xff"], &[b"\0\r\n\xff"]),
        one(
            "a value that looks like a frame",
            &[b"SET", b"k", b"*1\r\n$4\r\nPING\r\n"],
            &[b"k"],
        ),
        one(
            "options after the key",
            &[b"SET", b"k", b"v", b"EX", b"1"],
            &[b"k"],
        ),
        one("too few words for the server", &[b"SET", b"k"], &[b"k"]),
        one("one key of mget", &[b"MGET", b"a"], &[b"a"]),
        one(
            "three keys of mget",
            &[b"MGET", b"a", b"", b"a"],
            &[b"a", b"", b"a"],
        ),
        one("two keys of del", &[b"del", b"a", b"b"], &[b"a", b"b"]),
        one(
            "two keys of exists",
            &[b"EXISTS", b"a", b"b"],
            &[b"a", b"b"],
        ),
        one("two keys of touch", &[b"TOUCH", b"a", b"b"], &[b"a", b"b"]),
        one(
            "two keys of unlink",
            &[b"UNLINK", b"a", b"b"],
            &[b"a", b"b"],
        ),
        one(
            "two pairs of mset",
            &[b"MSET", b"a", b"1", b"b", b""],
            &[b"a", b"b"],
        ),
        one(
            "a script with a key",
            &[b"EVAL", b"return 1", b"1", b"k", b"x"],
            &[b"k"],
        ),
        one(
            "a script without keys",
            &[b"EVAL", b"return 1", b"0", b"x"],
            &[],
        ),
        one("keys behind a count", &[b"ZUNION", b"1", b"k"], &[b"k"]),
        one("a ping", &[b"PING"], &[]),
        one("a ping with a message", &[b"PING", b"hello"], &[]),
        one("an echo", &[b"ECHO", b"hello"], &[]),
        one("a select", &[b"SELECT", b"0"], &[]),
        one("a quit", &[b"QUIT"], &[]),
        one("a hello", &[b"HELLO", b"2"], &[]),
        one("an auth", &[b"AUTH", b"secret"], &[]),
    ]
}

fn inline() -> Vec<Requests> {
    vec![
        Requests::one("an inline get", b"GET foo\r\n", &[b"foo"]),
        Requests::one("an inline get with a bare LF", b"GET foo\n", &[b"foo"]),
        Requests::one("blanks around", b"  GET   foo  \r\n", &[b"foo"]),
        Requests::one("double quotes", b"GET \"a b\\x41\\n\"\r\n", &[b"a bA\n"]),
        Requests::one("single quotes", b"GET 'a\\'b\\n'\r\n", &[b"a'b\\n"]),
        Requests::one("an empty word", b"GET \"\"\r\n", &[b""]),
        Requests::one("an inline mget", b"mget a b\r\n", &[b"a", b"b"]),
        Requests::new(
            "empty lines and arrays mean nothing",
            b"\r\n\n  \r\n*0\r\n*-1\r\nPING\r\n",
            vec![request(6, &[])],
        ),
        Requests::refused(
            "an open double quote",
            b"GET \"abc\r\nPING\r\n",
            "-ERR Protocol error: unbalanced quotes in request\r\n",
            true,
        ),
        Requests::refused(
            "an open single quote",
            b"GET 'abc\r\n",
            "-ERR Protocol error: unbalanced quotes in request\r\n",
            true,
        ),
        Requests::refused(
            "a quote that ends within a word",
            b"GET \"a\"b\r\n",
            "-ERR Protocol error: unbalanced quotes in request\r\n",
            true,
        ),
        Requests::refused(
            "a line of HTTP",
            b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
            "",
            true,
        ),
        Requests::refused("a header of HTTP", b"Host: example\r\n", "", true),
    ]
}

fn pipelined() -> Vec<Requests> {
    let mut bytes = Vec::new();
    let mut meaning = Vec::new();
    let mut add = |frame: &[u8], what: Meaning| {
        bytes.extend_from_slice(frame);
        meaning.push(what);
    };
    let get = array_of(&[b"GET", b"foo"]);
    let mget = array_of(&[&b"MGET"[..], b"a", b"b"]);
    add(&get, request(get.len(), &[b"foo"]));
    add(b"get foo\r\n", request(9, &[b"foo"]));
    add(&mget, request(mget.len(), &[b"a", b"b"]));
    add(
        &array_of(&[&b"nosuch"[..], b"a", b""]),
        refusal(
            "-ERR unknown command 'nosuch', with args beginning with: 'a' '' \r\n",
            false,
        ),
    );
    add(b"PING\r\n", request(6, &[]));
    add(
        &array_of(&[b"GET"]),
        refusal(
            "-ERR wrong number of arguments for 'get' command\r\n",
            false,
        ),
    );
    add(&get, request(get.len(), &[b"foo"]));
    let mixed = Requests::new("a mixed pipeline", &bytes, meaning.clone());
    bytes.extend_from_slice(b"*1\r\n!\r\n");
    meaning.push(refusal(
        "-ERR Protocol error: expected '$', got '!'\r\n",
        true,
    ));
    vec![
        mixed,
        Requests::new("a pipeline that ends in garbage", &bytes, meaning),
        Requests::new(
            "many gets",
            &get.repeat(200),
            vec![request(get.len(), &[b"foo"]); 200],
        ),
    ]
}

fn refused() -> Vec<Requests> {
    let arity = |words: &[&[u8]]| {
        let name = String::from_utf8_lossy(words[0]).to_lowercase();
        Requests::refused(
            &format!("{name} without what it needs"),
            &array_of(words),
            &format!("-ERR wrong number of arguments for '{name}' command\r\n"),
            false,
        )
    };
    let unknown = |name: &str, words: &[&[u8]], reply: &str| {
        Requests::refused(name, &array_of(words), reply, false)
    };
    vec![
        arity(&[b"get"]),
        arity(&[b"SET"]),
        arity(&[b"MGET"]),
        arity(&[b"DEL"]),
        arity(&[b"EXISTS"]),
        arity(&[b"TOUCH"]),
        arity(&[b"UNLINK"]),
        arity(&[b"MSET"]),
        arity(&[b"MSET", b"a"]),
        arity(&[b"MSET", b"a", b"1", b"b"]),
        unknown(
            "an unknown command",
            &[b"Foo", b"bar", b"baz"],
            "-ERR unknown command 'Foo', with args beginning with: 'bar' 'baz' \r\n",
        ),
        unknown(
            "an unknown command alone",
            &[b"foo"],
            "-ERR unknown command 'foo', with args beginning with: \r\n",
        ),
        unknown(
            "an empty command",
            &[b""],
            "-ERR unknown command '', with args beginning with: \r\n",
        ),
        unknown(
            "line ends in an unknown command",
            &[b"foo\r\nbar"],
            "-ERR unknown command 'foo  bar', with args beginning with: \r\n",
        ),
        unknown(
            "an unknown command of 200 bytes",
            &[&[b'x'; 200]],
            &format!(
                "-ERR unknown command '{}', with args beginning with: \r\n",
                "x".repeat(128)
            ),
        ),
    ]
}

fn broken() -> Vec<Requests> {
    const COUNT: &str = "-ERR Protocol error: invalid multibulk length\r\n";
    const BULK: &str = "-ERR Protocol error: invalid bulk length\r\n";
    let case = |bytes: &[u8], reply: &str| {
        let name = format!("broken: {}", bytes.escape_ascii());
        Requests::refused(&name, bytes, reply, true)
    };
    vec![
        case(b"*abc\r\n", COUNT),
        case(b"*\r\n", COUNT),
        case(b"*+1\r\n", COUNT),
        case(b"*01\r\n", COUNT),
        case(b"*-0\r\n", COUNT),
        case(b"* 1\r\n", COUNT),
        case(b"*1 \r\n", COUNT),
        case(b"*1048577\r\n", COUNT),
        case(b"*2147483648\r\n", COUNT),
        case(b"*99999999999999999999\r\n", COUNT),
        case(b"*1\r\n$-1\r\n", BULK),
        case(b"*1\r\n$\r\n", BULK),
        case(b"*1\r\n$+4\r\n", BULK),
        case(b"*1\r\n$04\r\n", BULK),
        case(b"*1\r\n$abc\r\n", BULK),
        case(b"*1\r\n$536870913\r\n", BULK),
        case(b"*1\r\n$99999999999999999999\r\n", BULK),
        case(
            b"*1\r\n:3\r\n",
            "-ERR Protocol error: expected '$', got ':'\r\n",
        ),
        case(
            b"*2\r\n$3\r\nGET\r\n*1\r\n",
            "-ERR Protocol error: expected '$', got '*'\r\n",
        ),
        Requests {
            meaning: vec![Meaning::Refused {
                reply: None,
                closes: true,
            }],
            ..Requests::new(
                "a wrong end of a bulk string",
                b"*2\r\n$3\r\nGETxx$1\r\na\r\n",
                vec![],
            )
        },
    ]
}

fn unfinished() -> Vec<Requests> {
    [
        &b"*"[..],
        b"*2",
        b"*2\r",
        b"*2\r\n",
        b"*2\r\n$",
        b"*2\r\n$3\r\nGET",
        b"*2\r\n$3\r\nGET\r\n$60000000\r\nabc",
        b"*1048576\r\n$1\r\na\r\n",
        b"GET fo",
    ]
    .iter()
    .map(|bytes| Requests::unfinished(&format!("unfinished: {}", bytes.escape_ascii()), bytes))
    .collect()
}

/// Transcripts of servers.
#[must_use]
pub fn responses() -> Vec<Responses> {
    let one = Responses::one;
    let deep = [b"*1\r\n".repeat(1000).as_slice(), b":1\r\n"].concat();
    let wide = [b"*1000\r\n".as_slice(), &b"$1\r\nx\r\n".repeat(1000)].concat();
    let mut all = vec![
        one("a status", b"+OK\r\n"),
        one("an empty status", b"+\r\n"),
        one("an error", b"-ERR no\r\n"),
        one("an error without a blank", b"-NOAUTH\r\n"),
        one("an error of a single byte", b"-E\r\n"),
        one("an integer", b":-42\r\n"),
        one("a large integer", b":9223372036854775807\r\n"),
        one("nil", b"$-1\r\n"),
        one("a nil array", b"*-1\r\n"),
        one("an empty bulk string", b"$0\r\n\r\n"),
        one("a bulk string of line ends", b"$4\r\n\r\n\r\n\r\n"),
        one("an empty array", b"*0\r\n"),
        one("a flat array", b"*3\r\n$1\r\na\r\n$-1\r\n:7\r\n"),
        one(
            "nested arrays",
            b"*2\r\n*2\r\n*0\r\n*-1\r\n*1\r\n*1\r\n+x\r\n",
        ),
        one("an error in an array", b"*2\r\n-ERR x\r\n$1\r\n-\r\n"),
        one("a deep array", &deep),
        one("a wide array", &wide),
        Responses::new(
            "one after the other",
            b"+OK\r\n$1\r\na\r\n*1\r\n:1\r\n-ERR\r\n:0\r\n",
            &[5, 7, 8, 6, 4],
            ResponseEnd::Clean,
        ),
    ];
    for bytes in [
        &b"$5\r\nab"[..],
        b"*2\r\n:1\r\n",
        b"+O",
        b"$",
        b"*2147483647\r\n:1\r\n",
        b"$1\r\na\r",
    ] {
        let name = format!("unfinished: {}", bytes.escape_ascii());
        all.push(Responses::new(&name, bytes, &[], ResponseEnd::Unfinished));
    }
    for bytes in [
        &b"OK\r\n"[..],
        b"\r\n",
        b"%1\r\n",
        b"_\r\n",
        b"$-2\r\n",
        b"$x\r\n",
        b"*x\r\n",
        b"$1\r\nab\r\n",
    ] {
        let name = format!("no response: {}", bytes.escape_ascii());
        all.push(Responses::new(&name, bytes, &[], ResponseEnd::Invalid));
    }
    for size in boundary_sizes() {
        all.push(one(
            &format!("a bulk string of {size} bytes"),
            &bulk(&filler(size)),
        ));
    }
    all
}
