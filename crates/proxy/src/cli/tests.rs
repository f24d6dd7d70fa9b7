//! What glibc's `getopt_long` made of command lines, and what we add.

use super::*;

/// Where no file is.
fn read(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    parse(args, |_| false)
}

fn parse_line(line: &str) -> Result<Invocation, UsageError> {
    read(line.split_whitespace().map(OsString::from))
}

fn options(line: &str) -> Options {
    match parse_line(line) {
        Ok(Invocation::Run(options)) => options,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    match parse_line(line) {
        Err(UsageError(text)) => String::from_utf8(text).unwrap(),
        Ok(invocation) => panic!("{line}: {invocation:?}"),
    }
}

#[test]
fn no_options_are_the_defaults_of_nutcracker() {
    let Options {
        verbosity,
        output,
        conf_file,
        stats_port,
        stats_addr,
        pid_file,
        daemonize,
        workers,
        drain_timeout_ms,
    } = options("");
    assert_eq!((verbosity, output, pid_file), (5, None, None));
    assert_eq!(conf_file, Path::new("conf/nutcracker.yml"));
    assert_eq!((stats_port, stats_addr.as_str()), (22222, "0.0.0.0"));
    assert!(!daemonize);
    assert_eq!((workers, drain_timeout_ms), (1, 10_000));
}

#[test]
fn every_option_has_two_names() {
    let short = options("-d -v 7 -o log -c conf -s 1 -a ::1 -i 0 -p pid -m 512");
    let long = options(
        "--daemonize --verbose 7 --output log --conf-file conf --stats-port 1 --stats-addr ::1 \
         --stats-interval 0 --pid-file pid --mbuf-size 512",
    );
    assert_eq!(short, long);
    let expected = Options {
        verbosity: 7,
        output: Some(PathBuf::from("log")),
        conf_file: PathBuf::from("conf"),
        stats_port: 1,
        stats_addr: "::1".to_owned(),
        pid_file: Some(PathBuf::from("pid")),
        daemonize: true,
        ..Options::default()
    };
    assert_eq!(short, expected);
}

#[test]
fn values_are_attached_or_follow() {
    for line in [
        "-v6",
        "-v 6",
        "-dv6",
        "-dv 6",
        "--verbose=6",
        "--verbose 6",
        "-v 5 -v 6",
    ] {
        assert_eq!(options(line).verbosity, 6, "{line}");
    }
    assert!(options("-dv6").daemonize);
    // What follows is the value, whatever it looks like.
    assert_eq!(options("-c -d").conf_file, Path::new("-d"));
    assert_eq!(options("-c --").conf_file, Path::new("--"));
    assert_eq!(options("--conf-file=a=b").conf_file, Path::new("a=b"));
}

#[test]
fn stray_words_are_ignored_and_two_dashes_end_the_options() {
    assert_eq!(options("x -v 6 - y -d z"), options("-d -v 6"));
    assert_eq!(options("-v 6 -- -d -Q --nonsense").verbosity, 6);
    assert!(!options("-- -d").daemonize);
}

#[test]
fn long_options_may_be_abbreviated() {
    for (line, full) in [
        ("--da", "--daemonize"),
        ("--p x", "--pid-file x"),
        ("--verb=6", "--verbose=6"),
        ("--o x", "--output x"),
        ("--m 512", "--mbuf-size 512"),
        ("--stats-p 5", "--stats-port 5"),
        ("--w 2", "--workers 2"),
        ("--dr=5", "--drain-timeout=5"),
    ] {
        assert_eq!(options(line), options(full), "{line}");
    }
    assert!(matches!(parse_line("--vers"), Ok(Invocation::Inform(_))));
    assert!(matches!(parse_line("--te"), Ok(Invocation::TestConf(_))));
}

#[test]
fn our_options_make_none_of_the_old_ones_ambiguous() {
    // Ambiguous among the old ones alone, so it stays an error.
    for (line, expected) in [
        ("--d", "option '--d' may be --daemonize, --describe-stats"),
        ("--v", "option '--v' may be --version, --verbose"),
        (
            "--stats-=5",
            "option '--stats-' may be --stats-port, --stats-addr, --stats-interval",
        ),
    ] {
        assert_eq!(error(line), format!("nutcracker: {expected}"), "{line}");
    }
    for (name, spec) in [
        ("p", "pid-file"),
        ("da", "daemonize"),
        ("de", "describe-stats"),
    ] {
        let mut words = Words::new([format!("--{name}").into(), "x".into()].into_iter());
        let mut full = Words::new([format!("--{spec}").into(), "x".into()].into_iter());
        assert_eq!(words.next(), full.next(), "{name}");
    }
}

#[test]
fn modes_take_precedence_over_running() {
    let inform = |line: &str| match parse_line(line) {
        Ok(Invocation::Inform(what)) => (what.help, what.describe_stats),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(inform("-V"), (false, false));
    assert_eq!(inform("-h"), (true, false));
    assert_eq!(inform("-D"), (false, true));
    assert_eq!(inform("-tDd -h --version"), (true, true));
    let test_conf = parse_line("-t -d -c x");
    assert!(matches!(test_conf, Ok(Invocation::TestConf(o)) if o.conf_file == Path::new("x")));
}

#[test]
fn an_empty_output_is_stderr_and_other_empty_names_stay() {
    let parsed = read(["-o", "", "-p", "", "--conf-file="].map(OsString::from));
    let Ok(Invocation::Run(options)) = parsed else {
        panic!("{parsed:?}");
    };
    assert_eq!(options.output, None);
    assert_eq!(options.pid_file, Some(PathBuf::new()));
    assert_eq!(options.conf_file, PathBuf::new());
}

#[test]
fn bounds_are_accepted_and_levels_clamped() {
    assert_eq!(options("-v 0").verbosity, 0);
    assert_eq!(options("-v 99").verbosity, 11);
    assert_eq!(options("-v 2147483647").verbosity, 11);
    assert_eq!(options("-s 65535").stats_port, 65535);
    assert_eq!(options("-s 007").stats_port, 7);
    options("-m 512 -m 16777216 -i 2147483647");
    assert_eq!(options("--workers=1024").workers, 1024);
    assert_eq!(options("--drain-timeout=0").drain_timeout_ms, 0);
    assert_eq!(
        options("--drain-timeout=86400000").drain_timeout_ms,
        86_400_000
    );
}

// D71
#[test]
fn every_wrong_option_has_its_line() {
    for (line, expected) in [
        ("-o", "option -o requires a file name"),
        ("-c", "option -c requires a file name"),
        ("-dp", "option -p requires a file name"),
        ("--pid-file", "option -p requires a file name"),
        ("-m", "option -m requires a number"),
        ("-v", "option -v requires a number"),
        ("-s", "option -s requires a number"),
        ("-i", "option -i requires a number"),
        ("-a", "option -a requires a string"),
        ("--workers", "option --workers requires a number"),
        ("--drain", "option --drain-timeout requires a number"),
        ("-?", "invalid option -- '?'"),
        ("-Q", "invalid option -- 'Q'"),
        ("-tQ", "invalid option -- 'Q'"),
        ("-t=x", "invalid option -- '='"),
        ("--test-conf=x", "option -t takes no value"),
        ("--help=", "option -h takes no value"),
        ("--nonsense", "unknown option '--nonsense'"),
        ("--nonsense=5", "unknown option '--nonsense'"),
        ("---", "unknown option '---'"),
        ("-v x", "option -v requires a number"),
        ("-v=5", "option -v requires a number"),
        ("-v -1", "option -v requires a number"),
        ("--verbose=", "option -v requires a number"),
        (
            "-v 2147483648",
            "option -v value 2147483648 is out of range (0 to 2147483647)",
        ),
        ("-s x", "option -s requires a number"),
        ("-s 0", "option -s value 0 is not a valid port"),
        ("-s 65536", "option -s value 65536 is not a valid port"),
        (
            "-s 4294967297",
            "option -s value 4294967297 is not a valid port",
        ),
        ("-i x", "option -i requires a number"),
        (
            "-i 4294967296",
            "option -i value 4294967296 is out of range (0 to 2147483647)",
        ),
        ("-m x", "option -m requires a non-zero number"),
        ("-m 0", "option -m requires a non-zero number"),
        (
            "-m 511",
            "mbuf chunk size must be between 512 and 16777216 bytes",
        ),
        (
            "-m 16777217",
            "mbuf chunk size must be between 512 and 16777216 bytes",
        ),
        (
            "-m 4294967808",
            "mbuf chunk size must be between 512 and 16777216 bytes",
        ),
        (
            "--workers=0",
            "option --workers value 0 is out of range (1 to 1024)",
        ),
        (
            "--workers=1025",
            "option --workers value 1025 is out of range (1 to 1024)",
        ),
        ("--workers=x", "option --workers requires a number"),
        (
            "--drain-timeout=-1",
            "option --drain-timeout requires a number",
        ),
        (
            "--drain-timeout=86400001",
            "option --drain-timeout value 86400001 is out of range (0 to 86400000)",
        ),
        // The first bad one ends it, even behind a mode.
        ("-h -s 0 -Q", "option -s value 0 is not a valid port"),
    ] {
        assert_eq!(error(line), format!("nutcracker: {expected}"), "{line}");
    }
}

#[test]
fn an_option_may_be_any_byte() {
    let parsed = read([OsString::from_vec(b"--\xff=1".to_vec())]);
    let line = b"nutcracker: unknown option '--\xff'".to_vec();
    assert_eq!(parsed, Err(UsageError(line)));
    let parsed = read([OsString::from_vec(b"-\xff".to_vec())]);
    let line = b"nutcracker: invalid option -- '\xff'".to_vec();
    assert_eq!(parsed, Err(UsageError(line)));
    let parsed = read([OsString::from_vec(b"-c\xff".to_vec())]);
    let Ok(Invocation::Run(options)) = parsed else {
        panic!("{parsed:?}");
    };
    assert_eq!(options.conf_file, path(b"\xff".to_vec()));
}

const PACKAGED: &str = "/etc/nutcracker/nutcracker.yml";

fn files(line: &str, exists: fn(&Path) -> bool) -> (String, Option<String>, Option<String>) {
    let text = |path: PathBuf| path.display().to_string();
    match parse(line.split_whitespace().map(OsString::from), exists) {
        Ok(Invocation::Run(o) | Invocation::TestConf(o)) => {
            (text(o.conf_file), o.output.map(text), o.pid_file.map(text))
        }
        other => panic!("{line}: {other:?}"),
    }
}

// D70
#[test]
fn where_only_the_packages_file_is_its_paths_are_the_defaults() {
    let packaged: fn(&Path) -> bool = |path| path == Path::new(PACKAGED);
    let log = || Some("/var/log/nutcracker/nutcracker.log".to_owned());
    let pid = || Some("/run/nutcracker/nutcracker.pid".to_owned());
    let some = |name: &str| Some(name.to_owned());
    for (line, output, pid_file) in [
        ("", None, None),
        ("-t", None, None),
        ("-p x", None, some("x")),
        ("-d", log(), pid()),
        ("-t -d", log(), pid()),
        ("-d -o y", some("y"), pid()),
        ("-d -p x", log(), some("x")),
    ] {
        let expected = (PACKAGED.to_owned(), output, pid_file);
        assert_eq!(files(line, packaged), expected, "{line}");
    }
    let stderr = parse(["-d", "-o", ""].map(OsString::from), packaged);
    assert!(matches!(stderr, Ok(Invocation::Run(o)) if o.output.is_none() && o.pid_file.is_some()));
}

// D70
#[test]
fn a_named_file_and_upstreams_default_come_before_the_packages() {
    for line in ["-c x", "-d -c x", "-c x -t", "-dcx", "--conf=x"] {
        assert_eq!(
            files(line, |_| true),
            ("x".to_owned(), None, None),
            "{line}"
        );
    }
    for exists in [|_: &Path| true, |_: &Path| false] {
        let expected = ("conf/nutcracker.yml".to_owned(), None, None);
        assert_eq!(files("-d", exists), expected);
    }
}
