//! The one owner of the health of all servers of a process.
//!
//! Engines report what they see; the owner counts, decides who is ejected, when it is probed and
//! when it is back, and tells all engines alike, so that they place a key alike and a failure limit
//! counts once however many engines there are. It gives out the servers' ids and builds each topology
//! once, outside the engines: for 100 servers that takes millions of instructions, in which a worker
//! would serve nobody.
//!
//! Invariant: a server's shard is not up from its ejection until a probe was answered.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::config::{Config, EjectPolicy, PoolConfig};
use crate::ids::{PoolIdx, ServerId};
use crate::limits::PROBE_PERIOD_MIN;
use crate::num::to_u32;
use crate::slab::Slab;
use crate::time::{Micros, Span};
use crate::topology::{Distribution, Shard, ShardState, Topology};

/// From an engine to the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// A connection of the server failed, or it answered that it is in trouble; the engine's number of
    /// such reports of it.
    Failed(ServerId, u32),
    /// It answered in health, after the engine knew of a failure.
    Healthy(ServerId),
    /// It answered the probe in health.
    ProbeAnswered(ServerId),
}

/// From the owner to an engine.
#[derive(Clone, Debug)]
pub enum Mail {
    /// To all: this server has failed and is not ejected for it; its next healthy response is to be
    /// reported. With the number of the report.
    Watch(ServerId, u32),
    /// To all: where a pool's keys lie from now on.
    Topology(Arc<Topology>),
    /// To the first: open a connection and ask the server whether it is well; a probe still under
    /// way is given up.
    Probe(ServerId),
    /// To the first: count and tell an ejection. The topology follows.
    Ejected(ServerId),
    /// To the first: tell a return. The topology follows.
    Restored(ServerId),
}

impl Mail {
    /// Whether every engine gets it, or only the first.
    #[must_use]
    pub const fn is_for_all(&self) -> bool {
        matches!(self, Self::Watch(..) | Self::Topology(_))
    }
}

#[derive(Debug)]
struct Pool {
    /// In force.
    topology: Arc<Topology>,
    distribution: Distribution,
    /// The state of an ejected server's shard.
    ejected: ShardState,
    failure_limit: u32,
    retry_timeout: Span,
}

#[derive(Debug)]
struct Server {
    /// Position of its pool.
    pool: usize,
    /// Since the last healthy response.
    failures: u32,
    /// While ejected: when it is probed next.
    retry_at: Option<Micros>,
}

/// See the module.
#[derive(Debug)]
pub struct HealthOwner {
    pools: Vec<Pool>,
    servers: Slab<ServerId, Server>,
    mail: VecDeque<Mail>,
    /// The earliest probe.
    next: Option<Micros>,
}

impl HealthOwner {
    /// An owner that considers every server healthy.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut servers = Slab::default();
        let pools = config.pools.iter().enumerate();
        let pools = pools.map(|(index, pool)| Pool::new(index, pool, &mut servers));
        Self {
            pools: pools.collect(),
            servers,
            mail: VecDeque::new(),
            next: None,
        }
    }

    /// The topologies in force, in the order of the configuration.
    #[must_use]
    pub fn topologies(&self) -> Vec<Arc<Topology>> {
        let topologies = self.pools.iter().map(|pool| Arc::clone(&pool.topology));
        topologies.collect()
    }

    /// An engine reports; only those of pools with `auto_eject_hosts` do.
    pub fn handle_report(&mut self, report: Report, now: Micros) {
        match report {
            Report::Failed(id, nth) => self.failed(id, nth, now),
            Report::Healthy(id) => {
                if let Some(server) = self.servers.get_mut(id) {
                    server.failures = 0;
                }
            }
            Report::ProbeAnswered(id) => self.restore(id),
        }
    }

    /// Probes that are due are ordered.
    pub fn handle_timeout(&mut self, now: Micros) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        for id in self.servers.ids() {
            let Some(server) = self.servers.get_mut(id) else {
                continue;
            };
            if server.retry_at.is_some_and(|at| at <= now) {
                let pool = &self.pools[server.pool];
                server.retry_at = Some(now + pool.retry_timeout.max(PROBE_PERIOD_MIN));
                self.mail.push_back(Mail::Probe(id));
            }
        }
        self.find_next();
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Micros> {
        self.next
    }

    /// The next mail for the engines; `None` if there is none.
    #[must_use]
    pub fn poll_mail(&mut self) -> Option<Mail> {
        self.mail.pop_front()
    }

    fn failed(&mut self, id: ServerId, nth: u32, now: Micros) {
        let Some(server) = self.servers.get_mut(id) else {
            return;
        };
        let pool = &mut self.pools[server.pool];
        server.failures += 1;
        if server.failures < pool.failure_limit {
            self.mail.push_back(Mail::Watch(id, nth));
            return;
        }
        server.failures = 0;
        // One that fails again while ejected, on an old connection, waits anew.
        server.retry_at = Some(now + pool.retry_timeout);
        self.mail.push_back(Mail::Ejected(id));
        let topology = pool.with_state(id, pool.ejected);
        self.announce(topology);
    }

    fn restore(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(id) else {
            return;
        };
        server.failures = 0;
        if server.retry_at.take().is_some() {
            self.mail.push_back(Mail::Restored(id));
            let topology = self.pools[server.pool].with_state(id, ShardState::Up);
            self.announce(topology);
        }
    }

    /// Tells all engines what changed, if anything did.
    fn announce(&mut self, changed: Option<Topology>) {
        if let Some(topology) = changed {
            let topology = Arc::new(topology);
            let pool = &mut self.pools[topology.pool.index()];
            pool.topology = Arc::clone(&topology);
            self.mail.push_back(Mail::Topology(topology));
        }
        self.find_next();
    }

    fn find_next(&mut self) {
        let servers = self.servers.iter();
        self.next = servers.filter_map(|(_, server)| server.retry_at).min();
    }
}

impl Pool {
    /// Gives the servers of `config`, the pool at `index`, their ids.
    fn new(index: usize, config: &PoolConfig, servers: &mut Slab<ServerId, Server>) -> Self {
        let shards = config.servers.iter().map(|server| Shard {
            primary: servers.insert_with(|_| Server {
                pool: index,
                failures: 0,
                retry_at: None,
            }),
            name: (&*server.name).into(),
            weight: server.weight,
            state: ShardState::Up,
        });
        let pool = PoolIdx(to_u32(index));
        let topology = Topology::build(pool, 0, shards.collect(), config.distribution);
        Self {
            topology: Arc::new(topology),
            distribution: config.distribution,
            ejected: match config.auto_eject_policy {
                EjectPolicy::Rehash => ShardState::Rehashed,
                EjectPolicy::Fail | EjectPolicy::Miss => ShardState::Down,
            },
            failure_limit: config.server_failure_limit,
            retry_timeout: config.server_retry_timeout,
        }
    }

    /// The next topology, in which the shard of `id` is in `state`; `None` if it is already.
    fn with_state(&self, id: ServerId, state: ShardState) -> Option<Topology> {
        let mut shards = self.topology.shards.to_vec();
        let shard = shards.iter_mut().find(|shard| shard.primary == id)?;
        if shard.state == state {
            return None;
        }
        shard.state = state;
        let version = self.topology.version + 1;
        let pool = self.topology.pool;
        Some(Topology::build(pool, version, shards, self.distribution))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;
    use crate::proto::Protocol;

    fn owner(failure_limit: u32) -> HealthOwner {
        let pool = |count: usize| {
            let mut pool = PoolConfig::new("p", Protocol::Redis);
            let server = |_| ServerConfig {
                name: "s".into(),
                weight: 1,
            };
            pool.servers = (0..count).map(server).collect();
            pool.server_failure_limit = failure_limit;
            pool.server_retry_timeout = Span(1000);
            pool
        };
        HealthOwner::new(&Config {
            pools: [2, 1, 3].map(pool).into(),
            ..Config::default()
        })
    }

    fn named(what: &str, id: ServerId) -> alloc::string::String {
        assert_eq!(id.generation, 0);
        alloc::format!("{what}(#{})", id.index)
    }

    fn told(owner: &mut HealthOwner) -> Vec<alloc::string::String> {
        core::iter::from_fn(|| owner.poll_mail())
            .map(|mail| match mail {
                Mail::Topology(topology) => alloc::format!(
                    "pool {} version {}: {:?}",
                    topology.pool.0,
                    topology.version,
                    topology
                        .shards
                        .iter()
                        .map(|shard| shard.state != ShardState::Up)
                        .collect::<Vec<_>>()
                ),
                Mail::Watch(id, _) => named("Watch", id),
                Mail::Probe(id) => named("Probe", id),
                Mail::Ejected(id) => named("Ejected", id),
                Mail::Restored(id) => named("Restored", id),
            })
            .collect()
    }

    #[test]
    fn failures_count_once_for_all_engines_and_a_healthy_response_forgets_them() {
        let (mut owner, id, now) = (owner(2), ServerId::initial(4), Micros(5));
        owner.handle_report(Report::Failed(id, 1), now);
        assert_eq!(told(&mut owner), ["Watch(#4)"]);
        owner.handle_report(Report::Healthy(id), now);
        owner.handle_report(Report::Failed(id, 1), now);
        assert_eq!(told(&mut owner), ["Watch(#4)"]);
        owner.handle_report(Report::Failed(id, 1), now);
        let expected = ["Ejected(#4)", "pool 2 version 1: [false, true, false]"];
        assert_eq!(told(&mut owner), expected);
        assert_eq!(owner.poll_timeout(), Some(Micros(1005)));
    }

    #[test]
    fn an_ejected_server_is_probed_each_period_until_it_answers() {
        let (mut owner, id) = (owner(1), ServerId::initial(2));
        owner.handle_report(Report::Failed(id, 1), Micros(0));
        told(&mut owner);
        owner.handle_timeout(Micros(999));
        assert_eq!(told(&mut owner), Vec::<&str>::new());
        owner.handle_timeout(Micros(1000));
        assert_eq!(told(&mut owner), ["Probe(#2)"]);
        let period = PROBE_PERIOD_MIN;
        assert_eq!(owner.poll_timeout(), Some(Micros(1000) + period));
        owner.handle_timeout(Micros(1000) + period);
        assert_eq!(told(&mut owner), ["Probe(#2)"]);
        owner.handle_report(Report::ProbeAnswered(id), Micros(20_000));
        owner.handle_report(Report::ProbeAnswered(id), Micros(20_000));
        let expected = ["Restored(#2)", "pool 1 version 2: [false]"];
        assert_eq!(told(&mut owner), expected);
        assert_eq!(owner.poll_timeout(), None);
    }

    #[test]
    fn a_report_about_a_server_that_left_misses_its_successor() {
        let mut owner = owner(1);
        let id = ServerId::initial(2);
        let stale = ServerId {
            generation: 1,
            ..id
        };
        for report in [
            Report::Failed(stale, 1),
            Report::Healthy(stale),
            Report::ProbeAnswered(stale),
        ] {
            owner.handle_report(report, Micros(0));
        }
        assert_eq!(told(&mut owner), Vec::<&str>::new());
        assert_eq!(owner.poll_timeout(), None);
    }

    #[test]
    fn who_fails_again_while_ejected_waits_anew() {
        let (mut owner, id) = (owner(1), ServerId::initial(0));
        owner.handle_report(Report::Failed(id, 1), Micros(0));
        owner.handle_report(Report::Failed(id, 1), Micros(500));
        assert_eq!(owner.poll_timeout(), Some(Micros(1500)));
    }
}
