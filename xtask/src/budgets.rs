//! `budgets`: bounds of what one operation costs, in instructions of the core, system calls and TCP segments of the proxy.
//!
//! Instructions are counted by callgrind over the scenarios of `bench/src/bin/scenarios.rs`: each runs for N and for
//! 2 N operations, and the difference divided by N is the cost of one. System calls are counted by strace around a
//! fixed number of requests of the load tool, in the same way. Both repeat on a busy machine, which times do not.
//!
//! `bench/budgets.toml` holds the figures. A change that moves one updates the file and says why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::child::finish;
use crate::segments;
use crate::tools::{Failure, Outcome, build_release, release, root};

const FILE: &str = "bench/budgets.toml";

/// The sections of the file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Budgets {
    /// How far an instruction count may be off, per cent.
    tolerance: f64,
    /// Per operation, by scenario.
    pub(crate) instructions: BTreeMap<String, f64>,
    /// Most system calls per request, by depth.
    pub(crate) system_calls: BTreeMap<String, f64>,
    /// Most TCP segments with data per request, by depth.
    segments: BTreeMap<String, f64>,
}

/// The verb: checks, or with `--update` writes down.
pub(crate) fn budgets(args: impl Iterator<Item = String>) -> Outcome<()> {
    let words: Vec<String> = args.collect();
    match words.as_slice() {
        [] => check(false),
        [option] if option == "--update" => check(true),
        _ => Err(Failure::new("usage: cargo xtask budgets [--update]")),
    }
}

/// Checks every budget, or with `update` writes the instruction counts down.
fn check(update: bool) -> Outcome<()> {
    let path = root().join(FILE);
    let budgets = Budgets::read(&path)?;
    build_release()?;
    let mut now = BTreeMap::new();
    let mut misses = Vec::new();
    for (name, operations) in scenarios()? {
        let cost = instructions(&name, operations)?;
        let was = budgets.instructions.get(&name).copied();
        let verdict = judge(was, cost, budgets.tolerance);
        println!(
            "{name:<26} was {:>10} now {cost:>10.1} {}",
            shown(was),
            verdict.text()
        );
        if verdict != Verdict::Kept {
            misses.push(name.clone());
        }
        now.insert(name, cost);
    }
    for name in budgets
        .instructions
        .keys()
        .filter(|name| !now.contains_key(*name))
    {
        println!("{name:<26} is in {FILE} but is no scenario");
        misses.push(name.clone());
    }
    if update {
        let budgets = Budgets {
            instructions: now,
            ..budgets
        };
        return fs::write(&path, budgets.text())
            .map_err(|error| Failure::during("writing", &path, &error));
    }
    let calls = |depth: &str| Ok(system_calls(depth)?.per_request());
    misses.extend(above("system calls", &budgets.system_calls, calls)?);
    let segments = |depth: &str| segments::per_request(&release("nutcracker"), number(depth)?);
    misses.extend(above("segments", &budgets.segments, segments)?);
    if misses.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "outside the budget: {}. If that is meant, run `cargo xtask budgets --update` and say why in the commit",
        misses.join(", ")
    )))
}

/// Counts at every depth; those above their ceiling.
fn above(
    what: &str,
    ceilings: &BTreeMap<String, f64>,
    count: impl Fn(&str) -> Outcome<f64>,
) -> Outcome<Vec<String>> {
    let mut misses = Vec::new();
    for (depth, ceiling) in ceilings {
        let now = count(depth)?;
        let is_above = now > *ceiling;
        let verdict = if is_above { "ABOVE THE CEILING" } else { "" };
        println!("{what} at {depth:<10} at most {ceiling:>5} now {now:>10.3} {verdict}");
        if is_above {
            misses.push(format!("{what} at {depth}"));
        }
    }
    Ok(misses)
}

/// The number in `depth-16`.
fn number(depth: &str) -> Outcome<&str> {
    depth
        .strip_prefix("depth-")
        .ok_or_else(|| Failure::new(format!("'{depth}' is not depth-N")))
}

/// How a count compares with its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kept,
    /// Outside the tolerance; fewer is a stale budget, which would hide the next regression.
    More,
    Fewer,
    Unknown,
}

impl Verdict {
    const fn text(self) -> &'static str {
        match self {
            Self::Kept => "",
            Self::More => "MORE",
            Self::Fewer => "FEWER",
            Self::Unknown => "NEW",
        }
    }
}

fn judge(was: Option<f64>, now: f64, tolerance: f64) -> Verdict {
    let Some(was) = was else {
        return Verdict::Unknown;
    };
    let slack = was * tolerance / 100.0;
    if now > was + slack {
        Verdict::More
    } else if now < was - slack {
        Verdict::Fewer
    } else {
        Verdict::Kept
    }
}

fn shown(was: Option<f64>) -> String {
    was.map_or_else(|| "-".to_owned(), |was| format!("{was:.1}"))
}

impl Budgets {
    /// The budgets of the repository.
    pub(crate) fn of_repository() -> Outcome<Self> {
        Self::read(&root().join(FILE))
    }

    fn read(path: &Path) -> Outcome<Self> {
        let text =
            fs::read_to_string(path).map_err(|error| Failure::during("reading", path, &error))?;
        Self::parse(&text)
    }

    /// Reads `key = number` lines under `[section]` lines: the part of TOML that the file needs.
    fn parse(text: &str) -> Outcome<Self> {
        let mut budgets = Self::default();
        let mut section = "";
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                section = name;
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .and_then(|(key, value)| Some((key.trim(), value.trim().parse().ok()?)))
                .ok_or_else(|| Failure::new(format!("{FILE}: '{line}' is not 'name = number'")))?;
            match (section, key) {
                ("", "tolerance_percent") => budgets.tolerance = value,
                ("instructions", _) => {
                    budgets.instructions.insert(key.to_owned(), value);
                }
                ("system_calls", _) => {
                    budgets.system_calls.insert(key.to_owned(), value);
                }
                ("segments", _) => {
                    budgets.segments.insert(key.to_owned(), value);
                }
                _ => return Err(Failure::new(format!("{FILE}: unexpected '{line}'"))),
            }
        }
        Ok(budgets)
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{HEADER}tolerance_percent = {:.1}\n\n[instructions]\n",
            self.tolerance
        );
        // Writing into a string cannot fail.
        for (name, cost) in &self.instructions {
            let _ = writeln!(text, "{name} = {cost:.1}");
        }
        for (header, ceilings) in [
            (SYSTEM_CALLS, &self.system_calls),
            (SEGMENTS, &self.segments),
        ] {
            text.push_str(header);
            for (name, ceiling) in ceilings {
                let _ = writeln!(text, "{name} = {ceiling}");
            }
        }
        text
    }
}

const HEADER: &str = "\
# What one operation may cost. `cargo xtask budgets` measures and compares, `--update` writes the instruction counts.
# A change that moves a count updates this file and says why: a budget that only grows is no budget, and one that is
# left too high hides the next regression. Counts belong to the toolchain of rust-toolchain.toml and a CPU with AVX2.
";

const SYSTEM_CALLS: &str = "
# Most system calls per request, all kinds together: 50 clients, 2 servers, the proxy as released.
[system_calls]
";

const SEGMENTS: &str = "
# Most TCP segments with data per request, between clients, proxy and servers together: 50 clients, 2 servers.
[segments]
";

/// Names and operation counts of all scenarios.
fn scenarios() -> Outcome<Vec<(String, u64)>> {
    let listed = Command::new(release("scenarios"))
        .arg("--list")
        .output()
        .map_err(|error| Failure::new(format!("starting the scenarios: {error}")))?;
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .map(|line| {
            line.split_once(' ')
                .and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)))
                .ok_or_else(|| Failure::new(format!("a scenario called '{line}'")))
        })
        .collect()
}

/// Instructions of one operation; both counts are made at the same time.
fn instructions(name: &str, operations: u64) -> Outcome<f64> {
    let (once, twice) = std::thread::scope(|scope| {
        let twice = scope.spawn(|| callgrind(name, 2 * operations));
        let once = callgrind(name, operations);
        let twice = twice
            .join()
            .unwrap_or_else(|_| Err(Failure::new("a counting thread panicked")));
        (once, twice)
    });
    Ok((twice? - once?) / float(operations))
}

fn callgrind(name: &str, operations: u64) -> Outcome<f64> {
    let counted = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(release("scenarios"))
        .args([name, &operations.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("starting valgrind: {error}")))?;
    let said = String::from_utf8_lossy(&counted.stderr);
    if !counted.status.success() {
        return Err(Failure::new(format!(
            "{name} failed under callgrind:\n{said}"
        )));
    }
    collected(&said)
        .ok_or_else(|| Failure::new(format!("callgrind counted nothing in {name}:\n{said}")))
}

/// The total in callgrind's last words, `==1== Collected : 12345`.
fn collected(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// System calls of two runs of different length, by name, and how many requests the longer one had more.
#[derive(Debug)]
pub(crate) struct SystemCalls {
    short: BTreeMap<String, f64>,
    long: BTreeMap<String, f64>,
    requests: f64,
}

impl SystemCalls {
    /// All kinds together.
    pub(crate) fn per_request(&self) -> f64 {
        (self.long.values().sum::<f64>() - self.short.values().sum::<f64>()) / self.requests
    }

    /// Each kind per thousand requests, the rare ones left out.
    pub(crate) fn per_thousand(&self) -> Vec<(String, f64)> {
        let of = |name: &String, count: &f64| {
            (count - self.short.get(name).unwrap_or(&0.0)) / self.requests * 1000.0
        };
        let kinds = self
            .long
            .iter()
            .map(|(name, count)| (name.clone(), of(name, count)));
        kinds.filter(|(_, count)| *count >= RARE).collect()
    }
}

const RARE: f64 = 0.5;

/// Counts the system calls of our release build at a depth, written `depth-16`.
fn system_calls(depth: &str) -> Outcome<SystemCalls> {
    count_system_calls(&release("nutcracker"), depth)
}

/// Counts the system calls of a proxy with nutcracker's options at a depth, written `depth-16`.
pub(crate) fn count_system_calls(program: &Path, depth: &str) -> Outcome<SystemCalls> {
    let number = number(depth)?;
    let (few, many) = if number == "1" {
        (4_000, 24_000)
    } else {
        (100_000, 300_000)
    };
    let (short, requests_short) = traced_run(program, number, few)?;
    let (long, requests_long) = traced_run(program, number, many)?;
    Ok(SystemCalls {
        short,
        long,
        requests: requests_long - requests_short,
    })
}

/// One run under strace: calls by name, and the measured requests.
fn traced_run(program: &Path, depth: &str, requests: u64) -> Outcome<(BTreeMap<String, f64>, f64)> {
    let summary = Summary::new();
    // -D makes the proxy, not strace, the process that the load tool starts and stops.
    let command = format!(
        "strace -D -f --seccomp-bpf -e trace={CALLS} -c -o {} {} -v 4 -c {{conf}} -o {{dir}}/proxy.log -p {{dir}}/proxy.pid \
         -a {{dir}}/stats.sock",
        summary.0.display(),
        program.display()
    );
    let requests = requests.to_string();
    let arguments = [
        "run",
        "--quiet",
        "--cpus",
        "none",
        "--warmup",
        "0",
        "--seconds",
        "15",
        "--depth",
        depth,
        "--requests",
        &requests,
        "--proxy",
        &command,
    ];
    let (succeeded, out, said) = finish(Command::new(release("load")).args(arguments), TRACED_MAX)
        .map_err(|reason| Failure::new(format!("the load tool under strace: {reason}")))?;
    if !succeeded {
        return Err(Failure::new(said.trim().to_owned()));
    }
    let report: serde_json::Value = serde_json::from_str(&out)
        .map_err(|error| Failure::new(format!("the load tool's report: {error}")))?;
    let measured = report["requests"].as_f64().unwrap_or(0.0);
    Ok((summary.counts()?, measured))
}

const TRACED_MAX: Duration = Duration::from_secs(30);

/// Calls of a proxy per request; everything else happens at start and stop.
const CALLS: &str = "recvfrom,recvmsg,read,readv,sendto,sendmsg,write,writev,epoll_wait,epoll_pwait,epoll_pwait2,epoll_ctl,\
                     getpeername,getsockopt,ioctl";

/// strace's table, in a file that goes away.
struct Summary(PathBuf);

impl Summary {
    fn new() -> Self {
        let name = format!("twemproxy-strace-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A file of an earlier run must not be taken for this one's.
        let _ = fs::remove_file(&path);
        Self(path)
    }

    /// Waits for the table: strace writes it when the proxy has ended, which the load tool has seen.
    fn counts(&self) -> Outcome<BTreeMap<String, f64>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let text = fs::read_to_string(&self.0).unwrap_or_default();
            if text.trim_end().ends_with("total") {
                return Ok(strace_counts(&text));
            }
            if Instant::now() > deadline {
                return Err(Failure::new(
                    "strace wrote no table: is it installed, and may it trace?",
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Summary {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = fs::remove_file(&self.0);
    }
}

/// Calls by name from `% time, seconds, usecs/call, calls, [errors,] name` lines.
fn strace_counts(text: &str) -> BTreeMap<String, f64> {
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.last().filter(|name| **name != "total")?;
        words.first()?.parse::<f64>().ok()?;
        Some(((*name).to_owned(), words.get(3)?.parse().ok()?))
    });
    rows.collect()
}

fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_outside_the_tolerance_on_either_side_is_noticed() {
        assert_eq!(judge(Some(100.0), 102.0, 2.0), Verdict::Kept);
        assert_eq!(judge(Some(100.0), 102.1, 2.0), Verdict::More);
        assert_eq!(judge(Some(100.0), 97.9, 2.0), Verdict::Fewer);
        assert_eq!(judge(None, 1.0, 2.0), Verdict::Unknown);
    }

    #[test]
    fn the_file_is_read_as_it_is_written() {
        let text = "tolerance_percent = 2.0 # either way\n[instructions]\nredis-parse-get = 91.5\n[system_calls]\ndepth-1 = 2.4\n\
                    [segments]\ndepth-1 = 2.3\n";
        let budgets = Budgets::parse(text).expect("a good file");
        assert_eq!(budgets.instructions["redis-parse-get"].to_string(), "91.5");
        assert_eq!(
            Budgets::parse(&budgets.text()).expect("our own text"),
            budgets
        );
        assert!(Budgets::parse("[instructions]\nx = many\n").is_err());
        assert!(Budgets::parse("y = 1\n").is_err());
    }

    #[test]
    fn counts_are_found_in_the_words_of_the_tools() {
        let callgrind = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n";
        assert_eq!(collected(callgrind), Some(1_234_567.0));
        assert_eq!(collected("==7== nothing"), None);
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n \
                      50.00    0.100000          10      4000        12 recvfrom\n \
                      50.00    0.100000          10      3000           sendto\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      100.00    0.200000          10      7000        12 total\n";
        let counts = strace_counts(strace);
        assert_eq!(counts.get("recvfrom"), Some(&4000.0));
        assert_eq!(counts.get("sendto"), Some(&3000.0));
        assert_eq!(counts.len(), 2);
    }
}
