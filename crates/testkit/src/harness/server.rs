//! redis-server and memcached on unix sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Process, wait_for};
use crate::wire::Wire;

/// Which server program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerKind {
    /// `redis-server`, or what `REDIS_SERVER` names: valkey too is asked as redis then.
    Redis,
    /// `memcached`, or what `MEMCACHED_SERVER` names.
    Memcached,
    /// `valkey-server`, or what `VALKEY_SERVER` names; the `need_valkey` of `scripts/lib.sh` sets it.
    Valkey,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    kind: ServerKind,
    name: String,
    socket: PathBuf,
    args: Vec<String>,
}

impl Server {
    /// Starts a server that listens on `dir/name.sock` and waits until it answers. `None`: the
    /// program is not installed, which was printed; with `CI=true` in the environment that is a
    /// failure.
    #[must_use]
    #[track_caller]
    pub fn start(kind: ServerKind, dir: &Path, name: &str, args: &[&str]) -> Option<Self> {
        let socket = dir.join(format!("{name}.sock"));
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let process = match launch(kind, &socket, &args) {
            Ok(process) => process,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let required = std::env::var_os("CI").is_some_and(|ci| ci == "true");
                assert!(!required, "{} is not installed", program(kind));
                eprintln!("skipped: {} is not installed", program(kind));
                return None;
            }
            Err(error) => panic!("{}: {error}", program(kind)),
        };
        let mut server = Self {
            process,
            kind,
            name: name.to_owned(),
            socket,
            args,
        };
        server.wait_ready();
        Some(server)
    }

    /// Kills it and starts an empty one on the same socket.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.kill();
        self.process =
            launch(self.kind, &self.socket, &self.args).expect("it could be started before");
        self.wait_ready();
    }

    /// A new connection to it.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Wire {
        Wire::unix(&self.socket).expect("the server listens")
    }

    /// The process, for signals.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its name in the configuration file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        wait_for("the server listens", || {
            if let Some(status) = self.process.ended() {
                panic!(
                    "{} ended with {status}: {}",
                    self.name,
                    self.process.output()
                );
            }
            Wire::unix(&self.socket).ok()
        });
    }
}

/// The program of this kind: the one that the variable names, else the installed one.
fn program(kind: ServerKind) -> String {
    let (variable, installed) = match kind {
        ServerKind::Redis => ("REDIS_SERVER", "redis-server"),
        ServerKind::Memcached => ("MEMCACHED_SERVER", "memcached"),
        ServerKind::Valkey => ("VALKEY_SERVER", "valkey-server"),
    };
    std::env::var(variable).unwrap_or_else(|_| installed.to_owned())
}

fn launch(kind: ServerKind, socket: &Path, args: &[String]) -> io::Result<Process> {
    // A predecessor that was killed leaves its socket behind; memcached refuses to start then.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut command = Command::new(program(kind));
    match kind {
        ServerKind::Redis | ServerKind::Valkey => {
            command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
            command.arg("--unixsocket").arg(socket);
            command.arg("--dir").arg(socket.parent().expect("absolute"));
        }
        ServerKind::Memcached => {
            command.arg("-s").arg(socket).args(["-U", "0", "-t", "1"]);
            if rustix::process::geteuid().is_root() {
                command.args(["-u", "root"]);
            }
        }
    }
    command.args(args);
    Process::spawn(&mut command, &socket.with_extension("out"))
}
