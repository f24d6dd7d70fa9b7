//! What replies may look like.

use super::client::{Client, Expect, Shape};
use super::words::is_value_of;
use crate::model::{Measure, redis};

impl Client {
    /// Whether a reply says what the model says.
    pub(super) fn is_models(&self, expect: &Expect, reply: &[u8]) -> bool {
        let is_memcache_get = !self.is_redis() && expect.shape.is_values();
        let may_differ = is_memcache_get && (expect.keys.len() > 1 || expect.has_versions);
        reply == expect.reply || may_differ && are_same_blocks(reply, &expect.reply)
    }

    /// Whether a reply has a shape that some order of events could explain.
    pub(super) fn is_plausible(&self, expect: &Expect, reply: &[u8]) -> bool {
        match &expect.shape {
            Shape::Exact => reply == expect.reply,
            Shape::Values(keys) if !self.is_redis() => {
                are_blocks_of(keys, reply, expect.has_versions)
            }
            Shape::Values(keys) if expect.reply.starts_with(b"*") => are_elements_of(keys, reply),
            Shape::Values(keys) => bulk_of(&keys[0], reply) == Some(&[]),
            Shape::Number(max) => line_of(reply)
                .and_then(|line| line.strip_prefix(':'))
                .and_then(|number| number.parse::<usize>().ok())
                .is_some_and(|number| number <= *max),
            Shape::Lines(lines) => line_of(reply).is_some_and(|line| lines.contains(&line)),
            Shape::Refused => {
                let text = line_of(reply).unwrap_or_default();
                let prefixes = ["-ERR ", "ERROR", "CLIENT_ERROR ", "SERVER_ERROR "];
                prefixes.iter().any(|prefix| text.starts_with(prefix))
            }
        }
    }

    /// Whether a reply says what the model says, but for values that are missing.
    pub(super) fn is_models_with_misses(&self, expect: &Expect, reply: &[u8]) -> bool {
        if !expect.shape.is_values() {
            return false;
        }
        if self.is_redis() {
            return are_elements_or_nil(reply, &expect.reply);
        }
        let (Some(got), Some(model)) = (blocks_of(reply), blocks_of(&expect.reply)) else {
            return false;
        };
        got.len() <= model.len() && got.iter().all(|block| model.contains(block))
    }

    /// Notes the versions of values in a reply that is exactly the model's: a write may name them.
    pub(super) fn learn_versions(&mut self, expect: &Expect, reply: &[u8]) {
        let (Some(got), Some(model)) = (blocks_of(reply), blocks_of(&expect.reply)) else {
            return;
        };
        for block in got {
            let same = model.iter().find(|other| other.key == block.key);
            if let Some(other) = same
                && let (Some(real), Some(ours)) = (block.version, other.version)
                && block.key.starts_with(self.prefix.as_bytes())
            {
                let versions = (real.to_vec(), ours.to_vec());
                self.versions.insert(block.key.to_vec(), versions);
            }
        }
    }
}

/// The text of a reply that is one line.
pub(super) fn line_of(reply: &[u8]) -> Option<&str> {
    let line = reply.strip_suffix(b"\r\n")?;
    std::str::from_utf8(line).ok()
}

/// Takes a redis bulk string that is nil or a value of `key` off the front.
fn bulk_of<'a>(key: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let Measure::Done(len) = redis::measure_reply(bytes) else {
        return None;
    };
    let (reply, rest) = bytes.split_at(len);
    if reply == b"$-1\r\n" {
        return Some(rest);
    }
    let start = 2 + reply.windows(2).position(|two| two == b"\r\n")?;
    is_value_of(key, reply.get(start..len - 2)?).then_some(rest)
}

fn are_elements_of(keys: &[Vec<u8>], reply: &[u8]) -> bool {
    let head = format!("*{}\r\n", keys.len());
    let Some(mut rest) = reply.strip_prefix(head.as_bytes()) else {
        return false;
    };
    for key in keys {
        match bulk_of(key, rest) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Whether each element of one redis reply is the other's, or nil.
fn are_elements_or_nil(mut reply: &[u8], mut model: &[u8]) -> bool {
    if model.starts_with(b"*") {
        let end = model.windows(2).position(|two| two == b"\r\n");
        let head_len = end.map_or(0, |end| end + 2);
        let Some(rest) = reply.strip_prefix(&model[..head_len]) else {
            return false;
        };
        (reply, model) = (rest, &model[head_len..]);
    }
    while !model.is_empty() {
        let Measure::Done(len) = redis::measure_reply(model) else {
            return false;
        };
        let element;
        (element, model) = model.split_at(len);
        let rest = reply.strip_prefix(element);
        match rest.or_else(|| reply.strip_prefix(b"$-1\r\n")) {
            Some(rest) => reply = rest,
            None => return false,
        }
    }
    reply.is_empty()
}

/// Whether `reply` holds memcached values of some of `keys`, in any order.
fn are_blocks_of(keys: &[Vec<u8>], reply: &[u8], have_versions: bool) -> bool {
    let Some(blocks) = blocks_of(reply) else {
        return false;
    };
    let is_right = |block: &Block<'_>| {
        keys.iter().any(|key| key == block.key)
            && is_value_of(block.key, block.value)
            && block.version.is_some() == have_versions
    };
    blocks.len() <= keys.len() && blocks.iter().all(is_right)
}

/// Whether two memcached responses hold the same values. The proxy may put the blocks of different
/// servers into another order where keys are missing, as twemproxy does.
/// Versions differ from the model's: a server counts the writes of all clients.
fn are_same_blocks(a: &[u8], b: &[u8]) -> bool {
    let sorted = |reply| {
        let mut blocks = blocks_of(reply)?;
        blocks.sort_by(|a, b| a.identity().cmp(&b.identity()));
        Some(blocks)
    };
    sorted(a).is_some_and(|blocks| sorted(b) == Some(blocks))
}

#[derive(Clone, Copy, Debug)]
struct Block<'a> {
    key: &'a [u8],
    value: &'a [u8],
    version: Option<&'a [u8]>,
}

impl Block<'_> {
    /// All but the version itself.
    const fn identity(&self) -> (&[u8], &[u8], bool) {
        (self.key, self.value, self.version.is_some())
    }
}

impl PartialEq for Block<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

fn blocks_of(mut reply: &[u8]) -> Option<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    while reply != b"END\r\n" {
        let end = reply.windows(2).position(|two| two == b"\r\n")?;
        let line = reply[..end].strip_prefix(b"VALUE ")?;
        let mut words = line.split(|&byte| byte == b' ');
        let (key, flags, len) = (words.next()?, words.next()?, words.next()?);
        let len = std::str::from_utf8(len).ok()?.parse().ok()?;
        let (value, rest) = reply[end + 2..].split_at_checked(len)?;
        reply = rest.strip_prefix(b"\r\n")?;
        let version = words.next();
        let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        if flags != b"0" || words.next().is_some() || version.is_some_and(|text| !is_number(text)) {
            return None;
        }
        blocks.push(Block {
            key,
            value,
            version,
        });
    }
    Some(blocks)
}
