//! Configurations: accepted or refused, and in which words.
//!
//! `-t` gives the verdict. 0.5 tells the reason in the log of a real start only, so each refused
//! file is started too.

use std::fs;

use twemproxy_testkit::harness::private_dir;

use super::Pair;
use super::side::Side;
use super::verdict::{Cell, Expect};

#[rustfmt::skip]
const NUMBERS: [&str; 7] = [
    "timeout", "backlog", "client_connections", "redis_db", "server_connections", "server_retry_timeout",
    "server_failure_limit",
];
#[rustfmt::skip]
const NUMBER_VALUES: [&str; 14] = [
    "1", "0", "-1", "1s", "1.5", "+5", "2147483647", "0x10", "00010", "1e3", "1_000", "\"400\"", "' 4'", "four",
];
/// Values that 0.5 wraps around.
const WRAPPED_VALUES: [&str; 4] = [
    "2147483648",
    "4294967295",
    "4294967297",
    "99999999999999999999",
];

const SWITCHES: [&str; 4] = ["redis", "tcpkeepalive", "preconnect", "auto_eject_hosts"];
#[rustfmt::skip]
const SWITCH_VALUES: [&str; 10] = [
    "true", "false", "yes", "no", "True", "FALSE", "on", "1", "\"true\"", "truer",
];

#[rustfmt::skip]
const HASH_VALUES: [&str; 17] = [
    "one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32", "hsieh", "murmur",
    "jenkins", "foo", "FNV1A_64", "fnv1a_6", "fnv1a_644", "\"md5\"",
];
const DISTRIBUTION_VALUES: [&str; 6] = ["ketama", "modula", "random", "Ketama", "rand", "ketamaa"];
const TAG_VALUES: [&str; 8] = [
    "\"{}\"",
    "ab",
    "a",
    "abc",
    "\"  \"",
    "é",
    "'$$'",
    "\"\\x01\\x02\"",
];
const AUTH_VALUES: [&str; 5] = ["secret", "\"two words\"", "1", "~", "null"];
#[rustfmt::skip]
const LISTEN_VALUES: [&str; 22] = [
    "'*:1'", "127.0.0.1:1", "127.0.0.1:65535", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:70000", "127.0.0.1:x", "127.0.0.1:-1",
    "22121", "localhost", "127.0.0.1", "::1:22121", "0.0.0.0:1",
    "/tmp/x", "/tmp/x 0666", "/tmp/x 777", "/tmp/x 0777", "/tmp/x 01000", "/tmp/x  0666", "/",
    "relative/path", "\"127.0.0.1:1 0666\"",
];
#[rustfmt::skip]
const SERVER_VALUES: [&str; 35] = [
    "h:1:1", "h:1:1 name", "h:1:2147483647", "h:1:0", "h:1:x", "h:1:-1", "h:1:", "h:0:1", "h:65535:1", "h:65536:1", "h:x:1",
    "h::1", "h:1", "h", ":1:1", "::1:6379:1", "h:11211:1", "h:011211:1", "h:1:1  name", "h:1:1 two words", "h:1:1 a:b", "/tmp/x:1",
    "/tmp/x:1 name", "/tmp/x", "/tmp/x:0", "/tmp/x:y", "/tmp/x:6379:1", "relative:1", "'h:1:1 '", "\" h:1:1\"", "h:1:1 127.0.0.1:2",
    "127.0.0.1:2:1", "127.0.0.1:2:5", "127.0.0.1:2:1 other", "127.0.0.1:3:1 127.0.0.1:2",
];

const POOL: &str = "p:\n  listen: 127.0.0.1:1\n  servers:\n    - 127.0.0.1:2:1\n";

/// Whole files.
#[rustfmt::skip]
const FILES: [(&str, &str); 46] = [
    ("two documents", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n---\nq:\n  timeout: 1\n"),
    ("empty", ""),
    ("a comment", "# nothing\n"),
    ("a blank line", "\n"),
    ("a scalar", "word\n"),
    ("a list", "- a\n- b\n"),
    ("a pool without value", "p:\n"),
    ("a pool that is a word", "p: word\n"),
    ("a pool that is a list", "p:\n  - a\n"),
    ("no listen", "p:\n  servers:\n    - h:1:1\n"),
    ("no servers", "p:\n  listen: 127.0.0.1:1\n"),
    ("servers left empty", "p:\n  listen: 127.0.0.1:1\n  servers:\n"),
    ("servers twice", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n  servers:\n    - h:2:1\n"),
    ("servers as a word", "p:\n  listen: 127.0.0.1:1\n  servers: h:1:1\n"),
    ("servers as a word, another key a list", "p:\n  listen: 127.0.0.1:1\n  servers: h:1:1\n  timeout:\n    - 5\n"),
    ("listen as a list", "p:\n  listen:\n    - 127.0.0.1:1\n  servers: h:1:1\n"),
    ("a list in the wrong key only", "p:\n  listen: 127.0.0.1:1\n  timeout:\n    - 5\n"),
    ("two lists", "p:\n  listen: 127.0.0.1:1\n  timeout:\n    - 1\n  servers:\n    - h:1:1\n"),
    ("a list of two for a number", "p:\n  listen: 127.0.0.1:1\n  servers: h:1:1\n  timeout:\n    - 1\n    - 2\n"),
    ("a list in a list", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - - h:1:1\n"),
    ("a mapping in a list", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - a: b\n"),
    ("a mapping below a directive", "p:\n  listen: 127.0.0.1:1\n  timeout:\n    a: b\n  servers:\n    - h:1:1\n"),
    ("three levels", "a:\n  b:\n    c:\n      d: e\n"),
    ("a mapping as a pool's name", "? a: b\n: c\n"),
    ("a list as a key", "p:\n  ? - a\n  : b\n"),
    ("two pools", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\nq:\n  listen: 127.0.0.1:2\n  servers:\n    - h:1:1\n"),
    ("two pools of one name", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\np:\n  listen: 127.0.0.1:2\n  servers:\n    - h:1:1\n"),
    ("two pools on one address", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\nq:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("one address spelt twice", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\nq:\n  listen: localhost:1\n  servers:\n    - h:1:1\n"),
    ("a pool named global", "global:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("a pool with a colourful name", "\"p \\\"q\\\" {}\":\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("sentinels", "p:\n  listen: 127.0.0.1:1\n  sentinels:\n    - h:1:1\n"),
    ("an unknown directive", "p:\n  listen: 127.0.0.1:1\n  nonsense: 1\n  servers:\n    - h:1:1\n"),
    ("upper case", "p:\n  LISTEN: 127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("a block scalar", "p:\n  listen: |-\n    127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("a folded scalar", "p:\n  listen: >-\n    127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("a block scalar with its line end", "p:\n  listen: 127.0.0.1:1\n  timeout: |\n    5\n  servers:\n    - h:1:1\n"),
    ("comments everywhere", "# a\np: # b\n  # c\n  listen: 127.0.0.1:1 # d\n  servers: # e\n    - h:1:1 # f\n"),
    ("lines end in CRLF", "p:\r\n  listen: 127.0.0.1:1\r\n  servers:\r\n    - h:1:1\r\n"),
    ("no line end at the end", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1"),
    ("a tag", "p:\n  listen: !t 127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("a standard tag", "p:\n  listen: !!str 127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("redis_auth without redis", "p:\n  listen: 127.0.0.1:1\n  redis_auth: x\n  servers:\n    - h:1:1\n"),
    ("a dash without a blank", "p:\n  listen: 127.0.0.1:1\n  servers:\n    -h:1:1\n"),
    ("quoted keys and values", "\"p\":\n  'listen': \"127.0.0.1:1\"\n  \"servers\":\n    - 'h:1:1 \"n\"'\n"),
    ("redis_db without redis", "p:\n  listen: 127.0.0.1:1\n  redis_db: 3\n  servers:\n    - h:1:1\n"),
];

/// Whole files that 0.5 refuses and ours accepts: flow style, marks of documents, anchors.
#[rustfmt::skip]
const ACCEPTED: [(&str, &str); 6] = [
    ("a document start", "---\np:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n"),
    ("a document end", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n...\n"),
    ("servers in flow style", "p:\n  listen: 127.0.0.1:1\n  servers: [h:1:1, 'h:2:1']\n"),
    ("all in flow style", "{p: {listen: '127.0.0.1:1', servers: ['h:1:1']}}\n"),
    ("an anchor", "p:\n  listen: 127.0.0.1:1\n  timeout: &t 400\n  servers:\n    - h:1:1\n"),
    ("an alias", "p:\n  listen: 127.0.0.1:1\n  timeout: &t 400\n  backlog: *t\n  servers:\n    - h:1:1\n"),
];

/// Whole files that ours refuses: with more words than 0.5 has, or where 0.5 takes them for something else.
#[rustfmt::skip]
const WORDED: [(&str, &str, &str, &str); 20] = [
    ("an empty server", "D19", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - ''\n", "directive \"servers\" has an empty value"),
    ("a server left empty", "D19", "p:\n  listen: 127.0.0.1:1\n  servers:\n    -\n", "directive \"servers\" has an empty value"),
    ("a value left empty", "D19", "p:\n  timeout:\n  servers:\n    - h:1:1\n", "directive \"timeout\" has an empty value"),
    ("an empty word", "D19", "p:\n  timeout: ''\n  servers:\n    - h:1:1\n", "directive \"timeout\" has an empty value"),
    ("an empty hash tag", "D19", "p:\n  hash_tag: \"\"\n  servers:\n    - h:1:1\n", "directive \"hash_tag\" has an empty value"),
    ("a mode with a digit that is not octal", "D40", "p:\n  listen: /tmp/x 9\n  servers:\n    - 127.0.0.1:2:1\n", "directive \"listen\" has an invalid file permission in \"socket_path permission\" format string"),
    ("a mode that is a word", "D40", "p:\n  listen: /tmp/x xyz\n  servers:\n    - 127.0.0.1:2:1\n", "directive \"listen\" has an invalid file permission in \"socket_path permission\" format string"),
    ("listen without a host", "D19", "p:\n  listen: :1\n  servers:\n    - h:1:1\n", "directive \"listen\" has an invalid value (host '')"),
    ("listen in brackets", "D71", "p:\n  listen: '[::1]:1'\n  servers:\n    - h:1:1\n", "directive \"listen\" has an invalid value (host '[::1]': an IPv6 address has no brackets: ::1:1)"),
    ("an asterisk without quotes", "D71", "p:\n  listen: *:1\n  servers:\n    - h:1:1\n", "failed to get the next yaml document: while parsing node, found unknown anchor (a text that starts with '*' needs quotes)"),
    ("listen without a blank", "D71", "p:\n  listen:127.0.0.1:1\n  servers:\n    - h:1:1\n", "failed to get the next yaml document: mapping values are not allowed in this context (no blank after \"listen:\")"),
    ("a directive without a blank", "D71", "p:\n  listen: 127.0.0.1:1\n  hash:md5\n  servers:\n    - h:1:1\n", "failed to get the next yaml document: simple key expected ':' (no blank after \"hash:\")"),
    ("one directive without a blank", "D71", "p:\n  listen:127.0.0.1:1\n", "'f.yml' has invalid mapping \"key:\" at depth 1 (no blank after \"listen:\")"),
    ("listen on an unknown host", "D19", "p:\n  listen: no.such.host.invalid:1\n  servers:\n    - h:1:1\n", "directive \"listen\" has an invalid value (host 'no.such.host.invalid')"),
    ("a mapping in flow style as a server", "D25", "p:\n  listen: 127.0.0.1:1\n  servers:\n    - {a: b}\n", "'f.yml' has a depth greater than 2 (a text that starts with '{' needs quotes)"),
    ("unquoted braces", "D25", "p:\n  listen: 127.0.0.1:1\n  hash_tag: {}\n  servers:\n    - h:1:1\n", "'f.yml' has a depth greater than 2 (a text that starts with '{' needs quotes)"),
    ("a version", "D25", "%YAML 1.1\n---\np:\n  listen: 127.0.0.1:1\n  servers:\n    - h:1:1\n", "failed to get the next yaml document: YAML directives are disallowed"),
    ("two colons", "D19", "p:\n  listen: 127.0.0.1:\n  servers:\n    - h:1:1\n", "failed to get the next yaml document: mapping values are not allowed in this context"),
    ("an open quote", "D19", "p:\n  listen: \"127.0.0.1:1\n  servers:\n    - h:1:1\n", "failed to get the next yaml document: unclosed quote"),
    ("a tabulator", "D19", "p:\n\tlisten: 127.0.0.1:1\n", "failed to get the next yaml document: tabs disallowed within this context (block indentation)"),
];

/// Cases of one kind that both refuse, ours with a hint behind the words of 0.5 (D71).
#[rustfmt::skip]
const HINTED: [(&str, &str); 8] = [
    ("hash: ", "(one of: one_at_a_time, md5, crc16, crc32, crc32a, fnv1_64, fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, jenkins)"),
    ("distribution: ", "(one of: ketama, modula, random)"),
    ("server h:1:1  name", "(one blank before the name, none in it)"),
    ("server h:1:1 two words", "(one blank before the name, none in it)"),
    ("no servers", "(pool 'p' has no \"servers:\")"),
    ("servers left empty", NO_LIST),
    ("servers as a word", NO_LIST),
    ("a dash without a blank", NO_LIST),
];
const NO_LIST: &str = "(\"servers:\" needs a list, whose entries begin with \"- \")";

/// A file, and what is expected of the two verdicts.
struct Case {
    name: String,
    yaml: String,
    expect: Expect,
}

impl Case {
    fn same(name: impl Into<String>, yaml: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            yaml: yaml.into(),
            expect: Expect::Same,
        }
    }

    fn better(
        name: impl Into<String>,
        yaml: impl Into<String>,
        reason: &'static str,
        ours: &str,
    ) -> Self {
        let expect = Expect::better(reason, ours);
        Self {
            name: name.into(),
            yaml: yaml.into(),
            expect,
        }
    }
}

pub(super) fn compare(pair: &Pair) -> Vec<Cell> {
    let dir = private_dir();
    let mut cells = Vec::new();
    for case in cases() {
        fs::write(dir.path().join("f.yml"), &case.yaml).expect("the private directory is writable");
        let theirs = verdict(&pair.theirs, dir.path());
        let mut hints = HINTED.iter();
        let hint = hints.find(|(kind, _)| theirs != "accepted" && case.name.starts_with(kind));
        let expect = match hint {
            Some((_, hint)) => Expect::better("D71", format!("{theirs} {hint}")),
            None => case.expect,
        };
        cells.push(Cell {
            area: "configurations",
            name: case.name,
            expect,
            theirs: theirs.into_bytes(),
            ours: verdict(&pair.ours, dir.path()).into_bytes(),
        });
    }
    cells
}

fn cases() -> Vec<Case> {
    let mut cases = directives();
    for value in LISTEN_VALUES {
        let yaml = POOL.replace("127.0.0.1:1", value);
        cases.push(Case::same(format!("listen: {value}"), yaml));
    }
    for value in SERVER_VALUES {
        cases.push(Case::same(
            format!("server {value}"),
            format!("{POOL}    - {value}\n"),
        ));
    }
    cases.extend(FILES.map(|(name, yaml)| Case::same(name, yaml)));
    cases.extend(ACCEPTED.map(|(name, yaml)| Case::better(name, yaml, "D25", "accepted")));
    for (name, reason, yaml, words) in WORDED {
        cases.push(Case::better(
            name,
            yaml,
            reason,
            &format!("refused: conf: {words}"),
        ));
    }
    // The Debian package is the 0.5.0 release, which does not know the directive yet.
    for (value, ours) in [
        ("true", "accepted"),
        ("false", "accepted"),
        (
            "yes",
            "refused: conf: directive \"reuseport\" is not \"true\" or \"false\"",
        ),
    ] {
        let expect = Expect::Debian("reuseport", ours.into());
        cases.push(Case {
            expect,
            ..Case::same(format!("reuseport: {value}"), line("reuseport", value))
        });
    }
    cases
}

/// Each directive right, wrong, extreme and twice.
fn directives() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut directives: Vec<(&str, &[&str])> = Vec::new();
    directives.extend(NUMBERS.map(|name| (name, &NUMBER_VALUES[..])));
    directives.extend(SWITCHES.map(|name| (name, &SWITCH_VALUES[..])));
    directives.extend([
        ("hash", &HASH_VALUES[..]),
        ("distribution", &DISTRIBUTION_VALUES),
        ("hash_tag", &TAG_VALUES),
    ]);
    for (name, values) in directives {
        for value in values {
            cases.push(Case::same(format!("{name}: {value}"), line(name, value)));
        }
        let twice = format!("{}  {name}: {}\n", line(name, values[0]), values[0]);
        cases.push(Case::same(format!("{name} twice"), twice));
    }
    for name in NUMBERS {
        for value in WRAPPED_VALUES {
            let words = "is out of range (0 to 2147483647)";
            let ours = format!("refused: conf: directive \"{name}\" {words}");
            cases.push(Case::better(
                format!("{name}: {value}"),
                line(name, value),
                "D26",
                &ours,
            ));
        }
    }
    for value in AUTH_VALUES {
        let yaml = format!("{}  redis: true\n", line("redis_auth", value));
        cases.push(Case::same(format!("redis_auth: {value}"), yaml));
    }
    cases
}

/// A good file with one directive more.
fn line(directive: &str, value: &str) -> String {
    format!("{POOL}  {directive}: {value}\n")
}

/// `accepted`, or `refused` with the reason.
fn verdict(side: &Side, dir: &std::path::Path) -> String {
    let tested = side.run(dir, &["-t", "-c", "f.yml"]);
    if tested.status == "exit 0" {
        return "accepted".to_owned();
    }
    let stats = dir.join("s.sock").display().to_string();
    let _ = fs::remove_file(dir.join("c.log"));
    let started = side.run(dir, &["-c", "f.yml", "-o", "c.log", "-a", &stats]);
    let log = fs::read(dir.join("c.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let reason = log
        .lines()
        .find_map(|line| line.find("conf: ").map(|at| &line[at..]));
    // The resolver's words about a host depend on the machine.
    let reason = reason.map(|text| match text.find(": failed to lookup") {
        Some(at) => format!("{})", &text[..at]),
        None => text.to_owned(),
    });
    let both = match tested.status == started.status {
        true => "refused",
        false => "refused by -t only",
    };
    format!("{both}: {}", reason.as_deref().unwrap_or("no reason"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use twemproxy_testkit::fuzz::seed_name;

    use super::*;

    /// `UPDATE_CORPUS=1` writes those that are new.
    #[test]
    fn the_fuzzer_of_configurations_starts_from_the_same_files() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/configuration");
        for case in cases() {
            let path = corpus.join(seed_name(case.yaml.as_bytes()));
            if std::env::var_os("UPDATE_CORPUS").is_some() {
                fs::write(&path, &case.yaml).expect("the corpus is writable");
            }
            let held = fs::read_to_string(&path);
            assert!(
                held.is_ok_and(|yaml| yaml == case.yaml),
                "{}: run with UPDATE_CORPUS=1",
                case.name
            );
        }
    }
}
