//! The log: twemproxy's twelve levels and line format, written by a thread of its own.
//!
//! A line costs its caller one atomic load when its level is off; otherwise one formatting and a
//! place in a bounded queue. A full queue drops the line and counts it: a slow disk never holds up
//! a worker. The log thread alone writes, and reopens, the file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::SystemTime;

use jiff::{Timestamp, tz::TimeZone};

use crate::limits::{LOG_FLUSH_WAIT, LOG_LINE_LEN, LOG_QUEUE_LEN};
use crate::net::errno;
use crate::stderr;

/// How much a line matters; smaller matters more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Level {
    /// Shown whatever the level: start and end of the process, signals.
    Always = 0,
    /// Something failed that an operator must look at.
    Error = 3,
    /// Something is not as it should be, and the proxy goes on.
    Warning = 4,
    /// Normal but significant; the level without `-v`.
    Notice = 5,
    /// Connections that come and go.
    Info = 6,
}

/// The highest level, `-v 11`.
pub(crate) const LEVEL_MAX: u8 = 11;

/// Writes a line if its level is on: `log!(Level::Warning, "server '{name}' ejected")`.
macro_rules! log {
    ($level:expr, $($text:tt)+) => {
        if $crate::log::is_on($level) {
            $crate::log::write(file!(), line!(), format_args!($($text)+));
        }
    };
}
pub(crate) use log;

static LEVEL: Threshold = Threshold(AtomicU8::new(5));
static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUE: OnceLock<SyncSender<Record>> = OnceLock::new();

enum Record {
    Line {
        at: SystemTime,
        file: &'static str,
        line: u32,
        text: String,
    },
    /// A line of a signal: its time is not shown.
    SignalLine(String),
    Reopen,
    /// Everything before this is written when the answer comes.
    Flush(SyncSender<()>),
}

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Output {
    /// Standard error.
    Stderr,
    /// A file.
    File(PathBuf, File),
}

impl Output {
    /// Opens `-o`; without one, or with an empty one, lines go to standard error.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        match path {
            Some(path) if !path.as_os_str().is_empty() => {
                open_file(path).map(|file| Self::File(path.to_owned(), file))
            }
            _ => Ok(Self::Stderr),
        }
    }

    /// One write per line, so that lines of several processes in one file stay whole.
    fn write(&mut self, line: &[u8]) {
        // A log that cannot be written has nobody to be told.
        let _ = match self {
            Self::Stderr => io::stderr().write_all(line),
            Self::File(_, file) => file.write_all(line),
        };
    }

    /// Opens the file again; if that fails the old one, which was most likely renamed, stays, and
    /// the words say why.
    fn reopen(&mut self) -> Result<(), String> {
        let Self::File(path, file) = self else {
            return Ok(());
        };
        *file = open_file(path).map_err(|error| {
            let (path, text) = (path.display(), errno::text(&error));
            format!("reopening log file '{path}' failed, ignored: {text}")
        })?;
        Ok(())
    }
}

// The mode is explicit because a daemon's umask is 0.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o644)
        .open(path)
}

// compat: a signal handler could not ask for the time.
const SIGNAL_STAMP: &str = "[.......................]";

/// Starts the log thread. Lines written before are lost.
pub(crate) fn start(output: Output, level: u8) -> io::Result<()> {
    LEVEL.0.store(level.min(LEVEL_MAX), Ordering::Relaxed);
    let (sender, receiver) = sync_channel(LOG_QUEUE_LEN);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || Writer::new(output).run(&receiver))?;
    assert!(QUEUE.set(sender).is_ok(), "the log is started once");
    Ok(())
}

/// Whether lines of `level` are written.
#[inline]
pub(crate) fn is_on(level: Level) -> bool {
    LEVEL.admits(level)
}

/// Queues a line; called by [`log!`].
#[cold]
pub(crate) fn write(file: &'static str, line: u32, text: fmt::Arguments<'_>) {
    enqueue(Record::Line {
        at: SystemTime::now(),
        file,
        line,
        text: text.to_string(),
    });
}

/// Queues the line of a signal, whatever the level.
pub(crate) fn write_signal(text: String) {
    enqueue(Record::SignalLine(text));
}

/// One level more, up to [`LEVEL_MAX`]: the new level, if it changed.
pub(crate) fn level_up() -> Option<u8> {
    LEVEL.up()
}

/// One level less, down to 0: the new level, if it changed.
pub(crate) fn level_down() -> Option<u8> {
    LEVEL.down()
}

/// Opens the log file again, after it was rotated away.
pub(crate) fn reopen() {
    enqueue(Record::Reopen);
}

/// Waits until everything written so far has reached the output, within bounds.
pub(crate) fn flush() {
    let (done, waiter) = sync_channel(1);
    if let Some(queue) = QUEUE.get()
        && queue.try_send(Record::Flush(done)).is_ok()
    {
        // A log thread that is stuck must not hold up the end of the process.
        let _ = waiter.recv_timeout(LOG_FLUSH_WAIT);
    }
}

fn enqueue(record: Record) {
    if let Some(queue) = QUEUE.get()
        && queue.try_send(record).is_err()
    {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The highest level that is written.
struct Threshold(AtomicU8);

impl Threshold {
    fn admits(&self, level: Level) -> bool {
        level_number(level) <= self.0.load(Ordering::Relaxed)
    }

    fn up(&self) -> Option<u8> {
        self.change(|level| (level < LEVEL_MAX).then_some(level + 1))
    }

    fn down(&self) -> Option<u8> {
        self.change(|level| level.checked_sub(1))
    }

    fn change(&self, change: impl Fn(u8) -> Option<u8>) -> Option<u8> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, &change)
            .ok()
            .and_then(change)
    }
}

#[allow(clippy::as_conversions, reason = "the enum is repr(u8)")]
const fn level_number(level: Level) -> u8 {
    level as u8
}

/// The log thread's state.
struct Writer {
    output: Output,
    zone: TimeZone,
    line: String,
}

impl Writer {
    fn new(output: Output) -> Self {
        Self {
            output,
            zone: TimeZone::system(),
            line: String::new(),
        }
    }

    fn run(mut self, queue: &Receiver<Record>) {
        while let Ok(record) = queue.recv() {
            self.perform(record);
            let dropped = DROPPED.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let text = format!("{dropped} log lines dropped, the log was too slow");
                self.write_line(SystemTime::now(), file!(), line!(), &text);
            }
        }
    }

    fn perform(&mut self, record: Record) {
        match record {
            Record::Line {
                at,
                file,
                line,
                text,
            } => self.write_line(at, file, line, &text),
            Record::SignalLine(text) => self.write_signal_line(&text),
            Record::Reopen => {
                if let Err(text) = self.output.reopen() {
                    self.write_signal_line(&text);
                    stderr::say_briefly(format!("{SIGNAL_STAMP} {text}\n").into_bytes());
                }
            }
            // Whoever asked may have stopped waiting.
            Record::Flush(done) => _ = done.try_send(()),
        }
    }

    fn write_line(&mut self, at: SystemTime, file: &str, line: u32, text: &str) {
        self.line = format_line(at, &self.zone, file, line, text);
        self.finish_line();
    }

    fn write_signal_line(&mut self, text: &str) {
        self.line = format!("{SIGNAL_STAMP} {text}");
        self.finish_line();
    }

    fn finish_line(&mut self) {
        self.line
            .truncate(self.line.floor_char_boundary(LOG_LINE_LEN - 1));
        self.line.push('\n');
        self.output.write(self.line.as_bytes());
    }
}

fn format_line(at: SystemTime, zone: &TimeZone, file: &str, line: u32, text: &str) -> String {
    let at = Timestamp::try_from(at).unwrap_or_default();
    let local = zone.to_datetime(at);
    let name = file.rsplit('/').next().unwrap_or(file);
    format!(
        "[{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}] {name}:{line} {text}",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute(),
        local.second(),
        local.millisecond(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    // C21
    #[test]
    fn a_line_has_the_originals_format() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_042);
        let line = format_line(at, &TimeZone::UTC, "crates/proxy/src/worker.rs", 7, "hello");
        assert_eq!(line, "[2023-11-14 22:13:20.042] worker.rs:7 hello");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let line = format_line(at, &east, "a.rs", 7, "hello");
        assert!(line.starts_with("[2023-11-15 00:13:20.042] "), "{line}");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = Writer::new(Output::open(Some(&path)).unwrap());
        writer.perform(Record::SignalLine("\u{e4}".repeat(400)));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\u{e4}\n"));
        assert!((LOG_LINE_LEN - 1..=LOG_LINE_LEN).contains(&text.len()));
    }

    #[test]
    fn a_rotated_file_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = Writer::new(Output::open(Some(&path)).unwrap());
        writer.perform(Record::SignalLine("one".into()));
        let old = directory.path().join("log.1");
        std::fs::rename(&path, &old).unwrap();
        writer.perform(Record::SignalLine("two".into()));
        writer.perform(Record::Reopen);
        writer.perform(Record::SignalLine("three".into()));
        let stamp = SIGNAL_STAMP;
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&old), format!("{stamp} one\n{stamp} two\n"));
        assert_eq!(read(&path), format!("{stamp} three\n"));
    }

    // C19
    #[test]
    fn levels_stop_at_both_ends() {
        let level = Threshold(AtomicU8::new(10));
        assert_eq!((level.up(), level.up()), (Some(LEVEL_MAX), None));
        assert!(level.admits(Level::Info));
        assert_eq!(level.down(), Some(10));
        while level.down().is_some() {}
        assert!(level.admits(Level::Always));
        assert!(!level.admits(Level::Error));
        assert_eq!(level.up(), Some(1));
    }
}
