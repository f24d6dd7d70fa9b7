//! One client: what it asks, what it must be told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write as _;
use std::ops::Range;

use twemproxy_core::config::PoolConfig;
use twemproxy_core::proto::Protocol;

use super::dice::Dice;
use super::plan::Manners;
use super::words::{flush_write, memcache_writes, redis_writes, value};
use crate::model::{Measure, memcache, redis};

/// Keys that every server holds from the start and nobody writes.
pub(super) const SHARED_KEYS: usize = 8;
/// A key that every server holds where clients gorge themselves.
pub(super) const LARGE_KEY: &[u8] = b"s-large";
/// Bytes its value is padded with.
const LARGE_LEN: usize = 12_000;
/// Keys of its own that a client writes again and again.
const OWN_KEYS: usize = 6;

/// What a reply may look like where faults leave open what the model would say.
#[derive(Clone, Default, Debug)]
pub(super) enum Shape {
    /// Exactly the model's reply: no server is involved.
    #[default]
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
#[derive(Clone, Default, Debug)]
pub(super) struct Expect {
    /// The model's reply.
    pub(super) reply: Vec<u8>,
    pub(super) shape: Shape,
    pub(super) keys: Vec<Vec<u8>>,
    /// Fingerprints of its writes.
    pub(super) writes: Vec<u64>,
    /// Values are asked for with their versions.
    pub(super) has_versions: bool,
    /// When it was sent.
    pub(super) step: u64,
    pub(super) at: u64,
    /// Where it ends in the stream of its client.
    pub(super) end: u64,
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
    number: usize,
    pub(super) pool: usize,
    pub(super) link: usize,
    pub(super) phase: Phase,
    /// It waits for replies before it asks again.
    pub(super) waits: bool,
    /// The engine said that it will be closed for a limit or a broken reply.
    pub(super) doomed: bool,
    /// The engine said that it will be closed because it was idle for too long.
    pub(super) idled: bool,
    /// It wants no reply to anything.
    pub(super) silent: bool,
    /// Versions of its own keys: the server's, and the model's of the same moment.
    pub(super) versions: BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>,
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
    /// Its pool's.
    password: bool,
    pub(super) allow_flush: bool,
    servers: Range<usize>,
    /// Keys whose value faults made uncertain.
    tainted: BTreeSet<Vec<u8>>,
    /// Keys written once and not yet deleted.
    pub(super) fresh: Vec<Vec<u8>>,
    pub(super) seq: u32,
}

/// The preloaded keys with their values.
fn shared_items(large: bool) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let small = (0..SHARED_KEYS).map(|n| (format!("s{n}").into_bytes(), n * n * 10));
    let large = large.then(|| (LARGE_KEY.to_vec(), LARGE_LEN));
    small.chain(large).map(|(key, fill)| {
        let value = value(&key, 0, fill);
        (key, value)
    })
}

/// A memcached store with the shared keys.
pub(super) fn memcache_store(large: bool) -> memcache::Store {
    let mut store = memcache::Store::default();
    for (key, value) in shared_items(large) {
        let words = ["set", "", "0", "0", ""].map(|word| word.as_bytes().to_vec());
        let [verb, _, flags, exptime, _] = words;
        let len = value.len().to_string().into_bytes();
        store.apply(&[verb, key, flags, exptime, len], &value, false);
    }
    store
}

/// A redis store with the shared keys.
pub(super) fn redis_store(large: bool) -> redis::Store {
    let mut store = redis::Store::default();
    for (key, value) in shared_items(large) {
        store.apply(&[b"set".to_vec(), key, value]);
    }
    store
}

/// Where a client comes to.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) pool: usize,
    pub(super) link: usize,
    pub(super) config: &'a PoolConfig,
    /// The pool's, among all.
    pub(super) servers: Range<usize>,
    /// The large key is there.
    pub(super) large: bool,
}

impl Client {
    pub(super) fn new(number: usize, place: Place<'_>) -> Self {
        let config = place.config;
        let prefix = if config.hash_tag.is_some() && number.is_multiple_of(2) {
            format!("{{c{number}}}:")
        } else {
            format!("c{number}:")
        };
        Self {
            number,
            pool: place.pool,
            link: place.link,
            phase: Phase::Open,
            waits: false,
            doomed: false,
            idled: false,
            silent: false,
            versions: BTreeMap::new(),
            expects: VecDeque::new(),
            inbox: Vec::new(),
            next_read: 0,
            read_planned: false,
            trusts_silence: false,
            prefix,
            mirror: match config.protocol {
                Protocol::Redis => Mirror::Redis(redis_store(place.large)),
                Protocol::Memcache => Mirror::Memcache(memcache_store(place.large)),
            },
            password: config.redis_auth.is_some(),
            allow_flush: config.allow_flush,
            servers: place.servers,
            tainted: BTreeSet::new(),
            fresh: Vec::new(),
            seq: 0,
        }
    }

    pub(super) fn is_redis(&self) -> bool {
        matches!(self.mirror, Mirror::Redis(_))
    }

    pub(super) fn own_key(&self, dice: &mut Dice) -> Vec<u8> {
        format!("{}k{}", self.prefix, dice.upto(OWN_KEYS - 1)).into_bytes()
    }

    pub(super) fn new_key(&self, part: usize) -> Vec<u8> {
        format!("{}u{}.{part}", self.prefix, self.seq).into_bytes()
    }

    pub(super) fn some_key(&self, dice: &mut Dice) -> Vec<u8> {
        match dice.upto(3) {
            0 => format!("s{}", dice.upto(SHARED_KEYS - 1)).into_bytes(),
            1 if !self.fresh.is_empty() => self.fresh[dice.upto(self.fresh.len() - 1)].clone(),
            _ => self.own_key(dice),
        }
    }

    pub(super) fn some_keys(&self, dice: &mut Dice, max: usize) -> Vec<Vec<u8>> {
        let count = 1 + dice.upto(max - 1);
        (0..count).map(|_| self.some_key(dice)).collect()
    }

    pub(super) fn some_value(&self, key: &[u8], dice: &mut Dice, manners: &Manners) -> Vec<u8> {
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
        if dice.chance(manners.wrong_auth) {
            // Who is already known stays known.
            out.extend_from_slice(b"*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n");
            return Expect::exact(self.auth_refusal());
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
            ..Expect::default()
        }
    }

    /// What a wrong password is answered with.
    pub(super) const fn auth_refusal(&self) -> &'static [u8] {
        if self.password {
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        } else {
            b"-ERR Client sent AUTH, but no password is set\r\n"
        }
    }

    fn ask_memcache(
        &mut self,
        dice: &mut Dice,
        manners: &Manners,
        out: &mut Vec<u8>,
    ) -> Option<Expect> {
        if !self.silent && dice.chance(30) {
            out.extend_from_slice(b"verbosity 1\r\n");
            let mut expect = Expect::exact(b"OK\r\n");
            expect.shape = Shape::Lines(&["OK"]);
            return Some(expect);
        }
        if dice.chance(manners.flush) {
            return self.flush(dice, manners, out);
        }
        let draft = self.draft_memcache(dice, manners);
        let verb = draft.words[0].as_slice();
        let is_noreply = !draft.shape.is_values() && (self.silent || dice.chance(manners.noreply));
        out.extend(draft.words.join(&b' '));
        if is_noreply {
            out.extend_from_slice(b" noreply");
        }
        out.extend_from_slice(b"\r\n");
        if matches!(
            verb,
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas"
        ) {
            out.extend_from_slice(&draft.data);
            out.extend_from_slice(b"\r\n");
        }
        let Mirror::Memcache(store) = &mut self.mirror else {
            unreachable!("asked of memcached clients only");
        };
        let mut words = draft.words.clone();
        if verb == b"cas"
            && let Some((_, ours)) = self.versions.get(&words[1])
        {
            words[5].clone_from(ours);
        }
        let reply = store.apply(&words, &draft.data, false);
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
            has_versions: draft.words[0] == b"gets",
            ..Expect::default()
        })
    }

    pub(super) fn some_own_key(&self, dice: &mut Dice) -> Vec<u8> {
        self.fresh
            .last()
            .filter(|_| dice.chance(500))
            .cloned()
            .unwrap_or_else(|| self.own_key(dice))
    }

    /// Asks for a flush of every server, with a delay that does not pass while the world lasts.
    fn flush(&self, dice: &mut Dice, manners: &Manners, out: &mut Vec<u8>) -> Option<Expect> {
        let number =
            1_000_000 + 10_000 * self.number + usize::try_from(self.seq).expect("few requests");
        let delay = number.to_string();
        out.extend_from_slice(b"flush_all ");
        out.extend_from_slice(delay.as_bytes());
        if !self.allow_flush {
            out.extend_from_slice(b"\r\n");
            return Some(Expect::exact(b"CLIENT_ERROR flush_all not allowed\r\n"));
        }
        if self.silent || dice.chance(manners.noreply) {
            out.extend_from_slice(b" noreply\r\n");
            return None;
        }
        out.extend_from_slice(b"\r\n");
        let servers = self.servers.clone();
        Some(Expect {
            shape: Shape::Lines(&["OK"]),
            writes: servers
                .map(|server| flush_write(server, delay.as_bytes()))
                .collect(),
            ..Expect::exact(b"OK\r\n")
        })
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
}

impl Shape {
    pub(super) const fn is_values(&self) -> bool {
        matches!(self, Self::Values(_))
    }
}

impl Expect {
    /// A reply that only the proxy gives.
    pub(super) fn exact(reply: &[u8]) -> Self {
        Self {
            reply: reply.to_vec(),
            ..Self::default()
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
