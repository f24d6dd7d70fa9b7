//! Developer commands: `cargo xtask <verb>`.

mod bench;
mod budgets;
mod child;
mod commands;
mod tools;

use std::process::ExitCode;

use tools::Failure;

const USAGE: &str = "\
usage: cargo xtask gen-commands            write the redis command table and its page
       cargo xtask budgets [--update]      instructions and system calls per operation against bench/budgets.toml
       cargo xtask bench [--quick] [...]   the benchmark report: docs/benchmarks.md; --help says more";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["gen-commands"] => commands::generate().map_err(|error| Failure::new(error.to_string())),
        ["budgets"] => budgets::check(false),
        ["budgets", "--update"] => budgets::check(true),
        ["bench", options @ ..] => bench::bench(options),
        _ => Err(Failure::new(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
