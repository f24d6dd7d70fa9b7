//! Any text as a configuration file.
//!
//! A refused file must say where it is wrong. An accepted one must keep what the engine relies on, be
//! small enough to serve from, and mean the same when it is written out and read again.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use twemproxy_config::{
    ConfigError, Listen, Machine, PoolAddresses, ProxyConfig, ServerAddress, parse,
};
use twemproxy_core::config::{EjectPolicy, PoolConfig};
use twemproxy_core::engine::Engine;
use twemproxy_core::owner::HealthOwner;
use twemproxy_core::proto::Protocol;

/// Nothing in it depends on where the test runs.
const MACHINE: Machine = Machine {
    memory: 1 << 30,
    lookup,
};
/// More servers would only make the fuzzer slow: each has its points on a ring.
const SERVED_MAX: usize = 16;

/// Reads `bytes` as a file.
pub fn configuration(bytes: &[u8]) {
    match parse("F", bytes, &MACHINE) {
        Ok(config) => {
            check(&config);
            serve(&config);
            check_round_trip(&config);
        }
        Err(error) => check_refusal(bytes, &error),
    }
}

/// The files in `conf/`, and what is meant to exhaust a reader.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let samples: [&[u8]; 5] = [
        include_bytes!("../../../../conf/all-directives.yml"),
        include_bytes!("../../../../conf/demo.yml"),
        include_bytes!("../../../../conf/nutcracker.leaf.yml"),
        include_bytes!("../../../../conf/nutcracker.root.yml"),
        include_bytes!("../../../../conf/nutcracker.yml"),
    ];
    let mut seeds: Vec<Vec<u8>> = samples.map(<[u8]>::to_vec).into();
    seeds.extend(exhausting().map(String::into_bytes));
    seeds
}

/// Depth, repetition and length without end.
fn exhausting() -> [String; 8] {
    let pool = |directives: &str| format!("p:\n  listen: a:1\n  servers: [b:2:1]\n{directives}");
    let layer = |n: usize| format!("l{n}: &l{n} [{}]\n", format!("*l{}, ", n - 1).repeat(9));
    let laughs: String = (1..9).map(layer).collect();
    let shared = "s: &s\n  k1: 1\n  k2: 2\n  k3: 3\n";
    [
        "[".repeat(1000),
        "? ".repeat(500),
        "{a: ".repeat(300),
        format!("l0: &l0 [lol]\n{laughs}"),
        format!("{shared}p:\n{}", "  <<: *s\n".repeat(100)),
        "p: &p\n  <<: *p\n".to_owned(),
        pool(&format!("  timeout: {}\n", "9".repeat(500))),
        pool(&format!("  {}: 1\n", "k".repeat(1100))),
    ]
}

fn lookup(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    match host.bytes().next() {
        None => Err(io::Error::other("no name")),
        Some(b'?') => Ok(None),
        Some(byte) => Ok(Some((Ipv4Addr::new(127, 0, 0, byte), port).into())),
    }
}

fn check_refusal(bytes: &[u8], error: &ConfigError) {
    let ConfigError::Invalid { place, reason, .. } = error else {
        panic!("nothing was opened: {error}");
    };
    let line_ends = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r'));
    assert!((1..=line_ends.count() + 1).contains(&place.line), "{error}");
    assert!((1..=bytes.len() + 1).contains(&place.column), "{error}");
    assert!(reason.starts_with("conf: "), "{error}");
}

/// The promises of a [`ProxyConfig`] to its users.
fn check(config: &ProxyConfig) {
    let pools = &config.core.pools;
    assert!(!pools.is_empty());
    assert_eq!(pools.len(), config.pools.len());
    assert_eq!(unique(pools.iter().map(|pool| &pool.name)), pools.len());
    assert!(pools.is_sorted_by_key(|pool| (pool.name.len(), &pool.name)));
    for (pool, addresses) in pools.iter().zip(&config.pools) {
        let servers = &pool.servers;
        assert!(!pool.name.is_empty());
        assert!(!servers.is_empty());
        assert_eq!(servers.len(), addresses.servers.len());
        assert_eq!(unique(servers.iter().map(|s| &s.name)), servers.len());
        assert!(servers.is_sorted_by_key(|s| (s.name.len(), &s.name)));
        assert!(servers.iter().all(|server| server.weight >= 1));
        assert!(pool.server_connections >= 1);
        assert!(pool.server_failure_limit >= 1);
        assert!(pool.auto_eject_hosts || pool.auto_eject_policy == EjectPolicy::Rehash);
        assert!(pool.protocol == Protocol::Redis || pool.redis_auth.is_none());
    }
}

fn unique<T: Ord>(items: impl Iterator<Item = T>) -> usize {
    items.collect::<BTreeSet<_>>().len()
}

/// Numbers of a file must not decide how much memory a start takes.
fn serve(config: &ProxyConfig) {
    let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
    if servers <= SERVED_MAX {
        let owner = HealthOwner::new(&config.core);
        Engine::new(Arc::new(config.core.clone()), &owner.topologies(), 0).check_invariants();
    }
}

fn check_round_trip(config: &ProxyConfig) {
    let listens: Vec<String> = config.pools.iter().map(listen).collect();
    if unique(listens.iter()) < listens.len() {
        // One address typed in two ways passes, and is refused once both are typed alike.
        return;
    }
    let text = written_out(config);
    match parse("F", text.as_bytes(), &MACHINE) {
        Ok(again) => assert_eq!(&again, config, "{text}"),
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// A file that means this configuration, with every directive in it.
fn written_out(config: &ProxyConfig) -> String {
    let mut text = format!("global:\n  memory_limit: {}\n", config.core.memory_limit);
    for (pool, addresses) in config.core.pools.iter().zip(&config.pools) {
        write_pool(&mut text, pool, addresses).expect("a string takes everything");
    }
    text
}

fn write_pool(text: &mut String, pool: &PoolConfig, addresses: &PoolAddresses) -> fmt::Result {
    // Every field by name: a new directive must be written out, too.
    let PoolConfig {
        name,
        protocol,
        hash,
        hash_tag,
        distribution,
        timeout,
        client_connections,
        redis_auth,
        redis_db,
        preconnect,
        auto_eject_hosts,
        auto_eject_policy,
        client_idle_timeout,
        server_connections,
        server_retry_timeout,
        server_failure_limit,
        request_size_limit,
        client_output_limit,
        allow_flush,
        cross_server_keys,
        servers: _,
    } = pool;
    let PoolAddresses {
        listen: _,
        backlog,
        tcpkeepalive,
        reuseport,
        servers: _,
    } = addresses;
    writeln!(text, "{}:", quoted(name))?;
    let mut line = |name: &str, value: &dyn fmt::Display| writeln!(text, "  {name}: {value}");
    line("listen", &quoted(&listen(addresses)))?;
    line("redis", &(*protocol == Protocol::Redis))?;
    line("hash", &hash.name())?;
    line("distribution", &distribution.name())?;
    line("client_connections", client_connections)?;
    line("redis_db", redis_db)?;
    line("preconnect", preconnect)?;
    line("auto_eject_hosts", auto_eject_hosts)?;
    line("auto_eject_policy", &auto_eject_policy.name())?;
    line("server_connections", server_connections)?;
    line("server_retry_timeout", &(server_retry_timeout.0 / 1000))?;
    line("server_failure_limit", server_failure_limit)?;
    line("request_size_limit", request_size_limit)?;
    line("client_output_limit", client_output_limit)?;
    line("allow_flush", allow_flush)?;
    line("cross_server_keys", &cross_server_keys.name())?;
    line("backlog", backlog)?;
    line("tcpkeepalive", tcpkeepalive)?;
    line("reuseport", reuseport)?;
    let millis = |span: Option<twemproxy_core::time::Span>| span.map_or(0, |span| span.0 / 1000);
    line("timeout", &millis(*timeout))?;
    line("client_idle_timeout", &millis(*client_idle_timeout))?;
    if let Some(tag) = hash_tag {
        line("hash_tag", &quoted(utf8(tag)))?;
    }
    if let Some(password) = redis_auth {
        line("redis_auth", &quoted(utf8(password)))?;
    }
    text.push_str("  servers:\n");
    for (server, address) in pool.servers.iter().zip(&addresses.servers) {
        let place = match address {
            ServerAddress::Tcp { host, port } => format!("{host}:{port}"),
            ServerAddress::Unix(path) => path.display().to_string(),
        };
        let entry = format!("{place}:{} {}", server.weight, server.name);
        writeln!(text, "  - {}", quoted(&entry))?;
    }
    Ok(())
}

/// A mode of 0 leaves a socket to the umask, as none does.
fn listen(addresses: &PoolAddresses) -> String {
    match &addresses.listen {
        Listen::Tcp { host, port, .. } => format!("{host}:{port}"),
        Listen::Unix { path, mode } => format!("{} {:o}", path.display(), mode.unwrap_or(0)),
    }
}

/// The configuration has bytes where a file can only have text.
fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the file was text")
}

/// In double quotes, with nothing in it that YAML could read in any other way.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            ' '..='~' if !matches!(c, '"' | '\\') => quoted.push(c),
            _ => write!(quoted, "\\U{:08x}", u32::from(c)).expect("a string takes everything"),
        }
    }
    quoted.push('"');
    quoted
}
