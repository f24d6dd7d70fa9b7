//! The statistics: their bytes with the numbers left out, and each number after the same traffic.

use std::fmt::Write as _;
use std::net::TcpListener;

use twemproxy_testkit::harness::private_dir;
use twemproxy_testkit::model::redis::array_of;

use super::Pair;
use super::canned::{Canned, Manner};
use super::side::{Side, converse};
use super::verdict::{Cell, Expect};

/// Numbers that differ on purpose: where they stand, why, and ours. 0.5 counts no fragments, and
/// connections to unix sockets only when they end. A read that met a dying connection is sent once
/// more, on a connection of its own, which `total_connections` counts: see [`expected_total`].
const BETTER: [(&str, &str, &str); 6] = [
    ("fin fin server_eof", "D13", "2"),
    ("below fin server_eof", "D13", "2"),
    ("mem fragments", "D23", "3"),
    ("redis fragments", "D23", "4"),
    ("unix sock server_connections", "D23", "1"),
    ("below fin server_connections", "D23", "0"),
];

/// Fields that depend on the machine and the moment.
const VOLATILE: [&str; 3] = ["source", "uptime", "timestamp"];

pub(super) fn compare(pair: &Pair) -> Vec<Cell> {
    let port = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("the loopback interface is up")
        .port();
    // Names tell the servers, ports do not.
    let theirs = after_traffic(&pair.theirs, port);
    let ours = after_traffic(&pair.ours, port);
    let mut cells = vec![Cell {
        area: "statistics",
        name: "names, order and spacing".to_owned(),
        expect: Expect::Same,
        theirs: without_numbers(&theirs).into_bytes(),
        ours: without_numbers(&ours).into_bytes(),
    }];
    let (their_numbers, our_numbers) = (numbers(&theirs), numbers(&ours));
    let total = expected_total(&their_numbers, &our_numbers);
    for ((name, theirs), (_, ours)) in their_numbers.into_iter().zip(our_numbers) {
        if VOLATILE.iter().any(|volatile| name.ends_with(volatile)) {
            continue;
        }
        let better = BETTER.iter().find(|(known, ..)| *known == name);
        let expect = match better {
            Some((_, reason, ours)) => Expect::better(reason, *ours),
            None if name == TOTAL => Expect::better("D13", total.clone()),
            None => Expect::Same,
        };
        cells.push(Cell {
            area: "statistics",
            name,
            expect,
            theirs: theirs.into_bytes(),
            ours: ours.into_bytes(),
        });
    }
    cells
}

const TOTAL: &str = "total_connections";

/// The connections ever made that we may count for the same traffic: theirs, and one more for each
/// connection that a server closed to us and not to them.
fn expected_total(theirs: &[(String, String)], ours: &[(String, String)]) -> String {
    let sum = |numbers: &[(String, String)], ending: &str| -> i64 {
        let chosen = numbers.iter().filter(|(name, _)| name.ends_with(ending));
        chosen
            .filter_map(|(_, value)| value.trim().parse::<i64>().ok())
            .sum()
    };
    let more = sum(ours, " server_eof") - sum(theirs, " server_eof");
    (sum(theirs, TOTAL) + more).to_string()
}

/// The statistics when everything that was sent has been counted.
fn after_traffic(side: &Side, refused: u16) -> String {
    let dir = private_dir();
    let mut yaml = String::new();
    let mut sockets = Vec::new();
    let down = format!("    - 127.0.0.1:{refused}:1 down\n");
    let lines = |manner, names: &[&str]| -> String {
        names
            .iter()
            .map(|name| Canned::tcp(name, manner).line(1))
            .collect()
    };
    for (name, directives, servers) in [
        (
            "redis",
            "redis: true",
            lines(Manner::Redis, &["one", "two", "three"]),
        ),
        (
            "mem",
            "redis: false",
            lines(Manner::Memcached, &["b", "aa", "c"]),
        ),
        ("down", "redis: true", down),
        (
            "hangs",
            "redis: true\n  timeout: 100",
            lines(Manner::Hangs, &["hang"]),
        ),
        ("fin", "redis: false", lines(Manner::Closes, &["fin"])),
        (
            "bad",
            "redis: true",
            lines(Manner::Says(b"hello\r\n"), &["bad"]),
        ),
        (
            "unix",
            "redis: true",
            Canned::unix(dir.path(), "sock", Manner::Redis).line(1),
        ),
        (
            "below",
            "redis: true",
            Canned::unix(dir.path(), "fin", Manner::Closes).line(1),
        ),
        ("idle", "redis: true", lines(Manner::Redis, &["idle"])),
        (
            "eager",
            "redis: true\n  preconnect: true",
            lines(Manner::Redis, &["eager"]),
        ),
    ] {
        let socket = dir.path().join(format!("{name}.pool"));
        write!(
            yaml,
            "{name}:\n  listen: {}\n  {directives}\n  servers:\n{servers}",
            socket.display()
        )
        .expect("a string takes everything");
        sockets.push((name, socket));
    }
    let paths: Vec<_> = sockets.iter().map(|(_, path)| path.clone()).collect();
    let running = match side.serve(dir.path(), &yaml, &paths) {
        Ok(running) => running,
        Err(error) => return error,
    };
    for (pool, requests) in traffic() {
        let socket = sockets.iter().find(|(name, _)| *name == pool);
        converse(&socket.expect("the traffic names pools").1, &requests);
    }
    // The last pool's numbers are the last to be counted. 0.5 lags behind.
    let mut last = String::new();
    let mut alike = 0;
    running.stats_when(|text| {
        let now = numbers(text);
        let shown: String = now
            .iter()
            .filter(|(name, _)| !VOLATILE.iter().any(|volatile| name.ends_with(volatile)))
            .map(|(_, value)| format!("{value},"))
            .collect();
        settled(&mut last, &mut alike, shown)
    })
}

/// Whether the numbers have stayed the same for a while.
fn settled(last: &mut String, alike: &mut u32, now: String) -> bool {
    *alike = if *last == now { *alike + 1 } else { 0 };
    *last = now;
    *alike > 60
}

/// Requests of one connection each, pool by pool.
fn traffic() -> Vec<(&'static str, Vec<u8>)> {
    let redis = |lines: &[&str]| -> Vec<u8> {
        lines
            .iter()
            .flat_map(|line| array_of(&line.split(' ').collect::<Vec<_>>()))
            .collect()
    };
    let single: Vec<String> = (0..20).map(|i| format!("SET key{i} value{i}")).collect();
    let single: Vec<&str> = single.iter().map(String::as_str).collect();
    vec![
        ("redis", redis(&single)),
        ("redis", redis(&["PING", "GET a", "PING"])),
        ("redis", redis(&["MGET apple beat carrot daikon eggplant foo user1 lychee", "DEL apple beat carrot daikon", "MGET a"])),
        ("redis", redis(&["AUTH x", "GET a"])),
        ("mem", b"set a 0 0 1\r\nx\r\nget a\r\nget apple beat carrot daikon eggplant foo\r\nversion\r\n".to_vec()),
        ("mem", b"set a 0 0 1 noreply\r\nx\r\nget a\r\nquit\r\n".to_vec()),
        ("mem", b"quit\r\n".to_vec()),
        ("down", redis(&["GET a"])),
        ("down", redis(&["PING"])),
        ("hangs", redis(&["GET a"])),
        ("fin", b"get a\r\n".to_vec()),
        ("unix", redis(&["GET a"])),
        ("below", redis(&["GET a"])),
        ("bad", redis(&["GET a"])),
    ]
}

/// Every number with the names that lead to it, in the order of the text.
fn numbers(text: &str) -> Vec<(String, String)> {
    let mut path: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '}']) {
        if rest[at..].starts_with('}') {
            path.pop();
            rest = &rest[at + 1..];
            continue;
        }
        let Some(len) = rest[at + 1..].find('"') else {
            break;
        };
        let name = &rest[at + 1..at + 1 + len];
        rest = rest[at + len + 2..].trim_start_matches(':');
        if rest.starts_with(" {") {
            path.push(name);
            rest = &rest[2..];
        } else {
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            let mut full = path.join(" ");
            full.push(' ');
            full.push_str(name);
            found.push((full.trim_start().to_owned(), rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    found
}

/// The text with `N` in the place of each number.
fn without_numbers(text: &str) -> String {
    let mut bare = String::new();
    let mut after_colon = false;
    for c in text.chars() {
        let digit = c.is_ascii_digit() || c == '-';
        if !(after_colon && digit) {
            bare.push(c);
            after_colon = c == ':';
            if after_colon {
                bare.push('N');
            }
        }
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_more_is_expected_for_each_that_a_server_closed_to_us_alone() {
        let named = |eof: &str| {
            let (total, eof) = (("total_connections", "40"), ("pool s0 server_eof", eof));
            [total, eof].map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        assert_eq!(expected_total(&named("1"), &named("3")), "42");
        assert_eq!(expected_total(&named("1"), &named("1")), "40");
    }
}
