//! The report: tables, charts and raw lines out of the runs.

use std::fmt::Write as _;

use serde_json::Value;

use super::cells::{
    CONTROL, CONTROL_CELL, Cell, ENVOY, NUTCRACKER, NUTCRACKER_AND_IDLE, OURS, OURS_AND_IDLE,
    RELAY, Table,
};
use super::counted;
use super::figures::{Figure, median};
use super::goals::{Against, Goal, Standing};
use super::peers::Peers;
use super::runs::{Run, Verdict};

/// Everything that the report is written from.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: String,
    /// What others took of the machine just before, in words.
    pub(crate) load: String,
    pub(crate) congestion: String,
    pub(crate) command: String,
    /// Seconds per run and what all runs have in common, in words.
    pub(crate) plan: String,
    pub(crate) peers: Peers,
    pub(crate) cells: Vec<Cell>,
    pub(crate) runs: Vec<Run>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) instructions: Vec<(String, f64)>,
    pub(crate) charts: Vec<(&'static str, String)>,
}

pub(crate) const PEERS: [&str; 4] = [OURS, NUTCRACKER, ENVOY, RELAY];

/// The part of the page below the hand-written one.
pub(crate) fn markdown(session: &Session) -> String {
    let mut text = format!(
        "Written by `{}` on {} at commit {}.\n\n- Machine: {}; TCP congestion control {}; others used {} of it before the first run.\n- {}\n",
        session.command,
        session.date,
        session.commit,
        session.machine,
        session.congestion,
        session.load,
        session.plan
    );
    let control = spread(session, CONTROL_CELL, Figure::Cpu, CONTROL);
    line(
        &mut text,
        &format!(
            "- Control: ours by ours, redis GET at depth 16: {control}. A smaller difference says nothing."
        ),
    );
    line(&mut text, &priority(&session.runs));
    for (name, version) in &session.peers.versions {
        line(&mut text, &format!("- {name}: {version}"));
    }
    line(
        &mut text,
        "- relay: `load relay` of the same commit, which parses nothing: the floor.",
    );
    for (name, reason) in &session.peers.absent {
        line(&mut text, &format!("- Absent: {name}: {reason}."));
    }
    push_goals(&mut text, session);
    push_costs(&mut text, session);
    push_real(&mut text, session);
    push_latencies(&mut text, session);
    push_memory(&mut text, session);
    push_idle(&mut text, session);
    push_counted(&mut text, session);
    push_instructions(&mut text, session);
    push_rejected(&mut text, session);
    push_failures(&mut text, session);
    text
}

/// Whether tool and proxies went before the machine's other processes, and whether the proxy's CPU was watched.
fn priority(runs: &[Run]) -> String {
    let reports = || runs.iter().filter_map(|run| run.result.as_ref().ok());
    let niceness = reports().find_map(|report| report["niceness"].as_i64());
    let niceness = niceness.map_or_else(|| "-".to_owned(), |niceness| niceness.to_string());
    let mut open_loops = reports().filter(|report| report["disturbances"].is_object());
    let has_pulse = open_loops.all(|report| report["disturbances"]["pulse"].is_object());
    let watched = if has_pulse { "a" } else { "**no**" };
    format!(
        "- Niceness of the tool and the proxies: {niceness}; {watched} pulse on the proxy's CPU in open loops."
    )
}

fn line(text: &mut String, words: &str) {
    text.push_str(words);
    text.push('\n');
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn push_goals(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Goals\n\nAgainst a peer: how many times better ours is (its cost by ours; for a rate ours by its), at least, the median over the \
         pairs. Otherwise: at most. `*`: runs count that were to be rejected, because none was better. `+`: the proxy was busy for less than 95 % of the time in \
         one of the runs, because the load tool was the slower side; a proxy that waits works in smaller portions and pays more for each.\n\n\
         | goal | against | must | aim | measured | pairs | |\n|---|---|---|---|---|---|---|\n",
    );
    for goal in &session.goals {
        let measured = goal.measured(&session.runs);
        let (against, pairs) = match &goal.against {
            Against::Peer(name) | Against::Variant(name) => (
                name.as_str(),
                goal.figure.ratios(&session.runs, &goal.cell, name).len(),
            ),
            Against::Nothing => ("", goal.figure.of(&session.runs, &goal.cell, OURS).len()),
        };
        line(
            text,
            &format!(
                "| {}{} | {against} | {} | {} | {} | {pairs} | {} |",
                goal.title,
                marks(session, &goal.cell),
                goal.must
                    .map_or_else(|| "-".to_owned(), |must| must.to_string()),
                goal.aim,
                in_three_digits(measured),
                goal.standing(measured).text()
            ),
        );
    }
    push_obstacles(text, session);
}

fn in_three_digits(value: Option<f64>) -> String {
    let digits = match value {
        Some(value) if value >= 100.0 => 0,
        Some(value) if value >= 1.0 => 2,
        _ => 3,
    };
    shown(value, digits)
}

/// What stands between us and each aim that is not reached, as people wrote it down.
fn push_obstacles(text: &mut String, session: &Session) {
    let open = session.goals.iter().filter(|goal| {
        let standing = goal.standing(goal.measured(&session.runs));
        standing != Standing::Aim
    });
    let open: Vec<&Goal> = open.collect();
    if open.is_empty() {
        return;
    }
    text.push_str("\n#### Aims that are not reached\n\n");
    for goal in open {
        let against = match &goal.against {
            Against::Peer(name) => format!(" against {name}"),
            Against::Variant(_) | Against::Nothing => String::new(),
        };
        let note = goal.note.as_deref().unwrap_or("not explained yet.");
        line(text, &format!("- {}{against}: {note}", goal.title));
    }
}

/// What is to be known beside the figures of a cell.
fn marks(session: &Session, cell: &str) -> String {
    let Some(cell) = session.cells.iter().find(|known| known.id == cell) else {
        return String::new();
    };
    let mut marks = String::new();
    if was_disturbed(session, cell) {
        marks.push_str(" *");
    }
    if cell.table == Table::Cost && !was_saturated(session, cell) {
        marks.push_str(" +");
    }
    marks
}

fn of_table(session: &Session, table: Table) -> impl Iterator<Item = &Cell> {
    session.cells.iter().filter(move |cell| cell.table == table)
}

fn push_costs(text: &mut String, session: &Session) {
    text.push_str(
        "\n### CPU per request\n\nMicroseconds of proxy CPU, medians; a ratio is the peer's by ours, the median over the pairs with the \
         smallest and the largest; busy is the proxy's share of its CPU, ours / nutcracker. A run in which a proxy or the \
         tool was kept from its CPU, or the host took the CPU away, for more than 2 % of the time is rejected and repeated; `*`: such runs count, \
         because none was better.\n",
    );
    push_cost_table(text, session, Table::Cost);
    push_chart(
        text,
        session,
        "cpu-by-depth.svg",
        "CPU per request by depth",
    );
    text.push_str("\nThe same over unix sockets:\n");
    push_cost_table(text, session, Table::Unix);
}

fn push_cost_table(text: &mut String, session: &Session, table: Table) {
    text.push_str(
        "\n| load | ours | nutcracker | Envoy | relay | nutcracker : ours | Envoy : ours | relay : ours | busy % | req/s ours | req/s nutcracker |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in of_table(session, table) {
        let cost = |name| shown(Figure::Cpu.middle(&session.runs, cell.id, name), 2);
        let rate = |name| shown(Figure::Rate.middle(&session.runs, cell.id, name), 0);
        let busy = |name| {
            let share = Figure::Busy.middle(&session.runs, cell.id, name);
            shown(share.map(|share| share * 100.0), 0)
        };
        line(
            text,
            &format!(
                "| {}{} | {} | {} | {} | {} | {} | {} | {} | {} / {} | {} | {} |",
                cell.title,
                if was_disturbed(session, cell) {
                    " *"
                } else {
                    ""
                },
                cost(OURS),
                cost(NUTCRACKER),
                cost(ENVOY),
                cost(RELAY),
                spread(session, cell.id, Figure::Cpu, NUTCRACKER),
                spread(session, cell.id, Figure::Cpu, ENVOY),
                spread(session, cell.id, Figure::Cpu, RELAY),
                busy(OURS),
                busy(NUTCRACKER),
                rate(OURS),
                rate(NUTCRACKER)
            ),
        );
    }
}

fn push_real(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Real servers\n\nTwo redis-server and redis-benchmark (50 clients, 32-byte values, 10,000 keys) on one CPU, the proxy alone on the \
         other. Servers and generator are the slower side. CPU in microseconds per request; all: of the proxy, both servers and the generator.\n\n\
         | load | proxy | req/s | CPU of the proxy | CPU of all | busy % | ours better: req/s | ours better: CPU of all |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for cell in of_table(session, Table::Real) {
        for name in [OURS, NUTCRACKER] {
            let of =
                |figure: Figure, digits| shown(figure.middle(&session.runs, cell.id, name), digits);
            let busy = Figure::Busy.middle(&session.runs, cell.id, name);
            let better = |figure| {
                if name == OURS {
                    spread(session, cell.id, figure, NUTCRACKER)
                } else {
                    String::new()
                }
            };
            line(
                text,
                &format!(
                    "| {}{} | {name} | {} | {} | {} | {} | {} | {} |",
                    cell.title,
                    if was_disturbed(session, cell) {
                        " *"
                    } else {
                        ""
                    },
                    of(Figure::Rate, 0),
                    of(Figure::Cpu, 2),
                    of(Figure::AllCpu, 2),
                    shown(busy.map(|share| share * 100.0), 0),
                    better(Figure::Rate),
                    better(Figure::AllCpu)
                ),
            );
        }
    }
}

fn push_idle(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Idle clients\n\nMicroseconds of proxy CPU per request of 50 busy clients at depth 1.\n\n\
         | proxy | alone | beside 10,000 idle clients | with : without, per pair |\n|---|---|---|---|\n",
    );
    for cell in of_table(session, Table::Idle) {
        for (name, with_idle) in [(OURS, OURS_AND_IDLE), (NUTCRACKER, NUTCRACKER_AND_IDLE)] {
            let cost = |name| shown(Figure::Cpu.middle(&session.runs, cell.id, name), 2);
            let ratios = Figure::Cpu.ratios_between(&session.runs, cell.id, with_idle, name);
            line(
                text,
                &format!(
                    "| {name}{} | {} | {} | {} |",
                    if was_disturbed(session, cell) {
                        " *"
                    } else {
                        ""
                    },
                    cost(name),
                    cost(with_idle),
                    in_words(&ratios)
                ),
            );
        }
    }
}

/// The ratios of a cell's pairs, in words.
fn spread(session: &Session, cell: &str, figure: Figure, peer: &str) -> String {
    in_words(&figure.ratios(&session.runs, cell, peer))
}

/// `median (smallest..largest)`.
fn in_words(ratios: &[f64]) -> String {
    let Some(middle) = median(ratios) else {
        return "-".to_owned();
    };
    let low = ratios.iter().copied().fold(f64::MAX, f64::min);
    let high = ratios.iter().copied().fold(f64::MIN, f64::max);
    format!("{middle:.2} ({low:.2}..{high:.2})")
}

/// Whether a run of a cell counts although it was disturbed, because none was better.
fn was_disturbed(session: &Session, cell: &Cell) -> bool {
    let mut runs = session.runs.iter().filter(|run| run.cell == cell.id);
    runs.any(|run| matches!(run.verdict, Verdict::CountedAllTheSame(_)))
}

/// Whether ours and nutcracker had hardly a pause in all runs of a cell.
fn was_saturated(session: &Session, cell: &Cell) -> bool {
    [OURS, NUTCRACKER].iter().all(|name| {
        let shares = Figure::Busy.of(&session.runs, cell.id, name);
        shares.iter().all(|share| *share >= SATURATED)
    })
}

const SATURATED: f64 = 0.95;

fn push_latencies(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Latency at a fixed rate\n\nMicroseconds from when a request was due, medians of the runs; both proxies get the same rate. Of the \
         requests that were due while neither the tool nor a CPU of the run was disturbed (kept: their share of the time); p99.9 of all: with the \
         others. What the tool itself was late is in it, for both alike, and stands beside. A run is rejected and repeated if less than 40 % of \
         its time was undisturbed or the own lag has a p99.9 above 300 us; `*`: such runs count, because none was better. `!`: the proxy was \
         overloaded and had not answered all requests seconds after the end of a run; they count with the time that they had waited.\n\n\
         | load | req/s | proxy | p50 | p99 | p99.9 | p99.9 of all | kept % | own lag p99.9 | CPU us/request | runs | p99.9, nutcracker : ours |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in of_table(session, Table::Latency) {
        for name in [OURS, NUTCRACKER] {
            push_latency(text, session, cell, name);
        }
    }
    push_chart(text, session, "latency.svg", "Latency by percentile");
}

fn push_latency(text: &mut String, session: &Session, cell: &Cell, name: &str) {
    let of = |figure: Figure, digits| shown(figure.middle(&session.runs, cell.id, name), digits);
    let all = |figure: Figure| figure.of(&session.runs, cell.id, name);
    let kept = Figure::Undisturbed.middle(&session.runs, cell.id, name);
    let is_overloaded = all(Figure::Unanswered).iter().any(|count| *count > 0.0);
    let mark = |is_so: bool, mark: &'static str| if is_so { mark } else { "" };
    line(
        text,
        &format!(
            "| {}{} | {} | {name} | {} | {} | {}{} | {} | {} | {} | {} | {} | {} |",
            cell.title,
            mark(was_disturbed(session, cell), " *"),
            of(Figure::Rate, 0),
            of(Figure::P50, 0),
            of(Figure::P99, 0),
            of(Figure::P999, 0),
            mark(is_overloaded, " !"),
            of(Figure::P999WithDisturbed, 0),
            shown(kept.map(|share| share * 100.0), 0),
            of(Figure::Lag, 0),
            of(Figure::Cpu, 2),
            all(Figure::P999).len(),
            if name == OURS {
                spread(session, cell.id, Figure::P999, NUTCRACKER)
            } else {
                String::new()
            }
        ),
    );
}

fn push_memory(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Memory\n\nResident memory in KiB: before the first client, at most, at the end of the watch with all clients still connected.\n\n\
         | load | proxy | before | most | at the end | end : before | KiB per client |\n|---|---|---|---|---|---|---|\n",
    );
    for cell in of_table(session, Table::Memory) {
        for name in PEERS.iter().filter(|name| cell.candidates.contains(name)) {
            let of =
                |figure: Figure, digits| shown(figure.middle(&session.runs, cell.id, name), digits);
            line(
                text,
                &format!(
                    "| {} | {name} | {} | {} | {} | {} | {} |",
                    cell.title,
                    of(Figure::StartKib, 0),
                    of(Figure::PeakKib, 0),
                    of(Figure::EndKib, 0),
                    of(Figure::Growth, 2),
                    if cell.id == "idle-memory" {
                        of(Figure::KibPerClient, 2)
                    } else {
                        "-".to_owned()
                    }
                ),
            );
        }
    }
    push_chart(text, session, "memory.svg", "Memory over a burst");
}

fn push_counted(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Counts per request\n\nredis GET, 50 clients, 2 servers; of the whole process, the difference of a short and a long run. System calls \
         by strace, instructions in user space by callgrind, allocations by memcheck.\n\n\
         | load | proxy | instructions | allocations | system calls | per thousand requests, by kind |\n|---|---|---|---|---|---|\n",
    );
    for cell in counted::cells() {
        for name in [OURS, NUTCRACKER] {
            let Some(run) = session
                .runs
                .iter()
                .find(|run| run.cell == cell && run.candidate == name)
            else {
                continue;
            };
            let of =
                |figure: Figure, digits| shown(figure.middle(&session.runs, cell, name), digits);
            let kinds = match &run.result {
                Ok(report) => by_kind(report),
                Err(reason) => reason.clone(),
            };
            line(
                text,
                &format!(
                    "| depth {} | {name} | {} | {} | {} | {kinds} |",
                    cell.trim_start_matches("counted-"),
                    of(Figure::Instructions, 0),
                    of(Figure::Allocations, 3),
                    of(Figure::SystemCalls, 3)
                ),
            );
        }
    }
}

/// System calls by kind, and what could not be counted.
fn by_kind(report: &Value) -> String {
    let kinds = report["system_calls_by_kind"].as_array();
    let kinds = kinds
        .into_iter()
        .flatten()
        .filter_map(|kind| Some(format!("{} {:.0}", kind[0].as_str()?, kind[1].as_f64()?)));
    let failures = report["failures"].as_array();
    let failures = failures
        .into_iter()
        .flatten()
        .filter_map(|failure| failure.as_str().map(str::to_owned));
    kinds.chain(failures).collect::<Vec<_>>().join(", ")
}

fn push_instructions(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Instructions\n\nOf the proxy's core per operation, by callgrind, from `bench/budgets.toml`; `cargo xtask budgets` holds them \
         within 2 %. One operation of a `depth` scenario is one request of one of 50 clients, from its bytes in to its reply's bytes out.\n\n\
         | operation | instructions |\n|---|---|\n",
    );
    for (name, cost) in &session.instructions {
        line(text, &format!("| {name} | {cost:.1} |"));
    }
}

/// How many runs of whom were disturbed too much, and where they count all the same.
fn push_rejected(text: &mut String, session: &Session) {
    let rejected = session.runs.iter().filter(|run| run.disturbed().is_some());
    text.push_str(&format!(
        "\n### Rejected runs\n\nOf {} runs {} were disturbed too much by others than the proxy and rejected. By proxy, and the reason \
         that the last one had:\n\n| load | proxy | runs | rejected | reason |\n|---|---|---|---|---|\n",
        session.runs.len(),
        rejected.clone().count()
    ));
    let mut told: Vec<(&str, &str)> = Vec::new();
    for run in rejected {
        if told.contains(&(run.cell, run.candidate)) {
            continue;
        }
        told.push((run.cell, run.candidate));
        let alike = |other: &&Run| other.cell == run.cell && other.candidate == run.candidate;
        let all: Vec<&Run> = session.runs.iter().filter(alike).collect();
        let reasons: Vec<&str> = all.iter().filter_map(|run| run.disturbed()).collect();
        let count_all_the_same = all
            .iter()
            .any(|run| matches!(run.verdict, Verdict::CountedAllTheSame(_)));
        line(
            text,
            &format!(
                "| {} | {} | {} | {} | {}{} |",
                run.cell,
                run.candidate,
                all.len(),
                reasons.len(),
                reasons.last().unwrap_or(&""),
                if count_all_the_same {
                    "; counted all the same"
                } else {
                    ""
                }
            ),
        );
    }
}

fn push_failures(text: &mut String, session: &Session) {
    let failures: Vec<String> = session
        .runs
        .iter()
        .filter_map(|run| {
            let reason = run.result.as_ref().err()?;
            Some(format!(
                "- {}, {}, pair {}: {reason}",
                run.cell,
                run.candidate,
                run.pair + 1
            ))
        })
        .collect();
    if !failures.is_empty() {
        line(
            text,
            &format!("\n### Runs without a result\n\n{}", failures.join("\n")),
        );
    }
}

fn push_chart(text: &mut String, session: &Session, file: &str, title: &str) {
    if session.charts.iter().any(|(name, _)| *name == file) {
        line(text, &format!("\n![{title}](benchmarks/{file})"));
    }
}

/// One line per run.
pub(crate) fn raw(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        let result = match &run.result {
            Ok(report) => report.to_string(),
            Err(reason) => format!("FAILED {}", reason.replace('\n', " / ")),
        };
        let verdict = match &run.verdict {
            Verdict::Counted => String::new(),
            Verdict::Rejected(why) => format!("REJECTED ({why}) "),
            Verdict::CountedAllTheSame(why) => format!("COUNTED ALL THE SAME ({why}) "),
        };
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{} {} {} {verdict}{result}",
            run.cell,
            run.candidate,
            run.pair + 1
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cells;
    use super::*;

    fn session(runs: Vec<Run>) -> Session {
        let goals = super::super::goals::parse(
            "half load | open-half | p999 | nutcracker | 1 | 2\n",
            &[NUTCRACKER],
            &[],
        );
        Session {
            date: "2000-01-01".to_owned(),
            commit: "abc".to_owned(),
            machine: "one".to_owned(),
            load: "0 %".to_owned(),
            congestion: "cubic".to_owned(),
            command: "bench".to_owned(),
            plan: "Runs.".to_owned(),
            peers: Peers {
                candidates: Vec::new(),
                versions: Vec::new(),
                absent: Vec::new(),
                nutcracker: None,
            },
            cells: cells::cells(),
            runs,
            goals: goals.expect("a good goal"),
            instructions: Vec::new(),
            charts: Vec::new(),
        }
    }

    fn run(candidate: &'static str, pair: u32, p999: f64, verdict: Verdict) -> Run {
        let report = json!({
            "requests_per_second": 1000.0,
            "latency_us": { "p50": 1.0, "p99": 2.0, "p999": 9000.0 },
            "undisturbed": {
                "share": 0.8,
                "latency_us": { "p50": 1.0, "p99": 2.0, "p999": p999 },
                "lag_us": { "p999": 7.0 },
            },
            "unanswered": 0,
        });
        Run {
            cell: "open-half",
            candidate,
            pair,
            result: Ok(report),
            verdict,
        }
    }

    /// The rows of the tables that start so.
    fn rows<'t>(text: &'t str, start: &str) -> Vec<&'t str> {
        text.lines()
            .filter(|line| line.starts_with(start))
            .collect()
    }

    #[test]
    fn a_rejected_run_is_in_the_raw_lines_and_in_no_figure() {
        let noise = || Verdict::Rejected("noise".to_owned());
        let session = session(vec![
            run(OURS, 0, 5000.0, noise()),
            run(OURS, 0, 100.0, Verdict::Counted),
            run(NUTCRACKER, 0, 300.0, Verdict::Counted),
        ]);
        let text = markdown(&session);
        assert_eq!(
            rows(&text, "| half load "),
            ["| half load | nutcracker | 1 | 2 | 3.00 | 1 | aim reached |"]
        );
        assert_eq!(
            rows(&text, "| open-half"),
            ["| open-half | ours | 2 | 1 | noise |"]
        );
        assert!(text.contains("Of 3 runs 1 were disturbed"), "{text}");
        let raw = raw(&session.runs);
        assert!(
            raw.starts_with("open-half ours 1 REJECTED (noise) {"),
            "{raw}"
        );
        assert_eq!(raw.lines().count(), 3);
    }

    #[test]
    fn the_report_says_which_priority_was_to_be_had() {
        let mut run = run(OURS, 0, 1.0, Verdict::Counted);
        run.result = Ok(json!({ "niceness": -20, "disturbances": { "pulse": null } }));
        let words = priority(&[run]);
        assert!(words.contains("-20; **no** pulse"), "{words}");
        assert!(priority(&[]).contains(": -;"));
    }

    #[test]
    fn what_counts_although_it_was_disturbed_is_marked() {
        let session = session(vec![
            run(
                OURS,
                0,
                100.0,
                Verdict::CountedAllTheSame("noise".to_owned()),
            ),
            run(NUTCRACKER, 0, 300.0, Verdict::Counted),
        ]);
        let text = markdown(&session);
        assert!(text.contains("| half load * | nutcracker"), "{text}");
        assert!(text.contains("| noise; counted all the same |"), "{text}");
        assert!(
            text.contains("| ours | 1 | 2 | 100 | 9000 | 80 | 7 | - | 1 | 3.00 (3.00..3.00) |"),
            "{text}"
        );
    }
}
