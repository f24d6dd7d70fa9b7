//! The command table: which commands there are, where their keys stand, and how each is served.
//!
//! The rows are generated (`cargo xtask gen-commands`) from what real servers answer to `COMMAND`;
//! the generator holds the policy. This file holds the vocabulary of the rows and finds them.

pub(super) use super::commands_table::ROWS;
use crate::num::to_usize;
use crate::proto::Merge;

/// One command.
#[derive(Debug)]
pub(super) struct Row {
    /// Lower case.
    pub(super) name: &'static str,
    /// It changes nothing: it may be sent a second time.
    pub(super) readonly: bool,
    /// What becomes of it.
    pub(super) serve: Serve,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Serve {
    /// Sent whole to the server that owns its keys.
    Forward(Keys),
    /// Split by server; the responses become one.
    Split(Merge, Keys),
    /// Answered by the proxy.
    Local(Local),
    /// Depends on its second word.
    Container(&'static [Subcommand]),
    /// Answered with an error that says why.
    Refused(Reason),
}

/// One second word of a command.
#[derive(Debug)]
pub(super) struct Subcommand {
    /// Whole name as redis writes it: `object|encoding`.
    pub(super) name: &'static str,
    /// As [`Row::readonly`].
    pub(super) readonly: bool,
    /// Never [`Serve::Split`] or [`Serve::Container`].
    pub(super) serve: Serve,
}

/// Which words are keys. Word 0 is the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keys {
    /// None.
    None,
    /// The word at this place.
    One(u8),
    /// Each `step`-th word from `first` to `last`; a negative `last` counts from the end.
    Range {
        /// Place of the first key.
        first: u8,
        /// Place of the last key, or -1 for the last word.
        last: i8,
        /// 2 where each key is followed by a value.
        step: u8,
    },
    /// The word at `count` says how many follow it, each `step` words apart.
    Counted {
        /// Place of the number.
        count: u8,
        /// 2 where each key is followed by a value.
        step: u8,
        /// Word 1 is a key, too: where the result is stored.
        destination: bool,
    },
    /// `HSCAN key ...`: the word behind the command. See [`is_scan`].
    Scan,
    /// `SORT key [...] [STORE key]`
    Sort,
    /// `SORT_RO key [...]`
    SortReadonly,
    /// `GEORADIUS key ... [STORE key] [STOREDIST key]`, options from this place.
    Georadius(u8),
    /// `XREAD [...] STREAMS key... id...`
    Streams,
}

/// What the proxy answers itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Local {
    /// `PING [message]`
    Ping,
    /// `ECHO message`
    Echo,
    /// `QUIT`
    Quit,
    /// `SELECT db`
    Select,
    /// `HELLO [2 [AUTH user password] [SETNAME name]]`
    Hello,
    /// `AUTH [user] password`
    Auth,
    /// `RESET`
    Reset,
    /// `CLIENT SETNAME name`
    ClientSetname,
    /// `CLIENT SETINFO option value`
    ClientSetinfo,
    /// `CLIENT GETNAME`
    ClientGetname,
    /// `CLIENT ID`
    ClientId,
    /// `CLIENT REPLY ON|OFF|SKIP`
    ClientReply,
    /// `MULTI`
    Multi,
    /// `EXEC`
    Exec,
    /// `DISCARD`
    Discard,
}

/// Why a command is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// It waits at the server.
    Blocking,
    /// Publishing and subscribing.
    PubSub,
    /// `WATCH` and `UNWATCH`.
    Transaction,
    /// It concerns one server, not a key.
    Administration,
    /// It concerns all keys of one server.
    Keyspace,
    /// It changes how a connection behaves, and server connections are shared.
    Connection,
    /// It makes a server connect to any address, and wait for it.
    Outward,
    /// It reads keys that nobody knows before it runs.
    Patterns,
}

/// The place in [`ROWS`] of the command called `name`, in any case.
#[inline]
pub(super) fn find(name: &[u8]) -> Option<u16> {
    // Setting bit 5 makes letters lower case and nothing else equal to a letter.
    if let &[a, b, c] = name {
        match [a | 0x20, b | 0x20, c | 0x20] {
            [b'g', b'e', b't'] => return Some(GET),
            [b's', b'e', b't'] => return Some(SET),
            _ => {}
        }
    }
    find_hashed(name)
}

fn find_hashed(name: &[u8]) -> Option<u16> {
    let wanted = Ends::of(name);
    let mut at = wanted.hash();
    loop {
        let slot = &SLOTS[at];
        if slot.place == EMPTY {
            return None;
        }
        if slot.ends.is_same(wanted)
            && (slot.ends_tell_all || name.eq_ignore_ascii_case(row(slot.place).name.as_bytes()))
        {
            return Some(slot.place);
        }
        at = (at + 1) % SLOT_COUNT;
    }
}

/// The row at `place`, which [`find`] returned.
#[inline]
pub(super) fn row(place: u16) -> &'static Row {
    &ROWS[usize::from(place)]
}

/// Whether some clients (phpredis up to 5.3.7) read what follows an error in place of this command's reply as
/// the replies to other commands.
pub(super) fn is_scan(place: u16) -> bool {
    row(place).name.ends_with("scan")
}

/// The place of the second word `verb` among `subcommands` of the command `name`.
pub(super) fn find_subcommand(
    name: &str,
    subcommands: &[Subcommand],
    verb: &[u8],
) -> Option<usize> {
    subcommands
        .iter()
        .position(|sub| verb.eq_ignore_ascii_case(&sub.name.as_bytes()[name.len() + 1..]))
}

pub(super) const GET: u16 = place_of("get");
pub(super) const SET: u16 = place_of("set");

/// How many commands are split by key.
const SPLIT_COUNT: usize = {
    let (mut place, mut count) = (0, 0);
    while place < ROWS.len() {
        if matches!(ROWS[place].serve, Serve::Split(..)) {
            count += 1;
        }
        place += 1;
    }
    count
};

/// The names of the commands that are split by key.
pub(super) static SPLIT_NAMES: [&str; SPLIT_COUNT] = {
    let mut names = [""; SPLIT_COUNT];
    let (mut place, mut count) = (0, 0);
    while place < ROWS.len() {
        if matches!(ROWS[place].serve, Serve::Split(..)) {
            names[count] = ROWS[place].name;
            count += 1;
        }
        place += 1;
    }
    names
};

/// A power of two, several times the number of rows, so that most commands are found at once.
const SLOT_COUNT: usize = 1024;
const EMPTY: u16 = u16::MAX;
const _: () = assert!(ROWS.len() * 3 < SLOT_COUNT);

/// A place in the hash table of names.
#[derive(Clone, Copy)]
struct Slot {
    ends: Ends,
    /// The name has no bytes but its ends, and letters only: what has the same ends is the name.
    ends_tell_all: bool,
    place: u16,
}

/// Length, the first and the last four bytes of a name, with bit 5 set: blind to the case of
/// letters. The ends of a shorter name overlap.
#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
    len: usize,
}

impl Ends {
    #[inline]
    const fn of(name: &[u8]) -> Self {
        let (first, last) = match (name.first_chunk(), name.last_chunk()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first), u32::from_le_bytes(*last)),
            _ => match *name {
                [a] => (u32::from_le_bytes([a, 0, 0, 0]), 0),
                [a, b] => (u32::from_le_bytes([a, b, 0, 0]), 0),
                [a, b, c] => (u32::from_le_bytes([a, b, c, 0]), 0),
                _ => (0, 0),
            },
        };
        Self {
            first: first | 0x2020_2020,
            last: last | 0x2020_2020,
            len: name.len(),
        }
    }

    #[inline]
    const fn is_same(self, other: Self) -> bool {
        self.first == other.first && self.last == other.last && self.len == other.len
    }

    #[inline]
    const fn hash(self) -> usize {
        let mixed = self.first.wrapping_mul(0x9E37_79B1) ^ self.last.wrapping_mul(0x85EB_CA77);
        (to_usize(mixed >> 16) ^ self.len.wrapping_mul(37)) % SLOT_COUNT
    }
}

/// Open addressing: each row stands at its hash or in the next free slot.
static SLOTS: [Slot; SLOT_COUNT] = {
    let mut slots = [Slot {
        ends: Ends::of(b""),
        ends_tell_all: false,
        place: EMPTY,
    }; SLOT_COUNT];
    let mut place = 0;
    while place < ROWS.len() {
        let name = ROWS[place].name.as_bytes();
        let ends = Ends::of(name);
        let mut at = ends.hash();
        while slots[at].place != EMPTY {
            at = (at + 1) % SLOT_COUNT;
        }
        slots[at] = Slot {
            ends,
            ends_tell_all: name.len() <= 8 && is_alphabetic(name),
            place: narrow(place),
        };
        place += 1;
    }
    slots
};

const fn is_alphabetic(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() && name[at].is_ascii_alphabetic() {
        at += 1;
    }
    at == name.len()
}

#[allow(
    clippy::as_conversions,
    reason = "at compile time only; fewer rows than slots, asserted above"
)]
const fn narrow(place: usize) -> u16 {
    place as u16
}

const fn place_of(name: &str) -> u16 {
    let mut place = 0;
    while !same(ROWS[place].name.as_bytes(), name.as_bytes()) {
        place += 1;
    }
    narrow(place)
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What twemproxy 0.5 serves.
    const SERVED_BY_0_5: &str = "\
        ping quit command lolwut \
        decr dump get getdel hgetall hkeys hlen hvals incr llen persist pttl scard smembers strlen \
        ttl type zcard auth \
        append decrby expire expireat getbit getset hexists hget hstrlen incrby incrbyfloat lindex \
        pexpire pexpireat rpoplpush setnx sismember zrank zrevrank zscore move \
        getrange hincrby hincrbyfloat hsetnx lrange lrem lset ltrim psetex setbit setex setrange \
        smove zcount zincrby zlexcount zremrangebylex zremrangebyrank zremrangebyscore \
        linsert lmove \
        bitcount bitfield bitpos copy exists geoadd geodist geohash geopos georadius \
        georadiusbymember geosearch geosearchstore getex hdel hmget hmset hrandfield hscan hset \
        lpop lpos lpush lpushx pfadd pfcount pfmerge restore rpop rpush rpushx sadd sdiff \
        sdiffstore set sinter sinterstore smismember sort spop srandmember srem sscan sunion \
        sunionstore zadd zdiff zdiffstore zinter zinterstore zmscore zpopmax zpopmin zrandmember \
        zrange zrangebylex zrangebyscore zrangestore zrem zrevrange zrevrangebylex \
        zrevrangebyscore zscan zunion zunionstore \
        del mget touch unlink mset eval evalsha";

    // C75
    #[test]
    fn every_command_of_twemproxy_is_served() {
        let mut count = 0;
        for name in SERVED_BY_0_5.split_ascii_whitespace() {
            let place = find(name.as_bytes()).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(
                !matches!(row(place).serve, Serve::Refused(_)),
                "{name} is refused"
            );
            count += 1;
        }
        assert_eq!(count, 137);
    }

    // C74
    #[test]
    fn every_row_is_found_in_any_case_and_nothing_else_is() {
        for (place, row) in ROWS.iter().enumerate() {
            let place = Some(u16::try_from(place).unwrap());
            assert_eq!(find(row.name.as_bytes()), place, "{}", row.name);
            assert_eq!(find(row.name.to_ascii_uppercase().as_bytes()), place);
            assert_eq!(find(alloc::format!("{}!", row.name).as_bytes()), None);
        }
        // Bytes that differ from a name only in bit 5, which is a case only in letters.
        for other in [
            &b""[..],
            b"g",
            b"ge",
            b"foo",
            b"RESTORE\rASKING",
            b"EVAL\x7fRO",
            b"\x07et",
            b"get ",
        ] {
            assert_eq!(find(other), None, "{other:?}");
        }
    }

    #[test]
    fn lookups_touch_few_slots() {
        let mut probes = 0;
        for row in &ROWS {
            let mut at = Ends::of(row.name.as_bytes()).hash();
            while ROWS[usize::from(SLOTS[at].place)].name != row.name {
                at = (at + 1) % SLOT_COUNT;
                probes += 1;
            }
        }
        assert!(probes < ROWS.len() / 3, "{probes} extra probes");
    }

    #[test]
    fn subcommands_carry_their_commands_name() {
        for row in &ROWS {
            if let Serve::Container(subs) = row.serve {
                for sub in subs {
                    let verb = sub.name.strip_prefix(row.name).unwrap();
                    assert!(verb.starts_with('|'), "{}", sub.name);
                    assert!(
                        !matches!(sub.serve, Serve::Container(_) | Serve::Split(..)),
                        "{}",
                        sub.name
                    );
                }
            }
        }
    }
}
