//! Framing memcached requests: where a request ends, whatever pieces it arrives in.
//!
//! A line is searched for its end once, read once, and a data block is skipped by its length.
//! After a refusal the stream stays aligned: the block that the line announced is dropped too.

use alloc::vec::Vec;

use memchr::memchr;

use super::Invalid;
use super::commands::COMMANDS;
use super::line::{self, Line, Refusal};
use super::words::{DEL, low_end, short_number_after, word_end};
use crate::limits::{
    MEMCACHE_BINARY_HEADER_LEN, MEMCACHE_KEY_LEN_MAX, MEMCACHE_KEYS_MAX, MEMCACHE_LINE_LEN_MAX,
};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::{self, Merge, Noted, Parse, Part, Request, RequestLimits, Route, Span, Then};

/// Resumable position within one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestParser {
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The line's end is sought; it is not in the first `searched` bytes.
    Line { searched: u32 },
    /// The line was good; the frame ends with its data block.
    Block(Request),
    /// Bytes to drop of a refused request's data block.
    DropBlock { left: u32 },
    /// The rest of a line that is too long is dropped.
    DropLine,
}

impl Default for State {
    fn default() -> Self {
        Self::Line { searched: 0 }
    }
}

impl RequestParser {
    /// See [`crate::proto::RequestParser::parse`].
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], limits: &RequestLimits) -> Parse {
        self.parse_noting(bytes, limits, None)
    }

    /// See [`crate::proto::RequestParser::parse_noting`].
    #[inline]
    pub fn parse_noting(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
        noted: Noted<'_>,
    ) -> Parse {
        match self.state {
            State::Line { searched: 0 } => {
                if let Some(request) = plain_get(bytes, limits) {
                    Parse::Complete(request)
                } else if let Some(request) = plain_set(bytes, limits) {
                    self.block(bytes, request)
                } else {
                    self.line_noting(bytes, limits, noted)
                }
            }
            State::Line { searched } => {
                if let Some(noted) = noted {
                    noted.clear();
                }
                self.line(bytes, to_usize(searched), limits)
            }
            State::Block(request) => self.block(bytes, request),
            State::DropBlock { left } => self.drop_block(bytes, left),
            State::DropLine => self.drop_line(bytes),
        }
    }

    /// See [`crate::proto::RequestParser::is_at_start`].
    #[inline]
    pub(crate) const fn is_at_start(&self) -> bool {
        matches!(self.state, State::Line { searched: 0 })
    }

    /// As [`Self::line`] from the beginning, quicker for a `get` of many keys.
    fn line_noting(&mut self, bytes: &[u8], limits: &RequestLimits, noted: Noted<'_>) -> Parse {
        if let Some(noted) = noted {
            noted.clear();
            if let Some(request) = plain_get_of_many(bytes, limits, noted) {
                return Parse::Complete(request);
            }
            noted.clear();
        }
        self.line(bytes, 0, limits)
    }

    /// See [`crate::proto::RequestParser::parse_ordinary`].
    pub fn parse_ordinary(
        &self,
        bytes: &[u8],
        limits: &RequestLimits,
        out: &mut [Request],
    ) -> (usize, usize) {
        let (mut at, mut count) = (0, 0);
        if matches!(self.state, State::Line { searched: 0 }) {
            for request in out {
                let rest = &bytes[at..];
                let Some(next) = plain_get(rest, limits).or_else(|| whole_set(rest, limits)) else {
                    break;
                };
                at += to_usize(next.len);
                count += 1;
                *request = next;
            }
        }
        (count, at)
    }

    fn line(&mut self, bytes: &[u8], searched: usize, limits: &RequestLimits) -> Parse {
        if bytes.first() == Some(&b' ') {
            // memcached before 1.6.40 skips them; later versions read a line of another meaning.
            let len = bytes.iter().take_while(|&&byte| byte == b' ').count();
            return Parse::Skip { len };
        }
        if bytes.first() == Some(&BINARY_MAGIC) {
            let header_len = MEMCACHE_BINARY_HEADER_LEN.min(to_usize(limits.frame_len_max));
            if bytes.len() < header_len {
                return Parse::Incomplete { need: header_len };
            }
            return invalid(Invalid::Binary, header_len, Then::Close);
        }
        let end = memchr(b'\n', &bytes[searched..]).map(|place| searched + place);
        if let Some(parse) = self.too_long(bytes, end.unwrap_or(bytes.len()), limits) {
            return parse;
        }
        let Some(end) = end else {
            self.state = State::Line {
                searched: to_u32(bytes.len()),
            };
            return Parse::Incomplete { need: 0 };
        };
        self.state = State::default();
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        match line::read(line, limits.allow_flush) {
            Ok(line) => self.accepted(bytes, line, end + 1, limits),
            Err(refusal) => self.refused(refusal, end + 1),
        }
    }

    /// What to do if `bytes` cannot be a good request, of which the first `without_end` hold no
    /// line end. Depends on no byte that may not be there yet.
    fn too_long(
        &mut self,
        bytes: &[u8],
        without_end: usize,
        limits: &RequestLimits,
    ) -> Option<Parse> {
        let frame_len_max = to_usize(limits.frame_len_max);
        if frame_len_max > MEMCACHE_LINE_LEN_MAX
            && without_end > MEMCACHE_LINE_LEN_MAX
            && !may_be_long(bytes)
        {
            return Some(invalid(Invalid::LineTooLong, 0, Then::Close));
        }
        if without_end < frame_len_max {
            return None;
        }
        self.state = State::DropLine;
        Some(invalid(Invalid::LineTooLong, frame_len_max, Then::Continue))
    }

    #[inline]
    fn accepted(
        &mut self,
        bytes: &[u8],
        line: Line,
        line_len: usize,
        limits: &RequestLimits,
    ) -> Parse {
        let block_len = line
            .block_len
            .map_or(0, |len| u64::from(len) + to_u64(CRLF.len()));
        let len = match u32::try_from(to_u64(line_len) + block_len) {
            Ok(len) if len <= limits.frame_len_max => len,
            _ => {
                let refusal = Refusal {
                    is_quiet: line.noreply,
                    block_len: line.block_len,
                    ..Invalid::TooLarge.into()
                };
                return self.refused(refusal, line_len);
            }
        };
        if line.is_composed {
            return Parse::Inline { len: line_len };
        }
        let request = Request {
            len,
            command: line.command,
            noreply: line.noreply,
            readonly: COMMANDS[usize::from(line.command)].shape.is_readonly(),
            route: line.route,
        };
        if line.block_len.is_some() {
            self.block(bytes, request)
        } else {
            Parse::Complete(request)
        }
    }

    #[inline]
    fn block(&mut self, bytes: &[u8], request: Request) -> Parse {
        let len = to_usize(request.len);
        let Some(frame) = bytes.get(..len) else {
            self.state = State::Block(request);
            return Parse::Incomplete { need: len };
        };
        self.state = State::default();
        if frame.ends_with(CRLF) {
            Parse::Complete(request)
        } else if request.noreply {
            Parse::Skip { len }
        } else {
            // As in memcached, which has taken just that many bytes, the next line is a command.
            invalid(Invalid::DataChunk, len, Then::Continue)
        }
    }

    fn refused(&mut self, refusal: Refusal, line_len: usize) -> Parse {
        if let Some(len) = refusal.block_len {
            // No overflow: the line's reader accepts no block that memcached would not.
            self.state = State::DropBlock { left: len + 2 };
        }
        if refusal.is_quiet {
            Parse::Skip { len: line_len }
        } else {
            invalid(refusal.invalid, line_len, refusal.then)
        }
    }

    fn drop_block(&mut self, bytes: &[u8], left: u32) -> Parse {
        if bytes.is_empty() {
            return Parse::Incomplete { need: 0 };
        }
        let len = bytes.len().min(to_usize(left));
        self.state = match left - to_u32(len) {
            0 => State::default(),
            left => State::DropBlock { left },
        };
        Parse::Skip { len }
    }

    fn drop_line(&mut self, bytes: &[u8]) -> Parse {
        if bytes.is_empty() {
            return Parse::Incomplete { need: 0 };
        }
        let len = match memchr(b'\n', bytes) {
            Some(end) => {
                self.state = State::default();
                end + 1
            }
            None => bytes.len(),
        };
        Parse::Skip { len }
    }
}

/// See [`crate::proto::compose`].
pub fn compose(line: &[u8], out: &mut Vec<u8>) {
    line::compose(without_end(line), out);
}

/// A line without its LF and the CR before it.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The commonest request, written in the commonest way and whole; everything else, and every
/// fault, is left to the general reader.
#[inline]
fn plain_get(bytes: &[u8], limits: &RequestLimits) -> Option<Request> {
    let key = plain_key(bytes, GET)?;
    let line_end = to_usize(key.end);
    let len = line_end + CRLF.len();
    if bytes.get(line_end..len) != Some(CRLF) || len > to_usize(limits.frame_len_max) {
        return None;
    }
    Some(Request {
        len: to_u32(len),
        command: GET_COMMAND,
        noreply: false,
        readonly: true,
        route: Route::Key(key),
    })
}

/// As [`plain_get`], for two keys or more, which are appended to `parts`. `None` says nothing, and leaves
/// some keys behind.
#[inline(never)]
fn plain_get_of_many(
    bytes: &[u8],
    limits: &RequestLimits,
    parts: &mut Vec<Part>,
) -> Option<Request> {
    let (command, mut at) = if bytes.starts_with(GET) {
        (GET_COMMAND, GET.len())
    } else if bytes.starts_with(GETS) {
        (GETS_COMMAND, GETS.len())
    } else {
        return None;
    };
    let len = memchr(b'\n', bytes)? + 1;
    let line = bytes[..len].strip_suffix(CRLF)?;
    // A key takes two bytes at least: a line of this length has no more keys than a request may have.
    let len_max = to_usize(limits.frame_len_max).min(2 * MEMCACHE_KEYS_MAX);
    if len > len_max || memchr(DEL, line).is_some() {
        return None;
    }
    loop {
        let end = low_end(bytes, at);
        let is_key = (1..=MEMCACHE_KEY_LEN_MAX).contains(&(end - at));
        if !is_key {
            return None;
        }
        let key = Span {
            start: to_u32(at),
            end: to_u32(end),
        };
        parts.push(Part { key, raw: key });
        if bytes.get(end) != Some(&b' ') {
            // Whatever else ends a key, it must be the line end.
            break (end == line.len() && parts.len() > 1).then_some(Request {
                len: to_u32(len),
                command,
                noreply: false,
                readonly: true,
                route: Route::Keys(Some(Merge::Values)),
            });
        }
        at = end + 1;
    }
}

/// As [`plain_get`], for the line before a data block.
#[inline]
fn plain_set(bytes: &[u8], limits: &RequestLimits) -> Option<Request> {
    let key = plain_key(bytes, SET)?;
    let (_flags, at) = short_number_after(bytes, to_usize(key.end))?;
    let (_exptime, at) = short_number_after(bytes, at)?;
    let (block_len, at) = short_number_after(bytes, at)?;
    let len = at + to_usize(block_len) + 2 * CRLF.len();
    if bytes.get(at..at + CRLF.len()) != Some(CRLF) || len > to_usize(limits.frame_len_max) {
        return None;
    }
    Some(Request {
        len: to_u32(len),
        command: SET_COMMAND,
        noreply: false,
        readonly: false,
        route: Route::Key(key),
    })
}

/// As [`plain_set`], with its data block.
#[inline]
fn whole_set(bytes: &[u8], limits: &RequestLimits) -> Option<Request> {
    let request = plain_set(bytes, limits)?;
    let frame = bytes.get(..to_usize(request.len))?;
    frame.ends_with(CRLF).then_some(request)
}

#[inline]
fn plain_key(bytes: &[u8], head: &[u8]) -> Option<Span> {
    if !bytes.starts_with(head) {
        return None;
    }
    let end = word_end(bytes, head.len());
    (1..=MEMCACHE_KEY_LEN_MAX)
        .contains(&(end - head.len()))
        .then(|| Span {
            start: to_u32(head.len()),
            end: to_u32(end),
        })
}

/// Whether such a line is read on when it is above the limit for all others.
fn may_be_long(bytes: &[u8]) -> bool {
    [GET, GETS, b"gat ", b"gats "]
        .iter()
        .any(|command| bytes.starts_with(command))
}

const fn invalid(invalid: Invalid, len: usize, then: Then) -> Parse {
    Parse::Invalid {
        invalid: proto::Invalid::Memcache(invalid),
        len,
        then,
    }
}

const GET: &[u8] = b"get ";
const GET_COMMAND: u16 = 0;
const _: () = assert!(matches!(COMMANDS[0].name.as_bytes(), b"get"));
const GETS: &[u8] = b"gets ";
const GETS_COMMAND: u16 = 2;
const _: () = assert!(matches!(COMMANDS[2].name.as_bytes(), b"gets"));
const SET: &[u8] = b"set ";
const SET_COMMAND: u16 = 1;
const _: () = assert!(matches!(COMMANDS[1].name.as_bytes(), b"set"));

const BINARY_MAGIC: u8 = 0x80;
const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests;
