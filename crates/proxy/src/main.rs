//! `nutcracker`: a drop-in for twemproxy.
#![deny(unsafe_code)]

mod cli;
#[allow(
    dead_code,
    reason = "the supervisor that uses all of it is not part of this change"
)]
mod config;

use std::process::ExitCode;

use cli::Invocation;

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Inform(what)) => return cli::run_informational(what),
        Ok(Invocation::TestConf(options)) => return cli::run_test_conf(&options),
        Ok(Invocation::Run(options)) => options,
        Err(error) => return error.report(),
    };
    match config::load(&options.conf_file, config::physical_memory()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            if matches!(error, config::ConfigError::Invalid { .. }) {
                cli::report_syntax_invalid(&options.conf_file);
            }
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
