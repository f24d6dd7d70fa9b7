//! What a package of the proxy ships beside the binary agrees with the binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// The options of the usage text: `-h, --help` and, for new ones, the long name alone.
fn options() -> Vec<String> {
    let output = Command::new(BINARY).arg("-h").output().unwrap();
    let usage = String::from_utf8(output.stderr).unwrap();
    let described = usage.lines().filter(|line| line.contains(" : "));
    described
        .flat_map(|line| line.split(" : ").next().unwrap().split([',', ' ', '=']))
        .filter(|word| word.starts_with('-'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_manual_page_has_every_option_and_no_other() {
    let page = file("man/nutcracker.8").replace("\\-", "-");
    let section = page
        .split(".SH ")
        .find(|text| text.starts_with("OPTIONS"))
        .unwrap();
    let mut described: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with(".BR -"))
        .flat_map(|line| {
            line.split([' ', '"', ','])
                .filter(|word| word.starts_with('-'))
        })
        .collect();
    let options = options();
    assert!(options.len() > 25, "{options:?}");
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.sort_unstable();
    described.sort_unstable();
    assert_eq!(described, options);
}

#[test]
fn the_manual_page_tells_the_defaults_of_the_usage_text() {
    let page = file("man/nutcracker.8");
    for default in [
        "(default: 5)",
        "(default: 22222)",
        "(default: 0.0.0.0)",
        "(default: off)",
    ] {
        assert!(page.contains(default), "{default}");
    }
    assert!(page.contains("(default:\n.IR conf/nutcracker.yml )"));
}

#[test]
fn the_unit_starts_the_binary_with_options_that_exist() {
    let unit = file("dist/nutcracker.service");
    let options = options();
    let commands: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStart"))
        .filter_map(|line| line.split_once('='))
        .map(|(_, command)| command)
        .collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("/usr/sbin/nutcracker"), "no shell");
        for word in words.filter(|word| word.starts_with('-')) {
            assert!(options.iter().any(|option| option == word), "{word}");
        }
    }
}
