//! What the real binary takes of the machine's memory, whatever clients do: resident memory stays within
//! `memory_limit` and a quarter, and what the process takes beside its buffers.

use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, private_dir,
};
use twemproxy_testkit::model::redis::{array_of, bulk};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const MIB: usize = 1024 * 1024;
/// Of all proxies here.
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
