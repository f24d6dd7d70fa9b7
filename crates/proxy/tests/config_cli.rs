//! The command line and `-t` of the real binary, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const USAGE_HEAD: &str = "\
Usage: nutcracker [-?hVdDt] [-v verbosity level] [-o output file]\r
                  [-c conf file] [-s stats port] [-a stats addr]\r
                  [-i stats interval] [-p pid file] [-m mbuf size]\r

Options:\r
  -h, --help             : this help\r
  -V, --version          : show version and exit\r
  -t, --test-conf        : test configuration for syntax errors and exit\r
  -d, --daemonize        : run as a daemon\r
  -D, --describe-stats   : print stats description and exit
  -v, --verbose=N        : set logging level (default: 5, min: 0, max: 11)\r
  -o, --output=S         : set logging file (default: stderr)\r
  -c, --conf-file=S      : set configuration file (default: conf/nutcracker.yml)\r
  -s, --stats-port=N     : set stats monitoring port (default: 22222)\r
  -a, --stats-addr=S     : set stats monitoring ip (default: 0.0.0.0)\r
  -i, --stats-interval=N : set stats aggregation interval in msec (default: 30000 msec)\r
  -p, --pid-file=S       : set pid file (default: off)\r
  -m, --mbuf-size=N      : set size of mbuf chunk in bytes (default: 16384 bytes)\r

";

const USAGE_TAIL: &str = "\
Options that nutcracker 0.5 does not have:\r
      --workers=N        : set number of worker threads (default: 1, max: 1024)\r
      --drain-timeout=N  : set time to finish requests at the end in msec (default: 10000 msec)\r

";

const DESCRIPTION: &str = r##"pool stats:
  client_eof          "# eof on client connections"
  client_err          "# errors on client connections"
  client_connections  "# active client connections"
  server_ejects       "# times backend server was ejected"
  forward_error       "# times we encountered a forwarding error"
  fragments           "# fragments created from a multi-vector request"

server stats:
  server_eof          "# eof on server connections"
  server_err          "# errors on server connections"
  server_timedout     "# timeouts on server connections"
  server_connections  "# active server connections"
  server_ejected_at   "timestamp when server was ejected in usec since epoch"
  requests            "# requests"
  request_bytes       "total request bytes"
  responses           "# responses"
  response_bytes      "total response bytes"
  in_queue            "# requests in incoming queue"
  in_queue_bytes      "current request bytes in incoming queue"
  out_queue           "# requests in outgoing queue"
  out_queue_bytes     "current request bytes in outgoing queue"
"##;

const POOL: &str = "p:\n  listen: 127.0.0.1:1\n  servers:\n    - 127.0.0.1:2:1\n";

fn banner() -> String {
    let ours = env!("CARGO_PKG_VERSION");
    format!(
        "This is nutcracker-0.5.0\nasync event backend: epoll\ntwemproxy in Rust, version {ours}\n\n"
    )
}

fn usage() -> String {
    [USAGE_HEAD, USAGE_TAIL].concat()
}

fn run_in(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nutcracker"));
    command.args(args).current_dir(dir).output().unwrap()
}

/// Runs the binary where there is no configuration; its stdout must stay empty.
fn stderr_and_status(args: &[&str]) -> (String, i32) {
    let dir = TempDir::new().unwrap();
    said(&run_in(dir.path(), args))
}

fn said(output: &Output) -> (String, i32) {
    assert_eq!(output.stdout, b"", "stdout is never used");
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    (stderr, output.status.code().expect("not killed"))
}

/// A file in a directory that lives as long as this.
struct ConfFile {
    dir: TempDir,
}

impl ConfFile {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("f.yml"), text).unwrap();
        Self { dir }
    }

    fn test(&self) -> (String, i32) {
        said(&run_in(self.dir.path(), &["-t", "-c", "f.yml"]))
    }
}

/// C5 and D19: the verdict once, then place and reason.
fn assert_refused(text: &str, place_and_reason: &str) {
    let expected = format!(
        "nutcracker: configuration file 'f.yml' syntax is invalid\nf.yml:{place_and_reason}\n"
    );
    assert_eq!(ConfFile::new(text).test(), (expected, 1), "{text}");
}

fn assert_accepted(text: &str) {
    let (said, status) = ConfFile::new(text).test();
    assert_eq!(
        (without_warnings(&said).as_str(), status),
        (OK, 0),
        "{text}"
    );
}

const OK: &str = "nutcracker: configuration file 'f.yml' syntax is ok\n";

/// The verdict on a good file, in 0.5's words.
fn without_warnings(said: &str) -> String {
    let lines = said.split_inclusive('\n');
    lines.filter(|line| !line.contains(": warning: ")).collect()
}

// C1
#[test]
fn c1_the_version_is_a_banner_on_stderr() {
    for args in [["-V"], ["--version"], ["--vers"]] {
        assert_eq!(stderr_and_status(&args), (banner(), 0));
    }
}

// C2
#[test]
fn c2_help_is_the_banner_and_the_usage() {
    for args in [["-h"], ["--help"], ["-hV"], ["-ht"]] {
        assert_eq!(stderr_and_status(&args), (banner() + &usage(), 0));
    }
}

// C3
#[test]
fn c3_statistics_are_described() {
    let expected = banner() + DESCRIPTION;
    assert_eq!(stderr_and_status(&["-D"]), (expected, 0));
    let expected = banner() + &usage() + DESCRIPTION;
    assert_eq!(stderr_and_status(&["-D", "-h"]), (expected, 0));
}

// C4
#[test]
fn c4_a_good_file_is_ok() {
    assert_accepted(POOL);
    // The default file, relative to the working directory.
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("conf")).unwrap();
    std::fs::write(dir.path().join("conf/nutcracker.yml"), POOL).unwrap();
    let expected = "nutcracker: configuration file 'conf/nutcracker.yml' syntax is ok\n";
    let (said, status) = said(&run_in(dir.path(), &["-t"]));
    assert_eq!((without_warnings(&said).as_str(), status), (expected, 0));
}

// C5 D19
#[test]
fn c5_c6_a_bad_file_is_told_once_with_place_and_reason() {
    assert_refused(
        "p:\n  listen: 127.0.0.1:1\n  foo: bar\n  servers:\n    - 127.0.0.1:2:1\n",
        "3:3: conf: directive \"foo\" is unknown",
    );
    let expected = "nutcracker: configuration file 'none.yml' syntax is invalid\n\
                    conf: failed to open configuration 'none.yml': No such file or directory\n";
    let answer = stderr_and_status(&["-t", "-c", "none.yml"]);
    assert_eq!(answer, (expected.to_owned(), 1));
}

// C7 C8 C9 C10 C11 C12
#[test]
fn c7_to_c12_a_bad_option_is_one_line_and_the_usage() {
    for (args, line) in [
        (&["-Q"][..], "invalid option -- 'Q'"),
        (&["-?"], "invalid option -- '?'"),
        (&["--nonsense"], "unknown option '--nonsense'"),
        (&["--help=x"], "option -h takes no value"),
        (
            &["-m", "511"],
            "mbuf chunk size must be between 512 and 16777216 bytes",
        ),
        (
            &["-m", "16777217"],
            "mbuf chunk size must be between 512 and 16777216 bytes",
        ),
        (&["-m", "0"], "option -m requires a non-zero number"),
        (&["-m", "x"], "option -m requires a non-zero number"),
        (&["-s", "0"], "option -s value 0 is not a valid port"),
        (
            &["-s", "65536"],
            "option -s value 65536 is not a valid port",
        ),
        (&["-v", "x"], "option -v requires a number"),
        (&["-i", "x"], "option -i requires a number"),
        (&["-s", "x"], "option -s requires a number"),
        (&["-c"], "option -c requires a file name"),
        (&["-o"], "option -o requires a file name"),
        (&["-p"], "option -p requires a file name"),
        (&["-a"], "option -a requires a string"),
        (
            &["-V", "--workers=0"],
            "option --workers value 0 is out of range (1 to 1024)",
        ),
    ] {
        let expected = format!("nutcracker: {line}\n{}", usage());
        assert_eq!(stderr_and_status(args), (expected, 1), "{args:?}");
    }
}

// C8 C11
#[test]
fn c8_c11_values_on_the_bounds_are_accepted() {
    for args in [
        ["-V", "-m", "512"],
        ["-V", "-m", "16777216"],
        ["-V", "-s", "65535"],
        ["-V", "-v", "99"],
        ["-V", "-i", "0"],
    ] {
        assert_eq!(stderr_and_status(&args), (banner(), 0), "{args:?}");
    }
}

const HASHES: &str = "\"hash\" is not a valid hash (one of: one_at_a_time, md5, crc16, crc32, crc32a, \
                      fnv1_64, fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, jenkins)";
const DISTRIBUTIONS: &str =
    "\"distribution\" is not a valid distribution (one of: ketama, modula, random)";

// C24 C25 C26 C27 C28 C29 C36 C37
#[test]
fn c24_to_c29_directives_are_checked() {
    for (line, column, reason) in [
        ("unknown: 1", 3, "\"unknown\" is unknown"),
        ("listen: 127.0.0.1:9", 3, "\"listen\" is a duplicate"),
        ("timeout: -1", 12, "\"timeout\" is not a number"),
        ("timeout: 1s", 12, "\"timeout\" is not a number"),
        ("redis: yes", 10, "\"redis\" is not \"true\" or \"false\""),
        ("redis: True", 10, "\"redis\" is not \"true\" or \"false\""),
        ("hash: foo", 9, HASHES),
        ("hash: FNV1A_64", 9, HASHES),
        ("distribution: foo", 17, DISTRIBUTIONS),
        ("distribution: KETAMA", 17, DISTRIBUTIONS),
        (
            "hash_tag: a",
            13,
            "\"hash_tag\" is not a valid hash tag string with two characters",
        ),
        (
            "server_connections: 0",
            23,
            "\"server_connections:\" cannot be 0",
        ),
        (
            "redis_auth: x",
            15,
            "\"redis_auth:\" is only valid for a redis pool",
        ),
    ] {
        assert_refused(
            &format!("{POOL}  {line}\n"),
            &format!("5:{column}: conf: directive {reason}"),
        );
    }
    for line in [
        "redis_db: 1",
        "client_connections: 1",
        "hash_tag: \"{}\"",
        "timeout: 0",
    ] {
        assert_accepted(&format!("{POOL}  {line}\n"));
    }
}

// C30 C31 C32 C33
#[test]
fn c30_to_c33_listen_is_checked() {
    assert_refused(
        "p:\n  servers:\n    - h:1:1\n",
        "1:1: conf: directive \"listen:\" is missing",
    );
    for (value, reason) in [
        ("22121", "has an invalid \"hostname:port\" format string"),
        (
            "h:0",
            "has an invalid port in \"hostname:port\" format string",
        ),
        (
            "h:70000",
            "has an invalid port in \"hostname:port\" format string",
        ),
    ] {
        assert_refused(
            &POOL.replace("127.0.0.1:1\n", &format!("{value}\n")),
            &format!("2:11: conf: directive \"listen\" {reason}"),
        );
    }
    let unresolvable = POOL.replace("127.0.0.1:1\n", "no.such.host.invalid:1\n");
    let (stderr, status) = ConfFile::new(unresolvable).test();
    assert!(stderr.contains("f.yml:2:11: conf: directive \"listen\" has an invalid value"));
    assert_eq!(status, 1);
    let again = |name: &str, listen: &str| {
        let second = POOL.replace("p:\n", name).replace("127.0.0.1:1\n", listen);
        format!("{POOL}{second}")
    };
    assert_refused(
        &again("q:\n", "127.0.0.1:1\n"),
        "6:11: conf: pools 'p' and 'q' have the same listen address '127.0.0.1:1'",
    );
    assert_refused(
        &again("p:\n", "127.0.0.1:3\n"),
        "5:1: conf: 'f.yml' has pools with same name p'",
    );
}

// C34 C35
#[test]
fn c34_c35_server_entries_are_checked() {
    let weight = "weight in \"hostname:port:weight [name]\" format string";
    for (entry, reason) in [
        ("h:1:0", format!("has a zero {weight}")),
        ("h:1:x", format!("has an invalid {weight}")),
        (
            "h:0:1",
            "has an invalid port in \"hostname:port:weight [name]\" format string".to_owned(),
        ),
        (
            "h:1",
            "has an invalid \"hostname:port:weight [name]\"or \
             \"/path/unix_socket:weight [name]\" format string"
                .to_owned(),
        ),
    ] {
        assert_refused(
            &format!("{POOL}    - {entry}\n"),
            &format!("5:7: conf: directive \"servers\" {reason}"),
        );
    }
    assert_refused(
        &format!("{POOL}    - 127.0.0.1:2:5\n"),
        "5:7: conf: pool 'p' has servers with same name '127.0.0.1:2'",
    );
    assert_accepted(&format!("{POOL}    - 127.0.0.1:2:1 other\n"));
}

// C38 D25
#[test]
fn c38_d25_flow_style_and_marks_are_accepted_but_one_document_is_wanted() {
    assert_accepted(&format!("---\n{POOL}...\n"));
    assert_accepted("{p: {listen: '127.0.0.1:1', servers: ['h:1:1']}}");
    assert_accepted(&format!(
        "{POOL}  timeout: &t 400\n  server_retry_timeout: *t\n"
    ));
    assert_refused(
        "",
        "1:1: conf: 'f.yml' must contain only 1 document; found 0 documents",
    );
    assert_refused(
        &format!("{POOL}---\n{POOL}"),
        "5:1: conf: 'f.yml' must contain only 1 document; found 2 documents",
    );
    assert_refused(
        &format!("{POOL}  timeout: !t 1\n"),
        "5:15: conf: tag token (20) is disallowed",
    );
}

// C39
#[test]
fn c39_one_sequence_and_two_levels_are_wanted() {
    assert_refused(
        "p:\n  listen: 127.0.0.1:1\n",
        "1:1: conf: 'f.yml' missing sequence directive at depth 2 (pool 'p' has no \"servers:\")",
    );
    assert_refused(
        &format!("{POOL}  timeout:\n    - 1\n"),
        "6:5: conf: 'f.yml' has more than one sequence directive",
    );
    assert_refused(
        &format!("{POOL}  timeout:\n    a: b\n"),
        "6:5: conf: 'f.yml' has a depth greater than 2",
    );
}

// C41 D40
#[test]
fn c41_c44_unix_paths_and_ipv6_are_accepted() {
    for listen in ["/tmp/x 0666", "/tmp/x", "::1:22121"] {
        assert_accepted(&POOL.replace("127.0.0.1:1\n", &format!("{listen}\n")));
    }
    for mode in ["01000", "0999", "xyz"] {
        assert_refused(
            &POOL.replace("127.0.0.1:1\n", &format!("/tmp/x {mode}\n")),
            "2:11: conf: directive \"listen\" has an invalid file permission in \
             \"socket_path permission\" format string",
        );
    }
    for server in ["::1:6379:1", "/tmp/x:1", "/tmp/x:1 name"] {
        assert_accepted(&format!("{POOL}    - {server}\n"));
    }
}

// D26
#[test]
fn d26_numbers_do_not_wrap() {
    assert_refused(
        &format!("{POOL}  timeout: 4294967297\n"),
        "5:12: conf: directive \"timeout\" is out of range (0 to 2147483647)",
    );
}

#[test]
fn every_sample_is_ok() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf");
    let samples = std::fs::read_dir(conf).unwrap();
    let samples: Vec<PathBuf> = samples.map(|entry| entry.unwrap().path()).collect();
    assert!(!samples.is_empty());
    for sample in samples {
        let sample = sample.to_str().unwrap();
        let expected = format!("nutcracker: configuration file '{sample}' syntax is ok\n");
        let (said, status) = stderr_and_status(&["-t", "-c", sample]);
        assert_eq!((without_warnings(&said), status), (expected, 0));
        // One sample shows all directives, this one included.
        let others = said.lines().skip(1);
        assert!(
            others
                .into_iter()
                .all(|line| line.contains("client_connections")),
            "{said}"
        );
    }
}

// D72
#[test]
fn d72_what_is_seldom_meant_is_told_after_the_verdict() {
    let text = "p:\n  listen: /no/such/p.sock 0600\n  client_connections: 5\n  servers:\n    \
                - no.such.host.invalid:2:1 s\n    - 127.0.0.1:3:1\n\
                q:\n  listen: '*:1'\n  timeout: 400\n  servers:\n    - 127.0.0.1:3:1\n";
    let (said, status) = ConfFile::new(text).test();
    assert_eq!(status, 0, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let [ok, timeout, socket, clients, host, asterisk, shared] = lines[..] else {
        panic!("{said}");
    };
    assert_eq!(format!("{ok}\n"), OK);
    for (line, expected) in [
        (timeout, "f.yml:1:1: warning: pool 'p' has no timeout: "),
        (
            socket,
            "f.yml:2:11: warning: there is no directory /no/such",
        ),
        (
            clients,
            "f.yml:3:23: warning: client_connections is in force, 5 clients ",
        ),
        (
            host,
            "f.yml:5:7: warning: host 'no.such.host.invalid' has no address now: ",
        ),
        (
            asterisk,
            "f.yml:8:11: warning: '*' is the loopback interface alone",
        ),
        (
            shared,
            "f.yml:11:7: warning: pool 'q' has a server of pool 'p', 127.0.0.1:3: ",
        ),
    ] {
        assert!(line.starts_with(expected), "{line}");
    }
}
