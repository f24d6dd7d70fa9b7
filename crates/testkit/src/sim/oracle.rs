//! What must be true: which errors are acceptable, what must balance, what must be left at the end.

use std::ops::Range;

use twemproxy_core::config::{Config, EjectPolicy};
use twemproxy_core::counters::PoolCounters;
use twemproxy_core::engine::{ClientEnd, Closed, Notice};
use twemproxy_core::ids::{ClientId, ConnId, ServerId};
use twemproxy_core::limits::RECONNECT_WAIT_MAX;
use twemproxy_core::proto::Protocol;
use twemproxy_core::topology::{Distribution, Placement, RingServer, tag};

use super::client::{Expect, Phase, Shape};
use super::mischief::{
    EARLY_MEMCACHE, EARLY_REDIS, Excuse, LIE_MEMCACHE, LIE_REDIS, SICK_MEMCACHE, SICK_REDIS,
};
use super::reply::line_of;
use super::world::{LinkPhase, Peer, World};

/// Bytes that may be held above the memory limit: what one read brings, to every server of a pool.
const MEMORY_SLACK: u64 = 1 << 20;

/// Bytes of memory that a connection may take beside twice what counts as held for it: the last chunk of its
/// send queue, what may be sent again, and queues that have grown.
const CONN_SLACK: u64 = 512 * 1024;

/// What the oracles know of a pool.
#[derive(Debug)]
pub(super) struct PoolView {
    ring: Placement,
    first_server: usize,
    server_count: usize,
    /// A server has been taken off the ring at least once, and its keys went to others.
    has_moved: bool,
    /// The last step at which some worker believed that a server was ejected.
    last_absent: Option<u64>,
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
                ring: Placement::build(pool.distribution, &servers),
                first_server,
                server_count: servers.len(),
                has_moved: false,
                last_absent: None,
                is_uncertain: pool.distribution == Distribution::Random && servers.len() > 1,
            });
            first_server += servers.len();
        }
        views
    }

    /// Its servers, among all.
    pub(super) const fn servers(&self) -> Range<usize> {
        self.first_server..self.first_server + self.server_count
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
        if view.has_moved || view.is_uncertain || view.server_count == 1 {
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
        let Some(text) = line_of(reply) else {
            return false;
        };
        let client = &self.clients[at];
        if client.doomed && self.plan.tight && text.ends_with("out of memory reading request") {
            return true;
        }
        if self.is_strict || matches!(expect.shape, Shape::Exact | Shape::Refused) {
            return false;
        }
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
        if self.was_absent(client.pool, expect) && own == Some(Closed::Refused.text()) {
            return true;
        }
        if self.may_be_missed_write(at, expect, reply) {
            return true;
        }
        self.excuses_of(at, expect).any(|excuse| match excuse {
            Excuse::Lost(why) => own == Some(why.text()),
            Excuse::Sick => [SICK_REDIS, SICK_MEMCACHE].contains(&text),
            // Nobody can tell from a part of the words that they are a refusal.
            Excuse::Refused(words) => text == words || own == Some(Closed::Invalid.text()),
            Excuse::TurnedAway => own == Some(Closed::TurnedAway.text()),
            Excuse::Lied => {
                let lies = [LIE_REDIS, LIE_MEMCACHE, EARLY_REDIS, EARLY_MEMCACHE];
                lies.contains(&text) || own == Some(Closed::Invalid.text())
            }
        })
    }

    /// What happened since a request was sent, at the servers that may have got it.
    fn excuses_of(&self, at: usize, expect: &Expect) -> impl Iterator<Item = Excuse> {
        let servers = self.pools[self.clients[at].pool].servers();
        servers
            .filter(move |&server| self.concerns(at, expect, server))
            .flat_map(move |server| {
                let server = &self.servers[server];
                let excuses = server.excuses.iter().rev();
                let recent = excuses.take_while(move |(step, _)| *step >= expect.step);
                let words = server.last_words.iter();
                let valid = words.filter(move |(until, _)| *until >= expect.at);
                recent.chain(valid)
            })
            .map(|&(_, excuse)| excuse)
    }

    /// Whether some worker believed, since a request was sent, that a server of the pool was ejected.
    fn was_absent(&self, pool: usize, expect: &Expect) -> bool {
        self.workers.iter().any(|worker| worker.ejected[pool] > 0)
            || self.pools[pool]
                .last_absent
                .is_some_and(|step| step >= expect.step)
    }

    /// Whether values may be missing because their server was ejected and keeps its keys.
    pub(super) fn may_miss(&self, pool: usize, expect: &Expect) -> bool {
        let config = &self.plan.config.pools[pool];
        config.auto_eject_policy == EjectPolicy::Miss && self.was_absent(pool, expect)
    }

    /// Whether the proxy may have answered a memcached write in the words of a miss, so that it never
    /// happened.
    pub(super) fn may_be_missed_write(&self, at: usize, expect: &Expect, reply: &[u8]) -> bool {
        const MISSES: [&str; 2] = ["NOT_STORED", "NOT_FOUND"];
        let pool = self.clients[at].pool;
        let is_memcache = self.plan.config.pools[pool].protocol == Protocol::Memcache;
        let is_miss = line_of(reply).is_some_and(|text| {
            MISSES.contains(&text)
                && matches!(expect.shape, Shape::Lines(lines) if lines.contains(&text))
        });
        is_memcache && is_miss && self.may_miss(pool, expect)
    }

    /// A worker has learned how many servers of a pool are ejected.
    pub(super) fn note_ejected(&mut self, worker: usize, pool: usize, count: usize) {
        self.workers[worker].ejected[pool] = count;
        self.pools[pool].last_absent = Some(self.step);
    }

    /// A server is ejected; where its keys go to others nobody can tell what their values will be.
    pub(super) fn pool_loses_server(&mut self, server: ServerId) {
        assert!(!self.plan.calm, "an ejection in a calm world");
        let pool = self.servers[place(server)].pool;
        let config = &self.plan.config.pools[pool];
        assert!(config.auto_eject_hosts, "a pool that never ejects does");
        if config.auto_eject_policy == EjectPolicy::Rehash {
            self.pools[pool].has_moved = true;
            self.pools[pool].is_uncertain = true;
        }
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

    /// Bytes of a liar, or of one that refuses to serve, reach the proxy.
    pub(super) fn excuse_lies(&mut self, at: usize) {
        if self.conns[at].lied {
            self.excuse(self.conns[at].server, Excuse::Lied);
        }
        if let Some(refusal) = self.conns[at].refusal {
            self.excuse_end(at, Excuse::Refused(refusal));
        }
    }

    pub(super) fn excuse_loss(&mut self, at: usize, why: Closed) {
        self.excuse_end(at, Excuse::Lost(why));
        if self.has_been_silent(at) {
            // In this very tick the engine may have given it up for that already.
            self.excuse(self.conns[at].server, Excuse::Lost(Closed::TimedOut));
        }
    }

    /// Whether no byte has come from a connection for a whole time-out.
    fn has_been_silent(&self, at: usize) -> bool {
        let conn = &self.conns[at];
        let last_arrival = self.links[conn.link].last_arrival;
        let timeout = self.plan.config.pools[self.servers[conn.server].pool].timeout;
        timeout.is_some_and(|timeout| self.now >= last_arrival + timeout.0)
    }

    /// A connection ends. If it never served anybody, those who come soon may be told the same.
    fn excuse_end(&mut self, at: usize, excuse: Excuse) {
        let conn = &self.conns[at];
        let server = conn.server;
        let is_new = self.links[conn.link].phase == LinkPhase::Connecting
            || self.handshakes_of(at) > 0 && !conn.is_greeted(&self.links[conn.link])
            || conn.refusal.is_some();
        self.excuse(server, excuse);
        if matches!(
            excuse,
            Excuse::Refused(_) | Excuse::Lost(Closed::Eof | Closed::Reset | Closed::BrokenPipe)
        ) {
            // If an error was all that came before, it was a refusal.
            self.excuse(server, Excuse::TurnedAway);
            let until = self.now + RECONNECT_WAIT_MAX.0 / 4 * 5;
            let words = &mut self.servers[server].last_words;
            words.push((until, Excuse::TurnedAway));
        }
        if is_new {
            let until = self.now + RECONNECT_WAIT_MAX.0 / 4 * 5;
            self.servers[server].last_words.push((until, excuse));
        }
    }

    /// The engine closed a server connection by itself: for silence, or for a lie.
    pub(super) fn check_close_of_server(&mut self, at: usize, was_connecting: bool) {
        let conn = &self.conns[at];
        let (server, lied) = (conn.server, conn.lied || conn.refusal.is_some());
        let link = &self.links[conn.link];
        if link.ended {
            return;
        }
        let pool = &self.plan.config.pools[self.servers[server].pool];
        let has_handshake = pool.redis_auth.is_some() || pool.redis_db > 0;
        // An attempt goes with its oldest request, which may have been moved to it.
        // A question to an ejected server is given up when it is time for the next.
        let may_hurry = !self.plan.calm && (was_connecting || has_handshake || conn.is_probe);
        let is_silent =
            pool.timeout.is_some() && may_hurry || self.has_been_silent(at) || conn.is_probe;
        assert!(
            lied || is_silent,
            "link {} to server {server} is closed for nothing",
            conn.link
        );
        if self.conns[at].lied {
            self.excuse(server, Excuse::Lied);
        }
        if is_silent {
            if was_connecting {
                let until = self.now + RECONNECT_WAIT_MAX.0 / 4 * 5;
                let excuse = Excuse::Lost(Closed::TimedOut);
                self.servers[server].last_words.push((until, excuse));
            }
            self.excuse_end(at, Excuse::Lost(Closed::TimedOut));
        }
    }

    /// An engine said something.
    pub(super) fn notice(&mut self, worker: usize, notice: Notice) {
        self.tell(|| format!("{notice:?}"));
        let client = |world: &Self, id: ClientId| {
            let link = world.link_of(worker, ConnId::Client(id))?;
            match world.links[link].peer {
                Peer::Client(client) => Some(client),
                Peer::Server(_) => None,
            }
        };
        match notice {
            Notice::ClientEnds {
                client: id, end, ..
            } => {
                if let Some(client) = client(self, id) {
                    self.note_end(client, end);
                }
            }
            Notice::Ejected(server) => self.note_change(server, true),
            Notice::Restored(server) => self.note_change(server, false),
            _ => assert!(!self.plan.calm, "{notice:?} in a calm world"),
        }
    }

    /// A client is closed, or will be.
    fn note_end(&mut self, at: usize, end: ClientEnd) {
        match end {
            ClientEnd::Eof | ClientEnd::Quit | ClientEnd::Drained | ClientEnd::Lost(_) => {}
            ClientEnd::Idle => self.check_idle(at),
            ClientEnd::Invalid => {
                let client = &self.clients[at];
                assert_ne!(client.phase, Phase::Open, "client {at} sent nothing wrong");
            }
            ClientEnd::ReplyBroken
            | ClientEnd::Overdue
            | ClientEnd::OutputLimit
            | ClientEnd::MemoryWait
            | ClientEnd::MemoryLimit
            | ClientEnd::ReplyTooLarge => self.clients[at].doomed = true,
        }
    }

    /// A server was ejected or restored, as the worker says that is told first.
    fn note_change(&mut self, server: ServerId, is_ejected: bool) {
        self.servers[place(server)].is_ejected = is_ejected;
        if is_ejected {
            self.pool_loses_server(server);
        }
    }

    /// A client is closed because it was idle.
    fn check_idle(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.idled = true;
        let limit = self.plan.config.pools[client.pool].client_idle_timeout;
        let limit = limit.expect("no client is idle for too long without a limit");
        let link = &self.links[client.link];
        let idle_since = link.last_arrival.max(link.last_departure);
        assert!(
            idle_since + limit.0 <= self.now,
            "client {at} has not been idle for {limit:?}, but since {idle_since}"
        );
    }

    /// Nobody stays who is idle for longer than twice the limit: once may be while it is looked at.
    fn check_nobody_stays_idle(&self) {
        const LATE: u64 = 20_000;
        for client in &self.clients {
            let Some(limit) = self.plan.config.pools[client.pool].client_idle_timeout else {
                continue;
            };
            let link = &self.links[client.link];
            let idle_since = link.last_arrival.max(link.last_departure);
            // A request to which no reply comes may wait in the proxy, and its client with it.
            let may_wait =
                self.plan.manners.noreply > 0 && self.workers[link.worker].engine.held() > 0;
            let is_idle = link.phase == LinkPhase::Open
                && client.phase == Phase::Open
                && !may_wait
                && client.expects.is_empty()
                && link.up.is_empty();
            assert!(
                !is_idle || self.now <= idle_since + 2 * limit.0 + LATE,
                "a client stays that is idle since {idle_since}"
            );
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
        let workers = self.workers.iter();
        let held: u64 = workers.map(|worker| worker.engine.held()).sum();
        assert!(
            limit == 0 || held <= limit + MEMORY_SLACK,
            "{held} bytes are held, {limit} are allowed"
        );
        if self.step.is_multiple_of(64) {
            self.check_footprint(held);
            for at in 0..self.workers.len() {
                self.check_gauges_of(at);
            }
            self.check_nobody_stays_idle();
        }
    }

    /// The memory that is really there is what counts as held, and little more for each connection.
    fn check_footprint(&self, held: u64) {
        let workers = self.workers.iter();
        let footprint: u64 = workers.map(|worker| worker.engine.footprint()).sum();
        let links = self.links.iter();
        let open = links.filter(|link| link.phase != LinkPhase::Closed).count();
        let slack = CONN_SLACK * u64::try_from(open).expect("a count");
        assert!(
            footprint <= 2 * held + slack,
            "{footprint} bytes are there, {held} count as held, {open} connections"
        );
    }

    fn check_gauges_of(&self, worker: usize) {
        let mut clients = vec![0; self.pools.len()];
        let mut conns = vec![0; self.servers.len()];
        let mut all = 0;
        let links = self.links.iter().filter(|link| link.worker == worker);
        for link in links.filter(|link| link.phase != LinkPhase::Closed) {
            all += 1;
            match link.peer {
                Peer::Client(at) => clients[self.clients[at].pool] += 1,
                Peer::Server(at) if link.phase == LinkPhase::Open => {
                    conns[self.conns[at].server] += 1;
                }
                Peer::Server(_) => {}
            }
        }
        let counters = self.workers[worker].engine.counters();
        assert_eq!(counters.curr_connections.value(), all);
        for (pool, live) in counters.pools.iter().zip(clients) {
            assert_eq!(pool.client_connections.value(), live, "clients of a pool");
        }
        for (server, live) in counters.servers.values().zip(conns) {
            let shown = server.server_connections.value();
            assert_eq!(shown, live, "connections of a server");
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
        for worker in &self.workers {
            let engine = &worker.engine;
            assert!(!self.plan.drain || engine.is_drained());
            assert_eq!(engine.held(), 0, "buffers are empty at the end");
            engine.check_invariants();
        }
        let accepted = u64::try_from(self.clients.len()).expect("a count");
        let ended = self.sum_of_pools(|pool| pool.client_eof.value() + pool.client_err.value());
        assert_eq!(ended, accepted, "every client ended in one way");
        let links = u64::try_from(self.links.len()).expect("a count");
        let workers = self.workers.iter();
        let total = workers.map(|worker| worker.engine.counters().total_connections.value());
        assert_eq!(total.sum::<u64>(), links);
        for at in 0..self.servers.len() {
            self.check_end_of_server(at);
        }
        if self.plan.calm {
            assert_eq!(self.sum_of_pools(|pool| pool.forward_error.value()), 0);
        }
    }

    fn check_end_of_server(&self, at: usize) {
        let mut requests = 0;
        let mut request_bytes = 0;
        for worker in &self.workers {
            let id = ServerId::initial(u32::try_from(at).expect("few servers"));
            let server = &worker.engine.counters().servers[id];
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
            requests += server.requests.value();
            request_bytes += server.request_bytes.value();
            let failures = [
                &server.server_err,
                &server.server_eof,
                &server.server_timedout,
            ];
            let has_failed = failures.iter().any(|counter| counter.value() > 0);
            assert!(!self.plan.calm || !has_failed);
        }
        if self.plan.calm {
            let heard = &self.servers[at];
            assert_eq!(requests, heard.requests);
            assert_eq!(request_bytes, heard.request_bytes);
        }
    }

    fn sum_of_pools(&self, value: impl Fn(&PoolCounters) -> u64) -> u64 {
        let workers = self.workers.iter();
        workers
            .flat_map(|worker| worker.engine.counters().pools.iter())
            .map(|pool| value(pool))
            .sum()
    }
}

/// The position of a server among the world's, none of which ever leaves.
pub(super) fn place(server: ServerId) -> usize {
    assert_eq!(server.generation, 0, "no server has come later");
    usize::try_from(server.index).expect("few servers")
}
