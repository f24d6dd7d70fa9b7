//! What must be true: which errors are acceptable, what must balance, what must be left at the end.

use std::collections::BTreeMap;

use twemproxy_core::config::Config;
use twemproxy_core::engine::{Closed, Notice};
use twemproxy_core::ids::ConnId;
use twemproxy_core::proto::Protocol;
use twemproxy_core::ring::{Distribution, Ring, RingServer, tag};

use super::client::{Expect, Phase, Shape, line_of};
use super::server::{
    EARLY_MEMCACHE, EARLY_REDIS, Excuse, LIE_MEMCACHE, LIE_REDIS, SICK_MEMCACHE, SICK_REDIS,
};
use super::world::{LinkPhase, Peer, World};

/// Bytes that may be held above the memory limit: what one read brings, to every server of a pool.
const MEMORY_SLACK: u64 = 1 << 20;

/// What the oracles know of a pool.
#[derive(Debug)]
pub(super) struct PoolView {
    ring: Ring,
    first_server: usize,
    server_count: usize,
    /// A server has been taken off the ring at least once.
    was_ejected: bool,
    /// A key may live on more than one server: values of writes cannot be foretold.
    pub(super) is_uncertain: bool,
}

impl PoolView {
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let mut first_server = 0;
        let mut views = Vec::new();
        for pool in &config.pools {
            let servers: Vec<_> = pool
                .servers
                .iter()
                .map(|server| RingServer {
                    name: &server.name,
                    weight: server.weight,
                    live: true,
                })
                .collect();
            views.push(Self {
                ring: Ring::build(pool.distribution, &servers),
                first_server,
                server_count: servers.len(),
                was_ejected: false,
                is_uncertain: pool.distribution == Distribution::Random && servers.len() > 1,
            });
            first_server += servers.len();
        }
        views
    }
}

impl World {
    /// Whether a request may have been sent to a server.
    fn concerns(&self, at: usize, expect: &Expect, server: usize) -> bool {
        let client = &self.clients[at];
        let view = &self.pools[client.pool];
        if self.servers[server].pool != client.pool {
            return false;
        }
        if view.was_ejected || view.is_uncertain || view.server_count == 1 {
            return true;
        }
        if expect.keys.is_empty() {
            return true;
        }
        let config = &self.plan.config.pools[client.pool];
        expect.keys.iter().any(|key| {
            let hash = config.hash.hash(tag::hashed_part(key, config.hash_tag));
            let owner = view.ring.pick(hash).expect("all servers are on it");
            usize::try_from(owner) == Ok(self.servers[server].position)
        })
    }

    /// Whether something happened to a request that explains this reply.
    pub(super) fn is_excused(&self, at: usize, expect: &Expect, reply: &[u8]) -> bool {
        if self.is_strict || matches!(expect.shape, Shape::Exact | Shape::Refused) {
            return false;
        }
        let Some(text) = line_of(reply) else {
            return false;
        };
        let client = &self.clients[at];
        let pool = &self.plan.config.pools[client.pool];
        let own = match pool.protocol {
            Protocol::Redis => text.strip_prefix("-ERR "),
            Protocol::Memcache => text.strip_prefix("SERVER_ERROR "),
        };
        if client.doomed && own == Some("out of memory reading request") {
            return true;
        }
        let age = self.now - expect.at;
        let is_old = pool.timeout.is_some_and(|timeout| age >= timeout.0);
        if is_old && own == Some(Closed::TimedOut.text()) {
            return true;
        }
        if self.pools[client.pool].was_ejected && own == Some(Closed::Refused.text()) {
            return true;
        }
        self.excuses_of(at, expect).any(|excuse| match excuse {
            Excuse::Lost(why) => own == Some(why.text()),
            Excuse::Sick => [SICK_REDIS, SICK_MEMCACHE].contains(&text),
            Excuse::Lied => {
                let lies = [LIE_REDIS, LIE_MEMCACHE, EARLY_REDIS, EARLY_MEMCACHE];
                lies.contains(&text) || own == Some(Closed::Invalid.text())
            }
        })
    }

    /// What happened since a request was sent, at the servers that may have got it.
    fn excuses_of(&self, at: usize, expect: &Expect) -> impl Iterator<Item = Excuse> {
        let view = &self.pools[self.clients[at].pool];
        let servers = view.first_server..view.first_server + view.server_count;
        servers
            .filter(move |&server| self.concerns(at, expect, server))
            .flat_map(move |server| {
                let excuses = self.servers[server].excuses.iter().rev();
                excuses.take_while(move |(step, _)| *step >= expect.step)
            })
            .map(|&(_, excuse)| excuse)
    }

    /// Whether a read may have been sent a second time: writes that its client sent later may then
    /// have been executed before it.
    pub(super) fn may_be_repeated(&self, at: usize, expect: &Expect) -> bool {
        let is_read = expect.writes.is_empty() && !expect.keys.is_empty();
        let is_loss = |excuse| matches!(excuse, Excuse::Lost(_) | Excuse::Lied);
        !self.is_strict && is_read && self.excuses_of(at, expect).any(is_loss)
    }

    /// Whether a success may have been a server's lie.
    pub(super) fn was_lied_to(&self, at: usize, expect: &Expect) -> bool {
        !self.is_strict
            && self
                .excuses_of(at, expect)
                .any(|excuse| excuse == Excuse::Lied)
    }

    pub(super) fn excuse(&mut self, server: usize, excuse: Excuse) {
        assert!(!self.plan.calm, "nothing goes wrong in a calm world");
        let entry = (self.step, excuse);
        let excuses = &mut self.servers[server].excuses;
        if excuses.last() != Some(&entry) {
            excuses.push(entry);
        }
    }

    /// Bytes of a liar reach the proxy.
    pub(super) fn excuse_lies(&mut self, conn: usize) {
        if self.conns[conn].lied {
            self.excuse(self.conns[conn].server, Excuse::Lied);
        }
    }

    pub(super) fn excuse_loss(&mut self, conn: usize, why: Closed) {
        self.excuse(self.conns[conn].server, Excuse::Lost(why));
    }

    /// The engine closed a server connection by itself: for silence, or for a lie.
    pub(super) fn check_close_of_server(&mut self, at: usize, was_connecting: bool) {
        let conn = &self.conns[at];
        let (server, lied) = (conn.server, conn.lied);
        let link = &self.links[conn.link];
        if link.ended {
            return;
        }
        let pool = &self.plan.config.pools[self.servers[server].pool];
        let has_handshake = pool.redis_auth.is_some() || pool.redis_db > 0;
        // An attempt goes with its oldest request, which may have been moved to it.
        // A question to an ejected server is given up when it is time for the next.
        let may_hurry = !self.plan.calm && (was_connecting || has_handshake || conn.is_probe);
        let is_silent = pool
            .timeout
            .is_some_and(|timeout| may_hurry || self.now >= link.last_arrival + timeout.0)
            || conn.is_probe;
        assert!(
            lied || is_silent,
            "link {} to server {server} is closed for nothing",
            conn.link
        );
        if lied {
            self.excuse(server, Excuse::Lied);
        }
        if is_silent {
            self.excuse(server, Excuse::Lost(Closed::TimedOut));
        }
    }

    /// The engine said something.
    pub(super) fn notice(&mut self, notice: Notice) {
        self.tell(|| format!("{notice:?}"));
        match notice {
            Notice::ClientOutputLimit(id)
            | Notice::ClientReplyBroken(id)
            | Notice::ClientMemory(id) => {
                if let Some(link) = self.link_of(ConnId::Client(id))
                    && let Peer::Client(client) = self.links[link].peer
                {
                    self.clients[client].doomed = true;
                }
            }
            Notice::ClientInvalid(id) => {
                let link = self.link_of(ConnId::Client(id));
                let Some(Peer::Client(client)) = link.map(|link| self.links[link].peer) else {
                    return;
                };
                assert_ne!(
                    self.clients[client].phase,
                    Phase::Open,
                    "client {client} sent nothing wrong"
                );
            }
            Notice::Ejected(server) => {
                assert!(!self.plan.calm, "{notice:?} in a calm world");
                let pool = self.servers[server.index()].pool;
                self.servers[server.index()].is_ejected = true;
                assert!(
                    self.plan.config.pools[pool].auto_eject_hosts,
                    "{notice:?} in a pool that never ejects"
                );
                self.pools[pool].was_ejected = true;
                self.pools[pool].is_uncertain = true;
            }
            Notice::Restored(server) => self.servers[server.index()].is_ejected = false,
            _ => assert!(!self.plan.calm, "{notice:?} in a calm world"),
        }
    }

    /// Clients of a pool that the engine serves.
    pub(super) fn live_clients(&self, pool: usize) -> u32 {
        let live = self.links.iter().filter(|link| {
            link.phase != LinkPhase::Closed
                && matches!(link.peer, Peer::Client(client) if self.clients[client].pool == pool)
        });
        u32::try_from(live.count()).expect("few clients")
    }

    /// Gauges say what is; memory is bounded. Not at every step: it is slow.
    pub(super) fn check_gauges(&self) {
        let limit = self.plan.config.memory_limit;
        let held = self.engine.held();
        assert!(
            limit == 0 || held <= limit + MEMORY_SLACK,
            "{held} bytes are held, {limit} are allowed"
        );
        if !self.step.is_multiple_of(64) {
            return;
        }
        let counters = self.engine.counters();
        let mut clients = BTreeMap::<usize, u64>::new();
        let mut conns = BTreeMap::<usize, u64>::new();
        let mut all = 0;
        for link in &self.links {
            if link.phase == LinkPhase::Closed {
                continue;
            }
            all += 1;
            match link.peer {
                Peer::Client(at) => *clients.entry(self.clients[at].pool).or_default() += 1,
                Peer::Server(at) if link.phase == LinkPhase::Open => {
                    *conns.entry(self.conns[at].server).or_default() += 1;
                }
                Peer::Server(_) => {}
            }
        }
        assert_eq!(counters.curr_connections.value(), all);
        for (at, pool) in counters.pools.iter().enumerate() {
            let live = clients.get(&at).copied().unwrap_or(0);
            assert_eq!(pool.client_connections.value(), live, "clients of a pool");
        }
        for (at, server) in counters.servers.iter().enumerate() {
            let live = conns.get(&at).copied().unwrap_or(0);
            assert_eq!(
                server.server_connections.value(),
                live,
                "connections of server {at}"
            );
        }
    }

    /// Whether every client has been told everything.
    pub(super) fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| match client.phase {
            Phase::Open => client.expects.is_empty(),
            Phase::Closing => false,
            Phase::Gone => true,
        })
    }

    /// Once the faults have stopped, silence is a failure.
    pub(super) fn check_answered(&self) {
        for (at, client) in self.clients.iter().enumerate() {
            match client.phase {
                Phase::Open => assert!(
                    client.expects.is_empty(),
                    "client {at} waits for ever for {} replies, the first {:?}",
                    client.expects.len(),
                    client.expects.front()
                ),
                Phase::Closing => panic!(
                    "client {at} waits for ever to be closed, and for {} replies",
                    client.expects.len()
                ),
                Phase::Gone => {}
            }
        }
    }

    /// At the end nothing is left.
    pub(super) fn check_end(&self) {
        for (at, client) in self.clients.iter().enumerate() {
            assert_eq!(client.phase, Phase::Gone, "client {at} is gone at the end");
        }
        assert!(!self.plan.drain || self.engine.is_drained());
        assert_eq!(self.engine.held(), 0, "buffers are empty at the end");
        let counters = self.engine.counters();
        let accepted = u64::try_from(self.clients.len()).expect("a count");
        let ended: u64 = counters
            .pools
            .iter()
            .map(|pool| pool.client_eof.value() + pool.client_err.value())
            .sum();
        assert_eq!(ended, accepted, "every client ended in one way");
        let links = u64::try_from(self.links.len()).expect("a count");
        assert_eq!(counters.total_connections.value(), links);
        for (at, server) in counters.servers.iter().enumerate() {
            let queues = [
                &server.in_queue,
                &server.in_queue_bytes,
                &server.out_queue,
                &server.out_queue_bytes,
            ];
            assert!(
                queues.iter().all(|queue| queue.value() == 0),
                "the queues of server {at} are empty at the end"
            );
            assert!(server.responses.value() <= server.requests.value());
            if self.plan.calm {
                let heard = &self.servers[at];
                assert_eq!(server.requests.value(), heard.requests);
                assert_eq!(server.request_bytes.value(), heard.request_bytes);
                let failures = [
                    &server.server_err,
                    &server.server_eof,
                    &server.server_timedout,
                ];
                assert!(failures.iter().all(|counter| counter.value() == 0));
            }
        }
        if self.plan.calm {
            let errors = counters.pools.iter().map(|pool| pool.forward_error.value());
            assert_eq!(errors.sum::<u64>(), 0);
        }
    }
}
