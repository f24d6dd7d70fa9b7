//! What a run does, as the command line says it.

use std::time::Duration;

use crate::clients::Pace;
use crate::net::Portion;
use crate::num;
use crate::process::Pinning;
use crate::protocol::{Op, Shapes};
use crate::script::Traffic;

/// What to do and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) traffic: Traffic,
    pub(crate) pace: Pace,
    pub(crate) clients: u32,
    pub(crate) servers: u32,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// Ends the measured part earlier when this many replies have come.
    pub(crate) requests: Option<u64>,
    pub(crate) transport: Transport,
    /// Further lines of the pool's configuration.
    pub(crate) pool_lines: Vec<String>,
    /// A second group of clients, whose requests count in no figure.
    pub(crate) beside: Option<Beside>,
    /// Further clients that connect and say nothing.
    pub(crate) idle: u32,
    /// Records the proxy's memory through the run, and so long after it.
    pub(crate) watch: Option<Duration>,
    pub(crate) pinning: Option<Pinning>,
    pub(crate) progress: Progress,
}

/// Clients beside the measured ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    pub(crate) traffic: Traffic,
    pub(crate) clients: u32,
    /// Requests that each keeps in flight; with `rate`, that it sends at once.
    pub(crate) depth: u32,
    /// Requests per second of all of them, instead of a closed loop.
    pub(crate) rate: Option<u64>,
    /// Bytes per second that each of them reads at most: slow readers.
    pub(crate) read_rate: Option<u64>,
}

/// How the tool and a proxy that it starts talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
}

/// Whether to say once per second how far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Shown,
    Silent,
}

impl Workload {
    pub(crate) fn pace_name(&self) -> String {
        match self.pace {
            Pace::Closed { depth } => format!("depth {depth}"),
            Pace::Open { rate, .. } => format!("{rate}/s"),
        }
    }

    pub(crate) fn title(&self) -> String {
        let traffic = &self.traffic;
        let keys = if matches!(traffic.op, Op::Mget | Op::Mset) {
            format!(" of {} keys", traffic.keys)
        } else {
            String::new()
        };
        let mut title = format!(
            "{} {}{keys}, {}, {} clients, {} B, {} servers",
            traffic.protocol.name(),
            traffic.op.name(),
            self.pace_name(),
            self.clients,
            traffic.value_size,
            self.servers
        );
        if let Some(beside) = &self.beside {
            title.push_str(&format!(
                ", beside {} clients with {} of {} B at depth {}",
                beside.clients,
                beside.traffic.op.name(),
                beside.traffic.value_size,
                beside.depth
            ));
            if let Some(rate) = beside.rate {
                title.push_str(&format!(", {rate}/s"));
            }
            if let Some(rate) = beside.read_rate {
                title.push_str(&format!(", reading {rate} B/s each"));
            }
        }
        if self.idle > 0 {
            title.push_str(&format!(", {} idle clients", self.idle));
        }
        title
    }

    pub(crate) fn shapes(&self) -> Shapes {
        let main = self.traffic.shape();
        let beside = self.beside.map_or(main, |beside| beside.traffic.shape());
        Shapes { main, beside }
    }

    /// An open loop has requests to send in time; a closed one has nothing better to do than to go on.
    pub(crate) const fn portion(&self) -> Portion {
        match self.pace {
            Pace::Closed { .. } => Portion::All,
            Pace::Open { .. } => Portion::Block,
        }
    }

    /// Requests of an open loop in its measured part, each of which is remembered.
    pub(crate) fn samples(&self) -> usize {
        match self.pace {
            Pace::Closed { .. } => 0,
            Pace::Open { rate, .. } => {
                let millis = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
                num::index(rate.saturating_mul(millis) / 1000)
            }
        }
    }

    /// Sockets that this process or a proxy has open at most.
    pub(crate) fn sockets(&self) -> u64 {
        let beside = self.beside.map_or(0, |beside| beside.clients);
        u64::from(self.clients) + u64::from(beside) + u64::from(self.idle) + u64::from(self.servers)
    }
}
