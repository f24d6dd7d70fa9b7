//! `nutcracker`: a drop-in for twemproxy.
//!
//! This crate is the shell around [`twemproxy_core`]: system calls, threads, clocks and files. What
//! to do with a request is decided there.
#![deny(unsafe_code)]
// They panic where nothing can be written; see `stderr.rs`.
#![forbid(clippy::print_stdout, clippy::print_stderr)]

mod acceptor;
mod cli;
mod clock;
mod daemon;
mod descriptors;
mod dial;
mod health;
mod limits;
mod log;
mod mail;
mod memory;
mod net;
mod notices;
mod resolver;
mod signals;
mod slots;
mod stats;
mod stderr;
mod supervisor;
mod warnings;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use cli::Invocation;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1), Path::exists) {
        Ok(Invocation::Inform(what)) => cli::run_informational(what),
        Ok(Invocation::TestConf(options)) => cli::run_test_conf(&options),
        Ok(Invocation::Run(options)) => supervisor::run(&options),
        Err(error) => error.report(),
    }
}
