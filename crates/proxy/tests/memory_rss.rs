//! Resident memory of the real binary, whatever clients do: it stays within
//! `memory_limit` and a quarter, and what the process takes beside its buffers.

use std::io::Write;
use std::time::Duration;

use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::{array_of, bulk};
use twemproxy_testkit::wire::{DEADLINE, Wire};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const MIB: usize = 1024 * 1024;
/// The limit of all proxies here.
const MEMORY_LIMIT: usize = 48 * MIB;
const RESIDENT_MAX_KIB: u64 = (48 + 48 / 4 + 64) * 1024;

/// A proxy with little memory before `count` servers; `None` if there is no such server here.
fn with_servers(
    kind: ServerKind,
    count: usize,
    dir: &std::path::Path,
) -> Option<(Vec<Server>, Proxy)> {
    let names = (0..count).map(|index| format!("s{index}"));
    let servers: Option<Vec<_>> = names
        .map(|name| Server::start(kind, dir, &name, &[]))
        .collect();
    let servers = servers?;
    let proxy = proxy(&servers, kind, dir, MEMORY_LIMIT);
    Some((servers, proxy))
}

fn proxy(
    servers: &[Server],
    kind: ServerKind,
    dir: &std::path::Path,
    memory_limit: usize,
) -> Proxy {
    let config = ConfigBuilder::new(dir)
        .set("memory_limit", &memory_limit.to_string())
        .pool(PoolBuilder::new(POOL, kind).servers(servers));
    Proxy::start(BINARY, dir, &config, &[])
}

fn check(proxy: &Proxy) {
    let resident = proxy.resident_kib();
    assert!(resident <= RESIDENT_MAX_KIB, "{resident} KiB are resident");
}

// D17
#[test]
fn many_half_requests_take_what_was_sent_of_them() {
    let dir = private_dir();
    let Some((_servers, proxy)) = with_servers(ServerKind::Redis, 1, dir.path()) else {
        return;
    };
    let mut half = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n".to_vec();
    half.resize(8_500, b'v');
    let mut clients: Vec<Wire> = (0..900).map(|_| proxy.connect(POOL)).collect();
    for client in &mut clients {
        client.send(&half);
    }
    // One more byte makes each buffer grow.
    for client in &mut clients {
        client.send(b"v");
    }
    let mut other = proxy.connect(POOL);
    other.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    check(&proxy);
}

// D55
#[test]
fn long_client_names_are_refused() {
    let dir = private_dir();
    let Some((_servers, proxy)) = with_servers(ServerKind::Redis, 1, dir.path()) else {
        return;
    };
    let name = "n".repeat(4 * MIB);
    let request = array_of(&["CLIENT", "SETNAME", &name]);
    let mut clients: Vec<Wire> = (0..40).map(|_| proxy.connect(POOL)).collect();
    for client in &mut clients {
        client.send(&request);
        client.expect(b"-ERR Client names cannot be longer than 1024 bytes.\r\n");
    }
    check(&proxy);
}

// D55
#[test]
fn a_get_of_millions_of_keys_is_refused() {
    let dir = private_dir();
    let Some((_servers, proxy)) = with_servers(ServerKind::Memcached, 2, dir.path()) else {
        return;
    };
    let mut line = b"get".to_vec();
    line.extend(b" k".repeat(10_000_000));
    line.extend(b"\r\n");
    let mut client = proxy.connect(POOL);
    client.send(&line);
    client.expect(b"CLIENT_ERROR line too long\r\n");
    client.roundtrip(b"get a b\r\n", b"END\r\n");
    check(&proxy);
}

// D79
#[test]
fn a_merged_reply_that_does_not_fit_is_refused() {
    let dir = private_dir();
    let Some((_servers, proxy)) = with_servers(ServerKind::Redis, 2, dir.path()) else {
        return;
    };
    let value = "v".repeat(MIB);
    let keys: Vec<String> = (0..30).map(|n| format!("{n}-of-many-keys")).collect();
    let mut client = proxy.connect(POOL);
    for key in &keys {
        client.roundtrip(&array_of(&["SET", key, &value]), b"+OK\r\n");
    }
    let mget = |count: usize| {
        let keys = keys[..count].iter().map(String::as_str);
        let words: Vec<&str> = std::iter::once("MGET").chain(keys).collect();
        array_of(&words)
    };
    client.send(&mget(10));
    let mut expected = b"*10\r\n".to_vec();
    expected.extend(bulk(value.as_bytes()).repeat(10));
    client.expect(&expected);
    client.send(&mget(30));
    client.expect_close();
    check(&proxy);
    proxy.wait_logged("its reply does not fit into memory_limit");
}

// D54
#[test]
fn a_client_that_never_reads_is_told_in_the_log_and_closed() {
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Redis, dir.path(), "s0", &[]) else {
        return;
    };
    let servers = [server];
    let proxy = proxy(&servers, ServerKind::Redis, dir.path(), 8 * MIB);
    let value = "v".repeat(10_000);
    let mut other = proxy.connect(POOL);
    other.roundtrip(&array_of(&["SET", "v", &value]), b"+OK\r\n");
    let mut greedy = std::os::unix::net::UnixStream::connect(proxy.socket(POOL)).unwrap();
    greedy.set_write_timeout(Some(DEADLINE)).unwrap();
    let pipeline = array_of(&["GET", "v"]).repeat(50_000);
    // It blocks as soon as nobody reads it, until it is closed.
    std::thread::scope(|scope| {
        let writes = scope.spawn(move || greedy.write_all(&pipeline));
        wait_for("it is closed", || {
            other.roundtrip(&array_of(&["STRLEN", "v"]), b":10000\r\n");
            check(&proxy);
            std::thread::park_timeout(Duration::from_millis(5));
            let log = proxy.log();
            log.contains("it held memory that others waited for")
                .then_some(())
        });
        assert!(writes.join().unwrap().is_err());
    });
}

// D54
#[test]
fn a_pipeline_that_is_written_whole_before_anything_is_read_is_served() {
    const COUNT: usize = 20_000;
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Redis, dir.path(), "s0", &[]) else {
        return;
    };
    let servers = [server];
    let config = ConfigBuilder::new(dir.path())
        .pool(PoolBuilder::new(POOL, ServerKind::Redis).servers(&servers));
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let value = "v".repeat(1_000);
    let mut pair = array_of(&["SET", "k", &value]);
    pair.extend(array_of(&["GET", "k"]));
    let mut client = proxy.connect(POOL);
    client.send(&pair.repeat(COUNT));
    let mut expected = b"+OK\r\n".to_vec();
    expected.extend(bulk(value.as_bytes()));
    client.expect(&expected.repeat(COUNT));
}
