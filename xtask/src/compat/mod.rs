//! `cargo xtask compat`: the Debian package's nutcracker 0.5.0 and ours, side by side.
//!
//! Both get the same words, the same configuration and the same servers; what they say, send and
//! count is compared byte for byte. Every difference must be declared with its reason.

mod canned;
mod cli;
mod config;
mod placement;
mod side;
mod stats;
mod talk;
mod verdict;
mod wire;

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use side::Side;
use verdict::{Cell, report};

type Compare = fn(&Pair) -> Vec<Cell>;

/// Both proxies.
#[derive(Clone, Debug)]
struct Pair {
    theirs: Side,
    ours: Side,
}

/// Runs the comparison: `--ours FILE` (built otherwise), `--theirs FILE`, `--only AREA`, `--verbose`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let theirs = value("--theirs").unwrap_or_else(|| "nutcracker".to_owned());
    if Command::new(&theirs).arg("-V").output().is_err() {
        let required = env::var_os("CI").is_some_and(|ci| ci == "true");
        eprintln!(
            "{}: {theirs} is not installed",
            if required { "failed" } else { "skipped" }
        );
        return if required {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let Some(ours) = value("--ours").map(PathBuf::from).or_else(build) else {
        eprintln!("failed: our nutcracker cannot be built");
        return ExitCode::FAILURE;
    };
    let Ok(ours) = ours.canonicalize() else {
        eprintln!("failed: {} does not exist", ours.display());
        return ExitCode::FAILURE;
    };
    let pair = Pair {
        theirs: Side {
            binary: theirs.into(),
        },
        ours: Side { binary: ours },
    };
    let begin = Instant::now();
    let areas: [(&str, Compare); 6] = [
        ("cli", cli::compare),
        ("config", config::compare),
        ("placement", placement::compare),
        ("wire", wire::compare),
        ("talk", talk::compare),
        ("stats", stats::compare),
    ];
    let only = value("--only");
    let mut cells = Vec::new();
    for (name, compare) in areas {
        if only.as_deref().is_none_or(|only| only == name) {
            cells.extend(compare(&pair));
        }
    }
    let clean = report(&cells, args.iter().any(|arg| arg == "--verbose"));
    println!(
        "\n{} cells in {:.1} s",
        cells.len(),
        begin.elapsed().as_secs_f64()
    );
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Builds our binary with cargo; where it is.
fn build() -> Option<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "twemproxy"])
        .status()
        .is_ok_and(|status| status.success());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    built.then(|| target.join("debug/nutcracker"))
}
