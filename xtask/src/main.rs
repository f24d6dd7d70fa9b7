//! Developer commands: `cargo xtask <verb>`.

mod commands;
mod compat;

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
        Some("compat") => compat::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        _ => {
            eprintln!(
                "usage: cargo xtask gen-commands   write the redis command table and its page\n\
                 \u{20}      cargo xtask compat         compare with the Debian package's nutcracker 0.5.0"
            );
            ExitCode::FAILURE
        }
    }
}
