//! Developer commands: `cargo xtask <verb>`.

mod commands;
mod fuzz;
mod sim;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask gen-commands          write the redis command table and its page
       cargo xtask fuzz-smoke [SECONDS]  build the fuzzers and run each for 20 seconds
       cargo xtask sim-sweep [--minutes N] [--seeds N] [--from SEED] [--threads N] [--failures N]
                                   [--quiet]
                                         run simulated worlds
       cargo xtask canaries [NAME]       demand that the simulation finds each planted bug";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_default();
    let result = match verb.as_str() {
        "gen-commands" => commands::generate().map_err(|error| error.to_string()),
        "fuzz-smoke" => fuzz::smoke(args.next().as_deref()).map_err(|error| error.to_string()),
        "sim-sweep" => sim::sweep(args),
        "canaries" => sim::canaries(args.next().as_deref()),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
