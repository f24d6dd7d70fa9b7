//! Measuring memcached responses: how far each reaches, and nothing else.
//!
//! A response is one line, or `VALUE` blocks and an `END`. Data is skipped by its length, over as
//! many calls as it takes. What no memcached says is refused, because after it the next response
//! could be taken for another client's.

use alloc::vec::Vec;

use memchr::memchr;

use super::words::{Words, low_end, short_number_after, word_end};
use crate::limits::{RESPONSE_LINE_LEN_MAX, RESPONSE_MARKS_MAX};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::ResponseStep;
use crate::proto::scan::{Known, digits_u32, digits_u64, likely_short_header};

/// Resumable position within one response.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseParser {
    state: State,
    /// So many bytes of the unfinished line hold no line end.
    searched: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// At the first line.
    #[default]
    First,
    /// At a line after a `VALUE` block.
    Next,
    /// Within a block's data.
    Data { left: u32 },
    /// At the line end after a block's data.
    DataEnd,
}

impl ResponseParser {
    /// See [`crate::proto::ResponseParser::step`].
    #[inline]
    pub fn step(&mut self, bytes: &[u8]) -> ResponseStep {
        if matches!(self.state, State::First)
            && self.searched == 0
            && let Some(len) = whole_hit(bytes)
        {
            return ResponseStep::Done(len);
        }
        self.step_any(bytes)
    }

    /// See [`crate::proto::ResponseParser::least_rest`].
    pub const fn least_rest(&self) -> u64 {
        match self.state {
            State::First => 0,
            State::Next => to_u64(END.len()),
            State::Data { left } => to_u64(HIT_END.len() + to_usize(left)),
            State::DataEnd => to_u64(HIT_END.len()),
        }
    }

    /// As [`Self::step`], for responses of any kind.
    fn step_any(&mut self, bytes: &[u8]) -> ResponseStep {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match self.state {
                State::First | State::Next => {
                    let (line_len, meaning) = match self.line(rest) {
                        Ok(Some(line)) => line,
                        Ok(None) => return ResponseStep::More(at),
                        Err(NoResponse) => return ResponseStep::Invalid,
                    };
                    at += line_len;
                    match meaning {
                        Meaning::End => {
                            self.state = State::First;
                            return ResponseStep::Done(at);
                        }
                        Meaning::Value { data_len } => self.state = State::Data { left: data_len },
                        Meaning::Line if matches!(self.state, State::First) => {
                            return ResponseStep::Done(at);
                        }
                        Meaning::Line | Meaning::Nothing => return ResponseStep::Invalid,
                    }
                }
                State::Data { left } => {
                    let len = rest.len().min(to_usize(left));
                    at += len;
                    let left = left - to_u32(len);
                    if left > 0 {
                        self.state = State::Data { left };
                        return ResponseStep::More(at);
                    }
                    self.state = State::DataEnd;
                }
                State::DataEnd => {
                    if !rest.starts_with(CRLF) {
                        return if CRLF.starts_with(rest) {
                            ResponseStep::More(at)
                        } else {
                            ResponseStep::Invalid
                        };
                    }
                    at += CRLF.len();
                    self.state = State::Next;
                }
            }
        }
    }

    /// The length of the `VALUE` blocks and `END` that `bytes` begin with, if nothing of them has been
    /// consumed, they are whole and written in the commonest way; `marks` gets where the first block begins
    /// and where each ends.
    #[inline(never)]
    pub(in crate::proto) fn whole_values(
        &mut self,
        bytes: &[u8],
        marks: &mut Vec<usize>,
    ) -> Option<usize> {
        if !matches!(self.state, State::First) {
            return None;
        }
        let mut at = 0;
        // What stands between key and data: flags of one digit and a short length.
        let mut known = Known::new(*b" 0 0\r\n  ", 6, (6, 0));
        loop {
            marks.push(at);
            let rest = bytes.get(at..)?;
            if !rest.starts_with(VALUE) {
                let is_end = rest.starts_with(END);
                if is_end {
                    self.searched = 0;
                }
                return is_end.then_some(at + END.len());
            }
            let key_end = low_end(rest, VALUE.len());
            let tail = rest.get(key_end..)?.first_chunk();
            let is_short_line = VALUE.len() < key_end && key_end < RESPONSE_LINE_LEN_MAX - 8;
            let (line_len, data_len) = match tail.and_then(|tail| known.at(tail)) {
                Some((tail_len, data_len)) if is_short_line => (key_end + tail_len, data_len),
                _ => {
                    let short = short_value_line_end(rest, key_end).filter(|_| is_short_line);
                    let (line_len, data_len) = short.or_else(|| plain_value_line(rest))?;
                    if let (Some(tail), len @ 1..=8) = (tail, line_len - key_end) {
                        known = Known::new(*tail, len, (len, data_len));
                    }
                    (line_len, data_len)
                }
            };
            let data_end = at + line_len + to_usize(data_len);
            let after = bytes.get(data_end..)?.first_chunk::<2>()?;
            if after != CRLF || marks.len() > RESPONSE_MARKS_MAX {
                return None;
            }
            at = data_end + CRLF.len();
        }
    }

    /// See [`crate::proto::ResponseParser::measure`].
    pub fn measure(&mut self, bytes: &[u8], lens: &mut [u32]) -> (usize, Option<ResponseStep>) {
        let (mut at, mut count) = (0, 0);
        for place in lens {
            if at == bytes.len() {
                break;
            }
            match self.step(&bytes[at..]) {
                ResponseStep::Done(len) => {
                    *place = to_u32(len);
                    at += len;
                    count += 1;
                }
                other => return (count, Some(other)),
            }
        }
        (count, None)
    }

    /// The length of the first line of `rest` and what it says; `None` if it is not whole.
    #[inline]
    fn line(&mut self, rest: &[u8]) -> Result<Option<(usize, Meaning)>, NoResponse> {
        let searched = to_usize(self.searched);
        if searched == 0 {
            // What hits and misses consist of; the general way would find the same.
            if rest.starts_with(END) {
                return Ok(Some((END.len(), Meaning::End)));
            }
            if let Some((line_len, data_len)) = plain_value_line(rest) {
                return Ok(Some((line_len, Meaning::Value { data_len })));
            }
        }
        let end = memchr(b'\n', &rest[searched..]).map(|place| searched + place);
        if end.unwrap_or(rest.len()) >= RESPONSE_LINE_LEN_MAX {
            return Err(NoResponse);
        }
        let Some(end) = end else {
            self.searched = to_u32(rest.len());
            return Ok(None);
        };
        self.searched = 0;
        let line = rest[..end].strip_suffix(b"\r").ok_or(NoResponse)?;
        Ok(Some((end + 1, Meaning::of(line))))
    }
}

struct NoResponse;

/// What a line, given without its end, says.
enum Meaning {
    /// It is a response.
    Line,
    /// It ends a response.
    End,
    /// So many bytes of data and a line end follow, then another line.
    Value { data_len: u32 },
    /// No memcached writes it.
    Nothing,
}

impl Meaning {
    #[inline]
    fn of(line: &[u8]) -> Self {
        let word_len = line
            .iter()
            .position(|&byte| byte == b' ')
            .unwrap_or(line.len());
        let (word, text) = line.split_at(word_len);
        let is_response = match word {
            b"END" if text.is_empty() => return Self::End,
            b"VALUE" => {
                return value_data_len(line)
                    .map_or(Self::Nothing, |data_len| Self::Value { data_len });
            }
            b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND" | b"DELETED" | b"TOUCHED"
            | b"OK" => is_blank(text),
            // `ERROR` is usually alone, but `ERROR Too many open connections` exists.
            b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" | b"VERSION" => true,
            // decr keeps the value's length and pads it with blanks.
            number => digits_u64(number).is_some() && is_blank(text),
        };
        if is_response {
            Self::Line
        } else {
            Self::Nothing
        }
    }
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == b' ')
}

/// Whether a response tells the client of a failure.
pub(in crate::proto) fn is_error(response: &[u8]) -> bool {
    let word = response.split(|&byte| matches!(byte, b' ' | b'\r')).next();
    matches!(word, Some(b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR"))
}

/// The length of the `VALUE` block that `bytes` begin with: line, data and line end.
pub(super) fn value_block_len(bytes: &[u8]) -> Option<usize> {
    let (line_len, data_len) = plain_value_line(bytes).or_else(|| {
        let line_len = memchr(b'\n', bytes)? + 1;
        let line = bytes[..line_len].strip_suffix(CRLF)?;
        Some((line_len, value_data_len(line)?))
    })?;
    let data_end = line_len.checked_add(to_usize(data_len))?;
    let block_end = data_end.checked_add(CRLF.len())?;
    (bytes.get(data_end..block_end)? == CRLF).then_some(block_end)
}

/// The length of the response that `bytes` begin with, if it is one plain value, whole.
#[inline(always)]
fn whole_hit(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(VALUE) {
        return None;
    }
    let key_end = word_end(bytes, VALUE.len());
    let (line_len, data_len) = short_value_line_end(bytes, key_end)?;
    let end = line_len + to_usize(data_len);
    let after = bytes.get(end..end + HIT_END.len())?;
    (after == HIT_END && key_end > VALUE.len()).then_some(end + HIT_END.len())
}

/// The lengths of a `VALUE` line and of its data, if the line is whole and written as memcached
/// answers `get`; any other is left to [`value_data_len`].
#[inline]
fn plain_value_line(bytes: &[u8]) -> Option<(usize, u32)> {
    if !bytes.starts_with(VALUE) {
        return None;
    }
    let key_end = low_end(bytes, VALUE.len());
    if key_end == VALUE.len() {
        return None;
    }
    if let Some(short) = short_value_line_end(bytes, key_end) {
        return Some(short);
    }
    let (_flags, at) = short_number_after(bytes, key_end)?;
    let (data_len, end) = short_number_after(bytes, at)?;
    let line_len = end + CRLF.len();
    let is_line = bytes.get(end..line_len)? == CRLF && line_len <= RESPONSE_LINE_LEN_MAX;
    is_line.then_some((line_len, data_len))
}

/// As [`plain_value_line`] from the end of the key on, for flags of one digit and data of less than a
/// thousand bytes, as nearly all are.
#[inline(always)]
fn short_value_line_end(bytes: &[u8], key_end: usize) -> Option<(usize, u32)> {
    let rest = bytes.get(key_end..)?;
    let &[b' ', b'0'..=b'9', ref len @ ..] = rest else {
        return None;
    };
    let (data_len, len) = likely_short_header(b' ', len)?;
    let line_len = key_end + 2 + to_usize(len);
    (line_len <= RESPONSE_LINE_LEN_MAX).then_some((line_len, data_len))
}

/// Reads `VALUE <key> <flags> <bytes> [<cas>]`.
fn value_data_len(line: &[u8]) -> Option<u32> {
    if !line.starts_with(VALUE) {
        return None;
    }
    let mut words = Words::new(line).map(|word| word.of(line));
    let _value = words.next()?;
    let _key = words.next()?;
    let _flags = digits_u64(words.next()?)?;
    let data_len = digits_u32(words.next()?)?;
    if let Some(cas) = words.next() {
        digits_u64(cas)?;
    }
    words.next().is_none().then_some(data_len)
}

const VALUE: &[u8] = b"VALUE ";
pub(super) const END: &[u8] = b"END\r\n";
/// What follows the data of the only value of a response.
const HIT_END: &[u8] = b"\r\nEND\r\n";
const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests;
