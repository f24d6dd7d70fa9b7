//! Developer commands: `cargo xtask <verb>`.

mod commands;

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
        _ => {
            eprintln!(
                "usage: cargo xtask gen-commands   write the redis command table and its page"
            );
            ExitCode::FAILURE
        }
    }
}
