//! Servers that fail and return, with several workers and real servers.

use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

fn cmd(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out.into_bytes()
}

/// A key that lives on `server`.
fn key_on(server: &Server, client: &mut Wire) -> String {
    let mut direct = server.connect();
    let mut keys = (0..100).map(|i| format!("k{i}"));
    let found = keys.find(|key| {
        client.roundtrip(&cmd(&["SET", key, "x"]), b"+OK\r\n");
        direct.send(&cmd(&["EXISTS", key]));
        direct.read_redis() == b":1\r\n"
    });
    found.expect("each server owns one of a hundred keys")
}

#[test]
fn all_workers_eject_a_server_alike_and_it_returns_for_all() {
    let dir = private_dir();
    let start = |name| Server::start(ServerKind::Redis, dir.path(), name, &[]);
    let (Some(mut dying), Some(other)) = (start("s0"), start("s1")) else {
        return;
    };
    let config = ConfigBuilder::new(dir.path()).pool(
        PoolBuilder::new(POOL, ServerKind::Redis)
            .server_line(&format!("{}:1 s0", dying.socket().display()))
            .server_line(&format!("{}:1 s1", other.socket().display()))
            .set("auto_eject_hosts", "true")
            .set("server_failure_limit", "4")
            .set("server_retry_timeout", "200"),
    );
    let proxy = Proxy::start(BINARY, dir.path(), &config, &["--workers=2"]);
    let mut clients: Vec<_> = (0..4).map(|_| proxy.connect(POOL)).collect();
    let key = key_on(&dying, &mut clients[0]);
    dying.process().kill();

    // No worker sees four failures, all of them together do.
    let get = cmd(&["GET", &key]);
    for client in &mut clients {
        client.send(&get);
        client.read_redis();
    }
    wait_for("the server is ejected", || {
        (proxy.stat(POOL, &["server_ejects"]) == 1).then_some(())
    });
    for client in &mut clients {
        wait_for("the other server has its keys", || {
            client.send(&get);
            (client.read_redis() == b"$-1\r\n").then_some(())
        });
    }
    assert_ne!(proxy.stat(POOL, &["s0", "server_ejected_at"]), 0);

    dying.restart();
    proxy.wait_logged("restored");
    let set = cmd(&["SET", &key, "new"]);
    let mut direct = dying.connect();
    wait_for("the first client's worker has it back", || {
        clients[0].roundtrip(&set, b"+OK\r\n");
        direct.send(&get);
        (direct.read_redis() == b"$3\r\nnew\r\n").then_some(())
    });
    for client in &mut clients {
        wait_for("every worker has it back", || {
            client.send(&get);
            (client.read_redis() == b"$3\r\nnew\r\n").then_some(())
        });
    }
    assert_eq!(proxy.stat(POOL, &["server_ejects"]), 1);
}
