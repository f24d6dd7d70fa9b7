//! Real servers that have too many clients: they take a connection, say one error and close.

use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

/// The option that fills a server, a request of each protocol, its success, and the server's refusal.
struct Words {
    kind: ServerKind,
    limit: [&'static str; 2],
    clients: usize,
    question: &'static [u8],
    refusal: &'static [u8],
}

const REDIS: Words = Words {
    kind: ServerKind::Redis,
    limit: ["--maxclients", "2"],
    clients: 2,
    question: b"PING\r\n",
    refusal: b"-ERR max number of clients reached\r\n",
};

const MEMCACHED: Words = Words {
    kind: ServerKind::Memcached,
    limit: ["-c", "30"],
    clients: 30,
    question: b"version\r\n",
    refusal: b"ERROR Too many open connections\r\n",
};

impl Words {
    fn set(&self, key: &str) -> (Vec<u8>, &'static [u8]) {
        if self.kind == ServerKind::Memcached {
            (
                format!("set {key} 0 0 1\r\nv\r\n").into_bytes(),
                b"STORED\r\n",
            )
        } else {
            (format!("SET {key} v\r\n").into_bytes(), b"+OK\r\n")
        }
    }

    fn read(&self, wire: &mut Wire) -> Vec<u8> {
        if self.kind == ServerKind::Memcached {
            wire.read_memcache()
        } else {
            wire.read_redis()
        }
    }

    /// Connections that fill the server: the next one is refused.
    fn fill(&self, server: &Server) -> Vec<Wire> {
        let mut held = Vec::new();
        wait_for("the server is full", || {
            let mut wire = server.connect();
            wire.send_what_it_takes(self.question);
            if self.read(&mut wire) == self.refusal {
                return (!held.is_empty()).then_some(());
            }
            held.push(wire);
            assert!(held.len() <= self.clients, "the server has a limit");
            None
        });
        held
    }
}

/// Clients see refusals until the limit is reached, and the server stays away until it has room.
fn eject_and_restore(words: &Words, limit: usize) {
    let dir = private_dir();
    let start = |name, args: &[&str]| Server::start(words.kind, dir.path(), name, args);
    let (Some(full), Some(other)) = (start("s0", &words.limit), start("s1", &[])) else {
        return;
    };
    let held = words.fill(&full);
    let servers = [full, other];
    let config = ConfigBuilder::new(dir.path()).pool(
        PoolBuilder::new(POOL, words.kind)
            .servers(&servers)
            .set("auto_eject_hosts", "true")
            .set("server_failure_limit", &limit.to_string())
            .set("server_retry_timeout", "100"),
    );
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let mut client = proxy.connect(POOL);
    let mut ask = |n: usize| {
        let (request, stored) = words.set(&format!("k{n}"));
        client.send(&request);
        let response = words.read(&mut client);
        // A request that was sent between the refusal and the close gets the proxy's own words.
        let own = b"Server refused the connection\r\n";
        let is_refused = response == words.refusal || response.ends_with(own);
        assert!(is_refused || response == stored, "{response:?}");
        is_refused
    };
    let refused = (0..500).filter(|&n| ask(n)).count();
    assert!((limit..=2 * limit).contains(&refused), "{refused} errors");
    let refusals = |proxy: &Proxy| proxy.log().matches("refused a new connection").count();
    proxy.wait_logged("ejected");
    let log = proxy.log();
    let before = log.split("ejected").next().expect("a text has a beginning");
    let counted = before.matches("refused a new connection").count();
    assert_eq!(counted, limit, "each refusal is one failure");
    wait_for("probes are refused, too", || {
        (refusals(&proxy) > limit + 2).then_some(())
    });
    assert!(!proxy.log().contains("restored"), "a refusal is no answer");
    assert!(!proxy.log().contains("AUTH"), "the pool has no password");
    assert_eq!((0..500).filter(|&n| ask(n)).count(), 0);
    assert_eq!(proxy.stat(POOL, &["server_ejects"]), 1);
    wait_for("the connections counted are those that are open", || {
        let stats = proxy.stats();
        let of_pool = |path: &[&str]| proxy.stat(POOL, path);
        let open = of_pool(&["client_connections"])
            + of_pool(&["s0", "server_connections"])
            + of_pool(&["s1", "server_connections"]);
        let listeners = 1;
        (stats["curr_connections"].as_i64() == Some(listeners + open)).then_some(())
    });

    drop(held);
    proxy.wait_logged("restored");
    assert_eq!((0..500).filter(|&n| ask(n)).count(), 0);
}

// D59
#[test]
fn a_redis_with_too_many_clients_is_ejected_and_returns_when_it_has_room() {
    for limit in [1, 3] {
        eject_and_restore(&REDIS, limit);
    }
}

// D59
#[test]
fn a_memcached_with_too_many_connections_is_ejected_and_returns_when_it_has_room() {
    for limit in [1, 3] {
        eject_and_restore(&MEMCACHED, limit);
    }
}
