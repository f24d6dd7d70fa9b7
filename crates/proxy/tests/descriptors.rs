//! A proxy that may open few files: clients wait, and servers are never the ones that suffer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

const LIMIT: u32 = 64;
/// Half of the limit: two servers, a listener and the process itself would have 37 kept for them.
const SERVED_AT_ONCE: i64 = 32;

/// A program that runs the proxy with few descriptors.
fn with_descriptors(dir: &Path) -> String {
    let script = dir.join("few-descriptors");
    let text = format!("#!/bin/sh\nulimit -n {LIMIT}\nexec {BINARY} \"$@\"\n");
    fs::write(&script, text).expect("the directory is ours");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    script.display().to_string()
}

/// A request for a key of the client's own, and its answer.
fn question(kind: ServerKind, n: usize) -> (Vec<u8>, &'static [u8]) {
    if kind == ServerKind::Memcached {
        let request = format!("set k{n} 0 0 1\r\nv\r\n");
        return (request.into_bytes(), b"STORED\r\n");
    }
    (array_of(&["SET", &format!("k{n}"), "v"]), b"+OK\r\n")
}

fn three_hundred_clients(kind: ServerKind) {
    const CLIENTS: usize = 300;
    let dir = private_dir();
    let start = |name| Server::start(kind, dir.path(), name, &[]);
    let (Some(one), Some(two)) = (start("s0"), start("s1")) else {
        return;
    };
    let servers = [one, two];
    let config = ConfigBuilder::new(dir.path()).pool(
        PoolBuilder::new(POOL, kind)
            .servers(&servers)
            .set("auto_eject_hosts", "true")
            .set("server_failure_limit", "1")
            .set("server_retry_timeout", "100"),
    );
    let binary = with_descriptors(dir.path());
    let proxy = Proxy::start(&binary, dir.path(), &config, &[]);
    let began = Instant::now();
    // No server is connected to yet.
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| proxy.connect(POOL)).collect();
    wait_for("as many clients as there may be", || {
        (proxy.stat(POOL, &["client_connections"]) == SERVED_AT_ONCE).then_some(())
    });
    let served = usize::try_from(SERVED_AT_ONCE).expect("it is positive");
    for round in 0..3 {
        for (n, client) in clients.iter_mut().take(served).enumerate() {
            let (request, answer) = question(kind, n * 3 + round);
            client.roundtrip(&request, answer);
        }
    }
    // Each that leaves makes room for one that waits.
    for (n, mut client) in clients.drain(..).enumerate() {
        let (request, answer) = question(kind, n);
        client.roundtrip(&request, answer);
    }
    let pool = &proxy.stats()[POOL];
    assert_eq!(pool["server_ejects"], 0);
    assert_eq!(pool["forward_error"], 0);
    for server in ["s0", "s1"] {
        let of_server = &pool[server];
        assert_eq!(of_server["server_err"], 0, "{server}");
        assert_eq!(of_server["server_connections"], 1, "{server}");
    }
    let lines = proxy.log().matches("accept on p ").count();
    let most = usize::try_from(began.elapsed().as_secs()).expect("it is short") + 1;
    assert!((1..=most).contains(&lines), "{lines} lines in {most} s");
    let told = format!("{SERVED_AT_ONCE} clients have all descriptors but the reserve");
    assert!(proxy.log().contains(&told));
}

// D60
#[test]
fn redis_clients_beyond_the_descriptors_wait_and_no_server_is_ejected() {
    three_hundred_clients(ServerKind::Redis);
}

// D60
#[test]
fn memcached_clients_beyond_the_descriptors_wait_and_no_server_is_ejected() {
    three_hundred_clients(ServerKind::Memcached);
}

#[test]
fn more_clients_than_descriptors_wait_and_are_served_later() {
    const CLIENTS: usize = 120;
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Redis, dir.path(), "s0", &[]) else {
        return;
    };
    let servers = [server];
    let pool = PoolBuilder::new(POOL, ServerKind::Redis)
        .set("preconnect", "true")
        .servers(&servers);
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let binary = with_descriptors(dir.path());
    let proxy = Proxy::start(&binary, dir.path(), &config, &[]);
    let mut first = proxy.connect(POOL);
    first.roundtrip(&array_of(&["SET", "k", "v"]), b"+OK\r\n");
    let mut waiting: Vec<Wire> = (0..CLIENTS).map(|_| proxy.connect(POOL)).collect();
    for wire in &mut waiting {
        wire.send(&array_of(&["GET", "k"]));
    }
    // The descriptors are all taken now; those inside are served none the less.
    for _ in 0..100 {
        first.roundtrip(&array_of(&["GET", "k"]), b"$1\r\nv\r\n");
    }
    // Each that leaves makes room for one that waits.
    for mut wire in waiting {
        wire.expect(b"$1\r\nv\r\n");
    }
}
