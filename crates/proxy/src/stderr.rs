//! Standard error, as far as it is not the log: words to whoever started the process.
//!
//! The printing macros of the standard library panic where nothing can be written. This crate
//! forbids them; everything that is not a log line is said here.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use crate::limits::{STDERR_WAIT, STDERR_WRITERS_MAX};

/// Says `bytes` in one write, so that lines of several processes do not mix. A slow reader is
/// waited for, as every command does.
pub(crate) fn say(bytes: &[u8]) {
    // Nobody is left to tell that stderr cannot be written; the exit status still says it.
    let _ = io::stderr().write_all(bytes);
}

/// The same for a process that has more to do than to wait for a reader: after [`STDERR_WAIT`]
/// it goes on, and the bytes may be lost.
///
/// The write has a thread of its own, because neither `O_NONBLOCK` (shared with other processes)
/// nor `poll` (another writer may be faster) bounds a write to a pipe.
pub(crate) fn say_briefly(bytes: Vec<u8>) {
    if WRITERS.fetch_add(1, Ordering::Relaxed) >= STDERR_WRITERS_MAX {
        WRITERS.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (done, waiter) = sync_channel(1);
    let writer = move || {
        say(&bytes);
        WRITERS.fetch_sub(1, Ordering::Relaxed);
        // The waiter may have gone on.
        let _ = done.try_send(());
    };
    match thread::Builder::new()
        .name("stderr".to_owned())
        .spawn(writer)
    {
        Ok(_) => _ = waiter.recv_timeout(STDERR_WAIT),
        // Without a thread nothing is said: a process at that limit must not wait for a reader.
        Err(_) => _ = WRITERS.fetch_sub(1, Ordering::Relaxed),
    }
}

/// How many writes of [`say_briefly`] have not ended.
static WRITERS: AtomicUsize = AtomicUsize::new(0);
