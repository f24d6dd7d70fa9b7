//! The one table of memcached commands: what each may look like and what becomes of it.
//!
//! A command that memcached knows and a sharding proxy cannot serve stands here too, so that it gets
//! an answer of its own and its data block is recognised. What is not in the table is `ERROR`.
//!
//! Source: memcached's protocol.txt and the behaviour of memcached 1.6.18.

use alloc::string::String;

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The word, lower case: memcached knows no other.
    pub name: &'static str,
    /// What follows the word, for the documentation.
    pub form: &'static str,
    /// How the words are read and where the request goes.
    pub shape: Shape,
    /// Fewest words after the name.
    pub args_min: u32,
    /// Most words after the name, `noreply` included; more is `ERROR`.
    pub args_max: u32,
    /// The name, packed for [`find`].
    packed: u128,
}

/// How a line is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Keys to the end of the line.
    Get,
    /// An expiry time, then keys.
    GetAndTouch,
    /// Key, flags, expiry time, bytes; a data block.
    Store,
    /// As [`Shape::Store`], then a cas number.
    Cas,
    /// Key, number.
    Arithmetic,
    /// Key, and for old clients a zero.
    Delete,
    /// Key, expiry time.
    Touch,
    /// Anything.
    Version,
    /// A level.
    Verbosity,
    /// Perhaps a delay.
    FlushAll,
    /// Anything.
    Quit,
    /// The list's name, which may be empty.
    Stats,
    /// Refused; anything.
    Refused,
    /// Refused; anything, memcached drops the answer if the last word is `noreply`.
    RefusedQuietly,
    /// Refused; key, bytes, flags; a data block.
    RefusedWithBlock,
}

impl Shape {
    /// Whether `noreply` as the last word silences memcached.
    #[inline]
    #[must_use]
    pub const fn takes_noreply(self) -> bool {
        match self {
            Self::Store
            | Self::Cas
            | Self::Arithmetic
            | Self::Delete
            | Self::Touch
            | Self::Verbosity
            | Self::FlushAll
            | Self::RefusedQuietly => true,
            Self::Get
            | Self::GetAndTouch
            | Self::Version
            | Self::Quit
            | Self::Stats
            | Self::Refused
            | Self::RefusedWithBlock => false,
        }
    }

    /// Whether the request changes nothing, so that it may be sent a second time.
    #[inline]
    #[must_use]
    pub const fn is_readonly(self) -> bool {
        matches!(self, Self::Get | Self::Version)
    }

    /// The argument that announces a data block.
    #[inline]
    #[must_use]
    pub(super) const fn block_len_arg(self) -> Option<usize> {
        match self {
            Self::Store | Self::Cas => Some(3),
            Self::RefusedWithBlock => Some(1),
            _ => None,
        }
    }

    const fn destination(self) -> &'static str {
        match self {
            Self::Get | Self::GetAndTouch => "the key's server; several keys: split by server",
            Self::Store | Self::Cas | Self::Arithmetic | Self::Delete | Self::Touch => {
                "the key's server"
            }
            Self::Version => "the server of the key `placeholder`",
            Self::Verbosity => "every server",
            Self::FlushAll => "every server, if the pool says `allow_flush: true`",
            Self::Quit => "the proxy: closes after the responses still due",
            Self::Stats => {
                "the proxy: its own version and an empty list of anything else; `reset` and `detail` are refused"
            }
            Self::Refused | Self::RefusedQuietly | Self::RefusedWithBlock => "refused",
        }
    }
}

/// Every command; a request names its place here. The commonest stand first.
pub const COMMANDS: &[Command] = &[
    command("get", "<key>+", Shape::Get, 1, u32::MAX),
    command("set", STORE, Shape::Store, 4, 5),
    command("gets", "<key>+", Shape::Get, 1, u32::MAX),
    command("gat", "<exptime> <key>+", Shape::GetAndTouch, 2, u32::MAX),
    command("gats", "<exptime> <key>+", Shape::GetAndTouch, 2, u32::MAX),
    command("add", STORE, Shape::Store, 4, 5),
    command("replace", STORE, Shape::Store, 4, 5),
    command("append", STORE, Shape::Store, 4, 5),
    command("prepend", STORE, Shape::Store, 4, 5),
    command("cas", CAS, Shape::Cas, 5, 6),
    command("incr", "<key> <value> [noreply]", Shape::Arithmetic, 2, 3),
    command("decr", "<key> <value> [noreply]", Shape::Arithmetic, 2, 3),
    command("delete", "<key> [0] [noreply]", Shape::Delete, 1, 3),
    command("touch", "<key> <exptime> [noreply]", Shape::Touch, 2, 3),
    command("version", "", Shape::Version, 0, u32::MAX),
    command("verbosity", "<level> [noreply]", Shape::Verbosity, 1, 2),
    command("flush_all", "[<delay>] [noreply]", Shape::FlushAll, 0, 2),
    command("quit", "", Shape::Quit, 0, u32::MAX),
    command("mg", META, Shape::Refused, 0, u32::MAX),
    command("ms", META_SET, Shape::RefusedWithBlock, 0, u32::MAX),
    command("md", META, Shape::Refused, 0, u32::MAX),
    command("ma", META, Shape::Refused, 0, u32::MAX),
    command("me", META, Shape::Refused, 0, u32::MAX),
    command("mn", "", Shape::Refused, 0, u32::MAX),
    command("bget", "<key>+", Shape::Refused, 0, u32::MAX),
    command("stats", "[<what>]", Shape::Stats, 0, u32::MAX),
    command("slabs", "...", Shape::RefusedQuietly, 0, u32::MAX),
    command("lru", "...", Shape::RefusedQuietly, 0, u32::MAX),
    command("lru_crawler", "...", Shape::Refused, 0, u32::MAX),
    command("watch", "...", Shape::RefusedQuietly, 0, u32::MAX),
    command("cache_memlimit", "...", Shape::RefusedQuietly, 0, u32::MAX),
    command("extstore", "...", Shape::RefusedQuietly, 0, u32::MAX),
    command("refresh_certs", "", Shape::RefusedQuietly, 0, u32::MAX),
    command("shutdown", "...", Shape::Refused, 0, u32::MAX),
];

/// The place in [`COMMANDS`] of the command called `name`.
#[inline]
#[must_use]
pub fn find(name: &[u8]) -> Option<u16> {
    // One comparison per entry instead of a length and a call: this runs for every request.
    let mut padded = [0; NAME_LEN_MAX];
    padded.get_mut(..name.len())?.copy_from_slice(name);
    let packed = u128::from_le_bytes(padded);
    let index = COMMANDS.iter().position(|one| one.packed == packed)?;
    // Padding and a NUL that a client sent look alike.
    (COMMANDS[index].name.len() == name.len())
        .then(|| u16::try_from(index).expect("the table is short"))
}

/// The page `docs/commands-memcache.md`.
#[must_use]
pub fn document() -> String {
    let mut page = String::from(PREAMBLE);
    page.push_str("\n| command | arguments | goes to |\n|---|---|---|\n");
    for command in COMMANDS {
        for text in ["| `", command.name, "` | "] {
            page.push_str(text);
        }
        if !command.form.is_empty() {
            for text in ["`", command.form, "` "] {
                page.push_str(text);
            }
        }
        for text in ["| ", command.shape.destination(), " |\n"] {
            page.push_str(text);
        }
    }
    page
}

const fn command(
    name: &'static str,
    form: &'static str,
    shape: Shape,
    args_min: u32,
    args_max: u32,
) -> Command {
    let mut padded = [0; NAME_LEN_MAX];
    let (head, _) = padded.split_at_mut(name.len());
    head.copy_from_slice(name.as_bytes());
    Command {
        name,
        form,
        shape,
        args_min,
        args_max,
        packed: u128::from_le_bytes(padded),
    }
}

const NAME_LEN_MAX: usize = 16;
const STORE: &str = "<key> <flags> <exptime> <bytes> [noreply]";
const CAS: &str = "<key> <flags> <exptime> <bytes> <cas> [noreply]";
const META: &str = "<key> <flags>*";
const META_SET: &str = "<key> <bytes> <flags>*";

const PREAMBLE: &str = "\
# Memcached commands

<!-- Generated from the command table; do not edit. -->

What a pool without `redis: true` answers. Commands are lower case. A line ends with LF, a CR before
it is dropped; words are separated by blanks, and blanks in front of a line are dropped. Where
`noreply` is allowed it is the last word, and silences error responses as well, as in memcached.

A line is checked before it is sent, so that the proxy and any memcached from 1.4 on agree about where
a request ends and whether it is answered. Words that have no effect are not sent. The errors
below are the proxy's own, worded as memcached 1.6.18 words them; 1.6.40 and later word some otherwise
(and so do these servers where an error is theirs):

| what | answer |
|---|---|
| unknown command, wrong number of words, empty line | `ERROR` |
| key above 250 bytes, NUL or CR in the line, bad number of a storage command or `verbosity`, storage line above 1024 bytes, `delete noreply` | `CLIENT_ERROR bad command line format` |
| bad expiry time of `gat`, `gats`, `touch`, `flush_all` | `CLIENT_ERROR invalid exptime argument` |
| bad number of `incr`, `decr` | `CLIENT_ERROR invalid numeric delta argument` |
| `delete` with other words | `CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]` |
| data block not followed by CR LF | `CLIENT_ERROR bad data chunk` |
| request above the pool's `request_size_limit` | `SERVER_ERROR object too large for cache` |
| `flush_all` without `allow_flush: true` | `CLIENT_ERROR flush_all not allowed` |
| a command marked *refused* below | `CLIENT_ERROR 'x' is not supported by this proxy` |
| line above 2048 bytes that is not a `get`, `gets`, `gat` or `gats` | `CLIENT_ERROR line too long`, then the connection closes |
| such a line above `request_size_limit`, or with keys for more than 65,535 fragments | `CLIENT_ERROR line too long` |
| binary protocol (first byte 0x80) | a binary frame with status 0x81 (unknown command) and the request's opcode and opaque, then the connection closes |
| unknown command whose last word begins with `HTTP/` | none, the connection closes |

Except where it says so, the connection stays open. The data block that a refused storage command
announces is dropped with it; memcached before 1.6.40 would read it as further commands.

Numbers are decimal: flags, `bytes` and the level of `verbosity` have at most 10 digits and 32 bits (`bytes`
31), cas numbers and the number of `incr` and `decr` at most 20 digits and 64 bits. Expiry times have 32
bits and a sign; in storage commands they may have up to 18 digits, with `+` or `-`, and memcached keeps the lower
32 bits. Keys may hold any byte but NUL, LF, CR and blank.

A `get` or `gets` of several keys reaches a server in lines of at most 2048 bytes, a `gat` or `gats` of
1024, each of which counts as a fragment and as a request.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_only() {
        for (index, command) in COMMANDS.iter().enumerate() {
            let found = find(command.name.as_bytes()).map(usize::from);
            assert_eq!(found, Some(index), "{}", command.name);
            assert_eq!(find(command.name.to_ascii_uppercase().as_bytes()), None);
            let mut longer = command.name.as_bytes().to_vec();
            longer.push(0);
            assert_eq!(find(&longer), None, "{} and a NUL", command.name);
        }
        for unknown in [
            &b""[..],
            b"g",
            b"ge",
            b"getss",
            b"a_word_longer_than_any_command",
        ] {
            assert_eq!(find(unknown), None);
        }
    }
}
