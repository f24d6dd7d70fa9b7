//! The core's parsers, driven by the engine's rules over bytes that arrive in pieces.
//!
//! The outcome is a list of what happened, in which nothing depends on how the bytes were cut: two
//! lists for the same bytes must be equal. The rules of [`twemproxy_core::proto`]'s contract that
//! can be checked on the way are asserted.

use twemproxy_core::proto::{
    Parse, Part, Protocol, Request, RequestLimits, RequestParser, ResponseParser, ResponseStep,
    Route, Then, compose, parts,
};

/// One event at the front of a client's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A request.
    Request {
        /// Where its frame starts in all bytes.
        start: usize,
        /// The request as the parser gave it.
        request: Request,
        /// Its keys, in request order.
        keys: Vec<Vec<u8>>,
    },
    /// A line, rewritten as `frame`.
    Inline {
        /// Where its line starts in all bytes.
        start: usize,
        /// Bytes of the line.
        len: usize,
        /// Its outcome.
        frame: Vec<u8>,
        /// The parsed result.
        request: Request,
        /// Its keys.
        keys: Vec<Vec<u8>>,
    },
    /// A refusal.
    Refused {
        /// The client's response.
        reply: Vec<u8>,
        /// Whether the connection ends here.
        closes: bool,
    },
}

/// All events, and the bytes that are left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// In order.
    pub events: Vec<Event>,
    /// An unfinished frame follows; never true after a close.
    pub unfinished: bool,
}

/// Limits under which nothing of a test's size is too large.
#[must_use]
pub const fn roomy_limits() -> RequestLimits {
    RequestLimits {
        frame_len_max: 64 * 1024 * 1024,
        unauthenticated: false,
        allow_flush: true,
    }
}

/// Feeds `bytes` in the pieces that end at `cuts` (ascending) and at the end.
#[must_use]
pub fn requests(
    protocol: Protocol,
    limits: &RequestLimits,
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Outcome {
    let mut client = Client {
        protocol,
        limits: *limits,
        parser: RequestParser::new(protocol),
        noted: Vec::new(),
        start: 0,
        events: Vec::new(),
    };
    for fed in cuts.into_iter().chain([bytes.len()]) {
        if client.take(&bytes[..fed]) == Fate::Closed {
            return Outcome {
                events: client.events,
                unfinished: false,
            };
        }
    }
    Outcome {
        unfinished: client.start < bytes.len(),
        events: client.events,
    }
}

/// A place for a request.
const BLANK: Request = Request {
    len: 0,
    command: 0,
    noreply: false,
    readonly: false,
    route: Route::Local,
};

struct Client {
    protocol: Protocol,
    limits: RequestLimits,
    parser: RequestParser,
    /// Keys noted by the parser, kept from request to request as in the engine.
    noted: Vec<Part>,
    /// Where the current frame starts.
    start: usize,
    events: Vec<Event>,
}

#[derive(PartialEq, Eq)]
enum Fate {
    Open,
    Closed,
}

impl Client {
    fn take(&mut self, fed: &[u8]) -> Fate {
        let mut calls_without_progress = 0;
        while self.start < fed.len() {
            let before = self.start;
            let here = &fed[before..];
            self.check_ordinary(here);
            match self.parse(here) {
                Parse::Complete(request) => {
                    let frame = &here[..usize_of(request.len)];
                    assert!(!frame.is_empty(), "a request has bytes");
                    let keys = keys(self.protocol, frame, &request);
                    self.check_noted(frame, &request);
                    self.events.push(Event::Request {
                        start: before,
                        request,
                        keys,
                    });
                    self.start += frame.len();
                }
                Parse::Inline { len } => {
                    self.start += len;
                    if self.inline(before, &here[..len]) == Fate::Closed {
                        return Fate::Closed;
                    }
                }
                Parse::Incomplete { need } => {
                    let is_longer = need == 0 || need > here.len();
                    assert!(is_longer, "a complete frame is not incomplete");
                    return Fate::Open;
                }
                Parse::Skip { len } => {
                    assert!(len >= 1 && len <= here.len(), "skips what is there");
                    self.start += len;
                }
                Parse::Invalid { invalid, len, then } => {
                    self.start += len;
                    let mut reply = Vec::new();
                    invalid.write(&here[..len], &mut reply);
                    if self.refuse(reply, then) == Fate::Closed {
                        return Fate::Closed;
                    }
                }
            }
            calls_without_progress = if self.start == before {
                calls_without_progress + 1
            } else {
                0
            };
            assert!(calls_without_progress < 3, "the parser makes progress");
        }
        Fate::Open
    }

    /// Parses with and without noting keys, which makes no difference.
    fn parse(&mut self, here: &[u8]) -> Parse {
        let mut other = self.parser;
        let parse = self
            .parser
            .parse_noting(here, &self.limits, &mut self.noted);
        assert_eq!(other.parse(here, &self.limits), parse, "noting is silent");
        parse
    }

    /// Keys that were noted, now or for an earlier request, are the request's or not there.
    fn check_noted(&self, frame: &[u8], request: &Request) {
        if matches!(request.route, Route::Keys(_)) && !self.noted.is_empty() {
            let mut found = Vec::new();
            parts(self.protocol, frame, request, &mut found);
            assert_eq!(self.noted, found, "the keys noted are the keys there are");
        }
    }

    /// Several requests at once are what they are one by one.
    fn check_ordinary(&self, here: &[u8]) {
        let mut out = [BLANK; 3];
        let (mut at_once, mut one_by_one) = (self.parser, self.parser);
        let (count, len) = at_once.parse_ordinary(here, &self.limits, &mut out);
        let mut at = 0;
        for request in &out[..count] {
            let parse = one_by_one.parse(&here[at..], &self.limits);
            assert_eq!(parse, Parse::Complete(*request));
            assert!(matches!(request.route, Route::Key(_)));
            at += usize_of(request.len);
        }
        assert_eq!(at, len);
        if at < here.len() {
            let next = at_once.parse(&here[at..], &self.limits);
            assert_eq!(next, one_by_one.parse(&here[at..], &self.limits));
        }
    }

    fn inline(&mut self, start: usize, line: &[u8]) -> Fate {
        assert_eq!(line.last(), Some(&b'\n'), "what is rewritten is a line");
        let mut frame = Vec::new();
        if let Err(invalid) = compose(self.protocol, line, &mut frame) {
            let mut reply = Vec::new();
            invalid.write(line, &mut reply);
            return self.refuse(reply, Then::Close);
        }
        match RequestParser::new(self.protocol).parse(&frame, &self.limits) {
            Parse::Complete(request) => {
                assert_eq!(usize_of(request.len), frame.len(), "one line, one request");
                let keys = keys(self.protocol, &frame, &request);
                self.events.push(Event::Inline {
                    start,
                    len: line.len(),
                    frame,
                    request,
                    keys,
                });
                Fate::Open
            }
            Parse::Invalid { invalid, len, then } => {
                let mut reply = Vec::new();
                invalid.write(&frame[..len], &mut reply);
                self.refuse(reply, then)
            }
            other => panic!("a rewritten line is a whole request, not {other:?}"),
        }
    }

    fn refuse(&mut self, reply: Vec<u8>, then: Then) -> Fate {
        let closes = then == Then::Close;
        self.events.push(Event::Refused { reply, closes });
        if closes { Fate::Closed } else { Fate::Open }
    }
}

fn keys(protocol: Protocol, frame: &[u8], request: &Request) -> Vec<Vec<u8>> {
    match request.route {
        Route::Key(span) => vec![span.of(frame).to_vec()],
        Route::Keys(_) => {
            let mut found = Vec::new();
            parts(protocol, frame, request, &mut found);
            found
                .iter()
                .map(|part| part.key.of(frame).to_vec())
                .collect()
        }
        Route::Placeholder | Route::EveryServer(_) | Route::Local => Vec::new(),
    }
}

/// A server's bytes, measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Responses {
    /// The lengths of the whole ones.
    pub lens: Vec<usize>,
    /// The end behind them.
    pub end: ResponseEnd,
}

/// The state behind the last whole response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseEnd {
    /// Nothing.
    Clean,
    /// The beginning of another one.
    Unfinished,
    /// Something that is no response.
    Invalid,
}

/// Feeds a server's bytes in the pieces that end at `cuts` (ascending) and at the end.
#[must_use]
pub fn responses(
    protocol: Protocol,
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Responses {
    let mut parser = ResponseParser::new(protocol);
    let mut lens = Vec::new();
    // Where the current response starts, and the first byte that no step has consumed.
    let (mut start, mut at) = (0, 0);
    for fed in cuts.into_iter().chain([bytes.len()]) {
        while at < fed {
            check_measure(protocol, parser, &bytes[at..fed]);
            let here = &bytes[at..fed];
            let step = if at == start {
                step_marking(&mut parser, here)
            } else {
                parser.step(here)
            };
            match step {
                ResponseStep::Done(len) => {
                    assert!(len >= 1 && len <= fed - at, "consumes what is there");
                    at += len;
                    lens.push(at - start);
                    start = at;
                }
                ResponseStep::More(len) => {
                    assert!(len <= fed - at, "consumes what is there");
                    at += len;
                    break;
                }
                ResponseStep::Invalid => {
                    let end = ResponseEnd::Invalid;
                    return Responses { lens, end };
                }
            }
        }
    }
    let end = if start == bytes.len() {
        ResponseEnd::Clean
    } else {
        ResponseEnd::Unfinished
    };
    Responses { lens, end }
}

/// Measures with and without marks, which makes no difference.
fn step_marking(parser: &mut ResponseParser, here: &[u8]) -> ResponseStep {
    let (mut other, mut marks) = (*parser, Vec::new());
    let step = parser.step_marking(here, &mut marks);
    assert_eq!(other.step(here), step, "marking is silent");
    assert!(marks.is_sorted() && marks.last() <= Some(&here.len()));
    step
}

/// Several responses at once are what they are one by one.
fn check_measure(protocol: Protocol, parser: ResponseParser, rest: &[u8]) {
    let mut lens = [0; 3];
    let (mut at_once, mut one_by_one) = (parser, parser);
    let (count, mut next) = at_once.measure(rest, &mut lens);
    let mut at = 0;
    for &len in &lens[..count] {
        assert_eq!(
            one_by_one.step(&rest[at..]),
            ResponseStep::Done(usize_of(len))
        );
        assert!(protocol == Protocol::Memcache || rest[at] != b'-');
        at += usize_of(len);
    }
    if next.is_none() && at < rest.len() {
        assert_eq!(
            count,
            lens.len(),
            "only a full list ends it before the bytes"
        );
        next = Some(at_once.step(&rest[at..]));
    }
    if let Some(next) = next {
        assert_eq!(one_by_one.step(&rest[at..]), next);
    }
}

fn usize_of(n: u32) -> usize {
    usize::try_from(n).expect("usize has at least 32 bits")
}
