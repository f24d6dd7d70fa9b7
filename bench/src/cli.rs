//! The command line of the tool.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::ValueExt as _;

use crate::clients::Pace;
use crate::compare::Comparison;
use crate::demo::Demo;
use crate::envoy;
use crate::failure::{During, Failure, Outcome};
use crate::net::Addr;
use crate::process::Pinning;
use crate::protocol::{KeyLengths, Op, Protocol};
use crate::real::Real;
use crate::relay::Relay;
use crate::run::{Target, nutcracker_command};
use crate::script::Traffic;
use crate::workload::{Beside, Progress, Transport, Workload};

/// What the tool is asked to do.
#[derive(Debug)]
pub(crate) enum Task {
    Help,
    Run(Box<Workload>, Target),
    Compare(Box<Comparison>),
    Demo(Demo),
    Real(Real),
    Relay(Relay),
}

/// What `load --help` prints.
pub(crate) const USAGE: &str = "\
Usage: load run [--proxy CMD | --nutcracker PATH | --envoy PATH | --relay | --connect ADDR | --direct]
                [workload] [placement]
       load compare --ours PATH --theirs PATH [--pairs N] [--seconds S] [--only TEXT] [--output FILE]
       load demo --redis-pool ADDR --memcache-pool ADDR --redis-server ADDR... --memcache-server ADDR...
                 --stats ADDR [--keys N]
       load real --nutcracker PATH [--op get|set] [--depth N] [--clients N] [--seconds S] [--warmup S]
       load relay --conf FILE --request-len BYTES --reply-len BYTES

One thread holds the clients and the servers behind the proxy; the servers answer from the key alone, and each
reply is checked. The result is one line for people on stderr and one line of JSON on stdout.

What to load:
  --nutcracker PATH      start this proxy with the options of nutcracker
  --envoy PATH           start Envoy, with the same pool in its own words
  --relay                start the bare relay; it needs --fixed-keys
  --proxy CMD            start this command; {conf}, {dir}, {envoy}, {request_len} and {reply_len} are filled in: the
                         configuration, a private directory, Envoy's configuration, bytes of the first exchange
  --connect ADDR         load what listens there (host:port or /path), with our servers behind it
  --server-listen ADDR   where a canned server listens (with --connect; repeatable, port 0 picks one)
  --pid PID              the process to observe (with --connect)
  --direct               no proxy: the price of the tool itself

Workload:
  --protocol redis|memcache    (redis)
  --op get|set|mget|mset       (get)
  --keys N                     keys of one mget or mset (10)
  --value-size BYTES           (32)
  --clients N                  (50)
  --servers N                  (2)
  --depth N                    requests that each client keeps in flight (1)
  --rate N                     open loop: N requests per second in total, instead of --depth
  --seconds S                  measured time (5)
  --requests N                 end after N measured requests
  --warmup S                   (0.5)
  --fixed-keys                 all keys have one length
  --transport tcp|unix         (tcp)
  --beside-clients N           a second group of clients, which no figure counts ...
  --beside-op OP, --beside-value-size BYTES, --beside-depth N    ... (get, 65536, 16)
  --beside-rate N              ... open loop: so many requests per second, --beside-depth of them at once ...
  --beside-read-rate BYTES     ... each of which reads so much per second at most: slow readers
  --idle N                     further clients that connect and say nothing
  --watch S                    record the proxy's memory, until so long after the load
  --pool-line 'KEY: VALUE'     a further line of the pool's configuration (repeatable)

Placement:
  --cpus TOOL,PROXY | none     (the first two CPUs we may use)
  --quiet                      no line per second
";

/// Reads the command line, without the name of the program.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Outcome<Task> {
    let mut parser = lexopt::Parser::from_args(args);
    let verb = next(&mut parser)?.unwrap_or_default();
    match verb.as_str() {
        "run" => parse_run(&mut parser),
        "compare" => parse_compare(&mut parser),
        "demo" => parse_demo(&mut parser),
        "real" => parse_real(&mut parser),
        "relay" => parse_relay(&mut parser),
        "" | "help" | "--help" => Ok(Task::Help),
        _ => Err(Failure::new(format!(
            "'{verb}' is none of run, compare, demo, real, relay"
        ))),
    }
}

fn parse_run(parser: &mut lexopt::Parser) -> Outcome<Task> {
    let mut workload = default_workload();
    let mut target = None;
    let mut servers = Vec::new();
    let mut pid = None;
    let mut keys = 10;
    while let Some(arg) = next(parser)? {
        match arg.as_str() {
            "--proxy" => target = Some(Target::Start(text(parser)?)),
            "--nutcracker" => target = Some(Target::Start(nutcracker_command(&text(parser)?))),
            "--envoy" => target = Some(Target::Start(envoy::command(&text(parser)?))),
            "--relay" => target = Some(Target::Start(relay_command()?)),
            "--connect" => {
                let pool = Addr::parse(&text(parser)?)?;
                target = Some(Target::Running {
                    pool,
                    servers: Vec::new(),
                    pid: None,
                });
            }
            "--direct" => target = Some(Target::Direct),
            "--server-listen" => servers.push(Addr::parse(&text(parser)?)?),
            "--pid" => pid = Some(number(parser, "--pid")?),
            "--keys" => keys = bounded(parser, "--keys", KEYS_MAX)?,
            "--help" => return Ok(Task::Help),
            other => workload_option(parser, other, &mut workload)?,
        }
    }
    if let Some(beside) = &mut workload.beside {
        beside.traffic.protocol = workload.traffic.protocol;
        if matches!(beside.traffic.op, Op::Mget | Op::Mset) {
            return Err(Failure::new("the clients beside do get or set"));
        }
        if beside.rate.is_some() && matches!(workload.pace, Pace::Closed { .. }) {
            return Err(Failure::new("--beside-rate goes with --rate only"));
        }
    }
    if workload.samples() > SAMPLES_MAX {
        return Err(Failure::new(format!(
            "an open loop of more than {SAMPLES_MAX} requests: take less --seconds or --rate"
        )));
    }
    workload.traffic.keys = match workload.traffic.op {
        Op::Get | Op::Set => 1,
        Op::Mget | Op::Mset => keys,
    };
    if (workload.traffic.protocol, workload.traffic.op) == (Protocol::Memcache, Op::Mset) {
        return Err(Failure::new("memcache has no mset"));
    }
    let target = match target {
        Some(Target::Running { pool, .. }) => Target::Running { pool, servers, pid },
        Some(target) if servers.is_empty() && pid.is_none() => target,
        Some(_) => {
            return Err(Failure::new(
                "--server-listen and --pid go with --connect only",
            ));
        }
        None => {
            return Err(Failure::new(
                "say what to load: --nutcracker, --proxy, --connect or --direct",
            ));
        }
    };
    Ok(Task::Run(Box::new(workload), target))
}

fn workload_option(
    parser: &mut lexopt::Parser,
    option: &str,
    workload: &mut Workload,
) -> Outcome<()> {
    match option {
        "--protocol" => workload.traffic.protocol = Protocol::parse(&text(parser)?)?,
        "--op" => workload.traffic.op = Op::parse(&text(parser)?)?,
        "--value-size" => {
            workload.traffic.value_size = bounded(parser, "--value-size", VALUE_SIZE_MAX)?;
        }
        "--clients" => workload.clients = bounded(parser, "--clients", CLIENTS_MAX)?,
        "--servers" => workload.servers = bounded(parser, "--servers", SERVERS_MAX)?,
        "--depth" => {
            workload.pace = Pace::Closed {
                depth: bounded(parser, "--depth", DEPTH_MAX)?,
            };
        }
        "--rate" => {
            workload.pace = Pace::Open {
                rate: u64::from(bounded(parser, "--rate", RATE_MAX)?),
                burst: 1,
            };
        }
        "--seconds" => workload.duration = seconds(parser, "--seconds")?,
        "--requests" => workload.requests = Some(number(parser, "--requests")?),
        "--warmup" => workload.warmup = seconds(parser, "--warmup")?,
        "--transport" => {
            workload.transport = match text(parser)?.as_str() {
                "tcp" => Transport::Tcp,
                "unix" => Transport::Unix,
                other => {
                    return Err(Failure::new(format!(
                        "transport '{other}' is neither tcp nor unix"
                    )));
                }
            };
        }
        "--pool-line" => workload.pool_lines.push(text(parser)?),
        "--cpus" => workload.pinning = cpus(&text(parser)?)?,
        "--quiet" => workload.progress = Progress::Silent,
        "--fixed-keys" => workload.traffic.key_lengths = KeyLengths::Fixed,
        "--idle" => workload.idle = bounded(parser, "--idle", CLIENTS_MAX)?,
        "--watch" => workload.watch = Some(seconds(parser, "--watch")?),
        _ if option.starts_with("--beside-") => {
            let beside = workload.beside.get_or_insert(DEFAULT_BESIDE);
            beside_option(parser, option, beside)?;
        }
        other => return Err(unexpected(other)),
    }
    Ok(())
}

fn beside_option(parser: &mut lexopt::Parser, option: &str, beside: &mut Beside) -> Outcome<()> {
    match option {
        "--beside-clients" => {
            beside.clients = bounded(parser, "--beside-clients", CLIENTS_MAX)?;
        }
        "--beside-op" => beside.traffic.op = Op::parse(&text(parser)?)?,
        "--beside-value-size" => {
            beside.traffic.value_size = bounded(parser, "--beside-value-size", VALUE_SIZE_MAX)?;
        }
        "--beside-depth" => beside.depth = bounded(parser, "--beside-depth", DEPTH_MAX)?,
        "--beside-rate" => {
            let rate = bounded(parser, "--beside-rate", RATE_MAX)?;
            beside.rate = Some(u64::from(rate));
        }
        "--beside-read-rate" => {
            let rate = bounded(parser, "--beside-read-rate", RATE_MAX)?;
            beside.read_rate = Some(u64::from(rate));
        }
        other => return Err(unexpected(other)),
    }
    Ok(())
}

/// This program, as a relay.
fn relay_command() -> Outcome<String> {
    let own = std::env::current_exe().during(|| "looking for this program".to_owned())?;
    Ok(format!(
        "{} relay --conf {{conf}} --request-len {{request_len}} --reply-len {{reply_len}}",
        own.display()
    ))
}

fn parse_relay(parser: &mut lexopt::Parser) -> Outcome<Task> {
    let mut relay = Relay {
        conf: PathBuf::new(),
        request_len: 0,
        reply_len: 0,
    };
    while let Some(arg) = next(parser)? {
        match arg.as_str() {
            "--conf" => relay.conf = PathBuf::from(text(parser)?),
            "--request-len" => relay.request_len = number(parser, "--request-len")?,
            "--reply-len" => relay.reply_len = number(parser, "--reply-len")?,
            "--help" => return Ok(Task::Help),
            other => return Err(unexpected(other)),
        }
    }
    Ok(Task::Relay(relay))
}

fn parse_real(parser: &mut lexopt::Parser) -> Outcome<Task> {
    let mut real = Real {
        nutcracker: String::new(),
        op: Op::Get,
        depth: 1,
        clients: 50,
        warmup: Duration::from_millis(500),
        duration: Duration::from_secs(5),
        pinning: Pinning::of_this_machine(),
    };
    while let Some(arg) = next(parser)? {
        match arg.as_str() {
            "--nutcracker" => real.nutcracker = text(parser)?,
            "--op" => real.op = Op::parse(&text(parser)?)?,
            "--depth" => real.depth = bounded(parser, "--depth", DEPTH_MAX)?,
            "--clients" => real.clients = bounded(parser, "--clients", CLIENTS_MAX)?,
            "--seconds" => real.duration = seconds(parser, "--seconds")?,
            "--warmup" => real.warmup = seconds(parser, "--warmup")?,
            "--cpus" => real.pinning = cpus(&text(parser)?)?,
            "--quiet" => {}
            "--help" => return Ok(Task::Help),
            other => return Err(unexpected(other)),
        }
    }
    if real.nutcracker.is_empty() {
        return Err(Failure::new("say which proxy: --nutcracker PATH"));
    }
    if matches!(real.op, Op::Mget | Op::Mset) {
        return Err(Failure::new("redis-benchmark does get or set"));
    }
    Ok(Task::Real(real))
}

fn parse_compare(parser: &mut lexopt::Parser) -> Outcome<Task> {
    let mut ours = None;
    let mut theirs = None;
    let mut comparison = Comparison {
        ours: String::new(),
        theirs: String::new(),
        pairs: 3,
        duration: Duration::from_millis(1500),
        only: None,
        output: None,
        pinning: Pinning::of_this_machine(),
    };
    while let Some(arg) = next(parser)? {
        match arg.as_str() {
            "--ours" => ours = Some(text(parser)?),
            "--theirs" => theirs = Some(text(parser)?),
            "--pairs" => comparison.pairs = bounded(parser, "--pairs", PAIRS_MAX)?,
            "--seconds" => comparison.duration = seconds(parser, "--seconds")?,
            "--only" => comparison.only = Some(text(parser)?),
            "--output" => comparison.output = Some(PathBuf::from(text(parser)?)),
            "--cpus" => comparison.pinning = cpus(&text(parser)?)?,
            "--help" => return Ok(Task::Help),
            other => return Err(unexpected(other)),
        }
    }
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return Err(Failure::new("a comparison needs --ours and --theirs"));
    };
    Ok(Task::Compare(Box::new(Comparison {
        ours,
        theirs,
        ..comparison
    })))
}

fn parse_demo(parser: &mut lexopt::Parser) -> Outcome<Task> {
    let mut redis_pool = None;
    let mut memcache_pool = None;
    let mut stats = None;
    let mut redis_servers = Vec::new();
    let mut memcache_servers = Vec::new();
    let mut keys = 4000;
    while let Some(arg) = next(parser)? {
        match arg.as_str() {
            "--redis-pool" => redis_pool = Some(Addr::parse(&text(parser)?)?),
            "--memcache-pool" => memcache_pool = Some(Addr::parse(&text(parser)?)?),
            "--stats" => stats = Some(Addr::parse(&text(parser)?)?),
            "--redis-server" => redis_servers.push(Addr::parse(&text(parser)?)?),
            "--memcache-server" => memcache_servers.push(Addr::parse(&text(parser)?)?),
            "--keys" => keys = bounded(parser, "--keys", DEMO_KEYS_MAX)?.max(DEMO_KEYS_MIN),
            "--help" => return Ok(Task::Help),
            other => return Err(unexpected(other)),
        }
    }
    let (Some(redis_pool), Some(memcache_pool), Some(stats)) = (redis_pool, memcache_pool, stats)
    else {
        return Err(Failure::new(
            "a demonstration needs --redis-pool, --memcache-pool and --stats",
        ));
    };
    Ok(Task::Demo(Demo {
        redis_pool,
        redis_servers,
        memcache_pool,
        memcache_servers,
        stats,
        keys,
    }))
}

fn default_workload() -> Workload {
    Workload {
        traffic: Traffic {
            protocol: Protocol::Redis,
            op: Op::Get,
            keys: 1,
            value_size: 32,
            key_lengths: KeyLengths::Mixed,
        },
        pace: Pace::Closed { depth: 1 },
        clients: 50,
        servers: 2,
        warmup: Duration::from_millis(500),
        duration: Duration::from_secs(5),
        requests: None,
        transport: Transport::Tcp,
        pool_lines: Vec::new(),
        beside: None,
        idle: 0,
        watch: None,
        pinning: Pinning::of_this_machine(),
        progress: Progress::Shown,
    }
}

const DEFAULT_BESIDE: Beside = Beside {
    traffic: Traffic {
        protocol: Protocol::Redis,
        op: Op::Get,
        keys: 1,
        value_size: 64 * 1024,
        key_lengths: KeyLengths::Mixed,
    },
    clients: 1,
    depth: 16,
    rate: None,
    read_rate: None,
};

/// The name of the next option, `--` and all; `None` at the end.
fn next(parser: &mut lexopt::Parser) -> Outcome<Option<String>> {
    let arg = parser
        .next()
        .map_err(|error| Failure::new(error.to_string()))?;
    Ok(arg.map(|arg| match arg {
        lexopt::Arg::Long(name) => format!("--{name}"),
        lexopt::Arg::Short('h') => "--help".to_owned(),
        lexopt::Arg::Short(letter) => format!("-{letter}"),
        lexopt::Arg::Value(word) => word.to_string_lossy().into_owned(),
    }))
}

fn text(parser: &mut lexopt::Parser) -> Outcome<String> {
    parser
        .value()
        .and_then(|value| value.string())
        .map_err(|error| Failure::new(error.to_string()))
}

fn number<T: FromStr>(parser: &mut lexopt::Parser, name: &str) -> Outcome<T> {
    let text = text(parser)?;
    text.parse()
        .map_err(|_| Failure::new(format!("{name} '{text}' is not a number")))
}

/// A number from 1 to `max`.
fn bounded(parser: &mut lexopt::Parser, name: &str, max: u32) -> Outcome<u32> {
    let value = number(parser, name)?;
    if (1..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Failure::new(format!(
            "{name} {value} is not between 1 and {max}"
        )))
    }
}

fn seconds(parser: &mut lexopt::Parser, name: &str) -> Outcome<Duration> {
    let value: f64 = number(parser, name)?;
    if (0.0..=SECONDS_MAX).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(Failure::new(format!(
            "{name} {value} is not between 0 and {SECONDS_MAX}"
        )))
    }
}

fn cpus(text: &str) -> Outcome<Option<Pinning>> {
    if text == "none" {
        return Ok(None);
    }
    text.split_once(',')
        .and_then(|(tool, proxy)| {
            Some(Pinning {
                tool: tool.parse().ok()?,
                proxy: proxy.parse().ok()?,
            })
        })
        .filter(|pinning| pinning.tool.max(pinning.proxy) < rustix::thread::CpuSet::MAX_CPU)
        .map(Some)
        .ok_or_else(|| Failure::new(format!("--cpus '{text}' is neither TOOL,PROXY nor none")))
}

fn unexpected(option: &str) -> Failure {
    Failure::new(format!("unexpected '{option}'"))
}

const KEYS_MAX: u32 = 1000;
const VALUE_SIZE_MAX: u32 = 64 * 1024 * 1024;
const CLIENTS_MAX: u32 = 100_000;
const SERVERS_MAX: u32 = 1000;
const DEPTH_MAX: u32 = 100_000;
const RATE_MAX: u32 = 100_000_000;
/// Each is remembered, 32 bytes.
const SAMPLES_MAX: usize = 16_000_000;
const PAIRS_MAX: u32 = 1000;
/// One multi-key read.
const DEMO_KEYS_MIN: u32 = crate::demo::BATCH;
const DEMO_KEYS_MAX: u32 = 10_000_000;
const SECONDS_MAX: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Outcome<Task> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn refusal(line: &str) -> String {
        parsed(line)
            .expect_err("a command line that is refused")
            .to_string()
    }

    #[test]
    fn a_run_takes_its_workload_from_the_options() {
        let line = "run --direct --protocol memcached --op mget --keys 50 --depth 16 --clients 7 --cpus none";
        let Ok(Task::Run(workload, Target::Direct)) = parsed(line) else {
            panic!("not a direct run");
        };
        assert_eq!(workload.traffic.protocol, Protocol::Memcache);
        assert_eq!(workload.traffic.keys, 50);
        assert_eq!(workload.pace, Pace::Closed { depth: 16 });
        assert_eq!(workload.clients, 7);
        assert_eq!(workload.pinning, None);
    }

    #[test]
    fn keys_count_only_where_a_request_has_many() {
        let Ok(Task::Run(workload, _)) = parsed("run --direct --op get --keys 50") else {
            panic!("not a run");
        };
        assert_eq!(workload.traffic.keys, 1);
    }

    #[test]
    fn senseless_command_lines_are_refused_with_a_reason() {
        for (line, reason) in [
            ("run", "say what to load"),
            ("run --direct --depth 0", "not between"),
            ("run --direct --protocol memcache --op mset", "no mset"),
            ("run --direct --pid 1", "--connect only"),
            ("run --connect nowhere", "neither host:port nor /path"),
            ("run --direct --rate fast", "not a number"),
            ("run --direct --rate 1000000 --seconds 17", "less --seconds"),
            ("run --direct --beside-rate 10", "--rate only"),
            ("run --direct --speed 1", "--speed"),
            ("compare --ours a", "--theirs"),
            ("dance", "none of"),
        ] {
            assert!(refusal(line).contains(reason), "{line}: {}", refusal(line));
        }
    }
}
