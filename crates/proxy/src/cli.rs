//! The command line, compatible with nutcracker 0.5's.

use std::path::PathBuf;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// `-v`
    pub(crate) verbosity: u8,
    /// `-o`; `None` is stderr.
    pub(crate) output: Option<PathBuf>,
    /// `-c`
    pub(crate) conf_file: PathBuf,
    /// `-s`
    pub(crate) stats_port: u16,
    /// `-a`
    pub(crate) stats_addr: String,
    /// `-p`
    pub(crate) pid_file: Option<PathBuf>,
    /// `-d`
    pub(crate) daemonize: bool,
    /// `--workers`: worker threads, at least 1.
    pub(crate) workers: usize,
    /// `--drain-timeout`, milliseconds.
    pub(crate) drain_timeout_ms: u64,
}
