//! Framing of redis requests; what a complete one is, `classify` says.
//!
//! A frame is `*<words>` and then `$<length>`, the word itself, for each word; every line and word
//! ends in `CRLF`. What does not begin with `*` is an inline command, a line of words.
//!
//! Invariants:
//! 1. No byte is looked at twice, but those of a frame's first piece, which are tried in `fast` and `many`
//!    before: `at` only grows within a frame, and the search for the end of an unfinished line goes on at
//!    `scanned`.
//! 2. Nothing is forwarded that a server could read in another way. Redis skips the byte after a
//!    header's `CR` and the two bytes after a word without a look; here they must be `LF` and
//!    `CRLF`, so that servers that do look agree with us, and so that a length that is wrong by a
//!    few bytes is noticed at once.
//! 3. A frame is never longer than the limit: the least length that its headers promise is checked
//!    at each header, before the bytes are waited for.
//! 4. A refused large frame passes in pieces ([`Parse::Skip`]) and is still read word by word, so
//!    that the next request is found.

use super::bulk;
use super::classify::classify;
use super::words::{Command, HEAD_WORDS};
use super::{Invalid, fast, many};
use crate::limits::{
    RECV_ROOM_MIN, REDIS_ARGS_MAX, REDIS_BULK_LEN_MAX, REDIS_INLINE_LEN_MAX,
    REDIS_UNAUTHENTICATED_ARGS_MAX, REDIS_UNAUTHENTICATED_BULK_LEN_MAX,
};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::{self, Noted, Parse, Request, RequestLimits, Span, Then, scan};

/// Resumable position within one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestParser {
    /// Everything before this is read: the start of a header line, or of a word if `word` is set.
    at: u32,
    /// The unfinished line from `at` has no end in its first `scanned` bytes.
    scanned: u32,
    /// Words announced; 0 at the start of a frame.
    words: u32,
    /// Words read, less than `words`.
    read: u32,
    /// Length of the word that begins at `at`; when swallowing, what is left of it.
    word: Option<u32>,
    /// The frame was refused, its bytes are dropped.
    is_swallowing: bool,
    /// The first words read.
    head: [Span; HEAD_WORDS],
}

/// What a header line says.
enum Header {
    /// This number; the next byte is there.
    Number(u32, usize),
    /// Its end is not there yet.
    Unfinished,
    /// It cannot be read.
    Invalid(Invalid),
    /// An array without words.
    Empty(usize),
}

/// Bytes of the shortest word: `$0`, and two line ends.
const WORD_LEN_MIN: u64 = 6;

/// No less than the bytes of a frame's short header and a word with a short header; a power of two,
/// so that dividing by it is nothing.
const SHORT_WORD_LEN_MAX: u32 = 1024;
const _: () = assert!(SHORT_WORD_LEN_MAX >= 6 + (6 + 999 + 2));

impl RequestParser {
    /// See [`crate::proto::RequestParser::parse`].
    #[inline(always)]
    pub fn parse(&mut self, bytes: &[u8], limits: &RequestLimits) -> Parse {
        self.parse_noting(bytes, limits, None)
    }

    /// See [`crate::proto::RequestParser::parse_noting`].
    #[inline(always)]
    pub fn parse_noting(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
        noted: Noted<'_>,
    ) -> Parse {
        if self.words == 0
            && let Some(request) = fast::recognise(bytes, limits.frame_len_max)
        {
            self.scanned = 0;
            return Parse::Complete(request);
        }
        self.parse_any(bytes, limits, noted)
    }

    /// See [`crate::proto::RequestParser::is_at_start`].
    #[inline]
    pub(crate) const fn is_at_start(&self) -> bool {
        self.words == 0 && self.scanned == 0
    }

    /// See [`crate::proto::RequestParser::parse_ordinary`].
    #[inline]
    pub fn parse_ordinary(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
        out: &mut [Request],
    ) -> (usize, usize) {
        if self.words > 0 {
            return (0, 0);
        }
        let (count, len) = fast::recognise_many(bytes, limits.frame_len_max, out);
        if count > 0 {
            self.scanned = 0;
        }
        (count, len)
    }

    /// As [`Self::parse_noting`], for requests of any kind.
    #[inline(never)]
    fn parse_any(&mut self, bytes: &[u8], limits: &RequestLimits, noted: Noted<'_>) -> Parse {
        let front = if self.words == 0 { bytes } else { b"" };
        if let Some(request) = many::note(front, limits, noted) {
            self.scanned = 0;
            return Parse::Complete(request);
        }
        if self.words == 0 {
            if !self.begin_short(bytes, limits)
                && let Some(parse) = self.begin(bytes, limits)
            {
                return parse;
            }
        } else if self.is_swallowing {
            return self.swallow(bytes, limits);
        }
        if self.word.is_none()
            && let Some(len) = self.read_short_words(bytes, limits)
        {
            return self.complete(&bytes[..len]);
        }
        self.read_words(bytes, limits)
    }

    /// Reads a number of words as nearly all are: whole, small and within the limits. If it is not,
    /// nothing has changed.
    #[inline]
    fn begin_short(&mut self, bytes: &[u8], limits: &RequestLimits) -> bool {
        let Some((words @ 1.., len)) = scan::short_header(b'*', bytes) else {
            return false;
        };
        if limits.unauthenticated || words > limits.frame_len_max / SHORT_WORD_LEN_MAX {
            return false;
        }
        self.words = words;
        self.at = len;
        self.scanned = 0;
        true
    }

    /// Reads words as nearly all are: whole and shorter than 1000 bytes; up to the first that is
    /// not. The frame's length if it is complete.
    ///
    /// This loop and [`classify`] are most of what a request costs here.
    #[inline]
    fn read_short_words(&mut self, bytes: &[u8], limits: &RequestLimits) -> Option<usize> {
        let mut at = self.at;
        // Then no short word can break the limit.
        let room = limits.frame_len_max.saturating_sub(at) / SHORT_WORD_LEN_MAX;
        if self.words - self.read > room {
            return None;
        }
        let mut read = self.read;
        while let Some(word) = bulk::at(bytes, at) {
            if let Some(slot) = self.head.get_mut(to_usize(read)) {
                *slot = word.text;
            }
            at = word.raw.end;
            read += 1;
            if read == self.words {
                return Some(to_usize(at));
            }
        }
        if read > self.read {
            self.scanned = 0;
        }
        self.at = at;
        self.read = read;
        None
    }

    /// Reads any number of words; `None` when they follow.
    fn begin(&mut self, bytes: &[u8], limits: &RequestLimits) -> Option<Parse> {
        if bytes.first() != Some(&b'*') {
            return Some(self.read_inline(bytes, limits));
        }
        let (words, next) = match self.count(bytes) {
            Header::Number(words, next) => (words, next),
            Header::Unfinished => {
                return Some(Parse::Incomplete { need: 0 });
            }
            Header::Invalid(invalid) => return Some(self.close(invalid, 0)),
            Header::Empty(len) => {
                self.reset();
                return Some(Parse::Skip { len });
            }
        };
        if limits.unauthenticated && words > REDIS_UNAUTHENTICATED_ARGS_MAX {
            return Some(self.close(Invalid::UnauthenticatedMultibulk, 0));
        }
        self.words = words;
        self.at = to_u32(next);
        self.scanned = 0;
        if len_of(next, words) > u64::from(limits.frame_len_max) {
            return Some(self.refuse(next));
        }
        None
    }

    /// Reads any words until the frame is complete or the bytes end.
    fn read_words(&mut self, bytes: &[u8], limits: &RequestLimits) -> Parse {
        let mut at = to_usize(self.at);
        let mut word = self.word;
        loop {
            let len = match word {
                Some(len) => len,
                None => match self.word_header(bytes, at, limits) {
                    Header::Number(len, next) => {
                        at = next;
                        let end = at + to_usize(len) + 2;
                        if len_of(end, self.words - self.read - 1) > u64::from(limits.frame_len_max)
                        {
                            self.word = Some(len);
                            return self.refuse(at);
                        }
                        len
                    }
                    Header::Unfinished => return self.wait_for_header(bytes.len(), at, limits),
                    Header::Invalid(invalid) => return self.close(invalid, at),
                    Header::Empty(_) => unreachable!("only the number of words can be none"),
                },
            };
            let end = at + to_usize(len);
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return self.close(Invalid::BulkLength, at),
                None => {
                    self.at = to_u32(at);
                    self.word = Some(len);
                    return Parse::Incomplete {
                        need: match self.words - self.read - 1 {
                            0 => end + 2,
                            more => least_len(end + 2, more, bytes.len(), limits),
                        },
                    };
                }
            }
            if let Some(slot) = self.head.get_mut(to_usize(self.read)) {
                *slot = Span {
                    start: to_u32(at),
                    end: to_u32(end),
                };
            }
            at = end + 2;
            word = None;
            self.read += 1;
            if self.read == self.words {
                return self.complete(&bytes[..at]);
            }
        }
    }

    /// Says what the complete `frame` is, and makes ready for the next one.
    #[inline]
    fn complete(&mut self, frame: &[u8]) -> Parse {
        let words = self.words;
        self.reset();
        classify(&Command {
            frame,
            words,
            head: &self.head,
        })
    }

    fn wait_for_header(&mut self, len: usize, at: usize, limits: &RequestLimits) -> Parse {
        self.at = to_u32(at);
        self.word = None;
        // A line is waited for even at the limit: whether it is a header is known at its end only,
        // which `line_end` bounds.
        Parse::Incomplete {
            need: least_len(at, self.words - self.read, len, limits),
        }
    }

    /// The number of words.
    #[cold]
    fn count(&mut self, bytes: &[u8]) -> Header {
        let (cr, next) = match self.line_end(bytes, 0, Invalid::CountTooLong) {
            Ok(Some(end)) => end,
            Ok(None) => return Header::Unfinished,
            Err(invalid) => return Header::Invalid(invalid),
        };
        match scan::canonical_i64(&bytes[1..cr]).map(u32::try_from) {
            _ if bytes[cr + 1] != b'\n' => Header::Invalid(Invalid::MultibulkLength),
            Some(Ok(words @ 1..=REDIS_ARGS_MAX)) => Header::Number(words, next),
            Some(Ok(0)) => Header::Empty(next),
            // compat: like redis, any number below 0 is as good as 0.
            Some(Err(_)) if bytes[1] == b'-' => Header::Empty(next),
            _ => Header::Invalid(Invalid::MultibulkLength),
        }
    }

    /// The length of the word whose header begins at `at`.
    #[inline]
    fn word_header(&mut self, bytes: &[u8], at: usize, limits: &RequestLimits) -> Header {
        if let Some(word) = bytes.get(at..)
            && let Some((len, header_len)) = scan::short_header(b'$', word)
        {
            self.scanned = 0;
            return Header::Number(len, at + to_usize(header_len));
        }
        self.long_word_header(bytes, at, limits)
    }

    fn long_word_header(&mut self, bytes: &[u8], at: usize, limits: &RequestLimits) -> Header {
        let (cr, next) = match self.line_end(bytes, at, Invalid::BulkLengthTooLong) {
            Ok(Some(end)) => end,
            Ok(None) => return Header::Unfinished,
            Err(invalid) => return Header::Invalid(invalid),
        };
        if bytes[at] != b'$' {
            return Header::Invalid(Invalid::ExpectedBulk(bytes[at]));
        }
        match scan::canonical_i64(&bytes[at + 1..cr]).map(u32::try_from) {
            _ if bytes[cr + 1] != b'\n' => Header::Invalid(Invalid::BulkLength),
            Some(Ok(len @ ..=REDIS_BULK_LEN_MAX)) => {
                if limits.unauthenticated && len > REDIS_UNAUTHENTICATED_BULK_LEN_MAX {
                    return Header::Invalid(Invalid::UnauthenticatedBulk);
                }
                Header::Number(len, next)
            }
            _ => Header::Invalid(Invalid::BulkLength),
        }
    }

    /// Finds the `CR` of the line that begins at `start` and the first byte behind the line; `None`
    /// while `CR` or the byte after it is missing.
    fn line_end(
        &mut self,
        bytes: &[u8],
        start: usize,
        too_long: Invalid,
    ) -> Result<Option<(usize, usize)>, Invalid> {
        let line = &bytes[start..bytes.len().min(start + REDIS_INLINE_LEN_MAX + 1)];
        let scanned = to_usize(self.scanned);
        match memchr::memchr(b'\r', &line[scanned..]) {
            Some(distance) if start + scanned + distance + 1 < bytes.len() => {
                self.scanned = 0;
                let cr = start + scanned + distance;
                Ok(Some((cr, cr + 2)))
            }
            Some(distance) => {
                self.scanned = to_u32(scanned + distance);
                Ok(None)
            }
            None if line.len() > REDIS_INLINE_LEN_MAX => Err(too_long),
            None => {
                self.scanned = to_u32(line.len());
                Ok(None)
            }
        }
    }

    fn read_inline(&mut self, bytes: &[u8], limits: &RequestLimits) -> Parse {
        let len_max = REDIS_INLINE_LEN_MAX.min(to_usize(limits.frame_len_max));
        let line = &bytes[..bytes.len().min(len_max + 1)];
        let scanned = to_usize(self.scanned);
        match memchr::memchr(b'\n', &line[scanned..]) {
            Some(distance) => {
                let len = scanned + distance + 1;
                self.reset();
                if bytes[..len]
                    .iter()
                    .all(|&byte| super::inline::is_blank(byte))
                {
                    Parse::Skip { len }
                } else {
                    Parse::Inline { len }
                }
            }
            None if line.len() > len_max => self.close(Invalid::InlineTooLong, 0),
            None => {
                self.scanned = to_u32(line.len());
                Parse::Incomplete { need: 0 }
            }
        }
    }

    /// Refuses the frame for its length. It was read up to `at`.
    #[cold]
    fn refuse(&mut self, at: usize) -> Parse {
        self.is_swallowing = true;
        self.at = 0;
        Parse::Invalid {
            invalid: Invalid::TooLarge.into(),
            len: at,
            then: Then::Continue,
        }
    }

    /// Drops what there is of a refused frame.
    #[cold]
    fn swallow(&mut self, bytes: &[u8], limits: &RequestLimits) -> Parse {
        let mut at = 0;
        loop {
            if let Some(rest) = self.word {
                let part = to_usize(rest).min(bytes.len() - at);
                at += part;
                self.word = Some(rest - to_u32(part));
                match bytes.get(at..at + 2) {
                    Some(b"\r\n") => at += 2,
                    Some(_) if to_usize(rest) == part => {
                        return self.close(Invalid::BulkLength, at);
                    }
                    _ => break,
                }
                self.word = None;
                self.read += 1;
                if self.read == self.words {
                    self.reset();
                    return Parse::Skip { len: at };
                }
            }
            match self.word_header(bytes, at, limits) {
                Header::Number(len, next) => {
                    at = next;
                    self.word = Some(len);
                }
                Header::Unfinished => break,
                Header::Invalid(invalid) => return self.close(invalid, at),
                Header::Empty(_) => unreachable!("only the number of words can be none"),
            }
        }
        if at == 0 {
            Parse::Incomplete { need: 0 }
        } else {
            Parse::Skip { len: at }
        }
    }

    /// Ends the stream: nothing behind the first `len` bytes can be trusted.
    #[cold]
    fn close(&mut self, invalid: Invalid, len: usize) -> Parse {
        self.reset();
        Parse::Invalid {
            invalid: invalid.into(),
            len,
            then: Then::Close,
        }
    }

    /// Makes ready for the next frame; `at` and `head` are written before they are read.
    #[inline]
    fn reset(&mut self) {
        self.words = 0;
        self.read = 0;
        self.word = None;
        self.scanned = 0;
        self.is_swallowing = false;
    }
}

impl From<Invalid> for proto::Invalid {
    fn from(invalid: Invalid) -> Self {
        Self::Redis(invalid)
    }
}

/// The least length of a frame that is read up to `at` and has `words` more words.
#[inline]
fn len_of(at: usize, words: u32) -> u64 {
    to_u64(at) + u64::from(words) * WORD_LEN_MIN
}

/// [`len_of`] as a hint for buffers that hold `len` bytes. Each header is checked against the limit when it
/// is read, so only what is still unread can promise more. A frame is hardly ever as short as it can be: a
/// buffer of just that length would be too short again and again, so little more is as good as unknown.
fn least_len(at: usize, words: u32, len: usize, limits: &RequestLimits) -> usize {
    let least = len_of(at, words).min(u64::from(limits.frame_len_max));
    let least = usize::try_from(least).unwrap_or(usize::MAX);
    if least >= len + RECV_ROOM_MIN {
        least
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
