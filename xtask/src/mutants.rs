//! `mutants`: one-line changes to the core that its tests must notice.
//!
//! Each mutant is one line of `crates/core/src/{proto,engine}` changed as text. It is built and tested in a copy
//! of the sources under `target/mutants`, which keeps its own build between runs. A mutant that the compiler
//! refuses says nothing and is drawn again; one that no test notices is a survivor.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::child;
use crate::tools::{Failure, Outcome, root, target};

/// Folders of the files that are changed.
const SOURCES: [&str; 2] = ["crates/core/src/proto", "crates/core/src/engine"];
/// Folders that are needed to build the tests of the core.
const COPIED: [&str; 6] = ["crates", "bench", "xtask", "docs", "conf", "fuzz"];
const COPIED_FILES: [&str; 4] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "clippy.toml",
];
/// A mutant may make a test run for ever: it is noticed then, too.
const TEST_TIME: Duration = Duration::from_secs(300);
const BUILD_TIME: Duration = Duration::from_secs(1_200);

/// Texts within a line and what stands there instead. The first that matches at a place is taken.
const SWAPS: [(&str, &str); 20] = [
    (" == ", " != "),
    (" != ", " == "),
    (" <= ", " < "),
    (" >= ", " > "),
    (" < ", " <= "),
    (" > ", " >= "),
    (" && ", " || "),
    (" || ", " && "),
    (" + 1", ""),
    (" - 1", ""),
    (" += ", " -= "),
    (" -= ", " += "),
    ("true", "false"),
    ("false", "true"),
    ("if !", "if "),
    (".is_empty()", ".is_empty() == false"),
    (".is_some_and(", ".is_none_or("),
    (".is_none_or(", ".is_some_and("),
    (".min(", ".max("),
    (".max(", ".min("),
];

/// One change of one line.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mutant {
    /// From the top of the repository.
    file: PathBuf,
    /// Counted from 1.
    line: usize,
    was: String,
    is: String,
}

/// The wishes of a run.
#[derive(Debug)]
struct Wishes {
    sample: usize,
    seed: u64,
    filter: String,
    only_lists: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// The compiler refused it.
    Unbuildable,
    /// A test failed, or did not end.
    Noticed,
    Survived,
}

/// Runs a sample of all mutants: `[--sample N] [--seed N] [--file TEXT] [--list]`.
///
/// # Errors
/// Wrong arguments, tests that fail without a mutant, or survivors.
pub(crate) fn mutants(args: impl Iterator<Item = String>) -> Outcome<()> {
    let wishes = parse(args)?;
    let mut all = all_mutants(&wishes.filter)?;
    shuffle(&mut all, wishes.seed);
    println!("{} mutants, a sample of {}", all.len(), wishes.sample);
    if wishes.only_lists {
        all.iter().take(wishes.sample).for_each(tell);
        return Ok(());
    }
    let bench = Bench::set_up()?;
    if bench.fate()? != Fate::Survived {
        return Err(Failure::new("the tests fail without a mutant"));
    }
    let (mut noticed, mut survivors) = (0, Vec::new());
    for mutant in all {
        if noticed + survivors.len() == wishes.sample {
            break;
        }
        let begun = Instant::now();
        let fate = bench.try_out(&mutant)?;
        println!("{fate:?} after {} s:", begun.elapsed().as_secs());
        tell(&mutant);
        match fate {
            Fate::Unbuildable => {}
            Fate::Noticed => noticed += 1,
            Fate::Survived => survivors.push(mutant),
        }
    }
    println!("{noticed} noticed, {} survived", survivors.len());
    survivors.iter().for_each(tell);
    if survivors.is_empty() {
        Ok(())
    } else {
        Err(Failure::new("no test notices the mutants above"))
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Outcome<Wishes> {
    let mut wishes = Wishes {
        sample: 30,
        seed: 1,
        filter: String::new(),
        only_lists: false,
    };
    while let Some(arg) = args.next() {
        if arg == "--list" {
            wishes.only_lists = true;
            continue;
        }
        let value = args.next();
        let value = value.ok_or_else(|| Failure::new(format!("{arg} wants a value")))?;
        let number = || {
            let parsed = value.parse::<u64>();
            parsed.map_err(|_| Failure::new(format!("{arg}: '{value}' is no number")))
        };
        match arg.as_str() {
            "--sample" => wishes.sample = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--seed" => wishes.seed = number()?,
            "--file" => wishes.filter = value,
            _ => return Err(Failure::new(format!("{arg} is no option of mutants"))),
        }
    }
    Ok(wishes)
}

fn tell(mutant: &Mutant) {
    let Mutant {
        file,
        line,
        was,
        is,
    } = mutant;
    println!("{}:{line}", file.display());
    println!("  - {}", was.trim());
    println!("  + {}", is.trim());
}

fn all_mutants(filter: &str) -> Outcome<Vec<Mutant>> {
    let mut files = Vec::new();
    for folder in SOURCES {
        find(&root().join(folder), &mut files)?;
    }
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let file = path.strip_prefix(root()).unwrap_or(&path).to_owned();
        if file.to_string_lossy().contains(filter) {
            let text = read(&path)?;
            all.extend(mutants_of(&file, &text));
        }
    }
    Ok(all)
}

/// Source files, without those of tests.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Outcome<()> {
    for name in entries(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            find(&path, found)?;
        } else if name.to_string_lossy().ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    Ok(())
}

/// Every mutant of a file: of the lines before its tests that are neither comments nor assertions.
fn mutants_of(file: &Path, text: &str) -> Vec<Mutant> {
    let mut all = Vec::new();
    for (index, was) in text.lines().enumerate() {
        let code = was.trim_start();
        if code.starts_with("#[cfg(test)]") || code.contains("fn check_invariants") {
            break;
        }
        let is_code = ![
            "//",
            "#",
            "use ",
            "assert",
            "debug_assert",
            "pub use",
            "mod ",
        ]
        .iter()
        .any(|start| code.starts_with(start));
        if !is_code {
            continue;
        }
        let mut push = |is: String| {
            all.push(Mutant {
                file: file.to_owned(),
                line: index + 1,
                was: was.to_owned(),
                is,
            });
        };
        for (from, to) in SWAPS {
            for (at, _) in was.match_indices(from) {
                push(format!("{}{to}{}", &was[..at], &was[at + from.len()..]));
            }
        }
        if is_statement(code) {
            push(String::new());
        }
        if let Some(condition) = was.trim_end().strip_suffix(" {")
            && let Some((before, condition)) = condition.split_once("if ")
            && !condition.contains("let ")
        {
            push(format!("{before}if !({condition}) {{"));
        }
    }
    all
}

/// Whether the line is a statement of its own, without which the rest still builds.
fn is_statement(code: &str) -> bool {
    let starts = code.starts_with(|first: char| first.is_ascii_lowercase() || first == '*');
    let is_other = ["let ", "type ", "const ", "return", "pub ", "static "];
    starts
        && code.ends_with(';')
        && !is_other.iter().any(|start| code.starts_with(start))
        && code.matches('(').count() == code.matches(')').count()
}

/// The same order for the same seed.
fn shuffle(all: &mut [Mutant], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for place in (1..all.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let count = u64::try_from(place + 1).unwrap_or(u64::MAX);
        let other = usize::try_from(state % count).unwrap_or(0);
        all.swap(place, other);
    }
}

/// The copy in which mutants are built.
struct Bench {
    folder: PathBuf,
}

impl Bench {
    /// A copy of the sources as they are now; what was built there before stays.
    fn set_up() -> Outcome<Self> {
        let folder = target().join("mutants");
        fs::create_dir_all(&folder).map_err(|e| Failure::during("making", &folder, &e))?;
        let present = |name: &&str| root().join(name).exists();
        let files = COPIED_FILES.iter().copied().filter(present);
        let folders = COPIED.iter().copied().filter(present);
        for name in files.chain(folders) {
            mirror(&root().join(name), &folder.join(name))?;
        }
        Ok(Self { folder })
    }

    /// Puts a mutant into the copy, looks what becomes of it, and takes it out again.
    fn try_out(&self, mutant: &Mutant) -> Outcome<Fate> {
        let path = self.folder.join(&mutant.file);
        let text = read(&path)?;
        let mut lines: Vec<&str> = text.lines().collect();
        lines[mutant.line - 1] = &mutant.is;
        write(&path, &(lines.join("\n") + "\n"))?;
        let fate = self.fate();
        write(&path, &text)?;
        fate
    }

    /// The unit tests first: they are built soonest.
    fn fate(&self) -> Outcome<Fate> {
        for tests in ["--lib", "--tests"] {
            let built = child::finish(&mut self.cargo_test(&[tests, "--no-run"]), BUILD_TIME);
            let (is_built, ..) = built.map_err(Failure::new)?;
            if !is_built {
                return Ok(Fate::Unbuildable);
            }
            match child::finish(&mut self.cargo_test(&[tests]), TEST_TIME) {
                Ok((true, ..)) => {}
                Ok((false, ..)) | Err(_) => return Ok(Fate::Noticed),
            }
        }
        Ok(Fate::Survived)
    }

    /// The core's tests, up to the first program of them that fails.
    fn cargo_test(&self, choice: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["test", "--quiet", "--offline", "-p", "twemproxy-core"])
            .args(choice)
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            // Nobody looks where a mutant fails.
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        command
    }
}

/// Makes `to` like `from`. Files that are alike are not touched, so that they are not built again; a mutant
/// that an interrupted run left behind is not alike.
fn mirror(from: &Path, to: &Path) -> Outcome<()> {
    if !from.is_dir() {
        let bytes = fs::read(from).map_err(|e| Failure::during("reading", from, &e))?;
        if fs::read(to).is_ok_and(|present| present == bytes) {
            return Ok(());
        }
        return fs::write(to, bytes).map_err(|e| Failure::during("writing", to, &e));
    }
    fs::create_dir_all(to).map_err(|e| Failure::during("making", to, &e))?;
    for entry in entries(from)? {
        mirror(&from.join(&entry), &to.join(&entry))?;
    }
    for entry in entries(to)? {
        let (gone, copy) = (from.join(&entry), to.join(&entry));
        if !gone.exists() && copy.is_file() {
            fs::remove_file(&copy).map_err(|e| Failure::during("removing", &copy, &e))?;
        }
    }
    Ok(())
}

/// Names in a folder, without those of builds.
fn entries(folder: &Path) -> Outcome<Vec<OsString>> {
    let entries = fs::read_dir(folder).map_err(|e| Failure::during("reading", folder, &e))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name != "target").collect())
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|e| Failure::during("reading", path, &e))
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    fs::write(path, text).map_err(|e| Failure::during("writing", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &str) -> Vec<String> {
        let all = mutants_of(Path::new("a.rs"), text);
        all.into_iter().map(|mutant| mutant.is).collect()
    }

    #[test]
    fn a_line_is_changed_in_every_way_that_fits_it() {
        assert_eq!(
            lines_of("if a < b && c {"),
            ["if a <= b && c {", "if a < b || c {", "if !(a < b && c) {"]
        );
        assert_eq!(
            lines_of("x.end += len + 1;"),
            ["x.end += len;", "x.end -= len + 1;", ""]
        );
    }

    #[test]
    fn comments_assertions_and_tests_are_left_alone() {
        assert!(lines_of("// a == b\nassert!(a == b);\n#[cfg(test)]\nf(a == b);").is_empty());
    }

    #[test]
    fn the_order_is_the_seeds() {
        let text = "f(a == b);\n".repeat(20);
        let order = |seed| {
            let mut all = mutants_of(Path::new("a.rs"), &text);
            shuffle(&mut all, seed);
            all
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
