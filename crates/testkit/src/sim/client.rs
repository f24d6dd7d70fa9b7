//! One client: what it asks, what it must be told.

use std::collections::{BTreeSet, VecDeque};
use std::io::Write as _;

use twemproxy_core::proto::Protocol;

use super::dice::Dice;
use super::plan::Manners;
use super::words::{is_value_of, memcache_writes, redis_writes, value};
use crate::model::{self, Measure, memcache, redis};

/// Keys that every server holds from the start and nobody writes.
pub(super) const SHARED_KEYS: usize = 8;
/// Keys of its own that a client writes again and again.
const OWN_KEYS: usize = 6;

/// What a reply may look like where faults leave open what the model would say.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Exactly the model's reply: no server is involved.
    Exact,
    /// Values of these keys, in order, any of them missing.
    Values(Vec<Vec<u8>>),
    /// A redis integer up to this.
    Number(usize),
    /// One of these lines.
    Lines(&'static [&'static str]),
    /// An error in the proxy's own words.
    Refused,
}

/// A request in flight.
#[derive(Clone, Debug)]
pub(super) struct Expect {
    /// The model's reply.
    pub(super) reply: Vec<u8>,
    pub(super) shape: Shape,
    pub(super) keys: Vec<Vec<u8>>,
    /// Fingerprints of its writes.
    pub(super) writes: Vec<u64>,
    /// When it was sent.
    pub(super) step: u64,
    pub(super) at: u64,
}

/// A request before it is sent.
#[derive(Debug)]
struct Draft {
    words: Vec<Vec<u8>>,
    data: Vec<u8>,
    shape: Shape,
    keys: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Mirror {
    Redis(redis::Store),
    Memcache(memcache::Store),
}

/// Where a client is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It talks.
    Open,
    /// It has said its last word and waits for the end.
    Closing,
    /// It is gone.
    Gone,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) pool: usize,
    pub(super) link: usize,
    pub(super) phase: Phase,
    /// It waits for replies before it asks again.
    pub(super) waits: bool,
    /// The engine said that it will be closed for a limit or a broken reply.
    pub(super) doomed: bool,
    pub(super) expects: VecDeque<Expect>,
    pub(super) inbox: Vec<u8>,
    pub(super) next_read: u64,
    /// The next read is on the calendar.
    pub(super) read_planned: bool,
    /// Nothing goes wrong: even what nobody confirmed is done.
    pub(super) trusts_silence: bool,
    /// What its own keys and their tags begin with.
    pub(super) prefix: String,
    mirror: Mirror,
    /// Keys whose value faults made uncertain.
    tainted: BTreeSet<Vec<u8>>,
    /// Keys written once and not yet deleted.
    fresh: Vec<Vec<u8>>,
    seq: u32,
}

/// The preloaded keys with their values.
pub(super) fn shared_items() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    (0..SHARED_KEYS).map(|n| {
        let key = format!("s{n}").into_bytes();
        let value = value(&key, 0, n * n * 10);
        (key, value)
    })
}

/// A memcached store with the shared keys.
pub(super) fn memcache_store() -> memcache::Store {
    let mut store = memcache::Store::default();
    for (key, value) in shared_items() {
        let words = ["set", "", "0", "0", ""].map(|word| word.as_bytes().to_vec());
        let [verb, _, flags, exptime, _] = words;
        let len = value.len().to_string().into_bytes();
        store.apply(&[verb, key, flags, exptime, len], &value, false);
    }
    store
}

/// A redis store with the shared keys.
pub(super) fn redis_store() -> redis::Store {
    let mut store = redis::Store::default();
    for (key, value) in shared_items() {
        store.apply(&[b"set".to_vec(), key, value]);
    }
    store
}

impl Client {
    pub(super) fn new(
        number: usize,
        pool: usize,
        link: usize,
        protocol: Protocol,
        tag: Option<[u8; 2]>,
    ) -> Self {
        let prefix = if tag.is_some() && number.is_multiple_of(2) {
            format!("{{c{number}}}:")
        } else {
            format!("c{number}:")
        };
        Self {
            pool,
            link,
            phase: Phase::Open,
            waits: false,
            doomed: false,
            expects: VecDeque::new(),
            inbox: Vec::new(),
            next_read: 0,
            read_planned: false,
            trusts_silence: false,
            prefix,
            mirror: match protocol {
                Protocol::Redis => Mirror::Redis(redis_store()),
                Protocol::Memcache => Mirror::Memcache(memcache_store()),
            },
            tainted: BTreeSet::new(),
            fresh: Vec::new(),
            seq: 0,
        }
    }

    fn is_redis(&self) -> bool {
        matches!(self.mirror, Mirror::Redis(_))
    }

    fn own_key(&self, dice: &mut Dice) -> Vec<u8> {
        format!("{}k{}", self.prefix, dice.upto(OWN_KEYS - 1)).into_bytes()
    }

    fn new_key(&self, part: usize) -> Vec<u8> {
        format!("{}u{}.{part}", self.prefix, self.seq).into_bytes()
    }

    fn some_key(&self, dice: &mut Dice) -> Vec<u8> {
        match dice.upto(3) {
            0 => format!("s{}", dice.upto(SHARED_KEYS - 1)).into_bytes(),
            1 if !self.fresh.is_empty() => self.fresh[dice.upto(self.fresh.len() - 1)].clone(),
            _ => self.own_key(dice),
        }
    }

    fn some_keys(&self, dice: &mut Dice, max: usize) -> Vec<Vec<u8>> {
        let count = 1 + dice.upto(max - 1);
        (0..count).map(|_| self.some_key(dice)).collect()
    }

    fn some_value(&self, key: &[u8], dice: &mut Dice, manners: &Manners) -> Vec<u8> {
        let max = if dice.chance(100) { manners.value } else { 20 };
        value(key, self.seq, dice.upto(max.min(manners.value)))
    }

    /// Appends the next request to `out`; returns what must come back, if anything.
    pub(super) fn ask(
        &mut self,
        dice: &mut Dice,
        manners: &Manners,
        out: &mut Vec<u8>,
    ) -> Option<Expect> {
        self.seq += 1;
        if self.is_redis() {
            Some(self.ask_redis(dice, manners, out))
        } else {
            self.ask_memcache(dice, manners, out)
        }
    }

    fn ask_redis(&mut self, dice: &mut Dice, manners: &Manners, out: &mut Vec<u8>) -> Expect {
        if dice.chance(60) {
            out.extend_from_slice(dice.pick(&[
                b"PING\r\n".as_slice(),
                b"*1\r\n$4\r\nping\r\n",
                b"\r\n*0\r\nPING\r\n",
            ]));
            return Expect::exact(b"+PONG\r\n");
        }
        let draft = self.draft_redis(dice, manners);
        if dice.chance(30) && draft.words[0] == b"GET" {
            out.extend_from_slice(&[b"get ", draft.words[1].as_slice(), b"\r\n"].concat());
        } else {
            push_array(&draft.words, out);
        }
        let Mirror::Redis(store) = &mut self.mirror else {
            unreachable!("asked of redis clients only");
        };
        Expect {
            reply: store.apply(&draft.words),
            shape: draft.shape,
            keys: draft.keys,
            writes: redis_writes(&draft.words),
            step: 0,
            at: 0,
        }
    }

    fn draft_redis(&mut self, dice: &mut Dice, manners: &Manners) -> Draft {
        let one = |verb: &str, key: Vec<u8>, shape| Draft {
            words: vec![verb.as_bytes().to_vec(), key.clone()],
            data: Vec::new(),
            shape,
            keys: vec![key],
        };
        match dice.upto(11) {
            0..=2 => {
                let key = self.some_key(dice);
                one("GET", key.clone(), Shape::Values(vec![key]))
            }
            3 | 4 => {
                let is_new = dice.chance(500);
                let key = if is_new {
                    self.new_key(0)
                } else {
                    self.own_key(dice)
                };
                if is_new {
                    self.fresh.push(key.clone());
                }
                let value = self.some_value(&key, dice, manners);
                let mut draft = one("SET", key, Shape::Lines(&["+OK"]));
                draft.words.push(value);
                draft
            }
            5 | 6 => {
                let keys = self.some_keys(dice, manners.keys);
                Draft::of_keys("MGET", keys.clone(), Shape::Values(keys))
            }
            7 => {
                let mut draft = Draft::of_keys("MSET", Vec::new(), Shape::Lines(&["+OK"]));
                for part in 0..=dice.upto(manners.keys - 1) {
                    let key = self.new_key(part);
                    let value = self.some_value(&key, dice, manners);
                    self.fresh.push(key.clone());
                    draft.keys.push(key.clone());
                    draft.words.extend([key, value]);
                }
                draft
            }
            8 if !self.fresh.is_empty() => {
                let count = (1 + dice.upto(manners.keys - 1)).min(self.fresh.len());
                let keys = self.fresh.split_off(self.fresh.len() - count);
                Draft::of_keys("DEL", keys, Shape::Number(count))
            }
            9 => {
                let key = self.own_key(dice);
                let value = value(&key, self.seq, dice.upto(5));
                let mut draft = one("APPEND", key, Shape::Number(usize::MAX));
                draft.words.push(value);
                draft
            }
            10 => one("INCR", self.new_key(0), Shape::Number(1)),
            _ => {
                let keys = self.some_keys(dice, manners.keys);
                let count = keys.len();
                Draft::of_keys("EXISTS", keys, Shape::Number(count))
            }
        }
    }

    fn ask_memcache(
        &mut self,
        dice: &mut Dice,
        manners: &Manners,
        out: &mut Vec<u8>,
    ) -> Option<Expect> {
        if dice.chance(30) {
            out.extend_from_slice(b"verbosity 1\r\n");
            let mut expect = Expect::exact(b"OK\r\n");
            expect.shape = Shape::Lines(&["OK"]);
            return Some(expect);
        }
        let draft = self.draft_memcache(dice, manners);
        let verb = draft.words[0].as_slice();
        let is_noreply = !draft.shape.is_values() && dice.chance(150);
        out.extend(draft.words.join(&b' '));
        if is_noreply {
            out.extend_from_slice(b" noreply");
        }
        out.extend_from_slice(b"\r\n");
        if matches!(verb, b"set" | b"add" | b"replace" | b"append" | b"prepend") {
            out.extend_from_slice(&draft.data);
            out.extend_from_slice(b"\r\n");
        }
        let Mirror::Memcache(store) = &mut self.mirror else {
            unreachable!("asked of memcached clients only");
        };
        let reply = store.apply(&draft.words, &draft.data, false);
        if is_noreply {
            if !self.trusts_silence {
                self.tainted.extend(draft.keys);
            }
            return None;
        }
        Some(Expect {
            reply,
            shape: draft.shape,
            writes: memcache_writes(&draft.words, &draft.data),
            keys: draft.keys,
            step: 0,
            at: 0,
        })
    }

    fn draft_memcache(&mut self, dice: &mut Dice, manners: &Manners) -> Draft {
        const STORED: &[&str] = &["STORED", "NOT_STORED"];
        match dice.upto(9) {
            0..=2 => {
                let key = self.some_key(dice);
                Draft::of_keys("get", vec![key.clone()], Shape::Values(vec![key]))
            }
            3 | 4 => {
                let keys = self.some_keys(dice, manners.keys);
                Draft::of_keys("get", keys.clone(), Shape::Values(keys))
            }
            5 if !self.fresh.is_empty() => {
                let key = self.fresh.pop().expect("just looked");
                Draft::of_keys("delete", vec![key], Shape::Lines(&["DELETED", "NOT_FOUND"]))
            }
            6 => {
                let key = self.some_own_key(dice);
                let mut draft =
                    Draft::of_keys("touch", vec![key], Shape::Lines(&["TOUCHED", "NOT_FOUND"]));
                draft.words.push((1_000_000 + self.seq).to_string().into());
                draft
            }
            verb => {
                let verb = match verb {
                    7 => dice.pick(&["add", "replace"]),
                    8 => dice.pick(&["append", "prepend"]),
                    _ => "set",
                };
                let key = if verb == "set" && dice.chance(500) {
                    let key = self.new_key(0);
                    self.fresh.push(key.clone());
                    key
                } else {
                    self.own_key(dice)
                };
                let data = if matches!(verb, "append" | "prepend") {
                    value(&key, self.seq, dice.upto(5))
                } else {
                    self.some_value(&key, dice, manners)
                };
                let mut draft = Draft::of_keys(verb, vec![key], Shape::Lines(STORED));
                let tail = ["0".to_owned(), "0".to_owned(), data.len().to_string()];
                draft.words.extend(tail.map(String::into_bytes));
                draft.data = data;
                draft
            }
        }
    }

    fn some_own_key(&self, dice: &mut Dice) -> Vec<u8> {
        self.fresh
            .last()
            .filter(|_| dice.chance(500))
            .cloned()
            .unwrap_or_else(|| self.own_key(dice))
    }

    /// What a reply is measured with.
    pub(super) fn measure(&self, bytes: &[u8]) -> Measure {
        match self.mirror {
            Mirror::Redis(_) => redis::measure_reply(bytes),
            Mirror::Memcache(_) => memcache::measure_response(bytes),
        }
    }

    /// Whether faults left open what the model would say.
    pub(super) fn is_uncertain(&self, expect: &Expect) -> bool {
        expect.keys.iter().any(|key| self.tainted.contains(key))
    }

    /// A request failed: what it would have written may or may not be there, now or later.
    pub(super) fn taint(&mut self, expect: &Expect) {
        if !expect.writes.is_empty() {
            self.tainted.extend(expect.keys.iter().cloned());
        }
    }

    /// Whether a reply says what the model says.
    pub(super) fn is_models(&self, expect: &Expect, reply: &[u8]) -> bool {
        let may_differ = !self.is_redis() && expect.shape.is_values() && expect.keys.len() > 1;
        reply == expect.reply || may_differ && are_same_blocks(reply, &expect.reply)
    }

    /// Whether a reply has a shape that some order of events could explain.
    pub(super) fn is_plausible(&self, expect: &Expect, reply: &[u8]) -> bool {
        match &expect.shape {
            Shape::Exact => reply == expect.reply,
            Shape::Values(keys) if !self.is_redis() => are_blocks_of(keys, reply),
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
}

impl Draft {
    fn of_keys(verb: &str, keys: Vec<Vec<u8>>, shape: Shape) -> Self {
        let mut words = vec![verb.as_bytes().to_vec()];
        words.extend(keys.iter().cloned());
        Self {
            words,
            data: Vec::new(),
            shape,
            keys,
        }
    }
}

impl Shape {
    const fn is_values(&self) -> bool {
        matches!(self, Self::Values(_))
    }
}

impl Expect {
    /// A reply that only the proxy gives.
    pub(super) fn exact(reply: &[u8]) -> Self {
        Self {
            reply: reply.to_vec(),
            shape: Shape::Exact,
            keys: Vec::new(),
            writes: Vec::new(),
            step: 0,
            at: 0,
        }
    }

    /// An error in the proxy's words, which other tests know better.
    pub(super) fn refused() -> Self {
        Self {
            shape: Shape::Refused,
            ..Self::exact(b"")
        }
    }
}

/// Appends a redis request; quicker than the model's way of writing one.
fn push_array(words: &[Vec<u8>], out: &mut Vec<u8>) {
    let written = write!(out, "*{}\r\n", words.len());
    written.expect("memory takes everything");
    for word in words {
        let written = write!(out, "${}\r\n", word.len());
        written.expect("memory takes everything");
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
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

/// Whether `reply` holds memcached values of some of `keys`, in any order.
fn are_blocks_of(keys: &[Vec<u8>], reply: &[u8]) -> bool {
    let Some(blocks) = blocks_of(reply) else {
        return false;
    };
    let is_right = |block: &Block<'_>| {
        keys.iter().any(|key| key == block.key) && is_value_of(block.key, block.value)
    };
    blocks.len() <= keys.len() && blocks.iter().all(is_right)
}

/// Whether two memcached responses hold the same values. The proxy may put the blocks of different
/// servers into another order where keys are missing, as twemproxy does.
fn are_same_blocks(a: &[u8], b: &[u8]) -> bool {
    let sorted = |reply| {
        let mut blocks = blocks_of(reply)?;
        blocks.sort();
        Some(blocks)
    };
    sorted(a).is_some_and(|blocks| sorted(b) == Some(blocks))
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Block<'a> {
    key: &'a [u8],
    value: &'a [u8],
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
        if flags != b"0" || words.next().is_some() {
            return None;
        }
        blocks.push(Block { key, value });
    }
    Some(blocks)
}

/// The frame at the front of what a redis server was sent.
pub(super) use model::redis::Frame as RedisFrame;

/// The frame at the front of what a memcached server was sent.
pub(super) use model::memcache::Frame as MemcacheFrame;
