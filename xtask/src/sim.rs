//! `sim-sweep`: many simulated worlds. `canaries`: whether the oracles still bite.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use twemproxy_testkit::sim;

/// Failures after which a sweep has seen enough, unless told otherwise.
const FAILURES_MAX: usize = 20;
/// Worlds within which each planted bug must be found.
const CANARY_SEEDS: u64 = 1_000;

/// What to sweep.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    first: u64,
    seeds: u64,
    time: Duration,
    threads: usize,
    failures: usize,
    quiet: bool,
}

/// Runs worlds until the time or the seeds are used up: `[--minutes N] [--seeds N] [--from SEED]
/// [--threads N] [--failures N] [--quiet]`.
///
/// # Errors
/// What is wrong with the arguments, or that oracles spoke up.
pub(crate) fn sweep(args: impl Iterator<Item = String>) -> Result<(), String> {
    let sweep = parse(args)?;
    // Each failure is told once, with its story.
    panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let (next, totals) = (AtomicU64::new(sweep.first), Totals::default());
    let failures = Mutex::new(Vec::new());
    let work = || {
        while start.elapsed() < sweep.time && seen(&failures) < sweep.failures {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - sweep.first >= sweep.seeds {
                break;
            }
            totals.worlds.fetch_add(1, Ordering::Relaxed);
            match sim::run(seed) {
                Ok(report) => {
                    totals.judged.fetch_add(report.answered, Ordering::Relaxed);
                }
                Err(failure) => {
                    if sweep.quiet {
                        println!("seed {seed}: {}", failure.message);
                    } else {
                        println!("{failure}\n");
                    }
                    if let Ok(mut failures) = failures.lock() {
                        failures.push(seed);
                    }
                }
            }
        }
        totals
            .cpu_nanos
            .fetch_add(own_cpu_nanos(), Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for _ in 0..sweep.threads {
            scope.spawn(work);
        }
    });
    totals.print(sweep.first, start.elapsed());
    let failures = failures.into_inner().unwrap_or_default();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(format!("seeds that fail: {failures:?}"))
    }
}

/// What a sweep did.
#[derive(Debug, Default)]
struct Totals {
    worlds: AtomicU64,
    /// Replies that were judged.
    judged: AtomicU64,
    cpu_nanos: AtomicU64,
}

impl Totals {
    fn print(&self, first: u64, elapsed: Duration) {
        let [worlds, judged, nanos] = [&self.worlds, &self.judged, &self.cpu_nanos]
            .map(|total| total.load(Ordering::Relaxed));
        println!(
            "{worlds} worlds from seed {first}, {judged} replies judged in {:.1} s",
            elapsed.as_secs_f32()
        );
        // The machine may be busy with other things: the time of the processor is what compares.
        if let Some(rate) = (judged * 1_000).checked_div(nanos / 1_000_000) {
            let seconds = Duration::from_nanos(nanos).as_secs_f32();
            println!("{seconds:.1} s of processor time: {rate} replies per second of it");
        }
    }
}

/// Processor time of this thread, where the system tells; else 0.
fn own_cpu_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos.unwrap_or(0)
}

fn seen(failures: &Mutex<Vec<u64>>) -> usize {
    failures
        .lock()
        .map_or(usize::MAX, |failures| failures.len())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Sweep, String> {
    let mut sweep = Sweep {
        first: 0,
        seeds: u64::MAX,
        time: Duration::MAX,
        threads: thread::available_parallelism().map_or(1, usize::from),
        failures: FAILURES_MAX,
        quiet: false,
    };
    let mut is_bounded = false;
    while let Some(option) = args.next() {
        if option == "--quiet" {
            sweep.quiet = true;
            continue;
        }
        let text = args.next().unwrap_or_default();
        let number: u64 = text
            .parse()
            .map_err(|_| format!("{option} wants a number, not '{text}'"))?;
        match option.as_str() {
            "--minutes" => sweep.time = Duration::from_secs(60 * number),
            "--seeds" => sweep.seeds = number,
            "--from" => sweep.first = number,
            "--threads" => sweep.threads = usize::try_from(number).unwrap_or(1).max(1),
            "--failures" => sweep.failures = usize::try_from(number).unwrap_or(1).max(1),
            _ => return Err(format!("unknown option '{option}'")),
        }
        is_bounded |= matches!(option.as_str(), "--minutes" | "--seeds");
    }
    if !is_bounded {
        sweep.time = Duration::from_secs(60);
    }
    Ok(sweep)
}

/// Builds the engine with each planted bug in turn and demands that the simulation finds it.
///
/// # Errors
/// The bugs that went unseen.
pub(crate) fn canaries(only: Option<&str>) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let names = planted(&root.join("crates/core/src"))?;
    let mut unseen = Vec::new();
    for name in &names {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let wrapper = compiler_with(name, &root.join("target/canaries"))?;
        let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&root)
            .env("RUSTC_WORKSPACE_WRAPPER", wrapper)
            .env("CARGO_TARGET_DIR", "target/canaries")
            .args(["run", "--quiet", "--locked", "--package", "xtask", "--"])
            .args([
                "sim-sweep",
                "--quiet",
                "--threads",
                "1",
                "--failures",
                "1",
                "--seeds",
            ])
            .arg(CANARY_SEEDS.to_string())
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match text.lines().find(|line| line.starts_with("seed ")) {
            Some(line) => println!("{name}: found by {}", line.get(..160).unwrap_or(line)),
            None => {
                println!("{name}: NOT FOUND");
                print!("{}", String::from_utf8_lossy(&output.stderr));
                unseen.push(name.clone());
            }
        }
    }
    println!("{} planted bugs", names.len());
    if unseen.is_empty() {
        Ok(())
    } else {
        Err(format!("not found: {}", unseen.join(", ")))
    }
}

/// A compiler that plants one bug. A wrapper of its own, because other flags would build everything
/// anew, not just what depends on the engine.
fn compiler_with(canary: &str, dir: &Path) -> Result<PathBuf, String> {
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in\n*' --crate-name twemproxy_core '*) \
         exec \"$@\" --cfg 'canary=\"{canary}\"';;\nesac\nexec \"$@\"\n"
    );
    let path = dir.join(format!("{canary}.sh"));
    let written = fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, script))
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
        .and_then(|()| path.canonicalize());
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// The names of all planted bugs, as the sources have them.
fn planted(dir: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let complain = |error| format!("{}: {error}", dir.display());
        for entry in dir.read_dir().map_err(complain)? {
            let path = entry.map_err(complain)?.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).map_err(complain)?;
            for part in text.split("canary = \"").skip(1) {
                names.extend(part.split('"').next().map(str::to_owned));
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}
