//! Rows of the reference, one test per kind of rule. What is expected of a bad file is the place and
//! the whole reason.

mod addresses;
mod messages;
mod structure;

use twemproxy_core::config::{CrossServerKeys, EjectPolicy};
use twemproxy_core::limits::{CLIENT_OUTPUT_LIMIT_DEFAULT, REQUEST_SIZE_LIMIT_DEFAULT};
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_core::topology::{Distribution, HashKind};

use super::raw::Text;
use super::table::{Directive, GLOBAL, GlobalDraft, POOL, PoolDraft, Value};
use super::*;

const MEMORY: u64 = 1 << 30;
const MACHINE: Machine = Machine {
    memory: MEMORY,
    lookup: system_lookup,
};

fn good(text: &str) -> ProxyConfig {
    match parse("F", text.as_bytes(), &MACHINE) {
        Ok(config) => config,
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn bad(text: &str) -> String {
    match parse("F", text.as_bytes(), &MACHINE) {
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

fn tcp(host: &str, port: u16) -> ServerAddress {
    let host = host.to_owned();
    ServerAddress::Tcp { host, port }
}

// C23
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
    assert_eq!(pool.auto_eject_policy, EjectPolicy::Rehash);
    assert_eq!(pool.client_idle_timeout, None);
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
         auto_eject_policy: fail\n  client_idle_timeout: 60000\n  \
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
    assert_eq!(pool.auto_eject_policy, EjectPolicy::Fail);
    assert_eq!(pool.client_idle_timeout, Some(Span::from_millis(60_000)));
    let addresses = &config.pools[0];
    assert_eq!(addresses.backlog, 7);
    assert!(addresses.tcpkeepalive);
    assert!(addresses.reuseport);
}

#[test]
fn every_hash_and_distribution_has_its_own_word() {
    let kinds: Vec<_> = HashKind::ALL.iter().map(|(_, kind)| *kind).collect();
    for (name, kind) in HashKind::ALL {
        let config = good(&pool_with(&format!("hash: {name}")));
        assert_eq!(config.core.pools[0].hash, *kind);
        assert_eq!(kinds.iter().filter(|k| *k == kind).count(), 1);
    }
    assert_eq!(kinds.len(), 12);
    for (name, distribution) in Distribution::ALL {
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
fn a_wrong_number_is_told_with_its_place() {
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
    ] {
        let expected = format!("F:5:{column}: conf: directive {reason}");
        assert_eq!(bad(&pool_with(line)), expected, "{line}");
    }
}

#[test]
fn a_wrong_value_is_told_with_its_place() {
    for (line, column, reason) in [
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
        (
            "auto_eject_policy: miss",
            22,
            "\"auto_eject_policy:\" is only valid with auto_eject_hosts: true",
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
        "auto_eject_policy" => "rehash",
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
    fn check<T: fmt::Debug>(table: &[Directive<T>], draft: impl Fn() -> T) {
        for directive in table.iter().filter(|d| !d.default.starts_with('(')) {
            let mut set = draft();
            let text = Text {
                value: directive.default.to_owned(),
                place: Place::START,
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
    check(POOL, || PoolDraft::new("p", system_lookup));
    check(GLOBAL, GlobalDraft::default);
}

#[test]
fn directives_have_distinct_names() {
    let mut names: Vec<_> = POOL.iter().map(|d| d.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), POOL.len());
}

// C45
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
        "F:5:1: conf: 'F' missing sequence directive at depth 2 (pool 'q' has no \"servers:\")"
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
            "F:1:1: conf: 'F' missing sequence directive at depth 2 (pool 'global' has no \"servers:\")",
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
