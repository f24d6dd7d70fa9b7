//! The statistics table: names, kinds and help texts in the order of twemproxy's output, and the
//! counters themselves.
//!
//! A new counter is one row under `Ours`, at the end of its table. The statistics port and
//! `--describe-stats` are 0.5's, so they show the rows under `V05` only, and those never change.
//!
//! Every counter has one writer, the worker whose engine owns it; other threads read. Relaxed loads
//! and stores compile to plain moves, so nothing has to be published and every query is fresh.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::ids::ServerId;
use crate::table::Table;
use crate::topology::Topology;

/// How a metric moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A current amount.
    Gauge,
    /// Microseconds since 1970.
    Timestamp,
}

impl Kind {
    /// One number for what two workers counted.
    #[must_use]
    pub fn merge(self, a: u64, b: u64) -> u64 {
        match self {
            Self::Counter | Self::Gauge => a.wrapping_add(b),
            Self::Timestamp => a.max(b),
        }
    }
}

/// Where a counter comes from, and so which outputs show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// From twemproxy 0.5.
    V05,
    /// Added here.
    Ours,
}

/// One row of a metric table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in the statistics.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Where it comes from.
    pub since: Since,
    /// The text of `--describe-stats`.
    pub help: &'static str,
}

/// A single-writer number that other threads may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// The value now.
    #[inline]
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds `n`; only the owner calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Takes `n` away from a gauge; only the owner calls this.
    #[inline]
    pub fn sub(&self, n: u64) {
        let value = self.0.load(Ordering::Relaxed);
        debug_assert!(value >= n, "a gauge never goes below zero");
        self.0.store(value.wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets a time stamp; only the owner calls this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($since:ident {
        $($field:ident $kind:ident $help:literal,)*
    })* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[doc = $help] pub $field: Cell,)*)*
        }

        impl $name {
            /// The table, in output order.
            pub const METRICS: &'static [Metric] = &[
                $($(Metric {
                    name: stringify!($field),
                    kind: Kind::$kind,
                    since: Since::$since,
                    help: $help,
                },)*)*
            ];

            /// The values, in the order of [`Self::METRICS`].
            #[must_use]
            pub fn values(&self) -> [u64; Self::METRICS.len()] {
                [$($(self.$field.value(),)*)*]
            }
        }
    };
}

table! {
    /// Per-pool statistics.
    PoolCounters {
        V05 {
            client_eof Counter "# eof on client connections",
            client_err Counter "# errors on client connections",
            client_connections Gauge "# active client connections",
            server_ejects Counter "# times backend server was ejected",
            forward_error Counter "# times we encountered a forwarding error",
            fragments Counter "# fragments created from a multi-vector request",
        }
        Ours {}
    }
}

table! {
    /// Per-server statistics.
    ServerCounters {
        V05 {
            server_eof Counter "# eof on server connections",
            server_err Counter "# errors on server connections",
            server_timedout Counter "# timeouts on server connections",
            server_connections Gauge "# active server connections",
            server_ejected_at Timestamp "timestamp when server was ejected in usec since epoch",
            requests Counter "# requests",
            request_bytes Counter "total request bytes",
            responses Counter "# responses",
            response_bytes Counter "total response bytes",
            in_queue Gauge "# requests in incoming queue",
            in_queue_bytes Gauge "current request bytes in incoming queue",
            out_queue Gauge "# requests in outgoing queue",
            out_queue_bytes Gauge "current request bytes in outgoing queue",
        }
        Ours {}
    }
}

/// Statistics of one engine, shared with whoever shows them.
#[derive(Debug, Default)]
pub struct Counters {
    /// One per pool of the configuration.
    pub pools: Vec<Arc<PoolCounters>>,
    /// One per server.
    pub servers: Table<ServerId, Arc<ServerCounters>>,
    /// Accepted clients and attempted server connections so far.
    pub total_connections: Cell,
    /// Client and server connections now.
    pub curr_connections: Cell,
    /// Bytes of buffers given back to the allocator so far.
    pub released: Cell,
}

impl Counters {
    /// All zero, for the pools of `topologies` and their servers.
    #[must_use]
    pub fn new(topologies: &[Arc<Topology>]) -> Self {
        let shards = topologies.iter().flat_map(|topology| &topology.shards);
        Self {
            pools: topologies.iter().map(|_| Arc::default()).collect(),
            servers: shards
                .map(|shard| (shard.primary, Arc::default()))
                .collect(),
            total_connections: Cell::default(),
            curr_connections: Cell::default(),
            released: Cell::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_the_table() {
        let pool = PoolCounters::default();
        pool.forward_error.add(3);
        let at = PoolCounters::METRICS
            .iter()
            .position(|m| m.name == "forward_error");
        assert_eq!(pool.values()[at.unwrap()], 3);
        let from_v05 =
            |metrics: &[Metric]| metrics.iter().filter(|m| m.since == Since::V05).count();
        assert_eq!(from_v05(PoolCounters::METRICS), 6);
        assert_eq!(from_v05(ServerCounters::METRICS), 13);
    }
}
