//! Measuring redis responses.
//!
//! A response is a tree of elements; measuring it needs no stack, only how many elements are still to
//! come: a scalar takes one away, an array of `n` adds `n` and takes itself away. The words of a
//! line and the bytes of a bulk string are never looked at.
//!
//! RESP2 only. A type of RESP3 would be one more arm of `long_line`: a scalar, a body, or a
//! multiple of elements.

use alloc::vec::Vec;

use super::bulk;
use crate::limits::{RESPONSE_LINE_LEN_MAX, RESPONSE_MARKS_MAX};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::ResponseStep;
use crate::proto::scan::{self, Known};

/// Resumable position within one response.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseParser {
    /// Elements still to come, the current one included; 0 at the start of a response.
    elements: u64,
    /// Bytes still to come of the current bulk string; `None` at the start of a line.
    body: Option<u64>,
    /// The unfinished line has no end in its first `scanned` bytes.
    scanned: u32,
}

/// What one line of a response says.
enum Line {
    /// The element ends with the line, after this many bytes.
    Scalar(usize),
    /// So many bytes of body follow the line.
    Body(u64, usize),
    /// So many elements follow the line.
    Elements(u64, usize),
    /// The line's end is not there yet.
    Unfinished,
    /// No server says that.
    Invalid,
}

impl ResponseParser {
    /// See [`crate::proto::ResponseParser::step`].
    #[inline(always)]
    pub fn step(&mut self, bytes: &[u8]) -> ResponseStep {
        if self.elements == 0
            && let Some(len) = whole_bulk(bytes)
        {
            self.scanned = 0;
            return ResponseStep::Done(len);
        }
        self.step_any(bytes)
    }

    /// See [`crate::proto::ResponseParser::measure`].
    #[inline(never)]
    pub fn measure(&mut self, bytes: &[u8], lens: &mut [u32]) -> (usize, Option<ResponseStep>) {
        let (mut at, mut count) = (0, 0);
        let mut is_begun = self.elements > 0 || self.scanned > 0;
        for place in lens {
            let rest = &bytes[at..];
            let len = if !is_begun && let Some(word) = bulk::two_digit_at(rest, 0) {
                to_usize(word.raw.end)
            } else if rest.is_empty() {
                break;
            } else {
                is_begun = false;
                match self.step_any(rest) {
                    ResponseStep::Done(len) if rest[0] != b'-' => len,
                    other => return (count, Some(other)),
                }
            };
            *place = to_u32(len);
            at += len;
            count += 1;
        }
        (count, None)
    }

    /// See [`crate::proto::ResponseParser::least_rest`].
    pub const fn least_rest(&self) -> u64 {
        match self.body {
            Some(body) => {
                let others = self.elements.saturating_sub(1);
                let others = others.saturating_mul(ELEMENT_LEN_MIN);
                body.saturating_add(2).saturating_add(others)
            }
            None => self.elements.saturating_mul(ELEMENT_LEN_MIN),
        }
    }

    /// As [`Self::step`], for responses of any kind.
    #[inline(never)]
    fn step_any(&mut self, bytes: &[u8]) -> ResponseStep {
        let mut at = 0;
        let mut elements = self.elements.max(1);
        loop {
            if let Some(rest) = self.body {
                match end_of_body(&bytes[at..], rest) {
                    Body::Ended(len) => at += len,
                    Body::More(len) => {
                        self.elements = elements;
                        self.body = Some(rest - to_u64(len));
                        return ResponseStep::More(at + len);
                    }
                    Body::Invalid => return ResponseStep::Invalid,
                }
                self.body = None;
                elements -= 1;
            } else if let Some(len) = whole_bulk(&bytes[at..]) {
                // What most arrays are made of.
                self.scanned = 0;
                at += len;
                elements -= 1;
                while elements > 0
                    && let Some(len) = whole_bulk(&bytes[at..])
                {
                    at += len;
                    elements -= 1;
                }
            } else {
                match self.line(&bytes[at..]) {
                    Line::Scalar(len) => {
                        at += len;
                        elements -= 1;
                    }
                    Line::Body(body, len) => {
                        at += len;
                        self.body = Some(body);
                    }
                    Line::Elements(count, len) => {
                        at += len;
                        let Some(sum) = (elements - 1).checked_add(count) else {
                            return ResponseStep::Invalid;
                        };
                        elements = sum;
                    }
                    Line::Unfinished => {
                        self.elements = elements;
                        return ResponseStep::More(at);
                    }
                    Line::Invalid => return ResponseStep::Invalid,
                }
            }
            if elements == 0 && self.body.is_none() {
                self.elements = 0;
                return ResponseStep::Done(at);
            }
        }
    }

    /// The length of the array that `bytes` begin with, if nothing of it has been consumed, it is whole
    /// and has short bulk strings and nils only; `marks` gets where the first begins and where each ends.
    #[inline(never)]
    pub(in crate::proto) fn whole_array(
        &mut self,
        bytes: &[u8],
        marks: &mut Vec<usize>,
    ) -> Option<usize> {
        let (count, header_len) = scan::short_header(b'*', bytes)?;
        if self.elements > 0 || to_usize(count) > RESPONSE_MARKS_MAX {
            return None;
        }
        let mut at = to_usize(header_len);
        marks.resize(to_usize(count) + 1, at);
        let mut known = Known::new(*b"$0\r\n    ", 4, 4);
        for mark in &mut marks[1..] {
            let rest = bytes.get(at..)?;
            let line = rest.first_chunk();
            at += match line.and_then(|line| known.at(line)) {
                Some(len) if bulk::is_line_end(rest, len) => len + 2,
                Some(_) => return None,
                None if rest.starts_with(NIL) => NIL.len(),
                None => {
                    let word = bulk::at(rest, 0)?;
                    if let Some(line) = line {
                        let header_len = to_usize(word.text.start);
                        known = Known::new(*line, header_len, to_usize(word.text.end));
                    }
                    to_usize(word.raw.end)
                }
            };
            *mark = at;
        }
        self.scanned = 0;
        Some(at)
    }

    /// Reads the line that `text` begins with.
    #[inline]
    fn line(&mut self, text: &[u8]) -> Line {
        let Some(&kind) = text.first() else {
            return Line::Unfinished;
        };
        if let Some((n, len)) = scan::short_header(kind, text) {
            self.scanned = 0;
            match kind {
                b'$' => return Line::Body(u64::from(n), to_usize(len)),
                b'*' => return Line::Elements(u64::from(n), to_usize(len)),
                b':' => return Line::Scalar(to_usize(len)),
                _ => {}
            }
        }
        if text.starts_with(b"+OK\r\n") || text.starts_with(b"$-1\r\n") {
            self.scanned = 0;
            return Line::Scalar(5);
        }
        self.long_line(kind, text)
    }

    fn long_line(&mut self, kind: u8, text: &[u8]) -> Line {
        if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
            return Line::Invalid;
        }
        let scanned = to_usize(self.scanned);
        let line = &text[..text.len().min(RESPONSE_LINE_LEN_MAX)];
        // A line feed alone ends the line for some clients (phpredis) and not for others.
        let Some(cr) = memchr::memchr2(b'\r', b'\n', &line[scanned..]) else {
            self.scanned = to_u32(line.len());
            return if text.len() < RESPONSE_LINE_LEN_MAX {
                Line::Unfinished
            } else {
                Line::Invalid
            };
        };
        let cr = scanned + cr;
        match text[cr..] {
            [b'\r'] => {
                self.scanned = to_u32(cr);
                return Line::Unfinished;
            }
            [b'\r', b'\n', ..] => self.scanned = 0,
            _ => return Line::Invalid,
        }
        let len = cr + 2;
        let n = &text[1..cr];
        match kind {
            b'+' | b'-' => Line::Scalar(len),
            b':' if scan::canonical_i64(n).is_some() => Line::Scalar(len),
            b'$' | b'*' if n == b"-1" => Line::Scalar(len),
            b'$' => scan::digits_u64(n).map_or(Line::Invalid, |n| Line::Body(n, len)),
            b'*' => scan::digits_u64(n).map_or(Line::Invalid, |n| Line::Elements(n, len)),
            _ => Line::Invalid,
        }
    }
}

/// The length of the response that `bytes` begin with, if it is a short bulk string and whole.
#[inline(always)]
fn whole_bulk(bytes: &[u8]) -> Option<usize> {
    bulk::at(bytes, 0).map(|word| to_usize(word.raw.end))
}

const NIL: &[u8] = b"$-1\r\n";
/// A kind and a line end.
const ELEMENT_LEN_MIN: u64 = 3;

enum Body {
    Ended(usize),
    More(usize),
    Invalid,
}

/// Looks for the end of a body of which `rest` bytes and the line end are still to come.
#[inline]
fn end_of_body(bytes: &[u8], rest: u64) -> Body {
    let Some(len) = usize::try_from(rest).ok().filter(|&len| len <= bytes.len()) else {
        return Body::More(bytes.len());
    };
    match bytes[len..] {
        [b'\r', b'\n', ..] => Body::Ended(len + 2),
        [] | [b'\r'] => Body::More(len),
        _ => Body::Invalid,
    }
}

#[cfg(test)]
mod tests;
