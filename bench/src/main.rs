//! `load`: what a request costs a proxy, proven on replies that were all checked.
//!
//! `load run` does one run, `load compare` sets two proxies side by side, `load demo` shows one at work, `load relay` is
//! the floor under them all.
//! The tool must be light: whatever it spends, it takes from the rate at which the proxy can be observed.
#![forbid(unsafe_code)]

mod cli;
mod clients;
mod compare;
mod demo;
mod disturbance;
mod envoy;
mod failure;
mod net;
mod num;
mod process;
mod protocol;
mod real;
mod relay;
mod report;
mod run;
mod script;
mod servers;
mod workload;

use std::process::ExitCode;

use crate::cli::Task;

fn main() -> ExitCode {
    let done = cli::parse(std::env::args_os().skip(1)).and_then(|task| match task {
        Task::Help => {
            print!("{}", cli::USAGE);
            Ok(())
        }
        Task::Run(workload, target) => run::run(&workload, &target).map(|report| {
            eprintln!("{}", report.human());
            println!("{}", report.json());
        }),
        Task::Compare(comparison) => compare::compare(&comparison),
        Task::Demo(demo) => demo::demo(&demo),
        Task::Real(real) => real::real(&real),
        Task::Relay(relay) => relay::relay(&relay),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}
