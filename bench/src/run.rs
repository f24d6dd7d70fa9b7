//! One run: canned servers, proxy, clients, one loop on one thread.
//!
//! A tick: wait, read and answer at all ready sockets, then send once per connection. The measured part starts
//! after the warm-up and ends while the load is still on; then no request is sent any more and each reply that
//! is missing must arrive. A run in which one reply was wrong, missing or too many has no result.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clients::{Clients, Group, Pace};
use crate::disturbance::Watch;
use crate::envoy;
use crate::failure::{During, Failure, Outcome};
use crate::net::{Addr, Event, Poller, Stream, Token, free_port};
use crate::num;
use crate::process::{LOG, MachineTime, Pinned, Priority, Proxy, Usage, resident_kib};
use crate::protocol::{BESIDE, Protocol};
use crate::report::{Memory, OpenLoop, Percentiles, Report};
use crate::script::Script;
use crate::servers::Servers;
use crate::workload::{Progress, Transport, Workload};

/// What stands between the clients and the canned servers.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Start this command; the words in braces of [`fill_in`] are filled in.
    Start(String),
    /// Something that others started, and its process if it is to be observed.
    Running {
        pool: Addr,
        servers: Vec<Addr>,
        pid: Option<u32>,
    },
    /// Nothing: the clients talk to the first canned server.
    Direct,
}

/// Does one run.
pub(crate) fn run(workload: &Workload, target: &Target) -> Outcome<Report> {
    allow_sockets(SOCKETS_PER_CLIENT * workload.sockets() + SOCKETS_BESIDE);
    let dir = tempfile::tempdir().during(|| "making a directory".to_owned())?;
    let _on_our_cpu = workload
        .pinning
        .map(|pinning| Pinned::to(pinning.tool))
        .transpose()?;
    let _hurried = Priority::highest();
    let portion = workload.portion();
    let poller = Poller::new(portion)?;
    let servers = Servers::listen(
        &server_addrs(workload, target, dir.path())?,
        workload.traffic.protocol,
        workload.shapes(),
        portion,
        &poller,
    )?;
    let script = Script::new(workload.traffic, 0);
    let mut proxy = None;
    let (pool, pid) = match target {
        Target::Start(command) => {
            let pool = pool_addr(workload.transport, dir.path())?;
            let conf = dir.path().join(CONF);
            fs::write(&conf, config(workload, &pool, &servers.addrs()?))
                .during(|| "writing the configuration".to_owned())?;
            let command = fill_in(command, dir.path(), &script, &pool, &servers.addrs()?)?;
            let mut started = Proxy::start(&command, dir.path(), workload.pinning)?;
            started.wait_for(&pool)?;
            let pid = started.pid();
            proxy = Some(started);
            (pool, Some(pid))
        }
        Target::Running { pool, pid, .. } => {
            announce(&servers.addrs()?);
            wait_for(pool)?;
            (pool.clone(), *pid)
        }
        Target::Direct => (first_of(&servers)?, None),
    };
    let epoch = Instant::now();
    let pulse_at = workload.pinning.map(|pinning| pinning.proxy);
    let watch = matches!(workload.pace, Pace::Open { .. })
        .then(|| Watch::new(epoch, pid, pulse_at.filter(|_| pid.is_some())));
    let mut bed = Bed {
        memory: Memory::new(workload.watch.and(pid)),
        idle: connect_idle(&pool, workload.idle)?,
        clients: Clients::connect(&pool, &group(workload), script, &poller)?,
        beside: connect_beside(workload, &pool, &poller)?,
        poller,
        servers,
        block: vec![0; portion.recv_block()],
        watch,
        epoch,
        observed: pid.map(|pid| pid.to_string()),
    };
    bed.measure(workload).map_err(|failure| {
        let words = proxy.as_ref().map(Proxy::words).unwrap_or_default();
        Failure::new(format!("{}: {failure}{words}", workload.title()))
    })
}

/// A proxy that opens a socket per client and one for each of its few servers needs no more, and we need as many.
const SOCKETS_PER_CLIENT: u64 = 2;
const SOCKETS_BESIDE: u64 = 200;

/// Raises the limit of open files for us and the proxy if it is too low and we may.
fn allow_sockets(needed: u64) {
    let limits = getrlimit(Resource::Nofile);
    if limits.current.is_some_and(|current| current < needed) {
        let raised = Rlimit {
            current: Some(limits.maximum.map_or(needed, |maximum| maximum.min(needed))),
            maximum: limits.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            eprintln!("warning: the limit of open files stays: {error}");
        }
    }
}

fn group(workload: &Workload) -> Group {
    Group {
        count: workload.clients,
        pace: workload.pace,
        read_rate: None,
        portion: workload.portion(),
        token: Token::Client,
    }
}

fn connect_beside(workload: &Workload, pool: &Addr, poller: &Poller) -> Outcome<Option<Clients>> {
    let Some(beside) = &workload.beside else {
        return Ok(None);
    };
    let group = Group {
        count: beside.clients,
        pace: beside.rate.map_or(
            Pace::Closed {
                depth: beside.depth,
            },
            |rate| Pace::Open {
                rate,
                burst: u64::from(beside.depth),
            },
        ),
        read_rate: beside.read_rate,
        portion: workload.portion(),
        token: Token::Beside,
    };
    Clients::connect(pool, &group, Script::new(beside.traffic, BESIDE), poller).map(Some)
}

fn connect_idle(pool: &Addr, count: u32) -> Outcome<Vec<Stream>> {
    let connect = |_| Stream::connect(pool).during(|| format!("connecting to {pool}"));
    (0..count).map(connect).collect()
}

/// Fills in what a command may ask for: its files and, for a relay, how long an exchange is.
fn fill_in(
    command: &str,
    dir: &Path,
    script: &Script,
    pool: &Addr,
    servers: &[Addr],
) -> Outcome<String> {
    let mut command = command.to_owned();
    if command.contains("{envoy}") {
        let path = dir.join("envoy.json");
        fs::write(&path, envoy::bootstrap(pool, servers)?)
            .during(|| "writing the configuration".to_owned())?;
        command = command.replace("{envoy}", &path.to_string_lossy());
    }
    Ok(command
        .replace("{request_len}", &script.request(0).len().to_string())
        .replace("{reply_len}", &script.reply_len().to_string())
        .replace("{conf}", &dir.join(CONF).to_string_lossy())
        .replace("{dir}", &dir.to_string_lossy()))
}

pub(crate) const CONF: &str = "proxy.yml";

/// Everything that takes part in the loop.
struct Bed {
    poller: Poller,
    clients: Clients,
    beside: Option<Clients>,
    /// Kept open, never used.
    #[allow(dead_code, reason = "an open socket is what an idle client is")]
    idle: Vec<Stream>,
    servers: Servers,
    memory: Memory,
    /// Of an open loop.
    watch: Option<Watch>,
    block: Vec<u8>,
    epoch: Instant,
    observed: Option<String>,
}

/// A moment of the run, for differences.
struct Mark {
    at: u64,
    replies: u64,
    machine: MachineTime,
    tool: Usage,
    proxy: Option<Usage>,
}

impl Bed {
    fn measure(&mut self, workload: &Workload) -> Outcome<Report> {
        let mut progress = Ticker::new(workload);
        self.clients.start(self.now());
        if let Some(beside) = &mut self.beside {
            beside.start(num::nanos(self.epoch.elapsed()));
        }
        let warm = self.now() + num::nanos(workload.warmup);
        while self.now() < warm {
            self.tick(workload.pace)?;
            progress.show(self.now(), self.clients.replies);
        }
        self.clients.reset_latencies(workload.samples());
        let start = self.mark()?;
        if let Some(watch) = &mut self.watch {
            watch.reset(start.at);
        }
        let end = start.at + num::nanos(workload.duration);
        let enough = workload
            .requests
            .map_or(u64::MAX, |requests| start.replies + requests);
        while self.now() < end && self.clients.replies < enough {
            self.tick(workload.pace)?;
            progress.show(self.now(), self.clients.replies);
        }
        let finish = self.mark()?;
        let proxy_rss_kib = self.observed.as_deref().map_or(0, resident_kib);
        let unanswered = self.drain(workload.pace)?;
        let mut report = Report {
            workload: workload.clone(),
            requests: finish.replies - start.replies,
            elapsed: finish.at - start.at,
            latency: Percentiles::of(&self.clients.latency),
            open: None,
            unanswered: num::wide(unanswered),
            niceness: Priority::niceness(),
            tool: finish.tool.since(&start.tool),
            stolen: finish.machine.stolen_since(&start.machine),
            proxy: finish
                .proxy
                .zip(start.proxy)
                .map(|(after, before)| after.since(&before)),
            proxy_rss_kib,
            memory: Memory::default(),
        };
        // After the end, because a request that was due before it may have been answered later.
        if let Some(mut watch) = self.watch.take() {
            let (latency, open) = OpenLoop::new(&self.clients, watch.end(), start.at..finish.at);
            report.latency = latency;
            report.open = Some(open);
        }
        self.keep_watching(workload.watch)?;
        report.memory = std::mem::take(&mut self.memory);
        if report.requests == 0 {
            return Err(Failure::new("no reply came in the measured time"));
        }
        Ok(report)
    }

    fn tick(&mut self, pace: Pace) -> Outcome<()> {
        // An open loop spins: it has a CPU of its own, and a sleep would make requests late.
        let timeout = match pace {
            Pace::Closed { .. } => WAIT_MAX,
            Pace::Open { .. } => Duration::ZERO,
        };
        let events = self.poller.wait(timeout)?;
        let epoch = self.epoch;
        let clock = || num::nanos(epoch.elapsed());
        let now = clock();
        if let Some(watch) = &mut self.watch {
            watch.polled(now);
        }
        self.memory.keep(now);
        let mut to_accept = Vec::new();
        for event in events {
            match event.token {
                Token::ServerConn(index) => {
                    if event.readable {
                        self.servers.handle_readable(index, &mut self.block)?;
                    }
                    if event.writable {
                        self.servers.handle_writable(index);
                    }
                }
                Token::Client(index) => {
                    handle(&mut self.clients, &event, index, &mut self.block, now)?;
                }
                Token::Beside(index) => {
                    if let Some(beside) = &mut self.beside {
                        handle(beside, &event, index, &mut self.block, now)?;
                    }
                }
                Token::Listener(index) => to_accept.push(index),
            }
            if let Some(watch) = &mut self.watch {
                let now = clock();
                watch.look(now);
                self.clients.keep_pace(now);
                self.clients.flush(clock)?;
            }
        }
        for index in to_accept {
            self.servers.handle_acceptable(index, &self.poller)?;
        }
        self.go_on(now)
    }

    /// The end of a tick: what was left by the portions, and sending.
    fn go_on(&mut self, now: u64) -> Outcome<()> {
        let epoch = self.epoch;
        let clock = || num::nanos(epoch.elapsed());
        let watch = &mut self.watch;
        let mut look = || {
            if let Some(watch) = watch {
                watch.look(clock());
            }
        };
        self.clients.read_on(&mut self.block, now)?;
        look();
        self.servers.read_on(&mut self.block)?;
        look();
        self.servers.flush(&mut look);
        if let Some(beside) = &mut self.beside {
            beside.read_on(&mut self.block, now)?;
            beside.read_slowly(&mut self.block, now)?;
            beside.keep_pace(now);
            beside.flush(clock)?;
            look();
        }
        self.clients.keep_pace(clock());
        self.clients.flush(clock)
    }

    /// The load is over; what does the proxy keep?
    fn keep_watching(&mut self, watch: Option<Duration>) -> Outcome<()> {
        let Some(watch) = watch else { return Ok(()) };
        self.memory.load_ended(self.now());
        let deadline = Instant::now() + watch;
        while Instant::now() < deadline {
            self.tick(Pace::Closed { depth: 0 })?;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        let beside = self.beside.as_ref().map_or(0, Clients::in_flight);
        self.clients.in_flight() + beside
    }

    /// Waits for the replies that are missing, and sees that no more come. An open loop may have overloaded the proxy, which
    /// then goes on answering for longer than is worth waiting; gives how many requests were left so.
    fn drain(&mut self, pace: Pace) -> Outcome<usize> {
        self.clients.finish();
        if let Some(beside) = &mut self.beside {
            beside.finish();
        }
        let begun = Instant::now();
        let before = self.proxy_usage()?;
        let mut last_progress = (begun, self.in_flight());
        while self.in_flight() > 0 {
            let now = Instant::now();
            if self.in_flight() < last_progress.1 {
                last_progress = (now, self.in_flight());
            }
            let waited = now.duration_since(begun);
            if waited > DRAIN_TIMEOUT {
                let used = self.proxy_usage()?.zip(before);
                let used = used.map_or(0, |(after, before)| after.since(&before).cpu);
                let is_going_on = now.duration_since(last_progress.0) < PROGRESS_WITHIN
                    || used * 10 > num::nanos(waited) * 9;
                if matches!(pace, Pace::Open { .. }) && is_going_on {
                    self.clients.count_waiting(self.now());
                    return Ok(self.in_flight());
                }
                return Err(Failure::new(format!(
                    "{} replies never came",
                    self.in_flight()
                )));
            }
            self.tick(pace)?;
        }
        self.tick(pace)?;
        Ok(0)
    }

    fn proxy_usage(&self) -> Outcome<Option<Usage>> {
        self.observed.as_deref().map(Usage::of).transpose()
    }

    fn mark(&self) -> Outcome<Mark> {
        let proxy = self.proxy_usage()?;
        Ok(Mark {
            at: self.now(),
            replies: self.clients.replies,
            machine: MachineTime::now(),
            tool: Usage::of("self")?,
            proxy,
        })
    }

    fn now(&self) -> u64 {
        num::nanos(self.epoch.elapsed())
    }
}

fn handle(
    clients: &mut Clients,
    event: &Event,
    index: u32,
    block: &mut [u8],
    now: u64,
) -> Outcome<()> {
    if event.readable {
        clients.handle_readable(index, block, now)?;
    }
    if event.writable {
        clients.handle_writable(index);
    }
    Ok(())
}

/// Longest sleep of a closed loop, so that it ends in time even if the proxy is silent.
const WAIT_MAX: Duration = Duration::from_millis(50);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A proxy that answered nothing for so long and had time to spare has lost requests.
const PROGRESS_WITHIN: Duration = Duration::from_secs(1);

/// One line per second on stderr.
struct Ticker {
    shown: Progress,
    title: String,
    total: u64,
    next: u64,
    replies: u64,
}

impl Ticker {
    fn new(workload: &Workload) -> Self {
        Self {
            shown: workload.progress,
            title: workload.title(),
            total: num::nanos(workload.warmup + workload.duration),
            next: SECOND,
            replies: 0,
        }
    }

    fn show(&mut self, now: u64, replies: u64) {
        if now < self.next || self.shown == Progress::Silent {
            return;
        }
        eprintln!(
            "{}: {} of {} s, {} requests in the last second",
            self.title,
            now / SECOND,
            self.total.div_ceil(SECOND),
            replies - self.replies
        );
        self.next = (now / SECOND + 1) * SECOND;
        self.replies = replies;
    }
}

const SECOND: u64 = 1_000_000_000;

fn server_addrs(workload: &Workload, target: &Target, dir: &Path) -> Outcome<Vec<Addr>> {
    if let Target::Running { servers, .. } = target {
        return Ok(servers.clone());
    }
    let addrs = (0..workload.servers).map(|index| match workload.transport {
        Transport::Tcp => Addr::Tcp("127.0.0.1:0".to_owned()),
        Transport::Unix => Addr::Unix(dir.join(format!("server{index}.sock"))),
    });
    Ok(addrs.collect())
}

fn pool_addr(transport: Transport, dir: &Path) -> Outcome<Addr> {
    Ok(match transport {
        Transport::Tcp => Addr::Tcp(format!("127.0.0.1:{}", free_port()?)),
        Transport::Unix => Addr::Unix(dir.join("pool.sock")),
    })
}

fn first_of(servers: &Servers) -> Outcome<Addr> {
    let addrs = servers.addrs()?;
    addrs
        .into_iter()
        .next()
        .ok_or_else(|| Failure::new("there is no server to talk to"))
}

fn config(workload: &Workload, pool: &Addr, servers: &[Addr]) -> String {
    pool_config(
        workload.traffic.protocol,
        pool,
        servers,
        &workload.pool_lines,
    )
}

/// The configuration of a proxy with one pool; the same for every proxy under test.
pub(crate) fn pool_config(
    protocol: Protocol,
    pool: &Addr,
    servers: &[Addr],
    lines: &[String],
) -> String {
    let is_redis = protocol == Protocol::Redis;
    let mut text = format!(
        "bench:\n  listen: {pool}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: {is_redis}\n  preconnect: true\n"
    );
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str("  servers:\n");
    for (index, server) in servers.iter().enumerate() {
        text.push_str(&format!("    - {server}:1 server{index}\n"));
    }
    text
}

fn announce(servers: &[Addr]) {
    for (index, server) in servers.iter().enumerate() {
        eprintln!("canned server {index} listens at {server}");
    }
}

fn wait_for(pool: &Addr) -> Outcome<()> {
    let deadline = Instant::now() + RUNNING_TIMEOUT;
    while let Err(error) = Stream::connect(pool) {
        if Instant::now() > deadline {
            return Err(Failure::new(format!("nobody accepts at {pool}: {error}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Time for a person or a script to start the proxy behind which our servers now listen.
const RUNNING_TIMEOUT: Duration = Duration::from_secs(60);

/// The options that nutcracker needs to touch nothing outside the run's directory.
pub(crate) fn nutcracker_command(program: &str) -> String {
    format!(
        "{program} -v 4 -c {{conf}} -o {{dir}}/{LOG} -p {{dir}}/proxy.pid -a {{dir}}/stats.sock"
    )
}

#[cfg(test)]
mod tests;
