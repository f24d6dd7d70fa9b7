//! `gen-commands`: from what real servers answer to `COMMAND`, the redis command table of the core
//! and its page in `docs/`.
//!
//! The policy lives in `policy.rs`: which commands a sharding proxy can serve, and how. The inputs
//! are the answers of a redis and of a valkey; a command of either is known, the newer one's key
//! specification counts.

mod input;
mod policy;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use policy::Row;

const INPUTS: [&str; 2] = ["redis-7.0.json", "valkey-9.1.json"];
const TABLE: &str = "crates/core/src/proto/redis/commands_table.rs";
const PAGE: &str = "docs/commands-redis.md";

/// Writes both files.
pub(crate) fn generate() -> io::Result<()> {
    let rows = rows()?;
    for (path, text) in [(TABLE, write::table(&rows)), (PAGE, write::page(&rows))] {
        let path = root().join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn rows() -> io::Result<Vec<Row>> {
    let folder = root().join("crates/core/commands");
    let lists = INPUTS
        .iter()
        .map(|name| input::read(&folder.join(name)))
        .collect::<io::Result<Vec<_>>>()?;
    Ok(input::union(lists).iter().map(policy::row).collect())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_fresh() {
        let rows = rows().unwrap();
        for (path, text) in [(TABLE, write::table(&rows)), (PAGE, write::page(&rows))] {
            let committed = std::fs::read_to_string(root().join(path)).unwrap();
            assert!(
                committed == text,
                "{path} is stale: run `cargo xtask gen-commands`"
            );
        }
    }
}
