//! Messages beyond the words of nutcracker 0.5.

use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Everything but the look-ups is at once.
const NO_WAIT: Duration = Duration::from_secs(10);

fn warnings_of(text: &str, lookup: Lookup, wait: Duration) -> Vec<String> {
    let resolved = parse_and_resolve("F", text.as_bytes(), &MACHINE).unwrap();
    warnings::lines("F", &resolved.pools, lookup, wait)
}

/// The only warning about a file.
fn warning(text: &str) -> String {
    match &warnings_of(text, known, NO_WAIT)[..] {
        [only] => only.clone(),
        other => panic!("{other:?}\n{text}"),
    }
}

/// Knows every host but one.
fn known(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    match host {
        "missing" => Err(io::Error::other("Name or service not known")),
        "empty" => Ok(None),
        "::1" | "127.0.0.1" => panic!("an address is no question"),
        _ => Ok(Some(([127, 0, 0, 1], port).into())),
    }
}

fn silent(_: &str, _: u16) -> io::Result<Option<SocketAddr>> {
    loop {
        thread::park();
    }
}

/// A pool in which nothing is to be warned of.
fn fine(name: &str, port: u16, rest: &str) -> String {
    format!("{name}:\n  listen: 127.0.0.1:{port}\n  timeout: 400\n{rest}")
}

// D71
#[test]
fn a_wrong_word_is_told_with_all_that_are_valid() {
    let hashes = "\"hash\" is not a valid hash (one of: one_at_a_time, md5, crc16, crc32, crc32a, fnv1_64, \
                  fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, jenkins)";
    let distributions =
        "\"distribution\" is not a valid distribution (one of: ketama, modula, random)";
    let policies = "\"auto_eject_policy\" is not a valid policy (one of: rehash, fail, miss)";
    let outcomes = "\"cross_server_keys\" is not a valid outcome (one of: error, first)";
    for (line, column, reason) in [
        ("hash: foo", 9, hashes),
        ("hash: MD5", 9, hashes),
        ("distribution: foo", 17, distributions),
        ("distribution: Ketama", 17, distributions),
        ("auto_eject_policy: none", 22, policies),
        ("cross_server_keys: last", 22, outcomes),
    ] {
        let expected = format!("F:5:{column}: conf: directive {reason}");
        assert_eq!(bad(&pool_with(line)), expected, "{line}");
    }
}

// D72
#[test]
fn a_plain_file_is_worth_no_warning() {
    let servers = "  servers:\n    - 127.0.0.1:2:1\n    - ::1:2:1\n    - h:3:1\n    - /tmp/s:1\n";
    let text = fine("p", 1, servers) + &fine("q", 2, "  servers:\n    - h:4:1\n");
    assert_eq!(warnings_of(&text, known, NO_WAIT), Vec::<String>::new());
    let explicit = text.replace("timeout: 400", "timeout: 0");
    assert_eq!(warnings_of(&explicit, known, NO_WAIT), Vec::<String>::new());
}

// D72
#[test]
fn what_is_seldom_meant_is_told_with_its_place() {
    let servers = "  servers:\n    - h:1:1\n";
    for (text, expected) in [
        (
            format!("p:\n  listen: 127.0.0.1:1\n{servers}"),
            "1:1: warning: pool 'p' has no timeout: requests to a server that does not answer \
             wait for ever",
        ),
        (
            fine("p", 1, &format!("  client_connections: 7\n{servers}")),
            "4:23: warning: client_connections is in force, 7 clients at a time; nutcracker 0.5 \
             ignored it",
        ),
        (
            fine("p", 1, servers).replace("127.0.0.1:1", "'*:1'"),
            "2:11: warning: '*' is the loopback interface alone; 0.0.0.0 and :: are all of them",
        ),
        (
            fine("p", 1, servers).replace("127.0.0.1:1", "/no/such/p.sock 0600"),
            "2:11: warning: there is no directory /no/such",
        ),
        (
            fine("p", 1, "  servers:\n    - /tmp/s:1\n    - /no/such/s:1\n"),
            "6:7: warning: there is no directory /no/such",
        ),
        (
            fine(
                "p",
                1,
                "  servers:\n    - missing:2:1\n    - h:1:1\n    - missing:1:1\n",
            ),
            "5:7: warning: host 'missing' has no address now: Name or service not known",
        ),
        (
            fine("p", 1, "  servers:\n    - empty:1:1\n"),
            "5:7: warning: host 'empty' has no address now: no address",
        ),
        (
            fine("p", 1, "  servers:\n    - '[::1]:1:1'\n"),
            "5:7: warning: host '[::1]' has no address now: an IPv6 address has no brackets: ::1:1",
        ),
    ] {
        assert_eq!(warning(&text), format!("F:{expected}"), "{text}");
    }
}

// D72
#[test]
fn pools_that_share_servers_are_told_once_for_each_pair() {
    let list = |ports: &[u16]| -> String {
        let entries = ports.iter().map(|port| format!("    - h:{port}:1\n"));
        "  servers:\n".to_owned() + &entries.collect::<String>()
    };
    let three = fine("long", 1, &list(&[1, 2, 3])) + &fine("b", 2, &list(&[2, 5]));
    let text = three + &fine("a", 3, &list(&[1, 4, 3]));
    assert_eq!(
        warnings_of(&text, known, NO_WAIT),
        [
            "F:12:7: warning: pool 'b' has a server of pool 'long', h:2: they see each other's keys",
            "F:18:7: warning: pool 'a' has a server of pool 'long', h:1 and 1 more: they see each \
             other's keys",
        ]
    );
    // Two databases of one redis, and two names in one pool.
    let database = |n| format!("  redis: true\n  redis_db: {n}\n{}", list(&[1]));
    let text = fine("a", 1, &database(0)) + &fine("b", 2, &database(1));
    assert_eq!(warnings_of(&text, known, NO_WAIT), Vec::<String>::new());
    let names = "  servers:\n    - h:1:1 x\n    - h:1:1 y\n";
    assert_eq!(
        warnings_of(&fine("a", 1, names), known, NO_WAIT),
        Vec::<String>::new()
    );
}

// D72
#[test]
fn hosts_without_an_answer_cost_the_wait_and_no_more() {
    const WAIT: Duration = Duration::from_millis(50);
    let entries: String = (0..150).map(|n| format!("    - h{n}:1:1\n")).collect();
    let text = fine("p", 1, &format!("  servers:\n{entries}"));
    let begin = Instant::now();
    let lines = warnings_of(&text, silent, WAIT);
    assert!(begin.elapsed() >= WAIT);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(
        lines[0],
        "F:5:7: warning: host 'h0' has no address now: no answer within 0.05 seconds"
    );
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[100], "F: warning: 50 more warnings");
}

#[test]
fn a_file_is_checked_as_it_is_loaded() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/nutcracker.yml");
    let loaded = load(&sample, MEMORY).unwrap();
    assert_eq!(check(&sample, MEMORY), Ok((loaded, Vec::new())));
    let error = check(Path::new("/no/such/file.yml"), MEMORY);
    assert!(matches!(error, Err(ConfigError::Open { .. })));
}
