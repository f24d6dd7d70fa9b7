//! `cargo xtask fuzz-smoke [SECONDS]`: builds the fuzz targets and runs each for a little while.
//!
//! The stable compiler does it: coverage is an LLVM pass, and the code under test has no `unsafe`
//! that a sanitizer would have to watch.

use std::io;
use std::path::Path;
use std::process::Command;

const SECONDS: &str = "20";

/// Names as in `twemproxy_testkit::fuzz::TARGETS`.
const TARGETS: [&str; 6] = [
    "redis_requests",
    "redis_responses",
    "memcache_requests",
    "memcache_responses",
    "engine",
    "configuration",
];

/// The flags that cargo-fuzz sets, without the sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Runs every target, or those named; inputs that fail stay in `fuzz/artifacts`, new ones in `fuzz/target/found`.
pub(crate) fn smoke(seconds: Option<&str>, named: &[String]) -> io::Result<()> {
    if let Some(name) = named.iter().find(|name| !TARGETS.contains(&name.as_str())) {
        let known = TARGETS.join(", ");
        return Err(io::Error::other(format!("no target {name}, only {known}")));
    }
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let host = host()?;
    // With a named target the flags do not reach build scripts.
    run(Command::new("cargo")
        .args(["build", "--release", "--target", &host])
        .current_dir(&fuzz)
        .env("RUSTFLAGS", FLAGS))?;
    std::fs::create_dir_all(fuzz.join("artifacts"))?;
    let chosen = |target: &&str| named.is_empty() || named.iter().any(|name| name == target);
    for target in TARGETS.into_iter().filter(chosen) {
        let found = fuzz.join("target/found").join(target);
        std::fs::create_dir_all(&found)?;
        let time = format!("-max_total_time={}", seconds.unwrap_or(SECONDS));
        run(
            Command::new(fuzz.join("target").join(&host).join("release").join(target))
                .args([
                    "-rss_limit_mb=1024",
                    "-timeout=10",
                    "-max_len=2048",
                    "-print_final_stats=1",
                ])
                .args([&time, "-artifact_prefix=artifacts/"])
                .arg(&found)
                .arg(Path::new("corpus").join(target))
                .current_dir(&fuzz),
        )?;
    }
    Ok(())
}

fn host() -> io::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other("rustc does not name its host"))
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    let program = command.get_program().display().to_string();
    Err(io::Error::other(format!("{program} ended with {status}")))
}
