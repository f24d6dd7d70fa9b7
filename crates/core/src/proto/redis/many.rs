//! Requests that are split by key, recognised whole, with the places of their keys.
//!
//! Nothing here decides anything, as in [`super::fast`]: what is recognised is what the general path would
//! have read, and the keys are those that [`super::split::parts`] would have found in a second walk.

use alloc::vec::Vec;

use super::bulk::{self, Word};
use super::commands::{self, Keys, Serve};
use crate::num::to_usize;
use crate::proto::{Noted, Part, Request, RequestLimits, Route, Span, scan};

/// As [`recognise`]; `noted` is empty unless it holds the request's keys.
#[inline]
pub(super) fn note(bytes: &[u8], limits: &RequestLimits, noted: Noted<'_>) -> Option<Request> {
    let noted = noted?;
    noted.clear();
    let request = recognise(bytes, limits, noted);
    if request.is_none() {
        noted.clear();
    }
    request
}

/// The request at the front of `bytes`, if it is one with two keys or more, whole, with short headers and
/// within the limits; `parts` are its keys then. `None` says
/// nothing, and leaves anything in `parts`.
#[inline]
fn recognise(bytes: &[u8], limits: &RequestLimits, parts: &mut Vec<Part>) -> Option<Request> {
    let (words, name_at) = scan::short_header(b'*', bytes)?;
    if words < 3 || limits.unauthenticated {
        return None;
    }
    let name = bulk::at(bytes, name_at)?;
    let command = find(name.text.of(bytes))?;
    let row = commands::row(command);
    let Serve::Split(
        merge,
        Keys::Range {
            first: 1,
            last: -1,
            step,
        },
    ) = row.serve
    else {
        return None;
    };
    let end = match step {
        1 => keys(bytes, name.raw.end, words - 1, parts)?,
        2 if words >= 5 && words % 2 == 1 => pairs(bytes, name.raw.end, words / 2, parts)?,
        _ => return None,
    };
    (end <= limits.frame_len_max).then_some(Request {
        len: end,
        command,
        noreply: false,
        readonly: row.readonly,
        route: Route::Keys(Some(merge)),
    })
}

/// `count` keys from `at` on; where they end.
fn keys(bytes: &[u8], mut at: u32, count: u32, parts: &mut Vec<Part>) -> Option<u32> {
    parts.resize(to_usize(count), Part::default());
    for part in parts {
        let Word { raw, text: key } = bulk::at(bytes, at)?;
        *part = Part { key, raw };
        at = raw.end;
    }
    Some(at)
}

/// `count` keys, each followed by a value, from `at` on; where they end.
fn pairs(bytes: &[u8], mut at: u32, count: u32, parts: &mut Vec<Part>) -> Option<u32> {
    parts.resize(to_usize(count), Part::default());
    for part in parts {
        let key = bulk::at(bytes, at)?;
        let value = bulk::at(bytes, key.raw.end)?;
        let raw = Span {
            start: at,
            end: value.raw.end,
        };
        *part = Part { key: key.text, raw };
        at = raw.end;
    }
    Some(at)
}

/// The place of the command called `name`, if it is one of those that are split.
fn find(name: &[u8]) -> Option<u16> {
    let is_one = commands::SPLIT_NAMES
        .iter()
        .any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
    is_one.then(|| commands::find(name)).flatten()
}
