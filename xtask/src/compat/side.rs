//! Running one of the two proxies: to its end with a deadline, or as a server.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::verdict::NO_CONNECTION;

/// How long anything may take before it is cut off and told so.
const DEADLINE: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(1);

/// One of the two proxies.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) binary: PathBuf,
}

/// Everything that a finished run left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub(super) status: String,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Said {
    /// Everything, for comparing.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let head = format!("{}\n", self.status);
        [head.as_bytes(), &self.stdout, b"|", &self.stderr].concat()
    }
}

impl Side {
    /// Runs the binary in `dir` until it ends. One that does not end is killed, which is its status.
    pub(super) fn run(&self, dir: &Path, args: &[&str]) -> Said {
        let (out, err) = (dir.join("run.out"), dir.join("run.err"));
        let mut child = spawn(&self.binary, dir, args, &out, &err);
        let status = match wait(&mut child.0) {
            Some(status) => status.code().map_or_else(
                || "killed by a signal".to_owned(),
                |code| format!("exit {code}"),
            ),
            None => "does not end".to_owned(),
        };
        drop(child);
        Said {
            status,
            stdout: fs::read(out).unwrap_or_default(),
            stderr: fs::read(err).unwrap_or_default(),
        }
    }

    /// Starts the binary on a configuration and waits until its last socket listens.
    pub(super) fn serve(
        &self,
        dir: &Path,
        yaml: &str,
        sockets: &[PathBuf],
    ) -> Result<Running, String> {
        fs::write(dir.join("c.yml"), yaml).map_err(|error| error.to_string())?;
        let stats = dir.join("stats.sock");
        let address = stats.display().to_string();
        let args = ["-c", "c.yml", "-o", "c.log", "-a", &address, "-i", "5"];
        let child = spawn(
            &self.binary,
            dir,
            &args,
            &dir.join("run.out"),
            &dir.join("run.err"),
        );
        let mut running = Running {
            child,
            stats,
            dir: dir.to_path_buf(),
        };
        let until = Instant::now() + DEADLINE;
        loop {
            let ready = |socket: &PathBuf| UnixStream::connect(socket).is_ok();
            if sockets.iter().chain([&running.stats]).all(ready) {
                return Ok(running);
            }
            if running.ended() || Instant::now() > until {
                return Err(format!(
                    "{} does not listen: {}",
                    self.binary.display(),
                    running.log()
                ));
            }
            std::thread::park_timeout(POLL);
        }
    }
}

/// A proxy that serves; killed with its owner.
#[derive(Debug)]
pub(super) struct Running {
    child: Owned,
    stats: PathBuf,
    dir: PathBuf,
}

impl Running {
    /// Whether it has ended by itself.
    pub(super) fn ended(&mut self) -> bool {
        !matches!(self.child.0.try_wait(), Ok(None))
    }

    /// Its log, or what it wrote to standard error.
    pub(super) fn log(&self) -> String {
        let read = |name| fs::read(self.dir.join(name)).unwrap_or_default();
        let bytes = [read("run.err"), read("c.log")].concat();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The statistics as they come.
    pub(super) fn stats(&self) -> Vec<u8> {
        converse(&self.stats, b"")
    }

    /// Asks for the statistics until `settled` says yes to them; the last answer if it never does.
    pub(super) fn stats_when(&self, mut settled: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let text = String::from_utf8_lossy(&self.stats()).into_owned();
            if settled(&text) || Instant::now() > until {
                return text;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Everything a peer answers to `request` up to its close. The client closes its own half at once,
/// so that a peer which keeps connections open comes to an end too.
pub(super) fn converse(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => return format!("{NO_CONNECTION} {error}").into_bytes(),
    };
    let reader = stream.try_clone();
    let limits = stream
        .set_write_timeout(Some(DEADLINE))
        .and_then(|()| stream.set_read_timeout(Some(DEADLINE)));
    let (Ok(mut reader), Ok(())) = (reader, limits) else {
        return b"<the socket cannot be set up>".to_vec();
    };
    let request = request.to_vec();
    // A peer may close before it took everything: what it answered is what counts.
    let writer = std::thread::spawn(move || {
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(Shutdown::Write);
    });
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                answer.extend_from_slice(b"<stays open>");
                break;
            }
            Err(_reset) => break,
        }
    }
    let _ = reader.shutdown(Shutdown::Both);
    writer.join().expect("writing does not panic");
    answer
}

#[derive(Debug)]
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(binary: &Path, dir: &Path, args: &[&str], out: &Path, err: &Path) -> Owned {
    let file = |path| File::create(path).expect("the private directory is writable");
    let child = Command::new(binary)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(file(out))
        .stderr(file(err))
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    Owned(child)
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::park_timeout(POLL);
    }
}
