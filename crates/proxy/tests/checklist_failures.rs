//! What clients get, and what is counted, when servers fail: real servers that are killed, stopped
//! and brought back, and sockets that say what a real server rarely says.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::DEADLINE;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
const REFUSED: &[u8] = b"-ERR Connection refused\r\n";

/// A proxy whose pool has this server line only.
fn in_front_of(dir: &Path, kind: ServerKind, line: &str) -> Proxy {
    let pool = PoolBuilder::new(POOL, kind).server_line(line);
    Proxy::start(BINARY, dir, &ConfigBuilder::new(dir).pool(pool), &[])
}

/// Serves connections one after the other; how many there were.
fn serve(path: &Path, attend: impl Fn(UnixStream) + Send + 'static) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(path).expect("the test's directory is writable");
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            attend(stream);
        }
    });
    accepted
}

/// Answers each piece it receives with `reply`.
fn says(reply: &'static [u8]) -> impl Fn(UnixStream) + Send + 'static {
    move |mut stream| {
        let mut space = [0; 4096];
        while let Ok(1..) = stream.read(&mut space) {
            if stream.write_all(reply).is_err() {
                return;
            }
        }
    }
}

// C107 C108 C127 C139
#[test]
fn a_killed_redis_is_refused_until_it_is_back() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Redis, 1) else {
        return;
    };
    let mut client = bed.client();
    client.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    bed.servers[0].process().kill();
    wait_for("the end is noticed", || {
        (bed.proxy.stat(POOL, &["s0", "server_eof"]) == 1).then_some(())
    });
    for _ in 0..3 {
        client.roundtrip(GET, REFUSED);
    }
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_err"]), 3, "each tried");
    assert_eq!(bed.proxy.stat(POOL, &["forward_error"]), 3);
    assert_eq!(bed.proxy.stat(POOL, &["server_ejects"]), 0);
    bed.servers[0].restart();
    client.roundtrip(GET, b"$-1\r\n");
}

// C107 C108
#[test]
fn a_killed_memcached_is_refused_until_it_is_back() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Memcached, 1) else {
        return;
    };
    let mut client = bed.client();
    client.roundtrip(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
    bed.servers[0].process().kill();
    wait_for("the end is noticed", || {
        (bed.proxy.stat(POOL, &["s0", "server_eof"]) == 1).then_some(())
    });
    client.roundtrip(b"get a\r\n", b"SERVER_ERROR Connection refused\r\n");
    bed.servers[0].restart();
    client.roundtrip(b"get a\r\n", b"END\r\n");
}

// C109 C139 D10
#[test]
fn a_stopped_server_times_out_and_its_late_replies_reach_nobody() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let Some(mut bed) = Bed::start_with(BINARY, ServerKind::Redis, 1, |pool| {
        pool.set("timeout", "300")
    }) else {
        return;
    };
    let mut client = bed.client();
    client.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    bed.servers[0].process().pause();
    let begin = Instant::now();
    client.roundtrip(GET, b"-ERR Connection timed out\r\n");
    let waited = begin.elapsed();
    assert!(waited >= TIMEOUT && waited < DEADLINE / 2, "{waited:?}");
    // One further time-out of silence ends the connection: one episode.
    wait_for("the episode is counted", || {
        (bed.proxy.stat(POOL, &["s0", "server_timedout"]) == 1).then_some(())
    });
    bed.servers[0].process().resume();
    client.roundtrip(&array_of(&["SET", "a", "2"]), b"+OK\r\n");
    client.roundtrip(GET, b"$1\r\n2\r\n");
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_timedout"]), 1);
}

// C111 D14
#[test]
fn a_server_that_closes_in_the_middle_is_told_as_such() {
    for (kind, request, reply) in [
        (
            ServerKind::Redis,
            GET,
            "-ERR Server closed the connection\r\n",
        ),
        (
            ServerKind::Memcached,
            b"incr a 1\r\n",
            "SERVER_ERROR Server closed the connection\r\n",
        ),
    ] {
        let dir = private_dir();
        let path = dir.path().join("closing.sock");
        let write = array_of(&["INCR", "a"]);
        serve(&path, |mut stream| {
            // The first piece is read, so that the close is no reset.
            let _ = stream.read(&mut [0; 4096]);
        });
        let proxy = in_front_of(dir.path(), kind, &format!("{}:1 s0", path.display()));
        let mut client = proxy.connect(POOL);
        // A write, which is never sent twice.
        let request = if kind == ServerKind::Redis {
            &write
        } else {
            request
        };
        client.roundtrip(request, reply.as_bytes());
        client.roundtrip(request, reply.as_bytes());
        assert_eq!(proxy.stat(POOL, &["s0", "server_eof"]), 2);
    }
}

// C112 C139
#[test]
fn a_host_that_does_not_resolve_is_down() {
    let dir = private_dir();
    let proxy = in_front_of(dir.path(), ServerKind::Redis, "no.such.host.invalid:1:1 s0");
    let mut client = proxy.connect(POOL);
    client.roundtrip(GET, b"-ERR Host is down\r\n");
    client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    assert_eq!(proxy.stat(POOL, &["s0", "server_err"]), 1);
    assert_eq!(proxy.stat(POOL, &["forward_error"]), 1);
}

// C113
#[test]
fn a_missing_unix_socket_is_told_as_such() {
    let dir = private_dir();
    let proxy = in_front_of(dir.path(), ServerKind::Redis, "/nowhere/at/all:1 s0");
    let mut client = proxy.connect(POOL);
    client.roundtrip(GET, b"-ERR No such file or directory\r\n");
    client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
}

// C115 C116 D11
#[test]
fn every_error_of_a_server_passes_unchanged_and_its_connection_stays() {
    for reply in [
        &b"-READONLY You can't write against a read only replica.\r\n"[..],
        b"-WRONGTYPE Operation against a key\r\n",
        b"-BUSYKEY Target key name already exists.\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-BUSY Redis is busy running a script.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
    ] {
        let dir = private_dir();
        let path = dir.path().join("canned.sock");
        let accepted = serve(&path, says(reply));
        let line = format!("{}:1 s0", path.display());
        let proxy = in_front_of(dir.path(), ServerKind::Redis, &line);
        let mut client = proxy.connect(POOL);
        for _ in 0..3 {
            client.roundtrip(GET, reply);
        }
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
        assert_eq!(proxy.stat(POOL, &["s0", "server_err"]), 0);
        assert_eq!(proxy.stat(POOL, &["s0", "responses"]), 3);
    }
}

// D11
#[test]
fn a_server_without_memory_is_ejected_although_it_answers() {
    let dir = private_dir();
    let path = dir.path().join("canned.sock");
    serve(&path, says(b"-OOM no\r\n"));
    let pool = PoolBuilder::new(POOL, ServerKind::Redis)
        .set("auto_eject_hosts", "true")
        .set("server_failure_limit", "3")
        .server_line(&format!("{}:1 s0", path.display()));
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let mut client = proxy.connect(POOL);
    for _ in 0..3 {
        assert_eq!(proxy.stat(POOL, &["server_ejects"]), 0);
        client.roundtrip(GET, b"-OOM no\r\n");
    }
    client.roundtrip(GET, REFUSED);
    assert_eq!(proxy.stat(POOL, &["server_ejects"]), 1);
}

// C117 C119 D12
#[test]
fn a_dead_fragment_is_one_error_and_the_client_stays() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Redis, 2) else {
        return;
    };
    let mut client = bed.client();
    let keys: Vec<String> = (0..40).map(|i| format!("key-{i}")).collect();
    let with = |name: &str| {
        let words: Vec<&str> = [name]
            .into_iter()
            .chain(keys.iter().map(String::as_str))
            .collect();
        array_of(&words)
    };
    bed.servers[1].process().kill();
    for name in ["MGET", "DEL", "UNLINK", "TOUCH", "EXISTS", "MSET"] {
        client.send(&with(name));
        let reply = client.read_redis();
        assert!(reply.starts_with(b"-ERR "), "{name}");
        client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    }
}

// C120
#[test]
fn a_client_that_leaves_early_has_its_requests_executed() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Redis, 1) else {
        return;
    };
    let mut other = bed.client();
    other.roundtrip(GET, b"$-1\r\n");
    bed.servers[0].process().pause();
    let mut client = bed.client();
    client.send(&array_of(&["SET", "a", "1"]));
    wait_for("the request is at the server", || {
        (bed.proxy.stat(POOL, &["s0", "out_queue"]) == 1).then_some(())
    });
    drop(client);
    bed.servers[0].process().resume();
    other.roundtrip(GET, b"$1\r\n1\r\n");
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_eof"]), 0);
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_err"]), 0);
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_connections"]), 1);
}

// C123 C139 D27
#[test]
fn a_killed_server_leaves_its_keys_to_the_others() {
    let Some(mut bed) = Bed::start_with(BINARY, ServerKind::Redis, 2, |pool| {
        pool.set("auto_eject_hosts", "true")
            .set("server_failure_limit", "1")
    }) else {
        return;
    };
    let mut client = bed.client();
    bed.servers[1].process().kill();
    for i in 0..40 {
        client.send(&array_of(&["SET", &format!("key-{i}"), "v"]));
        let reply = client.read_redis();
        assert!(reply == b"+OK\r\n" || reply.starts_with(b"-ERR "));
    }
    // All forty live on the other one now.
    for i in 0..40 {
        client.roundtrip(&array_of(&["SET", &format!("key-{i}"), "v"]), b"+OK\r\n");
    }
    assert_eq!(bed.proxy.stat(POOL, &["server_ejects"]), 1);
    let micros = bed.proxy.stat(POOL, &["s1", "server_ejected_at"]);
    assert!(
        micros > 1_700_000_000_000_000,
        "{micros} is no microsecond of today"
    );
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_ejected_at"]), 0);
    bed.proxy
        .wait_logged(" server 's1' of pool 'alpha' ejected\n");
    bed.proxy.wait_logged(" accepted c ");
}

// C126
#[test]
fn with_every_server_ejected_requests_are_refused_at_once() {
    let dir = private_dir();
    let pool = PoolBuilder::new(POOL, ServerKind::Redis)
        .set("auto_eject_hosts", "true")
        .set("server_failure_limit", "1")
        .server_line("/nowhere/at/all:1 s0");
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let mut client = proxy.connect(POOL);
    client.roundtrip(GET, b"-ERR No such file or directory\r\n");
    client.roundtrip(GET, REFUSED);
    client.roundtrip(GET, REFUSED);
    assert_eq!(proxy.stat(POOL, &["s0", "server_err"]), 1, "one attempt");
}

// C129
#[test]
fn preconnect_opens_one_connection_to_each_server_that_is_there() {
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Redis, 2, |pool| {
        pool.set("preconnect", "true")
            .set("server_connections", "3")
            .server_line("/nowhere/at/all:1 down")
    }) else {
        return;
    };
    wait_for("both are connected", || {
        let connected = |server| bed.proxy.stat(POOL, &[server, "server_connections"]);
        (connected("s0") == 1 && connected("s1") == 1).then_some(())
    });
    wait_for("the third one has failed", || {
        (bed.proxy.stat(POOL, &["down", "server_err"]) >= 1).then_some(())
    });
    assert_eq!(bed.proxy.stat(POOL, &["s0", "requests"]), 0);
}
