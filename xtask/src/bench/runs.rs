//! One run of the load tool after the other, each bounded in time, none able to end the whole.
//!
//! First every cell gets its runs, then those with a goal get more for as long as there is time. So what is short is
//! the number of pairs, not the table.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cells::{CAPACITY, Candidate, Cell, NUTCRACKER, Pairs};
use super::figures::Figure;
use crate::child::finish;
use crate::tools::release;

/// What one run gave: the load tool's report, or why there is none.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) cell: &'static str,
    pub(crate) candidate: &'static str,
    pub(crate) pair: u32,
    pub(crate) result: Result<Value, String>,
}

impl Run {
    /// Whether it is one that the plan does not ask for and that was not even begun.
    fn is_surplus(&self, plan: &Plan) -> bool {
        let is_late = self.result.as_ref().is_err_and(|why| why == TIME_UP);
        is_late && self.pair >= plan.pairs
    }
}

const TIME_UP: &str = "not run: the time was up";

/// How thoroughly to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Of each cell, if there is time.
    pub(crate) pairs: u32,
    /// Of each cell with a goal, if there is time after that.
    pub(crate) pairs_max: u32,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    /// When nothing new is begun any more.
    pub(crate) deadline: Instant,
}

impl Plan {
    /// Time until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn seconds_of(&self, cell: &Cell) -> f64 {
        cell.seconds
            .map_or(self.seconds, |least| least.max(self.seconds))
    }

    /// About how long so many pairs of a cell take.
    fn estimate(&self, cell: &Cell, pairs: u32) -> f64 {
        let run = self.seconds_of(cell) + self.warmup + cell.around;
        let pairs = if cell.pairs == Pairs::Once { 1 } else { pairs };
        let candidates = u32::try_from(cell.candidates.len()).unwrap_or(u32::MAX);
        run * f64::from(candidates) * f64::from(pairs)
    }

    /// Most pairs of each of these cells for which there is time, at least one.
    fn affordable_pairs(&self, cells: &[Cell]) -> u32 {
        let left = self.left().as_secs_f64();
        let fits = |pairs: &u32| {
            let all = cells.iter().map(|cell| self.estimate(cell, *pairs));
            all.sum::<f64>() <= left
        };
        (2..=self.pairs).rev().find(fits).unwrap_or(1)
    }
}

/// Does the runs and keeps what comes of them.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) candidates: &'a [Candidate],
    pub(crate) runs: Vec<Run>,
}

impl Runner<'_> {
    /// Gives every cell its runs.
    pub(crate) fn run_all(&mut self, cells: &[Cell]) {
        for (index, cell) in cells.iter().enumerate() {
            let pairs = match cell.pairs {
                Pairs::AsPlanned => self.plan.affordable_pairs(&cells[index..]),
                Pairs::Once => 1,
            };
            self.announce(&format!("[{}/{}] {}", index + 1, cells.len(), cell.title));
            for pair in 0..pairs {
                self.run_pair(cell, pair);
            }
        }
    }

    /// Repeats the cells that `is_worth_it`, two pairs at a time so that both orders are as frequent.
    pub(crate) fn repeat(&mut self, cells: &[Cell], is_worth_it: impl Fn(&Cell) -> bool) {
        let cells: Vec<&Cell> = cells
            .iter()
            .filter(|cell| cell.pairs == Pairs::AsPlanned && is_worth_it(cell))
            .collect();
        let mut pair = self.plan.pairs;
        while pair < self.plan.pairs_max {
            for cell in &cells {
                if self.plan.left().as_secs_f64() < self.plan.estimate(cell, 2) {
                    return;
                }
                self.announce(&format!("again: {}", cell.title));
                self.run_pair(cell, pair);
                self.run_pair(cell, pair + 1);
                // What there was no time for is no failure: the cell has its runs.
                self.runs.retain(|run| !run.is_surplus(self.plan));
            }
            pair += 2;
        }
    }

    fn announce(&self, what: &str) {
        eprintln!("{what}; {} s left", self.plan.left().as_secs());
    }

    /// One run of each candidate, in the order A B C or C B A by turns.
    fn run_pair(&mut self, cell: &Cell, pair: u32) {
        let taking_part = |candidate: &&Candidate| cell.candidates.contains(&candidate.name);
        let mut order: Vec<&Candidate> = self.candidates.iter().filter(taking_part).collect();
        if pair % 2 == 1 {
            order.reverse();
        }
        for candidate in order {
            let result = self
                .rate(cell)
                .and_then(|rate| run(cell, candidate, self.plan, rate));
            let said = match &result {
                Ok(report) => summary(report),
                Err(reason) => format!("FAILED: {reason}"),
            };
            eprintln!("  {} [{}] {}: {said}", cell.id, pair + 1, candidate.name);
            self.runs.push(Run {
                cell: cell.id,
                candidate: candidate.name,
                pair,
                result,
            });
        }
    }

    /// Requests per second of an open loop. The capacity is that of the first runs, so that later ones of it do not
    /// give the runs of one cell different rates.
    fn rate(&self, cell: &Cell) -> Result<Option<f64>, String> {
        let Some(share) = cell.share else {
            return Ok(None);
        };
        let first: Vec<Run> = self
            .runs
            .iter()
            .filter(|run| run.pair < self.plan.pairs)
            .cloned()
            .collect();
        let capacity = Figure::Rate
            .middle(&first, CAPACITY, NUTCRACKER)
            .ok_or("nutcracker's capacity was not measured")?;
        Ok(Some((capacity * share).round()))
    }
}

fn summary(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let mut text = format!(
        "{:.2} us CPU/request at {:.0} % of its CPU, {:.0}/s",
        number(&report["proxy_cpu_us_per_request"]),
        number(&report["proxy_utilisation"]) * 100.0,
        number(&report["requests_per_second"]),
    );
    let latency = &report["latency_us"];
    if !latency.is_null() {
        text.push_str(&format!(
            ", p99 {:.0} us, p99.9 {:.0} us",
            number(&latency["p99"]),
            number(&latency["p999"])
        ));
    }
    text.push_str(&format!(", {:.0} KiB", number(&report["proxy_rss_kib"])));
    text
}

fn run(
    cell: &Cell,
    candidate: &Candidate,
    plan: &Plan,
    rate: Option<f64>,
) -> Result<Value, String> {
    let left = plan.left();
    let seconds = plan.seconds_of(cell);
    if left < Duration::from_secs_f64(seconds.min(plan.seconds) + plan.warmup) + SPARE_MIN {
        return Err(TIME_UP.to_owned());
    }
    let mut words = cell.load.split_whitespace();
    let mut command = Command::new(release("load"));
    command
        .args(words.next())
        .args(["--quiet", "--warmup", &plan.warmup.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(&candidate.options)
        .args(words);
    if let Some(rate) = rate {
        command.args(["--rate", &format!("{rate:.0}")]);
    }
    let (status, out, said) = finish(&mut command, left.min(RUN_MAX))?;
    if !status {
        let last: Vec<&str> = said.lines().take(4).collect();
        return Err(last.join(" / "));
    }
    serde_json::from_str(&out).map_err(|error| format!("the load tool's report: {error}"))
}

/// Starting and stopping a proxy.
const SPARE_MIN: Duration = Duration::from_secs(3);
const RUN_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::cells;
    use super::*;

    fn plan(seconds_left: u64) -> Plan {
        Plan {
            pairs: 3,
            pairs_max: 15,
            seconds: 0.8,
            warmup: 0.2,
            deadline: Instant::now() + Duration::from_secs(seconds_left),
        }
    }

    #[test]
    fn with_little_time_every_cell_is_measured_less_often() {
        let cells = cells::cells();
        assert_eq!(plan(100_000).affordable_pairs(&cells), 3);
        assert_eq!(plan(1).affordable_pairs(&cells), 1);
        let twice: f64 = cells.iter().map(|cell| plan(1).estimate(cell, 2)).sum();
        let enough = Duration::from_secs_f64(twice + 5.0).as_secs();
        assert_eq!(plan(enough).affordable_pairs(&cells), 2);
    }
}
