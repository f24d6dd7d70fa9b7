//! Takes the command line apart as glibc's `getopt_long` does, which nutcracker 0.5 used: bundled
//! short options, attached values, abbreviated long options, `--`, stray words ignored.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

/// One option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opt {
    Help,
    Version,
    TestConf,
    Daemonize,
    DescribeStats,
    Verbose,
    Output,
    ConfFile,
    StatsPort,
    StatsAddr,
    StatsInterval,
    PidFile,
    MbufSize,
    Workers,
    DrainTimeout,
}

struct Spec {
    option: Opt,
    /// Every option of 0.5 has one; none of ours has.
    short: Option<u8>,
    long: &'static str,
    takes_value: bool,
}

const fn old(option: Opt, short: u8, long: &'static str, takes_value: bool) -> Spec {
    Spec {
        option,
        short: Some(short),
        long,
        takes_value,
    }
}

const fn new(option: Opt, long: &'static str) -> Spec {
    Spec {
        option,
        short: None,
        long,
        takes_value: true,
    }
}

const SPECS: &[Spec] = &[
    old(Opt::Help, b'h', "help", false),
    old(Opt::Version, b'V', "version", false),
    old(Opt::TestConf, b't', "test-conf", false),
    old(Opt::Daemonize, b'd', "daemonize", false),
    old(Opt::DescribeStats, b'D', "describe-stats", false),
    old(Opt::Verbose, b'v', "verbose", true),
    old(Opt::Output, b'o', "output", true),
    old(Opt::ConfFile, b'c', "conf-file", true),
    old(Opt::StatsPort, b's', "stats-port", true),
    old(Opt::StatsAddr, b'a', "stats-addr", true),
    old(Opt::StatsInterval, b'i', "stats-interval", true),
    old(Opt::PidFile, b'p', "pid-file", true),
    old(Opt::MbufSize, b'm', "mbuf-size", true),
    new(Opt::Workers, "workers"),
    new(Opt::DrainTimeout, "drain-timeout"),
];

/// As messages name it: `-v`, or `--workers` where there is no letter.
impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = SPECS.iter().find(|spec| spec.option == *self);
        let spec = spec.expect("every option has a row");
        match spec.short {
            Some(letter) => write!(f, "-{}", char::from(letter)),
            None => write!(f, "--{}", spec.long),
        }
    }
}

/// Why a word is no option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The letter that is reported.
    Unknown(u8),
    /// The name as typed, without its dashes and its value.
    UnknownName(Vec<u8>),
    /// An abbreviation, and the names it may stand for.
    Ambiguous(Vec<u8>, Vec<&'static str>),
    /// One that takes no value was given one.
    ValueUnwanted(Opt),
    /// The command line ended where a value was due.
    ValueMissing(Opt),
}

/// The options of a command line, each with its value (empty for one that takes none).
pub(super) struct Words<I> {
    args: I,
    /// Letters left of a bundle like `-dv5`.
    bundle: Vec<u8>,
}

impl<I: Iterator<Item = OsString>> Words<I> {
    pub(super) fn new(args: I) -> Self {
        Self {
            args,
            bundle: Vec::new(),
        }
    }

    fn short(&mut self) -> Result<(Opt, Vec<u8>), Fault> {
        let letter = self.bundle.remove(0);
        let spec = SPECS.iter().find(|spec| spec.short == Some(letter));
        let spec = spec.ok_or(Fault::Unknown(letter))?;
        if !spec.takes_value {
            return Ok((spec.option, Vec::new()));
        }
        let attached = std::mem::take(&mut self.bundle);
        let value = if attached.is_empty() {
            self.next_word(spec.option)?
        } else {
            attached
        };
        Ok((spec.option, value))
    }

    fn long(&mut self, word: &[u8]) -> Result<(Opt, Vec<u8>), Fault> {
        let equals = word.iter().position(|&b| b == b'=');
        let (name, attached) = match equals {
            Some(at) => (&word[..at], Some(word[at + 1..].to_vec())),
            None => (word, None),
        };
        let spec = long_spec(name)?;
        let value = match (spec.takes_value, attached) {
            (true, Some(value)) => value,
            (true, None) => self.next_word(spec.option)?,
            (false, None) => Vec::new(),
            (false, Some(_)) => return Err(Fault::ValueUnwanted(spec.option)),
        };
        Ok((spec.option, value))
    }

    fn next_word(&mut self, option: Opt) -> Result<Vec<u8>, Fault> {
        let word = self.args.next().ok_or(Fault::ValueMissing(option))?;
        Ok(word.into_vec())
    }
}

/// The option a possibly abbreviated name means. Options of 0.5 are asked first: what was
/// unambiguous then stays so, and what was ambiguous stays an error.
fn long_spec(name: &[u8]) -> Result<&'static Spec, Fault> {
    if let Some(exact) = SPECS.iter().find(|spec| spec.long.as_bytes() == name) {
        return Ok(exact);
    }
    let matches = |ours: bool| -> Vec<&'static Spec> {
        let meant =
            |spec: &&Spec| spec.short.is_none() == ours && spec.long.as_bytes().starts_with(name);
        SPECS.iter().filter(meant).collect()
    };
    let mut meant = matches(false);
    if meant.is_empty() {
        meant = matches(true);
    }
    match meant[..] {
        [] => Err(Fault::UnknownName(name.to_vec())),
        [spec] => Ok(spec),
        _ => {
            let names = meant.iter().map(|spec| spec.long).collect();
            Err(Fault::Ambiguous(name.to_vec(), names))
        }
    }
}

impl<I: Iterator<Item = OsString>> Iterator for Words<I> {
    type Item = Result<(Opt, Vec<u8>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.bundle.is_empty() {
            let word = self.args.next()?.into_vec();
            match word.as_slice() {
                b"--" => return None,
                [b'-', b'-', name @ ..] => return Some(self.long(name)),
                [b'-', letters @ ..] => self.bundle = letters.to_vec(),
                // compat: words that are no options are ignored wherever they stand.
                _ => {}
            }
        }
        Some(self.short())
    }
}
