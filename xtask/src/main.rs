//! Developer commands: `cargo xtask <verb>`.

mod commands;
mod fuzz;

use std::process::ExitCode;

fn main() -> ExitCode {
    let verb = std::env::args().nth(1);
    match verb.as_deref() {
        Some("gen-commands") => match commands::generate() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("gen-commands: {error}");
                ExitCode::FAILURE
            }
        },
        Some("fuzz-smoke") => match fuzz::smoke(std::env::args().nth(2).as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("fuzz-smoke: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!(
                "usage: cargo xtask gen-commands           write the redis command table and its page\n\
                 \x20      cargo xtask fuzz-smoke [SECONDS]   fuzz each target for 20 seconds"
            );
            ExitCode::FAILURE
        }
    }
}
