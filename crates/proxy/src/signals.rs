//! Signals, as messages to the supervisor.
//!
//! A thread of its own waits for them; no other thread sees one except as an interrupted system
//! call. `SIGPIPE` is ignored from the start by the Rust runtime, `SIGXFSZ` by [`catch`].

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::log;
use crate::mail::ToSupervisor;

/// The purpose of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// End the process.
    End,
    /// Open the log file again.
    ReopenLog,
    /// More log lines.
    LevelUp,
    /// Fewer log lines.
    LevelDown,
    /// Nothing but a log line.
    Nothing,
}

/// Number, name, request, and the end of the log line. The words are the original's, those of
/// `SIGTERM` are `SIGINT`'s.
const TABLE: &[(i32, &str, Request, &str)] = &[
    (SIGUSR1, "SIGUSR1", Request::Nothing, ""),
    (SIGUSR2, "SIGUSR2", Request::Nothing, ""),
    (SIGTTIN, "SIGTTIN", Request::LevelUp, ", up logging level"),
    (
        SIGTTOU,
        "SIGTTOU",
        Request::LevelDown,
        ", down logging level",
    ),
    (SIGHUP, "SIGHUP", Request::ReopenLog, ", reopening log file"),
    (SIGINT, "SIGINT", Request::End, ", exiting"),
    (SIGTERM, "SIGTERM", Request::End, ", exiting"),
];

/// Begins to catch signals. They wait in a pipe until the thread of [`forward`] runs.
pub(crate) fn catch() -> io::Result<Signals> {
    // A file at the limit of its size is an error of that write, and not the end of the process.
    flag::register(SIGXFSZ, Arc::default())?;
    Signals::new(TABLE.iter().map(|&(number, ..)| number))
}

/// Starts the thread that forwards signals for ever.
pub(crate) fn forward(mut signals: Signals, supervisor: Sender<ToSupervisor>) -> io::Result<()> {
    let forward = move || {
        for number in signals.forever() {
            if supervisor.send(ToSupervisor::Signal(number)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(forward)
        .map(drop)
}

/// Logs a signal and does what concerns the log alone; returns whether the process shall end.
pub(crate) fn handle(number: i32) -> bool {
    let Some(&(_, name, request, suffix)) = TABLE.iter().find(|row| row.0 == number) else {
        return false;
    };
    log::write_signal(format!("signal {number} ({name}) received{suffix}"));
    match request {
        Request::End => return true,
        Request::ReopenLog => log::reopen(),
        Request::LevelUp => {
            if let Some(level) = log::level_up() {
                log::write_signal(format!("up log level to {level}"));
            }
        }
        Request::LevelDown => {
            if let Some(level) = log::level_down() {
                log::write_signal(format!("down log level to {level}"));
            }
        }
        Request::Nothing => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_signals_end_the_process() {
        let ends: Vec<&str> = TABLE
            .iter()
            .filter(|row| row.2 == Request::End)
            .map(|row| row.1)
            .collect();
        assert_eq!(ends, ["SIGINT", "SIGTERM"]);
        assert!(handle(SIGTERM));
        assert!(!handle(SIGUSR1));
        assert!(!handle(0));
    }
}
