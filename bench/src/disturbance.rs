//! Who disturbed an open loop: moments in which the machine, and not the proxy, made requests late.
//!
//! Three watches, each blind to what the proxy does with the CPU that it has:
//! 1. the tool's own pauses. It spins, and looks at its clock after each piece of work; the pieces are bounded
//!    ([`Portion::Block`](crate::net::Portion)), so a pause was somebody else on the tool's CPU;
//! 2. a pulse on the proxy's CPU: a thread of real-time priority that goes before the proxy, so that it is late only when
//!    the host took the CPU (which `steal` in /proc/stat does not always say) or the kernel kept it;
//! 3. how long the proxy's busiest thread was ready to run and did not, less what the proxy's other threads took.
//!
//! Requests that were due in such a moment, shortly before it or while its queue was worked off are left out of the
//! figures, by the same rule for every proxy and whatever their latencies were. A stall of the proxy's own is in no watch.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clients::{Latencies, Samples, latencies};
use crate::num;
use crate::process::{MachineTime, Pinned};
use crate::report::Percentiles;

/// Which watch saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The tool was not on its CPU.
    Tool,
    /// The pulse was late: the proxy's CPU was taken away.
    Pulse,
    /// The proxy waited for its CPU.
    Waiting,
    /// The host says that it took time; looked at only where there is no pulse.
    Stolen,
}

/// A moment that was not the proxy's, nanoseconds since the start of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disturbance {
    kind: Kind,
    start: u64,
    end: u64,
    /// How much of it was lost.
    lost: u64,
}

/// All watches of a run.
#[derive(Debug)]
pub(crate) struct Watch {
    last_look: u64,
    last_poll: u64,
    /// Time between two looks at the sockets.
    gaps: Latencies,
    in_long_gaps: u64,
    pulse: Option<Pulse>,
    threads: Threads,
    /// The machine's accounts, and when they were read.
    machine: (u64, MachineTime),
    next_accounts: u64,
    found: Vec<Disturbance>,
}

impl Watch {
    /// `pulse_at` is the proxy's CPU, if it has one.
    pub(crate) fn new(epoch: Instant, pid: Option<u32>, pulse_at: Option<usize>) -> Self {
        Self {
            last_look: 0,
            last_poll: 0,
            gaps: latencies(),
            in_long_gaps: 0,
            pulse: pulse_at.and_then(|cpu| Pulse::start(epoch, cpu)),
            threads: pid.map(Threads::of).unwrap_or_default(),
            machine: (0, MachineTime::now()),
            next_accounts: 0,
            found: Vec::new(),
        }
    }

    /// The measured part begins.
    pub(crate) fn reset(&mut self, now: u64) {
        self.gaps.reset();
        self.in_long_gaps = 0;
        self.found.clear();
        self.found.reserve(FOUND_EXPECTED);
        self.last_look = now;
        self.last_poll = now;
    }

    /// The tool looks at its sockets.
    pub(crate) fn polled(&mut self, now: u64) {
        let gap = now.saturating_sub(self.last_poll);
        self.gaps.saturating_record(gap);
        if gap > LONG_GAP {
            self.in_long_gaps += gap;
        }
        self.last_poll = now;
        self.look(now);
        if now >= self.next_accounts {
            self.settle(now);
            self.next_accounts = now + ACCOUNTS_EVERY;
        }
    }

    /// The tool has done a piece of its work.
    pub(crate) fn look(&mut self, now: u64) {
        let pause = now.saturating_sub(self.last_look);
        if pause > PAUSE_MAX {
            self.found.push(Disturbance {
                kind: Kind::Tool,
                start: self.last_look,
                end: now,
                lost: pause,
            });
        }
        self.last_look = now;
    }

    /// Looks at the kernel's accounts since the last time.
    fn settle(&mut self, now: u64) {
        if let Some((start, waited)) = self.threads.waited(now)
            && waited > WAITED_MAX
        {
            self.found.push(Disturbance {
                kind: Kind::Waiting,
                start,
                end: now,
                lost: waited,
            });
        }
        let (start, before) = self.machine;
        // Reading these takes longer than the others, and the pulse sees more.
        if self.pulse.is_none() && now >= start + MACHINE_EVERY {
            let machine = MachineTime::now();
            if machine.stolen_since(&before) > 0.0 {
                self.found.push(Disturbance {
                    kind: Kind::Stolen,
                    start,
                    end: now,
                    lost: TICK,
                });
            }
            self.machine = (now, machine);
        }
    }

    /// Ends the watches; what they saw since [`Self::reset`].
    pub(crate) fn end(&mut self) -> Seen {
        let pulse = self.pulse.take();
        let has_pulse = pulse.is_some();
        let mut found = std::mem::take(&mut self.found);
        found.extend(pulse.into_iter().flat_map(Pulse::end));
        Seen {
            gaps: Percentiles::of(&self.gaps),
            in_long_gaps: self.in_long_gaps,
            has_pulse,
            found,
        }
    }
}

/// What the watches saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Between two looks of the tool at its sockets.
    pub(crate) gaps: Percentiles,
    /// Time in gaps above [`LONG_GAP`].
    pub(crate) in_long_gaps: u64,
    pub(crate) has_pulse: bool,
    found: Vec<Disturbance>,
}

impl Seen {
    /// How many of a kind, and the time lost in them.
    pub(crate) fn of(&self, kind: Kind) -> (usize, u64) {
        let found = self.found.iter().filter(|found| found.kind == kind);
        (found.clone().count(), found.map(|found| found.lost).sum())
    }

    /// The parts of `measured` in which a request that became due says something about the proxy, in order.
    pub(crate) fn undisturbed(&self, measured: Range<u64>) -> Vec<Range<u64>> {
        let mut out: Vec<Range<u64>> = self
            .found
            .iter()
            .map(|found| {
                let after = found.lost.saturating_mul(AFTER) + AROUND;
                found.start.saturating_sub(AROUND)..found.end.saturating_add(after)
            })
            .collect();
        out.sort_by_key(|disturbed| disturbed.start);
        let mut kept = Vec::new();
        let mut at = measured.start;
        for disturbed in out {
            if disturbed.start.min(measured.end) > at {
                kept.push(at..disturbed.start.min(measured.end));
            }
            at = at.max(disturbed.end);
        }
        if at < measured.end {
            kept.push(at..measured.end);
        }
        kept
    }
}

/// The times of those requests that were due in one of these ranges, which are in order and apart.
pub(crate) fn sift(samples: &Samples, ranges: &[Range<u64>]) -> Latencies {
    let mut times = latencies();
    for (due, took) in samples {
        let next = ranges.partition_point(|range| range.end <= *due);
        if ranges.get(next).is_some_and(|range| range.contains(due)) {
            times.saturating_record(*took);
        }
    }
    times
}

/// A thread that wakes up on the proxy's CPU before anybody else there, and knows when it could not.
#[derive(Debug)]
struct Pulse {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Disturbance>>,
}

impl Pulse {
    /// `None` where real-time priority is not to be had: a thread that waits for the proxy says nothing.
    fn start(epoch: Instant, cpu: usize) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = channel();
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || beat(epoch, cpu, &stop, &ready))
        };
        match is_ready.recv() {
            Ok(true) => Some(Self { stop, thread }),
            _ => None,
        }
    }

    fn end(self) -> Vec<Disturbance> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn beat(epoch: Instant, cpu: usize, stop: &AtomicBool, ready: &Sender<bool>) -> Vec<Disturbance> {
    let mut found = Vec::with_capacity(FOUND_EXPECTED);
    let pinned = Pinned::to(cpu);
    let is_ready = pinned.is_ok() && is_real_time();
    // Who started us waits for this.
    let _ = ready.send(is_ready);
    while is_ready && !stop.load(Ordering::Relaxed) {
        let start = num::nanos(epoch.elapsed());
        std::thread::sleep(BEAT_EVERY);
        let end = num::nanos(epoch.elapsed());
        let late = end.saturating_sub(start + num::nanos(BEAT_EVERY));
        if late > PAUSE_MAX {
            found.push(Disturbance {
                kind: Kind::Pulse,
                start,
                end,
                lost: late,
            });
        }
    }
    found
}

/// Makes this thread go before all ordinary ones, with the system's own command: no crate in use here has the call.
fn is_real_time() -> bool {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let changed = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    changed.is_ok_and(|status| status.success())
}

/// The kernel's accounts of the threads that a process had when the load began.
#[derive(Debug, Default)]
struct Threads {
    at: u64,
    /// With (on a CPU, ready but not on a CPU) at the last reading.
    threads: Vec<(File, (u64, u64))>,
}

impl Threads {
    fn of(pid: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let open = tasks.into_iter().flatten().filter_map(|task| {
            let file = File::open(task.ok()?.path().join("schedstat")).ok()?;
            let accounts = accounts(&file)?;
            Some((file, accounts))
        });
        Self {
            at: 0,
            threads: open.collect(),
        }
    }

    /// Since when, and how long of it, the process was kept from its CPU by others than itself.
    fn waited(&mut self, now: u64) -> Option<(u64, u64)> {
        let mut since = Vec::with_capacity(self.threads.len());
        for (file, before) in &mut self.threads {
            let Some(after) = accounts(file) else {
                continue;
            };
            since.push((
                after.0.saturating_sub(before.0),
                after.1.saturating_sub(before.1),
            ));
            *before = after;
        }
        let start = std::mem::replace(&mut self.at, now);
        Some((start, kept_off(&since)?))
    }
}

/// How long the busiest of these threads, (on a CPU, ready but not on a CPU) each, waited for none of the others.
fn kept_off(threads: &[(u64, u64)]) -> Option<u64> {
    let busiest = threads.iter().max()?;
    let all: u64 = threads.iter().map(|thread| thread.0).sum();
    Some(busiest.1.saturating_sub(all - busiest.0))
}

/// The first two fields of a thread's `schedstat`.
fn accounts(file: &File) -> Option<(u64, u64)> {
    let mut text = [0_u8; 64];
    let len = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..len]).ok()?;
    let mut fields = text
        .split_whitespace()
        .map_while(|field| field.parse().ok());
    Some((fields.next()?, fields.next()?))
}

/// A longer time between two looks at the clock was no work of ours: the largest piece of it takes a third at most.
const PAUSE_MAX: u64 = 300_000;
/// Of a millisecond and more between two looks at the sockets is told how much of a run they took.
const LONG_GAP: u64 = 1_000_000;
/// A beat costs the proxy some 20 us. Of the outages that matter, milliseconds long, few pass between two beats.
const BEAT_EVERY: Duration = Duration::from_millis(2);
const ACCOUNTS_EVERY: u64 = 5_000_000;
const WAITED_MAX: u64 = 300_000;
const MACHINE_EVERY: u64 = 100_000_000;
/// The unit in which the machine's accounts are told.
const TICK: u64 = 10_000_000;
/// At nine tenths of a proxy's capacity the queue of an outage takes nine times as long to work off.
const AFTER: u64 = 10;
/// A request that was due so shortly before an outage was often still on its way.
const AROUND: u64 = 1_000_000;
/// Room for the seconds of a usual run.
const FOUND_EXPECTED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(found: &[(u64, u64)]) -> Seen {
        let found = found.iter().map(|(start, end)| Disturbance {
            kind: Kind::Tool,
            start: *start,
            end: *end,
            lost: end - start,
        });
        Seen {
            gaps: Percentiles::of(&latencies()),
            in_long_gaps: 0,
            has_pulse: false,
            found: found.collect(),
        }
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn a_disturbance_takes_what_was_on_its_way_and_what_queued_behind_it() {
        let kept = seen(&[(50 * MS, 52 * MS)]).undisturbed(0..100 * MS);
        assert_eq!(kept, [0..49 * MS, 73 * MS..100 * MS]);
    }

    #[test]
    fn disturbances_may_overlap_come_in_any_order_and_reach_past_the_ends() {
        let found = [(97 * MS, 98 * MS), (51 * MS, 52 * MS), (50 * MS, 52 * MS)];
        let kept = seen(&found).undisturbed(40 * MS..100 * MS);
        assert_eq!(kept, [40 * MS..49 * MS, 73 * MS..96 * MS]);
        assert_eq!(seen(&[(0, 100 * MS)]).undisturbed(0..50 * MS), []);
        assert_eq!(seen(&[(MS, 2 * MS)]).undisturbed(50..50), []);
    }

    #[test]
    fn a_request_is_kept_or_left_out_by_when_it_was_due_however_long_it_took() {
        let samples = vec![(5, 900), (10, 1), (19, 800), (20, 1), (35, 700), (90, 1)];
        let times = sift(&samples, &[0..10, 15..20, 30..40]);
        assert_eq!(times.len(), 3);
        assert!((800..=900).contains(&times.value_at_quantile(0.6)));
        assert!(times.min() >= 700);
    }

    #[test]
    fn a_pause_of_the_tool_is_seen_and_work_is_not() {
        let mut watch = Watch::new(Instant::now(), None, None);
        watch.reset(10 * MS);
        watch.polled(10 * MS + 100_000);
        watch.look(10 * MS + 300_000);
        watch.polled(13 * MS);
        let seen = watch.end();
        assert_eq!(seen.of(Kind::Tool), (1, 2_700_000));
        assert_eq!(seen.in_long_gaps, 2_900_000);
        assert_eq!(seen.of(Kind::Pulse), (0, 0));
    }

    #[test]
    fn a_proxy_that_waits_for_its_own_threads_was_kept_off_by_nobody() {
        assert_eq!(kept_off(&[(5 * MS, MS)]), Some(MS));
        assert_eq!(kept_off(&[(5 * MS, 2 * MS), (2 * MS, 5 * MS)]), Some(0));
        assert_eq!(kept_off(&[(MS, 0), (5 * MS, 3 * MS), (MS, MS)]), Some(MS));
        assert_eq!(kept_off(&[]), None);
    }

    #[test]
    fn our_own_threads_have_accounts() {
        let mut threads = Threads::of(std::process::id());
        assert!(!threads.threads.is_empty());
        assert_eq!(threads.waited(7).map(|(since, _)| since), Some(0));
        assert_eq!(threads.at, 7);
    }
}
