//! Which words of a request are keys.
//!
//! A request is only ever routed by keys that its server will see as keys, too. Where a request's
//! words do not say which words are keys (a count that is no number, an unknown option), every
//! server refuses it, so it goes to [`crate::proto::PLACEHOLDER`]'s owner, whose words the client gets.

use super::commands::Keys;
use super::words::Command;
use crate::num::to_u32;
use crate::proto::{Span, scan};

/// The places of a request's keys: `extra`, if not 0, and `count` places from `first` on, each
/// `step` words after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KeyPlaces {
    /// A key outside the row, or 0.
    pub(super) extra: u32,
    /// The first key of the row.
    pub(super) first: u32,
    /// Keys in the row, at least 1.
    pub(super) count: u32,
    /// Words from one key to the next, at least 1.
    pub(super) step: u32,
    /// The request is looked at more closely even if it has one key: for its [`patterns`], or because it is a
    /// scan.
    pub(super) is_apart: bool,
}

impl KeyPlaces {
    /// How many keys there are.
    pub(super) const fn total(&self) -> u32 {
        self.count + if self.extra == 0 { 0 } else { 1 }
    }

    /// Whether the word at `place` is a key.
    #[inline]
    pub(super) const fn contains(&self, place: u32) -> bool {
        (place != 0 && place == self.extra)
            || (place >= self.first
                && place - self.first < self.count * self.step
                && (place - self.first).is_multiple_of(self.step))
    }
}

/// Where a request's keys are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Located {
    /// There.
    Keys(KeyPlaces),
    /// There are none, or only a server can say why the request is wrong.
    Nowhere,
    /// The request is too short to have its keys.
    Missing,
    /// It asks to wait at the server.
    Blocks,
}

/// Finds the keys of `command`, which follow `rule`.
pub(super) fn locate(rule: Keys, command: &Command<'_>) -> Located {
    match rule {
        Keys::None => Located::Nowhere,
        Keys::One(place) => range(command.words, u32::from(place), i64::from(place), 1),
        Keys::Range { first, last, step } => range(
            command.words,
            u32::from(first),
            i64::from(last),
            u32::from(step),
        ),
        Keys::Counted {
            count,
            step,
            destination,
        } => counted(command, usize::from(count), u32::from(step), destination),
        Keys::Scan => scan_key(command),
        Keys::Sort => sort(command, true),
        Keys::SortReadonly => sort(command, false),
        Keys::Georadius(options) => georadius(command, usize::from(options)),
        Keys::Streams => streams(command),
    }
}

const fn row(first: u32, count: u32, step: u32) -> Located {
    row_and(0, first, count, step)
}

const fn row_and(extra: u32, first: u32, count: u32, step: u32) -> Located {
    Located::Keys(KeyPlaces {
        extra,
        first,
        count,
        step,
        is_apart: false,
    })
}

fn range(words: u32, first: u32, last: i64, step: u32) -> Located {
    let last = if last < 0 {
        i64::from(words) + last
    } else {
        last
    };
    match u32::try_from(last) {
        // The last key's step must be whole: MSET's last key has a value.
        Ok(last) if first <= last && last < words && is_whole(words, first, last, step) => {
            row(first, (last - first) / step + 1, step)
        }
        _ => Located::Missing,
    }
}

const fn is_whole(words: u32, first: u32, last: u32, step: u32) -> bool {
    step == 1 || (last + 1 == words && (words - first).is_multiple_of(step))
}

fn counted(command: &Command<'_>, at: usize, step: u32, destination: bool) -> Located {
    let count_place = match u32::try_from(at) {
        Ok(place) if place < command.words => place,
        _ => return Located::Missing,
    };
    // Servers before redis 4 read `+1` and `01` as 1, later ones refuse them: read like the former,
    // the request is right at any server.
    let text = command.text(at);
    let Some(count) = scan::digits_u32(text.strip_prefix(b"+").unwrap_or(text)) else {
        return Located::Nowhere;
    };
    let room = command.words - count_place - 1;
    match count.checked_mul(step) {
        Some(1..) if count.saturating_mul(step) <= room => {
            row_and(u32::from(destination), count_place + 1, count, step)
        }
        _ => Located::Nowhere,
    }
}

fn scan_key(command: &Command<'_>) -> Located {
    match range(command.words, 1, 1, 1) {
        Located::Keys(places) => Located::Keys(KeyPlaces {
            is_apart: true,
            ..places
        }),
        other => other,
    }
}

/// The options of SORT that take values are skipped with them, so that a pattern called `store` is
/// no option.
fn sort(command: &Command<'_>, may_store: bool) -> Located {
    if command.words < 2 {
        return Located::Missing;
    }
    let mut store = 0;
    let mut place = 2;
    let mut texts = command.iter().texts().skip(2);
    while let Some(word) = texts.next() {
        let values = if word.eq_ignore_ascii_case(b"LIMIT") {
            2
        } else if word.eq_ignore_ascii_case(b"GET") || word.eq_ignore_ascii_case(b"BY") {
            1
        } else if may_store && word.eq_ignore_ascii_case(b"STORE") {
            if place + 1 < command.words {
                store = place + 1;
            }
            1
        } else {
            0
        };
        for _ in 0..values {
            texts.next();
        }
        place += 1 + values;
    }
    Located::Keys(KeyPlaces {
        extra: store,
        first: 1,
        count: 1,
        step: 1,
        is_apart: patterns(command).next().is_some(),
    })
}

fn georadius(command: &Command<'_>, options: usize) -> Located {
    if command.words < 2 {
        return Located::Missing;
    }
    let mut store = 0;
    let mut is_target = false;
    for (place, word) in (0..command.words).zip(command.iter().texts()).skip(options) {
        if is_target {
            store = place;
            is_target = false;
        } else {
            is_target =
                word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST");
        }
    }
    row_and(store, 1, 1, 1)
}

fn streams(command: &Command<'_>) -> Located {
    let mut place = 1;
    let mut texts = command.iter().texts().skip(1);
    while let Some(word) = texts.next() {
        let values = if word.eq_ignore_ascii_case(b"STREAMS") {
            let rest = command.words - place - 1;
            return if rest > 0 && rest.is_multiple_of(2) {
                row(place + 1, rest / 2, 1)
            } else {
                Located::Nowhere
            };
        } else if word.eq_ignore_ascii_case(b"BLOCK") {
            return Located::Blocks;
        } else if word.eq_ignore_ascii_case(b"COUNT") || word.eq_ignore_ascii_case(b"CLAIM") {
            1
        } else if word.eq_ignore_ascii_case(b"GROUP") {
            2
        } else if word.eq_ignore_ascii_case(b"NOACK") {
            0
        } else {
            return Located::Nowhere;
        };
        for _ in 0..values {
            texts.next();
        }
        place += 1 + values;
    }
    Located::Nowhere
}

/// Where the patterns of a SORT begin that name keys of their own, each up to its `*`: what stands for the `*`
/// is known to the server alone.
pub(super) fn patterns(command: &Command<'_>) -> impl Iterator<Item = Span> {
    let mut words = command.iter().skip(2);
    let frame = command.frame;
    core::iter::from_fn(move || {
        loop {
            let option = words.next()?.text.of(frame);
            if option.eq_ignore_ascii_case(b"LIMIT") {
                words.next();
                words.next();
            } else if option.eq_ignore_ascii_case(b"STORE") {
                words.next();
            } else if option.eq_ignore_ascii_case(b"GET") || option.eq_ignore_ascii_case(b"BY") {
                let pattern = words.next()?.text;
                if let Some(star) = memchr::memchr(b'*', pattern.of(frame)) {
                    return Some(Span {
                        start: pattern.start,
                        end: pattern.start + to_u32(star),
                    });
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::super::commands::{Serve, find, row};
    use super::super::words::{read_head, write_array_header};
    use super::super::write_bulk;
    use super::*;

    /// The keys of a request typed as words, in request order, or why there are none.
    fn keys(line: &str) -> Result<Vec<&str>, Located> {
        let words: Vec<&str> = line.split(' ').collect();
        let mut frame = Vec::new();
        write_array_header(words.len(), &mut frame);
        for word in &words {
            write_bulk(word.as_bytes(), &mut frame);
        }
        let head = read_head(&frame);
        let command = Command::new(&frame, &head);
        let row = row(find(words[0].as_bytes()).expect("a known command"));
        let (Serve::Forward(rule) | Serve::Split(_, rule)) = row.serve else {
            panic!("{} has no key rule", row.name);
        };
        match locate(rule, &command) {
            Located::Keys(places) => Ok((0..command.words)
                .zip(&words)
                .filter(|&(place, _)| places.contains(place))
                .map(|(_, word)| *word)
                .collect()),
            other => Err(other),
        }
    }

    fn assert_keys(line: &str, expected: &[&str]) {
        assert_eq!(keys(line).as_deref(), Ok(expected), "{line}");
    }

    #[test]
    fn keys_stand_where_redis_says() {
        assert_keys("GET a", &["a"]);
        assert_keys("SET a b EX 10", &["a"]);
        assert_keys("MGET a b c", &["a", "b", "c"]);
        assert_keys("MSET a 1 b 2", &["a", "b"]);
        assert_keys("MSETNX a 1", &["a"]);
        assert_keys("RENAME a b", &["a", "b"]);
        assert_keys("RENAME a b c", &["a", "b"]);
        assert_keys("SMOVE a b member", &["a", "b"]);
        assert_keys("LCS a b LEN", &["a", "b"]);
        assert_keys("BITOP NOT d s", &["d", "s"]);
        assert_keys("BITOP AND d s t", &["d", "s", "t"]);
        assert_keys("PFMERGE d", &["d"]);
        assert_keys("SDIFFSTORE d a b", &["d", "a", "b"]);
        assert_keys("ZRANGESTORE d a 0 -1", &["d", "a"]);
        assert_keys("GEOSEARCHSTORE d a FROMMEMBER m", &["d", "a"]);
        assert_keys("XADD s * f v", &["s"]);
        assert_keys("SORT_RO a BY x", &["a"]);
        assert_keys("TOUCH a", &["a"]);
    }

    // C95 D6
    #[test]
    fn counted_keys_follow_their_count() {
        assert_keys("ZUNION 2 a b WEIGHTS 1 2", &["a", "b"]);
        assert_keys("ZUNIONSTORE d 2 a b", &["d", "a", "b"]);
        assert_keys("EVAL script 1 a arg", &["a"]);
        assert_keys("EVALSHA_RO sha 2 a b arg", &["a", "b"]);
        assert_keys("FCALL f 1 a", &["a"]);
        assert_keys("LMPOP 2 a b LEFT", &["a", "b"]);
        assert_keys("ZMPOP 1 a MIN", &["a"]);
        assert_keys("SINTERCARD 2 a b LIMIT 1", &["a", "b"]);
        assert_keys("MSETEX 2 a 1 b 2 NX", &["a", "b"]);
        assert_keys("EVAL script 01 a", &["a"]);
        assert_keys("EVAL script +1 a", &["a"]);
    }

    #[test]
    fn a_count_that_cannot_be_is_left_to_a_server() {
        for line in [
            "EVAL script 0",
            "EVAL script 0 arg",
            "EVAL script x",
            "EVAL script -1 a",
            "EVAL script 2 a",
            "EVAL script 99999999999999999999 a",
            "EVAL script 4294967295 a",
            "MSETEX 4294967295 a 1",
            "MSETEX 2 a 1 b",
            "ZUNION 1",
            "ZUNION 0 a",
            "ZUNIONSTORE d x a",
        ] {
            assert_eq!(keys(line), Err(Located::Nowhere), "{line}");
        }
    }

    #[test]
    fn too_few_words_for_the_keys_are_an_arity_error() {
        for line in [
            "GET",
            "MGET",
            "MSET",
            "MSET a",
            "MSET a 1 b",
            "MSETNX a",
            "RENAME a",
            "COPY a",
            "LMOVE a",
            "LCS a",
            "BITOP NOT",
            "EVAL",
            "EVAL script",
            "ZUNION",
            "ZUNIONSTORE d",
            "SORT",
            "GEORADIUS",
            "PFMERGE",
        ] {
            assert_eq!(keys(line), Err(Located::Missing), "{line}");
        }
    }

    #[test]
    fn options_with_keys_are_found_behind_options_with_values() {
        assert_keys("SORT a", &["a"]);
        assert_keys("SORT a STORE d", &["a", "d"]);
        assert_keys(
            "SORT a BY store GET store LIMIT store store ALPHA store d",
            &["a", "d"],
        );
        assert_keys("SORT a STORE", &["a"]);
        assert_keys("GEORADIUS a 1 1 1 km", &["a"]);
        assert_keys("GEORADIUS a 1 1 1 km COUNT 1 STORE d", &["a", "d"]);
        assert_keys("GEORADIUS a 1 1 1 km STOREDIST store", &["a", "store"]);
        assert_keys("GEORADIUSBYMEMBER a store 1 km storedist d", &["a", "d"]);
        assert_keys("GEORADIUSBYMEMBER a m 1 km STORE", &["a"]);
        assert_keys("SORT_RO a BY store STORE d", &["a"]);
    }

    #[test]
    fn streams_are_the_first_half_of_what_follows_streams() {
        assert_keys("XREAD STREAMS a 0", &["a"]);
        assert_keys("XREAD COUNT 2 STREAMS a b 0 0", &["a", "b"]);
        assert_keys("XREAD streams streams a 0 0", &["streams", "a"]);
        assert_keys(
            "XREADGROUP GROUP streams c COUNT 1 NOACK STREAMS a >",
            &["a"],
        );
        assert_keys(
            "XREADGROUP COUNT streams GROUP block c STREAMS block >",
            &["block"],
        );
        assert_eq!(keys("XREAD BLOCK 0 STREAMS a 0"), Err(Located::Blocks));
        assert_eq!(
            keys("XREAD COUNT 1 block 0 STREAMS a 0"),
            Err(Located::Blocks)
        );
        for line in [
            "XREAD",
            "XREAD STREAMS",
            "XREAD STREAMS a",
            "XREAD STREAMS a b 0",
            "XREAD x STREAMS a 0",
            "XREAD COUNT",
        ] {
            assert_eq!(keys(line), Err(Located::Nowhere), "{line}");
        }
    }
}
