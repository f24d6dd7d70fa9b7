//! The steady state allocates nothing: a warmed-up engine serves GET, SET, MGET and memcached's get
//! without one call of the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use twemproxy_core::config::Config;
use twemproxy_core::engine::{Action, Engine};
use twemproxy_core::ids::{ClientId, ConnId, PoolIdx, ServerConnId, ServerId};
use twemproxy_core::owner::HealthOwner;
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::{Micros, Span};
use twemproxy_core::topology::{Placement, RingServer};
use twemproxy_testkit::hand::pool;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting the calls of each thread.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator, which upholds the contract;
// the counter is a constant-initialised thread-local without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: `ptr` came from `alloc` above, that is from the system's allocator.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A shell that throws away what is written and allocates nothing.
struct World {
    engine: Engine,
    now: Micros,
    client: ClientId,
    conns: [Option<ServerConnId>; 2],
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let mut config = pool(protocol, 2);
        config.timeout = Some(Span::from_millis(400));
        let config = Config {
            pools: vec![config],
            ..Config::default()
        };
        let topologies = HealthOwner::new(&config).topologies();
        let mut engine = Engine::new(Arc::new(config), &topologies, 7);
        let client = engine
            .handle_accept(PoolIdx(0), Micros(1))
            .expect("the pool takes a client");
        Self {
            engine,
            now: Micros(1),
            client,
            conns: [None; 2],
        }
    }

    fn feed(&mut self, conn: ConnId, bytes: &[u8]) {
        self.read(conn, bytes);
        self.settle();
    }

    /// Bytes arrive in the middle of a tick.
    fn read(&mut self, conn: ConnId, bytes: &[u8]) {
        self.now = self.now + Span(10);
        self.engine.recv_space(conn)[..bytes.len()].copy_from_slice(bytes);
        self.engine.recv_commit(conn, bytes.len(), self.now);
    }

    fn settle(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Connect { conn, server } => {
                    self.conns[usize::try_from(server.index).expect("an index fits")] = Some(conn);
                    self.engine.handle_connected(conn, self.now);
                }
                Action::Flush(conn) => {
                    let mut out = [&[][..]; 8];
                    let count = self.engine.send_slices(conn, &mut out);
                    let len = out[..count].iter().map(|slice| slice.len()).sum();
                    self.engine.send_commit(conn, len, self.now);
                }
                other => panic!("nothing else happens here: {other:?}"),
            }
        }
    }

    /// One round: the client sends `requests`, the servers say `responses` in this order.
    fn round(&mut self, requests: &[u8], responses: &[(usize, &[u8])]) {
        self.feed(self.client.into(), requests);
        for &(server, bytes) in responses {
            let conn = self.conns[server].expect("the round uses this server");
            self.feed(conn.into(), bytes);
        }
    }
}

/// Allocations of a thousand rounds after ten warming ones.
fn allocations(protocol: Protocol, requests: &[u8], responses: &[(usize, &[u8])]) -> u64 {
    let mut world = World::new(protocol);
    for _ in 0..10 {
        world.round(requests, responses);
    }
    let before = COUNT.get();
    for _ in 0..1000 {
        world.round(requests, responses);
    }
    let count = COUNT.get() - before;
    assert_eq!(
        world.engine.counters().servers[ServerId::initial(0)]
            .out_queue
            .value(),
        0,
        "the rounds are complete"
    );
    count
}

/// A six-byte key that server `s0` or `s1` of these pools owns.
fn key_on(server: u32) -> String {
    let config = pool(Protocol::Redis, 2);
    let servers: Vec<_> = config
        .servers
        .iter()
        .map(|s| RingServer {
            name: &s.name,
            weight: s.weight,
            live: true,
        })
        .collect();
    let ring = Placement::build(config.distribution, &servers);
    (0..10_000)
        .map(|i| format!("k{i:05}"))
        .find(|key| ring.pick(config.hash.hash(key.as_bytes())) == Some(server))
        .expect("ten thousand keys reach both servers")
}

#[test]
fn get_and_set_allocate_nothing() {
    let (a, b) = (key_on(0), key_on(1));
    let requests =
        format!("*2\r\n$3\r\nGET\r\n$6\r\n{a}\r\n*3\r\n$3\r\nSET\r\n$6\r\n{b}\r\n$5\r\nhello\r\n");
    // The second answer comes first, so that it must wait.
    let responses = [(1, &b"+OK\r\n"[..]), (0, b"$5\r\nhello\r\n")];
    assert_eq!(
        allocations(Protocol::Redis, requests.as_bytes(), &responses),
        0
    );
}

#[test]
fn mget_over_two_servers_allocates_nothing() {
    let (a, b) = (key_on(0), key_on(1));
    let requests = format!("*3\r\n$4\r\nMGET\r\n$6\r\n{a}\r\n$6\r\n{b}\r\n");
    let responses = [(1, &b"*1\r\n$1\r\nb\r\n"[..]), (0, b"*1\r\n$1\r\na\r\n")];
    assert_eq!(
        allocations(Protocol::Redis, requests.as_bytes(), &responses),
        0
    );
}

#[test]
fn memcached_get_and_multi_get_allocate_nothing() {
    let (a, b) = (key_on(0), key_on(1));
    let requests = format!("get {a}\r\nget {a} {b}\r\n");
    let hit = format!("VALUE {a} 0 1\r\nx\r\nEND\r\n").repeat(2);
    let responses = [(1, &b"END\r\n"[..]), (0, hit.as_bytes())];
    assert_eq!(
        allocations(Protocol::Memcache, requests.as_bytes(), &responses),
        0
    );
}

#[test]
fn a_tick_of_two_hundred_clients_whose_early_responses_wait_allocates_nothing() {
    const CLIENTS: usize = 200;
    let mut world = World::new(Protocol::Redis);
    let mut clients = vec![world.client];
    for _ in 1..CLIENTS {
        let client = world.engine.handle_accept(PoolIdx(0), world.now);
        clients.push(client.expect("the pool takes clients"));
    }
    let (a, b) = (key_on(0), key_on(1));
    let get = |key: &str| format!("*2\r\n$3\r\nGET\r\n$6\r\n{key}\r\n");
    let requests = [get(&a), get(&b), get(&a), get(&b)].concat();
    let responses = "$5\r\nhello\r\n".repeat(2 * CLIENTS);
    let mut before = 0;
    for round in 0..200 {
        if round == 10 {
            before = COUNT.get();
        }
        for &client in &clients {
            world.read(client.into(), requests.as_bytes());
        }
        world.settle();
        // The second server answers first.
        for server in [1, 0] {
            let conn = world.conns[server].expect("the round uses this server");
            world.read(conn.into(), responses.as_bytes());
        }
        world.settle();
    }
    assert_eq!(COUNT.get() - before, 0);
    let waiting = &world.engine.counters().servers[ServerId::initial(0)].out_queue;
    assert_eq!(waiting.value(), 0, "the rounds are complete");
}
