//! Any list of operations on an engine: connections come and go, bytes arrive in pieces, kernels
//! take them or not, time passes.

use std::collections::BTreeSet;

use twemproxy_core::config::Config;
use twemproxy_core::engine::Closed;
use twemproxy_core::ids::{ClientId, ServerConnId, ServerId};
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;

use crate::hand::{self, Hand, OnConnect};
use crate::model::redis::array_of;
use crate::rng::Rng;

const SERVERS: u32 = 3;
const CLIENTS_MAX: usize = 8;

/// Performs the operations that `bytes` encode: first the configuration, then one after the other.
pub fn operations(bytes: &[u8]) {
    let mut script = Script { rest: bytes };
    let protocol = if script.one_in(2) {
        Protocol::Memcache
    } else {
        Protocol::Redis
    };
    let mut world = World::new(config(protocol, &mut script), protocol);
    while !script.rest.is_empty() {
        world.step(&mut script);
        world.notice_hanging_connections();
    }
    world.finish();
}

fn config(protocol: Protocol, script: &mut Script<'_>) -> Config {
    let mut pool = hand::pool(protocol, 3);
    pool.timeout = script.one_in(2).then(|| Span::from_millis(100));
    pool.auto_eject_hosts = script.one_in(2);
    pool.preconnect = script.one_in(4);
    pool.server_connections = 1 + u32::from(script.byte() % 3);
    pool.client_connections = u32::from(script.byte() % 4);
    pool.server_failure_limit = 1 + u32::from(script.byte() % 2);
    pool.server_retry_timeout = Span::from_millis(300);
    pool.allow_flush = script.one_in(2);
    if script.one_in(4) {
        pool.request_size_limit = 512;
        pool.client_output_limit = 1024;
    }
    if protocol == Protocol::Redis && script.one_in(4) {
        pool.redis_auth = Some(b"secret"[..].into());
        pool.redis_db = 1;
    }
    let mut config = Config {
        pools: vec![pool],
        ..Config::default()
    };
    if script.one_in(4) {
        config.memory_limit = 64 * 1024;
    }
    config
}

/// The operations not performed yet; zeroes when they are used up.
struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        first
    }

    fn one_in(&mut self, n: u8) -> bool {
        self.byte() % n == 1
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::from(self.byte());
        from.get(at.checked_rem(from.len())?).copied()
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        bytes
    }
}

struct World {
    hand: Hand,
    protocol: Protocol,
    clients: Vec<ClientId>,
    /// Connections that neither stand nor failed.
    hanging: BTreeSet<ServerConnId>,
    /// Connections the world knows about.
    known: BTreeSet<ServerConnId>,
    ended_clients: BTreeSet<ClientId>,
    ended_servers: BTreeSet<ServerConnId>,
}

impl World {
    fn new(config: Config, protocol: Protocol) -> Self {
        let mut world = Self {
            hand: Hand::with_config(config),
            protocol,
            clients: Vec::new(),
            hanging: BTreeSet::new(),
            known: BTreeSet::new(),
            ended_clients: BTreeSet::new(),
            ended_servers: BTreeSet::new(),
        };
        world.notice_hanging_connections();
        world
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => self.accept(),
            1..=4 => self.client_sends(script),
            5..=7 => self.server_says(script),
            8 => self.hand.wait_ms(u64::from(script.byte())),
            9 => self.breaks(script),
            10 => self.half_closes(script),
            11 => self.limits_writes(script),
            12 => self.unlimits_writes(script),
            13 => self.changes_connects(script),
            14 => self.connects_late(script),
            _ => {
                if script.byte() == 255 {
                    let now = self.hand.now;
                    self.hand.engine.start_drain(now);
                    self.hand.settle();
                }
            }
        }
    }

    fn accept(&mut self) {
        self.clients.retain(|&client| !self.hand.is_closed(client));
        if self.clients.len() < CLIENTS_MAX
            && let Ok(client) = self.hand.try_client()
        {
            self.clients.push(client);
            self.hand.settle();
        }
    }

    fn client_sends(&mut self, script: &mut Script<'_>) {
        let Some(client) = script.pick(&self.open_clients()) else {
            return self.accept();
        };
        let bytes = match script.byte() {
            0..=31 => script.bytes().to_vec(),
            choice => request(self.protocol, choice),
        };
        if !self.ended_clients.contains(&client) {
            self.hand.send(client, &bytes);
        }
    }

    fn server_says(&mut self, script: &mut Script<'_>) {
        let Some(conn) = script.pick(&self.standing()) else {
            return;
        };
        let bytes = match script.byte() {
            0..=31 => script.bytes().to_vec(),
            choice => response(self.protocol, choice),
        };
        if !self.ended_servers.contains(&conn) {
            self.hand.say(conn, &bytes);
        }
    }

    fn breaks(&mut self, script: &mut Script<'_>) {
        let why = script.pick(&Closed::ALL).expect("there are reasons");
        if script.one_in(2) {
            if let Some(client) = script.pick(&self.open_clients()) {
                self.hand.breaks(client, why);
            }
        } else if let Some(conn) = script.pick(&self.open_servers()) {
            self.hanging.remove(&conn);
            self.hand.breaks(conn, why);
        }
    }

    fn half_closes(&mut self, script: &mut Script<'_>) {
        if script.one_in(2) {
            if let Some(client) = script.pick(&self.open_clients())
                && self.ended_clients.insert(client)
            {
                self.hand.half_closes(client);
            }
        } else if let Some(conn) = script.pick(&self.standing())
            && self.ended_servers.insert(conn)
        {
            self.hand.half_closes(conn);
        }
    }

    fn limits_writes(&mut self, script: &mut Script<'_>) {
        let room = usize::from(script.byte());
        if script.one_in(2) {
            if let Some(client) = script.pick(&self.open_clients()) {
                self.hand.limit_writes(client, room);
            }
        } else if let Some(conn) = script.pick(&self.standing()) {
            self.hand.limit_writes(conn, room);
        }
    }

    fn unlimits_writes(&mut self, script: &mut Script<'_>) {
        if script.one_in(2) {
            if let Some(client) = script.pick(&self.open_clients()) {
                self.hand.unlimit_writes(client);
            }
        } else if let Some(conn) = script.pick(&self.standing()) {
            self.hand.unlimit_writes(conn);
        }
    }

    fn changes_connects(&mut self, script: &mut Script<'_>) {
        let server = ServerId::initial(u32::from(script.byte()) % SERVERS);
        let how = match script.byte() % 3 {
            0 => OnConnect::Accept,
            1 => OnConnect::Fail(Closed::Refused),
            _ => OnConnect::Hang,
        };
        self.hand.on_connect.insert(server, how);
    }

    fn connects_late(&mut self, script: &mut Script<'_>) {
        let hanging: Vec<ServerConnId> = self.hanging.iter().copied().collect();
        if let Some(conn) = script.pick(&hanging) {
            self.hanging.remove(&conn);
            if !self.hand.is_closed(conn) {
                self.hand.connected(conn);
            }
        }
    }

    fn open_clients(&self) -> Vec<ClientId> {
        let open = |client: &ClientId| !self.hand.is_closed(*client);
        self.clients.iter().copied().filter(open).collect()
    }

    fn open_servers(&self) -> Vec<ServerConnId> {
        (0..SERVERS)
            .flat_map(|server| self.hand.conns_of(server))
            .filter(|&conn| !self.hand.is_closed(conn))
            .collect()
    }

    /// Open connections that are made.
    fn standing(&self) -> Vec<ServerConnId> {
        let mut open = self.open_servers();
        open.retain(|conn| !self.hanging.contains(conn));
        open
    }

    /// How connects behave changes in a step of its own, so what is new hangs if they hang now.
    fn notice_hanging_connections(&mut self) {
        for server in 0..SERVERS {
            let hangs =
                self.hand.on_connect.get(&ServerId::initial(server)) == Some(&OnConnect::Hang);
            for conn in self.hand.conns_of(server) {
                if self.known.insert(conn) && hangs {
                    self.hanging.insert(conn);
                }
            }
        }
    }

    /// All clients leave; nothing of theirs may stay.
    fn finish(mut self) {
        const FOR_EVER_MS: u64 = 60_000;
        for client in self.open_clients() {
            self.hand.unlimit_writes(client);
            if !self.hand.is_closed(client) {
                self.hand.breaks(client, Closed::Eof);
            }
        }
        for server in 0..SERVERS {
            self.hand
                .on_connect
                .insert(ServerId::initial(server), OnConnect::Fail(Closed::Refused));
        }
        for conn in self.open_servers() {
            if !self.hand.is_closed(conn) {
                self.hand.breaks(conn, Closed::Reset);
            }
        }
        self.hand.wait_ms(FOR_EVER_MS);
        assert!(self.open_clients().is_empty());
        let now = self.hand.now;
        self.hand.engine.start_drain(now);
        self.hand.settle();
        assert!(self.hand.engine.is_drained(), "nothing is left to wait for");
    }
}

fn request(protocol: Protocol, choice: u8) -> Vec<u8> {
    let key = format!("key{}", choice % 5);
    let other = format!("key{}", choice % 7);
    if protocol == Protocol::Memcache {
        let line = match choice % 8 {
            0 => format!("get {key}\r\n"),
            1 => format!("get {key} {other} a b c\r\n"),
            2 => format!("set {key} 0 0 3\r\nabc\r\n"),
            3 => format!("set {key} 0 0 3 noreply\r\nabc\r\n"),
            4 => "flush_all\r\n".to_owned(),
            5 => format!("set {key} 0 0 700\r\n{}\r\n", "x".repeat(700)),
            6 => "version\r\nquit\r\n".to_owned(),
            _ => "nosuch\r\n".to_owned(),
        };
        return line.into_bytes();
    }
    match choice % 8 {
        0 => array_of(&["GET", &key]),
        1 => array_of(&["MGET", &key, &other, "a", "b"]),
        2 => array_of(&["SET", &key, "abc"]),
        3 => array_of(&["MSET", &key, "1", &other, "2"]),
        4 => array_of(&["DEL", &key, &other, "c"]),
        5 => array_of(&["SET", &key, &"x".repeat(700)]),
        6 => array_of(&["AUTH", "secret"]),
        _ => b"PING\r\n".to_vec(),
    }
}

fn response(protocol: Protocol, choice: u8) -> Vec<u8> {
    let text = match (protocol, choice % 8) {
        (Protocol::Redis, 0..=2) => "+OK\r\n",
        (Protocol::Redis, 3) => "*1\r\n$1\r\na\r\n",
        (Protocol::Redis, 4) => "*2\r\n$1\r\na\r\n$-1\r\n",
        (Protocol::Redis, 5) => ":1\r\n",
        (Protocol::Redis, 6) => "-LOADING wait\r\n",
        (Protocol::Redis, _) => "$5\r\nhel",
        (Protocol::Memcache, 0..=2) => "END\r\n",
        (Protocol::Memcache, 3) => "STORED\r\n",
        (Protocol::Memcache, 4) => "VALUE key1 0 1\r\na\r\nEND\r\n",
        (Protocol::Memcache, 5) => "OK\r\n",
        (Protocol::Memcache, 6) => "SERVER_ERROR out of memory\r\n",
        (Protocol::Memcache, _) => "VALUE key1 0 5\r\nhel",
    };
    text.as_bytes().to_vec()
}

/// Operations drawn at random.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..64)
        .map(|seed| {
            let mut rng = Rng::new(seed);
            let len = 40 + rng.below(400);
            rng.bytes(len)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_operations_leave_nothing_behind() {
        for seed in 0..500 {
            let mut rng = Rng::new(seed);
            let len = rng.below(600);
            operations(&rng.bytes(len));
        }
    }
}
