//! The command line, compatible with nutcracker 0.5's: what was asked for ([`parse`]), and the
//! answers that need no running proxy ([`run_informational`], [`run_test_conf`]).
//!
//! Everything is said on stderr; stdout is never used. Nothing here opens a socket or a log.

mod files;
mod getopt;
#[cfg(test)]
mod tests;
mod text;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use getopt::{Fault, Opt, Words};

use crate::stderr::say;
use crate::warnings;

/// Log levels end here; a larger `-v` means this one.
const VERBOSITY_MAX: u64 = 11;
/// Numbers of 0.5 were 32 bits wide and signed; larger ones are refused instead of wrapped.
const NUMBER_MAX: u64 = 2_147_483_647;
/// Bounds of `-m`, checked although buffers adapt by themselves.
const MBUF_SIZE_MIN: u64 = 512;
const MBUF_SIZE_MAX: u64 = 16 * 1024 * 1024;
/// More threads than any machine has cores are a typing error.
const WORKERS_MAX: u64 = 1024;
/// A drain of more than a day is a typing error.
const DRAIN_TIMEOUT_MAX: u64 = 24 * 60 * 60 * 1000;

/// The wish of a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Invocation {
    /// `-h`, `-V`, `-D`: they win over everything else.
    Inform(Informational),
    /// `-t`
    TestConf(Options),
    /// A proxy.
    Run(Options),
}

/// The texts to show below the banner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Informational {
    /// `-h`
    help: bool,
    /// `-D`
    describe_stats: bool,
}

/// How to run.
#[derive(Clone, PartialEq, Eq, Debug)]
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

impl Default for Options {
    fn default() -> Self {
        Self {
            verbosity: 5,
            output: None,
            conf_file: PathBuf::from("conf/nutcracker.yml"),
            stats_port: 22222,
            stats_addr: "0.0.0.0".to_owned(),
            pid_file: None,
            daemonize: false,
            workers: 1,
            drain_timeout_ms: 10_000,
        }
    }
}

/// The first bad option: one line, as bytes because an option's letter may be any byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UsageError(Vec<u8>);

impl UsageError {
    fn new(line: impl AsRef<[u8]>) -> Self {
        Self([b"nutcracker: ", line.as_ref()].concat())
    }

    fn out_of_range(option: Opt, value: &[u8], min: u64, max: u64) -> Self {
        let value = String::from_utf8_lossy(value);
        Self::new(format!(
            "option {option} value {value} is out of range ({min} to {max})"
        ))
    }

    /// Says the line and the usage; the exit status of a bad command line.
    pub(crate) fn report(&self) -> ExitCode {
        say(&[&self.0, "\n".as_bytes(), text::usage().as_bytes()].concat());
        ExitCode::FAILURE
    }
}

impl From<Fault> for UsageError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unknown(letter) => {
                Self::new([b"invalid option -- '", &[letter][..], b"'"].concat())
            }
            Fault::UnknownName(name) => {
                Self::new([b"unknown option '--", &name[..], b"'"].concat())
            }
            Fault::Ambiguous(name, meant) => {
                let meant = format!("' may be --{}", meant.join(", --"));
                Self::new([b"option '--", &name[..], meant.as_bytes()].concat())
            }
            Fault::ValueUnwanted(option) => Self::new(format!("option {option} takes no value")),
            Fault::ValueMissing(option) => {
                let what = match option {
                    Opt::Output | Opt::ConfFile | Opt::PidFile => "a file name",
                    Opt::StatsAddr => "a string",
                    _ => "a number",
                };
                Self::new(format!("option {option} requires {what}"))
            }
        }
    }
}

/// Reads the words after the program's name. Stops at the first bad option. `exists` says whether there is a file: with no
/// configuration named, the one that is there is chosen.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
    exists: fn(&Path) -> bool,
) -> Result<Invocation, UsageError> {
    let mut options = Options::default();
    let mut given = Vec::new();
    let mut inform = None::<Informational>;
    let mut test_conf = false;
    for word in Words::new(args.into_iter()) {
        let (option, value) = word?;
        given.push(option);
        match option {
            Opt::Help | Opt::Version | Opt::DescribeStats => {
                let inform = inform.get_or_insert(Informational {
                    help: false,
                    describe_stats: false,
                });
                inform.help |= option == Opt::Help;
                inform.describe_stats |= option == Opt::DescribeStats;
            }
            Opt::TestConf => test_conf = true,
            _ => options.apply(option, value)?,
        }
    }
    files::adopt_packaged(&mut options, &given, exists);
    Ok(match (inform, test_conf) {
        (Some(inform), _) => Invocation::Inform(inform),
        (None, true) => Invocation::TestConf(options),
        (None, false) => Invocation::Run(options),
    })
}

impl Options {
    fn apply(&mut self, option: Opt, value: Vec<u8>) -> Result<(), UsageError> {
        match option {
            Opt::Daemonize => self.daemonize = true,
            Opt::Verbose => {
                let level = number(option, &value, 0..=NUMBER_MAX)?.min(VERBOSITY_MAX);
                self.verbosity = u8::try_from(level).expect("clamped just now");
            }
            Opt::Output => self.output = Some(path(value)).filter(|p| !p.as_os_str().is_empty()),
            Opt::ConfFile => self.conf_file = path(value),
            Opt::StatsPort => {
                let port = u16::try_from(digits(option, &value)?).unwrap_or(0);
                if port == 0 {
                    let value = String::from_utf8_lossy(&value);
                    let line = format!("option -s value {value} is not a valid port");
                    return Err(UsageError::new(line));
                }
                self.stats_port = port;
            }
            Opt::StatsAddr => self.stats_addr = String::from_utf8_lossy(&value).into_owned(),
            // Statistics are always fresh: checked as before, without effect.
            Opt::StatsInterval => drop(number(option, &value, 0..=NUMBER_MAX)?),
            Opt::PidFile => self.pid_file = Some(path(value)),
            Opt::MbufSize => check_mbuf_size(&value)?,
            Opt::Workers => {
                let workers = number(option, &value, 1..=WORKERS_MAX)?;
                self.workers = usize::try_from(workers).expect("within the range just checked");
            }
            Opt::DrainTimeout => {
                self.drain_timeout_ms = number(option, &value, 0..=DRAIN_TIMEOUT_MAX)?;
            }
            Opt::Help | Opt::Version | Opt::DescribeStats | Opt::TestConf => {
                unreachable!("modes are no settings")
            }
        }
        Ok(())
    }
}

/// Buffers adapt by themselves: `-m` is checked as before, without effect.
fn check_mbuf_size(value: &[u8]) -> Result<(), UsageError> {
    match digits(Opt::MbufSize, value) {
        Err(_) | Ok(0) => Err(UsageError::new("option -m requires a non-zero number")),
        Ok(MBUF_SIZE_MIN..=MBUF_SIZE_MAX) => Ok(()),
        Ok(_) => Err(UsageError::new(format!(
            "mbuf chunk size must be between {MBUF_SIZE_MIN} and {MBUF_SIZE_MAX} bytes"
        ))),
    }
}

fn number(
    option: Opt,
    value: &[u8],
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, UsageError> {
    let number = digits(option, value)?;
    if !range.contains(&number) {
        let (min, max) = range.into_inner();
        return Err(UsageError::out_of_range(option, value, min, max));
    }
    Ok(number)
}

/// Digits only; what does not fit saturates, so that every range check refuses it.
fn digits(option: Opt, value: &[u8]) -> Result<u64, UsageError> {
    twemproxy_config::number(value)
        .ok_or_else(|| UsageError::new(format!("option {option} requires a number")))
}

fn path(value: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(value))
}

/// Answers `-h`, `-V` and `-D`.
pub(crate) fn run_informational(what: Informational) -> ExitCode {
    let mut answer = text::banner();
    if what.help {
        answer += &text::usage();
    }
    if what.describe_stats {
        answer += &text::describe_stats();
    }
    say(answer.as_bytes());
    ExitCode::SUCCESS
}

/// Answers `-t`: 0.5's line and, for a bad file, the reason with its place, for a good one the
/// warnings.
pub(crate) fn run_test_conf(options: &Options) -> ExitCode {
    match twemproxy_config::check(&options.conf_file, twemproxy_config::physical_memory()) {
        Ok((config, of_the_file)) => {
            let mut answer = syntax_line(&options.conf_file, "ok");
            let lost_log = warnings::lost_log(options).map(str::to_owned);
            for warning in lost_log.into_iter().chain(warnings::open_sockets(&config)) {
                answer += &warning_line(&warning);
            }
            answer.extend(of_the_file.iter().map(|warning| format!("{warning}\n")));
            say(answer.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let verdict = syntax_line(&options.conf_file, "invalid");
            say(format!("{verdict}{error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// A warning on stderr.
pub(crate) fn warning_line(warning: &str) -> String {
    format!("nutcracker: warning: {warning}\n")
}

/// 0.5's line about a file; a start says it, too, besides the log, of a file that was read but is
/// wrong.
pub(crate) fn syntax_line(conf_file: &Path, verdict: &str) -> String {
    let file = conf_file.display();
    format!("nutcracker: configuration file '{file}' syntax is {verdict}\n")
}
