//! Servers and networks that fail, seen through the real binary.
//!
//! Every client has values of its own, full of its name. Whatever breaks, it may be told an error or
//! be closed, but what looks like a value is its own; and once the fault is over, everything works
//! and every gauge is where it was.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::relay::{Fault, Relay};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const SERVERS: usize = 3;
const CLIENTS: usize = 8;
/// Values of every client, so that each has some on every server.
const VALUES: usize = 12;

/// Servers, each behind a relay, behind the proxy.
struct Field {
    proxy: Proxy,
    relays: Vec<Relay>,
    servers: Vec<Server>,
    _dir: tempfile::TempDir,
}

impl Field {
    fn start() -> Option<Self> {
        Self::with_timeout("150")
    }

    fn with_timeout(millis: &str) -> Option<Self> {
        let dir = private_dir();
        let servers: Vec<Server> = (0..SERVERS)
            .map(|i| Server::start(ServerKind::Redis, dir.path(), &format!("real{i}"), &[]))
            .collect::<Option<_>>()?;
        let relays: Vec<Relay> = servers
            .iter()
            .enumerate()
            .map(|(i, server)| Relay::start(dir.path(), &format!("s{i}"), server.socket()))
            .collect();
        let mut pool = PoolBuilder::new(POOL, ServerKind::Redis).set("timeout", millis);
        for (i, relay) in relays.iter().enumerate() {
            pool = pool.server_line(&format!("{}:1 s{i}", relay.socket().display()));
        }
        let config = ConfigBuilder::new(dir.path()).pool(pool);
        Some(Self {
            proxy: Proxy::start(BINARY, dir.path(), &config, &[]),
            relays,
            servers,
            _dir: dir,
        })
    }

    fn client(&self) -> Wire {
        self.proxy.connect(POOL)
    }

    /// Runs `harm` while clients are at work. They stop after it, and all must be well again.
    fn survives(mut self, harm: impl FnOnce(&mut Self, &dyn Fn(usize))) {
        let over = AtomicBool::new(false);
        let asked = AtomicUsize::new(0);
        let socket = self.proxy.socket(POOL).to_path_buf();
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (over, asked, socket) = (&over, &asked, &socket);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let wire = Wire::unix(socket).expect("the proxy lives");
                        session(wire, client, over, asked);
                    }
                });
            }
            // However fast the machine is: this many more questions are asked before it goes on.
            let work = |questions| {
                let until = asked.load(Ordering::Relaxed) + questions;
                wait_for("the clients go on", || {
                    (asked.load(Ordering::Relaxed) >= until).then_some(())
                });
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                work(50);
                harm(&mut self, &work);
            }));
            over.store(true, Ordering::Relaxed);
            if let Err(panic) = done {
                std::panic::resume_unwind(panic);
            }
        });
        self.is_well_again();
    }

    fn is_well_again(&self) {
        for client in 0..CLIENTS {
            wait_for("every key is served again", || {
                let mut wire = self.client();
                (0..VALUES)
                    .all(|n| {
                        wire.send(&array_of(&[b"SET", &key(client, n)[..], &value(client, n)]));
                        wire.read_redis() == b"+OK\r\n"
                    })
                    .then_some(())
            });
        }
        wait_for("every gauge is back", || {
            let gauges = |server: &str| {
                ["in_queue", "in_queue_bytes", "out_queue", "out_queue_bytes"]
                    .map(|gauge| self.proxy.stat(POOL, &[server, gauge]))
            };
            let idle = (0..SERVERS).all(|i| gauges(&format!("s{i}")) == [0; 4]);
            (idle && self.proxy.stat(POOL, &["client_connections"]) == 0).then_some(())
        });
    }
}

fn key(client: usize, n: usize) -> Vec<u8> {
    format!("key-of-{client}-{n}").into_bytes()
}

fn value(client: usize, n: usize) -> Vec<u8> {
    format!("<client{client}>").repeat(1 + 40 * n).into_bytes()
}

/// Sets and gets in pipelines until the connection ends.
fn session(mut wire: Wire, client: usize, over: &AtomicBool, asked: &AtomicUsize) {
    while !over.load(Ordering::Relaxed) {
        let mut pipeline = Vec::new();
        for n in 0..VALUES {
            let (key, value) = (key(client, n), value(client, n));
            pipeline.extend(array_of(&[&b"SET"[..], &key, &value]));
            pipeline.extend(array_of(&[&b"GET"[..], &key]));
        }
        let keys: Vec<Vec<u8>> = (0..VALUES).map(|n| key(client, n)).collect();
        let mget: Vec<Vec<u8>> = std::iter::once(b"MGET".to_vec()).chain(keys).collect();
        pipeline.extend(array_of(&mget));
        wire.send_what_it_takes(&pipeline);
        for _ in 0..2 * VALUES + 1 {
            let Some(reply) = wire.try_read_redis() else {
                return;
            };
            check_own(&reply, client);
        }
        asked.fetch_add(2 * VALUES + 1, Ordering::Relaxed);
    }
}

/// A reply names no other client.
fn check_own(reply: &[u8], client: usize) {
    let text = String::from_utf8_lossy(reply);
    for (at, _) in text.match_indices("<client") {
        let name: String = text[at + 7..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let whole = text[at + 7 + name.len()..].starts_with('>');
        if let (true, Ok(owner)) = (whole, name.parse::<usize>()) {
            assert_eq!(owner, client, "a reply to {client}: {text}");
        }
    }
}

#[test]
fn late_bytes_cost_time_only() {
    // So long that a busy machine alone is no time-out.
    let Some(field) = Field::with_timeout("8000") else {
        return;
    };
    field.survives(|field, work| {
        for relay in &field.relays {
            relay.set(Fault::Delay(Duration::from_millis(2)));
        }
        work(200);
        for relay in &field.relays {
            relay.set(Fault::None);
        }
        assert_eq!(field.proxy.stat(POOL, &["s0", "server_timedout"]), 0);
    });
}

#[test]
fn lost_bytes_cost_one_server_a_timeout() {
    let Some(field) = Field::start() else { return };
    field.survives(|field, work| {
        field.relays[0].set(Fault::Drop);
        wait_for("the loss is noticed", || {
            (field.proxy.stat(POOL, &["s0", "server_timedout"]) > 0).then_some(())
        });
        field.relays[0].set(Fault::None);
        work(200);
    });
}

#[test]
fn a_stalled_network_costs_one_server_a_timeout() {
    let Some(field) = Field::start() else { return };
    field.survives(|field, work| {
        field.relays[1].set(Fault::Stall);
        wait_for("the stall is noticed", || {
            (field.proxy.stat(POOL, &["s1", "server_timedout"]) > 0).then_some(())
        });
        field.relays[1].set(Fault::None);
        work(200);
    });
}

#[test]
fn broken_connections_are_made_again() {
    let Some(field) = Field::start() else { return };
    field.survives(|field, work| {
        for round in 0..20 {
            field.relays[round % SERVERS].break_all();
            work(25);
        }
        for fault in [Fault::Reset, Fault::Truncate] {
            field.relays[2].set(fault);
            work(50);
            field.relays[2].set(Fault::None);
            work(50);
        }
    });
}

#[test]
fn corrupted_bytes_never_become_somebody_elses_reply() {
    let Some(field) = Field::start() else { return };
    field.survives(|field, work| {
        for step in [7, 31, 97, 499, 1009] {
            for relay in &field.relays {
                relay.set(Fault::Corrupt(step));
            }
            work(50);
            for relay in &field.relays {
                relay.set(Fault::None);
                // What waits at a server for the rest of a corrupted length waits for ever.
                relay.break_all();
            }
            work(50);
        }
    });
}

#[test]
fn a_killed_server_comes_back() {
    let Some(field) = Field::start() else { return };
    field.survives(|field, work| {
        for server in 0..SERVERS {
            field.servers[server].restart();
            work(100);
        }
    });
}

#[test]
fn a_stopped_server_holds_up_its_own_keys_only() {
    let Some(field) = Field::start() else { return };
    field.survives(|field, work| {
        field.servers[1].process().pause();
        wait_for("the silence is noticed", || {
            (field.proxy.stat(POOL, &["s1", "server_timedout"]) > 0).then_some(())
        });
        // A client that wants nothing of it is served meanwhile.
        let mut other = field.client();
        let served: Vec<usize> = (0..40)
            .filter(|n| {
                let name = format!("neighbour{n}");
                other.send(&array_of(&["SET", &name, "v"]));
                other.read_redis() == b"+OK\r\n"
            })
            .take(10)
            .collect();
        assert_eq!(served.len(), 10, "other servers' keys are served");
        field.servers[1].process().resume();
        work(200);
    });
}
