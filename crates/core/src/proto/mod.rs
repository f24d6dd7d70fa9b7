//! What bytes mean, for both protocols: the types that the parsers share and the engine reads.
//!
//! Parsing a request has two steps. [`RequestParser`] finds the end of a request in a connection's
//! bytes; it keeps its position, so that a request which arrives in pieces is never scanned twice.
//! The result, [`Request`], says how to route it. Its spans are offsets into the request's bytes,
//! its *frame*; nothing is borrowed and nothing is copied.
//!
//! A response is only measured ([`ResponseParser`]); its bytes pass unchanged or are merged.

pub mod memcache;
pub mod redis;
pub mod scan;

use alloc::vec::Vec;

use crate::buf::append_piece;
use crate::num::to_usize;

/// The protocol of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// RESP2, and inline commands from clients.
    Redis,
    /// The memcached text protocol.
    Memcache,
}

/// A range of bytes within one frame: `start <= end <= frame length`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes it names.
    #[inline]
    #[must_use]
    pub fn of(self, frame: &[u8]) -> &[u8] {
        &frame[to_usize(self.start)..to_usize(self.end)]
    }
}

/// What the front of a client's bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parse {
    /// A whole request: the first [`Request::len`] bytes. The parser is ready for the next one.
    Complete(Request),
    /// A whole line that is not sent as it stands: the first `len` bytes, line end included. The engine
    /// rewrites it with [`compose`] and parses the result.
    Inline {
        /// Bytes of the line, `LF` included.
        len: usize,
    },
    /// The frame goes on.
    Incomplete {
        /// A hint for buffers: the length of the frame; or its least length, if that is far more
        /// than was given; or 0 if neither is known. Never above the size limit.
        need: usize,
    },
    /// `len` bytes are to be dropped without a word: an empty line, or more of a refused request.
    Skip {
        /// Bytes to drop, at least 1.
        len: usize,
    },
    /// A bad request: drop `len` bytes, answer with [`Invalid::write`], then do what `then` says.
    Invalid {
        /// What is wrong.
        invalid: Invalid,
        /// Bytes to drop, possibly 0; the frame that [`Invalid::write`] wants.
        len: usize,
        /// What follows.
        then: Then,
    },
}

/// What happens to a client after a bad request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// The stream is still aligned: the next request follows.
    Continue,
    /// The stream cannot be trusted: earlier replies leave, then this one, then the client is closed.
    Close,
}

/// One complete request of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Length of the frame.
    pub len: u32,
    /// The command's place in its protocol's table.
    pub command: u16,
    /// No response will come from the server and none may go to the client.
    pub noreply: bool,
    /// It changes nothing: it may be sent a second time.
    pub readonly: bool,
    /// Where it goes.
    pub route: Route,
}

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Unchanged to the owner of this key.
    Key(Span),
    /// Several keys. With a merge the request is split by server; without one all keys must
    /// live on one server, which gets the request unchanged. The keys come from `parts` of the
    /// protocol's `split` module.
    Keys(Option<Merge>),
    /// Unchanged to the owner of [`PLACEHOLDER`]: a request without a key.
    Placeholder,
    /// Unchanged to every server of the pool; the responses are merged.
    EveryServer(Merge),
    /// Nowhere: the proxy answers (redis: [`redis::local`], memcached: [`memcache::local`]).
    Local,
}

/// The key of requests that have none.
pub const PLACEHOLDER: &[u8] = b"placeholder";

/// How the responses of a request's fragments become one response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// Redis arrays of one element per key: the elements in key order (MGET).
    Array,
    /// Redis integers: their sum (DEL, UNLINK, TOUCH, EXISTS).
    Sum,
    /// Redis status lines: the first (MSET).
    Status,
    /// Memcached `VALUE` blocks and one `END` (get, gets, gat, gats).
    Values,
    /// Memcached lines: the first (flush_all, verbosity).
    Line,
    /// No response: the client wants none.
    Nothing,
}

/// One key of a multi-key request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// The key itself.
    pub key: Span,
    /// The bytes a fragment carries for it: for redis the key's (and value's) bulk strings with
    /// headers and line ends, for memcached the key.
    pub raw: Span,
}

/// Keys that follow each other in a request and belong to one of its fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Index of the fragment.
    pub fragment: u16,
    /// How many keys, at least 1.
    pub keys: u32,
}

/// Where a parser notes the keys of a request that is to be split, if anybody wants them.
pub(crate) type Noted<'a> = Option<&'a mut Vec<Part>>;

/// One fragment's response, whole.
#[derive(Clone, Debug, Default)]
pub struct FragmentResponse {
    /// The server's bytes, or a composed error line.
    pub bytes: Vec<u8>,
    /// How many keys it was asked for.
    pub keys: u32,
    /// Where its first element (redis) or block (memcached) begins, and where each ends; empty if
    /// nobody has looked yet. See [`ResponseParser::step_marking`].
    pub marks: Vec<usize>,
    /// The mark that [`merge`] has come to; starts at 0.
    pub next: usize,
}

impl FragmentResponse {
    /// Appends the next elements, `count` of them or as many as are left; `None` if there are no marks.
    #[inline(always)]
    fn append_next(&mut self, count: u32, out: &mut Vec<u8>) -> Option<()> {
        let start = *self.marks.get(self.next)?;
        self.next = (self.next + to_usize(count)).min(self.marks.len() - 1);
        append_piece(out, &self.bytes, start..self.marks[self.next]);
        Some(())
    }
}

/// Resumable reading of one client's requests. `Copy` and small: it lives in every connection.
#[derive(Clone, Copy, Debug)]
pub enum RequestParser {
    /// For redis pools.
    Redis(redis::request::RequestParser),
    /// For memcached pools.
    Memcache(memcache::request::RequestParser),
}

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Longest frame in bytes; a longer one is refused and swallowed.
    pub frame_len_max: u32,
    /// The redis client must authenticate first and has not: redis' small limits apply.
    pub unauthenticated: bool,
    /// Memcached `flush_all` is served.
    pub allow_flush: bool,
}

impl RequestParser {
    /// A parser at the start of a connection.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Redis => Self::Redis(redis::request::RequestParser::default()),
            Protocol::Memcache => Self::Memcache(memcache::request::RequestParser::default()),
        }
    }

    /// Whether a new parser would read on as this one: nothing of a frame was read.
    #[inline]
    #[must_use]
    pub const fn is_at_start(&self) -> bool {
        match self {
            Self::Redis(parser) => parser.is_at_start(),
            Self::Memcache(parser) => parser.is_at_start(),
        }
    }

    /// Looks at `bytes`, which start where the current frame starts and hold at least what the last
    /// call saw. After `Complete`, `Inline`, `Skip` or `Invalid` the caller drops the frame's bytes and
    /// calls again with the rest.
    #[inline(always)]
    pub fn parse(&mut self, bytes: &[u8], limits: &RequestLimits) -> Parse {
        match self {
            Self::Redis(parser) => parser.parse(bytes, limits),
            Self::Memcache(parser) => parser.parse(bytes, limits),
        }
    }

    /// As [`Self::parse`], and notes the keys of a request that is to be split while it reads them: at a
    /// [`Route::Keys`], `noted` is empty or what [`parts`] finds.
    #[inline(always)]
    pub fn parse_noting(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
        noted: &mut Vec<Part>,
    ) -> Parse {
        match self {
            Self::Redis(parser) => parser.parse_noting(bytes, limits, Some(noted)),
            Self::Memcache(parser) => parser.parse_noting(bytes, limits, Some(noted)),
        }
    }
}

impl RequestParser {
    /// Parses whole requests of the commonest kinds, which have one key each, one after the other, until
    /// `out` is full or another one begins. Returns how many, and their bytes.
    ///
    /// Says what [`Self::parse`] would say of each, and changes nothing.
    #[inline]
    pub fn parse_ordinary(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
        out: &mut [Request],
    ) -> (usize, usize) {
        match self {
            Self::Redis(parser) => parser.parse_ordinary(bytes, limits, out),
            Self::Memcache(parser) => parser.parse_ordinary(bytes, limits, out),
        }
    }
}

/// How far a response reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseStep {
    /// The response ends after this many bytes (at least 1).
    Done(usize),
    /// These many first bytes (possibly 0) belong to the response and are done with; it goes on.
    /// What is left over is an unfinished line and must be given again, with more behind it.
    More(usize),
    /// No server of this protocol says that.
    Invalid,
}

/// Measures a server's responses one after the other; resumable, needs no memory of earlier bytes.
#[derive(Clone, Copy, Debug)]
pub enum ResponseParser {
    /// For redis pools.
    Redis(redis::response::ResponseParser),
    /// For memcached pools.
    Memcache(memcache::response::ResponseParser),
}

impl ResponseParser {
    /// A parser at the start of a connection.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Redis => Self::Redis(redis::response::ResponseParser::default()),
            Protocol::Memcache => Self::Memcache(memcache::response::ResponseParser::default()),
        }
    }

    /// Looks at `bytes`, the first of which no earlier call has consumed.
    #[inline(always)]
    pub fn step(&mut self, bytes: &[u8]) -> ResponseStep {
        match self {
            Self::Redis(parser) => parser.step(bytes),
            Self::Memcache(parser) => parser.step(bytes),
        }
    }

    /// Bytes that the response has at least behind those that were consumed; 0 if it has not begun.
    #[must_use]
    pub const fn least_rest(&self) -> u64 {
        match self {
            Self::Redis(parser) => parser.least_rest(),
            Self::Memcache(parser) => parser.least_rest(),
        }
    }

    /// As [`Self::step`] for the answer to a fragment, of which nothing has been consumed yet. If it is
    /// whole and ordinary, `marks` is what [`FragmentResponse::marks`] wants, else it is empty.
    pub fn step_marking(&mut self, bytes: &[u8], marks: &mut Vec<usize>) -> ResponseStep {
        marks.clear();
        let whole = match self {
            Self::Redis(parser) => parser.whole_array(bytes, marks),
            Self::Memcache(parser) => parser.whole_values(bytes, marks),
        };
        whole.map_or_else(
            || {
                marks.clear();
                self.step(bytes)
            },
            ResponseStep::Done,
        )
    }

    /// Measures whole responses one after the other, until `lens` is full, the bytes end, or one comes
    /// that is not whole or, in redis, an error. Returns how many, and what [`Self::step`] said of that
    /// one.
    #[inline]
    pub fn measure(&mut self, bytes: &[u8], lens: &mut [u32]) -> (usize, Option<ResponseStep>) {
        match self {
            Self::Redis(parser) => parser.measure(bytes, lens),
            Self::Memcache(parser) => parser.measure(bytes, lens),
        }
    }
}

/// What is wrong with a request; small and `Copy`, the protocol writes the words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// In redis' words.
    Redis(redis::Invalid),
    /// In memcached's words.
    Memcache(memcache::Invalid),
}

impl Invalid {
    /// The keys of a request would need more fragments than there may be. Only memcached requests are cut.
    pub const TOO_MANY_FRAGMENTS: Self = Self::Memcache(memcache::Invalid::LineTooLong);

    /// Appends the reply, line end included. `frame` is the `len` bytes that [`Parse::Invalid`] named.
    pub fn write(self, frame: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Redis(invalid) => invalid.write(frame, out),
            Self::Memcache(invalid) => invalid.write(frame, out),
        }
    }
}

/// Appends the request that is sent for the line of a [`Parse::Inline`]: in redis the array of an inline
/// command, in memcached the same line without what versions of it read differently.
///
/// # Errors
///
/// The line is wrong; the client is to be closed.
pub fn compose(protocol: Protocol, line: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
    match protocol {
        Protocol::Redis => redis::inline::to_array(line, out).map_err(Invalid::Redis),
        Protocol::Memcache => {
            memcache::request::compose(line, out);
            Ok(())
        }
    }
}

/// Appends a failure of the proxy or of a server: `-ERR text` or `SERVER_ERROR text`, with line end.
pub fn write_error(protocol: Protocol, text: &str, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Redis => redis::own::write_error(text, out),
        Protocol::Memcache => memcache::own::write_error(text, out),
    }
}

/// Whether a whole response may be quoted to others than those it answers: it is an error of one line.
#[must_use]
pub fn is_quotable(protocol: Protocol, response: &[u8]) -> bool {
    let line = response.strip_suffix(b"\r\n").unwrap_or(b"\n");
    is_error(protocol, response) && memchr::memchr2(b'\r', b'\n', line).is_none()
}

/// Whether a whole response tells of a failure.
#[must_use]
pub fn is_error(protocol: Protocol, response: &[u8]) -> bool {
    match protocol {
        Protocol::Redis => response.starts_with(b"-"),
        Protocol::Memcache => memcache::response::is_error(response),
    }
}

/// Appends what a server answers that has none of the `key_count` keys of a request: in redis of a plain
/// read (GET and MGET), in memcached of any command with keys. Returns false, and appends nothing, for
/// any other request.
pub fn write_miss(
    protocol: Protocol,
    request: &Request,
    key_count: u32,
    out: &mut Vec<u8>,
) -> bool {
    match protocol {
        Protocol::Redis => redis::split::write_miss(request, key_count, out),
        Protocol::Memcache => memcache::own::write_miss(request, out),
    }
}

/// Appends the keys of a [`Route::Keys`] request to `out`, in request order.
pub fn parts(protocol: Protocol, frame: &[u8], request: &Request, out: &mut Vec<Part>) {
    match protocol {
        Protocol::Redis => redis::split::parts(frame, request, out),
        Protocol::Memcache => memcache::split::parts(frame, request, out),
    }
}

/// Appends where the patterns of a [`Route::Keys`] request begin that name keys which only the server knows,
/// each up to the first byte that stands for others (redis SORT).
pub fn patterns(protocol: Protocol, frame: &[u8], request: &Request, out: &mut Vec<Span>) {
    if protocol == Protocol::Redis {
        redis::split::patterns(frame, request, out);
    }
}

/// Appends what a fragment with `part_count` parts begins with. Each part's raw bytes follow, each
/// followed by [`part_end`]; then [`fragment_end`].
pub fn fragment_head(
    protocol: Protocol,
    frame: &[u8],
    request: &Request,
    part_count: u32,
    out: &mut Vec<u8>,
) {
    match protocol {
        Protocol::Redis => redis::split::fragment_head(request, part_count, out),
        Protocol::Memcache => memcache::split::fragment_head(frame, request, out),
    }
}

/// Longest fragment that one server may be sent of a request, in bytes. If the keys of a server do not fit,
/// they are cut into several fragments.
#[must_use]
pub fn fragment_len_max(protocol: Protocol, request: &Request) -> usize {
    match protocol {
        Protocol::Redis => usize::MAX,
        Protocol::Memcache => memcache::split::fragment_len_max(request),
    }
}

/// What follows each part of a fragment. compat: twemproxy puts a blank after the last key, too.
#[must_use]
pub const fn part_end(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Redis => b"",
        Protocol::Memcache => b" ",
    }
}

/// What ends a fragment.
#[must_use]
pub const fn fragment_end(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Redis => b"",
        Protocol::Memcache => b"\r\n",
    }
}

/// Appends the one response to a split request.
///
/// `runs` say which fragment (index into `fragments`) asked for which of the request's keys, in request
/// order; `fragments` stand in server index order. A fragment that answered with an error makes the whole
/// request answer with the first such error, unchanged. A fragment whose response has the wrong shape
/// makes it answer [`write_error`] with `Invalid argument`.
pub fn merge(how: Merge, runs: &[Run], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) {
    match how {
        Merge::Array | Merge::Sum | Merge::Status => {
            redis::merge::merge(how, runs, fragments, out);
        }
        Merge::Values | Merge::Line => memcache::merge::merge(how, runs, fragments, out),
        Merge::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs of the keys that these fragments asked for, and the fragments' responses: with the marks
    /// that were made when they were measured, or without.
    pub(super) fn split_by(
        protocol: Protocol,
        order: &[u16],
        responses: &[&[u8]],
        is_marked: bool,
    ) -> (Vec<Run>, Vec<FragmentResponse>) {
        let runs = order.chunk_by(|a, b| a == b).map(|run| Run {
            fragment: run[0],
            keys: crate::num::to_u32(run.len()),
        });
        let responses = (0..).zip(responses).map(|(index, bytes)| {
            let mut marks = Vec::new();
            let step = ResponseParser::new(protocol).step_marking(bytes, &mut marks);
            // What the servers send ends where the parser says.
            if !is_marked || step != ResponseStep::Done(bytes.len()) {
                marks.clear();
            }
            FragmentResponse {
                bytes: bytes.to_vec(),
                keys: crate::num::to_u32(order.iter().filter(|of| **of == index).count()),
                marks,
                next: 0,
            }
        });
        (runs.collect(), responses.collect())
    }
}
