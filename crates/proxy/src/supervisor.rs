//! The life of the process: start, signals, drain, end. Owns every thread.
//!
//! ```text
//!             signals ──► supervisor (main) ──drain──► worker 0..n   engine, poller, sockets
//!                            │      ▲                   ▲     │
//!                            │ stop └─ done, health ────┼─────┤ names
//!                            ▼                          │     ▼
//!                         acceptor ───── clients ───────┤  resolver
//!                         listeners                     └──addresses
//!             stats ◄── counters of all workers         log ◄── lines of all threads
//! ```
//!
//! Invariants:
//! 1. Nothing is started before the daemon has left its terminal: fork and threads do not mix.
//! 2. Listeners are closed before workers drain, so no client comes after the drain began.
//! 3. Whatever way the process ends by itself, its pid file and socket files go with it, if they
//!    are still its own. A start that fails takes nothing from a process that runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::system::uname;
use thiserror::Error;
use twemproxy_config::{ConfigError, ProxyConfig};
use twemproxy_core::counters::Counters;
use twemproxy_core::engine::{ClientCounts, Engine};
use twemproxy_core::ids::PoolIdx;
use twemproxy_core::owner::HealthOwner;
use twemproxy_core::topology::Topology;

use crate::acceptor::{Acceptor, Door, Workers};
use crate::cli::{self, Options};
use crate::clock::Clock;
use crate::daemon::{self, Detached, PidFile, PidFileError, Report};
use crate::descriptors;
use crate::dial::{Dialer, Endpoints, endpoints};
use crate::health::Health;
use crate::log::{self, Level, Output, log};
use crate::mail::{ClientCount, Lookup, ToSupervisor, ToWorker, WorkerAddress};
use crate::memory::{self, Holdings};
use crate::net::errno;
use crate::net::listener::{ListenError, Listener, SocketFile};
use crate::net::poller::{Poller, Waker};
use crate::notices::Notices;
use crate::resolver::Resolver;
use crate::signals;
use crate::stats::{StatsError, StatsListener, StatsSource};
use crate::stderr;
use crate::warnings;
use crate::worker::{Worker, WorkerParts};

/// Why the proxy did not start.
#[derive(Debug, Error)]
enum StartError {
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Stats(#[from] StatsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("told to end before the start was over")]
    Ended,
    #[error("{what} failed: {}", errno::text(.error))]
    System {
        what: &'static str,
        error: io::Error,
    },
}

/// Runs the proxy until it is told to end.
pub(crate) fn run(options: &Options) -> ExitCode {
    let output = match Output::open(options.output.as_deref()) {
        Ok(output) => output,
        Err(error) => {
            let path = options.output.as_deref().unwrap_or_else(|| "".as_ref());
            let (path, text) = (path.display(), errno::text(&error));
            return fail(&format!("opening log file '{path}' failed: {text}"));
        }
    };
    if !options.daemonize {
        return serve(options, output, None);
    }
    if let Some(warning) = warnings::lost_log(options) {
        stderr::say(cli::warning_line(warning).as_bytes());
    }
    match daemon::detach() {
        Ok(Detached::Daemon(report)) => serve(options, output, Some(report)),
        Ok(Detached::Command(Ok(()))) => ExitCode::SUCCESS,
        Ok(Detached::Command(Err(reason))) => fail(&reason),
        Err(error) => fail(&format!("daemonizing failed: {}", errno::text(&error))),
    }
}

fn fail(reason: &str) -> ExitCode {
    stderr::say(format!("{reason}\n").as_bytes());
    ExitCode::FAILURE
}

/// The process that serves: in the foreground, or the daemon.
fn serve(options: &Options, output: Output, report: Option<Report>) -> ExitCode {
    if let Err(error) = log::start(output, options.verbosity) {
        return fail(&format!("starting the log failed: {}", errno::text(&error)));
    }
    abort_on_panic();
    let mut pid_file = None;
    let socket_mode = report.as_ref().map(Report::socket_mode);
    let started = start(options, socket_mode, &mut pid_file);
    let (result, code) = match started {
        Ok(proxy) => {
            if let Some(report) = report {
                report.up();
            }
            proxy.supervise(Duration::from_millis(options.drain_timeout_ms));
            (None, ExitCode::SUCCESS)
        }
        // The command that started a daemon sees that it ended.
        Err(StartError::Ended) => (None, ExitCode::SUCCESS),
        Err(error) => {
            let reason = error.to_string();
            log!(Level::Error, "{reason}");
            if let StartError::Config(ConfigError::Invalid { .. }) = error {
                let line = cli::syntax_line(&options.conf_file, "invalid");
                stderr::say_briefly(line.into_bytes());
            }
            (report.map(|report| (report, reason)), ExitCode::FAILURE)
        }
    };
    if let Some(pid_file) = pid_file {
        pid_file.remove();
    }
    log!(Level::Always, "done, rabbit done");
    log::flush();
    if let Some((report, reason)) = result {
        report.failed(&reason);
    }
    code
}

/// A proxy that has lost its invariants can hand one client another's data: any panic, on any
/// thread, ends the process, after its message is written or could not be within a bound.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("?");
        let message = format!("thread '{name}': {panic}").replace('\n', " ");
        log!(Level::Always, "{message}");
        // The log thread cannot wait for itself.
        if name != "log" {
            log::flush();
        }
        stderr::say_briefly(format!("nutcracker: {message}\n").into_bytes());
        std::process::abort();
    }));
}

/// The running proxy, as the supervisor sees it.
struct Proxy {
    inbox: Receiver<ToSupervisor>,
    workers: Vec<WorkerAddress>,
    health: Health,
    acceptor: Stoppable,
    /// The statistics port answers until the end; its file goes with the proxy.
    _stats_file: Option<SocketFile>,
}

struct Stoppable {
    stop: Sender<()>,
    waker: Waker,
    thread: JoinHandle<()>,
}

/// Everything in the original's order, but for the number in the pid file: a failure leaves
/// nothing behind but the claim of that file, which the caller takes back.
///
/// `socket_mode` is that of the statistics socket, where the umask does not say it.
fn start(
    options: &Options,
    socket_mode: Option<u32>,
    pid_file: &mut Option<PidFile>,
) -> Result<Proxy, StartError> {
    let signals = signals::catch().map_err(system("installing signal handlers"))?;
    if let Some(path) = &options.pid_file {
        *pid_file = Some(PidFile::claim(path)?);
    }
    log_banner();
    let started = Instant::now();
    let clock = Clock::start();
    let (supervisor, inbox) = channel();
    signals::forward(signals, supervisor.clone()).map_err(system("starting the signal thread"))?;
    let mut config = load(&options.conf_file, &supervisor, &inbox)?;
    log_client_limits(&config);
    if options.daemonize {
        for warning in warnings::open_sockets(&config) {
            log!(Level::Warning, "{warning}");
        }
    }
    config.core.wall_clock_origin = clock.wall_clock_origin();
    config.core.process_id = std::process::id();
    let file_limit = descriptors::raise_limit();
    let (stats, stats_file) =
        StatsListener::open(&options.stats_addr, options.stats_port, socket_mode)?;
    let listeners = config.pools.iter().map(Listener::open);
    let listeners: Vec<Listener> = listeners.collect::<Result<_, _>>()?;
    if let Some(pid_file) = pid_file {
        pid_file.write()?;
    }

    let clients_max = descriptors::clients_max(file_limit, &config, options.workers);
    let core = Arc::new(config.core.clone());
    let owner = HealthOwner::new(&core);
    let topologies = owner.topologies();
    let crew = Crew::start(options.workers, &config, &topologies, clock, &supervisor)?;
    let open_listeners = Arc::new(AtomicU64::new(0));
    let acceptor = {
        let poller = Poller::new().map_err(system("creating a poller"))?;
        let waker = poller.waker().map_err(system("creating a waker"))?;
        let acceptor = Acceptor::new(
            poller,
            doors(listeners, &config),
            Workers::new(crew.addresses.clone(), clients_max),
            Notices::new(&core, &topologies),
            clock,
            Arc::clone(&open_listeners),
        )
        .map_err(system("watching the listeners"))?;
        let (stop, stopped) = channel();
        let thread = spawn("acceptor", move || acceptor.run(&stopped))?;
        Stoppable {
            stop,
            waker,
            thread,
        }
    };
    let engines = crew.counters.clone();
    spawn("memory", move || memory::run(&engines))?;
    let health = Health::new(owner, crew.addresses.clone(), clock);
    let source = StatsSource {
        topologies,
        config: core,
        counters: crew.counters,
        open_listeners,
        source: uname().nodename().to_string_lossy().into_owned(),
        started,
    };
    spawn("stats", move || stats.run(&source))?;
    Ok(Proxy {
        inbox,
        workers: crew.addresses,
        health,
        acceptor,
        _stats_file: stats_file,
    })
}

/// The configuration of a file. It is read, and the names in it are looked up, on a thread of its own: a file
/// may be a pipe that nobody writes, a name server may not answer, and a signal ends the start all the same.
fn load(
    file: &Path,
    supervisor: &Sender<ToSupervisor>,
    inbox: &Receiver<ToSupervisor>,
) -> Result<ProxyConfig, StartError> {
    let (file, answer) = (file.to_owned(), supervisor.clone());
    spawn("configuration", move || {
        let loaded = twemproxy_config::load(&file, twemproxy_config::physical_memory());
        // A start that was told to end does not wait for it.
        let _ = answer.send(ToSupervisor::Loaded(Box::new(loaded)));
    })?;
    loop {
        match inbox.recv().expect("this function holds a sender") {
            ToSupervisor::Loaded(loaded) => return (*loaded).map_err(StartError::from),
            ToSupervisor::Signal(number) if signals::handle(number) => {
                return Err(StartError::Ended);
            }
            _ => {}
        }
    }
}

/// The workers and their resolver.
struct Crew {
    addresses: Vec<WorkerAddress>,
    counters: Vec<Arc<Counters>>,
}

impl Crew {
    fn start(
        count: usize,
        config: &ProxyConfig,
        topologies: &[Arc<Topology>],
        clock: Clock,
        supervisor: &Sender<ToSupervisor>,
    ) -> Result<Self, StartError> {
        let core = Arc::new(config.core.clone());
        let endpoints = endpoints(config, topologies);
        let (resolver, questions) = channel();
        let mut crew = Self {
            addresses: Vec::new(),
            counters: Vec::new(),
        };
        let clients = ClientCounts::new(core.pools.len());
        let mut workers = Vec::new();
        for (index, holdings) in Holdings::all(count).into_iter().enumerate() {
            let dialer = Dialer::new(Arc::clone(&endpoints), resolver.clone(), index);
            let mut engine = Engine::new(Arc::clone(&core), topologies, seed());
            engine.number_clients(widen(index) + 1, widen(count));
            engine.share_clients(clients.clone());
            let notices = Notices::new(&core, topologies);
            workers.push(crew.hire((engine, holdings), dialer, notices, clock)?);
        }
        crew.start_resolver(endpoints, questions)?;
        for (index, worker) in workers.into_iter().enumerate() {
            let supervisor = supervisor.clone();
            spawn(&format!("worker-{index}"), move || worker.run(&supervisor))?;
        }
        Ok(crew)
    }

    /// Makes a worker that can be started once all are made.
    fn hire(
        &mut self,
        (engine, holdings): (Engine, Holdings),
        dialer: Dialer,
        notices: Notices,
        clock: Clock,
    ) -> Result<Worker, StartError> {
        let poller = Poller::new().map_err(system("creating a poller"))?;
        let waker = poller.waker().map_err(system("creating a waker"))?;
        let (sender, mailbox) = channel();
        let clients = Arc::new(ClientCount::default());
        let address = WorkerAddress::new(sender, Arc::new(waker), Arc::clone(&clients));
        self.addresses.push(address);
        self.counters.push(Arc::clone(engine.counters()));
        Ok(Worker::new(WorkerParts {
            engine,
            poller,
            dialer,
            mailbox,
            notices,
            clock,
            clients,
            holdings,
        }))
    }

    fn start_resolver(
        &self,
        endpoints: Arc<Endpoints>,
        questions: Receiver<Lookup>,
    ) -> Result<(), StartError> {
        let resolver = Resolver::new(endpoints, self.addresses.clone(), questions);
        spawn("resolver", move || resolver.run()).map(drop)
    }
}

impl Proxy {
    /// Handles signals until one says to end, then drains, for `drain_timeout` at most.
    fn supervise(mut self, drain_timeout: Duration) {
        while let Some(mail) = self.health.next_mail(&self.inbox, None) {
            if let ToSupervisor::Signal(number) = mail
                && signals::handle(number)
            {
                break;
            }
        }
        self.acceptor.stop();
        for worker in &self.workers {
            worker.put(ToWorker::Drain);
            worker.wake();
        }
        await_drain(
            &mut self.health,
            &self.inbox,
            self.workers.len(),
            drain_timeout,
        );
    }
}

/// Waits until all workers are done, the time is up, or a second signal wants the end at once.
fn await_drain(
    health: &mut Health,
    inbox: &Receiver<ToSupervisor>,
    workers: usize,
    drain_timeout: Duration,
) {
    let deadline = Instant::now() + drain_timeout;
    let mut busy = workers;
    while busy > 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        match health.next_mail(inbox, Some(left)) {
            Some(ToSupervisor::WorkerDone) => busy -= 1,
            Some(ToSupervisor::Signal(number)) => {
                if signals::handle(number) {
                    return;
                }
            }
            // The owner has read the one; the other came before.
            Some(ToSupervisor::Health(_) | ToSupervisor::Loaded(_)) => {}
            None => {
                log!(Level::Warning, "drain timed out, closing what is left");
                return;
            }
        }
    }
}

impl Stoppable {
    fn stop(self) {
        // An acceptor that has panicked has taken the process with it.
        let _ = self.stop.send(());
        self.waker.wake();
        let _ = self.thread.join();
    }
}

fn doors(listeners: Vec<Listener>, config: &ProxyConfig) -> Vec<Door> {
    (0..)
        .zip(listeners.into_iter().zip(&config.pools))
        .map(|(index, (listener, pool))| Door::new(PoolIdx(index), listener, pool.tcpkeepalive))
        .collect()
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(system("starting a thread"))
}

fn log_banner() {
    let system = uname();
    let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
    log!(
        Level::Always,
        "nutcracker-0.5.0 built for {} {} {} started on pid {}",
        text(system.sysname()),
        text(system.release()),
        text(system.machine()),
        std::process::id()
    );
    log!(
        Level::Always,
        "run, rabbit run: twemproxy {} in Rust",
        env!("CARGO_PKG_VERSION")
    );
}

/// An old file may name a limit that nutcracker 0.5 never kept: whoever wrote it is told.
fn log_client_limits(config: &ProxyConfig) {
    for pool in &config.core.pools {
        if pool.client_connections > 0 {
            log!(
                Level::Notice,
                "client_connections of pool '{}' is in force, unlike in nutcracker 0.5: {} clients",
                pool.name,
                pool.client_connections
            );
        }
    }
}

fn widen(count: usize) -> u64 {
    u64::try_from(count).expect("a number of threads is small")
}

/// Unpredictable, and different for each worker.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::process::{Resource, Rlimit, setrlimit};
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use twemproxy_testkit::harness::wait_for;

    /// Tells the second process of the test below where to log.
    const LOG_OF_CHILD: &str = "NUTCRACKER_TEST_LOG";

    const NAME: &str = "supervisor::tests::a_panic_on_any_thread_is_logged_and_aborts_the_process";

    /// Runs the test below in a process of its own that panics; its log is `log`.
    fn panicking(log: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", NAME, "--nocapture"])
            .env(LOG_OF_CHILD, log);
        command
    }

    // D33
    #[test]
    fn a_panic_on_any_thread_is_logged_and_aborts_the_process() {
        if let Some(log) = std::env::var_os(LOG_OF_CHILD) {
            return panic_on_a_thread(Path::new(&log));
        }
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let output = panicking(&log).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let logged = std::fs::read_to_string(&log).unwrap();
        assert_eq!(output.status.signal(), Some(6), "{said}{logged}");
        for text in [&said, &logged] {
            assert!(text.contains("thread 'worker': panicked at "), "{text}");
            assert!(text.ends_with("out of step\n"), "{text}");
        }
    }

    #[test]
    fn a_panic_ends_the_process_also_when_stderr_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let (_reader, writer) = io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while (&writer).write(&[b'x'; 512]).is_ok() {}
        fcntl_setfl(&writer, flags).unwrap();
        let mut child = panicking(&log)
            .stdout(Stdio::null())
            .stderr(writer)
            .spawn()
            .unwrap();
        let status = wait_for("it ends", || child.try_wait().unwrap());
        assert_eq!(status.signal(), Some(6));
        let logged = std::fs::read_to_string(&log).unwrap();
        assert!(logged.ends_with("out of step\n"), "{logged}");
    }

    fn panic_on_a_thread(log: &Path) {
        // The test wants the status, not the dump.
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Core, none).unwrap();
        log::start(Output::open(Some(log)).unwrap(), 0).unwrap();
        abort_on_panic();
        // Somebody who waits for the thread must not be what makes it fatal.
        let _ = spawn("worker", || panic!("out of step")).map(JoinHandle::join);
    }
}
