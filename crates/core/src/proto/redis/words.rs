//! The words of a complete request.

use super::bulk::{self, Word};
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
    pub(super) head: &'a [Span; HEAD_WORDS],
}

/// The words of a frame in order.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    frame: &'a [u8],
    at: u32,
}

impl<'a> Command<'a> {
    /// The request in `frame`, which the request parser found complete and whose first words
    /// [`read_head`] found.
    pub(super) fn new(frame: &'a [u8], head: &'a [Span; HEAD_WORDS]) -> Self {
        let words = header(b'*', frame).map_or(0, |(words, _)| words);
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

/// The first words of a complete frame.
pub(super) fn read_head(frame: &[u8]) -> [Span; HEAD_WORDS] {
    let mut head = [Span::default(); HEAD_WORDS];
    for (slot, word) in head.iter_mut().zip(Words::of(frame)) {
        *slot = word.text;
    }
    head
}

impl<'a> Words<'a> {
    /// The words of `frame`, which the request parser found complete.
    pub(super) fn of(frame: &'a [u8]) -> Self {
        let at = header(b'*', frame).map_or_else(|| to_u32(frame.len()), |(_, len)| len);
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

    #[inline(always)]
    fn next(&mut self) -> Option<Word> {
        let word = bulk::at(self.frame, self.at).or_else(|| {
            let line = self.frame.get(to_usize(self.at)..)?;
            let (len, header_len) = header(b'$', line)?;
            Some(Word::new(self.at, header_len, len))
        })?;
        self.at = word.raw.end;
        Some(word)
    }
}

/// The number of the header line that `line` begins with, and the length of that line.
#[inline]
fn header(kind: u8, line: &[u8]) -> Option<(u32, u32)> {
    if let Some(short) = scan::short_header(kind, line) {
        return Some(short);
    }
    let cr = memchr::memchr(b'\r', line)?;
    Some((scan::digits_u32(line.get(1..cr)?)?, to_u32(cr + 2)))
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
        let head = read_head(frame);
        let command = Command::new(frame, &head);
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
        assert_eq!(Command::new(&frame, &read_head(&frame)).words, 1200);
        assert_eq!(Words::of(&frame).count(), 1200);
        assert!(Words::of(&frame).texts().all(|text| text == long));
    }
}
