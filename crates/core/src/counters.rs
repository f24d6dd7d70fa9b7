//! The statistics table: names, kinds and help texts in the order of twemproxy's output, and the
//! counters themselves.
//!
//! Every counter has one writer, the worker whose engine owns it; other threads read. Relaxed loads
//! and stores compile to plain moves, so nothing has to be published and every query is fresh.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::config::Config;

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

/// One row of a metric table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in the statistics.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
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
    ($(#[$doc:meta])* $name:ident { $($field:ident $kind:ident $help:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $(#[doc = $help] pub $field: Cell,)*
        }

        impl $name {
            /// The table, in output order.
            pub const METRICS: &'static [Metric] = &[
                $(Metric { name: stringify!($field), kind: Kind::$kind, help: $help },)*
            ];

            /// The values, in the order of [`Self::METRICS`].
            #[must_use]
            pub fn values(&self) -> [u64; Self::METRICS.len()] {
                [$(self.$field.value(),)*]
            }
        }
    };
}

table! {
    /// Per-pool statistics.
    PoolCounters {
        client_eof Counter "# eof on client connections",
        client_err Counter "# errors on client connections",
        client_connections Gauge "# active client connections",
        server_ejects Counter "# times backend server was ejected",
        forward_error Counter "# times we encountered a forwarding error",
        fragments Counter "# fragments created from a multi-vector request",
    }
}

table! {
    /// Per-server statistics.
    ServerCounters {
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
}

/// Statistics of one engine, shared with whoever shows them.
#[derive(Debug, Default)]
pub struct Counters {
    /// One per pool of the configuration.
    pub pools: Vec<Arc<PoolCounters>>,
    /// One per [`crate::ids::ServerIdx`].
    pub servers: Vec<Arc<ServerCounters>>,
    /// Accepted clients and attempted server connections so far.
    pub total_connections: Cell,
    /// Client and server connections now.
    pub curr_connections: Cell,
    /// Bytes of buffers given back to the allocator so far.
    pub released: Cell,
}

impl Counters {
    /// All zero, with a place for each pool and server of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let server_count = config.pools.iter().map(|pool| pool.servers.len()).sum();
        Self {
            pools: (0..config.pools.len()).map(|_| Arc::default()).collect(),
            servers: (0..server_count).map(|_| Arc::default()).collect(),
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
        assert_eq!(PoolCounters::METRICS.len(), 6);
        assert_eq!(ServerCounters::METRICS.len(), 13);
    }
}
