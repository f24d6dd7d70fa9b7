//! Rows of the reference, one test per kind of rule. A file is written as the value after a few
//! lines that are right; what is expected is the place and the whole reason.

use std::net::SocketAddr;

use twemproxy_core::config::CrossServerKeys;
use twemproxy_core::limits::{CLIENT_OUTPUT_LIMIT_DEFAULT, REQUEST_SIZE_LIMIT_DEFAULT};
use twemproxy_core::proto::Protocol;
use twemproxy_core::ring::{Distribution, HashKind};
use twemproxy_core::time::Span;

use super::raw::Text;
use super::table::{Directive, GLOBAL, GlobalDraft, POOL, PoolDraft, Value};
use super::*;

const MEMORY: u64 = 1 << 30;

fn good(text: &str) -> ProxyConfig {
    match parse("F", text.as_bytes(), MEMORY) {
        Ok(config) => config,
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn bad(text: &str) -> String {
    match parse("F", text.as_bytes(), MEMORY) {
        Ok(config) => panic!("accepted as {config:?}\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// A pool with `line` as its third directive, on line 5 of the file, from column 3.
fn pool_with(line: &str) -> String {
    format!("p:\n  listen: 127.0.0.1:1\n  servers:\n    - 127.0.0.1:2:1\n  {line}\n")
}

/// A pool that listens on `listen`: line 2, column 11.
fn listening(listen: &str) -> String {
    format!("p:\n  listen: {listen}\n  servers:\n    - 127.0.0.1:2:1\n")
}

/// A pool with these server entries, the first on line 4, column 7.
fn serving(entries: &[&str]) -> String {
    let mut text = "p:\n  listen: 127.0.0.1:1\n  servers:\n".to_owned();
    for entry in entries {
        text += &format!("    - {entry}\n");
    }
    text
}

fn server_names(config: &ProxyConfig) -> Vec<&str> {
    config.core.pools[0]
        .servers
        .iter()
        .map(|s| &*s.name)
        .collect()
}

#[test]
fn a_small_pool_has_the_defaults_of_nutcracker() {
    let config = good(&listening("127.0.0.1:22121"));
    let pool = &config.core.pools[0];
    assert_eq!(&*pool.name, "p");
    assert_eq!(pool.protocol, Protocol::Memcache);
    assert_eq!(pool.hash, HashKind::Fnv1a64);
    assert_eq!(pool.hash_tag, None);
    assert_eq!(pool.distribution, Distribution::Ketama);
    assert_eq!(pool.timeout, None);
    assert_eq!(pool.client_connections, 0);
    assert_eq!(pool.redis_auth, None);
    assert_eq!(pool.redis_db, 0);
    assert!(!pool.preconnect);
    assert!(!pool.auto_eject_hosts);
    assert_eq!(pool.server_connections, 1);
    assert_eq!(pool.server_retry_timeout, Span::from_millis(30_000));
    assert_eq!(pool.server_failure_limit, 2);
    assert_eq!(pool.request_size_limit, REQUEST_SIZE_LIMIT_DEFAULT);
    assert_eq!(pool.client_output_limit, CLIENT_OUTPUT_LIMIT_DEFAULT);
    assert!(!pool.allow_flush);
    assert_eq!(pool.cross_server_keys, CrossServerKeys::Error);
    let addresses = &config.pools[0];
    assert_eq!(addresses.backlog, 512);
    assert!(!addresses.tcpkeepalive);
    assert!(!addresses.reuseport);
    assert_eq!(config.core.memory_limit, MEMORY / 2);
}

#[test]
fn every_directive_arrives() {
    let config = good(
        "p:\n  listen: 127.0.0.1:22121\n  redis: true\n  hash: hsieh\n  hash_tag: '{}'\n  \
         distribution: modula\n  timeout: 400\n  backlog: 7\n  client_connections: 9\n  \
         tcpkeepalive: true\n  reuseport: true\n  redis_auth: 12345\n  redis_db: 3\n  \
         preconnect: true\n  auto_eject_hosts: true\n  server_connections: 4\n  \
         server_retry_timeout: 2000\n  server_failure_limit: 5\n  request_size_limit: 1048576\n  \
         client_output_limit: 4294967296\n  allow_flush: true\n  cross_server_keys: first\n  \
         servers:\n    - 127.0.0.1:2:1\n",
    );
    let pool = &config.core.pools[0];
    assert_eq!(pool.protocol, Protocol::Redis);
    assert_eq!(pool.hash, HashKind::Hsieh);
    assert_eq!(pool.hash_tag, Some(*b"{}"));
    assert_eq!(pool.distribution, Distribution::Modula);
    assert_eq!(pool.timeout, Some(Span::from_millis(400)));
    assert_eq!(pool.client_connections, 9);
    assert_eq!(pool.redis_auth.as_deref(), Some(&b"12345"[..]));
    assert_eq!(pool.redis_db, 3);
    assert!(pool.preconnect);
    assert!(pool.auto_eject_hosts);
    assert_eq!(pool.server_connections, 4);
    assert_eq!(pool.server_retry_timeout, Span::from_millis(2000));
    assert_eq!(pool.server_failure_limit, 5);
    assert_eq!(pool.request_size_limit, 1_048_576);
    assert_eq!(pool.client_output_limit, 1 << 32);
    assert!(pool.allow_flush);
    assert_eq!(pool.cross_server_keys, CrossServerKeys::First);
    let addresses = &config.pools[0];
    assert_eq!(addresses.backlog, 7);
    assert!(addresses.tcpkeepalive);
    assert!(addresses.reuseport);
}

#[test]
fn every_hash_and_distribution_has_its_own_word() {
    let kinds: Vec<_> = names::HASHES.iter().map(|(_, kind)| *kind).collect();
    for (name, kind) in names::HASHES {
        let config = good(&pool_with(&format!("hash: {name}")));
        assert_eq!(config.core.pools[0].hash, *kind);
        assert_eq!(kinds.iter().filter(|k| *k == kind).count(), 1);
    }
    assert_eq!(kinds.len(), 12);
    for (name, distribution) in names::DISTRIBUTIONS {
        let config = good(&pool_with(&format!("distribution: {name}")));
        assert_eq!(config.core.pools[0].distribution, *distribution);
    }
}

#[test]
fn zero_means_for_ever_and_one_failure() {
    let config = good(&pool_with("timeout: 0\n  server_failure_limit: 0"));
    assert_eq!(config.core.pools[0].timeout, None);
    assert_eq!(config.core.pools[0].server_failure_limit, 1);
}

#[test]
fn a_wrong_value_is_told_with_its_place() {
    for (line, column, reason) in [
        ("timeout: -1", 12, "\"timeout\" is not a number"),
        ("timeout: 1s", 12, "\"timeout\" is not a number"),
        ("timeout: +1", 12, "\"timeout\" is not a number"),
        ("timeout: 0x10", 12, "\"timeout\" is not a number"),
        ("timeout: 1.0", 12, "\"timeout\" is not a number"),
        ("backlog: x", 12, "\"backlog\" is not a number"),
        (
            "client_connections: x",
            23,
            "\"client_connections\" is not a number",
        ),
        ("redis_db: x", 13, "\"redis_db\" is not a number"),
        (
            "server_connections: x",
            23,
            "\"server_connections\" is not a number",
        ),
        (
            "server_retry_timeout: x",
            25,
            "\"server_retry_timeout\" is not a number",
        ),
        (
            "server_failure_limit: x",
            25,
            "\"server_failure_limit\" is not a number",
        ),
        (
            "timeout: 2147483648",
            12,
            "\"timeout\" is out of range (0 to 2147483647)",
        ),
        (
            "timeout: 99999999999999999999999",
            12,
            "\"timeout\" is out of range (0 to 2147483647)",
        ),
        (
            "request_size_limit: 511",
            23,
            "\"request_size_limit\" is out of range (512 to 2147483647)",
        ),
        (
            "client_output_limit: 0",
            24,
            "\"client_output_limit\" is out of range (1024 to 9223372036854775807)",
        ),
        ("redis: yes", 10, "\"redis\" is not \"true\" or \"false\""),
        ("redis: True", 10, "\"redis\" is not \"true\" or \"false\""),
        (
            "tcpkeepalive: 1",
            17,
            "\"tcpkeepalive\" is not \"true\" or \"false\"",
        ),
        (
            "reuseport: on",
            14,
            "\"reuseport\" is not \"true\" or \"false\"",
        ),
        (
            "preconnect: ~",
            15,
            "\"preconnect\" is not \"true\" or \"false\"",
        ),
        (
            "auto_eject_hosts: no",
            21,
            "\"auto_eject_hosts\" is not \"true\" or \"false\"",
        ),
        (
            "allow_flush: x",
            16,
            "\"allow_flush\" is not \"true\" or \"false\"",
        ),
        (
            "cross_server_keys: last",
            22,
            "\"cross_server_keys\" is not \"error\" or \"first\"",
        ),
        ("hash: foo", 9, "\"hash\" is not a valid hash"),
        ("hash: MD5", 9, "\"hash\" is not a valid hash"),
        (
            "distribution: foo",
            17,
            "\"distribution\" is not a valid distribution",
        ),
        (
            "distribution: Ketama",
            17,
            "\"distribution\" is not a valid distribution",
        ),
        (
            "hash_tag: \"{\"",
            13,
            "\"hash_tag\" is not a valid hash tag string with two characters",
        ),
        (
            "hash_tag: abc",
            13,
            "\"hash_tag\" is not a valid hash tag string with two characters",
        ),
        ("foo: 1", 3, "\"foo\" is unknown"),
        ("Timeout: 1", 3, "\"Timeout\" is unknown"),
        ("sentinels: 1", 3, "\"sentinels\" is unknown"),
        ("memory_limit: 1", 3, "\"memory_limit\" is unknown"),
        ("listen: 127.0.0.1:3", 3, "\"listen\" is a duplicate"),
        ("timeout: ''", 12, "\"timeout\" has an empty value"),
        ("redis_auth: \"\"", 15, "\"redis_auth\" has an empty value"),
        (
            "server_connections: 0",
            23,
            "\"server_connections:\" cannot be 0",
        ),
        (
            "redis_auth: x",
            15,
            "\"redis_auth:\" is only valid for a redis pool",
        ),
    ] {
        let expected = format!("F:5:{column}: conf: directive {reason}");
        assert_eq!(bad(&pool_with(line)), expected, "{line}");
    }
}

#[test]
fn a_value_left_out_is_told_with_its_line() {
    let error = bad(&pool_with("timeout:\n  redis: true"));
    assert!(error.starts_with("F:5:"), "{error}");
    assert!(
        error.ends_with(": conf: directive \"timeout\" has an empty value"),
        "{error}"
    );
}

#[test]
fn every_directive_but_servers_is_refused_when_repeated() {
    let values = |name: &str| match name {
        "listen" => "127.0.0.1:1",
        "hash" => "md5",
        "distribution" => "ketama",
        "hash_tag" => "ab",
        "cross_server_keys" => "error",
        _ => "",
    };
    for directive in POOL.iter().filter(|d| !d.is_list()) {
        let name = directive.name;
        let value = match &directive.value {
            Value::Number { .. } => "4096",
            Value::Bool { .. } => "true",
            _ => Some(values(name)).filter(|v| !v.is_empty()).unwrap_or("x"),
        };
        // The second value is not even looked at.
        let text = format!("p:\n  {name}: {value}\n  {name}: '?'\n  servers:\n    - h:1:1\n");
        let expected = format!("F:3:3: conf: directive \"{name}\" is a duplicate");
        assert_eq!(bad(&text), expected);
    }
}

#[test]
fn repeated_servers_add_up() {
    // compat: 0.5 refuses two lists, but takes single entries besides one.
    let config = good("p:\n  listen: 127.0.0.1:1\n  servers: a:1:1\n  servers:\n    - b:1:1\n");
    assert_eq!(server_names(&config), ["a:1", "b:1"]);
}

#[test]
fn a_list_of_one_is_a_value_and_a_longer_one_a_duplicate() {
    let config = good("p:\n  listen: 127.0.0.1:1\n  servers: a:1:1\n  timeout:\n    - 400\n");
    assert_eq!(config.core.pools[0].timeout, Some(Span::from_millis(400)));
    let error = bad("p:\n  listen: 127.0.0.1:1\n  timeout:\n    - 400\n    - 500\n");
    assert_eq!(error, "F:5:7: conf: directive \"timeout\" is a duplicate");
}

#[test]
fn documented_defaults_are_the_real_ones() {
    fn check<T: std::fmt::Debug>(table: &[Directive<T>], draft: impl Fn() -> T) {
        for directive in table.iter().filter(|d| !d.default.starts_with('(')) {
            let mut set = draft();
            let text = Text {
                value: directive.default.to_owned(),
                place: error::Place::START,
            };
            directive.apply(&mut set, &text).unwrap();
            assert_eq!(
                format!("{set:?}"),
                format!("{:?}", draft()),
                "{}",
                directive.name
            );
        }
    }
    check(POOL, || PoolDraft::new("p"));
    check(GLOBAL, GlobalDraft::default);
}

#[test]
fn directives_have_distinct_names() {
    let mut names: Vec<_> = POOL.iter().map(|d| d.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), POOL.len());
}

#[test]
fn listen_takes_tcp_addresses() {
    let at = |text: &str| match good(&listening(text)).pools.remove(0).listen {
        Listen::Tcp {
            host,
            port,
            address,
        } => (host, port, address),
        Listen::Unix { .. } => panic!("{text} is no path"),
    };
    let v4: SocketAddr = "127.0.0.1:22121".parse().unwrap();
    assert_eq!(at("127.0.0.1:22121"), ("127.0.0.1".to_owned(), 22121, v4));
    let v6: SocketAddr = "[::1]:22121".parse().unwrap();
    assert_eq!(at("::1:22121"), ("::1".to_owned(), 22121, v6));
    let (host, port, address) = at("localhost:65535");
    assert_eq!((host.as_str(), port), ("localhost", 65535));
    assert!(address.ip().is_loopback());
}

#[test]
fn listen_takes_unix_paths() {
    let longest = format!("/{}", "x".repeat(106));
    for (text, path, mode) in [
        ("/a/b.sock", "/a/b.sock", None),
        ("/a/b.sock 0666", "/a/b.sock", Some(0o666)),
        ("/a/b.sock 777", "/a/b.sock", Some(0o777)),
        ("/a b 0600", "/a b", Some(0o600)),
        ("/a xyz", "/a", None),
        ("/a 0", "/a", None),
        ("/a 0666x", "/a", Some(0o666)),
        ("/a +7", "/a", Some(7)),
        ("/a 689", "/a", Some(6)),
        ("'/a '", "/a", None),
        ("/a:1:2", "/a:1:2", None),
        (longest.as_str(), longest.as_str(), None),
    ] {
        let listen = good(&listening(text)).pools.remove(0).listen;
        let path = PathBuf::from(path);
        assert_eq!(listen, Listen::Unix { path, mode }, "{text}");
    }
}

#[test]
fn listen_is_refused_in_the_words_of_nutcracker() {
    let port = "has an invalid port in \"hostname:port\" format string";
    let mode = "has an invalid file permission in \"socket_path permission\" format string";
    for (text, reason) in [
        ("22121", "has an invalid \"hostname:port\" format string"),
        ("h:0", port),
        ("h:65536", port),
        ("h:70000", port),
        ("h:x", port),
        ("h:-1", port),
        ("'h:'", port),
        ("h:4294989417", port),
        ("/a 01000", mode),
        ("/a 7777777777777777777777777", mode),
        ("/a -1", mode),
    ] {
        let expected = format!("F:2:11: conf: directive \"listen\" {reason}");
        assert_eq!(bad(&listening(text)), expected, "{text}");
    }
    let long = format!("/{}", "x".repeat(107));
    for text in ["':22121'", "no.such.host.invalid:1", "'[::1]:22121'", &long] {
        let error = bad(&listening(text));
        let expected = "F:2:11: conf: directive \"listen\" has an invalid value";
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn server_entries_have_their_names() {
    for (entry, name, weight, address) in [
        ("h:11212:1", "h:11212", 1, tcp("h", 11212)),
        ("h:11211:1", "h", 1, tcp("h", 11211)),
        ("h:011211:1", "h", 1, tcp("h", 11211)),
        ("h:011212:1", "h:011212", 1, tcp("h", 11212)),
        ("h:11211:5 name", "name", 5, tcp("h", 11211)),
        ("h:1:2147483647 a:b", "a:b", 2_147_483_647, tcp("h", 1)),
        ("::1:6379:1", "::1:6379", 1, tcp("::1", 6379)),
        ("fe80::1:11211:1", "fe80::1", 1, tcp("fe80::1", 11211)),
        (
            "/a/b.sock:1",
            "/a/b.sock:",
            1,
            ServerAddress::Unix("/a/b.sock".into()),
        ),
        (
            "/a/b.sock:3 name",
            "name",
            3,
            ServerAddress::Unix("/a/b.sock".into()),
        ),
        ("\"h:1:1\"", "h:1", 1, tcp("h", 1)),
    ] {
        let config = good(&serving(&[entry]));
        let server = &config.core.pools[0].servers[0];
        assert_eq!((&*server.name, server.weight), (name, weight), "{entry}");
        assert_eq!(config.pools[0].servers, [address], "{entry}");
    }
}

fn tcp(host: &str, port: u16) -> ServerAddress {
    let host = host.to_owned();
    ServerAddress::Tcp { host, port }
}

#[test]
fn server_entries_are_refused_in_the_words_of_nutcracker() {
    let shape = "has an invalid \"hostname:port:weight [name]\"or \
                 \"/path/unix_socket:weight [name]\" format string";
    let weight = "has an invalid weight in \"hostname:port:weight [name]\" format string";
    let zero = "has a zero weight in \"hostname:port:weight [name]\" format string";
    let port = "has an invalid port in \"hostname:port:weight [name]\" format string";
    for (entry, reason) in [
        ("h", shape),
        ("h:1", shape),
        ("h:1 name", shape),
        ("/a", shape),
        ("/a:b:1", shape),
        ("h:1:x", weight),
        ("h:1:-1", weight),
        ("'h:1:'", weight),
        ("h:1:1  name", weight),
        ("h:1:2147483648", weight),
        ("h:1:4294967297", weight),
        ("/a:x", weight),
        ("h:1:0", zero),
        ("/a:0 name", zero),
        ("h:0:1", port),
        ("h:65536:1", port),
        ("h:x:1", port),
        ("h::1", port),
        ("''", "has an empty value"),
    ] {
        let text = serving(&["ok:1:1", entry]);
        let expected = format!("F:5:7: conf: directive \"servers\" {reason}");
        assert_eq!(bad(&text), expected, "{entry}");
    }
}

#[test]
fn servers_and_pools_are_ordered_by_length_then_bytes() {
    let config = good(
        "cc:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1 c\n    - h:2:2 aa\n    - h:3:3 b\n\
         b:\n  listen: 127.0.0.1:2\n  servers:\n    - h:1:1\n\
         aa:\n  listen: 127.0.0.1:3\n  servers:\n    - h:1:1\n\
         a:\n  listen: 127.0.0.1:4\n  servers:\n    - h:1:1\n",
    );
    let pools: Vec<_> = config.core.pools.iter().map(|p| &*p.name).collect();
    assert_eq!(pools, ["a", "b", "aa", "cc"]);
    let listen = |at: usize| match &config.pools[at].listen {
        Listen::Tcp { port, .. } => *port,
        Listen::Unix { .. } => 0,
    };
    assert_eq!([0, 1, 2, 3].map(listen), [4, 2, 3, 1]);
    let servers = &config.core.pools[3].servers;
    let servers: Vec<_> = servers.iter().map(|s| (&*s.name, s.weight)).collect();
    assert_eq!(servers, [("b", 3), ("c", 1), ("aa", 2)]);
    assert_eq!(
        config.pools[3].servers,
        [tcp("h", 3), tcp("h", 1), tcp("h", 2)]
    );
}

#[test]
fn what_fits_together_badly_is_told_with_its_place() {
    for (text, expected) in [
        (
            "q:\n  listen: 127.0.0.1:9\n  servers:\n    - h:1:1\np:\n  servers:\n    - h:1:1\n",
            "F:5:1: conf: directive \"listen:\" is missing",
        ),
        (
            "p:\n  listen: 127.0.0.1:1\n  timeout:\n    - 1\n",
            "F:1:1: conf: pool 'p' has no servers",
        ),
        (
            "p:\n  listen: 127.0.0.1:1\n  servers: []\n",
            "F:1:1: conf: pool 'p' has no servers",
        ),
        (
            "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n    - i:1:1\n    - h:1:2\n",
            "F:6:7: conf: pool 'p' has servers with same name 'h:1'",
        ),
        (
            "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1 x\n    - i:1:1 x\n",
            "F:5:7: conf: pool 'p' has servers with same name 'x'",
        ),
        (
            "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\nq:\n  servers:\n    - h:1:1\n  \
             listen: 127.0.0.1:1\n",
            "F:8:11: conf: pools 'p' and 'q' have the same listen address '127.0.0.1:1'",
        ),
        (
            "p:\n  listen: 127.0.0.1:2\n  servers:\n    - h:1:1\np:\n  listen: 127.0.0.1:1\n  \
             servers:\n    - h:1:1\n",
            "F:5:1: conf: 'F' has pools with same name p'",
        ),
        ("{}", "F:1:1: conf: 'F' has no pools"),
        (
            "global:\n  memory_limit: 1\n",
            "F:1:1: conf: 'F' has no pools",
        ),
        (
            "\"\":\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n",
            "F:1:1: conf: the name of a pool is empty",
        ),
    ] {
        assert_eq!(bad(text), expected, "{text}");
    }
}

#[test]
fn same_places_under_different_names_are_accepted() {
    let config = good(&serving(&["h:1:1 a", "h:1:1 b"]));
    assert_eq!(server_names(&config), ["a", "b"]);
    // Spelled differently, the same address passes: listening will fail, as it did.
    good(
        "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n\
         q:\n  listen: 127.0.0.1:01\n  servers:\n    - h:1:1\n",
    );
    good(&pool_with("redis_db: 3"));
}

#[test]
fn the_order_of_checks_is_nutcrackers() {
    // The values of the whole file come before what is missing in the first pool.
    let text = "p:\n  servers:\n    - h:1:1\nq:\n  timeout: x\n  servers:\n    - h:1:1\n";
    assert_eq!(
        bad(text),
        "F:5:12: conf: directive \"timeout\" is not a number"
    );
    // The structure of the whole file comes before any value.
    let text = "p:\n  timeout: x\n  servers:\n    - h:1:1\nq:\n  timeout: 1\n";
    assert_eq!(
        bad(text),
        "F:5:1: conf: 'F' missing sequence directive at depth 2"
    );
    // Each pool is checked whole before pools are compared.
    let text = "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n\
                p:\n  listen: 127.0.0.1:1\n  server_connections: 0\n  servers:\n    - h:1:1\n";
    assert_eq!(
        bad(text),
        "F:7:23: conf: directive \"server_connections:\" cannot be 0"
    );
    // Addresses before names.
    let text = "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n\
                p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n";
    assert!(bad(text).contains("have the same listen address"));
}

#[test]
fn the_structure_is_checked_in_the_words_of_nutcracker() {
    for (text, place, reason) in [
        ("", "1:1", "must contain only 1 document; found 0 documents"),
        (
            "# nothing\n",
            "1:1",
            "must contain only 1 document; found 0 documents",
        ),
        (
            "a:\n  b: c\n---\nd:\n  e: f\n",
            "3:1",
            "must contain only 1 document; found 2 documents",
        ),
        ("alpha", "1:1", "has invalid empty \"key:\" at depth 0"),
        ("---\n", "1:4", "has invalid empty \"key:\" at depth 0"),
        ("- a\n", "1:1", "has sequence at depth 0 instead of 2"),
        ("p:\n  - a\n", "2:3", "has sequence at depth 1 instead of 2"),
        ("p: x\n", "1:4", "has invalid mapping \"key:\" at depth 1"),
        (
            "? [a]\n: b\n",
            "1:3",
            "has sequence at depth 1 instead of 2",
        ),
        (
            "? {a: b}\n: c\n",
            "1:3",
            "has more than one \"key:value\" at depth 1",
        ),
        (
            "p:\n  ? [a]\n  : b\n",
            "2:5",
            "has invalid \"key:value\" at depth 2",
        ),
        (
            "p:\n  timeout: 400\n",
            "1:1",
            "missing sequence directive at depth 2",
        ),
        (
            "p:\n  listen: 127.0.0.1:1\n  servers:\n",
            "1:1",
            "missing sequence directive at depth 2",
        ),
        (
            "p:\n  servers:\n    - a\n  timeout:\n    - 1\n",
            "5:5",
            "has more than one sequence directive",
        ),
        (
            "p:\n  servers:\n    - - a\n",
            "3:7",
            "has more than one sequence directive",
        ),
        (
            "p:\n  timeout:\n    a: b\n",
            "3:5",
            "has a depth greater than 2",
        ),
        (
            "p:\n  servers:\n    - a: b\n",
            "3:7",
            "has a depth greater than 2",
        ),
        ("p:\n  a: &x [*x]\n", "2:10", "has a depth greater than 2"),
    ] {
        assert_eq!(
            bad(text),
            format!("F:{place}: conf: 'F' {reason}"),
            "{text}"
        );
    }
}

#[test]
fn unquoted_braces_get_a_hint() {
    assert_eq!(
        bad(&pool_with("hash_tag: {}")),
        "F:5:13: conf: 'F' has a depth greater than 2 (a text that starts with '{' needs quotes)"
    );
    for quoted in ["\"{}\"", "'{}'", "$$"] {
        good(&pool_with(&format!("hash_tag: {quoted}")));
    }
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    for (text, place) in [
        ("p:\n  servers: [a\n", "2:12"),
        ("p:\n\tlisten: x\n", "2:"),
        ("p:\n  listen: \"x\n", "2:11"),
        ("p:\n  a: *nowhere\n", "2:6"),
        ("%YAML 1.1\n---\na: b\n", "1:"),
    ] {
        let error = bad(text);
        assert!(
            error.starts_with(&format!("F:{place}")),
            "{text:?}: {error}"
        );
        assert!(
            error.contains(": conf: failed to get the next yaml document: "),
            "{error}"
        );
    }
    let error = parse("F", b"p:\n  listen: \xc3\xa4\xff\n", MEMORY).unwrap_err();
    assert_eq!(
        error.to_string(),
        "F:2:12: conf: failed to get the next yaml document: invalid UTF-8"
    );
    let tagged = bad(&pool_with("timeout: !!int 5"));
    assert!(
        tagged.ends_with("conf: tag token (20) is disallowed"),
        "{tagged}"
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in [
        "[".repeat(100_000),
        "a: {".repeat(100_000),
        "- ".repeat(100_000),
    ] {
        assert!(bad(&text).starts_with("F:1:"));
    }
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for n in 1..10_000 {
        chain += &format!("a{n}: &a{n} [*a{}]\n", n - 1);
    }
    assert_eq!(bad(&chain), "F:4:10: conf: 'F' has a depth greater than 2");
}

#[test]
fn flow_style_and_document_marks_are_accepted() {
    let config = good(
        "---\np: {listen: '127.0.0.1:1', redis: true, servers: ['h:1:1 a', 'h:2:1 b']}\n...\n",
    );
    assert_eq!(config.core.pools[0].protocol, Protocol::Redis);
    assert_eq!(server_names(&config), ["a", "b"]);
}

#[test]
fn anchors_and_merge_keys_are_accepted() {
    let config = good(
        "p: &p\n  listen: 127.0.0.1:1\n  timeout: 5\n  hash: &h md5\n  servers: &s\n    - h:1:1\n\
         q:\n  <<: *p\n  listen: 127.0.0.1:2\n\
         r:\n  listen: 127.0.0.1:3\n  hash: *h\n  servers: *s\n",
    );
    let [_, q, r] = &config.core.pools[..] else {
        panic!("three pools");
    };
    assert_eq!(q.timeout, Some(Span::from_millis(5)));
    assert_eq!(q.servers.len(), 1);
    assert_eq!((r.hash, r.timeout), (HashKind::Md5, None));
    assert_eq!(&*r.servers[0].name, "h:1");
}

#[test]
fn scalars_are_text_whatever_they_look_like() {
    for (typed, text) in [
        ("~", "~"),
        ("null", "null"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("1e3", "1e3"),
        ("a#b", "a#b"),
        ("a b  c", "a b  c"),
        ("'it''s'", "it's"),
        ("\"\\u00e4\\n\"", "\u{e4}\n"),
        ("|\n    block\n    two", "block\ntwo\n"),
        (">-\n    folded\n    two", "folded two"),
    ] {
        let config = good(&pool_with(&format!("redis: true\n  redis_auth: {typed}")));
        let auth = config.core.pools[0].redis_auth.as_deref();
        assert_eq!(auth, Some(text.as_bytes()), "{typed}");
    }
}

#[test]
fn comments_and_line_ends_of_other_systems_are_accepted() {
    let text = "\u{feff}# a\r\np: # b\r\n  listen: 127.0.0.1:1 # c\r\n  servers:\r\n   - h:1:1\r\n";
    assert_eq!(server_names(&good(text)), ["h:1"]);
}

#[test]
fn columns_count_characters() {
    let error = bad("p\u{e4}\u{e4}: {listen: 127.0.0.1:1, foo: 1, servers: [h:1:1]}\n");
    assert_eq!(error, "F:1:28: conf: directive \"foo\" is unknown");
}

#[test]
fn global_holds_settings_unless_it_is_a_pool() {
    let pool = pool_with("timeout: 1");
    let config = good(&format!("global:\n  memory_limit: 1000000\n{pool}"));
    assert_eq!(config.core.memory_limit, 1_000_000);
    assert_eq!(config.core.pools.len(), 1);
    let config = good(&format!("{pool}global:\n  memory_limit: 0\n"));
    assert_eq!(config.core.memory_limit, MEMORY / 2);
    good(&format!("{pool}global: {{}}\n"));
    let config = good("global:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n");
    assert_eq!(&*config.core.pools[0].name, "global");
}

#[test]
fn global_is_checked_like_a_pool() {
    let pool = pool_with("timeout: 1");
    for (text, expected) in [
        (
            "global:\n  timeout: 1\n",
            "F:2:3: conf: directive \"timeout\" is unknown",
        ),
        (
            "global:\n  memory_limit: 1k\n",
            "F:2:17: conf: directive \"memory_limit\" is not a number",
        ),
        (
            "global:\n  memory_limit: 1\n  memory_limit: 1\n",
            "F:3:3: conf: directive \"memory_limit\" is a duplicate",
        ),
        (
            "global: {memory_limit: 1}\nglobal: {memory_limit: 1}\n",
            "F:2:1: conf: directive \"global\" is a duplicate",
        ),
        (
            "global:\n",
            "F:1:7: conf: 'F' has invalid mapping \"key:\" at depth 1",
        ),
        // With one of the keys of a pool, it is one, and the other is missing.
        (
            "global:\n  servers:\n    - h:1:1\n",
            "F:1:1: conf: directive \"listen:\" is missing",
        ),
        (
            "global:\n  listen: 127.0.0.1:9\n",
            "F:1:1: conf: 'F' missing sequence directive at depth 2",
        ),
    ] {
        assert_eq!(bad(&format!("{text}{pool}")), expected, "{text}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_apart() {
    let error = load(Path::new("/no/such/file.yml"), MEMORY).unwrap_err();
    assert!(matches!(error, ConfigError::Open { .. }));
    assert_eq!(
        error.to_string(),
        "conf: failed to open configuration '/no/such/file.yml': No such file or directory"
    );
}

#[test]
fn every_sample_loads() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if let Err(error) = load(&path, MEMORY) {
            panic!("{error}");
        }
        count += 1;
    }
    assert_eq!(count, 5, "a sample is missing or new");
}

#[test]
fn one_sample_has_every_directive() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/all-directives.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let root = yaml::parse("F", text.as_bytes()).unwrap();
    let raw = raw::read("F", &root).unwrap();
    let sections = raw.pools.iter().chain(&raw.global);
    let keys: Vec<_> = sections
        .flat_map(|section| section.directives.iter())
        .map(|directive| directive.key.value.as_str())
        .collect();
    let names = POOL.iter().map(|d| d.name);
    for name in names.chain(GLOBAL.iter().map(|d| d.name)) {
        assert!(keys.contains(&name), "{name}");
    }
}

#[test]
fn numbers_are_digits_and_saturate() {
    assert_eq!(number(b"0"), Some(0));
    assert_eq!(number(b"007"), Some(7));
    assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
    assert_eq!(number(b"99999999999999999999999999"), Some(u64::MAX));
    for text in ["", " 1", "1 ", "-1", "+1", "0x1", "\u{661}"] {
        assert_eq!(number(text.as_bytes()), None, "{text:?}");
    }
}
