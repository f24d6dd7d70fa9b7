//! The result of a run, for people and for scripts.

use std::ops::Range;

use serde_json::{Value, json};

use crate::clients::{Clients, Latencies};
use crate::disturbance::{Kind, Seen, sift};
use crate::num;
use crate::process::{Usage, resident_kib};
use crate::workload::Workload;

/// Percentiles of a histogram, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Percentiles {
    pub(crate) fn of(latencies: &Latencies) -> Self {
        Self {
            p50: latencies.value_at_quantile(0.5),
            p99: latencies.value_at_quantile(0.99),
            p999: latencies.value_at_quantile(0.999),
            max: latencies.max(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "p50": micros(self.p50), "p99": micros(self.p99),
            "p999": micros(self.p999), "max": micros(self.max),
        })
    }
}

/// What was measured between the end of the warm-up and the end of the run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) workload: Workload,
    pub(crate) requests: u64,
    pub(crate) elapsed: u64,
    pub(crate) latency: Percentiles,
    pub(crate) open: Option<OpenLoop>,
    /// Requests of an overloaded proxy for whose replies nobody waited.
    pub(crate) unanswered: u64,
    /// Niceness of the tool and the proxy.
    pub(crate) niceness: i32,
    pub(crate) tool: Usage,
    /// Share of the machine's time that its host gave to others.
    pub(crate) stolen: f64,
    /// `None` without a process to observe.
    pub(crate) proxy: Option<Usage>,
    pub(crate) proxy_rss_kib: u64,
    pub(crate) memory: Memory,
}

/// What is told of an open loop beside its latencies.
#[derive(Clone, Debug)]
pub(crate) struct OpenLoop {
    /// How late the tool was with its requests.
    pub(crate) lag: Percentiles,
    /// Of the requests that were due while nobody disturbed the run; `None` without such.
    pub(crate) undisturbed: Option<(Percentiles, Percentiles)>,
    pub(crate) undisturbed_requests: u64,
    /// Share of the measured time in which they were due.
    pub(crate) undisturbed_share: f64,
    pub(crate) seen: Seen,
}

impl OpenLoop {
    /// From all requests that were due in the measured time, whenever their replies came; with their latencies.
    pub(crate) fn new(clients: &Clients, seen: Seen, measured: Range<u64>) -> (Percentiles, Self) {
        let kept = seen.undisturbed(measured.clone());
        let whole = [measured];
        let time = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum();
        let of = |samples| Percentiles::of(&sift(samples, &whole));
        let latencies = sift(&clients.latencies, &kept);
        let lags = sift(&clients.lags, &kept);
        let undisturbed =
            (!latencies.is_empty()).then(|| (Percentiles::of(&latencies), Percentiles::of(&lags)));
        let open = Self {
            lag: of(&clients.lags),
            undisturbed,
            undisturbed_requests: latencies.len(),
            undisturbed_share: num::ratio(time(&kept), time(&whole)),
            seen,
        };
        (of(&clients.latencies), open)
    }

    fn undisturbed_json(&self) -> Option<Value> {
        let (latency, lag) = self.undisturbed?;
        Some(json!({
            "share": self.undisturbed_share,
            "requests": self.undisturbed_requests,
            "latency_us": latency.json(),
            "lag_us": lag.json(),
        }))
    }

    /// Of each kind: how many, and milliseconds lost in them.
    fn disturbances_json(&self) -> Value {
        let of = |kind| {
            let (count, lost) = self.seen.of(kind);
            json!({ "count": count, "ms": micros(lost) / 1e3 })
        };
        json!({
            "tool": of(Kind::Tool),
            "pulse": self.seen.has_pulse.then(|| of(Kind::Pulse)),
            "waiting": of(Kind::Waiting),
            "stolen": of(Kind::Stolen),
        })
    }
}

/// The resident memory of a process through a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    process: Option<String>,
    /// Before the first client connected.
    start_kib: u64,
    /// (nanoseconds since the load began, KiB).
    series: Vec<(u64, u64)>,
    load_ended: u64,
    next: u64,
}

impl Memory {
    /// Of this process; of none, nothing is recorded.
    pub(crate) fn new(pid: Option<u32>) -> Self {
        let process = pid.map(|pid| pid.to_string());
        Self {
            start_kib: process.as_deref().map_or(0, resident_kib),
            process,
            ..Self::default()
        }
    }

    /// Takes a sample if one is due.
    pub(crate) fn keep(&mut self, now: u64) {
        if let Some(process) = &self.process
            && now >= self.next
        {
            self.series.push((now, resident_kib(process)));
            self.next = now + SAMPLE_EVERY;
        }
    }

    pub(crate) const fn load_ended(&mut self, now: u64) {
        self.load_ended = now;
    }

    fn json(&self) -> Option<Value> {
        self.process.as_ref()?;
        let seconds = |nanos: u64| num::float(nanos) / 1e9;
        let series: Vec<Value> = self
            .series
            .iter()
            .map(|(at, kib)| json!([seconds(*at), kib]))
            .collect();
        Some(json!({
            "start_kib": self.start_kib,
            "load_ended": seconds(self.load_ended),
            "series": series,
        }))
    }
}

const SAMPLE_EVERY: u64 = 100_000_000;

impl Report {
    pub(crate) fn rate(&self) -> f64 {
        num::ratio(self.requests, self.elapsed) * 1e9
    }

    /// Microseconds of proxy CPU per request.
    pub(crate) fn proxy_cost(&self) -> Option<f64> {
        self.proxy
            .map(|usage| num::ratio(usage.cpu, self.requests) / 1e3)
    }

    /// Share of one CPU that the proxy used.
    pub(crate) fn proxy_utilisation(&self) -> Option<f64> {
        self.proxy.map(|usage| num::ratio(usage.cpu, self.elapsed))
    }

    /// Share of the time in which the proxy could have run but somebody else had its CPU.
    pub(crate) fn proxy_starvation(&self) -> Option<f64> {
        self.proxy
            .map(|usage| num::ratio(usage.starved, self.elapsed))
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let workload = &self.workload;
        json!({
            "protocol": workload.traffic.protocol.name(),
            "op": workload.traffic.op.name(),
            "keys": workload.traffic.keys,
            "value_size": workload.traffic.value_size,
            "clients": workload.clients,
            "servers": workload.servers,
            "pace": workload.pace_name(),
            "requests": self.requests,
            "seconds": num::float(self.elapsed) / 1e9,
            "requests_per_second": self.rate(),
            "errors": 0,
            "latency_us": self.latency.json(),
            "lag_us": self.open.as_ref().map(|open| open.lag.json()),
            "own_gaps_us": self.open.as_ref().map(|open| open.seen.gaps.json()),
            "own_gaps_over_1ms": self.open.as_ref().map(|open| num::ratio(open.seen.in_long_gaps, self.elapsed)),
            "undisturbed": self.open.as_ref().and_then(OpenLoop::undisturbed_json),
            "disturbances": self.open.as_ref().map(OpenLoop::disturbances_json),
            "unanswered": self.unanswered,
            "niceness": self.niceness,
            "tool_cpu_us_per_request": num::ratio(self.tool.cpu, self.requests) / 1e3,
            "tool_starvation": num::ratio(self.tool.starved, self.elapsed),
            "machine_stolen": self.stolen,
            "proxy_cpu_us_per_request": self.proxy_cost(),
            "proxy_utilisation": self.proxy_utilisation(),
            "proxy_starvation": self.proxy_starvation(),
            "proxy_context_switches": self.proxy.map(|usage| usage.switches),
            "proxy_rss_kib": self.proxy.map(|_| self.proxy_rss_kib),
            "memory": self.memory.json(),
        })
        .to_string()
    }

    /// One line for people.
    pub(crate) fn human(&self) -> String {
        let mut line = format!(
            "{}: {} requests in {:.2} s, {:.0}/s, every reply checked; us p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.0}; tool {:.2} us/request",
            self.workload.title(),
            self.requests,
            num::float(self.elapsed) / 1e9,
            self.rate(),
            micros(self.latency.p50),
            micros(self.latency.p99),
            micros(self.latency.p999),
            micros(self.latency.max),
            num::ratio(self.tool.cpu, self.requests) / 1e3,
        );
        if let Some(((cost, utilisation), starvation)) = self
            .proxy_cost()
            .zip(self.proxy_utilisation())
            .zip(self.proxy_starvation())
        {
            line.push_str(&format!(
                "; proxy {cost:.2} us/request at {:.0} % of a CPU, starved {:.1} %, {} KiB",
                utilisation * 100.0,
                starvation * 100.0,
                self.proxy_rss_kib
            ));
        }
        if self.unanswered > 0 {
            line.push_str(&format!(
                "; overloaded: {} requests had no reply yet seconds after the last",
                self.unanswered
            ));
        }
        if let Some(open) = &self.open {
            line.push_str(&format!(
                "; own lag p99.9 {:.1} us, own gaps of 1 ms and more {:.1} % of the time",
                micros(open.lag.p999),
                num::ratio(open.seen.in_long_gaps, self.elapsed) * 100.0
            ));
            if let Some((latency, lag)) = open.undisturbed {
                line.push_str(&format!(
                    "; undisturbed {:.0} %: us p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.0}, own lag p99.9 {:.1} us",
                    open.undisturbed_share * 100.0,
                    micros(latency.p50),
                    micros(latency.p99),
                    micros(latency.p999),
                    micros(latency.max),
                    micros(lag.p999)
                ));
            }
        }
        line
    }
}

fn micros(nanos: u64) -> f64 {
    num::float(nanos) / 1e3
}
