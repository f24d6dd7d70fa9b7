//! One run of the load tool after the other, each bounded in time, none able to end the whole.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cells::{CAPACITY, Candidate, Cell, NUTCRACKER, Pairs};
use super::figures::{Figure, median};
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

/// How thoroughly to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: u32,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    /// When nothing new is begun any more.
    pub(crate) deadline: Instant,
}

/// Does all runs of a cell, in the order A B C, C B A, A B C, ...
pub(crate) fn run_cell(
    cell: &Cell,
    candidates: &[Candidate],
    plan: &Plan,
    earlier: &[Run],
) -> Vec<Run> {
    let taking_part: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| cell.candidates.contains(&candidate.name))
        .collect();
    let pairs = match cell.pairs {
        Pairs::AsPlanned => plan.pairs,
        Pairs::Once => 1,
    };
    let mut runs = Vec::new();
    for pair in 0..pairs {
        let mut order = taking_part.clone();
        if pair % 2 == 1 {
            order.reverse();
        }
        for candidate in order {
            let result = rate(cell, earlier).and_then(|rate| run(cell, candidate, plan, rate));
            let said = match &result {
                Ok(report) => summary(report),
                Err(reason) => format!("FAILED: {reason}"),
            };
            eprintln!("  {} [{}] {}: {said}", cell.id, pair + 1, candidate.name);
            runs.push(Run {
                cell: cell.id,
                candidate: candidate.name,
                pair,
                result,
            });
        }
    }
    runs
}

/// Requests per second of an open loop.
fn rate(cell: &Cell, earlier: &[Run]) -> Result<Option<f64>, String> {
    let Some(share) = cell.share else {
        return Ok(None);
    };
    let rates = Figure::Rate.of(earlier, CAPACITY, NUTCRACKER);
    let capacity = median(&rates).ok_or("nutcracker's capacity was not measured")?;
    Ok(Some((capacity * share).round()))
}

fn summary(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let latency = &report["latency_us"];
    format!(
        "{:.2} us CPU/request, {:.0}/s, p99 {:.0} us, p99.9 {:.0} us, {:.0} KiB",
        number(&report["proxy_cpu_us_per_request"]),
        number(&report["requests_per_second"]),
        number(&latency["p99"]),
        number(&latency["p999"]),
        number(&report["proxy_rss_kib"]),
    )
}

fn run(
    cell: &Cell,
    candidate: &Candidate,
    plan: &Plan,
    rate: Option<f64>,
) -> Result<Value, String> {
    let left = plan.deadline.saturating_duration_since(Instant::now());
    let seconds = cell
        .seconds
        .map_or(plan.seconds, |least| least.max(plan.seconds));
    if left < Duration::from_secs_f64(seconds.min(plan.seconds) + plan.warmup) + SPARE_MIN {
        return Err("not run: the time was up".to_owned());
    }
    let mut command = Command::new(release("load"));
    command
        .args(["run", "--quiet", "--warmup", &plan.warmup.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(&candidate.options)
        .args(cell.load.split_whitespace());
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
