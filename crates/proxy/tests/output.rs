//! Output that cannot be written holds up or ends no process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, PipeWriter, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// A directory with a configuration, and the proxy that was started in it.
struct Stage {
    dir: TempDir,
    child: Option<Child>,
}

impl Stage {
    fn new() -> Self {
        let dir = private_dir();
        let listen = dir.path().join("alpha.sock").display().to_string();
        let pool = PoolBuilder::new(POOL, ServerKind::Redis)
            .listen(&listen)
            .server_line("/nowhere/at/all:1 s0");
        let yaml = ConfigBuilder::new(dir.path()).pool(pool).yaml();
        fs::write(dir.path().join("n.yml"), yaml).unwrap();
        fs::write(dir.path().join("bad.yml"), "alpha:\n  nonsense: 1\n").unwrap();
        Self { dir, child: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the proxy and waits until it serves.
    fn start(&mut self, command: &mut Command, stderr: impl Into<Stdio>) {
        let command = command
            .args([
                "-c",
                "n.yml",
                "-a",
                self.path("stats.sock").to_str().unwrap(),
            ])
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(stderr);
        self.child = Some(command.spawn().unwrap());
        wait_for("it listens", || Wire::unix(&self.path("alpha.sock")).ok());
        self.expect_alive();
    }

    fn expect_alive(&self) {
        let mut client = Wire::unix(&self.path("alpha.sock")).expect("it listens");
        client.roundtrip(PING, PONG);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it was started").id();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn expect_end(&mut self) {
        self.signal(Signal::TERM);
        let child = self.child.as_mut().expect("it was started");
        let status = wait_for("it ends", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }

    fn wait_said(&self, file: &str, text: &str) {
        wait_for(text, || {
            let said = fs::read_to_string(self.path(file)).ok()?;
            said.contains(text).then_some(())
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended if all went well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn broken_pipe() -> PipeWriter {
    pipe().unwrap().1
}

/// A pipe that takes no byte more, while its reader lives.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b'x'; 512]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn full_device() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

// D64
#[test]
fn hup_says_where_it_can_that_the_log_cannot_be_opened_again() {
    for stderr in [Stdio::from(broken_pipe()), Stdio::from(full_device())] {
        let mut stage = Stage::new();
        fs::create_dir(stage.path("logs")).unwrap();
        stage.start(Command::new(BINARY).args(["-o", "logs/log"]), stderr);
        fs::rename(stage.path("logs"), stage.path("old")).unwrap();
        stage.signal(Signal::HUP);
        let words = "[.......................] reopening log file 'logs/log' failed, ignored: \
                     No such file or directory\n";
        stage.wait_said("old/log", words);
        stage.expect_alive();
        // The old file stays in use until the next one can be made.
        stage.signal(Signal::USR1);
        stage.wait_said("old/log", "signal 10 (SIGUSR1) received\n");
        fs::create_dir(stage.path("logs")).unwrap();
        stage.signal(Signal::HUP);
        wait_for("a new log", || {
            stage.path("logs/log").exists().then_some(())
        });
        stage.signal(Signal::USR2);
        stage.wait_said("logs/log", "signal 12 (SIGUSR2) received\n");
        stage.expect_end();
    }
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_nothing() {
    let mut stage = Stage::new();
    let (_reader, writer) = full_pipe();
    stage.start(Command::new(BINARY).args(["-v", "11"]), writer);
    for _ in 0..10 {
        stage.expect_alive();
    }
    stage.expect_end();

    // The same with a log: the line that fits nowhere must not hold up the log's thread.
    let mut stage = Stage::new();
    let (_reader, writer) = full_pipe();
    fs::create_dir(stage.path("logs")).unwrap();
    stage.start(Command::new(BINARY).args(["-o", "logs/log"]), writer);
    fs::rename(stage.path("logs"), stage.path("old")).unwrap();
    for _ in 0..8 {
        stage.signal(Signal::HUP);
        stage.expect_alive();
    }
    stage.wait_said("old/log", "reopening log file 'logs/log' failed");
    fs::create_dir(stage.path("logs")).unwrap();
    stage.signal(Signal::HUP);
    wait_for("a new log", || {
        stage.path("logs/log").exists().then_some(())
    });
    stage.expect_end();
}

#[test]
fn a_log_at_the_limit_of_its_size_ends_nothing() {
    let mut stage = Stage::new();
    let script = format!("ulimit -f 0; exec {BINARY} -o log \"$@\"");
    let mut command = Command::new("sh");
    stage.start(command.args(["-c", &script, "sh"]), Stdio::null());
    stage.signal(Signal::HUP);
    stage.expect_alive();
    assert_eq!(fs::read(stage.path("log")).unwrap(), b"");
    stage.expect_end();
}

/// The exit status of a command that ends by itself, whatever its output is.
fn status(dir: &Path, args: &[&str], output: impl Fn() -> Stdio) -> Option<i32> {
    let mut child = Command::new(BINARY)
        .args(args)
        .current_dir(dir)
        .stdout(output())
        .stderr(output())
        .spawn()
        .unwrap();
    wait_for("it ends", || child.try_wait().unwrap()).code()
}

#[test]
fn commands_without_an_output_keep_their_status() {
    let stage = Stage::new();
    let stats = stage.path("stats.sock").display().to_string();
    let commands: [(&[&str], i32); 9] = [
        (&["-h"], 0),
        (&["-V"], 0),
        (&["-D"], 0),
        (&["-t", "-c", "n.yml"], 0),
        (&["-t", "-c", "bad.yml"], 1),
        (&["--nonsense"], 1),
        (&["-o", "nowhere/log"], 1),
        (&["-c", "bad.yml", "-a", &stats], 1),
        (&["-d", "-c", "bad.yml", "-a", &stats], 1),
    ];
    let dir = stage.dir.path();
    for (args, want) in commands {
        let broken = status(dir, args, || broken_pipe().into());
        assert_eq!(broken, Some(want), "{args:?} into a broken pipe");
        let full = status(dir, args, || full_device().into());
        assert_eq!(full, Some(want), "{args:?} onto a full device");
        let closed = Command::new("sh")
            .args(["-c", "exec \"$@\" >&- 2>&-", "sh", BINARY])
            .args(args)
            .current_dir(dir)
            .status()
            .unwrap();
        assert_eq!(closed.code(), Some(want), "{args:?} with nothing open");
    }
}
