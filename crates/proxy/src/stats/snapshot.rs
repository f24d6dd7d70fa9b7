//! All statistics at one moment: names, and values summed over the workers. Every output is a view of
//! a [`Snapshot`] and decides only which rows it shows, and how.

use std::sync::Arc;

use twemproxy_core::config::Config;
use twemproxy_core::counters::{Counters, Metric, PoolCounters, ServerCounters};
use twemproxy_core::topology::Topology;

/// See the module.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) source: &'a str,
    pub(super) uptime: u64,
    pub(super) timestamp: u64,
    pub(super) total_connections: u64,
    pub(super) curr_connections: u64,
    pub(super) pools: Vec<PoolSnapshot<'a>>,
}

/// One pool and its servers, in the order of the configuration.
#[derive(Debug)]
pub(super) struct PoolSnapshot<'a> {
    pub(super) name: &'a str,
    pub(super) rows: Vec<Row>,
    pub(super) servers: Vec<ServerSnapshot<'a>>,
}

/// One server.
#[derive(Debug)]
pub(super) struct ServerSnapshot<'a> {
    pub(super) name: &'a str,
    pub(super) rows: Vec<Row>,
}

/// One counter, summed over the workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) metric: &'static Metric,
    pub(super) value: u64,
}

/// The pools of `config`, which have `topologies`, as `workers` count them.
pub(super) fn pools<'a>(
    config: &'a Config,
    topologies: &'a [Arc<Topology>],
    workers: &[Arc<Counters>],
) -> Vec<PoolSnapshot<'a>> {
    let pools = config.pools.iter().zip(topologies).enumerate();
    pools
        .map(|(index, (pool, topology))| {
            let values = workers.iter().map(|worker| worker.pools[index].values());
            let shards = topology.shards.iter();
            let servers = shards.map(|shard| {
                let counters = workers.iter().map(|worker| &worker.servers);
                let counters = counters.filter_map(|servers| servers.get(shard.primary));
                let values = counters.map(|counters| counters.values());
                ServerSnapshot {
                    name: &shard.name,
                    rows: merge(ServerCounters::METRICS, values),
                }
            });
            PoolSnapshot {
                name: &pool.name,
                rows: merge(PoolCounters::METRICS, values),
                servers: servers.collect(),
            }
        })
        .collect()
}

/// The total of a number that every worker counts.
pub(super) fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::wrapping_add)
}

fn merge<const N: usize>(
    metrics: &'static [Metric],
    workers: impl Iterator<Item = [u64; N]>,
) -> Vec<Row> {
    let mut rows: Vec<_> = metrics
        .iter()
        .map(|metric| Row { metric, value: 0 })
        .collect();
    for values in workers {
        for (row, value) in rows.iter_mut().zip(values) {
            row.value = row.metric.kind.merge(row.value, value);
        }
    }
    rows
}
