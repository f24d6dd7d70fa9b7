//! The table of known bugs in `docs/testing.md` names tests that exist.

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_page_names_exists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = include_str!("../../../docs/testing.md");
    let mut bugs = 0;
    for line in page.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [number, _, caught] = cells[..] else {
            continue;
        };
        if number.trim_start_matches("| ").parse::<u32>().is_err() {
            continue;
        }
        bugs += 1;
        for name in caught.split('`').skip(1).step_by(2) {
            let (file, test) = name.split_once("::").unwrap_or((name, ""));
            let text = fs::read_to_string(crates.join(file))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(
                text.contains(&format!("fn {test}")),
                "{name} does not exist"
            );
        }
    }
    assert_eq!(bugs, 48);
}
