//! The one reader of a whole bulk string: `$`, a length, the text, and `CRLF` behind both.
//!
//! Contract of each function: `Some` only if header, text and both line ends are there, and the length has
//! one to three digits without a leading zero. `None` says nothing about the bytes, which may be unfinished,
//! longer or something else: the parsers of requests and responses decide that.

use crate::num::to_usize;
use crate::proto::{Span, scan};

/// One bulk string of a frame; in a request, one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    /// With header and line end.
    pub(super) raw: Span,
    /// The text alone.
    pub(super) text: Span,
}

impl Word {
    /// A word whose header begins at `at` and has `header_len` bytes, with a text of `len` bytes.
    #[inline(always)]
    pub(super) const fn new(at: u32, header_len: u32, len: u32) -> Self {
        let start = at + header_len;
        let end = start + len;
        Self {
            raw: Span {
                start: at,
                end: end + 2,
            },
            text: Span { start, end },
        }
    }
}

/// The bulk string that begins at `at`.
#[inline(always)]
pub(super) fn at(bytes: &[u8], at: u32) -> Option<Word> {
    let (len, header_len) = scan::likely_short_header(b'$', bytes.get(to_usize(at)..)?)?;
    ended(bytes, Word::new(at, header_len, len))
}

/// Like [`at`], for texts of ten to 99 bytes alone: fewer instructions where nearly all are.
#[inline(always)]
pub(super) fn two_digit_at(bytes: &[u8], at: u32) -> Option<Word> {
    let len = scan::two_digit_header(b'$', bytes.get(to_usize(at)..)?)?;
    ended(bytes, Word::new(at, 5, len))
}

#[inline(always)]
fn ended(bytes: &[u8], word: Word) -> Option<Word> {
    is_line_end(bytes, to_usize(word.text.end)).then_some(word)
}

/// Whether a line ends at `at`.
#[inline(always)]
pub(super) fn is_line_end(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..at + 2) == Some(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::to_u32;
    use alloc::format;
    use alloc::vec::Vec;

    /// A slow, obvious reader of the same.
    fn naive(bytes: &[u8]) -> Option<(usize, usize)> {
        let line_len = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let digits = bytes[..line_len].strip_prefix(b"$")?;
        let text = core::str::from_utf8(digits).ok()?;
        let is_plain = (1..=3).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        let len: usize = text.parse().ok().filter(|_| is_plain)?;
        let start = line_len + 2;
        (bytes.get(start + len..start + len + 2)? == b"\r\n").then_some((start, start + len))
    }

    fn check(bytes: &[u8]) {
        let offset = 3;
        let shifted = [b"\r\n$", bytes].concat();
        let expected = naive(bytes).map(|(start, end)| Word {
            raw: Span {
                start: offset,
                end: offset + to_u32(end) + 2,
            },
            text: Span {
                start: offset + to_u32(start),
                end: offset + to_u32(end),
            },
        });
        assert_eq!(at(&shifted, offset), expected, "{bytes:?}");
        let is_two_digits = |word: &Word| (10..100).contains(&(word.text.end - word.text.start));
        assert_eq!(
            two_digit_at(&shifted, offset),
            // Its header is read as one word of eight bytes; a text of ten bytes has as many.
            expected.filter(is_two_digits),
            "{bytes:?}"
        );
    }

    #[test]
    fn every_length_and_every_cut_is_read_as_the_naive_reader_does() {
        for len in (0..120).chain([999, 1000]) {
            let text: Vec<u8> = b"$\r\n7".iter().copied().cycle().take(len).collect();
            let whole = [format!("${len}\r\n").as_bytes(), &text, b"\r\n"].concat();
            for end in 0..=whole.len() {
                check(&whole[..end]);
            }
            check(&[&whole[..], b"$1\r\na\r\n"].concat());
            for place in 0..whole.len() {
                for byte in *b"\0\r\n$0:*x" {
                    let mut broken = whole.clone();
                    broken[place] = byte;
                    check(&broken);
                }
            }
        }
    }

    #[test]
    fn every_short_header_over_a_small_alphabet_is_read_as_the_naive_reader_does() {
        const ALPHABET: &[u8] = b"$019-+ \r\n";
        let mut forms: Vec<Vec<u8>> = Vec::from([Vec::new()]);
        for _ in 0..6 {
            forms = forms
                .iter()
                .flat_map(|form| ALPHABET.iter().map(|&byte| [&form[..], &[byte]].concat()))
                .collect();
            if forms.len() > 60_000 {
                // The first byte decides whether it is a header at all.
                forms.retain(|form| form[0] == b'$');
            }
            for form in &forms {
                check(form);
                check(&[&form[..], b"0123456789\r\n"].concat());
            }
        }
    }
}
