//! The proxy under test as a process: started on a CPU of its own, observed through /proc, ended by its pid.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpriority_process, kill_process, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::{During, Failure, Outcome};
use crate::net::{Addr, Stream};
use crate::num;

/// Which CPU the tool and the proxy run on; `None` leaves both to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pinning {
    pub(crate) tool: usize,
    pub(crate) proxy: usize,
}

impl Pinning {
    /// Tool on the first CPU we may use, proxy on the second; `None` when there is only one.
    pub(crate) fn of_this_machine() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        Some(Self {
            tool: cpus.next()?,
            proxy: cpus.next()?,
        })
    }
}

/// Restores where this thread may run.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn to(cpu: usize) -> Outcome<Self> {
        let before = sched_getaffinity(None).during(|| "asking for our CPUs".to_owned())?;
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).during(|| format!("moving to CPU {cpu}"))?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // These CPUs were ours a moment ago; if they are not any more there is nothing to restore.
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// Puts this thread and what it starts before the machine's other processes, if it may, for as long as this lives.
///
/// A process of the same priority takes the CPU for whole slices of the scheduler, milliseconds each. Where the kernel
/// groups processes by session, their niceness counts within the group only, so the group's is set too.
#[derive(Debug)]
pub(crate) struct Priority {
    niceness_before: i32,
    group_before: Option<String>,
}

impl Priority {
    pub(crate) fn highest() -> Self {
        let niceness_before = getpriority_process(None).unwrap_or(0);
        let group = fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let group = group.split_whitespace().next_back().map(str::to_owned);
        // Where another run has raised it already, that one puts it back.
        let group = group.filter(|before| *before != HIGHEST.to_string());
        // Refused without the right to; the report tells.
        let _ = setpriority_process(None, HIGHEST);
        Self {
            niceness_before,
            group_before: group
                .filter(|_| fs::write(AUTOGROUP, HIGHEST.to_string().as_bytes()).is_ok()),
        }
    }

    /// The niceness in force.
    pub(crate) fn niceness() -> i32 {
        getpriority_process(None).unwrap_or(0)
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        // Giving up priority is never refused.
        let _ = setpriority_process(None, self.niceness_before);
        if let Some(before) = &self.group_before {
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}

const HIGHEST: i32 = -20;
/// There only where the kernel groups by session.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// A proxy that this run started.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    dir: PathBuf,
}

impl Proxy {
    /// Starts `command`, whose logs lie in `dir`.
    pub(crate) fn start(command: &str, dir: &Path, pinning: Option<Pinning>) -> Outcome<Self> {
        let mut words = command.split_whitespace();
        let Some(program) = words.next() else {
            return Err(Failure::new("the proxy command is empty"));
        };
        let stderr = fs::File::create(dir.join(STDERR)).during(|| "creating a log".to_owned())?;
        // A child starts on the CPUs of its parent: no window in which it runs elsewhere.
        let _on_its_cpu = pinning
            .map(|pinning| Pinned::to(pinning.proxy))
            .transpose()?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .during(|| format!("starting {program}"))?;
        Ok(Self {
            child,
            dir: dir.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the proxy accepts at `addr`.
    pub(crate) fn wait_for(&mut self, addr: &Addr) -> Outcome<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::new(format!(
                    "the proxy ended at once ({status}){}",
                    self.words()
                )));
            }
            match Stream::connect(addr) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(Failure::new(format!(
                        "the proxy does not accept at {addr}: {error}{}",
                        self.words()
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Waits until the process has ended by itself, well.
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> Outcome<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Failure::new(format!("ended ({status}){}", self.words())));
                }
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(None) => {
                    return Err(Failure::new(format!(
                        "did not end within {} s{}",
                        limit.as_secs(),
                        self.words()
                    )));
                }
                Err(error) => return Err(Failure::new(format!("waiting: {error}"))),
            }
        }
    }

    /// The last things the proxy said.
    pub(crate) fn words(&self) -> String {
        let mut said = String::new();
        for name in [STDERR, LOG] {
            let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(5)..] {
                said.push_str("\n  proxy: ");
                said.push_str(line);
            }
        }
        said
    }

    /// SIGTERM, then SIGKILL for one that does not listen.
    fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself, which the wait below notices.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Fails only for a process that is already gone.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the proxy was told to log to, and what it said before it did.
pub(crate) const LOG: &str = "proxy.log";
const STDERR: &str = "proxy.err";

const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

/// What the kernel accounts to a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// On a CPU, all threads, nanoseconds.
    pub(crate) cpu: u64,
    /// Ready to run but waiting for a CPU, nanoseconds: somebody else was there.
    pub(crate) starved: u64,
    pub(crate) switches: u64,
}

impl Usage {
    /// Reads the accounts of a process; threads that ended since are not in it.
    pub(crate) fn of(process: &str) -> Outcome<Self> {
        let tasks = format!("/proc/{process}/task");
        let mut usage = Self::default();
        for task in fs::read_dir(&tasks).during(|| format!("reading {tasks}"))? {
            let path = task.during(|| format!("reading {tasks}"))?.path();
            // A thread may end between the listing and the reading.
            let schedstat = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            let mut fields = schedstat
                .split_whitespace()
                .map(|field| field.parse().unwrap_or(0));
            usage.cpu += fields.next().unwrap_or(0);
            usage.starved += fields.next().unwrap_or(0);
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            usage.switches += field(&status, "voluntary_ctxt_switches:")
                + field(&status, "nonvoluntary_ctxt_switches:");
        }
        Ok(usage)
    }

    pub(crate) const fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            starved: self.starved.saturating_sub(before.starved),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// What the machine's CPUs did since it started, all together, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MachineTime {
    all: u64,
    stolen: u64,
}

impl MachineTime {
    pub(crate) fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// From the line `cpu user nice system idle iowait irq softirq steal ...`.
    fn parse(text: &str) -> Self {
        let ticks = text
            .lines()
            .find_map(|line| line.strip_prefix("cpu "))
            .into_iter()
            .flat_map(str::split_whitespace)
            .take(KINDS_OF_TIME)
            .map(|field| field.parse::<u64>().unwrap_or(0));
        let mut time = Self::default();
        for (kind, ticks) in ticks.enumerate() {
            time.all += ticks;
            if kind == STOLEN {
                time.stolen = ticks;
            }
        }
        time
    }

    /// Share of the time since `before` that the host gave to others.
    pub(crate) fn stolen_since(&self, before: &Self) -> f64 {
        num::ratio(
            self.stolen.saturating_sub(before.stolen),
            self.all.saturating_sub(before.all),
        )
    }
}

/// The kinds after it are guests' time, which `user` has in it already.
const KINDS_OF_TIME: usize = 8;
const STOLEN: usize = 7;

/// Resident memory of a process in KiB, 0 if it is gone.
pub(crate) fn resident_kib(process: &str) -> u64 {
    field(
        &fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default(),
        "VmRSS:",
    )
}

fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status =
            "VmRSS:\t  1234 kB\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(status, "VmRSS:"), 1234);
        assert_eq!(field(status, "voluntary_ctxt_switches:"), 5);
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), 7);
        assert_eq!(field(status, "Threads:"), 0);
    }

    #[test]
    fn stolen_time_is_a_share_of_all_time() {
        let before = MachineTime::parse("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1 2\n");
        let after = MachineTime::parse("cpu  20 0 20 140 0 0 5 15 9 9\n");
        assert!((after.stolen_since(&before) - 0.15).abs() < 1e-9);
        assert_eq!(MachineTime::parse(""), MachineTime::default());
    }

    #[test]
    fn own_usage_grows_with_work() {
        let before = Usage::of("self").expect("our own accounts");
        let mut sum = 0_u64;
        let deadline = Instant::now() + Duration::from_secs(10);
        // The kernel brings a running thread's account up to date at its own pace.
        while Usage::of("self")
            .expect("our own accounts")
            .since(&before)
            .cpu
            == 0
        {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(Instant::now() < deadline, "no CPU time was accounted");
        }
    }
}
