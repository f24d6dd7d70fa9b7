//! Clients that are many, slow, silent or greedy, seen through the real binary.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::{array_of, bulk};
use twemproxy_testkit::transcripts::filler;
use twemproxy_testkit::wire::DEADLINE;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const MIB: usize = 1024 * 1024;

/// The connections of a test are gone from the statistics.
fn wait_until_idle(proxy: &Proxy, server: &str) {
    wait_for("every gauge is back", || {
        let gauges = ["in_queue", "in_queue_bytes", "out_queue", "out_queue_bytes"]
            .map(|gauge| proxy.stat(POOL, &[server, gauge]));
        let clients = proxy.stat(POOL, &["client_connections"]);
        (gauges == [0; 4] && clients == 0).then_some(())
    });
}

#[test]
fn half_a_request_holds_nobody_up() {
    let Some(bed) = Bed::start(BINARY, ServerKind::Redis, 1) else {
        return;
    };
    let mut halves = Vec::new();
    for len in 1..40 {
        let request = array_of(&["SET", "half", "of a value that is long enough"]);
        let mut wire = bed.client();
        wire.send(&request[..len]);
        halves.push((wire, request[len..].to_vec()));
    }
    let mut whole = bed.client();
    for i in 0..100 {
        let name = format!("whole{i}");
        whole.roundtrip(&array_of(&["SET", &name, "v"]), b"+OK\r\n");
    }
    // Half of the halves are finished a byte at a time, the others abandoned.
    for (wire, rest) in halves.iter_mut().step_by(2) {
        wire.send_byte_by_byte(rest);
        wire.expect(b"+OK\r\n");
    }
    drop((halves, whole));
    wait_until_idle(&bed.proxy, "s0");
}

#[test]
fn a_client_that_has_said_everything_still_gets_its_replies() {
    let Some(bed) = Bed::start(BINARY, ServerKind::Redis, 3) else {
        return;
    };
    let mut wire = bed.client();
    let mut expected = Vec::new();
    for i in 0..500 {
        let (key, value) = (format!("k{i}"), format!("v{i}"));
        wire.send(&array_of(&["SET", &key, &value]));
        wire.send(&array_of(&["GET", &key]));
        expected.extend_from_slice(b"+OK\r\n");
        expected.extend(bulk(value.as_bytes()));
    }
    wire.half_close();
    assert_eq!(wire.read_to_close(), expected);
    for i in 0..3 {
        wait_until_idle(&bed.proxy, &format!("s{i}"));
    }
}

#[test]
fn a_client_that_reads_byte_by_byte_gets_everything_and_holds_nobody_up() {
    let Some(bed) = Bed::start(BINARY, ServerKind::Redis, 1) else {
        return;
    };
    let value = filler(300_000);
    let mut fast = bed.client();
    fast.roundtrip(&array_of(&[&b"SET"[..], b"big", &value]), b"+OK\r\n");
    let mut slow = UnixStream::connect(bed.proxy.socket(POOL)).unwrap();
    slow.set_read_timeout(Some(DEADLINE)).unwrap();
    slow.write_all(&array_of(&["GET", "big"])).unwrap();
    let expected = bulk(&value);
    let mut byte = [0];
    for (at, wanted) in expected.iter().enumerate() {
        // The tail is taken at once: the point was made.
        if at == 20_000 {
            let mut rest = vec![0; expected.len() - at];
            slow.read_exact(&mut rest).unwrap();
            assert!(rest == expected[at..]);
            break;
        }
        slow.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], *wanted, "byte {at}");
        if at % 500 == 0 {
            fast.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
            fast.roundtrip(&array_of(&["STRLEN", "big"]), b":300000\r\n");
        }
    }
    drop((slow, fast));
    wait_until_idle(&bed.proxy, "s0");
}

#[test]
fn a_client_that_never_reads_is_no_burden() {
    const BOUND_KIB: u64 = 64 * 1024;
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Redis, dir.path(), "s0", &[]) else {
        return;
    };
    let servers = [server];
    // It is pressed at half of the limit.
    let config = ConfigBuilder::new(dir.path())
        .set("memory_limit", "67108864")
        .pool(PoolBuilder::new(POOL, ServerKind::Redis).servers(&servers));
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let value = filler(10_000);
    let mut other = proxy.connect(POOL);
    other.roundtrip(&array_of(&[&b"SET"[..], b"v", &value]), b"+OK\r\n");
    let before = proxy.resident_kib();
    let mut greedy = UnixStream::connect(proxy.socket(POOL)).unwrap();
    greedy.set_nonblocking(true).unwrap();
    // It asks for two gigabytes, as far as anybody listens.
    let pipeline = array_of(&["GET", "v"]).repeat(200_000);
    let (mut sent, mut refused) = (0, 0);
    while refused < 50 && sent < pipeline.len() {
        match greedy.write(&pipeline[sent..]) {
            Ok(len) => (sent, refused) = (sent + len, 0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => refused += 1,
            // It has waited for as long as anybody may who does not read.
            Err(_) => break,
        }
        other.roundtrip(&array_of(&["STRLEN", "v"]), b":10000\r\n");
    }
    assert!(sent < pipeline.len(), "the proxy stops reading");
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(
        grown < BOUND_KIB,
        "{grown} KiB for a client that never reads"
    );
    drop((greedy, other));
    wait_until_idle(&proxy, "s0");
}

#[test]
fn ten_thousand_clients_are_served_at_once() {
    const WANTED: u64 = 10_000;
    // Beside the clients: the test's own files.
    const OTHERS: u64 = 100;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: Some(hard.min(WANTED + OTHERS).max(limit.current.unwrap_or(0))),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let clients = usize::try_from(WANTED.min(hard - OTHERS)).unwrap();
    if clients < 10_000 {
        eprintln!("only {clients} clients: the hard limit is {hard} descriptors");
    }
    let Some(bed) = Bed::start(BINARY, ServerKind::Redis, 2) else {
        return;
    };
    let before = bed.proxy.resident_kib();
    let socket = bed.proxy.socket(POOL);
    let mut wires: Vec<UnixStream> = (0..clients)
        .map(|_| UnixStream::connect(socket).unwrap())
        .collect();
    for round in 0..2 {
        for (i, wire) in wires.iter_mut().enumerate() {
            let value = format!("{round}-of-{i}");
            let key = format!("k{i}");
            let mut pipeline = array_of(&["SET", &key, &value]);
            pipeline.extend(array_of(&["GET", &key]));
            wire.write_all(&pipeline).unwrap();
        }
        for (i, wire) in wires.iter_mut().enumerate() {
            let mut expected = b"+OK\r\n".to_vec();
            expected.extend(bulk(format!("{round}-of-{i}").as_bytes()));
            wire.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut reply = vec![0; expected.len()];
            wire.read_exact(&mut reply).unwrap();
            assert_eq!(reply, expected, "client {i}");
        }
    }
    let connections = bed.proxy.stat(POOL, &["client_connections"]);
    assert_eq!(usize::try_from(connections).unwrap(), clients);
    let grown = bed.proxy.resident_kib().saturating_sub(before);
    let bound = 4 * u64::try_from(clients).unwrap();
    assert!(grown < bound, "{grown} KiB for {clients} idle clients");
    drop(wires);
    for server in ["s0", "s1"] {
        wait_until_idle(&bed.proxy, server);
    }
}

#[test]
fn half_a_gigabyte_passes_a_proxy_with_little_memory() {
    const CLIENTS: usize = 8;
    const VALUES: usize = 64;
    // The limit, what a 64 MiB limit cannot see (allocator, code, stacks), and a debug build's own.
    const BOUND_KIB: u64 = (64 + 48) * 1024;
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Redis, dir.path(), "s0", &[]) else {
        return;
    };
    let servers = [server];
    let config = ConfigBuilder::new(dir.path())
        .set("memory_limit", "67108864")
        .pool(PoolBuilder::new(POOL, ServerKind::Redis).servers(&servers));
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let (proxy, written, asked) = (&proxy, &Meeting::of(CLIENTS), &Meeting::of(CLIENTS));
    let over = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        let peak = scope.spawn(|| {
            let mut peak = 0;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(proxy.resident_kib());
                std::thread::park_timeout(Duration::from_millis(2));
            }
            peak
        });
        let workers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || {
                    let client = Hauler::new(proxy, number);
                    client.move_all(VALUES, &client.set, b"+OK\r\n", || {});
                    written.wait();
                    // At first nobody reads until all have asked and the server has answered:
                    // together the replies exceed the limit.
                    let answered = || {
                        asked.wait();
                        wait_for("the server has answered", || {
                            (proxy.stat(POOL, &["s0", "out_queue"]) == 0).then_some(())
                        });
                    };
                    client.move_all(VALUES, &client.get, &bulk(&client.value), answered);
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::Relaxed);
        for result in results {
            result.expect("every client moves all its values");
        }
        peak.join().unwrap()
    });
    assert!(peak < BOUND_KIB, "{peak} KiB at the peak");
    wait_until_idle(proxy, "s0");
}

/// Where some threads wait for each other, with a deadline: one of them may have failed.
struct Meeting {
    missing: AtomicUsize,
}

impl Meeting {
    const fn of(count: usize) -> Self {
        let missing = AtomicUsize::new(count);
        Self { missing }
    }

    fn wait(&self) {
        self.missing.fetch_sub(1, Ordering::Relaxed);
        wait_for("all meet", || {
            (self.missing.load(Ordering::Relaxed) == 0).then_some(())
        });
    }
}

/// A client that writes and reads values of 1 MiB in pipelines. Where all exceed the limit together
/// the proxy may close its connection, and it goes on with a new one.
struct Hauler<'a> {
    proxy: &'a Proxy,
    number: usize,
    value: Vec<u8>,
    set: Vec<u8>,
    get: Vec<u8>,
}

impl<'a> Hauler<'a> {
    const PIPELINE: usize = 16;
    // Long enough for those who hold the memory to be closed several times over.
    const PATIENCE: Duration = DEADLINE.saturating_mul(4);

    fn new(proxy: &'a Proxy, number: usize) -> Self {
        let key = format!("key{number}");
        let value = vec![b'a' + u8::try_from(number).expect("few clients"); MIB];
        Self {
            proxy,
            number,
            set: array_of(&[&b"SET"[..], key.as_bytes(), &value]),
            get: array_of(&["GET", &key]),
            value,
        }
    }

    /// Sends `request` so many times and reads as many replies; `before_reading` is called once,
    /// when the first pipeline is sent.
    fn move_all(&self, count: usize, request: &[u8], reply: &[u8], before_reading: impl FnOnce()) {
        let until = Instant::now() + Self::PATIENCE;
        let mut before_reading = Some(before_reading);
        let mut done = 0;
        while done < count {
            let late = Instant::now() > until;
            assert!(!late, "client {}: {done} of {count}", self.number);
            let mut wire = UnixStream::connect(self.proxy.socket(POOL)).expect("the proxy listens");
            let patience = Some(DEADLINE);
            wire.set_read_timeout(patience).expect("it is no zero");
            wire.set_write_timeout(patience).expect("it is no zero");
            let pipeline = Self::PIPELINE.min(count - done);
            if (0..pipeline).any(|_| wire.write_all(request).is_err()) {
                continue;
            }
            if let Some(before_reading) = before_reading.take() {
                before_reading();
            }
            let mut got = vec![0; reply.len()];
            for _ in 0..pipeline {
                // In pieces smaller than any buffer on the way.
                let mut pieces = got.chunks_mut(16 * 1024);
                if pieces.any(|piece| wire.read_exact(piece).is_err()) {
                    break;
                }
                assert!(got == reply, "client {} got a wrong reply", self.number);
                done += 1;
            }
        }
    }
}
