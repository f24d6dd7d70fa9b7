//! A child process that does not outlive its owner.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::wait_for;

/// A running child; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error in the file `output`.
    ///
    /// # Errors
    /// Those of `fork` and `exec`, above all `NotFound`.
    pub(super) fn spawn(command: &mut Command, output: &Path) -> io::Result<Self> {
        let out = File::create(output)?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        die_with_parent(command);
        Ok(Self {
            child: command.spawn()?,
            output: output.to_path_buf(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output and error so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the process ends", || self.ended())
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.rustix_pid(), signal).expect("the child has not been reaped");
    }

    /// `SIGTERM`, then its exit status.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// `SIGKILL`, and waits.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `SIGSTOP`: it stays connected and says nothing.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// `SIGCONT`.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Resident memory in KiB.
    #[must_use]
    #[track_caller]
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the child has not been reaped");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .and_then(|number| number.trim().parse().ok())
            .expect("a live process has a VmRSS line")
    }

    fn rustix_pid(&self) -> Pid {
        let raw = i32::try_from(self.pid()).expect("process ids are positive");
        Pid::from_raw(raw).expect("no child has id 0")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has the kernel kill the child when the thread that started it ends: a test that is killed leaves
/// nothing behind. Children must therefore be started by the thread that keeps them.
#[allow(
    unsafe_code,
    reason = "the signal must be asked for between fork and exec"
)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes one
    // system call (prctl), touches no memory of the parent, takes no lock and allocates nothing:
    // the error, if any, is a bare number.
    unsafe {
        command.pre_exec(|| {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|errno| io::Error::from_raw_os_error(errno.raw_os_error()))
        });
    }
}
