//! Random commands: what one lone server says, the proxy says for several.

use std::collections::BTreeSet;

use twemproxy_testkit::commands::redis::Stream;
use twemproxy_testkit::commands::{Contest, seed};
use twemproxy_testkit::harness::{Bed, ServerKind};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const COMMANDS: usize = 10_000;
const CLIENTS: usize = 16;

#[test]
fn ten_thousand_random_commands_are_answered_as_by_one_redis() {
    compare_with(ServerKind::Redis);
}

#[test]
fn ten_thousand_random_commands_are_answered_as_by_one_valkey() {
    compare_with(ServerKind::Valkey);
}

fn compare_with(kind: ServerKind) {
    let Some(bed) = Bed::start_with(BINARY, kind, 4, |pool| pool.set("hash_tag", "\"{}\"")) else {
        return;
    };
    let seed = seed();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let bed = &bed;
            scope.spawn(move || {
                let who = format!("DIFF_SEED={seed}, client {client}");
                let (direct, proxied) = (bed.direct.connect(), bed.client());
                Contest::new(direct, proxied, Wire::read_redis, seed, who)
                    .run(Stream::new(seed, client).take(COMMANDS / CLIENTS));
            });
        }
    });
    let alpha = |name| bed.proxy.stat("alpha", &[name]);
    assert_eq!(alpha("client_err"), 0);
    assert_eq!(alpha("forward_error"), 0);
}

#[test]
fn the_streams_hold_every_command_that_is_served() {
    // What a stream cannot hold, and where it is tested instead.
    const ELSEWHERE: [&str; 9] = [
        "CLIENT SETINFO", // redis.rs: redis 7.0 does not know it, and clients send it unasked
        "CLIENT REPLY",   // core/tests/scenarios_session.rs: has no response
        "MULTI",          // core/tests/scenarios_session.rs: no server refuses what follows
        "EXEC",           // as MULTI
        "DISCARD",        // as MULTI
        "AUTH",           // redis.rs: a pool with a password
        "HELLO",          // redis.rs: says who the proxy is, which no server says
        "QUIT",           // redis.rs: ends the connection
        "COMMAND",        // in the stream with its second word only
    ];
    let drawn: BTreeSet<String> = (0..CLIENTS)
        .flat_map(|client| Stream::new(0, client).take(COMMANDS / CLIENTS))
        .flat_map(|command| names(&command.text))
        .collect();
    let served: Vec<&str> = include_str!("../../../docs/commands-redis.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let (name, how) = (cells.next()?, cells.next()?);
            let served = ["forwarded", "split", "answered"]
                .iter()
                .any(|w| how.starts_with(w));
            served.then_some(name)
        })
        .collect();
    assert!(served.len() > 200, "the page was read");
    let missing: Vec<&str> = served
        .into_iter()
        .filter(|name| !drawn.contains(*name) && !ELSEWHERE.contains(name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// What a command may be called: its first word, or its first two where the first is a container.
fn names(text: &str) -> [String; 2] {
    let words: Vec<String> = text
        .split(' ')
        .take(2)
        .map(|word| word.trim_matches('"').to_ascii_uppercase())
        .collect();
    [words[0].clone(), words.join(" ")]
}
