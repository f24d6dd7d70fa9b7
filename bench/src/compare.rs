//! Two proxies side by side: same load, same machine, same minutes.
//!
//! Each run has new processes. Runs of a cell alternate A B, B A, A B, ... so that a drift of the machine hits
//! both alike; the ratio is taken per pair and the middle one is reported. Compare a proxy with itself first: the
//! ratios seen then are the smallest difference that may be claimed.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::clients::Pace;
use crate::failure::{During, Failure, Outcome};
use crate::num;
use crate::process::Pinning;
use crate::protocol::{KeyLengths, Op, Protocol};
use crate::report::Report;
use crate::run::{Target, nutcracker_command, run};
use crate::script::Traffic;
use crate::workload::{Progress, Transport, Workload};

/// What to compare and how thoroughly.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) pairs: u32,
    pub(crate) duration: Duration,
    /// Only cells whose title contains this.
    pub(crate) only: Option<String>,
    pub(crate) output: Option<PathBuf>,
    pub(crate) pinning: Option<Pinning>,
}

/// All runs of one workload: (ours, theirs) per pair.
struct Cell {
    workload: Workload,
    pairs: Vec<(Report, Report)>,
}

/// Compares; prints a table and writes it where it was asked for.
pub(crate) fn compare(comparison: &Comparison) -> Outcome<()> {
    let congestion = CongestionControl::prefer_cubic();
    if comparison.pinning.is_none() {
        eprintln!("warning: one CPU for tool and proxy; the figures say little");
    }
    let mut cells = Vec::new();
    let workloads: Vec<Workload> = workloads(comparison)
        .into_iter()
        .filter(|workload| {
            comparison
                .only
                .as_ref()
                .is_none_or(|only| workload.title().contains(only))
        })
        .collect();
    if workloads.is_empty() {
        return Err(Failure::new(
            "no cell has a title that contains the text of --only",
        ));
    }
    let total = workloads.len();
    for (index, workload) in workloads.into_iter().enumerate() {
        let mut pairs = Vec::new();
        for pair in 0..comparison.pairs {
            let (ours, theirs) = run_pair(comparison, &workload, pair % 2 == 0)?;
            eprintln!(
                "[{}/{total}] {}, pair {}: ours {}, theirs {}, ratio {}",
                index + 1,
                workload.title(),
                pair + 1,
                cost(&ours),
                cost(&theirs),
                pair_ratio(&ours, &theirs).map_or_else(|| "?".to_owned(), |r| format!("{r:.2}"))
            );
            pairs.push((ours, theirs));
        }
        cells.push(Cell { workload, pairs });
    }
    let text = markdown(comparison, &congestion.in_force, &cells);
    println!("{text}");
    if let Some(path) = &comparison.output {
        fs::write(path, text).during(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn run_pair(
    comparison: &Comparison,
    workload: &Workload,
    ours_first: bool,
) -> Outcome<(Report, Report)> {
    let ours = Target::Start(nutcracker_command(&comparison.ours));
    let theirs = Target::Start(nutcracker_command(&comparison.theirs));
    if ours_first {
        let first = run(workload, &ours)?;
        Ok((first, run(workload, &theirs)?))
    } else {
        let first = run(workload, &theirs)?;
        Ok((run(workload, &ours)?, first))
    }
}

/// The matrix: what a request costs at each depth, what a large value costs, what a fan-out costs.
fn workloads(comparison: &Comparison) -> Vec<Workload> {
    let mut all = Vec::new();
    for protocol in [Protocol::Redis, Protocol::Memcache] {
        for depth in [1, 16, 64] {
            for op in [Op::Get, Op::Set] {
                let traffic = Traffic {
                    protocol,
                    op,
                    keys: 1,
                    value_size: 32,
                    key_lengths: KeyLengths::Mixed,
                };
                all.push(workload(comparison, traffic, depth));
            }
        }
        for op in [Op::Get, Op::Set] {
            let traffic = Traffic {
                protocol,
                op,
                keys: 1,
                value_size: 64 * 1024,
                key_lengths: KeyLengths::Mixed,
            };
            all.push(workload(comparison, traffic, 1));
        }
        let traffic = Traffic {
            protocol,
            op: Op::Mget,
            keys: 50,
            value_size: 32,
            key_lengths: KeyLengths::Mixed,
        };
        all.push(workload(comparison, traffic, 1));
    }
    all
}

fn workload(comparison: &Comparison, traffic: Traffic, depth: u32) -> Workload {
    Workload {
        traffic,
        pace: Pace::Closed { depth },
        clients: 50,
        servers: 2,
        warmup: Duration::from_millis(300),
        duration: comparison.duration,
        requests: None,
        transport: Transport::Tcp,
        pool_lines: Vec::new(),
        beside: None,
        idle: 0,
        watch: None,
        pinning: comparison.pinning,
        progress: Progress::Silent,
    }
}

fn cost(report: &Report) -> String {
    report
        .proxy_cost()
        .map_or_else(|| "?".to_owned(), |cost| format!("{cost:.2} us"))
}

/// How many times the CPU of ours theirs needs.
fn pair_ratio(ours: &Report, theirs: &Report) -> Option<f64> {
    let ours = ours.proxy_cost().filter(|cost| *cost > 0.0)?;
    theirs.proxy_cost().map(|theirs| theirs / ours)
}

fn markdown(comparison: &Comparison, congestion: &str, cells: &[Cell]) -> String {
    let mut text = format!(
        "Ours: `{}`, theirs: `{}`. {}; TCP congestion control {congestion}. {} pairs of {:.1} s, closed loop, \
         each reply checked.\n\nCPU is microseconds of proxy CPU per request, the median of the pairs; the ratio is theirs \
         by ours, above 1 is in our favour. `*` marks a cell in which a proxy was kept from its CPU for more than 2 % of a run.\n\n",
        comparison.ours,
        comparison.theirs,
        machine(),
        comparison.pairs,
        comparison.duration.as_secs_f64()
    );
    text.push_str(
        "| cell | CPU ours | CPU theirs | ratio per pair | median ratio | req/s ours | req/s theirs | \
         p99 us ours | p99 us theirs | busy % ours | busy % theirs | RSS KiB ours | RSS KiB theirs |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in cells {
        push_row(&mut text, cell);
    }
    text
}

fn push_row(text: &mut String, cell: &Cell) {
    let ratios: Vec<f64> = cell
        .pairs
        .iter()
        .filter_map(|(ours, theirs)| pair_ratio(ours, theirs))
        .collect();
    let listed: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let was_starved = cell.pairs.iter().any(|(ours, theirs)| {
        [ours, theirs]
            .iter()
            .any(|report| report.proxy_starvation().unwrap_or(0.0) > STARVED)
    });
    let both = |of: fn(&Report) -> f64, digits: usize| {
        let ours: Vec<f64> = cell.pairs.iter().map(|(ours, _)| of(ours)).collect();
        let theirs: Vec<f64> = cell.pairs.iter().map(|(_, theirs)| of(theirs)).collect();
        let middle = |values: &[f64]| num::median(values).unwrap_or(0.0);
        format!("{:.digits$} | {:.digits$}", middle(&ours), middle(&theirs))
    };
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        "| {}{} | {} | {} | {:.2} | {} | {} | {} | {} |",
        cell.workload.title(),
        if was_starved { " *" } else { "" },
        both(|report| report.proxy_cost().unwrap_or(0.0), 2),
        listed.join(" "),
        num::median(&ratios).unwrap_or(0.0),
        both(Report::rate, 0),
        both(|report| num::float(report.latency.p99) / 1e3, 0),
        both(
            |report| report.proxy_utilisation().unwrap_or(0.0) * 100.0,
            0
        ),
        both(|report| num::float(report.proxy_rss_kib), 0),
    );
}

const STARVED: f64 = 0.02;

/// The machine in words, as far as it says.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(':')
                .map(|(_, name)| name.trim())
        })
        .unwrap_or("unknown CPU");
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{cpus} x {model}, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// The kernel's default congestion control, set to cubic for as long as this lives if we may.
///
/// BBR paces by timers even on the loopback and gives figures that say more about it than about a proxy.
struct CongestionControl {
    in_force: String,
    to_restore: Option<String>,
}

impl CongestionControl {
    fn prefer_cubic() -> Self {
        let found = fs::read_to_string(CONGESTION)
            .unwrap_or_default()
            .trim()
            .to_owned();
        if found == "cubic" {
            return Self {
                in_force: found,
                to_restore: None,
            };
        }
        match fs::write(CONGESTION, "cubic") {
            Ok(()) => Self {
                in_force: "cubic".to_owned(),
                to_restore: Some(found),
            },
            Err(error) => {
                eprintln!(
                    "warning: TCP congestion control is {found} and cannot be set to cubic: {error}"
                );
                Self {
                    in_force: found,
                    to_restore: None,
                }
            }
        }
    }
}

impl Drop for CongestionControl {
    fn drop(&mut self) {
        if let Some(found) = &self.to_restore
            && let Err(error) = fs::write(CONGESTION, found)
        {
            eprintln!("warning: TCP congestion control stays cubic: {error}");
        }
    }
}

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
