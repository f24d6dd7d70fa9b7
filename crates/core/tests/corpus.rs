//! Every input that a fuzzer starts from or once tripped over, through the same functions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use twemproxy_testkit::fuzz::{TARGETS, Target, seed_name};

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target.name)
}

fn files(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("{}: {error}", folder(target).display()));
    entries
        .map(|entry| {
            let path = entry.expect("the corpus can be listed").path();
            let bytes = fs::read(&path).expect("the corpus can be read");
            (path, bytes)
        })
        .collect()
}

#[test]
fn every_input_of_the_corpus_passes() {
    for target in &TARGETS {
        let files = files(target);
        assert!(!files.is_empty(), "{} has a corpus", target.name);
        for (path, bytes) in files {
            // Named before it runs: a panic's message is about bytes, not about files.
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

/// `UPDATE_CORPUS=1` writes the seeds of new transcripts.
#[test]
fn the_corpus_holds_the_seeds() {
    for target in &TARGETS {
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::create_dir_all(folder(target)).unwrap();
            for seed in (target.seeds)() {
                fs::write(folder(target).join(seed_name(&seed)), seed).unwrap();
            }
        }
        let held: BTreeSet<Vec<u8>> = files(target).into_iter().map(|(_, bytes)| bytes).collect();
        let missing = (target.seeds)()
            .into_iter()
            .filter(|seed| !held.contains(seed));
        assert_eq!(
            missing.count(),
            0,
            "{}: run with UPDATE_CORPUS=1",
            target.name
        );
    }
}

#[test]
fn every_target_is_one_line_in_the_fuzz_crate() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let on_disk: BTreeSet<String> = fs::read_dir(targets)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let named = TARGETS.iter().map(|target| format!("{}.rs", target.name));
    assert_eq!(on_disk, named.collect());
}
