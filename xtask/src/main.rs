//! Developer commands: `cargo xtask <verb>`.

mod bench;
mod budgets;
mod child;
mod commands;
mod compat;
mod fuzz;
mod sim;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask gen-commands            write the redis command table and its page
       cargo xtask compat [...]            compare with the Debian package's nutcracker 0.5.0
       cargo xtask sim-sweep [--minutes N] [--seeds N] [--from SEED] [--threads N] [--failures N]
                             [--quiet]     run simulated worlds
       cargo xtask canaries [NAME]         demand that the simulation finds each planted bug
       cargo xtask fuzz-smoke [SECONDS]    fuzz each target for 20 seconds
       cargo xtask budgets [--update]      instructions and system calls per operation against bench/budgets.toml
       cargo xtask bench [--quick] [...]   the benchmark report: docs/benchmarks.md; --help says more";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["gen-commands"] => commands::generate().map_err(|error| error.to_string()),
        ["compat", ..] => return compat::run(&args[1..]),
        ["sim-sweep", ..] => sim::sweep(args.into_iter().skip(1)),
        ["canaries"] => sim::canaries(None),
        ["canaries", name] => sim::canaries(Some(name)),
        ["fuzz-smoke"] => fuzz::smoke(None).map_err(|error| error.to_string()),
        ["fuzz-smoke", seconds] => fuzz::smoke(Some(seconds)).map_err(|error| error.to_string()),
        ["budgets"] => budgets::check(false).map_err(|error| error.to_string()),
        ["budgets", "--update"] => budgets::check(true).map_err(|error| error.to_string()),
        ["bench", options @ ..] => bench::bench(options).map_err(|error| error.to_string()),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
