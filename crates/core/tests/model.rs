//! The fast parsers agree with the naive ones, on well-formed frames and on damaged ones.

use proptest::collection::vec;
use proptest::prelude::*;
use twemproxy_core::proto::Protocol;
use twemproxy_testkit::feed::{self, Event, ResponseEnd};
use twemproxy_testkit::model::{Measure, memcache, redis};

const CASES: u32 = 1024;

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn redis_requests_are_read_as_the_model_reads_them(bytes in redis_requests()) {
        check_redis_requests(&bytes)?;
    }

    #[test]
    fn damaged_redis_requests_are_read_as_the_model_reads_them(
        bytes in redis_requests(),
        damage in vec(damage(), 1..4),
    ) {
        check_redis_requests(&damaged(bytes, &damage))?;
    }

    #[test]
    fn inline_requests_are_read_as_the_model_reads_them(
        lines in vec("[a-c\"'\\\\xn4 ]{0,12}\r?\n", 1..4),
    ) {
        check_redis_requests(lines.concat().as_bytes())?;
    }

    #[test]
    fn memcache_requests_are_read_as_the_model_reads_them(bytes in memcache_requests()) {
        check_memcache_requests(&bytes)?;
    }

    #[test]
    fn damaged_memcache_requests_are_read_as_the_model_reads_them(
        bytes in memcache_requests(),
        damage in vec(damage(), 1..4),
    ) {
        check_memcache_requests(&damaged(bytes, &damage))?;
    }

    #[test]
    fn redis_replies_end_where_the_model_says(
        bytes in redis_reply(),
        damage in vec(damage(), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = damaged(bytes, &damage);
        check_responses(Protocol::Redis, &bytes, cut.index(bytes.len() + 1), redis::measure_reply)?;
    }

    #[test]
    fn memcache_responses_end_where_the_model_says(
        bytes in memcache_response(),
        damage in vec(damage(), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = damaged(bytes, &damage);
        let measure = memcache::measure_response;
        check_responses(Protocol::Memcache, &bytes, cut.index(bytes.len() + 1), measure)?;
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
        for protocol in [Protocol::Redis, Protocol::Memcache] {
            let limits = feed::roomy_limits();
            let cut = cut.index(bytes.len() + 1);
            let whole = feed::requests(protocol, &limits, &bytes, []);
            prop_assert_eq!(feed::requests(protocol, &limits, &bytes, [cut]), whole);
            let whole = feed::responses(protocol, &bytes, []);
            prop_assert_eq!(feed::responses(protocol, &bytes, [cut]), whole);
        }
    }
}

fn redis_word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z{}]{0,8}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..12),
        1 => "[0-9]{1,3}".prop_map(String::into_bytes),
    ]
}

fn redis_requests() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        8 => prop::sample::select(vec![
            "get", "SET", "incr", "Append", "STRLEN", "del", "UNLINK", "touch", "EXISTS", "mget",
            "MSET",
        ]),
        1 => prop::sample::select(vec!["nosuch", "", "getx", "ge"]),
    ];
    let frame = (name, vec(redis_word(), 0..6)).prop_map(|(name, rest)| {
        let mut words = vec![name.as_bytes().to_vec()];
        words.extend(rest);
        redis::array_of(&words)
    });
    vec(frame, 1..4).prop_map(|frames| frames.concat())
}

fn memcache_requests() -> impl Strategy<Value = Vec<u8>> {
    let key = || {
        prop_oneof![
            8 => "[a-z!~]{1,8}",
            1 => "k{249,252}",
        ]
    };
    let noreply = || prop::sample::select(vec!["", " noreply", " "]);
    let number = || prop_oneof![4 => "[0-9]{1,4}", 1 => "-[0-9]{1,3}", 1 => "[a-z]?"];
    let keys = vec(key(), 0..4).prop_map(|keys| keys.join(" "));
    let retrieval = (
        prop::sample::select(vec!["get", "gets", "gat 0", "gats 10"]),
        keys,
    )
        .prop_map(|(name, keys)| format!("{name} {keys}\r\n").into_bytes());
    let storage_names = vec!["set", "add", "replace", "append", "prepend", "cas"];
    let storage = (
        prop::sample::select(storage_names),
        key(),
        number(),
        vec(any::<u8>(), 0..20),
        noreply(),
    )
        .prop_map(|(name, key, exptime, data, noreply)| {
            let cas = if name == "cas" { " 7" } else { "" };
            let head = format!("{name} {key} 5 {exptime} {}{cas}{noreply}\r\n", data.len());
            [head.as_bytes(), &data, b"\r\n"].concat()
        });
    let keyed_names = vec!["incr", "decr", "touch", "delete"];
    let keyed = (
        prop::sample::select(keyed_names),
        key(),
        number(),
        noreply(),
    )
        .prop_map(|(name, key, number, noreply)| {
            let number = if name == "delete" { "" } else { &number };
            format!("{name} {key} {number}{noreply}\r\n").into_bytes()
        });
    let bare = prop::sample::select(vec!["version\r\n", "nosuch x\r\n", "\r\n", "quit\r\n"])
        .prop_map(|line| line.as_bytes().to_vec());
    vec(
        prop_oneof![3 => retrieval, 4 => storage, 3 => keyed, 1 => bare],
        1..4,
    )
    .prop_map(|frames| frames.concat())
}

fn redis_reply() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        "[+-][A-Za-z ]{0,12}\r\n".prop_map(String::into_bytes),
        any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
        vec(any::<u8>(), 0..20).prop_map(|text| redis::bulk(&text)),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
    ];
    leaf.prop_recursive(4, 24, 5, |element| {
        vec(element, 0..5).prop_map(|elements| {
            [
                format!("*{}\r\n", elements.len()).into_bytes(),
                elements.concat(),
            ]
            .concat()
        })
    })
}

fn memcache_response() -> impl Strategy<Value = Vec<u8>> {
    let value = (
        "[a-z]{1,5}",
        any::<u32>(),
        vec(any::<u8>(), 0..20),
        any::<bool>(),
    )
        .prop_map(|(key, flags, data, with_cas)| {
            let cas = if with_cas { " 9" } else { "" };
            let head = format!("VALUE {key} {flags} {}{cas}\r\n", data.len());
            [head.as_bytes(), &data, b"\r\n"].concat()
        });
    let lines = vec![
        "STORED",
        "NOT_STORED",
        "EXISTS",
        "NOT_FOUND",
        "DELETED",
        "TOUCHED",
        "OK",
        "ERROR",
        "CLIENT_ERROR a b",
        "SERVER_ERROR x",
        "VERSION 1",
        "42",
    ];
    let line = prop::sample::select(lines).prop_map(|line| format!("{line}\r\n").into_bytes());
    prop_oneof![
        1 => line,
        1 => vec(value, 0..4).prop_map(|values| [values.concat(), b"END\r\n".to_vec()].concat()),
    ]
}

/// One small accident on the way.
#[derive(Clone, Debug)]
enum Damage {
    Replace(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    let byte = || {
        prop_oneof![
            3 => prop::sample::select(b"\r\n*$:-+ 0129a\0".to_vec()),
            1 => any::<u8>(),
        ]
    };
    prop_oneof![
        3 => (place(), byte()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        2 => place().prop_map(Damage::Remove),
        2 => (place(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => place().prop_map(Damage::Truncate),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let len = bytes.len();
        match damage {
            Damage::Insert(at, byte) => bytes.insert(at.index(len + 1), *byte),
            _ if len == 0 => {}
            Damage::Replace(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Remove(at) => {
                bytes.remove(at.index(len));
            }
            Damage::Truncate(at) => bytes.truncate(at.index(len)),
        }
    }
    bytes
}

/// Walks the bytes with both parsers until the end, a close, or a place where the model has no
/// opinion.
fn check_redis_requests(bytes: &[u8]) -> Result<(), TestCaseError> {
    let outcome = feed::requests(Protocol::Redis, &feed::roomy_limits(), bytes, []);
    let mut events = outcome.events.iter();
    let mut at = 0;
    loop {
        let here = bytes[at..].escape_ascii().to_string();
        let frame = redis::request(&bytes[at..]);
        let (words, len) = match &frame {
            redis::Frame::Unpinned => return Ok(()),
            redis::Frame::Unfinished => {
                prop_assert!(events.next().is_none(), "{} is unfinished", here);
                prop_assert_eq!(outcome.unfinished, at < bytes.len(), "{}", here);
                return Ok(());
            }
            redis::Frame::Nothing { len } => {
                at += len;
                continue;
            }
            redis::Frame::Broken(_) | redis::Frame::Hangup => {
                check_broken(&frame, events.next(), &here)?;
                return Ok(());
            }
            redis::Frame::Array { words, len } | redis::Frame::Inline { words, len } => {
                (words, *len)
            }
        };
        let event = events.next();
        match redis::meaning(words) {
            redis::Meaning::Keys(expected) => match event {
                Some(Event::Request {
                    start,
                    request,
                    keys,
                }) => {
                    prop_assert_eq!(*start, at, "{}", here);
                    prop_assert_eq!(usize::try_from(request.len), Ok(len), "{}", here);
                    prop_assert_eq!(keys, &expected, "{}", here);
                }
                Some(Event::Inline {
                    start,
                    len: line,
                    keys,
                    frame,
                    ..
                }) => {
                    prop_assert_eq!((*start, *line), (at, len), "{}", here);
                    prop_assert_eq!(keys, &expected, "{}", here);
                    prop_assert_eq!(frame, &redis::array_of(words), "{}", here);
                }
                other => prop_assert!(false, "{} is accepted, not {:?}", here, other),
            },
            redis::Meaning::Refused => {
                let open = matches!(event, Some(Event::Refused { closes: false, .. }));
                prop_assert!(open, "{} is refused, not {:?}", here, event);
            }
            redis::Meaning::Unpinned => {
                let closed = matches!(event, None | Some(Event::Refused { closes: true, .. }));
                prop_assert!(!closed, "{} is aligned, not {:?}", here, event);
            }
        }
        at += len;
    }
}

fn check_broken(
    frame: &redis::Frame,
    event: Option<&Event>,
    here: &str,
) -> Result<(), TestCaseError> {
    let Some(Event::Refused {
        reply,
        closes: true,
    }) = event
    else {
        return Err(TestCaseError::fail(format!("{here} closes, not {event:?}")));
    };
    match frame {
        redis::Frame::Broken(Some(words)) => {
            let expected = format!("-ERR Protocol error: {words}\r\n");
            prop_assert_eq!(reply, expected.as_bytes(), "{}", here);
        }
        redis::Frame::Hangup => prop_assert!(reply.is_empty(), "{}", here),
        _ => {}
    }
    Ok(())
}

fn check_memcache_requests(bytes: &[u8]) -> Result<(), TestCaseError> {
    let outcome = feed::requests(Protocol::Memcache, &feed::roomy_limits(), bytes, []);
    let mut events = outcome.events.iter();
    let mut at = 0;
    loop {
        let here = bytes[at..].escape_ascii().to_string();
        match memcache::request(&bytes[at..]) {
            memcache::Frame::Unpinned => return Ok(()),
            memcache::Frame::Unfinished => {
                prop_assert!(events.next().is_none(), "{} is unfinished", here);
                prop_assert_eq!(outcome.unfinished, at < bytes.len(), "{}", here);
                return Ok(());
            }
            memcache::Frame::Refused {
                reply: expected,
                len,
            } => {
                let Some(Event::Refused {
                    reply,
                    closes: false,
                }) = events.next()
                else {
                    return Err(TestCaseError::fail(format!("{here} is refused")));
                };
                prop_assert_eq!(reply.as_slice(), expected, "{}", here);
                at += len;
            }
            memcache::Frame::Request {
                keys: expected,
                noreply,
                len,
                ..
            } => {
                let event = events.next();
                let Some(Event::Request {
                    start,
                    request,
                    keys,
                }) = event
                else {
                    return Err(TestCaseError::fail(format!("{here} is not {event:?}")));
                };
                prop_assert_eq!(*start, at, "{}", here);
                prop_assert_eq!(usize::try_from(request.len), Ok(len), "{}", here);
                prop_assert_eq!(keys, &expected, "{}", here);
                prop_assert_eq!(request.noreply, noreply, "{}", here);
                at += len;
            }
            memcache::Frame::Quit { len } => {
                let event = events.next();
                prop_assert!(matches!(event, Some(Event::Request { .. })), "{}", here);
                at += len;
            }
        }
    }
}

/// The model is stricter with numbers than a relay must be: where it objects, the fast parser only
/// has to be consistent.
fn check_responses(
    protocol: Protocol,
    bytes: &[u8],
    cut: usize,
    measure: fn(&[u8]) -> Measure,
) -> Result<(), TestCaseError> {
    let fast = feed::responses(protocol, bytes, []);
    prop_assert_eq!(&feed::responses(protocol, bytes, [cut]), &fast);
    let mut at = 0;
    for len in fast.lens.iter().copied() {
        match measure(&bytes[at..]) {
            Measure::Done(expected) => prop_assert_eq!(len, expected),
            Measure::More => prop_assert!(false, "ends too early at {}", at + len),
            Measure::Broken => return Ok(()),
        }
        at += len;
    }
    let rest = &bytes[at..];
    match (measure(rest), fast.end) {
        _ if rest.is_empty() => prop_assert_eq!(fast.end, ResponseEnd::Clean),
        (Measure::Done(_), end) => {
            let here = rest.escape_ascii();
            prop_assert!(false, "{} is a response, not {:?}", here, end);
        }
        // A line that goes on may be known to be nonsense already, to either of them.
        (Measure::More | Measure::Broken, end) => prop_assert_ne!(end, ResponseEnd::Clean),
    }
    Ok(())
}
