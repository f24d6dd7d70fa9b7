//! Does each module depend only on those above it in the list of `lib.rs`?

use std::fs;
use std::path::{Path, PathBuf};

/// Modules without a row: small tools of the crate.
const TOOLS: [&str; 4] = ["canary", "num", "slab", "words"];

/// The modules in the order of the list; those of one row in the order in which they stand.
fn listed(lib: &str) -> Vec<&str> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ["));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells
        .flat_map(|cell| cell.split(['`', '[', ']', ',', ' ']))
        .filter(|word| !word.is_empty())
        .collect()
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        return found.push(path.to_owned());
    }
    for entry in fs::read_dir(path).expect("it can be listed") {
        sources(&entry.expect("it can be listed").path(), found);
    }
}

/// The modules that a file names in its code.
fn named(text: &str) -> Vec<&str> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let paths = code.flat_map(|line| line.split("crate::").skip(1));
    paths
        .map(|path| {
            let end = path.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            &path[..end.unwrap_or(path.len())]
        })
        .collect()
}

#[test]
fn each_module_depends_only_on_those_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).expect("it is there");
    let order = listed(&lib);
    let modules = lib.lines().filter_map(|line| {
        let name = line.trim_start_matches("pub ").strip_prefix("mod ")?;
        name.strip_suffix(';')
    });
    for module in modules.clone() {
        let known = order.contains(&module) || TOOLS.contains(&module);
        assert!(known, "{module} has no row in lib.rs");
    }
    for (place, module) in order.iter().enumerate() {
        let mut files = Vec::new();
        match src.join(module) {
            folder if folder.is_dir() => sources(&folder, &mut files),
            _ => files.push(src.join(format!("{module}.rs"))),
        }
        for file in files {
            let text = fs::read_to_string(&file).expect("it is there");
            for name in named(&text) {
                let fine = order[..=place].contains(&name) || TOOLS.contains(&name);
                assert!(
                    fine,
                    "{} names {name}, which stands below {module}",
                    file.display()
                );
            }
        }
    }
}
