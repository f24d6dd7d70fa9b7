//! The directive table: everything the configuration file may say, once. The parser, the check for
//! repeated and unknown keys and `docs/config.md` all read it.

use std::ops::RangeInclusive;

use twemproxy_core::config::{CrossServerKeys, EjectPolicy, PoolConfig, ServerConfig};
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_core::topology::{Distribution, HashKind};

use crate::address::{Reason, parse_listen, parse_server};
use crate::error::Place;
use crate::raw::Text;
use crate::{Listen, Lookup, ServerAddress, number};

/// Numbers of 0.5 were 32 bits wide and signed; larger ones are refused instead of wrapped.
const NUMBER: RangeInclusive<u64> = 0..=2_147_483_647;
/// At least a memcached key with its command; at most what 32-bit offsets into a request allow.
const REQUEST_SIZE: RangeInclusive<u64> = 512..=2_147_483_647;
/// At least one small response; at most what a file size can be.
const CLIENT_OUTPUT: RangeInclusive<u64> = 1024..=9_223_372_036_854_775_807;
/// 0 stands for the default.
const MEMORY: RangeInclusive<u64> = 0..=9_223_372_036_854_775_807;

/// A key, how its value is read into a `T`, and what the manual says.
pub(crate) struct Directive<T: 'static> {
    pub(crate) name: &'static str,
    pub(crate) value: Value<T>,
    /// As it would be typed, or a description in parentheses.
    pub(crate) default: &'static str,
    /// Whether nutcracker 0.5 does not have it.
    pub(crate) new: bool,
    pub(crate) help: &'static str,
}

/// How a value is read.
pub(crate) enum Value<T: 'static> {
    Number {
        range: RangeInclusive<u64>,
        unit: &'static str,
        set: fn(&mut T, u64),
    },
    Bool {
        set: fn(&mut T, bool),
    },
    Word {
        words: fn() -> Vec<&'static str>,
        /// What a wrong word is called.
        wrong: &'static str,
        /// False if there is no such word.
        set: fn(&mut T, &str) -> bool,
    },
    Text {
        form: &'static str,
        set: fn(&mut T, &str) -> Result<(), Reason>,
    },
    /// Any number of entries, which add up when the key is repeated.
    List {
        form: &'static str,
        push: fn(&mut T, &Text) -> Result<(), Reason>,
    },
}

/// A pool while its directives are read; servers in file order.
#[derive(Debug)]
pub(crate) struct PoolDraft {
    /// Finds the host of `listen`.
    lookup: Lookup,
    pub(crate) core: PoolConfig,
    pub(crate) listen: Option<Listen>,
    pub(crate) backlog: u32,
    pub(crate) tcpkeepalive: bool,
    pub(crate) reuseport: bool,
    pub(crate) servers: Vec<ServerDraft>,
}

/// A server entry.
#[derive(Debug)]
pub(crate) struct ServerDraft {
    pub(crate) core: ServerConfig,
    pub(crate) address: ServerAddress,
    pub(crate) place: Place,
}

impl PoolDraft {
    pub(crate) fn new(name: &str, lookup: Lookup) -> Self {
        Self {
            lookup,
            core: PoolConfig::new(name, Protocol::Memcache),
            listen: None,
            backlog: 512,
            tcpkeepalive: false,
            reuseport: false,
            servers: Vec::new(),
        }
    }
}

/// The process-wide settings while they are read.
#[derive(Debug, Default)]
pub(crate) struct GlobalDraft {
    /// 0 if the default is to be used.
    pub(crate) memory_limit: u64,
}

impl<T> Directive<T> {
    /// Whether the key may be given again.
    pub(crate) const fn is_list(&self) -> bool {
        matches!(self.value, Value::List { .. })
    }

    /// Reads one value. The reason, if it is wrong, in the words of nutcracker 0.5.
    pub(crate) fn apply(&self, draft: &mut T, text: &Text) -> Result<(), Reason> {
        let typed = text.value.as_str();
        if typed.is_empty() {
            return Err("has an empty value".to_owned());
        }
        match &self.value {
            Value::Number { range, set, .. } => {
                let number = number(typed.as_bytes()).ok_or("is not a number")?;
                if !range.contains(&number) {
                    let (min, max) = (range.start(), range.end());
                    return Err(format!("is out of range ({min} to {max})"));
                }
                set(draft, number);
            }
            Value::Bool { set } => set(
                draft,
                match typed {
                    "true" => true,
                    "false" => false,
                    _ => return Err("is not \"true\" or \"false\"".to_owned()),
                },
            ),
            Value::Word { set, wrong, words } => {
                if !set(draft, typed) {
                    return Err(format!("{wrong} (one of: {})", words().join(", ")));
                }
            }
            Value::Text { set, .. } => set(draft, typed)?,
            Value::List { push, .. } => push(draft, text)?,
        }
        Ok(())
    }
}

/// The names of all directives.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let pool = POOL.iter().map(|directive| directive.name);
    pool.chain(GLOBAL.iter().map(|directive| directive.name))
}

/// What a pool may say, in the order of the manual.
pub(crate) const POOL: &[Directive<PoolDraft>] = &[
    Directive {
        name: "listen",
        value: Value::Text {
            form: "`host:port` or `/absolute/path [mode]`",
            set: |pool, typed| {
                pool.listen = Some(parse_listen(typed, pool.lookup)?);
                Ok(())
            },
        },
        default: "(required)",
        new: false,
        help: "Where clients connect. A host is looked up when the file is read, and its first \
               address used; IPv6 addresses have no brackets (`::1:22121`). `*` is the loopback \
               interface alone, `0.0.0.0` and `::` are all of them. The mode of a unix \
               socket is octal; without one the umask decides. Two pools must not listen on the \
               same address.",
    },
    Directive {
        name: "servers",
        value: Value::List {
            form: "list of `host:port:weight [name]` or `/absolute/path:weight [name]`",
            push: |pool, text| {
                let (core, address) = parse_server(&text.value)?;
                pool.servers.push(ServerDraft {
                    core,
                    address,
                    place: text.place,
                });
                Ok(())
            },
        },
        default: "(required)",
        new: false,
        help: "The servers of the pool, each with a weight of at least 1. The name places a \
               server on the ring and in the statistics and must be unique in the pool; without \
               one it is `host:port`, for port 11211 only `host`, for a unix socket the path with \
               a colon behind it. Names decide which keys a server gets: keep them when a server \
               moves.",
    },
    Directive {
        name: "redis",
        value: Value::Bool {
            set: |pool, redis| {
                pool.core.protocol = if redis {
                    Protocol::Redis
                } else {
                    Protocol::Memcache
                };
            },
        },
        default: "false",
        new: false,
        help: "`true`: clients and servers of the pool speak redis, `false`: memcached's text \
               protocol.",
    },
    Directive {
        name: "hash",
        value: Value::Word {
            words: || HashKind::ALL.iter().map(|(name, _)| *name).collect(),
            wrong: "is not a valid hash",
            set: |pool, word| {
                HashKind::from_name(word)
                    .map(|hash| pool.core.hash = hash)
                    .is_some()
            },
        },
        default: "fnv1a_64",
        new: false,
        help: "The hash function of keys.",
    },
    Directive {
        name: "hash_tag",
        value: Value::Text {
            form: "two characters",
            set: |pool, typed| {
                let tag = <[u8; 2]>::try_from(typed.as_bytes());
                let tag = tag.map_err(|_| "is not a valid hash tag string with two characters")?;
                pool.core.hash_tag = Some(tag);
                Ok(())
            },
        },
        default: "(none)",
        new: false,
        help: "Only the part of a key between the first of these characters and the next of the \
               second is hashed, so that related keys go to one server. Quote it: `\"{}\"`.",
    },
    Directive {
        name: "distribution",
        value: Value::Word {
            words: || Distribution::ALL.iter().map(|(name, _)| *name).collect(),
            wrong: "is not a valid distribution",
            set: |pool, word| {
                Distribution::from_name(word)
                    .map(|distribution| pool.core.distribution = distribution)
                    .is_some()
            },
        },
        default: "ketama",
        new: false,
        help: "How keys are spread: `ketama` is consistent hashing, `modula` takes the hash \
               modulo the weights, `random` ignores the key.",
    },
    Directive {
        name: "timeout",
        value: Value::Number {
            range: NUMBER,
            unit: "milliseconds",
            set: |pool, millis| {
                pool.core.timeout = Some(Span::from_millis(millis)).filter(|&t| t != Span::ZERO);
            },
        },
        default: "0",
        new: false,
        help: "How long a request may wait for its response and a connection for its server; 0 \
               waits for ever.",
    },
    Directive {
        name: "backlog",
        value: Value::Number {
            range: NUMBER,
            unit: "connections",
            set: |pool, backlog| pool.backlog = narrow(backlog),
        },
        default: "512",
        new: false,
        help: "Connections that the kernel holds until they are accepted.",
    },
    Directive {
        name: "tcpkeepalive",
        value: Value::Bool {
            set: |pool, keepalive| pool.tcpkeepalive = keepalive,
        },
        default: "false",
        new: false,
        help: "Keep-alive probes on connections of clients.",
    },
    Directive {
        name: "reuseport",
        value: Value::Bool {
            set: |pool, reuseport| pool.reuseport = reuseport,
        },
        default: "false",
        new: false,
        help: "Lets other processes listen on the same port (`SO_REUSEPORT`).",
    },
    Directive {
        name: "client_connections",
        value: Value::Number {
            range: NUMBER,
            unit: "connections",
            set: |pool, count| pool.core.client_connections = narrow(count),
        },
        default: "0",
        new: false,
        help: "Clients the pool serves at a time; one more is told so and closed. 0 sets no \
               limit. nutcracker 0.5 read this and ignored it.",
    },
    Directive {
        name: "client_idle_timeout",
        value: Value::Number {
            range: NUMBER,
            unit: "milliseconds",
            set: |pool, millis| {
                let limit = Some(Span::from_millis(millis));
                pool.core.client_idle_timeout = limit.filter(|&limit| limit != Span::ZERO);
            },
        },
        default: "0",
        new: true,
        help: "A client that waits for nothing and sends nothing for so long is closed and \
               counted in `client_err`; 0 lets clients stay.",
    },
    Directive {
        name: "redis_auth",
        value: Value::Text {
            form: "password",
            set: |pool, typed| {
                pool.core.redis_auth = Some(typed.as_bytes().into());
                Ok(())
            },
        },
        default: "(none)",
        new: false,
        help: "The password that clients must give and that servers are given. Redis pools only.",
    },
    Directive {
        name: "redis_db",
        value: Value::Number {
            range: NUMBER,
            unit: "",
            set: |pool, db| pool.core.redis_db = narrow(db),
        },
        default: "0",
        new: false,
        help: "The database selected on every server. No effect in a memcached pool.",
    },
    Directive {
        name: "preconnect",
        value: Value::Bool {
            set: |pool, preconnect| pool.core.preconnect = preconnect,
        },
        default: "false",
        new: false,
        help: "Connects to every server at the start instead of at the first request.",
    },
    Directive {
        name: "server_connections",
        value: Value::Number {
            range: NUMBER,
            unit: "connections",
            set: |pool, count| pool.core.server_connections = narrow(count),
        },
        default: "1",
        new: false,
        help: "Connections to each server, at least 1. A client stays on one of them, so its \
               requests keep their order.",
    },
    Directive {
        name: "auto_eject_hosts",
        value: Value::Bool {
            set: |pool, eject| pool.core.auto_eject_hosts = eject,
        },
        default: "false",
        new: false,
        help: "Takes a server that keeps failing off the ring for a while; its keys go to the \
               others. For caches only: the server comes back with what it had.",
    },
    Directive {
        name: "auto_eject_policy",
        value: Value::Word {
            words: || EjectPolicy::ALL.iter().map(|(name, _)| *name).collect(),
            wrong: "is not a valid policy",
            set: |pool, word| {
                EjectPolicy::from_name(word)
                    .map(|policy| pool.core.auto_eject_policy = policy)
                    .is_some()
            },
        },
        default: "rehash",
        new: true,
        help: "What becomes of the keys of an ejected server: the others get them, or the ring \
               stays and their requests get an error at once. `miss` answers as if the key \
               were not there: get, gets, gat, gats, GET and MGET with nothing, memcached storage \
               commands with `NOT_STORED`, its cas, incr, decr, touch and delete with \
               `NOT_FOUND`. Only with `auto_eject_hosts: true`.",
    },
    Directive {
        name: "server_retry_timeout",
        value: Value::Number {
            range: NUMBER,
            unit: "milliseconds",
            set: |pool, millis| pool.core.server_retry_timeout = Span::from_millis(millis),
        },
        default: "30000",
        new: false,
        help: "How long an ejected server stays away before it is probed, and between probes.",
    },
    Directive {
        name: "server_failure_limit",
        value: Value::Number {
            range: NUMBER,
            unit: "failures",
            // compat: the counter is compared after it was raised, so 0 ejects like 1.
            set: |pool, limit| pool.core.server_failure_limit = narrow(limit.max(1)),
        },
        default: "2",
        new: false,
        help: "Failures in a row after which a server is ejected; 0 counts as 1.",
    },
    Directive {
        name: "request_size_limit",
        value: Value::Number {
            range: REQUEST_SIZE,
            unit: "bytes",
            set: |pool, bytes| pool.core.request_size_limit = narrow(bytes),
        },
        default: "537919488",
        new: true,
        help: "A larger request is refused and skipped; its connection stays open.",
    },
    Directive {
        name: "client_output_limit",
        value: Value::Number {
            range: CLIENT_OUTPUT,
            unit: "bytes",
            set: |pool, bytes| pool.core.client_output_limit = bytes,
        },
        default: "1073741824",
        new: true,
        help: "A client that leaves more of its responses unread is closed, and named in the log.",
    },
    Directive {
        name: "allow_flush",
        value: Value::Bool {
            set: |pool, allow| pool.core.allow_flush = allow,
        },
        default: "false",
        new: true,
        help: "Serves `flush_all` in a memcached pool, by sending it to every server.",
    },
    Directive {
        name: "cross_server_keys",
        value: Value::Word {
            words: || CrossServerKeys::ALL.iter().map(|(name, _)| *name).collect(),
            wrong: "is not a valid outcome",
            set: |pool, word| {
                CrossServerKeys::from_name(word)
                    .map(|outcome| pool.core.cross_server_keys = outcome)
                    .is_some()
            },
        },
        default: "error",
        new: true,
        help: "What becomes of a redis command that cannot be split when its keys live on several \
               servers: an error, or, as in nutcracker 0.5, the server of its first key gets it \
               whole.",
    },
];

/// What `global:` may say.
pub(crate) const GLOBAL: &[Directive<GlobalDraft>] = &[Directive {
    name: "memory_limit",
    value: Value::Number {
        range: MEMORY,
        unit: "bytes",
        set: |global, bytes| global.memory_limit = bytes,
    },
    default: "0",
    new: true,
    help: "What all buffers of the process may hold together; 0 stands for half of the machine's \
           memory. Above half of it clients with many unread replies begin no request, above 80 % of \
           it nobody does. When one has waited for half of its pool's `timeout`, 5 seconds at most, \
           those who hold the memory, in unfinished requests or in replies they do not read, are \
           told so if possible and closed until enough is free: first those who have not moved for \
           a second, then the largest. At the limit itself one is closed at once, in the same order.",
}];

/// A number whose range the table keeps below 32 bits.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("the ranges above end below 32 bits")
}
