//! Servers that fail in every way and at every moment: the engine's invariants hold, each request is
//! answered once, and no request that may have changed something is sent twice.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use std::collections::BTreeMap;

use support::{cmd, redis, with_timeout};
use twemproxy_core::engine::Closed;
use twemproxy_core::ids::{ServerConnId, ServerId};
use twemproxy_core::time::Span;
use twemproxy_testkit::hand::{Hand, OnConnect};
use twemproxy_testkit::rng::Rng;

/// A world in which the test does whatever the dice say.
struct Chaos {
    hand: Hand,
    rng: Rng,
    /// Requests a connection has received and not answered: one reply each.
    owed: BTreeMap<ServerConnId, usize>,
    /// Everything a connection has received.
    streams: BTreeMap<ServerConnId, String>,
    asked: usize,
    answered: usize,
}

impl Chaos {
    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n)
    }

    /// How often the whole key of each write came to a server.
    fn writes(&self) -> BTreeMap<&str, u32> {
        let mut counts = BTreeMap::new();
        for stream in self.streams.values() {
            for word in stream
                .split_inclusive("\r\n")
                .filter(|w| w.starts_with('w'))
            {
                *counts.entry(word).or_default() += 1;
            }
        }
        counts
    }

    /// Servers look at what has come.
    fn receive(&mut self) {
        for server in 0..2 {
            for conn in self.hand.conns_of(server) {
                let bytes = self.hand.got(conn);
                *self.owed.entry(conn).or_default() += bytes.matches("*").count();
                self.streams.entry(conn).or_default().push_str(&bytes);
            }
        }
    }

    fn step(&mut self, client: twemproxy_core::ids::ClientId) {
        let server = u32::try_from(self.below(2)).unwrap_or_default();
        let conns = self.hand.conns_of(server);
        let live: Vec<_> = conns
            .into_iter()
            .filter(|&conn| !self.hand.is_closed(conn))
            .collect();
        let pick = self.below(live.len().max(1));
        let conn = live.get(pick).copied();
        let n = self.asked;
        match (self.below(12), conn) {
            (0..=2, _) => self.ask(client, &format!("GET k{n}")),
            (3, _) => self.ask(client, &format!("INCR w{n}")),
            (4, _) => self.ask(client, &format!("MGET a{n} b{n} c{n}")),
            (5..=7, Some(conn)) => {
                if let Some(owed) = self.owed.get_mut(&conn).filter(|owed| **owed > 0) {
                    *owed -= 1;
                    self.hand.say(conn, b"-WRONGTYPE no\r\n");
                }
            }
            (8, Some(conn)) => {
                let room = self.below(40);
                self.hand.limit_writes(conn, room);
            }
            (9, Some(conn)) => self.hand.unlimit_writes(conn),
            (10, Some(conn)) => {
                let why = [Closed::Eof, Closed::Reset, Closed::TimedOut];
                let why = why[self.below(3)];
                self.receive();
                self.hand.breaks(conn, why);
            }
            _ => {
                let how = [OnConnect::Accept, OnConnect::Fail(Closed::Refused)];
                let how = how[self.below(2)];
                self.hand.on_connect.insert(ServerId::initial(server), how);
                let millis = self.below(60).try_into().unwrap_or(0);
                self.hand.wait_ms(millis);
            }
        }
        self.receive();
        self.answered += self.hand.got(client).matches("\r\n").count();
    }

    fn ask(&mut self, client: twemproxy_core::ids::ClientId, words: &str) {
        // A client with too much in flight is not read, and does not insist.
        let read = self.hand.send(client, cmd(words).as_bytes());
        self.asked += usize::from(read > 0);
    }
}

#[test]
fn whatever_servers_do_each_request_is_answered_once_and_no_write_is_repeated() {
    let mut arrived = 0;
    for seed in 0..30 {
        let mut config = with_timeout(redis(2), 100);
        config.server_connections = u32::try_from(1 + seed % 3).unwrap_or(1);
        config.auto_eject_hosts = seed % 2 == 0;
        config.server_retry_timeout = Span::from_millis(50);
        let mut hand = Hand::new(config);
        let client = hand.client();
        let mut chaos = Chaos {
            hand,
            rng: Rng::new(seed),
            owed: BTreeMap::new(),
            streams: BTreeMap::new(),
            asked: 0,
            answered: 0,
        };
        for _ in 0..400 {
            chaos.step(client);
        }
        chaos.hand.wait_ms(1000);
        chaos.answered += chaos.hand.got(client).matches("\r\n").count();
        assert_eq!(chaos.answered, chaos.asked, "seed {seed}");
        let writes = chaos.writes();
        arrived += writes.len();
        let repeated = writes.iter().find(|(_, count)| **count > 1);
        assert_eq!(repeated, None, "seed {seed}");
        assert!(!chaos.hand.is_closed(client));
    }
    assert!(arrived > 200, "writes arrive: {arrived}");
}
