//! `sim-sweep`: many simulated worlds. `canaries`: whether the oracles still bite.

#[cfg(not(canary))]
use std::env;
use std::panic;
#[cfg(not(canary))]
use std::path::Path;
#[cfg(not(canary))]
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(canary)]
use twemproxy_core::canary::{ALL, plant};
use twemproxy_testkit::sim;

/// Failures after which a sweep has seen enough, unless told otherwise.
const FAILURES_MAX: usize = 20;
/// Worlds within which each planted bug must be found: those of the tests.
#[cfg(canary)]
const CANARY_SEEDS: u64 = 256;

/// The range of a sweep.
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
/// Wrong arguments, or findings of the oracles.
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

/// The result of a sweep.
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
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
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

/// Plants each bug in turn and demands that the simulation finds it. The bugs are there only under a
/// compiler flag, so this builds everything once more with it and goes on there.
///
/// # Errors
/// The bugs that went unseen.
#[cfg(not(canary))]
pub(crate) fn canaries(only: Option<&str>) -> Result<(), String> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("RUSTFLAGS", "--cfg canary")
        .env("CARGO_TARGET_DIR", "target/canaries")
        .args(["run", "--quiet", "--locked", "--package", "xtask", "--"])
        .arg("canaries")
        .args(only)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("the simulation is blind to some planted bugs".to_owned())
    }
}

/// See above.
#[cfg(canary)]
pub(crate) fn canaries(only: Option<&str>) -> Result<(), String> {
    panic::set_hook(Box::new(|_| {}));
    let mut unseen = Vec::new();
    for &canary in ALL {
        let name = format!("{canary:?}");
        if only.is_some_and(|only| only != name) {
            continue;
        }
        plant(canary);
        let first = (0..CANARY_SEEDS).find_map(|seed| Some((seed, sim::run(seed).err()?)));
        match first {
            Some((seed, failure)) => {
                let shown: String = failure.message.chars().take(100).collect();
                println!("| `{name}` | {seed} | {}", shown.replace('\n', " "));
            }
            None => {
                println!("| `{name}` | NOT FOUND |");
                unseen.push(name);
            }
        }
    }
    if unseen.is_empty() {
        Ok(())
    } else {
        Err(format!("not found: {}", unseen.join(", ")))
    }
}
