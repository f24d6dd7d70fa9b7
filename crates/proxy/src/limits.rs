//! Every bound of the shell, with its reason and its outcome. Those of the engine stand in
//! [`twemproxy_core::limits`].

use std::time::Duration;

/// Kernel events one wait returns at most; more come with the next wait.
pub(crate) const EVENTS_PER_WAIT: usize = 1024;

/// Reads from clients after which what was gathered for the servers is sent, so that the first
/// request of a large tick does not wait for the parsing of all others.
pub(crate) const READS_PER_FLUSH: usize = 64;

/// Connections taken from one listener before the others get their turn and workers are woken.
pub(crate) const ACCEPTS_PER_TURN: usize = 256;

/// Descriptors that no client gets, beside those of listeners and server connections: for the log,
/// statistics, pollers, look-ups of names and what a signal asks for. Clients that find none left wait in
/// the kernel's backlog.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 32;

/// Descriptors of one worker: its poller and the waker of its mailbox.
pub(crate) const DESCRIPTORS_PER_WORKER: u64 = 2;

/// Rest of a listener after an accept that failed for want of descriptors or memory; the
/// connections stay in the kernel's backlog meanwhile.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two lines about one listener that cannot accept: it is tried ten times as often.
pub(crate) const ACCEPT_FAILED_PERIOD: Duration = Duration::from_secs(1);

/// Bytes of a closing client's unread input that are read and dropped, so that closing does not
/// reset the connection and take the last reply with it; with more, it may.
pub(crate) const CLOSE_DISCARD_LEN: usize = 64 * 1024;

/// Silence on a server connection after which the kernel probes it, and the interval of the probes.
pub(crate) const SERVER_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// See [`SERVER_KEEPALIVE_IDLE`].
pub(crate) const SERVER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Time for which the kernel sends again to a silent server before it calls the connection dead:
/// without it a pool without `timeout:` hangs on a vanished server for a quarter of an hour.
pub(crate) const SERVER_USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Names that are looked up at the same time; further ones wait for one of these to end, so that a
/// name server that does not answer costs a bounded number of threads.
pub(crate) const LOOKUPS_MAX: usize = 16;

/// How often it is looked at whether memory should go back to the system.
pub(crate) const TRIM_PERIOD: Duration = Duration::from_secs(2);

/// Bytes of buffers that the engines must have given up since the last time for that.
pub(crate) const TRIM_AFTER_LEN: u64 = 256 * 1024;

/// Lines waiting for the log thread; further lines are dropped and counted.
pub(crate) const LOG_QUEUE_LEN: usize = 4096;

/// Bytes of one log line including its newline; longer lines are cut.
// compat: the original's line buffer.
pub(crate) const LOG_LINE_LEN: usize = 256;

/// How long the end of the process waits for the log thread; what is left then is lost.
pub(crate) const LOG_FLUSH_WAIT: Duration = Duration::from_secs(1);

/// How often a pid file is opened that its last owner removes at the same moment; then the start
/// fails.
pub(crate) const PID_FILE_TRIES: usize = 16;

/// How long words for stderr wait for their reader, where the process has more to do than that;
/// what is left then is lost.
pub(crate) const STDERR_WAIT: Duration = Duration::from_secs(1);

/// Threads that may wait for a reader of stderr at the same time; further words are dropped, so
/// that a terminal that is stuck costs a bounded number of threads.
pub(crate) const STDERR_WRITERS_MAX: usize = 4;

/// Log lines of one kind and one thread within [`NOTICE_WINDOW_MICROS`]; the rest is counted in one line.
pub(crate) const NOTICES_PER_WINDOW: u32 = 10;
/// See [`NOTICES_PER_WINDOW`], in microseconds.
pub(crate) const NOTICE_WINDOW_MICROS: u64 = 1_000_000;

/// Clients of the statistics port at the same time, each with an answer at most; one more takes the
/// place of the one that moves least.
pub(crate) const STATS_CLIENTS_MAX: usize = 16;

/// Time one statistics client has to take its answer before it is cut off.
pub(crate) const STATS_WRITE_WAIT: Duration = Duration::from_secs(10);

/// Time a statistics client has to close after its answer before it is closed, reset if it still
/// talks; so it is after [`CLOSE_DISCARD_LEN`] bytes.
pub(crate) const STATS_CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Shortest time between two log lines about clients of the statistics port; the second counts those
/// in between.
pub(crate) const STATS_COMPLAINT_PAUSE: Duration = Duration::from_secs(1);
