//! Figures out of the load tool's reports, and how those of two proxies compare.

use serde_json::Value;

use super::cells::OURS;
use super::runs::Run;

/// A number that a report holds or gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Microseconds of proxy CPU per request.
    Cpu,
    Rate,
    P50,
    P99,
    P999,
    /// Of what one client more costs after it was used.
    KibPerClient,
    /// Resident at the start, at most, at the end.
    StartKib,
    PeakKib,
    EndKib,
    /// Resident at the end by resident at the start.
    Growth,
    /// KiB resident at the end above the start.
    GrowthKib,
    SystemCalls,
    /// In user space, per request.
    Instructions,
    Allocations,
    /// Microseconds of CPU per request of all processes that take part, not the proxy's alone.
    AllCpu,
    /// Share of the time in which the proxy was on its CPU.
    Busy,
    /// Share of the time in which somebody else had the proxy's CPU.
    Starvation,
    /// The same of the tool.
    ToolStarvation,
    /// Share of the machine's time that its host gave to others.
    Stolen,
    /// How late the tool itself was, 99.9th percentile.
    Lag,
    /// Share of the time of an open loop in which nobody disturbed it; latencies and lag are of requests due then.
    Undisturbed,
    /// The latency of all requests.
    P999WithDisturbed,
    /// Requests for whose replies nobody waited, the proxy being overloaded.
    Unanswered,
}

const NAMES: [(&str, Figure); 13] = [
    ("cpu", Figure::Cpu),
    ("rate", Figure::Rate),
    ("p50", Figure::P50),
    ("p99", Figure::P99),
    ("p999", Figure::P999),
    ("kib_per_client", Figure::KibPerClient),
    ("end_kib", Figure::EndKib),
    ("growth", Figure::Growth),
    ("growth_kib", Figure::GrowthKib),
    ("system_calls", Figure::SystemCalls),
    ("instructions", Figure::Instructions),
    ("allocations", Figure::Allocations),
    ("all_cpu", Figure::AllCpu),
];

impl Figure {
    pub(crate) fn named(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, figure)| *figure)
    }

    pub(crate) fn read(self, report: &Value) -> Option<f64> {
        let memory = &report["memory"];
        let start = || memory["start_kib"].as_f64();
        let samples = || {
            memory["series"]
                .as_array()
                .map_or(&[][..], Vec::as_slice)
                .iter()
        };
        let kib = |sample: &Value| sample[1].as_f64();
        let end = || samples().rev().find_map(kib);
        let latency = |name: &str| {
            let undisturbed = report["undisturbed"]["latency_us"][name].as_f64();
            undisturbed.or_else(|| report["latency_us"][name].as_f64())
        };
        match self {
            Self::Cpu => report["proxy_cpu_us_per_request"].as_f64(),
            Self::Rate => report["requests_per_second"].as_f64(),
            Self::P50 => latency("p50"),
            Self::P99 => latency("p99"),
            Self::P999 => latency("p999"),
            Self::KibPerClient => Some((end()? - start()?) / report["clients"].as_f64()?),
            Self::StartKib => start(),
            Self::PeakKib => samples().filter_map(kib).reduce(f64::max),
            Self::EndKib => end(),
            Self::Growth => Some(end()? / start().filter(|kib| *kib > 0.0)?),
            Self::GrowthKib => Some(end()? - start()?),
            Self::SystemCalls => report["system_calls"].as_f64(),
            Self::Instructions => report["instructions"].as_f64(),
            Self::Allocations => report["allocations"].as_f64(),
            Self::AllCpu => report["all_cpu_us_per_request"].as_f64(),
            Self::Busy => report["proxy_utilisation"].as_f64(),
            Self::Starvation => report["proxy_starvation"].as_f64(),
            Self::ToolStarvation => report["tool_starvation"].as_f64(),
            Self::Stolen => report["machine_stolen"].as_f64(),
            Self::Lag => report["undisturbed"]["lag_us"]["p999"].as_f64(),
            Self::Undisturbed => report["undisturbed"]["share"].as_f64(),
            Self::P999WithDisturbed => report["latency_us"]["p999"].as_f64(),
            Self::Unanswered => report["unanswered"].as_f64(),
        }
    }

    /// Of each run of a candidate in a cell that counts.
    pub(crate) fn of(self, runs: &[Run], cell: &str, candidate: &str) -> Vec<f64> {
        runs.iter()
            .filter(|run| run.cell == cell && run.candidate == candidate)
            .filter_map(|run| self.read(run.counted()?))
            .collect()
    }

    /// The middle one of a candidate's runs in a cell.
    pub(crate) fn middle(self, runs: &[Run], cell: &str, candidate: &str) -> Option<f64> {
        median(&self.of(runs, cell, candidate))
    }

    /// Whether more of it is better.
    const fn is_gain(self) -> bool {
        matches!(self, Self::Rate)
    }

    /// How many times better ours is than `peer`'s, per pair in which both have one: above 1 is in our favour.
    pub(crate) fn ratios(self, runs: &[Run], cell: &str, peer: &str) -> Vec<f64> {
        let mut ratios = self.ratios_between(runs, cell, peer, OURS);
        if self.is_gain() {
            for ratio in &mut ratios {
                *ratio = ratio.recip();
            }
        }
        ratios
    }

    /// `one` by `other`, per pair in which both have one.
    pub(crate) fn ratios_between(
        self,
        runs: &[Run],
        cell: &str,
        one: &str,
        other: &str,
    ) -> Vec<f64> {
        let of = |candidate: &str, pair: u32| {
            let report = runs
                .iter()
                .filter(|run| run.cell == cell && run.candidate == candidate && run.pair == pair)
                .find_map(Run::counted)?;
            self.read(report).filter(|figure| *figure > 0.0)
        };
        let pairs = runs
            .iter()
            .filter(|run| run.cell == cell && run.candidate == other && run.counted().is_some());
        pairs
            .filter_map(|run| Some(of(one, run.pair)? / of(other, run.pair)?))
            .collect()
    }
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = if sorted.len().is_multiple_of(2) {
        sorted[sorted.len() / 2 - 1]
    } else {
        upper
    };
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::runs::Verdict;
    use super::*;

    fn run(cell: &'static str, candidate: &'static str, pair: u32, cpu: f64) -> Run {
        Run {
            cell,
            candidate,
            pair,
            result: Ok(json!({ "proxy_cpu_us_per_request": cpu })),
            verdict: Verdict::Counted,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_pair_and_failed_runs_are_left_out() {
        let mut runs = vec![
            run("a", "ours", 0, 1.0),
            run("a", "nutcracker", 0, 2.0),
            run("a", "ours", 1, 2.0),
            run("a", "nutcracker", 1, 6.0),
            run("a", "ours", 2, 5.0),
        ];
        runs.push(Run {
            result: Err("broken".to_owned()),
            ..run("a", "nutcracker", 2, 0.0)
        });
        assert_eq!(Figure::Cpu.ratios(&runs, "a", "nutcracker"), [2.0, 3.0]);
        assert_eq!(Figure::Cpu.middle(&runs, "a", "nutcracker"), Some(4.0));
        assert_eq!(Figure::Cpu.middle(&runs, "b", "ours"), None);
    }

    #[test]
    fn latencies_are_of_undisturbed_requests_where_these_are_told() {
        let closed = json!({ "latency_us": { "p50": 5, "p999": 70 } });
        assert_eq!(Figure::P999.read(&closed), Some(70.0));
        let open = json!({
            "latency_us": { "p999": 70 },
            "undisturbed": { "share": 0.8, "latency_us": { "p999": 30 }, "lag_us": { "p999": 3 } },
        });
        assert_eq!(Figure::P999.read(&open), Some(30.0));
        assert_eq!(Figure::P999WithDisturbed.read(&open), Some(70.0));
        assert_eq!(Figure::Lag.read(&open), Some(3.0));
    }

    #[test]
    fn memory_figures_come_from_the_series() {
        let report = json!({
            "clients": 10,
            "memory": { "start_kib": 100, "series": [[0.0, 120], [0.1, 300], [0.2, 200]] },
        });
        assert_eq!(Figure::KibPerClient.read(&report), Some(10.0));
        assert_eq!(Figure::PeakKib.read(&report), Some(300.0));
        assert_eq!(Figure::Growth.read(&report), Some(2.0));
        assert_eq!(Figure::Growth.read(&json!({ "memory": null })), None);
    }
}
