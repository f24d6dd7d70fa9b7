//! `bench`: the report on cost, latency and memory beside the peers, `docs/benchmarks.md`.
//!
//! The load tool does the measuring; here it is decided what runs when, and what comes of the figures. A cell that
//! fails is a line in the report, not the end of it, and the whole ends in time whatever its parts do.

mod cells;
mod charts;
mod counted;
mod figures;
mod goals;
mod peers;
mod rejection;
mod report;
mod runs;
mod svg;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::budgets::Budgets;
use crate::child::finish;
use crate::tools::{Failure, Outcome, build_release, root, target};
use cells::{Cell, ENVOY, NUTCRACKER, NUTCRACKER_AND_IDLE, OURS_AND_IDLE, RELAY};
use goals::Goal;
use peers::Peers;
use report::Session;
use runs::{Plan, Runner};

const USAGE: &str = "\
usage: cargo xtask bench [--quick] [--only TEXT] [--minutes N] [--pairs N] [--seconds S] [--output FOLDER]

Measures the matrix of loads on our release build, Debian's nutcracker, Envoy and the bare relay, and writes
docs/benchmarks.md with charts, and the raw lines below target/. Let nothing else run on the machine.

  --quick          3 pairs of short runs (1 where no goal is about a cell), then more of those that a goal is about, the most
                   doubtful first: 10 minutes after the build
                   (else 15 pairs of 3 s, 3 hours at most)
  --only TEXT      only cells whose name contains TEXT
  --minutes N      when to end, after the build; cells for which time is short get fewer pairs
  --output FOLDER  write there instead of docs/";

/// What the command line says.
#[derive(Debug)]
struct Options {
    is_quick: bool,
    only: Option<String>,
    minutes: u64,
    pairs: u32,
    seconds: f64,
    warmup: f64,
    output: String,
}

/// Measures and writes the report.
pub(crate) fn bench(words: &[String]) -> Outcome<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some(options) = parse(&words)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let goals = goals()?;
    build_release()?;
    let peers = Peers::find();
    let begun = Instant::now();
    let congestion = Congestion::prefer_cubic();
    let load_before = busy_before();
    let plan = Plan {
        pairs: options.pairs,
        pairs_reported: if options.is_quick { 1 } else { options.pairs },
        pairs_max: options.pairs.max(PAIRS_MAX),
        seconds: options.seconds,
        warmup: options.warmup,
        deadline: begun + Duration::from_secs(options.minutes * 60).saturating_sub(RESERVE),
    };
    let only = options.only.as_deref();
    let cells = cells_with(only);
    let mut runner = Runner {
        plan: &plan,
        candidates: &peers.candidates,
        // First, because they do not vary and take what they take.
        runs: counted::count(peers.nutcracker.as_ref(), only, &plan),
    };
    runner.run_all(&cells);
    if options.is_quick {
        runner.repeat(&cells, &goals);
    }
    let mut runs = runner.runs;
    let names: Vec<&str> = cells.iter().map(|cell| cell.id).collect();
    rejection::count_all_where_none_counts(&mut runs, &names);
    let session = Session {
        date: said_by("date", &["-u", "+%Y-%m-%d"]),
        commit: said_by("git", &["describe", "--always", "--dirty"]),
        machine: machine(),
        load: load_before,
        congestion: congestion.in_force.clone(),
        command: format!("cargo xtask bench {}", words.join(" "))
            .trim_end()
            .to_owned(),
        plan: format!(
            "Runs of {} s after {} s of warm-up, new processes each, in the order A B, B A; 50 clients and 2 servers unless said \
             otherwise; log level 4; every reply checked.",
            plan.seconds, plan.warmup
        ),
        charts: charts::charts(&runs),
        peers,
        cells,
        runs,
        goals,
        instructions: Budgets::of_repository()?.instructions.into_iter().collect(),
    };
    write(&session, Path::new(&options.output))?;
    eprintln!(
        "done after {} s: {}/benchmarks.md",
        begun.elapsed().as_secs(),
        options.output
    );
    Ok(())
}

/// The cells whose name contains `only`, and the one that their rates depend on.
fn cells_with(only: Option<&str>) -> Vec<Cell> {
    let is_meant = |cell: &Cell| only.is_none_or(|only| cell.id.contains(only));
    let mut cells = cells::cells();
    let needs_capacity = cells
        .iter()
        .any(|cell| is_meant(cell) && cell.share.is_some());
    cells.retain(|cell| is_meant(cell) || (needs_capacity && cell.id == cells::CAPACITY));
    cells
}

/// Kept back from the time for the end: a run under way, and writing.
const RESERVE: Duration = Duration::from_secs(10);

/// More do not make a median better.
const PAIRS_MAX: u32 = 15;

fn parse(words: &[&str]) -> Outcome<Option<Options>> {
    let is_quick = words.contains(&"--quick");
    let mut options = Options {
        is_quick,
        only: None,
        minutes: if is_quick { 10 } else { 180 },
        pairs: if is_quick { 3 } else { 15 },
        seconds: if is_quick { 0.6 } else { 3.0 },
        warmup: if is_quick { 0.2 } else { 0.5 },
        output: root().join("docs").display().to_string(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next().map(|value| (*value).to_owned());
            value.ok_or_else(|| Failure::new(format!("{word} needs a value")))
        };
        match *word {
            "--quick" => {}
            "--help" => return Ok(None),
            "--only" => options.only = Some(value()?),
            "--output" => options.output = value()?,
            "--minutes" => options.minutes = number(&value()?, 600)?,
            "--pairs" => options.pairs = number(&value()?, 1000)?,
            "--seconds" => {
                let text = value()?;
                let seconds = text
                    .parse()
                    .ok()
                    .filter(|seconds| (0.1..=60.0).contains(seconds));
                options.seconds = seconds
                    .ok_or_else(|| Failure::new(format!("--seconds {text} is not 0.1 to 60")))?;
            }
            _ => return Err(Failure::new(format!("unexpected '{word}'\n{USAGE}"))),
        }
    }
    Ok(Some(options))
}

/// A number from 1 to `max`.
fn number<T: std::str::FromStr + PartialOrd + From<u8> + std::fmt::Display>(
    text: &str,
    max: T,
) -> Outcome<T> {
    text.parse()
        .ok()
        .filter(|number| *number >= T::from(1) && *number <= max)
        .ok_or_else(|| Failure::new(format!("'{text}' is not a number from 1 to {max}")))
}

fn goals() -> Outcome<Vec<Goal>> {
    let read = |name: &str| {
        let path = root().join(name);
        fs::read_to_string(&path).map_err(|error| Failure::during("reading", &path, &error))
    };
    let peers = [NUTCRACKER, ENVOY, RELAY];
    let variants = [OURS_AND_IDLE, NUTCRACKER_AND_IDLE];
    let mut goals =
        goals::parse(&read("bench/goals.txt")?, &peers, &variants).map_err(Failure::new)?;
    goals::annotate(&mut goals, &read("bench/notes.txt")?).map_err(Failure::new)?;
    Ok(goals)
}

fn write(session: &Session, folder: &Path) -> Outcome<()> {
    let files = folder.join("benchmarks");
    fs::create_dir_all(&files).map_err(|error| Failure::during("making", &files, &error))?;
    let put = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| Failure::during("writing", path, &error))
    };
    for (name, svg) in &session.charts {
        put(&files.join(name), svg)?;
    }
    let raw = target().join(format!("bench-{}.txt", session.date));
    put(&raw, &report::raw(&session.runs))?;
    println!("each run as a line of JSON: {}", raw.display());
    let method = fs::read_to_string(root().join("docs/benchmarks.md")).unwrap_or_default();
    let method = method.split(RESULTS).next().unwrap_or_default();
    let page = format!(
        "{}\n\n{RESULTS}\n\n{}",
        method.trim_end(),
        report::markdown(session)
    );
    put(&folder.join("benchmarks.md"), &page)
}

/// What stands above it in the page is written by people.
const RESULTS: &str = "## Results";

/// The output of a small command, or a dash.
fn said_by(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    match finish(&mut command, Duration::from_secs(10)) {
        Ok((true, out, _)) => out.trim().to_owned(),
        _ => "-".to_owned(),
    }
}

/// The machine in words, as far as it says.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()))
        .unwrap_or("unknown CPU");
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{cpus} x {model}, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// What others take of the machine, measured while we do nothing, in words.
fn busy_before() -> String {
    let ticks = || {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = text.lines().next().unwrap_or("").split_whitespace().skip(1);
        let fields: Vec<f64> = fields
            .take(8)
            .filter_map(|ticks| ticks.parse().ok())
            .collect();
        let idle: f64 = fields.iter().skip(3).take(2).sum();
        (fields.iter().sum::<f64>(), idle)
    };
    let (all_before, idle_before) = ticks();
    std::thread::sleep(Duration::from_secs(2));
    let (all, idle) = ticks();
    let all = (all - all_before).max(1.0);
    let percent = 100.0 * (1.0 - (idle - idle_before) / all).clamp(0.0, 1.0);
    if percent > QUIET_PERCENT {
        eprintln!("warning: others use {percent:.0} % of the machine; the figures will say little");
    }
    format!("{percent:.0} %")
}

/// A machine on which nothing runs stays below.
const QUIET_PERCENT: f64 = 5.0;

/// The kernel's default congestion control, cubic for as long as this lives if we may: BBR paces by timers even on
/// the loopback, and its figures say more about it than about a proxy.
#[derive(Debug)]
struct Congestion {
    in_force: String,
    to_restore: Option<String>,
}

impl Congestion {
    fn prefer_cubic() -> Self {
        let found = fs::read_to_string(CONGESTION)
            .unwrap_or_default()
            .trim()
            .to_owned();
        let is_set = found != "cubic" && fs::write(CONGESTION, "cubic").is_ok();
        if !is_set && found != "cubic" {
            eprintln!("warning: TCP congestion control stays {found}");
        }
        Self {
            in_force: if is_set {
                "cubic".to_owned()
            } else {
                found.clone()
            },
            to_restore: is_set.then_some(found),
        }
    }
}

impl Drop for Congestion {
    fn drop(&mut self) {
        if let Some(found) = &self.to_restore
            && let Err(error) = fs::write(CONGESTION, found)
        {
            eprintln!("warning: TCP congestion control stays cubic: {error}");
        }
    }
}

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

#[cfg(test)]
mod tests {
    use super::*;
    use goals::Against;

    #[test]
    fn every_goal_of_the_repository_names_a_cell_that_is_measured() {
        let cells = cells::cells();
        for goal in goals().expect("the goals can be read, and each note is on one") {
            let cell = cells.iter().find(|cell| cell.id == goal.cell);
            let is_counted = counted::cells().any(|name| name == goal.cell);
            assert!(cell.is_some() || is_counted, "{}", goal.cell);
            if let (Some(cell), Against::Peer(other) | Against::Variant(other)) =
                (cell, &goal.against)
            {
                assert!(cell.candidates.contains(&other.as_str()), "{}", goal.title);
            }
        }
    }

    #[test]
    fn what_is_measured_at_a_share_of_the_capacity_brings_the_capacity_along() {
        let ids = |only| -> Vec<&str> { cells_with(only).iter().map(|cell| cell.id).collect() };
        assert_eq!(ids(Some("open-half")), [cells::CAPACITY, "open-half"]);
        assert_eq!(ids(Some("real-get")), ["real-get"]);
        assert_eq!(ids(None).len(), cells::cells().len());
    }

    #[test]
    fn options_are_bounded() {
        assert!(
            parse(&["--quick", "--pairs", "2"])
                .expect("good options")
                .is_some()
        );
        assert!(parse(&["--pairs", "0"]).is_err());
        assert!(parse(&["--seconds", "1e9"]).is_err());
        assert!(parse(&["--nonsense"]).is_err());
        assert!(parse(&["--help"]).expect("good options").is_none());
    }
}
