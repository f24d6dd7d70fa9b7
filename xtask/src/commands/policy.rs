//! Which commands a sharding proxy can serve, and how.

use super::input::{Command, KeySpec};

/// A row of the command table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) readonly: bool,
    pub(super) serve: Serve,
}

/// How a command is served; the core's type of that name, still as text where it can be.
#[derive(Debug)]
pub(super) enum Serve {
    Forward(Keys),
    Split(&'static str, Keys),
    Local(&'static str),
    Container(Vec<Row>),
    Refused(Reason),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Keys {
    None,
    One(i64),
    Range {
        first: i64,
        last: i64,
        step: i64,
    },
    Counted {
        count: i64,
        step: i64,
        destination: bool,
    },
    Sort,
    SortReadonly,
    Scan,
    Georadius(i64),
    Streams,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    Blocking,
    PubSub,
    Transaction,
    Administration,
    Keyspace,
    Connection,
    Outward,
}

/// Decides about one command.
pub(super) fn row(command: &Command) -> Row {
    Row {
        name: command.name.clone(),
        readonly: command.has("readonly") || CHANGE_NOTHING.contains(&command.name.as_str()),
        serve: serve(command),
    }
}

fn serve(command: &Command) -> Serve {
    let name = command.name.as_str();
    if let Some(local) = find(LOCAL, name) {
        Serve::Local(local)
    } else if let Some(merge) = find(SPLIT, name) {
        Serve::Split(merge, keys(command))
    } else if CONTAINERS.contains(&name) {
        Serve::Container(command.subcommands.iter().map(row).collect())
    } else if let Some(reason) = find(REFUSED, name) {
        Serve::Refused(reason)
    } else if let Some(keys) = find(OPTION_KEYS, name) {
        Serve::Forward(keys)
    } else if WITHOUT_KEY.contains(&name) {
        Serve::Forward(Keys::None)
    } else if command.has("blocking") {
        Serve::Refused(Reason::Blocking)
    } else if command.has("pubsub") {
        Serve::Refused(Reason::PubSub)
    } else if command.has("admin") || command.has("asking") || command.key_specs.is_empty() {
        Serve::Refused(Reason::Administration)
    } else {
        Serve::Forward(keys(command))
    }
}

/// One rule out of a command's key specifications.
///
/// # Panics
/// A server describes a command in a way that no rule covers: a rule is to be written.
fn keys(command: &Command) -> Keys {
    use KeySpec::{Counted, Range};
    match *command.key_specs.as_slice() {
        [Range { first, last: 0, .. }] => Keys::One(first),
        [Range { first, last, step }] => Keys::Range {
            first,
            last: if last < 0 { last } else { first + last },
            step,
        },
        // Two rows one after the other, a destination and its sources, are one row.
        [
            Range { first, last: 0, .. },
            Range {
                first: second,
                last,
                step: 1,
            },
        ] if second == first + 1 => Keys::Range {
            first,
            last: if last < 0 { last } else { second + last },
            step: 1,
        },
        [Counted { count, step }] => Keys::Counted {
            count,
            step,
            destination: false,
        },
        [
            Range {
                first: 1, last: 0, ..
            },
            Counted { count, step },
        ] => Keys::Counted {
            count,
            step,
            destination: true,
        },
        ref other => panic!("no rule for the keys of {}: {other:?}", command.name),
    }
}

fn find<T: Clone>(table: &[(&str, T)], name: &str) -> Option<T> {
    table
        .iter()
        .find(|(own, _)| *own == name)
        .map(|(_, value)| value.clone())
}

/// Answered by the proxy.
const LOCAL: &[(&str, &str)] = &[
    ("auth", "Auth"),
    ("client|getname", "ClientGetname"),
    ("client|id", "ClientId"),
    ("client|reply", "ClientReply"),
    ("client|setinfo", "ClientSetinfo"),
    ("client|setname", "ClientSetname"),
    ("discard", "Discard"),
    ("echo", "Echo"),
    ("exec", "Exec"),
    ("hello", "Hello"),
    ("multi", "Multi"),
    ("ping", "Ping"),
    ("quit", "Quit"),
    ("reset", "Reset"),
    ("select", "Select"),
];

/// Split by server; how the responses become one.
const SPLIT: &[(&str, &str)] = &[
    ("del", "Sum"),
    ("exists", "Sum"),
    ("mget", "Array"),
    ("mset", "Status"),
    ("touch", "Sum"),
    ("unlink", "Sum"),
];

/// Whether they are served depends on their second word.
const CONTAINERS: &[&str] = &["client", "memory", "object", "xgroup", "xinfo"];

/// Any server can answer them.
const WITHOUT_KEY: &[&str] = &[
    "command",
    "lolwut",
    "memory|help",
    "object|help",
    "time",
    "xgroup|help",
    "xinfo|help",
];

/// Servers do not flag them as reading, and yet they may be sent twice.
const CHANGE_NOTHING: &[&str] = &[
    "command",
    "memory|help",
    "object|help",
    "time",
    "xgroup|help",
    "xinfo|help",
];

/// Keys that stand behind options, and other rules of their own.
const OPTION_KEYS: &[(&str, Keys)] = &[
    ("georadius", Keys::Georadius(6)),
    ("georadiusbymember", Keys::Georadius(5)),
    ("hscan", Keys::Scan),
    ("sort", Keys::Sort),
    ("sort_ro", Keys::SortReadonly),
    ("sscan", Keys::Scan),
    ("xread", Keys::Streams),
    ("xreadgroup", Keys::Streams),
    ("zscan", Keys::Scan),
];

/// Refused for reasons that the servers' flags do not tell.
const REFUSED: &[(&str, Reason)] = &[
    ("asking", Reason::Connection),
    ("client|caching", Reason::Connection),
    ("client|capa", Reason::Connection),
    ("client|getredir", Reason::Connection),
    ("client|import-source", Reason::Connection),
    ("client|info", Reason::Connection),
    ("client|no-evict", Reason::Connection),
    ("client|no-touch", Reason::Connection),
    ("client|tracking", Reason::Connection),
    ("client|trackinginfo", Reason::Connection),
    ("clusterscan", Reason::Keyspace),
    ("dbsize", Reason::Keyspace),
    ("flushall", Reason::Keyspace),
    ("flushdb", Reason::Keyspace),
    ("keys", Reason::Keyspace),
    ("migrate", Reason::Outward),
    ("pubsub", Reason::PubSub),
    ("randomkey", Reason::Keyspace),
    ("readonly", Reason::Connection),
    ("readwrite", Reason::Connection),
    ("scan", Reason::Keyspace),
    ("swapdb", Reason::Keyspace),
    ("unwatch", Reason::Transaction),
    ("watch", Reason::Transaction),
];
