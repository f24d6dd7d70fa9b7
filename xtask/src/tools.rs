//! Code that the verbs share: places, builds, failures.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a verb has no result: a sentence for the person who started it.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// The result of a verb's fallible functions.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn during(doing: &str, path: &Path, error: &impl fmt::Display) -> Self {
        Self(format!("{doing} {}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A program of the release build.
pub(crate) fn release(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Builds the proxy and everything that measures it, always with the same command: another choice of packages could
/// change the features of a dependency, and with them the code that is measured.
pub(crate) fn build_release() -> Outcome<()> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--locked",
            "-p",
            "twemproxy",
            "-p",
            "twemproxy-bench",
        ])
        .current_dir(root())
        .status()
        .map_err(|error| Failure::new(format!("starting cargo: {error}")))?;
    if built.success() {
        Ok(())
    } else {
        Err(Failure::new("the release build failed"))
    }
}
