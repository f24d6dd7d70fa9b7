//! The core's parsers and the model's must see the same in the same bytes.

use twemproxy_core::proto::{Protocol, RequestLimits};

use crate::feed::{self, Event, ResponseEnd};
use crate::model::{Measure, memcache, redis};

/// Above everything the model has an opinion on.
const LIMITS: RequestLimits = RequestLimits {
    frame_len_max: 1 << 31,
    ..feed::roomy_limits()
};

/// Walks the bytes with both parsers until the end, a close, or a place where the model has no
/// opinion.
pub fn redis_requests(bytes: &[u8]) {
    let outcome = feed::requests(Protocol::Redis, &LIMITS, bytes, []);
    let mut events = outcome.events.iter();
    let mut at = 0;
    loop {
        let here = bytes[at..].escape_ascii().to_string();
        let frame = redis::request(&bytes[at..]);
        let (words, len) = match &frame {
            redis::Frame::Unpinned => return,
            redis::Frame::Unfinished => {
                assert!(events.next().is_none(), "{} is unfinished", here);
                assert_eq!(outcome.unfinished, at < bytes.len(), "{}", here);
                return;
            }
            redis::Frame::Nothing { len } => {
                at += len;
                continue;
            }
            redis::Frame::Broken(_) | redis::Frame::Hangup => {
                check_broken(&frame, events.next(), &here);
                return;
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
                    assert_eq!(*start, at, "{}", here);
                    assert_eq!(usize::try_from(request.len), Ok(len), "{}", here);
                    assert_eq!(keys, &expected, "{}", here);
                }
                Some(Event::Inline {
                    start,
                    len: line,
                    keys,
                    frame,
                    ..
                }) => {
                    assert_eq!((*start, *line), (at, len), "{}", here);
                    assert_eq!(keys, &expected, "{}", here);
                    assert_eq!(frame, &redis::array_of(words), "{}", here);
                }
                other => panic!("{} is accepted, not {:?}", here, other),
            },
            redis::Meaning::Refused => {
                let open = matches!(event, Some(Event::Refused { closes: false, .. }));
                assert!(open, "{} is refused, not {:?}", here, event);
            }
            redis::Meaning::Unpinned => {
                let closed = matches!(event, None | Some(Event::Refused { closes: true, .. }));
                assert!(!closed, "{} is aligned, not {:?}", here, event);
            }
        }
        at += len;
    }
}

fn check_broken(frame: &redis::Frame, event: Option<&Event>, here: &str) {
    let Some(Event::Refused {
        reply,
        closes: true,
    }) = event
    else {
        panic!("{here} closes, not {event:?}");
    };
    match frame {
        redis::Frame::Broken(Some(words)) => {
            let expected = format!("-ERR Protocol error: {words}\r\n");
            assert_eq!(reply, expected.as_bytes(), "{}", here);
        }
        redis::Frame::Hangup => assert!(reply.is_empty(), "{}", here),
        _ => {}
    }
}

/// Like [`redis_requests`], for memcached.
pub fn memcache_requests(bytes: &[u8]) {
    let outcome = feed::requests(Protocol::Memcache, &LIMITS, bytes, []);
    let mut events = outcome.events.iter();
    let mut at = 0;
    loop {
        let here = bytes[at..].escape_ascii().to_string();
        match memcache::request(&bytes[at..]) {
            memcache::Frame::Unpinned => return,
            memcache::Frame::Unfinished => {
                assert!(events.next().is_none(), "{} is unfinished", here);
                assert_eq!(outcome.unfinished, at < bytes.len(), "{}", here);
                return;
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
                    panic!("{here} is refused");
                };
                assert_eq!(reply.as_slice(), expected, "{}", here);
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
                    panic!("{here} is not {event:?}");
                };
                let blanks = bytes[at..].iter().take_while(|&&byte| byte == b' ');
                let blanks = blanks.count();
                assert_eq!(*start, at + blanks, "{}", here);
                assert_eq!(usize::try_from(request.len), Ok(len - blanks), "{}", here);
                assert_eq!(keys, &expected, "{}", here);
                assert_eq!(request.noreply, noreply, "{}", here);
                at += len;
            }
            memcache::Frame::Quit { len } => {
                let event = events.next();
                assert!(matches!(event, Some(Event::Request { .. })), "{}", here);
                at += len;
            }
        }
    }
}

/// Responses, cut anywhere, end where the model says.
///
/// The model is stricter with numbers than a relay must be: where it objects, the fast parser only
/// has to be consistent.
pub fn responses(protocol: Protocol, bytes: &[u8], cut: usize) {
    let measure = match protocol {
        Protocol::Redis => redis::measure_reply,
        Protocol::Memcache => memcache::measure_response,
    };
    let fast = feed::responses(protocol, bytes, []);
    assert_eq!(&feed::responses(protocol, bytes, [cut]), &fast);
    let mut at = 0;
    for len in fast.lens.iter().copied() {
        match measure(&bytes[at..]) {
            Measure::Done(expected) => assert_eq!(len, expected),
            Measure::More => panic!("ends too early at {}", at + len),
            Measure::Broken => return,
        }
        at += len;
    }
    let rest = &bytes[at..];
    match (measure(rest), fast.end) {
        _ if rest.is_empty() => assert_eq!(fast.end, ResponseEnd::Clean),
        (Measure::Done(_), end) => {
            panic!("{} is a response, not {end:?}", rest.escape_ascii())
        }
        // A line that goes on may be known to be nonsense already, to either of them.
        (Measure::More | Measure::Broken, end) => assert_ne!(end, ResponseEnd::Clean),
    }
}
