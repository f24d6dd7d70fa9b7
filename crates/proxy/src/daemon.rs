//! Life as a daemon: leaving the terminal, and the pid file.
//!
//! [`detach`] runs before any thread exists; it holds unsafe code (`fork`), as `memory.rs` does (`malloc_trim`); nothing else does. The
//! command that started the daemon waits until the daemon is up, or says why it is not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use thiserror::Error;

use crate::limits::PID_FILE_TRIES;
use crate::net::errno;

/// The daemon's ties to the command that started it: a line to it, and its umask.
#[derive(Debug)]
pub(crate) struct Report {
    pipe: File,
    umask: Mode,
}

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
    let umask = umask(Mode::empty());
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(Detached::Daemon(Report {
        pipe: File::from(write_end),
        umask,
    }))
}

impl Report {
    /// The mode of a socket file that follows the command's umask.
    pub(crate) fn socket_mode(&self) -> u32 {
        0o777 & !self.umask.as_raw_mode()
    }

    /// The daemon serves.
    pub(crate) fn up(mut self) {
        // The command may have been killed; the daemon goes on without it.
        let _ = self.pipe.write_all(UP);
    }

    /// The daemon could not start.
    pub(crate) fn failed(mut self, reason: &str) {
        // The command may have been killed; the log has the reason, too.
        let _ = self.pipe.write_all(reason.as_bytes());
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

/// The file that names this process, locked for as long as the process lives.
///
/// It is claimed before anything else is opened and written when all else is done, so that a
/// start that fails in between leaves it as it was.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
}

/// Why the pid file cannot be had, in the original's words.
#[derive(Debug, Error)]
#[error("{step} pid file '{}' failed: {}", path.display(), errno::text(.error))]
pub(crate) struct PidFileError {
    step: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl PidFile {
    /// Makes and locks the file without changing what stands in it. A file that another process
    /// has locked is an error, with that process' number.
    pub(crate) fn claim(path: &Path) -> Result<Self, PidFileError> {
        let failed = |step, error| PidFileError {
            step,
            path: path.to_owned(),
            error,
        };
        for _ in 0..PID_FILE_TRIES {
            // The mode is explicit because a daemon's umask is 0.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .map_err(|error| failed("opening", error))?;
            let claimed = Self {
                path: path.to_owned(),
                file,
            };
            // A device is nobody's.
            if !claimed.is_regular() {
                return Ok(claimed);
            }
            let locked = flock(&claimed.file, FlockOperation::NonBlockingLockExclusive);
            if locked == Err(Errno::WOULDBLOCK) {
                return Err(failed("locking", claimed.holder()));
            }
            // A file system without locks must not prevent the start. A file that its last owner
            // removed between the opening and the locking is made again.
            if claimed.is_in_place() {
                return Ok(claimed);
            }
        }
        Err(failed("locking", io::ErrorKind::ResourceBusy.into()))
    }

    /// Writes this process' number, without a newline.
    pub(crate) fn write(&self) -> Result<(), PidFileError> {
        let number = own_pid();
        let written = self
            .file
            .write_all_at(number.as_bytes(), 0)
            .and_then(|()| self.cut(number.len()));
        written.map_err(|error| {
            // Half a number must not be taken for a whole one; an empty file goes with the end.
            let _ = self.cut(0);
            PidFileError {
                step: "write to",
                path: self.path.clone(),
                error,
            }
        })
    }

    /// Removes the file if it has our number or none. One that was not written, or that another
    /// process has written since, stays.
    pub(crate) fn remove(self) {
        let ours = |content: Vec<u8>| content.is_empty() || content == own_pid().as_bytes();
        if self.is_regular() && self.is_in_place() && fs::read(&self.path).is_ok_and(ours) {
            // A file that cannot be removed is stale; the process ends all the same.
            let _ = fs::remove_file(&self.path);
        }
    }

    fn cut(&self, len: usize) -> io::Result<()> {
        match self.is_regular() {
            true => self.file.set_len(u64::try_from(len).unwrap_or(0)),
            false => Ok(()),
        }
    }

    fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.is_file())
    }

    /// Whether the path still leads to the file that is open.
    fn is_in_place(&self) -> bool {
        let (Ok(open), Ok(found)) = (self.file.metadata(), fs::metadata(&self.path)) else {
            return false;
        };
        (open.dev(), open.ino()) == (found.dev(), found.ino())
    }

    fn holder(&self) -> io::Error {
        let number = fs::read(&self.path).unwrap_or_default();
        match twemproxy_config::number(number.trim_ascii()) {
            Some(number) => io::Error::other(format!("process {number} runs with it")),
            None => io::Error::other("another process starts with it"),
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
        let file = PidFile::claim(&path).unwrap();
        file.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own_pid());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o133, 0, "0644, less what the umask takes");
        file.remove();
        assert!(!path.exists());

        fs::write(&path, "a longer content of old").unwrap();
        let file = PidFile::claim(&path).unwrap();
        file.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own_pid());
    }

    #[test]
    fn the_pid_file_of_a_successor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let file = PidFile::claim(&path).unwrap();
        file.write().unwrap();
        fs::write(&path, "1").unwrap();
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");

        let file = PidFile::claim(&path).unwrap();
        file.write().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, own_pid()).unwrap();
        file.remove();
        assert!(path.exists(), "another file of the same name");
    }

    #[test]
    fn a_pid_file_that_was_claimed_and_not_written_stays_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        PidFile::claim(&path).unwrap().remove();
        assert!(!path.exists(), "it was made for nothing");
        fs::write(&path, "1").unwrap();
        PidFile::claim(&path).unwrap().remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
    }

    // D65
    #[test]
    fn a_pid_file_belongs_to_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let refused = || PidFile::claim(&path).unwrap_err().to_string();
        let name = path.display();
        let first = PidFile::claim(&path).unwrap();
        let words = "another process starts with it";
        assert_eq!(
            refused(),
            format!("locking pid file '{name}' failed: {words}")
        );
        first.write().unwrap();
        let words = format!("process {} runs with it", own_pid());
        assert_eq!(
            refused(),
            format!("locking pid file '{name}' failed: {words}")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), own_pid());
        drop(first);
        PidFile::claim(&path).unwrap().write().unwrap();
    }

    #[test]
    fn a_device_as_pid_file_is_shared_and_stays() {
        let null = Path::new("/dev/null");
        let (first, second) = (PidFile::claim(null).unwrap(), PidFile::claim(null).unwrap());
        first.write().unwrap();
        second.write().unwrap();
        first.remove();
        assert!(null.exists());
        let full = PidFile::claim(Path::new("/dev/full")).unwrap();
        assert_eq!(
            full.write().unwrap_err().to_string(),
            "write to pid file '/dev/full' failed: No space left on device"
        );
    }

    #[test]
    fn a_pid_file_that_cannot_be_opened_is_worded_as_ever() {
        let error = PidFile::claim(Path::new("/nonexistent/pid")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "opening pid file '/nonexistent/pid' failed: No such file or directory"
        );
    }

    #[test]
    fn the_command_learns_how_the_start_went() {
        let report = |send: fn(Report)| {
            let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            send(Report {
                pipe: File::from(write_end),
                umask: Mode::from(0o027),
            });
            await_report(File::from(read_end))
        };
        assert_eq!(report(Report::up), Ok(()));
        assert_eq!(report(|r| r.failed("why")), Err("why".to_owned()));
        assert!(report(drop).unwrap_err().contains("before it was up"));
        let mode = |r: Report| {
            let mode = format!("{:o}", r.socket_mode());
            r.failed(&mode);
        };
        assert_eq!(report(mode), Err("750".to_owned()));
    }
}
