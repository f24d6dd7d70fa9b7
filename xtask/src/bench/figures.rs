//! Figures out of the load tool's reports, and the goals that they are held against.

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
    SystemCalls,
    /// Share of the time in which somebody else had the proxy's CPU.
    Starvation,
    /// How late the tool itself was, 99th percentile.
    Lag,
}

const NAMES: [(&str, Figure); 9] = [
    ("cpu", Figure::Cpu),
    ("rate", Figure::Rate),
    ("p50", Figure::P50),
    ("p99", Figure::P99),
    ("p999", Figure::P999),
    ("kib_per_client", Figure::KibPerClient),
    ("end_kib", Figure::EndKib),
    ("growth", Figure::Growth),
    ("system_calls", Figure::SystemCalls),
];

impl Figure {
    fn named(name: &str) -> Option<Self> {
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
        match self {
            Self::Cpu => report["proxy_cpu_us_per_request"].as_f64(),
            Self::Rate => report["requests_per_second"].as_f64(),
            Self::P50 => report["latency_us"]["p50"].as_f64(),
            Self::P99 => report["latency_us"]["p99"].as_f64(),
            Self::P999 => report["latency_us"]["p999"].as_f64(),
            Self::KibPerClient => Some((end()? - start()?) / report["clients"].as_f64()?),
            Self::StartKib => start(),
            Self::PeakKib => samples().filter_map(kib).reduce(f64::max),
            Self::EndKib => end(),
            Self::Growth => Some(end()? / start().filter(|kib| *kib > 0.0)?),
            Self::SystemCalls => report["system_calls"].as_f64(),
            Self::Starvation => report["proxy_starvation"].as_f64(),
            Self::Lag => report["lag_us"]["p99"].as_f64(),
        }
    }

    /// Of each run of a candidate in a cell that succeeded.
    pub(crate) fn of(self, runs: &[Run], cell: &str, candidate: &str) -> Vec<f64> {
        runs.iter()
            .filter(|run| run.cell == cell && run.candidate == candidate)
            .filter_map(|run| self.read(run.result.as_ref().ok()?))
            .collect()
    }

    /// The middle one of a candidate's runs in a cell.
    pub(crate) fn middle(self, runs: &[Run], cell: &str, candidate: &str) -> Option<f64> {
        median(&self.of(runs, cell, candidate))
    }

    /// `peer` by ours, per pair in which both have one.
    pub(crate) fn ratios(self, runs: &[Run], cell: &str, peer: &str) -> Vec<f64> {
        let of = |candidate: &str, pair: u32| {
            let run = runs
                .iter()
                .find(|run| run.cell == cell && run.candidate == candidate && run.pair == pair)?;
            self.read(run.result.as_ref().ok()?)
        };
        let pairs = runs
            .iter()
            .filter(|run| run.cell == cell && run.candidate == OURS);
        pairs
            .filter_map(|run| {
                Some(of(peer, run.pair)? / of(OURS, run.pair).filter(|ours| *ours > 0.0)?)
            })
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

/// One line of `bench/goals.txt`.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) title: String,
    pub(crate) cell: String,
    figure: Figure,
    pub(crate) against: Against,
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

/// What our figure is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// A peer's figure is so many times ours, at least.
    Peer(String),
    /// It is so many times what it is in another cell, at most.
    Cell(String),
    /// It is so much, at most.
    Nothing,
}

/// How a goal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Aim,
    Must,
    Missed,
    Unknown,
}

impl Standing {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Aim => "aim reached",
            Self::Must => "must reached",
            Self::Missed => "**missed**",
            Self::Unknown => "not measured",
        }
    }
}

impl Goal {
    /// Reads the whole file.
    pub(crate) fn parse_all(text: &str, peers: &[&str]) -> Result<Vec<Self>, String> {
        let lines = text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        lines
            .map(|line| {
                Self::parse(line, peers).ok_or_else(|| format!("a goal that is none: {line}"))
            })
            .collect()
    }

    fn parse(line: &str, peers: &[&str]) -> Option<Self> {
        let words: Vec<&str> = line.split('|').map(str::trim).collect();
        let [title, cell, figure, against, must, aim] = words.as_slice() else {
            return None;
        };
        Some(Self {
            title: (*title).to_owned(),
            cell: (*cell).to_owned(),
            figure: Figure::named(figure)?,
            against: match *against {
                "-" => Against::Nothing,
                name if peers.contains(&name) => Against::Peer(name.to_owned()),
                name => Against::Cell(name.to_owned()),
            },
            must: must.parse().ok()?,
            aim: aim.parse().ok()?,
        })
    }

    /// The figure that is held against `must` and `aim`.
    pub(crate) fn measured(&self, runs: &[Run]) -> Option<f64> {
        match &self.against {
            Against::Peer(peer) => median(&self.figure.ratios(runs, &self.cell, peer)),
            Against::Cell(other) => {
                let there = self
                    .figure
                    .middle(runs, other, OURS)
                    .filter(|there| *there > 0.0)?;
                Some(self.figure.middle(runs, &self.cell, OURS)? / there)
            }
            Against::Nothing => self.figure.middle(runs, &self.cell, OURS),
        }
    }

    pub(crate) fn standing(&self, measured: Option<f64>) -> Standing {
        let Some(measured) = measured else {
            return Standing::Unknown;
        };
        let reached = |limit: f64| match self.against {
            Against::Peer(_) => measured >= limit,
            Against::Cell(_) | Against::Nothing => measured <= limit,
        };
        if reached(self.aim) {
            Standing::Aim
        } else if reached(self.must) {
            Standing::Must
        } else {
            Standing::Missed
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(cell: &'static str, candidate: &'static str, pair: u32, cpu: f64) -> Run {
        Run {
            cell,
            candidate,
            pair,
            result: Ok(json!({ "proxy_cpu_us_per_request": cpu })),
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
    fn a_goal_against_a_peer_is_a_least_and_one_against_a_cell_a_most() {
        let text = "# x\nfaster | a | cpu | nutcracker | 1.5 | 3\nflat | a | cpu | b | 1.05 | 1.0\nsmall | a | cpu | - | 0.5 | 0.2\n";
        let goals = Goal::parse_all(text, &["nutcracker"]).expect("good goals");
        let runs = [
            run("a", "ours", 0, 1.02),
            run("a", "nutcracker", 0, 2.04),
            run("b", "ours", 0, 1.0),
        ];
        let standings: Vec<Standing> = goals
            .iter()
            .map(|goal| goal.standing(goal.measured(&runs)))
            .collect();
        assert_eq!(
            standings,
            [Standing::Must, Standing::Must, Standing::Missed]
        );
        assert_eq!(goals[0].standing(None), Standing::Unknown);
        assert!(Goal::parse_all("a | b\n", &[]).is_err());
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
