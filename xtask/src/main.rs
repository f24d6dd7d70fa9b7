//! Developer commands: `cargo xtask <verb>`.

mod bench;
mod budgets;
mod child;
mod commands;
mod compat;
mod deps;
mod fuzz;
mod mutants;
mod segments;
mod sim;
mod tools;

use std::process::ExitCode;

use tools::Failure;

const USAGE: &str = "\
usage: cargo xtask gen-commands          write the redis command table and its page
       cargo xtask compat [...]          compare with the Debian package's nutcracker 0.5.0
       cargo xtask deps                  hold the lock file to dependencies.txt
       cargo xtask sim-sweep [--minutes N] [--seeds N] [--from SEED] [--threads N] [--failures N]
                             [--quiet]   run simulated worlds
       cargo xtask canaries [NAME]       demand that the simulation finds each planted bug
       cargo xtask mutants [--sample N] [--seed N] [--file TEXT] [--list]
                                         change one line of the core at a time; demand that its tests notice
       cargo xtask fuzz-smoke [SECONDS [TARGET...]]
                                         fuzz each target for 20 seconds
       cargo xtask budgets [--update]    instructions and system calls per operation against bench/budgets.toml
       cargo xtask bench [--quick] [...] the benchmark report: docs/benchmarks.md; --help says more";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_default();
    let result = match verb.as_str() {
        "gen-commands" => commands::generate().map_err(|error| Failure::new(error.to_string())),
        "compat" => return compat::run(&args.collect::<Vec<_>>()),
        "sim-sweep" => sim::sweep(args).map_err(Failure::new),
        "canaries" => sim::canaries(args.next().as_deref()).map_err(Failure::new),
        "mutants" => mutants::mutants(args),
        "fuzz-smoke" => {
            let seconds = args.next();
            fuzz::smoke(seconds.as_deref(), &args.collect::<Vec<_>>())
                .map_err(|error| Failure::new(error.to_string()))
        }
        "deps" => deps::deps(),
        "budgets" => budgets::budgets(args),
        "bench" => bench::bench(&args.collect::<Vec<_>>()),
        _ => Err(Failure::new(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
