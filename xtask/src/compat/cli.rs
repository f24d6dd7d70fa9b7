//! The command line: output and exit status.

use std::fs;

use twemproxy_testkit::harness::private_dir;

use super::verdict::{Cell, Expect};
use super::{Pair, side::Said};

/// Nothing in it is worth a warning.
const GOOD: &str = "p:\n  listen: 127.0.0.1:1\n  timeout: 400\n  servers:\n    - 127.0.0.1:2:1\n";

/// Words after the program's name, separated by blanks; `''` is the empty word.
#[rustfmt::skip]
const CASES: &[&str] = &[
    "-V", "--version", "--vers", "-h", "--help", "-hV", "-Vh", "-ht", "-D", "-Dh", "-D -h", "-V -t", "-dV", "-Vd",
    "--describe-stats", "--describe", "-V stray words", "-V -- -Q", "stray -V", "-V -v 99", "-V -v 0", "-V -v 11",
    "-V -v99", "-V --verbose=7", "-V --verbose 7", "-V --verb=7", "-V -m 512", "-V -m 16777216", "-V -s 1",
    "-V -s 65535", "-V -i 0", "-V -i 1", "-V -o ''", "-V -c ''", "-V -p ''", "-V -a ''", "-V -a ::1", "-V -m 00512",
    "-Q", "-?", "-V -Q", "-Q -V", "-tQ", "-m 511", "-m 16777217", "-m 0", "-m x", "-m -1",
    "-m +600", "-m 1k", "-m ''", "-m 600x", "-s 0", "-s 65536", "-s x", "-s -1", "-s 99999", "-v x", "-v -1", "-v ''",
    "-v 1x", "-i x", "-i -1", "-i 1.5", "-i ''", "-c", "-o", "-p", "-a", "-m", "-v", "-s", "-i", "--conf-file",
    "--output", "--pid-file", "--stats-addr", "--mbuf-size", "--verbose", "--stats-port", "--stats-interval",
    "-m 511 -h", "-h -m 511", "-v x -s y", "-t -c good.yml", "-tc good.yml", "-tcgood.yml", "-t --conf-file=good.yml",
    "-t --conf-file good.yml", "--test-conf -c good.yml", "-t -c good.yml stray", "-t -c missing.yml -c good.yml",
    "-t -d -o t.log -c good.yml", "-t -v 11 -o t.log -c good.yml", "-t -c good.yml -m 512 -s 1 -i 1",
];

/// The output of both with a bad file, where ours adds the reason.
#[rustfmt::skip]
const BAD_FILES: &[(&str, &str)] = &[
    ("-t -c bad.yml", "bad.yml:4:3: conf: directive \"foo\" is unknown\n"),
    ("-t -v 11 -o t.log -c bad.yml", "bad.yml:4:3: conf: directive \"foo\" is unknown\n"),
    ("-t -c empty.yml", "empty.yml:1:1: conf: 'empty.yml' must contain only 1 document; found 0 documents\n"),
    ("-t -c missing.yml", "conf: failed to open configuration 'missing.yml': No such file or directory\n"),
    ("-t -c ./none/x.yml", "conf: failed to open configuration './none/x.yml': No such file or directory\n"),
];

/// The package's defaults and upstream's, as the usage shows them.
const DEFAULTS: [(&str, &str, &str); 3] = [
    (
        "-o",
        "(default: /var/log/nutcracker/nutcracker.log)",
        "(default: stderr)",
    ),
    (
        "-c",
        "(default: /etc/nutcracker/nutcracker.yml)",
        "(default: conf/nutcracker.yml)",
    ),
    (
        "-p",
        "(default: /run/nutcracker/nutcracker.pid)",
        "(default: off)",
    ),
];

/// Numbers that 0.5 wraps.
const WRAPPED: &[(&str, &str)] = &[
    (
        "-V -m 4294967808",
        "mbuf chunk size must be between 512 and 16777216 bytes",
    ),
    (
        "-V -s 4294967297",
        "option -s value 4294967297 is not a valid port",
    ),
];

/// Long options that 0.5 refuses by a letter that was not typed.
#[rustfmt::skip]
const LONG: &[(&str, &str)] = &[
    ("--nonsense", "unknown option '--nonsense'"),
    ("--v", "option '--v' may be --version, --verbose"),
    ("--s=1", "option '--s' may be --stats-port, --stats-addr, --stats-interval"),
    ("--st=1", "option '--st' may be --stats-port, --stats-addr, --stats-interval"),
    ("--stats=1", "option '--stats' may be --stats-port, --stats-addr, --stats-interval"),
    ("--d", "option '--d' may be --daemonize, --describe-stats"),
    ("--help=x", "option -h takes no value"),
    ("--version=1", "option -V takes no value"),
    ("--test-conf=x", "option -t takes no value"),
    ("--daemonize=x", "option -d takes no value"),
];

pub(super) fn compare(pair: &Pair) -> Vec<Cell> {
    let (theirs, ours) = (private_dir(), private_dir());
    for dir in [&theirs, &ours] {
        let bad = GOOD.replace("  servers", "  foo: bar\n  servers");
        for (name, text) in [("good.yml", GOOD), ("bad.yml", &bad), ("empty.yml", "")] {
            fs::write(dir.path().join(name), text).expect("the private directory is writable");
        }
    }
    let both = |words: &str| {
        let words: Vec<&str> = words
            .split(' ')
            .map(|word| word.trim_matches('\''))
            .collect();
        (
            pair.theirs.run(theirs.path(), &words),
            pair.ours.run(ours.path(), &words),
        )
    };
    let cell = |words: &str, expect, theirs: &Said, ours: &Said| Cell {
        area: "command line",
        name: words.to_owned(),
        expect,
        theirs: theirs.bytes(),
        ours: ours.bytes(),
    };
    let mut cells = Vec::new();
    for words in CASES {
        let (theirs, ours) = both(words);
        cells.push(cell(words, expected(&theirs), &theirs, &ours));
    }
    let (theirs, ours) = both("-h");
    for (option, debian, upstream) in DEFAULTS {
        let shown = |said: &Said| {
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("  {option},")));
            line.and_then(|line| line.find("(default").map(|at| line[at..].to_owned()))
                .unwrap_or_default()
                .into_bytes()
        };
        cells.push(Cell {
            area: "command line",
            name: format!("the default of {option}"),
            expect: Expect::Debian(debian, upstream.into()),
            theirs: shown(&theirs),
            ours: shown(&ours),
        });
    }
    for (words, reason) in BAD_FILES {
        let (theirs, ours) = both(words);
        // 0.5's line once, then the reason.
        let line_end = theirs.stderr.iter().position(|&byte| byte == b'\n');
        let first = &theirs.stderr[..line_end.map_or(0, |at| at + 1)];
        let wanted = Said {
            stderr: [first, reason.as_bytes()].concat(),
            ..theirs.clone()
        };
        cells.push(cell(
            words,
            Expect::better("D19", wanted.bytes()),
            &theirs,
            &ours,
        ));
    }
    let reworded = WRAPPED.iter().map(|case| ("D26", case));
    let reworded = reworded.chain(LONG.iter().map(|case| ("D71", case)));
    for (reason, (words, line)) in reworded {
        let (theirs, ours) = both(words);
        let expect = Expect::better(reason, refusal(line, &both("-Q").0).bytes());
        cells.push(cell(words, expect, &theirs, &ours));
    }
    cells
}

/// The words for a bad option: the line, and the usage of `theirs` with our additions.
fn refusal(line: &str, theirs: &Said) -> Said {
    let usage = with_our_additions(&theirs.stderr);
    let body = usage.splitn(2, |&byte| byte == b'\n').nth(1);
    let line = format!("nutcracker: {line}\n");
    Said {
        status: "exit 1".to_owned(),
        stdout: Vec::new(),
        stderr: [line.as_bytes(), body.unwrap_or_default()].concat(),
    }
}

/// The output required of ours where 0.5 said this.
fn expected(theirs: &Said) -> Expect {
    let wanted = Said {
        stderr: with_our_additions(&theirs.stderr),
        ..theirs.clone()
    };
    if wanted == *theirs {
        Expect::Same
    } else {
        // The banner has one more line; new options stand in a block of their own, which the same
        // number covers.
        Expect::better("D23", wanted.bytes())
    }
}

/// The upstream defaults in the place of Debian's, the third line of the banner, and the block of
/// new options behind the old text.
fn with_our_additions(stderr: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(stderr).into_owned();
    for (_, debian, upstream) in DEFAULTS {
        text = text.replace(debian, upstream);
    }
    let version = format!(
        "epoll\ntwemproxy in Rust, version {}\n\n",
        env!("CARGO_PKG_VERSION")
    );
    text = text.replace("epoll\n\n", &version);
    let end = "(default: 16384 bytes)\r\n\n";
    text.replace(end, &format!("{end}{NEW_OPTIONS}"))
        .into_bytes()
}

const NEW_OPTIONS: &str = "\
Options that nutcracker 0.5 does not have:\r
      --workers=N        : set number of worker threads (default: 1, max: 1024)\r
      --drain-timeout=N  : set time to finish requests at the end in msec (default: 10000 msec)\r

";
