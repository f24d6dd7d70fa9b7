//! What a proxy does per request that can be counted and so repeats on a busy machine: system calls by strace, user
//! instructions by callgrind, allocations by memcheck.
//!
//! Each is the whole process' difference between a short and a long run by their difference in requests, so that start,
//! warm-up and end cancel out. How many requests a tick finds depends on the tool's speed, so the counts move a little.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::cells::{NUTCRACKER, OURS};
use super::runs::{Plan, Run, Verdict};
use crate::budgets::count_system_calls;
use crate::child::finish;
use crate::tools::release;

/// The counts at one depth.
struct Counted {
    cell: &'static str,
    depth: &'static str,
    /// Under valgrind too.
    valgrind: bool,
}

const DEPTHS: [Counted; 3] = [
    Counted {
        cell: "counted-1",
        depth: "depth-1",
        valgrind: false,
    },
    Counted {
        cell: "counted-16",
        depth: "depth-16",
        valgrind: true,
    },
    Counted {
        cell: "counted-64",
        depth: "depth-64",
        valgrind: false,
    },
];

/// The names of the cells.
pub(crate) fn cells() -> impl Iterator<Item = &'static str> {
    DEPTHS.iter().map(|counted| counted.cell)
}

/// Counts, ours and nutcracker's, those whose cell contains `only`.
pub(crate) fn count(nutcracker: Option<&PathBuf>, only: Option<&str>, plan: &Plan) -> Vec<Run> {
    let ours = release("nutcracker");
    let programs = [(OURS, Some(&ours)), (NUTCRACKER, nutcracker)];
    let mut runs = Vec::new();
    for counted in &DEPTHS {
        if only.is_some_and(|only| !counted.cell.contains(only)) {
            continue;
        }
        for (candidate, program) in programs {
            let Some(program) = program else { continue };
            eprintln!(
                "counting {} of {candidate}; {} s left",
                counted.depth,
                plan.left().as_secs()
            );
            let result = if plan.left() < AT_WORST {
                Err("not run: the time was up".to_owned())
            } else {
                Ok(count_all(program, counted))
            };
            eprintln!("  {} {candidate}: {result:?}", counted.cell);
            runs.push(Run {
                cell: counted.cell,
                candidate,
                pair: 0,
                result,
                verdict: Verdict::Counted,
            });
        }
    }
    runs
}

/// A count that fails says why and leaves the others.
fn count_all(program: &Path, counted: &Counted) -> Value {
    let mut report = Map::new();
    let mut failures = Vec::new();
    match count_system_calls(program, counted.depth) {
        Ok(calls) => {
            report.insert("system_calls".to_owned(), json!(calls.per_request()));
            report.insert(
                "system_calls_by_kind".to_owned(),
                json!(calls.per_thousand()),
            );
        }
        Err(failure) => failures.push(format!("strace: {failure}")),
    }
    if counted.valgrind {
        for tool in &TOOLS {
            match under_valgrind(program, counted.depth, tool) {
                Ok(count) => {
                    report.insert(tool.figure.to_owned(), json!(count));
                }
                Err(reason) => failures.push(format!("{}: {reason}", tool.name)),
            }
        }
    }
    if !failures.is_empty() {
        report.insert("failures".to_owned(), json!(failures));
    }
    Value::Object(report)
}

/// A tool of valgrind and the number in its last words.
struct Tool {
    name: &'static str,
    options: &'static str,
    figure: &'static str,
    /// Before the number, which may have commas.
    before: &'static str,
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "callgrind",
        options: "--callgrind-out-file=/dev/null",
        figure: "instructions",
        before: "Collected :",
    },
    Tool {
        name: "memcheck",
        options: "--leak-check=no --undef-value-errors=no",
        figure: "allocations",
        before: "total heap usage:",
    },
];

/// Of one request.
fn under_valgrind(program: &Path, depth: &str, tool: &Tool) -> Result<f64, String> {
    let (few, requests_few) = valgrind_run(program, depth, tool, SHORT)?;
    let (many, requests_many) = valgrind_run(program, depth, tool, LONG)?;
    let count = (many - few) / (requests_many - requests_few);
    // Two runs differ by a handful of whatever is counted: a queue that grows to a new peak in one of them.
    // So a thousandth per request is the least that this can tell.
    Ok((count.max(0.0) * 1000.0).round() / 1000.0)
}

/// Both after the buffers have grown to their size.
const SHORT: u64 = 20_000;
const LONG: u64 = 60_000;

/// The count of one run, and its requests.
fn valgrind_run(
    program: &Path,
    depth: &str,
    tool: &Tool,
    requests: u64,
) -> Result<(f64, f64), String> {
    let log = std::env::temp_dir().join(format!("twemproxy-{}-{}", tool.name, std::process::id()));
    let command = format!(
        "valgrind --tool={} {} --log-file={} {} -v 4 -c {{conf}} -o {{dir}}/proxy.log -p {{dir}}/proxy.pid \
         -a {{dir}}/stats.sock",
        tool.name,
        tool.options,
        log.display(),
        program.display()
    );
    let mut load = Command::new(release("load"));
    load.args(["run", "--quiet", "--warmup", "0", "--seconds", "30"])
        .args(["--depth", depth.trim_start_matches("depth-")])
        .args(["--requests", &requests.to_string(), "--proxy", &command]);
    let ended = finish(&mut load, AT_WORST);
    // The load tool has seen the proxy end.
    let words = fs::read_to_string(&log).unwrap_or_default();
    // Without a run there is none.
    let _ = fs::remove_file(&log);
    let (succeeded, out, said) = ended?;
    if !succeeded {
        return Err(said.trim().replace('\n', " / "));
    }
    let report: Value = serde_json::from_str(&out).map_err(|error| error.to_string())?;
    let count = number_after(&words, tool.before).ok_or("it counted nothing")?;
    Ok((count, report["requests"].as_f64().unwrap_or(0.0)))
}

/// For all counts of one program at one depth, each of which takes seconds.
const AT_WORST: Duration = Duration::from_secs(40);

fn number_after(text: &str, before: &str) -> Option<f64> {
    let at = text.find(before)? + before.len();
    let word = text[at..].split_whitespace().next()?;
    word.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_valgrinds_last_words() {
        let callgrind = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n";
        let memcheck = "==7==   total heap usage: 1,234 allocs, 12 frees, 5 bytes allocated\n";
        assert_eq!(number_after(callgrind, TOOLS[0].before), Some(1_234_567.0));
        assert_eq!(number_after(memcheck, TOOLS[1].before), Some(1234.0));
        assert_eq!(number_after("==7==", TOOLS[0].before), None);
    }
}
