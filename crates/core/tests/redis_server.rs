//! The redis parsers held against real servers: each server sees as many requests in a client's bytes as we do, and
//! answers each request that we would forward exactly once.
//!
//! `REDIS_SERVERS` names the servers, separated by colons; the installed one is asked otherwise.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with a real server waits for it, and fails by panicking"
)]

#[path = "support/redis_servers.rs"]
mod redis_servers;

use std::collections::BTreeSet;

use redis_servers::{Server, start_all};
use twemproxy_core::proto::{Protocol, Route};
use twemproxy_testkit::feed::{self, Event, ResponseEnd};
use twemproxy_testkit::rng::Rng;

/// Shows where a server takes the bytes before it to end.
const SENTINEL: &[u8] = b"*2\r\n$4\r\nECHO\r\n$8\r\nsentinel\r\n";
const SENTINEL_ANSWER: &[u8] = b"$8\r\nsentinel\r\n";
/// Requests sent at once.
const BATCH: usize = 200;

/// All sequences of at most `longest` pieces.
fn sequences(pieces: &[&str], longest: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..longest {
        last = last
            .iter()
            .flat_map(|start| pieces.iter().map(move |piece| format!("{start}{piece}")))
            .collect();
        all.extend_from_slice(&last);
    }
    all
}

/// Inline lines of at most three pieces of any kind, and of four of the commoner ones.
fn inline_forms() -> impl Iterator<Item = String> {
    let any = [
        "PING", "GET", "k", " ", "\t", "\"", "'", "\\x4", "1", "\r", "\u{b}",
    ];
    let common = ["GET", "k", " ", "\"", "'", "\\x4"];
    let lines = [sequences(&any, 3), sequences(&common, 4)].concat();
    let lines = lines.into_iter();
    lines.flat_map(|line| [format!("{line}\r\n"), format!("{line}\n")])
}

/// Arrays of at most two words with every kind of header before them.
fn array_forms() -> impl Iterator<Item = String> {
    let counts = [
        "*0",
        "*1",
        "*2",
        "*3",
        "*-1",
        "*-2",
        "*01",
        "*+1",
        "* 1",
        "*1 ",
        "*",
        "*1x",
        "*00",
        "*4294967297",
        "*-0",
    ];
    let lengths = [
        "$0",
        "$1",
        "$4",
        "$5",
        "$-1",
        "$04",
        "$+4",
        "$ 4",
        "$4 ",
        "$",
        ":4",
        "$4294967300",
    ];
    let bodies = ["k", "TYPE"];
    let words: Vec<String> = lengths
        .iter()
        .flat_map(|length| {
            bodies
                .iter()
                .map(move |body| format!("{length}\r\n{body}\r\n"))
        })
        .chain(
            [
                "$0\r\n\r\n",
                "$4\nTYPE\r\n",
                "$4\r\nTYPE\n",
                "$4\r\nTYPE",
                "$4\r\nTYPExx",
            ]
            .map(str::to_owned),
        )
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let words = sequences(&words, 2);
    counts.into_iter().flat_map(move |count| {
        let forms = words.iter().map(|words| format!("{count}\r\n{words}"));
        forms.chain([format!("{count}\n")]).collect::<Vec<_>>()
    })
}

/// Random forms: pieces of requests, whole ones among them.
fn random_forms(count: usize) -> impl Iterator<Item = String> {
    const PIECES: [&str; 24] = [
        "\r\n",
        "\n",
        "*1\r\n",
        "*2\r\n",
        "*3\r\n",
        "*0\r\n",
        "*-1\r\n",
        "$1\r\n",
        "$3\r\n",
        "$4\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n",
        "*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n",
        "GET k\r\n",
        "SET 'k' \"\\r\\n\"\r\n",
        "GET",
        "k",
        " ",
        "\"",
        "PING\r\n",
        "-1",
    ];
    let mut rng = Rng::new(1);
    (0..count).map(move |_| {
        let pieces = 1 + rng.below(8);
        (0..pieces)
            .map(|_| PIECES[rng.below(PIECES.len())])
            .collect()
    })
}

/// Requests that go to servers, as they are sent.
fn forwarded(outcome: &feed::Outcome, bytes: &[u8]) -> Vec<Vec<u8>> {
    let frame_of = |event: &Event| match event {
        Event::Request { start, request, .. } => {
            let len = usize::try_from(request.len).unwrap();
            (request.route != Route::Local).then(|| bytes[*start..start + len].to_vec())
        }
        Event::Inline { frame, request, .. } => {
            (request.route != Route::Local).then(|| frame.clone())
        }
        Event::Refused { .. } => None,
    };
    outcome.events.iter().filter_map(frame_of).collect()
}

/// How many responses `answer` holds; `None` if it is none of a redis'.
fn count(answer: &[u8]) -> Option<usize> {
    let responses = feed::responses(Protocol::Redis, answer, []);
    (responses.end == ResponseEnd::Clean).then_some(responses.lens.len())
}

/// Whether a line holds blanks and nothing else. Valkey reads the array behind it as lines; we forward neither
/// such a line nor what else is empty.
fn has_blank_line(form: &str) -> bool {
    let mut lines = form.split_terminator('\n');
    lines.any(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        !line.is_empty() && line.bytes().all(|byte| b" \t\r\x0b".contains(&byte))
    })
}

/// Asserts that `server` reads `form` as we do, unless we close the client.
fn compare(server: &Server, form: &str, frames: &mut BTreeSet<Vec<u8>>) {
    let bytes = [form.as_bytes(), SENTINEL].concat();
    let ours = feed::requests(Protocol::Redis, &feed::roomy_limits(), &bytes, []);
    frames.extend(forwarded(&ours, &bytes));
    let is_closed = matches!(
        ours.events.last(),
        Some(Event::Refused { closes: true, .. })
    );
    if is_closed || (server.is_valkey && has_blank_line(form)) {
        return;
    }
    let answer = server.answer(&bytes);
    let context = || {
        format!(
            "{}: {form:?} is answered with {:?}",
            server.name,
            answer.escape_ascii().to_string()
        )
    };
    assert_eq!(count(&answer), Some(ours.events.len()), "{}", context());
    let is_seen = matches!(
        ours.events.last(),
        Some(Event::Request { start, .. }) if bytes[*start..] == *SENTINEL
    );
    assert_eq!(answer.ends_with(SENTINEL_ANSWER), is_seen, "{}", context());
}

/// Asserts that `server` answers each frame exactly once.
fn ask_each(server: &Server, frames: &BTreeSet<Vec<u8>>) {
    let frames: Vec<&Vec<u8>> = frames.iter().collect();
    for batch in frames.chunks(BATCH) {
        let requests: Vec<u8> = batch
            .iter()
            .flat_map(|frame| [frame.as_slice(), SENTINEL])
            .flatten()
            .copied()
            .collect();
        let answer = server.answer(&requests);
        assert_eq!(count(&answer), Some(2 * batch.len()), "{}", server.name);
        let mut rest = answer.as_slice();
        for (pair, frame) in feed::responses(Protocol::Redis, &answer, [])
            .lens
            .chunks(2)
            .zip(batch)
        {
            let (sentinel, behind) = rest[pair[0]..].split_at(pair[1]);
            assert_eq!(
                sentinel,
                SENTINEL_ANSWER,
                "{}: {:?}",
                server.name,
                frame.escape_ascii().to_string()
            );
            rest = behind;
        }
    }
}

fn compare_all(forms: impl Iterator<Item = String>) {
    let servers = start_all();
    let forms: Vec<String> = forms.collect();
    std::thread::scope(|scope| {
        for server in &servers {
            let forms = &forms;
            scope.spawn(move || {
                let mut frames = BTreeSet::new();
                for form in forms {
                    compare(server, form, &mut frames);
                }
                assert!(!frames.is_empty());
                ask_each(server, &frames);
            });
        }
    });
}

#[test]
fn every_short_line_is_as_many_requests_to_a_server_as_to_us() {
    compare_all(inline_forms());
}

#[test]
fn every_short_array_is_as_many_requests_to_a_server_as_to_us() {
    compare_all(array_forms());
}

#[test]
fn random_bytes_are_as_many_requests_to_a_server_as_to_us() {
    compare_all(random_forms(9_000));
}

/// Commands that a server calls dangerous or blocking, or that concern its administration, and that are served.
const SERVED_ALL_THE_SAME: [&str; 5] = [
    "restore",    // writes its key and nothing else
    "sort",       // its patterns must stay on the server of its key
    "sort_ro",    // as sort
    "xread",      // refused with BLOCK
    "xreadgroup", // refused with BLOCK
];

#[test]
fn what_reaches_out_or_blocks_a_server_is_refused_whatever_its_version() {
    for server in start_all() {
        let mut seen = 0;
        for category in ["admin", "dangerous", "blocking", "pubsub"] {
            let list = format!("COMMAND LIST FILTERBY ACLCAT {category}\r\n");
            let list = server.answer(list.as_bytes());
            let list = String::from_utf8(list).unwrap();
            for name in list.lines().filter(|line| !line.starts_with(['*', '$'])) {
                seen += 1;
                let words = name.replace('|', " ");
                let request = format!("{words} 1 1 1 1\r\n");
                let outcome = feed::requests(
                    Protocol::Redis,
                    &feed::roomy_limits(),
                    request.as_bytes(),
                    [],
                );
                let is_refused = matches!(outcome.events[..], [Event::Refused { .. }]);
                let is_served = SERVED_ALL_THE_SAME.contains(&name);
                assert!(is_refused != is_served, "{}: {name}", server.name);
            }
        }
        assert!(seen > 80, "{}: {seen}", server.name);
    }
}

#[test]
fn the_names_that_reach_out_or_block_are_refused_without_a_server() {
    for line in [
        "ACL SETUSER a",
        "BGREWRITEAOF",
        "BGSAVE",
        "BLPOP k 0",
        "BZMPOP 0 1 k MIN",
        "CLIENT KILL 1",
        "CLIENT PAUSE 1000",
        "CLIENT UNBLOCK 1",
        "CLUSTER MEET h 1",
        "CLUSTER MIGRATESLOTS SLOTSRANGE 0 1 NODE a",
        "COMMANDLOG GET",
        "CONFIG SET dir /",
        "DEBUG SLEEP 1",
        "FAILOVER TO h 1",
        "FLUSHALL",
        "FUNCTION LOAD x",
        "LATENCY RESET",
        "MIGRATE h 1 k 0 1",
        "MODULE LOAD /x",
        "MONITOR",
        "PFSELFTEST",
        "PSYNC ? -1",
        "REPLCONF a b",
        "REPLICAOF h 1",
        "SAVE",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "SHUTDOWN",
        "SLAVEOF h 1",
        "SWAPDB 0 1",
        "SYNC",
        "WAIT 1 0",
        "WAITAOF 1 1 0",
        "XREAD BLOCK 0 STREAMS k $",
        "XREADGROUP GROUP g c BLOCK 0 STREAMS k >",
    ] {
        let request = format!("{line}\r\n");
        let limits = feed::roomy_limits();
        let outcome = feed::requests(Protocol::Redis, &limits, request.as_bytes(), []);
        assert!(
            matches!(outcome.events[..], [Event::Refused { .. }]),
            "{line}"
        );
    }
}
