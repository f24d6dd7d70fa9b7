//! The report: tables, charts and raw lines out of the runs.

use std::fmt::Write as _;

use super::cells::{CONTROL, CONTROL_CELL, Cell, ENVOY, NUTCRACKER, OURS, RELAY, Table};
use super::figures::{Against, Figure, Goal, median};
use super::peers::Peers;
use super::runs::Run;
use super::svg::{Chart, Scale, Series};

/// Everything that the report is written from.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) load: String,
    pub(crate) congestion: String,
    pub(crate) command: String,
    /// Pairs and seconds per run, in words.
    pub(crate) plan: String,
    pub(crate) peers: Peers,
    pub(crate) cells: Vec<Cell>,
    pub(crate) runs: Vec<Run>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) instructions: Vec<(String, f64)>,
    /// System calls per thousand requests by cell and candidate, in words.
    pub(crate) calls: Vec<(String, &'static str, String)>,
    pub(crate) charts: Vec<(&'static str, String)>,
}

const PEERS: [&str; 4] = [OURS, NUTCRACKER, ENVOY, RELAY];

/// The part of the page below the hand-written one.
pub(crate) fn markdown(session: &Session) -> String {
    let mut text = format!(
        "Written by `{}` on {} at commit {}.\n\n- Machine: {}; TCP congestion control {}; load average before the first run {}.\n- {}\n",
        session.command,
        session.date,
        session.commit,
        session.machine,
        session.congestion,
        session.load,
        session.plan
    );
    let control = spread(session, CONTROL_CELL, CONTROL);
    line(
        &mut text,
        &format!(
            "- Control: ours by ours, redis GET at depth 16: {control}. A smaller difference says nothing."
        ),
    );
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
    line(
        &mut text,
        &format!(
            "- Each run as a line of JSON: [raw-{0}.txt](benchmarks/raw-{0}.txt).",
            session.date
        ),
    );
    push_goals(&mut text, session);
    push_costs(&mut text, session);
    push_latencies(&mut text, session);
    push_memory(&mut text, session);
    push_calls(&mut text, session);
    push_instructions(&mut text, session);
    push_failures(&mut text, session);
    text
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
        "\n### Goals\n\nAgainst a peer: how many times our figure theirs is, at least. Against another load or alone: at most.\n\n\
         | goal | against | must | aim | measured | |\n|---|---|---|---|---|---|\n",
    );
    for goal in &session.goals {
        let measured = goal.measured(&session.runs);
        let against = match &goal.against {
            Against::Peer(name) | Against::Cell(name) => name,
            Against::Nothing => "",
        };
        line(
            text,
            &format!(
                "| {} | {against} | {} | {} | {} | {} |",
                goal.title,
                goal.must,
                goal.aim,
                shown(
                    measured,
                    if measured.is_some_and(|value| value < 1.0) {
                        3
                    } else {
                        2
                    }
                ),
                goal.standing(measured).text()
            ),
        );
    }
}

fn of_table(session: &Session, table: Table) -> impl Iterator<Item = &Cell> {
    session.cells.iter().filter(move |cell| cell.table == table)
}

fn push_costs(text: &mut String, session: &Session) {
    text.push_str(
        "\n### CPU per request\n\nMicroseconds of proxy CPU, medians; a ratio is the peer's by ours, the median over the pairs with the \
         smallest and the largest. `*`: a proxy was kept from its CPU for more than 2 % of a run, so the row is to be repeated.\n\n\
         | load | ours | nutcracker | Envoy | relay | nutcracker : ours | Envoy : ours | relay : ours | req/s ours | req/s nutcracker |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in of_table(session, Table::Cost) {
        let cost = |name| shown(Figure::Cpu.middle(&session.runs, cell.id, name), 2);
        let rate = |name| shown(Figure::Rate.middle(&session.runs, cell.id, name), 0);
        line(
            text,
            &format!(
                "| {}{} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                cell.title,
                if was_starved(session, cell) { " *" } else { "" },
                cost(OURS),
                cost(NUTCRACKER),
                cost(ENVOY),
                cost(RELAY),
                spread(session, cell.id, NUTCRACKER),
                spread(session, cell.id, ENVOY),
                spread(session, cell.id, RELAY),
                rate(OURS),
                rate(NUTCRACKER)
            ),
        );
    }
    push_chart(
        text,
        session,
        "cpu-by-depth.svg",
        "CPU per request by depth",
    );
}

/// `median (smallest..largest)` of the ratios of a cell.
fn spread(session: &Session, cell: &str, peer: &str) -> String {
    let ratios = Figure::Cpu.ratios(&session.runs, cell, peer);
    let Some(middle) = median(&ratios) else {
        return "-".to_owned();
    };
    let low = ratios.iter().copied().fold(f64::MAX, f64::min);
    let high = ratios.iter().copied().fold(f64::MIN, f64::max);
    format!("{middle:.2} ({low:.2}..{high:.2})")
}

fn was_starved(session: &Session, cell: &Cell) -> bool {
    PEERS.iter().any(|name| {
        let shares = Figure::Starvation.of(&session.runs, cell.id, name);
        shares.iter().any(|share| *share > STARVED)
    })
}

const STARVED: f64 = 0.02;

fn push_latencies(text: &mut String, session: &Session) {
    text.push_str(
        "\n### Latency at a fixed rate\n\nMicroseconds from when a request was due, medians of the runs; both proxies get the same rate. A run in \
         which the tool itself was late by more than a tenth of the p99 says little, so its own lag stands beside.\n\n\
         | load | req/s | proxy | p50 | p99 | p99.9 | CPU us/request | own lag p99 |\n|---|---|---|---|---|---|---|---|\n",
    );
    for cell in of_table(session, Table::Latency) {
        for name in [OURS, NUTCRACKER] {
            let of =
                |figure: Figure, digits| shown(figure.middle(&session.runs, cell.id, name), digits);
            line(
                text,
                &format!(
                    "| {} | {} | {name} | {} | {} | {} | {} | {} |",
                    cell.title,
                    of(Figure::Rate, 0),
                    of(Figure::P50, 0),
                    of(Figure::P99, 0),
                    of(Figure::P999, 0),
                    of(Figure::Cpu, 2),
                    of(Figure::Lag, 1)
                ),
            );
        }
    }
    push_chart(text, session, "latency.svg", "Latency by percentile");
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

fn push_calls(text: &mut String, session: &Session) {
    text.push_str(
        "\n### System calls\n\nPer request and, by kind, per thousand requests; redis GET, 50 clients, 2 servers, counted by strace in a \
         run of fixed length.\n\n| load | proxy | per request | per thousand requests, by kind |\n|---|---|---|---|\n",
    );
    for (cell, name, kinds) in &session.calls {
        let calls = shown(Figure::SystemCalls.middle(&session.runs, cell, name), 3);
        let depth = cell.trim_start_matches("calls-");
        line(
            text,
            &format!("| depth {depth} | {name} | {calls} | {kinds} |"),
        );
    }
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

/// The charts that have something to show, by file name.
pub(crate) fn charts(runs: &[Run]) -> Vec<(&'static str, String)> {
    let charts = [
        ("cpu-by-depth.svg", cost_chart(runs)),
        ("latency.svg", latency_chart(runs)),
        ("memory.svg", memory_chart(runs)),
    ];
    charts
        .into_iter()
        .filter_map(|(name, chart)| Some((name, chart.svg()?)))
        .collect()
}

fn cost_chart(runs: &[Run]) -> Chart<'static> {
    let depths = [
        (0.0, "redis-get-1", "1"),
        (1.0, "redis-get-16", "16"),
        (2.0, "redis-get-64", "64"),
    ];
    let line_of = |name: &str| Series {
        name: name.to_owned(),
        points: depths
            .iter()
            .filter_map(|(x, cell, _)| Some((*x, Figure::Cpu.middle(runs, cell, name)?)))
            .collect(),
    };
    Chart {
        title: "redis GET: proxy CPU per request",
        x_label: "requests that each of 50 clients keeps in flight",
        y_label: "microseconds",
        scale: Scale::Log,
        ticks: depths
            .iter()
            .map(|(x, _, name)| (*x, (*name).to_owned()))
            .collect(),
        series: PEERS
            .map(line_of)
            .into_iter()
            .filter(|series| !series.points.is_empty())
            .collect(),
    }
}

fn latency_chart(runs: &[Run]) -> Chart<'static> {
    let percentiles = [
        (0.0, Figure::P50, "p50"),
        (1.0, Figure::P99, "p99"),
        (2.0, Figure::P999, "p99.9"),
    ];
    let loads = [("open-half", "half load"), ("open-90", "90 % load")];
    let series = loads.iter().flat_map(|(cell, load)| {
        [OURS, NUTCRACKER].map(|name| Series {
            name: format!("{name}, {load}"),
            points: percentiles
                .iter()
                .filter_map(|(x, figure, _)| Some((*x, figure.middle(runs, cell, name)?)))
                .collect(),
        })
    });
    Chart {
        title: "redis GET at a share of nutcracker's capacity: latency",
        x_label: "percentile",
        y_label: "microseconds since due",
        scale: Scale::Log,
        ticks: percentiles
            .iter()
            .map(|(x, _, name)| (*x, (*name).to_owned()))
            .collect(),
        series: series.filter(|series| !series.points.is_empty()).collect(),
    }
}

fn memory_chart(runs: &[Run]) -> Chart<'static> {
    let series = PEERS.iter().filter_map(|name| {
        let run = runs
            .iter()
            .find(|run| run.cell == "burst" && run.candidate == *name)?;
        let samples = run.result.as_ref().ok()?["memory"]["series"].as_array()?;
        let points = samples
            .iter()
            .filter_map(|sample| Some((sample[0].as_f64()?, sample[1].as_f64()? / 1024.0)));
        Some(Series {
            name: (*name).to_owned(),
            points: points.collect(),
        })
    });
    Chart {
        title: "A burst of 80 clients pipelining 200 GETs of 1 KiB, then rest: resident memory",
        x_label: "seconds",
        y_label: "MiB",
        scale: Scale::Log,
        ticks: (0..=6_u32)
            .map(|count| (f64::from(count) * 2.0, (count * 2).to_string()))
            .collect(),
        series: series.collect(),
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
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{} {} {} {result}",
            run.cell,
            run.candidate,
            run.pair + 1
        );
    }
    text
}
