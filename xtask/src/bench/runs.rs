//! One run of the load tool after the other, each bounded in time, none able to end the whole.
//!
//! First every cell gets its runs, then those with a goal get more for as long as there is time. So what is short is
//! the number of pairs, not the table.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cells::{CAPACITY, Candidate, Cell, NUTCRACKER, Pairs};
use super::figures::Figure;
use super::goals::Goal;
use super::rejection;
use crate::child::finish;
use crate::tools::release;

/// What one run gave: the load tool's report, or why there is none.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) cell: &'static str,
    pub(crate) candidate: &'static str,
    pub(crate) pair: u32,
    pub(crate) result: Result<Value, String>,
    pub(crate) verdict: Verdict,
}

/// Whether the figures are made of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Counted,
    /// It was disturbed, and another took its place or would have.
    Rejected(String),
    /// It was disturbed, but all were.
    CountedAllTheSame(String),
}

impl Run {
    /// What it gave, if that counts.
    pub(crate) fn counted(&self) -> Option<&Value> {
        match self.verdict {
            Verdict::Counted | Verdict::CountedAllTheSame(_) => self.result.as_ref().ok(),
            Verdict::Rejected(_) => None,
        }
    }

    /// Why the machine's or the tool's noise is in it; whatever is to be done about that.
    pub(crate) fn disturbed(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Counted => None,
            Verdict::Rejected(why) | Verdict::CountedAllTheSame(why) => Some(why),
        }
    }

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
    /// Of each cell that no goal is about.
    pub(crate) pairs_reported: u32,
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

    /// How many pairs a cell gets where so many are planned.
    fn pairs_of(&self, cell: &Cell, planned: u32) -> u32 {
        match cell.pairs {
            Pairs::AsPlanned => planned,
            Pairs::Reported => planned.min(self.pairs_reported),
            Pairs::Once => 1,
        }
    }

    /// About how long so many pairs of a cell take.
    fn estimate(&self, cell: &Cell, pairs: u32) -> f64 {
        let run = self.seconds_of(cell) + self.warmup + cell.around;
        let pairs = self.pairs_of(cell, pairs);
        let candidates = u32::try_from(cell.candidates.len()).unwrap_or(u32::MAX);
        run * (f64::from(candidates) * f64::from(pairs) + f64::from(u8::from(cell.is_warmed())))
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
            let pairs = self
                .plan
                .pairs_of(cell, self.plan.affordable_pairs(&cells[index..]));
            self.announce(&format!("[{}/{}] {}", index + 1, cells.len(), cell.title));
            if cell.is_warmed() {
                self.warm_up(cell);
            }
            for pair in 0..pairs {
                self.run_pair(cell, pair, TRIES_AT_FIRST);
            }
        }
    }

    /// See [`Cell::is_warmed`].
    fn warm_up(&self, cell: &Cell) {
        let mut candidates = self.candidates.iter();
        if let Some(first) = candidates.find(|one| cell.candidates.contains(&one.name)) {
            // The counted runs will tell what is wrong with it.
            let _ = run(cell, first, self.plan, &[]);
        }
    }

    /// Repeats the cells with a goal, the most doubtful first, two pairs at a time so that both orders are as frequent.
    pub(crate) fn repeat(&mut self, cells: &[Cell], goals: &[Goal]) {
        while let Some((cell, pair)) = self.most_doubtful(cells, goals) {
            self.announce(&format!("again: {}", cell.title));
            self.run_pair(cell, pair, TRIES);
            self.run_pair(cell, pair + 1, TRIES);
            // What there was no time for is no failure: the cell has its runs.
            self.runs.retain(|run| !run.is_surplus(self.plan));
        }
    }

    /// The cell for which there is time whose goals need more pairs most, and the number of its next pair.
    fn most_doubtful<'c>(&self, cells: &'c [Cell], goals: &[Goal]) -> Option<(&'c Cell, u32)> {
        let left = self.plan.left().as_secs_f64();
        let doubts = cells.iter().filter_map(|cell| {
            let of_cell = self.runs.iter().filter(|run| run.cell == cell.id);
            let next = of_cell.map(|run| run.pair + 1).max().unwrap_or(0);
            let may = cell.pairs == Pairs::AsPlanned
                && next < self.plan.pairs_max
                && self.plan.estimate(cell, 2) <= left;
            let doubts = goals.iter().filter(|goal| goal.cell == cell.id);
            let doubt = doubts.map(|goal| goal.doubt(&self.runs)).reduce(f64::max)?;
            may.then_some((doubt, cell, next))
        });
        doubts
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .map(|(_, cell, next)| (cell, next))
    }

    fn announce(&self, what: &str) {
        eprintln!("{what}; {} s left", self.plan.left().as_secs());
    }

    /// One run of each candidate that counts, in the order A B C or C B A by turns.
    fn run_pair(&mut self, cell: &Cell, pair: u32, tries: u32) {
        let taking_part = |candidate: &&Candidate| cell.candidates.contains(&candidate.name);
        let mut order: Vec<&Candidate> = self.candidates.iter().filter(taking_part).collect();
        if pair % 2 == 1 {
            order.reverse();
        }
        for candidate in order {
            for _ in 0..tries {
                if self.run_one(cell, candidate, pair) {
                    break;
                }
            }
        }
    }

    /// Whether that was that; else it was disturbed and is worth another try.
    fn run_one(&mut self, cell: &Cell, candidate: &Candidate, pair: u32) -> bool {
        let result = self
            .rates(cell)
            .and_then(|rates| run(cell, candidate, self.plan, &rates));
        let said = match &result {
            Ok(report) => summary(report),
            Err(reason) => format!("FAILED: {reason}"),
        };
        let rejected = result
            .as_ref()
            .ok()
            .and_then(|report| rejection::reason(cell, report));
        let said_of_it = rejected
            .as_ref()
            .map_or_else(String::new, |reason| format!(" REJECTED: {reason}"));
        eprintln!(
            "  {} [{}] {}: {said}{said_of_it}",
            cell.id,
            pair + 1,
            candidate.name
        );
        let is_done = rejected.is_none();
        self.runs.push(Run {
            cell: cell.id,
            candidate: candidate.name,
            pair,
            result,
            verdict: rejected.map_or(Verdict::Counted, Verdict::Rejected),
        });
        is_done
    }

    /// The options that set the rates of an open loop. The capacity is that of the first runs, so that later ones of it do
    /// not give the runs of one cell different rates.
    fn rates(&self, cell: &Cell) -> Result<Vec<String>, String> {
        let Some(share) = cell.share else {
            return Ok(Vec::new());
        };
        let mut first: Vec<Run> = self
            .runs
            .iter()
            .filter(|run| run.pair < self.plan.pairs && run.cell == CAPACITY)
            .cloned()
            .collect();
        rejection::count_all_where_none_counts(&mut first, &[CAPACITY]);
        let capacity = Figure::Rate
            .middle(&first, CAPACITY, NUTCRACKER)
            .ok_or("nutcracker's capacity was not measured")?;
        let mut options = vec!["--rate".to_owned(), format!("{:.0}", capacity * share)];
        if let Some(share) = cell.beside_share {
            options.extend([
                "--beside-rate".to_owned(),
                format!("{:.0}", capacity * share),
            ]);
        }
        Ok(options)
    }
}

/// Runs of one candidate in one pair, until one is not disturbed: while other cells still wait for theirs, and after.
const TRIES_AT_FIRST: u32 = 2;
const TRIES: u32 = 3;

fn summary(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let mut text = format!(
        "{:.2} us CPU/request at {:.0} % of its CPU, {:.0}/s",
        number(&report["proxy_cpu_us_per_request"]),
        number(&report["proxy_utilisation"]) * 100.0,
        number(&report["requests_per_second"]),
    );
    if !report["latency_us"].is_null() {
        let of = |figure: Figure| figure.read(report).unwrap_or(0.0);
        text.push_str(&format!(
            ", p99 {:.0} us, p99.9 {:.0} us",
            of(Figure::P99),
            of(Figure::P999)
        ));
    }
    text.push_str(&format!(", {:.0} KiB", number(&report["proxy_rss_kib"])));
    text
}

fn run(cell: &Cell, candidate: &Candidate, plan: &Plan, rates: &[String]) -> Result<Value, String> {
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
    command.args(rates);
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
            pairs_reported: 1,
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
