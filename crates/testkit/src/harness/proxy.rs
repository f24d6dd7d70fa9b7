//! The proxy's binary.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::{ConfigBuilder, Process, wait_for};
use crate::wire::Wire;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    sockets: HashMap<String, PathBuf>,
    stats: PathBuf,
    log: PathBuf,
}

impl Proxy {
    /// Writes the configuration, starts `binary` and waits until every pool and the statistics
    /// accept connections. That costs each of them one connection, which the statistics show.
    #[must_use]
    #[track_caller]
    pub fn start(binary: &str, dir: &Path, config: &ConfigBuilder, args: &[&str]) -> Self {
        let file = dir.join("nutcracker.yml");
        fs::write(&file, config.yaml()).expect("the test's directory is writable");
        let stats = dir.join("stats.sock");
        let log = dir.join("nutcracker.log");
        let mut command = Command::new(binary);
        command.arg("-c").arg(&file).arg("-o").arg(&log);
        command.arg("-a").arg(&stats).args(["-v", "6"]).args(args);
        let process = Process::spawn(&mut command, &dir.join("nutcracker.out"))
            .unwrap_or_else(|error| panic!("{binary}: {error}"));
        let mut proxy = Self {
            process,
            sockets: config.sockets().collect(),
            stats,
            log,
        };
        proxy.wait_ready();
        proxy
    }

    /// A new client of a pool.
    #[must_use]
    #[track_caller]
    pub fn connect(&self, pool: &str) -> Wire {
        Wire::unix(self.socket(pool)).expect("the proxy listens")
    }

    /// Where a pool listens.
    #[must_use]
    #[track_caller]
    pub fn socket(&self, pool: &str) -> &Path {
        &self.sockets[pool]
    }

    /// The statistics.
    #[must_use]
    #[track_caller]
    pub fn stats(&self) -> serde_json::Value {
        let bytes = Wire::unix(&self.stats)
            .expect("the statistics listen")
            .read_to_close();
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", crate::wire::escape(&bytes)))
    }

    /// One number of a pool's statistics, `["requests"]` or `["s0", "in_queue"]`.
    #[must_use]
    #[track_caller]
    pub fn stat(&self, pool: &str, path: &[&str]) -> i64 {
        let stats = self.stats();
        let mut value = &stats[pool];
        for name in path {
            value = &value[name];
        }
        value
            .as_i64()
            .unwrap_or_else(|| panic!("{pool} has no number {path:?} in {stats}"))
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log has this text. Lines are written by a thread of its own: what was logged
    /// before something else happened need not be in the file when that is seen.
    #[track_caller]
    pub fn wait_logged(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }

    /// `SIGTERM`, then its exit status.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop()
    }

    /// The process, for signals.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Resident memory in KiB.
    #[must_use]
    #[track_caller]
    pub fn resident_kib(&self) -> u64 {
        self.process.resident_kib()
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let mut waiting: Vec<PathBuf> = self.sockets.values().cloned().collect();
        waiting.push(self.stats.clone());
        wait_for("the proxy listens", || {
            if let Some(status) = self.process.ended() {
                panic!(
                    "the proxy ended with {status}\n{}\n{}",
                    self.process.output(),
                    self.log()
                );
            }
            waiting.retain(|socket| Wire::unix(socket).is_err());
            waiting.is_empty().then_some(())
        });
    }
}

impl Drop for Proxy {
    /// A failing test shows the proxy's last words.
    fn drop(&mut self) {
        const SHOWN: usize = 40;
        if std::thread::panicking() {
            let said = format!("{}{}", self.process.output(), self.log());
            let lines: Vec<&str> = said.lines().collect();
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                eprintln!("proxy: {line}");
            }
        }
    }
}
