//! Reading one command line: what is asked, or what is wrong with it.
//!
//! The checks come in memcached's order, so that a line with two faults is answered as memcached
//! answers it. They are stricter where versions of memcached differ; see [`super`]. A line that all
//! versions would take but some only in a shorter form is composed anew, with [`compose`].

use alloc::vec::Vec;

use super::Invalid;
use super::commands::{self, COMMANDS, Shape};
use super::words::Words;
use crate::limits::{MEMCACHE_FORWARDED_LINE_LEN_MAX, MEMCACHE_KEY_LEN_MAX, MEMCACHE_KEYS_MAX};
use crate::num::to_usize;
use crate::proto::scan::{digits_u32, digits_u64};
use crate::proto::{Merge, Route, Span, Then};

/// A line that may be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) command: u16,
    pub(super) noreply: bool,
    pub(super) route: Route,
    /// Length of the data block that follows, without its line end.
    pub(super) block_len: Option<u32>,
    /// The words do not go as they stand: [`compose`] makes the line that is sent.
    pub(super) is_composed: bool,
}

/// A line that may not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) invalid: Invalid,
    pub(super) then: Then,
    /// `noreply` was read before the fault was: memcached says nothing.
    pub(super) is_quiet: bool,
    /// Length of the data block that was announced all the same, without its line end.
    pub(super) block_len: Option<u32>,
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self {
            invalid,
            then: Then::Continue,
            is_quiet: false,
            block_len: None,
        }
    }
}

/// Reads `line`, which comes without its line end and does not begin with a blank.
pub(super) fn read(line: &[u8], allow_flush: bool) -> Result<Line, Refusal> {
    let mut words = Words::new(line);
    let name = words.next().ok_or(Invalid::Command)?.of(line);
    let Some(index) = commands::find(name) else {
        return Err(unknown(line, name, words));
    };
    let route = match COMMANDS[usize::from(index)].shape {
        Shape::Get => keys(words)?,
        Shape::GetAndTouch => get_and_touch(line, words)?,
        _ => return short(line, words, index, allow_flush),
    };
    Ok(Line {
        command: index,
        noreply: false,
        route,
        block_len: None,
        // Several keys are sent in fragments, which are composed in any case.
        is_composed: matches!(route, Route::Key(_)) && is_long(line),
    })
}

/// Appends what is sent for a line of which [`read`] says so, line end included: the words that count,
/// each behind one blank. The result is read as the line was, is no longer, and needs no composing.
pub(super) fn compose(line: &[u8], out: &mut Vec<u8>) {
    let mut words = Words::new(line);
    let name = words.next().map_or(&b""[..], |word| word.of(line));
    out.extend_from_slice(name);
    if let Some(index) = commands::find(name) {
        let shape = COMMANDS[usize::from(index)].shape;
        let args = Args::collect(line, &mut words);
        let noreply = args.is_noreply(shape);
        let kept = args.words.iter().take(to_usize(args.kept(shape, noreply)));
        for word in kept.chain(noreply.then_some(&args.last)) {
            out.push(b' ');
            out.extend_from_slice(word.of(line));
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether versions of memcached close the connection on which such a line comes in pieces.
#[inline]
const fn is_long(line: &[u8]) -> bool {
    line.len() > MEMCACHE_FORWARDED_LINE_LEN_MAX - 2
}

fn unknown(line: &[u8], name: &[u8], words: Words<'_>) -> Refusal {
    let last = words.last().map_or(name, |word| word.of(line));
    // memcached looks at the last word only after comparing all names with this first letter.
    let shadowed = name.len() < 2
        || matches!(name[0], b'g' | b's' | b'a' | b'c' | b'i' | b'd' | b't')
        || (name[0] == b'm' && name.len() == 2);
    if last.starts_with(b"HTTP/") && !shadowed {
        return Refusal {
            then: Then::Close,
            ..Invalid::Http.into()
        };
    }
    Invalid::Command.into()
}

/// The route of all words that are left.
fn keys(mut words: Words<'_>) -> Result<Route, Invalid> {
    let mut first = None;
    let (mut is_many, mut count) = (false, 0);
    for key in words.by_ref() {
        if !is_key(key) {
            return Err(Invalid::Format);
        }
        count += 1;
        if count > MEMCACHE_KEYS_MAX {
            return Err(Invalid::LineTooLong);
        }
        is_many = first.is_some();
        first = first.or(Some(key));
    }
    if words.has_forbidden {
        return Err(Invalid::Format);
    }
    let key = first.ok_or(Invalid::Command)?;
    Ok(if is_many {
        Route::Keys(Some(Merge::Values))
    } else {
        Route::Key(key)
    })
}

fn get_and_touch(line: &[u8], mut words: Words<'_>) -> Result<Route, Invalid> {
    let exptime = words.next().ok_or(Invalid::Command)?;
    if !is_exptime(exptime.of(line)) {
        return Err(Invalid::Exptime);
    }
    // Without a key some versions answer `END` and others an error.
    keys(words)
}

/// Every command with a bounded number of words, and those whose words do not matter.
fn short(
    line: &[u8],
    mut words: Words<'_>,
    index: u16,
    allow_flush: bool,
) -> Result<Line, Refusal> {
    let command = &COMMANDS[usize::from(index)];
    let shape = command.shape;
    let args = Args::collect(line, &mut words);
    let block_len = shape
        .block_len_arg()
        .and_then(|arg| block_len(args.word(arg)));
    if args.count < command.args_min || args.count > command.args_max {
        return Err(Refusal {
            block_len,
            ..Invalid::Command.into()
        });
    }
    let noreply = args.is_noreply(shape);
    let needs_composing = args.kept(shape, noreply) + u32::from(noreply) != args.count;
    let route = if words.has_forbidden || (block_len.is_some() && is_long(line)) {
        Err(Invalid::Format)
    } else {
        match shape {
            Shape::Refused | Shape::RefusedQuietly | Shape::RefusedWithBlock => {
                Err(Invalid::Unsupported(index))
            }
            Shape::Stats if !args.lists_stats() => Err(Invalid::Unsupported(index)),
            Shape::FlushAll if !allow_flush => Err(Invalid::FlushNotAllowed),
            shape => args.route(shape, noreply),
        }
    };
    match route {
        Ok(route) => Ok(Line {
            command: index,
            noreply,
            route,
            block_len,
            is_composed: block_len.is_none()
                && route != Route::Local
                && (needs_composing || is_long(line)),
        }),
        Err(invalid) => Err(Refusal {
            is_quiet: noreply,
            block_len,
            ..invalid.into()
        }),
    }
}

/// The words after the command.
struct Args<'a> {
    line: &'a [u8],
    /// The first of them; the empty span where there are fewer.
    words: [Span; ARGS_KEPT],
    last: Span,
    count: u32,
}

impl<'a> Args<'a> {
    #[inline]
    fn collect(line: &'a [u8], words: &mut Words<'_>) -> Self {
        let mut args = Self {
            line,
            words: [Span::default(); ARGS_KEPT],
            last: Span::default(),
            count: 0,
        };
        for word in words {
            if let Some(kept) = args.words.get_mut(to_usize(args.count)) {
                *kept = word;
            }
            args.last = word;
            args.count += 1;
        }
        args
    }

    #[inline]
    fn word(&self, index: usize) -> &'a [u8] {
        self.words[index].of(self.line)
    }

    /// Whether the last word says `noreply` to every version of memcached.
    #[inline]
    fn is_noreply(&self, shape: Shape) -> bool {
        // The one word of `delete noreply` is the key, which 1.6.40 and later read both ways.
        shape.takes_noreply()
            && self.last.of(self.line) == NOREPLY
            && (shape != Shape::Delete || self.count > 1)
    }

    /// How many of the first words a line needs that asks for the same. The others are of no effect in the
    /// versions that take them, and an error in those that do not.
    fn kept(&self, shape: Shape, noreply: bool) -> u32 {
        let given = self.count - u32::from(noreply);
        match shape {
            Shape::Version => 0,
            // 1.4.0 to 1.4.4 take no zero beside `noreply`.
            Shape::Delete if noreply => 1,
            Shape::Get | Shape::Verbosity | Shape::FlushAll => given.min(1),
            Shape::GetAndTouch | Shape::Arithmetic | Shape::Touch => given.min(2),
            _ => given,
        }
    }

    /// Whether `stats` asks for a list, and not for a change.
    fn lists_stats(&self) -> bool {
        const LISTS: [&[u8]; 6] = [
            b"items",
            b"slabs",
            b"sizes",
            b"settings",
            b"conns",
            b"cachedump",
        ];
        self.count == 0 || LISTS.contains(&self.word(0))
    }

    /// Checks the words, the number of which is right.
    fn route(&self, shape: Shape, noreply: bool) -> Result<Route, Invalid> {
        let key = self.words[0];
        match shape {
            Shape::Store | Shape::Cas => {
                let is_sound = is_key(key)
                    && number_u32(self.word(1)).is_some()
                    && is_stored_exptime(self.word(2))
                    && block_len(self.word(3)).is_some()
                    && (shape == Shape::Store || number_u64(self.word(4)).is_some());
                is_sound.then_some(Route::Key(key)).ok_or(Invalid::Format)
            }
            Shape::Arithmetic if !is_key(key) => Err(Invalid::Format),
            Shape::Arithmetic => number_u64(self.word(1))
                .map(|_| Route::Key(key))
                .ok_or(Invalid::Delta),
            // Half of the versions of memcached would not answer.
            Shape::Delete if key.of(self.line) == NOREPLY && self.count == 1 => {
                Err(Invalid::Format)
            }
            Shape::Delete => {
                let rest = self.count - u32::from(noreply);
                if rest > 2 || (rest == 2 && self.word(1) != b"0") {
                    return Err(Invalid::DeleteUsage);
                }
                is_key(key)
                    .then_some(Route::Key(key))
                    .ok_or(Invalid::Format)
            }
            Shape::Touch if !is_key(key) => Err(Invalid::Format),
            Shape::Touch => is_exptime(self.word(1))
                .then_some(Route::Key(key))
                .ok_or(Invalid::Exptime),
            Shape::Version => Ok(Route::Placeholder),
            Shape::Verbosity => number_u32(self.word(0))
                .map(|_| Route::EveryServer(Merge::Line))
                .ok_or(Invalid::Format),
            Shape::FlushAll => {
                let has_delay = self.count > u32::from(noreply);
                if has_delay && !is_exptime(self.word(0)) {
                    return Err(Invalid::Exptime);
                }
                Ok(Route::EveryServer(Merge::Line))
            }
            Shape::Quit | Shape::Stats => Ok(Route::Local),
            Shape::Get
            | Shape::GetAndTouch
            | Shape::Refused
            | Shape::RefusedQuietly
            | Shape::RefusedWithBlock => unreachable!("decided by the callers"),
        }
    }
}

#[inline]
const fn is_key(word: Span) -> bool {
    to_usize(word.end - word.start) <= MEMCACHE_KEY_LEN_MAX
}

/// A number of seconds, or a moment; negative means at once. What does not fit 32 bits is an error to
/// memcached since 1.6.40, and wraps before.
#[inline]
fn is_exptime(word: &[u8]) -> bool {
    let (digits, max) = match word {
        [b'-', digits @ ..] => (digits, 1 << 31),
        digits => (digits, (1 << 31) - 1),
    };
    number_u32(digits).is_some_and(|seconds| seconds <= max)
}

/// The same in a storage command, where all versions read it with `strtol` and keep the lower 32 bits.
#[inline]
fn is_stored_exptime(word: &[u8]) -> bool {
    let digits = match word {
        [b'-' | b'+', digits @ ..] => digits,
        digits => digits,
    };
    digits.len() <= STORED_EXPTIME_DIGITS_MAX && digits_u64(digits).is_some()
}

/// The length of a data block, as far as memcached accepts it.
#[inline]
fn block_len(word: &[u8]) -> Option<u32> {
    number_u32(word).filter(|&len| len <= BLOCK_LEN_MAX)
}

/// A number of 32 bits. memcached since 1.6.40 refuses one of more than eleven characters before it looks
/// for `noreply` or drops the data block; the versions before take any number of zeros.
#[inline]
fn number_u32(word: &[u8]) -> Option<u32> {
    digits_u32(word).filter(|_| word.len() <= 10)
}

/// Like [`number_u32`], for 64 bits.
#[inline]
fn number_u64(word: &[u8]) -> Option<u64> {
    digits_u64(word).filter(|_| word.len() <= 20)
}

const NOREPLY: &[u8] = b"noreply";

/// Any number of so many digits fits 64 bits with a sign.
const STORED_EXPTIME_DIGITS_MAX: usize = 18;

/// The longest line has six words after the command (`cas` with `noreply`).
const ARGS_KEPT: usize = 6;

/// memcached adds two to it and counts in 32 bits with a sign.
const BLOCK_LEN_MAX: u32 = (1 << 31) - 3;
