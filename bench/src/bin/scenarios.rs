//! `scenarios NAME N`: does one operation of the proxy's core N times, for an instruction count.
//!
//! `cargo xtask budgets` runs each scenario under callgrind for N and for 2 N operations; the difference, divided by
//! N, is what one operation costs, with start-up and warm-up cancelled out. So a scenario must be repeatable to the
//! instruction: no clock, no randomness. `scenarios --list` names them all, each with its N.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use twemproxy_core::config::{Config, PoolConfig, ServerConfig};
use twemproxy_core::engine::{Action, Engine};
use twemproxy_core::ids::{ClientId, ConnId, PoolIdx, ServerConnId};
use twemproxy_core::limits::SEND_SLICES_MAX;
use twemproxy_core::owner::HealthOwner;
use twemproxy_core::proto::{
    Parse, Protocol, RequestLimits, RequestParser, ResponseParser, ResponseStep, Route, parts,
};
use twemproxy_core::time::{Micros, Span};
use twemproxy_core::topology::{Distribution, HashKind, Placement, RingServer};

/// A scenario: its name, how many operations make a steady count, and what does so many.
type Scenario = (&'static str, u64, fn(u64));

const SCENARIOS: &[Scenario] = &[
    ("redis-parse-get", OPERATIONS, |n| {
        parse(Protocol::Redis, &redis_get(0), n)
    }),
    ("redis-parse-set", OPERATIONS, |n| {
        parse(Protocol::Redis, &redis_set(0), n)
    }),
    ("redis-parse-mget-10", OPERATIONS, |n| {
        parse(Protocol::Redis, &redis_mget(10), n)
    }),
    ("redis-parse-mget-100", OPERATIONS, |n| {
        parse(Protocol::Redis, &redis_mget(100), n)
    }),
    ("redis-measure-bulk", OPERATIONS, |n| {
        measure(Protocol::Redis, &redis_value(), n)
    }),
    ("memcache-parse-get", OPERATIONS, |n| {
        parse(Protocol::Memcache, &memcache_get(1), n)
    }),
    ("memcache-parse-set", OPERATIONS, |n| {
        parse(Protocol::Memcache, &memcache_set(), n)
    }),
    ("memcache-parse-get-10", OPERATIONS, |n| {
        parse(Protocol::Memcache, &memcache_get(10), n)
    }),
    ("memcache-parse-get-100", OPERATIONS, |n| {
        parse(Protocol::Memcache, &memcache_get(100), n)
    }),
    ("memcache-measure-value", OPERATIONS, |n| {
        measure(Protocol::Memcache, &memcache_value(&key(0)), n)
    }),
    ("redis-get-depth-1", OPERATIONS, |n| {
        forward(&Exchange::redis_get(), 1, n)
    }),
    ("redis-get-depth-16", OPERATIONS, |n| {
        forward(&Exchange::redis_get(), 16, n)
    }),
    ("redis-get-depth-64", OPERATIONS, |n| {
        forward(&Exchange::redis_get(), 64, n)
    }),
    ("redis-set-depth-16", OPERATIONS, |n| {
        forward(&Exchange::redis_set(), 16, n)
    }),
    ("redis-mget-50", OPERATIONS, |n| {
        forward(&Exchange::redis_mget(), 1, n)
    }),
    ("redis-mset-10", OPERATIONS, |n| {
        forward(&Exchange::redis_mset(), 1, n)
    }),
    ("memcache-get-depth-16", OPERATIONS, |n| {
        forward(&Exchange::memcache_get(), 16, n)
    }),
    ("memcache-get-50", OPERATIONS, |n| {
        forward(&Exchange::memcache_get_many(), 1, n)
    }),
    ("ring-build-4", BUILDS, |n| build_ring(4, None, n)),
    ("ring-build-100", REBUILDS, |n| build_ring(100, None, n)),
    ("ring-rebuild-99-of-100", REBUILDS, |n| {
        build_ring(100, Some(50), n)
    }),
    ("ring-pick-100", OPERATIONS, pick_servers),
];

/// Whole rounds at every depth, and enough that the start of a round does not show.
const OPERATIONS: u64 = 6400;
const BUILDS: u64 = 50;
const REBUILDS: u64 = 4;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [list] if list == "--list" => {
            for (name, operations, _) in SCENARIOS {
                println!("{name} {operations}");
            }
            ExitCode::SUCCESS
        }
        [name, count] => run(name, count),
        _ => usage(),
    }
}

fn run(name: &str, count: &str) -> ExitCode {
    let found = SCENARIOS.iter().find(|(known, _, _)| known == &name);
    match (found, count.parse()) {
        (Some((_, _, operate)), Ok(count)) => {
            operate(count);
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: scenarios --list | scenarios NAME COUNT");
    ExitCode::FAILURE
}

/// Keys differ in their digits only, so that all requests of a scenario have one length; and in many of the digits,
/// because keys that differ in the last one are neighbours on the ring.
fn key(n: usize) -> String {
    format!("key:{:014}", (n + 1) * 7_919_000_333 % 100_000_000_000_000)
}

const VALUE: &str = "0123456789abcdef0123456789abcdef";

fn bulk(word: &str) -> String {
    format!("${}\r\n{word}\r\n", word.len())
}

fn redis_get(n: usize) -> Vec<u8> {
    format!("*2\r\n{}{}", bulk("GET"), bulk(&key(n))).into_bytes()
}

fn redis_set(n: usize) -> Vec<u8> {
    format!("*3\r\n{}{}{}", bulk("SET"), bulk(&key(n)), bulk(VALUE)).into_bytes()
}

fn redis_mget(keys: usize) -> Vec<u8> {
    let words: String = (0..keys).map(|n| bulk(&key(n))).collect();
    format!("*{}\r\n{}{words}", keys + 1, bulk("MGET")).into_bytes()
}

fn redis_mset(keys: usize) -> Vec<u8> {
    let words: String = (0..keys).map(|n| bulk(&key(n)) + &bulk(VALUE)).collect();
    format!("*{}\r\n{}{words}", 2 * keys + 1, bulk("MSET")).into_bytes()
}

fn redis_value() -> Vec<u8> {
    bulk(VALUE).into_bytes()
}

fn memcache_get(keys: usize) -> Vec<u8> {
    let words: Vec<String> = (0..keys).map(key).collect();
    format!("get {}\r\n", words.join(" ")).into_bytes()
}

fn memcache_set() -> Vec<u8> {
    format!("set {} 0 0 {}\r\n{VALUE}\r\n", key(0), VALUE.len()).into_bytes()
}

fn memcache_value(key: &str) -> Vec<u8> {
    format!("{}END\r\n", memcache_block(key)).into_bytes()
}

fn memcache_block(key: &str) -> String {
    format!("VALUE {key} 0 {}\r\n{VALUE}\r\n", VALUE.len())
}

/// Parses one request and finds its keys where it has many.
fn parse(protocol: Protocol, bytes: &[u8], count: u64) {
    let limits = RequestLimits {
        frame_len_max: 1024 * 1024,
        unauthenticated: false,
        allow_flush: false,
    };
    let mut parser = RequestParser::new(protocol);
    let mut keys = Vec::with_capacity(128);
    for _ in 0..count {
        keys.clear();
        let parse = parser.parse_noting(black_box(bytes), &limits, &mut keys);
        let Parse::Complete(request) = parse else {
            panic!("a scenario's request is complete");
        };
        if keys.is_empty() && matches!(request.route, Route::Keys(_)) {
            parts(protocol, bytes, &request, &mut keys);
        }
        black_box((request, &keys));
    }
}

/// Finds the end of one response.
fn measure(protocol: Protocol, bytes: &[u8], count: u64) {
    let mut parser = ResponseParser::new(protocol);
    for _ in 0..count {
        let step = parser.step(black_box(bytes));
        assert!(
            step == ResponseStep::Done(bytes.len()),
            "one whole response"
        );
    }
}

/// What the clients of a scenario send and what its servers answer.
struct Exchange {
    protocol: Protocol,
    /// One request of each client.
    requests: Vec<Vec<u8>>,
    /// The answer to this many bytes that reached a server; all requests have one length.
    answer: fn(&[u8]) -> Vec<u8>,
}

impl Exchange {
    fn redis_get() -> Self {
        Self {
            protocol: Protocol::Redis,
            requests: (0..CLIENTS).map(redis_get).collect(),
            answer: |sent| redis_value().repeat(sent.len() / redis_get(0).len()),
        }
    }

    fn redis_set() -> Self {
        Self {
            protocol: Protocol::Redis,
            requests: (0..CLIENTS).map(redis_set).collect(),
            answer: |sent| b"+OK\r\n".repeat(sent.len() / redis_set(0).len()),
        }
    }

    /// Every client asks for the same keys, so that each fragment has a length of its own.
    fn redis_mget() -> Self {
        Self {
            protocol: Protocol::Redis,
            requests: vec![redis_mget(50); CLIENTS],
            answer: |sent| {
                let fragments = sent.iter().filter(|byte| **byte == b'*').count();
                let keys =
                    sent.windows(4).filter(|word| word == b"key:").count() / fragments.max(1);
                let one = [
                    format!("*{keys}\r\n").into_bytes(),
                    redis_value().repeat(keys),
                ];
                one.concat().repeat(fragments)
            },
        }
    }

    fn redis_mset() -> Self {
        Self {
            protocol: Protocol::Redis,
            requests: vec![redis_mset(10); CLIENTS],
            answer: |sent| {
                let fragments = sent.iter().filter(|byte| **byte == b'*').count();
                b"+OK\r\n".repeat(fragments)
            },
        }
    }

    /// As [`Self::redis_mget`].
    fn memcache_get_many() -> Self {
        Self {
            protocol: Protocol::Memcache,
            requests: vec![memcache_get(50); CLIENTS],
            answer: |sent| {
                let sent = String::from_utf8_lossy(sent);
                let answers = sent.lines().map(|line| {
                    let keys = line.split_whitespace().skip(1);
                    keys.map(memcache_block).collect::<String>() + "END\r\n"
                });
                answers.collect::<String>().into_bytes()
            },
        }
    }

    fn memcache_get() -> Self {
        Self {
            protocol: Protocol::Memcache,
            requests: (0..CLIENTS)
                .map(|n| format!("get {}\r\n", key(n)).into_bytes())
                .collect(),
            answer: |sent| {
                let lines = sent.split_inclusive(|byte| *byte == b'\n');
                lines
                    .flat_map(|line| {
                        memcache_value(&String::from_utf8_lossy(&line[4..line.len() - 2]))
                    })
                    .collect()
            },
        }
    }
}

const CLIENTS: usize = 50;
const SERVERS: usize = 2;

/// An engine and the world around it: what it sends is counted and thrown away.
struct World {
    engine: Engine,
    now: Micros,
    clients: Vec<ClientId>,
    conns: Vec<ServerConnId>,
    /// What the servers were sent; kept in the first round only.
    sent: Vec<Vec<u8>>,
    is_recording: bool,
    to_clients: usize,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let mut pool = PoolConfig::new("pool", protocol);
        pool.timeout = Some(Span::from_millis(400));
        pool.preconnect = true;
        pool.servers = (0..SERVERS)
            .map(|n| ServerConfig {
                name: format!("server{n}").into(),
                weight: 1,
            })
            .collect();
        let config = Config {
            pools: vec![pool],
            memory_limit: u64::MAX,
            ..Config::default()
        };
        let topologies = HealthOwner::new(&config).topologies();
        let mut world = Self {
            engine: Engine::new(Arc::new(config), &topologies, 7),
            now: Micros(1),
            clients: Vec::new(),
            conns: Vec::new(),
            sent: vec![Vec::new(); SERVERS],
            is_recording: true,
            to_clients: 0,
        };
        world.engine.start(world.now);
        world.settle();
        for _ in 0..CLIENTS {
            let client = world.engine.handle_accept(PoolIdx(0), world.now);
            world.clients.push(client.expect("the pool takes clients"));
        }
        world
    }

    /// Bytes arrive, in reads as large as the engine takes them.
    fn feed(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut fed = 0;
        while fed < bytes.len() {
            let space = self.engine.recv_space(conn);
            let len = space.len().min(bytes.len() - fed);
            assert!(len > 0, "no scenario holds a peer back");
            space[..len].copy_from_slice(&bytes[fed..fed + len]);
            self.engine.recv_commit(conn, len, self.now);
            fed += len;
        }
    }

    /// Answers what the clients ask until nothing is left: a client that has had no response yet may have few
    /// requests in flight, and the scenarios are about those that go on.
    fn open_windows(&mut self, exchange: &Exchange, requests: &[Vec<u8>]) {
        for (index, bytes) in requests.iter().enumerate() {
            self.feed(self.clients[index].into(), bytes);
        }
        self.settle();
        while self.sent.iter().any(|sent| !sent.is_empty()) {
            for index in 0..self.sent.len() {
                let asked = std::mem::take(&mut self.sent[index]);
                if !asked.is_empty() {
                    self.feed(self.conns[index].into(), &(exchange.answer)(&asked));
                }
            }
            self.settle();
        }
    }

    /// The end of a tick.
    fn settle(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Connect { conn, .. } => {
                    self.conns.push(conn);
                    self.engine.handle_connected(conn, self.now);
                }
                Action::Flush(conn) => self.flush(conn),
                other => panic!("nothing else happens in a scenario: {other:?}"),
            }
        }
    }

    fn flush(&mut self, conn: ConnId) {
        loop {
            let mut slices = [&[][..]; SEND_SLICES_MAX];
            let used = self.engine.send_slices(conn, &mut slices);
            let len = slices[..used].iter().map(|slice| slice.len()).sum();
            if len == 0 {
                return;
            }
            if let ConnId::Server(id) = conn {
                if self.is_recording {
                    let server = self.conns.iter().position(|known| *known == id);
                    self.sent[server.expect("a connection we made")]
                        .extend(slices[..used].concat());
                }
            } else {
                self.to_clients += len;
            }
            self.engine.send_commit(conn, len, self.now);
        }
    }
}

/// At least `count` requests, in rounds in which each client sends `depth` of them, each server answers all it got,
/// and each client receives its replies.
fn forward(exchange: &Exchange, depth: usize, count: u64) {
    let mut world = World::new(exchange.protocol);
    let requests: Vec<Vec<u8>> = exchange
        .requests
        .iter()
        .map(|request| request.repeat(depth))
        .collect();
    world.open_windows(exchange, &requests);
    let mut answers: Vec<Vec<u8>> = Vec::new();
    let per_round = u64::try_from(CLIENTS * depth).expect("a small number");
    assert!(count.is_multiple_of(per_round), "whole rounds only");
    let mut reply_len = 0;
    for round in 0..count / per_round + WARM_ROUNDS {
        world.now = world.now + Span(50);
        for (index, bytes) in requests.iter().enumerate() {
            world.feed(world.clients[index].into(), bytes);
        }
        world.engine.handle_timeout(world.now);
        world.settle();
        if round == 0 {
            answers = world
                .sent
                .iter()
                .map(|sent| (exchange.answer)(sent))
                .collect();
            assert!(
                answers.iter().all(|answer| !answer.is_empty()),
                "each server has its share"
            );
            world.is_recording = false;
        }
        world.now = world.now + Span(50);
        for (index, bytes) in answers.iter().enumerate() {
            world.feed(world.conns[index].into(), bytes);
        }
        world.engine.handle_timeout(world.now);
        world.to_clients = 0;
        world.settle();
        if round == 0 {
            reply_len = world.to_clients;
        }
        assert!(
            world.to_clients == reply_len && reply_len > 0,
            "each round is the same"
        );
    }
    let waiting = world
        .engine
        .counters()
        .servers
        .values()
        .map(|server| server.out_queue.value());
    assert!(waiting.sum::<u64>() == 0, "every request was answered");
}

/// Rounds in which buffers and queues reach their size.
const WARM_ROUNDS: u64 = 4;

fn server_names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("10.0.0.{n}:6379:1")).collect()
}

fn ring_servers(names: &[String], dead: Option<usize>) -> Vec<RingServer<'_>> {
    let servers = names.iter().enumerate().map(|(index, name)| RingServer {
        name,
        weight: 1,
        live: dead != Some(index),
    });
    servers.collect()
}

fn build_ring(count: usize, dead: Option<usize>, times: u64) {
    let names = server_names(count);
    let servers = ring_servers(&names, dead);
    for _ in 0..times {
        black_box(Placement::build(Distribution::Ketama, black_box(&servers)));
    }
}

/// Hashes one key and finds its server among a hundred.
fn pick_servers(times: u64) {
    let names = server_names(100);
    let ring = Placement::build(Distribution::Ketama, &ring_servers(&names, None));
    let keys: Vec<String> = (0..64).map(key).collect();
    for key in keys
        .iter()
        .cycle()
        .take(usize::try_from(times).unwrap_or(usize::MAX))
    {
        let hash = HashKind::Fnv1a64.hash(black_box(key.as_bytes()));
        black_box(ring.pick(hash));
    }
}
