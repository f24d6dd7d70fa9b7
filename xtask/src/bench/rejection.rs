//! Which runs count: one that the tool or the machine disturbed too much is rejected, whatever it measured.
//!
//! The limits are on what the tool and the kernel say of themselves and never on a figure of the proxy, and are the same
//! for all proxies. A rejected run stays in the raw lines and is repeated; where no repetition was better, all count and
//! the report says so.

use serde_json::Value;

use super::cells::{Cell, OURS, Table};
use super::figures::Figure;
use super::runs::{Run, Verdict};

/// Why a run is rejected.
pub(crate) fn reason(cell: &Cell, report: &Value) -> Option<String> {
    match cell.table {
        // Resident memory does not depend on who else had a CPU.
        Table::Memory => None,
        Table::Latency => of_open_loop(report),
        Table::Cost | Table::Unix | Table::Real | Table::Idle | Table::Control => {
            of_closed_loop(report)
        }
    }
}

/// Its figures are of the requests that were due in undisturbed moments; there must be enough of these, and the tool in time.
fn of_open_loop(report: &Value) -> Option<String> {
    let kept = Figure::Undisturbed.read(report).unwrap_or(0.0);
    if kept < UNDISTURBED_MIN {
        let percent = kept * 100.0;
        return Some(format!("undisturbed for {percent:.0} % of the time only"));
    }
    let lag = Figure::Lag.read(report)?;
    (lag > LAG_MAX_US).then(|| format!("the tool's own lag has a p99.9 of {lag:.0} us"))
}

fn of_closed_loop(report: &Value) -> Option<String> {
    let kinds = [
        (Figure::Starvation, "the proxy waited for its CPU"),
        (Figure::ToolStarvation, "the tool waited for its CPU"),
        (Figure::Stolen, "the host took the CPUs"),
    ];
    kinds.into_iter().find_map(|(figure, what)| {
        let share = figure.read(report).filter(|share| *share > STARVED_MAX)?;
        Some(format!("{what} for {:.1} % of the time", share * 100.0))
    })
}

/// Of the time of an open loop.
const UNDISTURBED_MIN: f64 = 0.4;
/// What the watches of the load tool let pass as no disturbance.
const LAG_MAX_US: f64 = 300.0;
/// Of the time of a closed loop.
const STARVED_MAX: f64 = 0.02;

/// Where no pair of a candidate with ours counts, lets those count that were rejected last.
pub(crate) fn count_all_where_none_counts(runs: &mut [Run], cells: &[&str]) {
    for cell in cells {
        let mut names: Vec<&str> = Vec::new();
        for run in runs.iter().filter(|run| run.cell == *cell) {
            if !names.contains(&run.candidate) {
                names.push(run.candidate);
            }
        }
        for name in names {
            let counts = |name: &str, pair: u32| {
                let mut of = runs
                    .iter()
                    .filter(|run| run.cell == *cell && run.pair == pair);
                of.any(|run| run.candidate == name && run.counted().is_some())
            };
            let pairs = runs.iter().map(|run| run.pair);
            let has_pair = pairs
                .into_iter()
                .any(|pair| counts(name, pair) && counts(OURS, pair));
            if !has_pair {
                let needed: Vec<(&str, u32)> = [name, OURS]
                    .into_iter()
                    .flat_map(|name| runs.iter().map(move |run| (name, run.pair)))
                    .filter(|(name, pair)| !counts(name, *pair))
                    .collect();
                for (name, pair) in needed {
                    count_last(runs, cell, name, pair);
                }
            }
        }
    }
}

fn count_last(runs: &mut [Run], cell: &str, name: &str, pair: u32) {
    let last = runs
        .iter_mut()
        .rev()
        .find(|run| run.cell == cell && run.candidate == name && run.pair == pair);
    if let Some(run) = last
        && let Verdict::Rejected(reason) = &run.verdict
    {
        run.verdict = Verdict::CountedAllTheSame(reason.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cells;
    use super::*;

    fn cell(id: &str) -> Cell {
        let cells = cells::cells();
        cells
            .into_iter()
            .find(|cell| cell.id == id)
            .expect("a cell of this name")
    }

    #[test]
    fn an_open_loop_is_rejected_for_the_tools_lag_and_for_noise_and_never_for_what_it_measured() {
        let report = |share: f64, lag: f64| {
            json!({
                "proxy_starvation": 0.5,
                "latency_us": { "p999": 1e9 },
                "undisturbed": { "share": share, "latency_us": { "p999": 1e9 }, "lag_us": { "p999": lag } },
            })
        };
        let open = cell("open-half");
        assert_eq!(reason(&open, &report(0.9, 100.0)), None);
        let why = reason(&open, &report(0.9, 1000.0)).expect("a late tool");
        assert!(why.contains("lag"), "{why}");
        let why = reason(&open, &report(0.1, 100.0)).expect("much noise");
        assert!(why.contains("10 %"), "{why}");
        assert!(reason(&open, &json!({ "undisturbed": null })).is_some());
    }

    #[test]
    fn a_closed_loop_is_rejected_when_somebody_else_had_its_cpus() {
        let closed = cell("redis-get-1");
        for (name, share, is_rejected) in [
            ("proxy_starvation", 0.019, false),
            ("proxy_starvation", 0.021, true),
            ("tool_starvation", 0.021, true),
            ("machine_stolen", 0.021, true),
        ] {
            let why = reason(&closed, &json!({ name: share }));
            assert_eq!(why.is_some(), is_rejected, "{name} {share}");
            assert_eq!(reason(&cell("burst"), &json!({ name: share })), None);
        }
    }

    fn run(candidate: &'static str, pair: u32, cpu: f64, is_rejected: bool) -> Run {
        Run {
            cell: "a",
            candidate,
            pair,
            result: Ok(json!({ "proxy_cpu_us_per_request": cpu })),
            verdict: if is_rejected {
                Verdict::Rejected("noise".to_owned())
            } else {
                Verdict::Counted
            },
        }
    }

    #[test]
    fn a_rejected_run_counts_only_where_no_pair_was_better() {
        let mut runs = vec![
            run("ours", 0, 1.0, true),
            run("ours", 0, 2.0, true),
            run("nutcracker", 0, 8.0, false),
            run("ours", 1, 2.0, false),
            run("nutcracker", 1, 9.0, true),
        ];
        let ratios = |runs: &[Run]| Figure::Cpu.ratios(runs, "a", "nutcracker");
        assert!(ratios(&runs).is_empty());
        count_all_where_none_counts(&mut runs, &["a"]);
        assert_eq!(ratios(&runs), [4.0, 4.5]);
        assert_eq!(
            runs.iter().filter(|run| run.disturbed().is_some()).count(),
            3
        );
        // One good pair, and nothing else is let in.
        let mut runs = vec![
            run("ours", 0, 2.0, false),
            run("nutcracker", 0, 8.0, false),
            run("ours", 1, 1.0, true),
            run("nutcracker", 1, 8.0, false),
        ];
        count_all_where_none_counts(&mut runs, &["a"]);
        assert_eq!(ratios(&runs), [4.0]);
    }
}
