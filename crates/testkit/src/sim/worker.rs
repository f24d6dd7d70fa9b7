//! The workers: engines that share their clients' limits and an owner of their servers' health, which
//! lives elsewhere and is reached by mail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use twemproxy_core::config::Config;
use twemproxy_core::engine::{ClientCounts, Engine, Others};
use twemproxy_core::ids::ConnId;
use twemproxy_core::owner::{HealthOwner, Mail, Report};
use twemproxy_core::time::Micros;
use twemproxy_core::topology::ShardState;

use super::dice::Dice;
use super::world::{Event, World};

/// One worker: an engine and what its shell knows.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) engine: Engine,
    /// Links by the engine's names for them.
    pub(super) by_id: BTreeMap<ConnId, usize>,
    /// Connections lost since its last tick ended.
    pub(super) just_lost: Vec<ConnId>,
    /// It was told something since its last tick ended.
    pub(super) is_busy: bool,
    /// How many servers of each pool are ejected, as far as it knows.
    pub(super) ejected: Vec<usize>,
    /// On their way to the owner of the servers' health.
    reports: VecDeque<Report>,
    /// On their way from there.
    mails: VecDeque<Mail>,
}

impl Worker {
    /// `count` workers, which begin with the topologies of `owner`.
    pub(super) fn all(
        count: usize,
        config: &Arc<Config>,
        owner: &HealthOwner,
        dice: &mut Dice,
    ) -> Vec<Self> {
        let topologies = owner.topologies();
        let counts = ClientCounts::new(config.pools.len());
        let step = u64::try_from(count).expect("few workers");
        (1..=step)
            .map(|first| {
                let mut engine = Engine::new(Arc::clone(config), &topologies, dice.seed());
                engine.number_clients(first, step);
                engine.share_clients(counts.clone());
                Self {
                    engine,
                    by_id: BTreeMap::new(),
                    just_lost: Vec::new(),
                    is_busy: true,
                    ejected: vec![0; config.pools.len()],
                    reports: VecDeque::new(),
                    mails: VecDeque::new(),
                }
            })
            .collect()
    }
}

impl World {
    /// What a worker has seen leaves for the owner of the servers' health.
    pub(super) fn post_reports(&mut self, at: usize) {
        while let Some(report) = self.workers[at].engine.poll_mail() {
            assert!(!self.plan.calm, "{report:?} in a calm world");
            self.workers[at].reports.push_back(report);
            let arrival = self.after_way();
            self.at(arrival, Event::Report(at));
        }
    }

    /// The oldest report of a worker arrives.
    pub(super) fn read_report(&mut self, at: usize) {
        let report = self.workers[at].reports.pop_front();
        let report = report.expect("a report for each arrival");
        self.tell(|| format!("worker {at} reports {report:?}"));
        self.owner.handle_report(report, Micros(self.now));
        self.post_mails();
    }

    /// What the owner has decided leaves for the workers.
    pub(super) fn post_mails(&mut self) {
        while let Some(mail) = self.owner.poll_mail() {
            let readers = if mail.is_for_all() {
                self.workers.len()
            } else {
                1
            };
            if let Mail::Ejected(server) = mail {
                self.pool_loses_server(server);
            }
            for at in 0..readers {
                self.workers[at].mails.push_back(mail.clone());
                let arrival = self.after_way();
                self.at(arrival, Event::Mail(at));
            }
        }
    }

    /// The oldest mail to a worker arrives.
    pub(super) fn read_mail(&mut self, at: usize) {
        let mail = self.workers[at].mails.pop_front();
        let mail = mail.expect("a mail for each arrival");
        self.tell(|| format!("worker {at} gets {mail:?}"));
        if let Mail::Topology(topology) = &mail {
            let shards = topology.shards.iter();
            let ejected = shards.filter(|shard| shard.state != ShardState::Up);
            self.note_ejected(at, topology.pool.index(), ejected.count());
        }
        let now = Micros(self.now);
        self.busy(at).handle_mail(mail, now);
    }

    /// The engine of a worker that is about to be told something.
    pub(super) fn busy(&mut self, at: usize) -> &mut Engine {
        self.is_unsettled = true;
        let others = self.others(at);
        let worker = &mut self.workers[at];
        worker.is_busy = true;
        if let Some(others) = others {
            worker.engine.note_others(others, Micros(self.now));
        }
        &mut worker.engine
    }

    /// Holdings of the other workers, if there are any.
    fn others(&self, at: usize) -> Option<Others> {
        let others = self
            .workers
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at);
        others
            .map(|(_, worker)| Others {
                held: worker.engine.held(),
                due: worker.engine.memory_due(),
            })
            .reduce(|a, b| Others {
                held: a.held + b.held,
                due: a.due.into_iter().chain(b.due).min(),
            })
    }

    /// The next time-out of a worker, or of the owner, whose place is behind the last worker's.
    pub(super) fn next_alarm(&self) -> Option<(u64, usize)> {
        let owner = self.owner.poll_timeout();
        let workers = self.workers.iter();
        let workers = workers.map(|worker| worker.engine.poll_timeout());
        workers
            .chain([owner])
            .enumerate()
            .filter_map(|(at, alarm)| Some((alarm?.0, at)))
            .min()
    }

    /// Somebody's time-out has come.
    pub(super) fn ring(&mut self, at: usize) {
        let now = Micros(self.now);
        let next = if at < self.workers.len() {
            self.tell(|| format!("worker {at} looks at its deadlines"));
            let engine = self.busy(at);
            engine.handle_timeout(now);
            engine.poll_timeout()
        } else {
            self.owner.handle_timeout(now);
            self.post_mails();
            self.owner.poll_timeout()
        };
        assert!(
            next.is_none_or(|next| next > now),
            "poll_timeout advances: {next:?} at {now:?}"
        );
    }
}
