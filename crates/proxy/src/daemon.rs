//! Life as a daemon: leaving the terminal, and the pid file.
//!
//! [`detach`] runs before any thread exists; it holds unsafe code (`fork`), as `memory.rs` does (`malloc_trim`); nothing else does. The
//! command that started the daemon waits until the daemon is up, or says why it is not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use thiserror::Error;

use crate::net::errno;

/// The daemon's line to the command that started it.
#[derive(Debug)]
pub(crate) struct Report(File);

/// Which process came back from [`detach`].
#[derive(Debug)]
pub(crate) enum Detached {
    /// The command: the daemon is up, or failed with this text.
    Command(Result<(), String>),
    /// The daemon.
    Daemon(Report),
}

/// Sent by the daemon once it is up; everything else is a reason for failure.
const UP: &[u8] = b"\0";

/// Goes on in the background: new session, no terminal, umask 0, standard streams to `/dev/null`.
/// The working directory is kept.
///
/// Must be called before any thread is started.
pub(crate) fn detach() -> io::Result<Detached> {
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
    if fork()? == Side::Parent {
        drop(write_end);
        return Ok(Detached::Command(await_report(File::from(read_end))));
    }
    drop(read_end);
    setsid()?;
    // Not the leader of the session, the daemon can never get a terminal again.
    if fork()? == Side::Parent {
        process::exit(0);
    }
    umask(Mode::empty());
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(Detached::Daemon(Report(File::from(write_end))))
}

impl Report {
    /// The daemon serves.
    pub(crate) fn up(mut self) {
        // The command may have been killed; the daemon goes on without it.
        let _ = self.0.write_all(UP);
    }

    /// The daemon could not start.
    pub(crate) fn failed(mut self, reason: &str) {
        // The command may have been killed; the log has the reason, too.
        let _ = self.0.write_all(reason.as_bytes());
    }
}

fn await_report(mut pipe: File) -> Result<(), String> {
    let mut report = Vec::new();
    match pipe.read_to_end(&mut report) {
        Ok(_) if report == UP => Ok(()),
        Ok(0) => Err("the daemon ended before it was up".to_owned()),
        Ok(_) => Err(String::from_utf8_lossy(&report).into_owned()),
        Err(error) => Err(errno::text(&error)),
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Side {
    Parent,
    Child,
}

#[allow(unsafe_code, reason = "no crate offers fork as a safe call")]
fn fork() -> io::Result<Side> {
    // SAFETY: fork has no memory preconditions. What follows in the child is only limited when
    // other threads exist, and the caller has not started any.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        _ => Ok(Side::Parent),
    }
}

/// The file that names this process.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

/// Why the pid file cannot be written, in the original's words.
#[derive(Debug, Error)]
#[error("{step} pid file '{}' failed: {}", path.display(), errno::text(.error))]
pub(crate) struct PidFileError {
    step: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl PidFile {
    /// Writes this process' number, without a newline.
    pub(crate) fn write(path: &Path) -> Result<Self, PidFileError> {
        let failed = |step| {
            move |error| PidFileError {
                step,
                path: path.to_owned(),
                error,
            }
        };
        // The mode is explicit because a daemon's umask is 0.
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(path)
            .map_err(failed("opening"))?;
        file.write_all(own_pid().as_bytes())
            .map_err(failed("write to"))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Removes the file, unless another process has written its own number since.
    pub(crate) fn remove(self) {
        if fs::read(&self.path).is_ok_and(|content| content == own_pid().as_bytes()) {
            // A file that cannot be removed is stale; the process ends all the same.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn own_pid() -> String {
    process::id().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    // C15
    #[test]
    fn the_pid_file_holds_the_bare_number_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "a longer content of old").unwrap();
        fs::remove_file(&path).unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own_pid());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o133, 0, "0644, less what the umask takes");
        file.remove();
        assert!(!path.exists());
    }

    #[test]
    fn the_pid_file_of_a_successor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1").unwrap();
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
    }

    #[test]
    fn a_pid_file_that_cannot_be_opened_is_worded_as_ever() {
        let error = PidFile::write(Path::new("/nonexistent/pid")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "opening pid file '/nonexistent/pid' failed: No such file or directory"
        );
    }

    #[test]
    fn the_command_learns_how_the_start_went() {
        let report = |send: fn(Report)| {
            let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            send(Report(File::from(write_end)));
            await_report(File::from(read_end))
        };
        assert_eq!(report(Report::up), Ok(()));
        assert_eq!(report(|r| r.failed("why")), Err("why".to_owned()));
        assert!(report(drop).unwrap_err().contains("before it was up"));
    }
}
