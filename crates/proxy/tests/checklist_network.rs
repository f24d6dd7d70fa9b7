//! Where the proxy listens and connects: unix sockets and their modes, IPv6, shared ports, options,
//! limits, and what exactly reaches a server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, free_address, private_dir,
    wait_for,
};
use twemproxy_testkit::model::redis::{array_of, bulk};
use twemproxy_testkit::transcripts::filler;
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

fn lonely(name: &str) -> PoolBuilder {
    PoolBuilder::new(name, ServerKind::Redis).server_line("/nowhere/at/all:1 s0")
}

fn ping(address: SocketAddr) {
    let mut client = wait_for("the pool listens", || Wire::tcp(address).ok());
    client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
}

// C42 C145
#[test]
fn pools_of_both_protocols_work_in_one_process_on_unix_sockets() {
    let dir = private_dir();
    let start = |kind, name| Server::start(kind, dir.path(), name, &[]);
    let (Some(redis), Some(memcached)) = (
        start(ServerKind::Redis, "redis"),
        start(ServerKind::Memcached, "memcached"),
    ) else {
        return;
    };
    let pool = |name: &str, kind, server: &Server| {
        // One without a name.
        PoolBuilder::new(name, kind).server_line(&format!("{}:1", server.socket().display()))
    };
    let config = ConfigBuilder::new(dir.path())
        .pool(pool("red", ServerKind::Redis, &redis))
        .pool(pool("mem", ServerKind::Memcached, &memcached));
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let (mut red, mut mem) = (proxy.connect("red"), proxy.connect("mem"));
    red.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    mem.roundtrip(b"set a 0 0 1\r\n2\r\n", b"STORED\r\n");
    red.roundtrip(&array_of(&["GET", "a"]), b"$1\r\n1\r\n");
    mem.roundtrip(b"get a\r\n", b"VALUE a 0 1\r\n2\r\nEND\r\n");
    let name = format!("{}:", redis.socket().display());
    assert_eq!(proxy.stat("red", &[&name, "requests"]), 2);
}

/// A TCP server that answers `+OK` to whatever comes.
fn agreeable(listener: TcpListener) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut space = [0; 4096];
                while let Ok(1..) = stream.read(&mut space) {
                    if stream.write_all(b"+OK\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
}

// C44
#[test]
fn ipv6_addresses_work_on_both_sides() {
    let Ok(listener) = TcpListener::bind(("::1", 0)) else {
        eprintln!("skipped: no IPv6 on the loopback interface");
        return;
    };
    let server = listener.local_addr().unwrap();
    agreeable(listener);
    let free = TcpListener::bind(("::1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let dir = private_dir();
    let pool = PoolBuilder::new(POOL, ServerKind::Redis)
        .listen(&format!("::1:{}", address.port()))
        .server_line(&format!("::1:{}:1", server.port()));
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let mut client = Wire::tcp(address).unwrap();
    client.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    let name = format!("::1:{}", server.port());
    assert_eq!(proxy.stat(POOL, &[&name, "requests"]), 1);
}

// C134
#[test]
fn two_processes_share_a_port_with_reuseport() {
    let address = free_address();
    let start = || {
        let dir = private_dir();
        let pool = lonely(POOL)
            .listen(&address.to_string())
            .set("reuseport", "true");
        let config = ConfigBuilder::new(dir.path()).pool(pool);
        let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
        (proxy, dir)
    };
    let (mut first, _first_dir) = start();
    ping(address);
    let (_second, _second_dir) = start();
    ping(address);
    assert_eq!(first.stop().code(), Some(0));
    ping(address);
}

// C43 C132 D16
#[test]
fn one_client_too_many_is_told_so_and_closed() {
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Redis, 1, |pool| {
        pool.set("client_connections", "2")
    }) else {
        return;
    };
    wait_for("the test's first connection is gone", || {
        (bed.proxy.stat(POOL, &["client_eof"]) == 1).then_some(())
    });
    let told =
        "client_connections of pool 'alpha' is in force, unlike in nutcracker 0.5: 2 clients\n";
    bed.proxy.wait_logged(told);
    let mut clients: Vec<Wire> = (0..2).map(|_| bed.client()).collect();
    for client in &mut clients {
        client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    }
    let mut third = bed.client();
    third.expect(b"-ERR max number of clients reached\r\n");
    third.expect_close();
    clients.pop();
    wait_for("a place is free", || {
        (bed.proxy.stat(POOL, &["client_connections"]) == 1).then_some(())
    });
    bed.client().roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
}

// C132 D16
#[test]
fn the_limit_of_clients_is_one_for_all_workers() {
    let dir = private_dir();
    let pool = lonely(POOL).set("client_connections", "3");
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let proxy = Proxy::start(BINARY, dir.path(), &config, &["--workers=4"]);
    wait_for("the test's first connection is gone", || {
        (proxy.stat(POOL, &["client_eof"]) == 1).then_some(())
    });
    let mut clients: Vec<Wire> = (0..3).map(|_| proxy.connect(POOL)).collect();
    for client in &mut clients {
        client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    }
    for _ in 0..8 {
        let mut surplus = proxy.connect(POOL);
        surplus.expect(b"-ERR max number of clients reached\r\n");
        surplus.expect_close();
    }
}

#[test]
fn a_client_has_an_id_that_no_other_worker_gives() {
    let dir = private_dir();
    let config = ConfigBuilder::new(dir.path()).pool(lonely(POOL));
    let proxy = Proxy::start(BINARY, dir.path(), &config, &["--workers=3"]);
    let mut clients: Vec<Wire> = (0..12).map(|_| proxy.connect(POOL)).collect();
    let ids: BTreeSet<Vec<u8>> = clients
        .iter_mut()
        .map(|client| {
            client.send(&array_of(&["CLIENT", "ID"]));
            client.read_redis()
        })
        .collect();
    assert_eq!(ids.len(), clients.len(), "{ids:?}");
}

// C132 D16
#[test]
fn the_limit_of_descriptors_is_raised() {
    let dir = private_dir();
    let config = ConfigBuilder::new(dir.path()).pool(lonely(POOL));
    let mut proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.process().pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
}

// D34
#[test]
fn buffer_size_and_interval_change_nothing() {
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Redis, dir.path(), "s0", &[]) else {
        return;
    };
    let pool = PoolBuilder::new(POOL, ServerKind::Redis).servers(std::slice::from_ref(&server));
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let args = ["-m", "512", "-i", "2147483647"];
    let proxy = Proxy::start(BINARY, dir.path(), &config, &args);
    let mut client = proxy.connect(POOL);
    let (key, value) = (filler(5000), filler(3 << 20));
    client.roundtrip(&array_of(&[b"SET", &key[..], &value]), b"+OK\r\n");
    client.roundtrip(&array_of(&[b"GET", &key[..]]), &bulk(&value));
    // No interval has passed.
    assert_eq!(proxy.stat(POOL, &["s0", "requests"]), 2);
}

// C71
#[test]
fn a_multi_get_reaches_each_server_with_a_blank_at_its_end() {
    let dir = private_dir();
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let mut pool = PoolBuilder::new(POOL, ServerKind::Memcached).set("hash", "md5");
    for name in ["a", "b"] {
        let path = dir.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let kept = Arc::clone(&kept);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut space = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut space) {
                    kept.lock().unwrap().extend_from_slice(&space[..len]);
                    stream.write_all(b"END\r\n").unwrap();
                }
            }
        });
        pool = pool.server_line(&format!("{}:1 {name}", path.display()));
    }
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let keys: Vec<String> = (0..20).map(|i| format!("key-{i}")).collect();
    let mut client = proxy.connect(POOL);
    client.roundtrip(
        format!("gets {}\r\n", keys.join(" ")).as_bytes(),
        b"END\r\n",
    );
    let lines = String::from_utf8(kept.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = lines.split_inclusive("\r\n").collect();
    assert_eq!(lines.len(), 2, "one for each server: {lines:?}");
    let mut asked: Vec<&str> = Vec::new();
    for line in lines {
        let words = line
            .strip_prefix("gets ")
            .unwrap()
            .strip_suffix(" \r\n")
            .unwrap();
        let words: Vec<&str> = words.split(' ').collect();
        let in_order = keys.iter().filter(|key| words.contains(&key.as_str()));
        assert!(in_order.eq(&words), "{line}");
        asked.extend(words);
    }
    assert_eq!(asked.len(), keys.len());
}
