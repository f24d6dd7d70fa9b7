//! The statistics port after known traffic: bytes, names, order, and every number.

use std::collections::BTreeSet;

use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

const POOL_METRICS: [&str; 6] = [
    "client_eof",
    "client_err",
    "client_connections",
    "server_ejects",
    "forward_error",
    "fragments",
];
const SERVER_METRICS: [&str; 13] = [
    "server_eof",
    "server_err",
    "server_timedout",
    "server_connections",
    "server_ejected_at",
    "requests",
    "request_bytes",
    "responses",
    "response_bytes",
    "in_queue",
    "in_queue_bytes",
    "out_queue",
    "out_queue_bytes",
];

/// The answer as it comes; nothing is sent.
fn raw(dir: &std::path::Path) -> String {
    let bytes = Wire::unix(&dir.join("stats.sock"))
        .expect("the statistics listen")
        .read_to_close();
    String::from_utf8(bytes).expect("JSON is text")
}

fn sum(bed: &Bed, metric: &str) -> i64 {
    let servers = bed.servers.iter();
    servers
        .map(|server| bed.proxy.stat(POOL, &[server.name(), metric]))
        .sum()
}

// C45 C46 C47 C135 C136
#[test]
fn one_line_of_json_with_the_names_in_their_order() {
    let dir = private_dir();
    let pool = |name: &str| PoolBuilder::new(name, ServerKind::Redis);
    let config = ConfigBuilder::new(dir.path())
        .pool(
            pool("bb")
                .server_line("127.0.0.1:11212:1")
                .server_line("127.0.0.1:11211:1")
                .server_line("/tmp/x.sock:1")
                .server_line("127.0.0.1:3:1 b")
                .server_line("127.0.0.1:4:1 aa")
                .server_line("127.0.0.1:5:1 c"),
        )
        .pool(pool("c").server_line("127.0.0.1:1:1 \"x\\\""))
        .pool(pool("aa").server_line("127.0.0.1:1:1 z"));
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    for pool in ["aa", "bb", "c"] {
        wait_for("the test's first connection is gone", || {
            (proxy.stat(pool, &["client_eof"]) == 1).then_some(())
        });
    }
    let text = raw(dir.path());
    assert!(
        text.starts_with("{\"service\":\"nutcracker\", \"source\":\""),
        "{text}"
    );
    assert!(
        text.contains(", \"version\":\"0.5.0\", \"uptime\":"),
        "{text}"
    );
    assert!(
        text.ends_with("}}}\n") && text.matches('\n').count() == 1,
        "{text}"
    );
    let object = |name: &str, metrics: &[&str], rest: &str| {
        let numbers: Vec<String> = metrics.iter().map(|m| format!("\"{m}\":0")).collect();
        format!("\"{name}\": {{{}{rest}", numbers.join(", "))
    };
    let server = |name: &str| object(name, &SERVER_METRICS, "}");
    let pool = |name: &str, servers: &[&str]| {
        let servers: Vec<String> = servers.iter().map(|name| server(name)).collect();
        let rest = format!(", {}}}", servers.join(","));
        object(name, &POOL_METRICS, &rest)
    };
    let wanted = [
        pool("c", &["\\\"x\\\\\\\""]),
        pool("aa", &["z"]),
        pool(
            "bb",
            &[
                "b",
                "c",
                "aa",
                "127.0.0.1",
                "/tmp/x.sock:",
                "127.0.0.1:11212",
            ],
        ),
    ];
    let shown = text.replace("\"client_eof\":1", "\"client_eof\":0");
    let from = shown.find("\"c\": {").expect("the shortest name is first");
    assert_eq!(shown[from..], format!("{}}}\n", wanted.join(",")));
}

// C137 D23
#[test]
fn requests_and_fragments_are_counted_exactly() {
    // Ten such keys are on both servers with this hash.
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Redis, 2, |pool| pool.set("hash", "md5"))
    else {
        return;
    };
    let mut client = bed.client();
    let keys: Vec<String> = (0..10).map(|i| format!("key-{i}")).collect();
    let (mut sent, mut got) = (0, 0);
    for key in &keys {
        for (words, reply) in [
            (&["SET", key, "v"][..], "+OK\r\n"),
            (&["GET", key], "$1\r\nv\r\n"),
        ] {
            let request = array_of(words);
            client.roundtrip(&request, reply.as_bytes());
            sent += request.len();
            got += reply.len();
        }
    }
    assert_eq!((sum(&bed, "requests"), sum(&bed, "responses")), (20, 20));
    assert_eq!(
        sum(&bed, "request_bytes"),
        i64::try_from(sent).expect("small")
    );
    assert_eq!(
        sum(&bed, "response_bytes"),
        i64::try_from(got).expect("small")
    );
    assert_eq!(bed.proxy.stat(POOL, &["fragments"]), 0);
    let words: Vec<&str> = ["MGET"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    let reply = format!("*10\r\n{}", "$1\r\nv\r\n".repeat(10));
    client.roundtrip(&array_of(&words), reply.as_bytes());
    assert_eq!((sum(&bed, "requests"), sum(&bed, "responses")), (22, 22));
    assert_eq!(bed.proxy.stat(POOL, &["fragments"]), 2);
}

// C138
#[test]
fn connections_are_counted_up_and_down() {
    let Some(bed) = Bed::start(BINARY, ServerKind::Redis, 1) else {
        return;
    };
    let top = |name: &str| bed.proxy.stats()[name].as_i64().expect("a number");
    wait_for("the test's first connection is gone", || {
        (bed.proxy.stat(POOL, &["client_eof"]) == 1).then_some(())
    });
    let (total, listeners) = (top("total_connections"), top("curr_connections"));
    let eof = bed.proxy.stat(POOL, &["client_eof"]);
    assert!(listeners >= 1, "the pool's listener");
    let mut clients: Vec<Wire> = (0..5).map(|_| bed.client()).collect();
    for client in &mut clients {
        client.roundtrip(&array_of(&["GET", "a"]), b"$-1\r\n");
    }
    assert_eq!(bed.proxy.stat(POOL, &["client_connections"]), 5);
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_connections"]), 1);
    assert_eq!(top("curr_connections"), listeners + 6);
    assert_eq!(top("total_connections"), total + 6);
    drop(clients);
    wait_for("they are gone", || {
        (bed.proxy.stat(POOL, &["client_connections"]) == 0).then_some(())
    });
    assert_eq!(bed.proxy.stat(POOL, &["client_eof"]), eof + 5);
    assert_eq!(bed.proxy.stat(POOL, &["client_err"]), 0);
    assert_eq!(top("curr_connections"), listeners + 1);
    assert_eq!(top("total_connections"), total + 6);
}

// C140 D23
#[test]
fn queues_are_full_while_a_server_stalls_and_empty_afterwards() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Redis, 1) else {
        return;
    };
    let mut client = bed.client();
    let request = array_of(&["GET", "a"]);
    client.roundtrip(&request, b"$-1\r\n");
    bed.servers[0].process().pause();
    client.send(&request.repeat(3));
    wait_for("three wait", || {
        (bed.proxy.stat(POOL, &["s0", "out_queue"]) == 3).then_some(())
    });
    let bytes = i64::try_from(3 * request.len()).expect("small");
    assert_eq!(bed.proxy.stat(POOL, &["s0", "out_queue_bytes"]), bytes);
    bed.servers[0].process().resume();
    client.expect(&b"$-1\r\n".repeat(3));
    for gauge in ["in_queue", "in_queue_bytes", "out_queue", "out_queue_bytes"] {
        assert_eq!(bed.proxy.stat(POOL, &["s0", gauge]), 0, "{gauge}");
    }
}

// C142 C143 D23
#[test]
fn every_number_is_fresh_and_none_is_negative_whatever_happened() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Redis, 2) else {
        return;
    };
    for round in 1..=20 {
        let mut client = bed.client();
        client.roundtrip(&array_of(&["MSET", "a", "1", "b", "2"]), b"+OK\r\n");
        client.send(&array_of(&["GET", &format!("key-{round}")]).repeat(10));
        // Fresh: asked once, right away.
        assert!(bed.proxy.stat(POOL, &["client_connections"]) >= 1);
        drop(client);
        if round % 5 == 0 {
            bed.servers[0].restart();
        }
        // What happened last may have been the loss of a server.
        let mut probe = bed.client();
        wait_for("the servers answer again", || {
            probe.send(&array_of(&["MSET", "a", "1", "b", "2", "c", "3", "d", "4"]));
            (probe.read_redis() == b"+OK\r\n").then_some(())
        });
        let stats = bed.proxy.stats();
        let mut numbers = Vec::new();
        collect(&stats, &mut numbers);
        assert!(numbers.iter().all(|number| *number >= 0), "{stats}");
    }
    wait_for("the clients are gone", || {
        (bed.proxy.stat(POOL, &["client_connections"]) == 0).then_some(())
    });
    for gauge in ["in_queue", "in_queue_bytes", "out_queue", "out_queue_bytes"] {
        wait_for("nothing is left over", || {
            (sum(&bed, gauge) == 0).then_some(())
        });
    }
    assert!(sum(&bed, "server_connections") <= 2);
}

fn collect(value: &serde_json::Value, numbers: &mut Vec<i64>) {
    if let Some(object) = value.as_object() {
        for value in object.values() {
            collect(value, numbers);
        }
    } else if let Some(number) = value.as_i64() {
        numbers.push(number);
    }
}

// C144
#[test]
fn what_the_proxy_answers_itself_changes_no_number_of_a_server() {
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Redis, 1, |pool| {
        pool.set("redis_auth", "secret")
    }) else {
        return;
    };
    let mut client = bed.client();
    client.roundtrip(
        &array_of(&["GET", "a"]),
        b"-NOAUTH Authentication required.\r\n",
    );
    client.roundtrip(&array_of(&["AUTH", "secret"]), b"+OK\r\n");
    client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    let names: BTreeSet<&str> = SERVER_METRICS.into_iter().collect();
    for metric in names {
        assert_eq!(bed.proxy.stat(POOL, &["s0", metric]), 0, "{metric}");
    }
    assert_eq!(bed.proxy.stat(POOL, &["forward_error"]), 0);
}

// C60
#[test]
fn one_server_tells_every_client_its_version() {
    let Some(bed) = Bed::start(BINARY, ServerKind::Memcached, 4) else {
        return;
    };
    for _ in 0..5 {
        let (mut client, mut direct) = (bed.client(), bed.direct.connect());
        client.send(b"version\r\n");
        direct.send(b"version\r\n");
        assert_eq!(client.read_memcache(), direct.read_memcache());
    }
    let asked: Vec<i64> = bed
        .servers
        .iter()
        .map(|server| bed.proxy.stat(POOL, &[server.name(), "requests"]))
        .collect();
    assert_eq!(asked.iter().sum::<i64>(), 5);
    assert_eq!(asked.iter().max(), Some(&5), "{asked:?}");
}

// C55 D35
#[test]
fn random_sends_each_server_one_fragment_at_most() {
    const ROUNDS: i64 = 50;
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Redis, 2, |pool| {
        pool.set("distribution", "random")
    }) else {
        return;
    };
    let mut client = bed.client();
    let keys: Vec<String> = (0..60).map(|i| format!("key-{i}")).collect();
    let words: Vec<&str> = ["MGET"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    let reply = format!("*60\r\n{}", "$-1\r\n".repeat(60));
    for _ in 0..ROUNDS {
        client.roundtrip(&array_of(&words), reply.as_bytes());
    }
    // A second draw per fragment would send both to one server every other time.
    for server in ["s0", "s1"] {
        assert_eq!(bed.proxy.stat(POOL, &[server, "requests"]), ROUNDS);
    }
}
