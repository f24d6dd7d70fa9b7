//! Random memcached commands: what one lone memcached says, the proxy says for several.

use std::collections::BTreeSet;

use twemproxy_core::proto::memcache::commands::{COMMANDS as TABLE, Shape};
use twemproxy_testkit::commands::memcache::Stream;
use twemproxy_testkit::commands::{Contest, Law, Manner, seed};
use twemproxy_testkit::harness::{Bed, ServerKind};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const COMMANDS: usize = 10_000;
const CLIENTS: usize = 16;

#[test]
fn ten_thousand_random_commands_are_answered_as_by_one_memcached() {
    let Some(bed) = Bed::start(BINARY, ServerKind::Memcached, 4) else {
        return;
    };
    let seed = seed();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let bed = &bed;
            scope.spawn(move || play(bed, seed, client));
        }
    });
    let alpha = |name| bed.proxy.stat("alpha", &[name]);
    assert_eq!(alpha("client_err"), 0);
    assert_eq!(alpha("forward_error"), 0);
}

/// Between its pipelines a client swaps a value with the number that its own side handed out.
fn play(bed: &Bed, seed: u64, client: usize) {
    const ROUNDS: usize = 5;
    let who = format!("DIFF_SEED={seed}, client {client}");
    let (mut direct, proxied) = (bed.direct.connect(), bed.client());
    let manner = Manner::of(&mut direct);
    let mut contest =
        Contest::new(direct, proxied, Wire::read_memcache, seed, who).with_manner(manner);
    let mut stream = Stream::new(seed, client);
    for _ in 0..ROUNDS {
        let commands = stream.by_ref().take(COMMANDS / CLIENTS / ROUNDS);
        contest.run(commands.filter(|command| manner.reads_alike(&command.text)));
        let key = stream.key();
        let set = format!("set {key} 0 0 1\r\na\r\n");
        contest.agree(set.as_bytes(), Law::Exact);
        let gets = format!("gets {key}\r\n").into_bytes();
        let (expected, actual) = contest.ask(&gets, &gets);
        assert!(Law::ValuesButCas.holds(&expected, &actual));
        let swap = |number: &str| format!("cas {key} 7 0 2 {number}\r\nxy\r\n").into_bytes();
        let swaps = (swap(&cas_of(&expected)), swap(&cas_of(&actual)));
        let replies = contest.ask(&swaps.0, &swaps.1);
        assert_eq!(replies, (b"STORED\r\n".to_vec(), b"STORED\r\n".to_vec()));
        let replies = contest.ask(&swaps.0, &swaps.1);
        assert_eq!(replies, (b"EXISTS\r\n".to_vec(), b"EXISTS\r\n".to_vec()));
    }
}

#[test]
fn the_streams_hold_every_command_that_is_served() {
    // What a stream cannot hold, and where it is tested instead.
    const ELSEWHERE: [&str; 3] = [
        "flush_all", // memcache.rs: would take the other clients' keys
        "quit",      // memcache.rs: ends the connection
        "stats",     // scenarios_memcache.rs: tells of the proxy itself
    ];
    let drawn: BTreeSet<String> = (0..CLIENTS)
        .flat_map(|client| Stream::new(0, client).take(COMMANDS / CLIENTS))
        .filter_map(|command| command.text.split_whitespace().next().map(str::to_owned))
        .collect();
    let refused = |shape| {
        matches!(
            shape,
            Shape::Refused | Shape::RefusedQuietly | Shape::RefusedWithBlock
        )
    };
    let missing: BTreeSet<&str> = TABLE
        .iter()
        .filter(|command| !refused(command.shape))
        .map(|command| command.name)
        .filter(|name| !drawn.contains(*name) && !ELSEWHERE.contains(name))
        .collect();
    assert_eq!(missing, BTreeSet::new());
}

/// The number at the end of the first `VALUE` line.
fn cas_of(response: &[u8]) -> String {
    let text = String::from_utf8_lossy(response);
    let line = text.lines().next().expect("a value");
    line.rsplit(' ').next().expect("five words").to_owned()
}
