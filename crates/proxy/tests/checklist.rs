//! Is each item of the compatibility checklist and each deliberate difference proved by a test?
//!
//! A test names what it proves in a comment line of its own directly above it: `// C12 C13` or
//! `// D8`. C numbers are items of `docs/checklist.md`, D numbers are rows of `docs/compat.md`. A
//! C item that a D row replaces is proved by the test of the row. Quirks of 0.5 need no test. What
//! else no test proves stands in [`OPEN`] with its reason; the list only shrinks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rows of later steps.
const LATER: [u32; 1] = [21];

/// What no test proves yet, and why.
const OPEN: &[(&str, &str)] = &[];

/// Where each number is claimed.
fn claims() -> BTreeMap<String, Vec<String>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for part in [
        "core/src",
        "core/tests",
        "config/src",
        "proxy/src",
        "proxy/tests",
    ] {
        rust_files(&crates.join(part), &mut files);
    }
    let mut claims: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(numbers) = marker(line) else {
                continue;
            };
            let below = lines[at + 1..].iter().find(|line| !line.starts_with("#["));
            let place = format!("{}:{}", file.display(), at + 1);
            assert!(
                lines[at + 1].starts_with("#[test]")
                    && below.is_some_and(|line| line.starts_with("fn ")),
                "{place}: a marker stands directly above a test"
            );
            for number in numbers {
                claims
                    .entry(number.to_owned())
                    .or_default()
                    .push(place.clone());
            }
        }
    }
    claims
}

/// The numbers of a marker line.
fn marker(line: &str) -> Option<Vec<&str>> {
    let words: Vec<&str> = line.strip_prefix("// ")?.split(' ').collect();
    let number = |word: &str| {
        word.strip_prefix(['C', 'D'])
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    words.iter().all(|word| number(word)).then_some(words)
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn required() -> BTreeSet<String> {
    let items = items()
        .into_iter()
        .filter_map(|(item, kept)| kept.then_some(item));
    let rows = rows().into_iter().map(|(row, _)| row);
    let rows = rows.filter(|row| !LATER.contains(row));
    items
        .map(|item| format!("C{item}"))
        .chain(rows.map(|row| format!("D{row}")))
        .collect()
}

#[test]
fn every_number_has_a_test_or_a_reason() {
    let claims = claims();
    let open: BTreeMap<&str, &str> = OPEN.iter().copied().collect();
    let missing: Vec<String> = required()
        .into_iter()
        .filter(|number| !claims.contains_key(number) && !open.contains_key(number.as_str()))
        .collect();
    assert!(missing.is_empty(), "no test proves {missing:?}");
    for (number, reason) in OPEN {
        assert!(!reason.is_empty(), "{number} is open without a reason");
        let proved = claims.get(*number);
        assert!(
            proved.is_none(),
            "{number} is open, but {proved:?} claims it"
        );
    }
}

#[test]
fn no_test_claims_a_number_that_does_not_exist() {
    let rows: BTreeSet<u32> = rows().into_iter().map(|(row, _)| row).collect();
    let items = items();
    for (number, places) in claims() {
        let value: u32 = number[1..].parse().unwrap();
        let exists = if number.starts_with('C') {
            items.contains_key(&value)
        } else {
            rows.contains(&value)
        };
        assert!(exists, "{number} at {places:?}");
    }
}

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::read_to_string(docs.join(name)).unwrap()
}

/// The items of the checklist, and whether users rely on each.
fn items() -> BTreeMap<u32, bool> {
    let item = |line: &str| {
        let (number, rest) = line.strip_prefix("| C")?.split_once(" | ").unwrap();
        let relied_on = match rest.split_once(" | ").unwrap().0 {
            "relied on" => true,
            "quirk" => false,
            other => panic!("C{number} is {other:?}"),
        };
        Some((number.parse().unwrap(), relied_on))
    };
    page("checklist.md").lines().filter_map(item).collect()
}

#[test]
fn the_checklist_is_whole() {
    let numbers: Vec<u32> = items().into_keys().collect();
    assert_eq!(numbers, (1..=145).collect::<Vec<_>>());
}

/// The page's rows: number and status.
fn rows() -> Vec<(u32, String)> {
    let text = page("compat.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line
            .strip_prefix("| D")?
            .trim_end_matches(" |")
            .split(" | ")
            .collect();
        assert_eq!(cells.len(), 5, "number, 0.5, ours, why, status: {line}");
        Some((cells[0].parse().unwrap(), cells[4].to_owned()))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn the_page_lists_every_difference_once_and_in_order() {
    let numbers: Vec<u32> = rows().into_iter().map(|(number, _)| number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn the_page_says_here_exactly_of_what_a_test_proves() {
    let claims = claims();
    for (number, status) in rows() {
        let proved = claims.contains_key(&format!("D{number}"));
        let open = OPEN.iter().any(|(open, _)| *open == format!("D{number}"));
        match status.split([';', ',']).next().unwrap() {
            "here" => assert!(proved || open, "D{number} is here, but nothing proves it"),
            "drop-in" | "operate" | "clients" => {
                assert!(!proved, "D{number} is {status}, but a test claims it");
            }
            other => panic!("D{number} has the status {other:?}"),
        }
    }
}
