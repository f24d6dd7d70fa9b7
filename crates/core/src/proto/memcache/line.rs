//! Reading one command line: what is asked, or what is wrong with it.
//!
//! The checks come in memcached's order, so that a line with two faults is answered as memcached
//! answers it. They are stricter where versions of memcached differ; see [`super`].

use super::Invalid;
use super::commands::{self, COMMANDS, Shape};
use super::words::Words;
use crate::limits::{MEMCACHE_KEY_LEN_MAX, MEMCACHE_KEYS_MAX, MEMCACHE_LINE_LEN_MAX};
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

/// Reads `line`, which comes without its line end.
pub(super) fn read(line: &[u8], allow_flush: bool) -> Result<Line, Refusal> {
    let mut words = Words::new(line);
    let name = words.next().ok_or(Invalid::Command)?.of(line);
    let Some(index) = commands::find(name) else {
        return Err(unknown(line, name, words));
    };
    let route = match COMMANDS[usize::from(index)].shape {
        Shape::Get => keys(words)?.ok_or(Invalid::Command)?,
        Shape::GetAndTouch => get_and_touch(line, words)?,
        _ => return short(line, words, index, allow_flush),
    };
    Ok(Line {
        command: index,
        noreply: false,
        route,
        block_len: None,
    })
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

/// The route of all words that are left; `None` if there is none.
fn keys(mut words: Words<'_>) -> Result<Option<Route>, Invalid> {
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
    if words.has_control {
        return Err(Invalid::Format);
    }
    Ok(first.map(|key| {
        if is_many {
            Route::Keys(Some(Merge::Values))
        } else {
            Route::Key(key)
        }
    }))
}

fn get_and_touch(line: &[u8], mut words: Words<'_>) -> Result<Route, Invalid> {
    let exptime = words.next().ok_or(Invalid::Command)?;
    if !is_exptime(exptime.of(line)) {
        return Err(Invalid::Exptime);
    }
    match keys(words)? {
        // A fragment is at most a blank and a CR longer than the line, and memcached reads no long
        // line but that of `get`.
        Some(Route::Keys(_)) if line.len() > MEMCACHE_LINE_LEN_MAX - 2 => Err(Invalid::LineTooLong),
        Some(route) => Ok(route),
        // memcached answers `END`; whether others do is theirs to say.
        None => Ok(Route::Placeholder),
    }
}

/// Every command with a bounded number of words, and those whose words do not matter.
fn short(
    line: &[u8],
    mut words: Words<'_>,
    index: u16,
    allow_flush: bool,
) -> Result<Line, Refusal> {
    let command = &COMMANDS[usize::from(index)];
    let args = Args::collect(line, &mut words);
    let block_len = command
        .shape
        .block_len_arg()
        .and_then(|arg| block_len(args.word(arg)));
    if args.count < command.args_min || args.count > command.args_max {
        return Err(Refusal {
            block_len,
            ..Invalid::Command.into()
        });
    }
    let noreply = command.shape.takes_noreply()
        && args.last.of(line) == b"noreply"
        // The one word of `delete noreply` is the key.
        && (command.shape != Shape::Delete || args.count > 1);
    let route = if words.has_control {
        Err(Invalid::Format)
    } else {
        match command.shape {
            Shape::Refused | Shape::RefusedQuietly | Shape::RefusedWithBlock => {
                Err(Invalid::Unsupported(index))
            }
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

    /// Checks the words, the number of which is right.
    fn route(&self, shape: Shape, noreply: bool) -> Result<Route, Invalid> {
        let key = self.words[0];
        match shape {
            Shape::Store | Shape::Cas => {
                let is_sound = is_key(key)
                    && digits_u32(self.word(1)).is_some()
                    && is_exptime(self.word(2))
                    && block_len(self.word(3)).is_some()
                    && (shape == Shape::Store || digits_u64(self.word(4)).is_some());
                is_sound.then_some(Route::Key(key)).ok_or(Invalid::Format)
            }
            Shape::Arithmetic if !is_key(key) => Err(Invalid::Format),
            Shape::Arithmetic => digits_u64(self.word(1))
                .map(|_| Route::Key(key))
                .ok_or(Invalid::Delta),
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
            Shape::Verbosity => digits_u32(self.word(0))
                .map(|_| Route::EveryServer(Merge::Line))
                .ok_or(Invalid::Format),
            Shape::FlushAll => {
                let has_delay = self.count > u32::from(noreply);
                if has_delay && !is_exptime(self.word(0)) {
                    return Err(Invalid::Exptime);
                }
                Ok(Route::EveryServer(Merge::Line))
            }
            Shape::Quit => Ok(Route::Local),
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

/// A number of seconds, or a moment; negative means at once. memcached 1.6.18 wraps what does not
/// fit 32 bits, others refuse it and would read the data block as commands.
#[inline]
fn is_exptime(word: &[u8]) -> bool {
    let (digits, max) = match word {
        [b'-', digits @ ..] => (digits, 1 << 31),
        digits => (digits, (1 << 31) - 1),
    };
    digits_u32(digits).is_some_and(|seconds| seconds <= max)
}

/// The length of a data block, as far as memcached accepts it.
#[inline]
fn block_len(word: &[u8]) -> Option<u32> {
    digits_u32(word).filter(|&len| len <= BLOCK_LEN_MAX)
}

/// The longest line has six words after the command (`cas` with `noreply`).
const ARGS_KEPT: usize = 6;

/// memcached adds two to it and counts in 32 bits with a sign.
const BLOCK_LEN_MAX: u32 = (1 << 31) - 3;
