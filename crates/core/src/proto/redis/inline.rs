//! Inline commands: a line of words, as typed into telnet.

use alloc::vec::Vec;

use super::{Invalid, words::write_array_header, write_bulk};

/// Rewrites the inline command `line` (line end included) as an array of bulk strings, appended to
/// `out`. The line is known to hold at least one word.
///
/// # Errors
/// Unbalanced quotes; nothing was appended then.
pub fn to_array(line: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
    // Redis takes a NUL for the end of its buffer and waits for ever; a client had better hear of it.
    if memchr::memchr(0, rest).is_some() {
        return Err(Invalid::UnbalancedQuotes);
    }
    let mut words = 0;
    let mut bulks = Vec::with_capacity(rest.len() + 16);
    let mut word = Vec::new();
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() {
            break;
        }
        word.clear();
        rest = read_word(rest, &mut word)?;
        write_bulk(&word, &mut bulks);
        words += 1;
    }
    write_array_header(words, out);
    out.extend_from_slice(&bulks);
    Ok(())
}

/// What C's `isspace` says.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r')
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_blank(byte)).count();
    &text[blanks..]
}

/// Reads one word into `word`; what is left follows. Quotes may begin within a word, but the closing
/// quote ends it.
fn read_word<'a>(mut text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    loop {
        match *text {
            // compat: vertical tab and form feed separate words only after another blank.
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(text),
            [b'"', ref quoted @ ..] => return after_quote(read_double_quoted(quoted, word)?),
            [b'\'', ref quoted @ ..] => return after_quote(read_single_quoted(quoted, word)?),
            [byte, ref rest @ ..] => {
                word.push(byte);
                text = rest;
            }
        }
    }
}

fn after_quote(text: &[u8]) -> Result<&[u8], Invalid> {
    match text.first() {
        Some(&byte) if !is_blank(byte) => Err(Invalid::UnbalancedQuotes),
        _ => Ok(text),
    }
}

fn read_double_quoted<'a>(mut text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    loop {
        match *text {
            [] => return Err(Invalid::UnbalancedQuotes),
            [b'"', ref rest @ ..] => return Ok(rest),
            [b'\\', b'x', high, low, ref rest @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_digit(high) * 16 + hex_digit(low));
                text = rest;
            }
            [b'\\', escaped, ref rest @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => b'\x08',
                    b'a' => b'\x07',
                    other => other,
                });
                text = rest;
            }
            [byte, ref rest @ ..] => {
                word.push(byte);
                text = rest;
            }
        }
    }
}

fn read_single_quoted<'a>(mut text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    loop {
        match *text {
            [] => return Err(Invalid::UnbalancedQuotes),
            [b'\'', ref rest @ ..] => return Ok(rest),
            [b'\\', b'\'', ref rest @ ..] => {
                word.push(b'\'');
                text = rest;
            }
            [byte, ref rest @ ..] => {
                word.push(byte);
                text = rest;
            }
        }
    }
}

const fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::Words;
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Invalid> {
        let mut frame = Vec::new();
        to_array(line, &mut frame)?;
        Ok(Words::of(&frame).texts().map(<[u8]>::to_vec).collect())
    }

    fn assert_words(line: &[u8], expected: &[&[u8]]) {
        let words = words(line).unwrap();
        assert_eq!(words, expected, "{line:?}");
    }

    #[test]
    fn words_are_separated_by_blanks() {
        assert_words(b"GET key\r\n", &[b"GET", b"key"]);
        assert_words(b"GET key\n", &[b"GET", b"key"]);
        assert_words(b" \t GET\t key \r\r\n", &[b"GET", b"key"]);
        assert_words(b"PING\t\x0bx\r\n", &[b"PING", b"x"]);
        assert_words(b"PING a\x0bx\r\n", &[b"PING", b"a\x0bx"]);
        assert_words(b"PING a\r\x0b\r\n", &[b"PING", b"a"]);
        assert_words(b"$4\r\n", &[b"$4"]);
    }

    #[test]
    fn quotes_and_escapes_are_those_of_redis() {
        assert_words(b"\"\" a\r\n", &[b"", b"a"]);
        assert_words(b"PING a\"b\"\r\n", &[b"PING", b"ab"]);
        assert_words(
            b"PING \"\\x41\\n\\r\\t\\b\\a\\q\\x4\\\"\\\\\" \r\n",
            &[b"PING", b"A\n\r\t\x08\x07qx4\"\\"],
        );
        assert_words(b"PING \"\\xfF\\x00\"\r\n", &[b"PING", b"\xff\x00"]);
        assert_words(b"PING 'a\\nb\"'\r\n", &[b"PING", b"a\\nb\""]);
        assert_words(b"'a\\'b' \r\n", &[b"a'b"]);
        assert_words(b"a\\ b\r\n", &[b"a\\", b"b"]);
    }

    #[test]
    fn quotes_must_match_and_end_their_word() {
        for line in [
            &b"\"abc\r\n"[..],
            b"'abc\r\n",
            b"\"a\"b\r\n",
            b"'a'b\r\n",
            b"PING a\"b\r\n",
            b"PING a\"b\"c\r\n",
            b"\"a\\\"\r\n",
            b"\"a\\",
            b"PING \x00\r\n",
        ] {
            assert_eq!(words(line), Err(Invalid::UnbalancedQuotes), "{line:?}");
        }
    }
}
