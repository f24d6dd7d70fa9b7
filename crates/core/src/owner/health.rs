//! The one owner of the health of all servers of a process.
//!
//! Engines report what they see; the owner counts, decides who is ejected, when it is probed and
//! when it is back, and tells all engines alike, so that they place a key alike and a failure limit
//! counts once however many engines there are. A process with one engine has its owner inside it,
//! without any delay.
//!
//! Invariant: a server is off its pool's topology from its ejection until a probe was answered.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::config::Config;
use crate::ids::{PoolIdx, ServerIdx};
use crate::limits::PROBE_PERIOD_MIN;
use crate::num::{to_u32, to_usize};
use crate::time::{Micros, Span};

/// From an engine to the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// A connection of the server failed, or it answered that it is in trouble.
    Failed(ServerIdx),
    /// It answered in health, after the engine knew of a failure.
    Healthy(ServerIdx),
    /// It answered the probe in health.
    ProbeAnswered(ServerIdx),
}

/// From the owner to an engine.
#[derive(Clone, Debug)]
pub enum Mail {
    /// To all: this server has failed; its next healthy response is to be reported.
    Watch(ServerIdx),
    /// To all: who is ejected now.
    Topology(Topology),
    /// To the first: open a connection and ask the server whether it is well; a probe still under
    /// way is given up.
    Probe(ServerIdx),
    /// To the first: count and tell an ejection. The topology follows.
    Ejected(ServerIdx),
    /// To the first: tell a return. The topology follows.
    Restored(ServerIdx),
}

impl Mail {
    /// Whether every engine gets it, or only the first.
    #[must_use]
    pub const fn is_for_all(&self) -> bool {
        matches!(self, Self::Watch(_) | Self::Topology(_))
    }
}

/// Which servers of a pool are ejected.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Whose.
    pub pool: PoolIdx,
    /// Grows with each change of the pool.
    pub version: u64,
    /// By position in the pool.
    pub ejected: Arc<[bool]>,
}

#[derive(Debug)]
struct Pool {
    first_server: u32,
    version: u64,
    servers: Vec<Server>,
    failure_limit: u32,
    retry_timeout: Span,
}

#[derive(Clone, Copy, Default, Debug)]
struct Server {
    /// Since the last healthy response.
    failures: u32,
    /// While ejected: when it is probed next.
    retry_at: Option<Micros>,
}

/// See the module.
#[derive(Debug)]
pub struct HealthOwner {
    pools: Vec<Pool>,
    mail: VecDeque<Mail>,
    /// The earliest probe.
    next: Option<Micros>,
}

impl HealthOwner {
    /// An owner to whom all servers are well.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut first_server = 0;
        let pools = config.pools.iter().map(|pool| {
            let first = first_server;
            first_server += to_u32(pool.servers.len());
            Pool {
                first_server: first,
                version: 0,
                servers: pool.servers.iter().map(|_| Server::default()).collect(),
                failure_limit: pool.server_failure_limit,
                retry_timeout: pool.server_retry_timeout,
            }
        });
        Self {
            pools: pools.collect(),
            mail: VecDeque::new(),
            next: None,
        }
    }

    /// An engine reports; only those of pools with `auto_eject_hosts` do.
    pub fn handle_report(&mut self, report: Report, now: Micros) {
        match report {
            Report::Failed(id) => self.failed(id, now),
            Report::Healthy(id) => {
                let (index, position) = self.find(id);
                self.pools[index].servers[position].failures = 0;
            }
            Report::ProbeAnswered(id) => {
                let (index, position) = self.find(id);
                let server = &mut self.pools[index].servers[position];
                server.failures = 0;
                if server.retry_at.take().is_some() {
                    self.mail.push_back(Mail::Restored(id));
                    self.announce(index);
                }
            }
        }
    }

    /// Probes that are due are ordered.
    pub fn handle_timeout(&mut self, now: Micros) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        for pool in &mut self.pools {
            let period = pool.retry_timeout.max(PROBE_PERIOD_MIN);
            for (id, server) in (pool.first_server..).zip(&mut pool.servers) {
                if server.retry_at.is_some_and(|at| at <= now) {
                    server.retry_at = Some(now + period);
                    self.mail.push_back(Mail::Probe(ServerIdx(id)));
                }
            }
        }
        self.find_next();
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Micros> {
        self.next
    }

    /// What the engines are to be told, until `None`.
    #[must_use]
    pub fn poll_mail(&mut self) -> Option<Mail> {
        self.mail.pop_front()
    }

    fn failed(&mut self, id: ServerIdx, now: Micros) {
        let (index, position) = self.find(id);
        let pool = &mut self.pools[index];
        let server = &mut pool.servers[position];
        server.failures += 1;
        if server.failures < pool.failure_limit {
            if server.failures == 1 {
                self.mail.push_back(Mail::Watch(id));
            }
            return;
        }
        server.failures = 0;
        // One that fails again while ejected, on an old connection, waits anew.
        server.retry_at = Some(now + pool.retry_timeout);
        self.mail.push_back(Mail::Ejected(id));
        self.announce(index);
    }

    /// Tells everybody who is ejected.
    fn announce(&mut self, index: usize) {
        let pool = &mut self.pools[index];
        pool.version += 1;
        let ejected = pool.servers.iter().map(|server| server.retry_at.is_some());
        self.mail.push_back(Mail::Topology(Topology {
            pool: PoolIdx(to_u32(index)),
            version: pool.version,
            ejected: ejected.collect(),
        }));
        self.find_next();
    }

    fn find_next(&mut self) {
        let servers = self.pools.iter().flat_map(|pool| &pool.servers);
        self.next = servers.filter_map(|server| server.retry_at).min();
    }

    /// The server's pool and its position in it.
    fn find(&self, id: ServerIdx) -> (usize, usize) {
        let after = self.pools.partition_point(|pool| pool.first_server <= id.0);
        let index = after.checked_sub(1).expect("the first pool begins at 0");
        (index, to_usize(id.0 - self.pools[index].first_server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PoolConfig, ServerConfig};
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

    fn told(owner: &mut HealthOwner) -> Vec<alloc::string::String> {
        core::iter::from_fn(|| owner.poll_mail())
            .map(|mail| match mail {
                Mail::Topology(topology) => alloc::format!(
                    "pool {} version {}: {:?}",
                    topology.pool.0,
                    topology.version,
                    &topology.ejected[..]
                ),
                other => alloc::format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn failures_count_once_for_all_engines_and_a_healthy_response_forgets_them() {
        let (mut owner, id, now) = (owner(2), ServerIdx(4), Micros(5));
        owner.handle_report(Report::Failed(id), now);
        assert_eq!(told(&mut owner), ["Watch(ServerIdx(4))"]);
        owner.handle_report(Report::Healthy(id), now);
        owner.handle_report(Report::Failed(id), now);
        assert_eq!(told(&mut owner), ["Watch(ServerIdx(4))"]);
        owner.handle_report(Report::Failed(id), now);
        let expected = [
            "Ejected(ServerIdx(4))",
            "pool 2 version 1: [false, true, false]",
        ];
        assert_eq!(told(&mut owner), expected);
        assert_eq!(owner.poll_timeout(), Some(Micros(1005)));
    }

    #[test]
    fn an_ejected_server_is_probed_each_period_until_it_answers() {
        let (mut owner, id) = (owner(1), ServerIdx(2));
        owner.handle_report(Report::Failed(id), Micros(0));
        told(&mut owner);
        owner.handle_timeout(Micros(999));
        assert_eq!(told(&mut owner), Vec::<&str>::new());
        owner.handle_timeout(Micros(1000));
        assert_eq!(told(&mut owner), ["Probe(ServerIdx(2))"]);
        let period = PROBE_PERIOD_MIN;
        assert_eq!(owner.poll_timeout(), Some(Micros(1000) + period));
        owner.handle_timeout(Micros(1000) + period);
        assert_eq!(told(&mut owner), ["Probe(ServerIdx(2))"]);
        owner.handle_report(Report::ProbeAnswered(id), Micros(20_000));
        owner.handle_report(Report::ProbeAnswered(id), Micros(20_000));
        let expected = ["Restored(ServerIdx(2))", "pool 1 version 2: [false]"];
        assert_eq!(told(&mut owner), expected);
        assert_eq!(owner.poll_timeout(), None);
    }

    #[test]
    fn who_fails_again_while_ejected_waits_anew() {
        let (mut owner, id) = (owner(1), ServerIdx(0));
        owner.handle_report(Report::Failed(id), Micros(0));
        owner.handle_report(Report::Failed(id), Micros(500));
        assert_eq!(owner.poll_timeout(), Some(Micros(1500)));
    }
}
