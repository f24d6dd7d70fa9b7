//! The words of a complete request.

use super::write_header;
use crate::num::{to_u32, to_usize};
use crate::proto::{Span, scan};

/// Words whose places the parser keeps while it looks for the end of the frame: the command and the
/// first key of nearly every command are among them.
pub(super) const HEAD_WORDS: usize = 4;

/// A complete frame and what its parser learnt on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command<'a> {
    /// The whole request.
    pub(super) frame: &'a [u8],
    /// How many words it has, at least 1.
    pub(super) words: u32,
    /// The first words; those beyond `words` are empty or stale.
    pub(super) head: [Span; HEAD_WORDS],
}

/// One word of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// With header and line end.
    pub(super) raw: Span,
    /// The word alone.
    pub(super) text: Span,
}

/// The words of a frame in order.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Command<'a> {
    /// Reads `frame`, which the request parser found complete.
    pub(super) fn read(frame: &'a [u8]) -> Self {
        let mut head = [Span::default(); HEAD_WORDS];
        for (slot, word) in head.iter_mut().zip(Words::of(frame)) {
            *slot = word.text;
        }
        let words = frame
            .get(1..)
            .and_then(header)
            .map_or(0, |(words, _)| words);
        Self { frame, words, head }
    }

    /// All words.
    pub(super) fn iter(&self) -> Words<'a> {
        Words::of(self.frame)
    }

    /// The text of one of the first words.
    #[inline]
    pub(super) fn text(&self, place: usize) -> &'a [u8] {
        self.head[place].of(self.frame)
    }
}

impl<'a> Words<'a> {
    /// The words of `frame`, which the request parser found complete.
    pub(super) fn of(frame: &'a [u8]) -> Self {
        let at = frame
            .get(1..)
            .and_then(header)
            .map_or(frame.len(), |(_, len)| 1 + len);
        Self { frame, at }
    }

    /// The texts alone.
    pub(super) fn texts(self) -> impl Iterator<Item = &'a [u8]> {
        let frame = self.frame;
        self.map(move |word| word.text.of(frame))
    }
}

impl Iterator for Words<'_> {
    type Item = Word;

    #[inline]
    fn next(&mut self) -> Option<Word> {
        let (len, header_len) = header(self.frame.get(self.at + 1..)?)?;
        let start = self.at + 1 + header_len;
        let end = start + to_usize(len);
        let word = Word {
            raw: Span {
                start: to_u32(self.at),
                end: to_u32(end + 2),
            },
            text: Span {
                start: to_u32(start),
                end: to_u32(end),
            },
        };
        self.at = end + 2;
        Some(word)
    }
}

/// The number of a header line and the line's length, both without the type byte.
#[inline]
fn header(text: &[u8]) -> Option<(u32, usize)> {
    scan::short_header(text).or_else(|| {
        let cr = memchr::memchr(b'\r', text)?;
        Some((scan::digits_u32(&text[..cr])?, cr + 2))
    })
}

/// Appends an array header.
pub(super) fn write_array_header(n: usize, out: &mut alloc::vec::Vec<u8>) {
    write_header(b'*', n, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_a_text_and_the_bytes_around_it() {
        let frame = b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\nhello, world\r\n";
        let command = Command::read(frame);
        assert_eq!(command.words, 3);
        assert_eq!(command.text(0), b"SET");
        assert_eq!(command.text(2), b"hello, world");
        let raw: alloc::vec::Vec<&[u8]> = command.iter().map(|word| word.raw.of(frame)).collect();
        assert_eq!(
            raw,
            [
                &b"$3\r\nSET\r\n"[..],
                b"$0\r\n\r\n",
                b"$12\r\nhello, world\r\n"
            ]
        );
    }

    #[test]
    fn long_words_and_many_words_are_walked() {
        let mut frame = b"*1200\r\n".to_vec();
        let long = [b'x'; 1234];
        for _ in 0..1200 {
            super::super::write_bulk(&long, &mut frame);
        }
        assert_eq!(Command::read(&frame).words, 1200);
        assert_eq!(Words::of(&frame).count(), 1200);
        assert!(Words::of(&frame).texts().all(|text| text == long));
    }
}
