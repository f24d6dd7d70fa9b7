//! `load real`: two real redis servers and `redis-benchmark` on one CPU, the proxy alone on the other.
//!
//! Servers and generator cost more than the proxy here and are the slower side, so this says little about what the proxy
//! can carry. It says what a user sees who tries: how many requests per second, and what CPU all of it takes together.
//!
//! Everything is counted between two marks while the load is on: requests by what the servers say they processed, CPU by
//! the kernel's account of each process. redis-benchmark does not look at values; so a read must have found its key and
//! no server may have seen an error, or the run has no result.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::failure::{During, Failure, Outcome};
use crate::net::{Addr, free_port};
use crate::num;
use crate::process::{Pinning, Priority, Proxy, Usage, resident_kib};
use crate::protocol::{Op, Protocol};
use crate::run::{CONF, nutcracker_command, pool_config};

/// What to do and for how long.
#[derive(Debug)]
pub(crate) struct Real {
    pub(crate) nutcracker: String,
    pub(crate) op: Op,
    pub(crate) depth: u32,
    pub(crate) clients: u32,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) pinning: Option<Pinning>,
}

/// Does one run and prints its report.
pub(crate) fn real(real: &Real) -> Outcome<()> {
    let dir = tempfile::tempdir().during(|| "making a directory".to_owned())?;
    let _hurried = Priority::highest();
    // Servers and generator go where the tool is, by the tool's own means of placing a process.
    let beside_us = real.pinning.map(|pinning| Pinning {
        proxy: pinning.tool,
        ..pinning
    });
    let mut servers = Vec::new();
    for index in 0..SERVERS {
        servers.push(start_redis(
            &folder(dir.path(), &format!("server{index}"))?,
            beside_us,
        )?);
    }
    let addrs: Vec<Addr> = servers
        .iter()
        .map(|(_, port)| Addr::Tcp(format!("127.0.0.1:{port}")))
        .collect();
    let pool_port = free_port()?;
    let pool = Addr::Tcp(format!("127.0.0.1:{pool_port}"));
    let home = folder(dir.path(), "proxy")?;
    fs::write(
        home.join(CONF),
        pool_config(Protocol::Redis, &pool, &addrs, &[]),
    )
    .during(|| "writing the configuration".to_owned())?;
    let command = nutcracker_command(&real.nutcracker)
        .replace("{conf}", &home.join(CONF).to_string_lossy())
        .replace("{dir}", &home.to_string_lossy());
    let mut proxy = Proxy::start(&command, &home, real.pinning)?;
    proxy.wait_for(&pool)?;
    let load = |op: &str, requests: u64, depth: u32| {
        format!(
            "redis-benchmark -q -p {pool_port} -c {} -r {KEYS} -d {VALUE_SIZE} -P {depth} -n {requests} -t {op}",
            real.clients
        )
    };
    let home = folder(dir.path(), "generator")?;
    let mut filling = Proxy::start(&load("set", 5 * KEYS, 16), &home, beside_us)?;
    filling.wait_for_end(FILL_TIMEOUT)?;
    let generator = Proxy::start(&load(real.op.name(), ENDLESS, real.depth), &home, beside_us)?;
    sleep(real.warmup);
    let mut pids = vec![proxy.pid(), generator.pid()];
    pids.extend(servers.iter().map(|(server, _)| server.pid()));
    let ports: Vec<u16> = servers.iter().map(|(_, port)| *port).collect();
    let before = Mark::now(&pids, &ports)?;
    sleep(real.duration);
    let after = Mark::now(&pids, &ports)?;
    let report = report(
        real,
        &before,
        &after,
        resident_kib(&proxy.pid().to_string()),
    );
    // Before what it talks to, which it would otherwise complain about.
    drop(generator);
    let (line, json) = report?;
    eprintln!("{line}");
    println!("{json}");
    Ok(())
}

const SERVERS: usize = 2;
const KEYS: u64 = 10_000;
const VALUE_SIZE: u32 = 32;
/// More than any run takes.
const ENDLESS: u64 = 1_000_000_000;
const FILL_TIMEOUT: Duration = Duration::from_secs(20);

fn folder(dir: &Path, name: &str) -> Outcome<PathBuf> {
    let path = dir.join(name);
    fs::create_dir(&path).during(|| "making a directory".to_owned())?;
    Ok(path)
}

fn start_redis(dir: &Path, pinning: Option<Pinning>) -> Outcome<(Proxy, u16)> {
    let port = free_port()?;
    let conf = dir.join("redis.conf");
    let text = format!(
        "bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\ndir {}\nlogfile {}\n",
        dir.display(),
        dir.join("redis.log").display()
    );
    fs::write(&conf, text).during(|| "writing the configuration".to_owned())?;
    let mut server = Proxy::start(&format!("redis-server {}", conf.display()), dir, pinning)?;
    server.wait_for(&Addr::Tcp(format!("127.0.0.1:{port}")))?;
    Ok((server, port))
}

/// A moment of the run, for differences.
struct Mark {
    at: Instant,
    /// Of the proxy, the generator and the servers.
    usages: Vec<Usage>,
    served: Served,
}

/// What all servers together say of themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Served {
    commands: u64,
    errors: u64,
    hits: u64,
    misses: u64,
}

impl Mark {
    fn now(pids: &[u32], ports: &[u16]) -> Outcome<Self> {
        let usages = pids.iter().map(|pid| Usage::of(&pid.to_string()));
        let mut mark = Self {
            at: Instant::now(),
            usages: usages.collect::<Outcome<_>>()?,
            served: Served::default(),
        };
        for port in ports {
            mark.served.add(&ask(*port)?);
        }
        Ok(mark)
    }
}

impl Served {
    fn add(&mut self, info: &str) {
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.commands += field("total_commands_processed:");
        self.errors += field("total_error_replies:");
        self.hits += field("keyspace_hits:");
        self.misses += field("keyspace_misses:");
    }
}

/// What a redis server says about itself.
fn ask(port: u16) -> Outcome<String> {
    let doing = || format!("asking the redis server at port {port}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).during(doing)?;
    stream.set_read_timeout(Some(ASK_TIMEOUT)).during(doing)?;
    stream.write_all(b"INFO stats\r\nQUIT\r\n").during(doing)?;
    let mut said = String::new();
    stream.read_to_string(&mut said).during(doing)?;
    Ok(said)
}

const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A line for people and one of JSON.
fn report(real: &Real, before: &Mark, after: &Mark, rss_kib: u64) -> Outcome<(String, String)> {
    let requests = after.served.commands - before.served.commands;
    let elapsed = num::nanos(after.at - before.at);
    let misses = after.served.misses - before.served.misses;
    if after.served.errors > before.served.errors {
        return Err(Failure::new("a server answered with an error"));
    }
    if requests == 0 || misses * MISSES_MAX_SHARE > requests {
        return Err(Failure::new(format!(
            "{requests} requests, of which {misses} found no key"
        )));
    }
    let usages: Vec<Usage> = after
        .usages
        .iter()
        .zip(&before.usages)
        .map(|(after, before)| after.since(before))
        .collect();
    let all: u64 = usages.iter().map(|usage| usage.cpu).sum();
    let proxy = usages.first().copied().unwrap_or_default();
    let generator = usages.get(1).copied().unwrap_or_default();
    let per_request = |nanos: u64| num::ratio(nanos, requests) / 1e3;
    let rate = num::ratio(requests, elapsed) * 1e9;
    let json = json!({
        "op": real.op.name(),
        "depth": real.depth,
        "clients": real.clients,
        "requests": requests,
        "seconds": num::float(elapsed) / 1e9,
        "requests_per_second": rate,
        "proxy_cpu_us_per_request": per_request(proxy.cpu),
        "generator_cpu_us_per_request": per_request(generator.cpu),
        "all_cpu_us_per_request": per_request(all),
        "proxy_utilisation": num::ratio(proxy.cpu, elapsed),
        "niceness": Priority::niceness(),
        "proxy_starvation": num::ratio(proxy.starved, elapsed),
        "proxy_rss_kib": rss_kib,
    });
    let line = format!(
        "redis-benchmark {}, depth {}: {rate:.0}/s; us CPU per request: proxy {:.2}, generator {:.2}, all {:.2}",
        real.op.name(),
        real.depth,
        per_request(proxy.cpu),
        per_request(generator.cpu),
        per_request(all)
    );
    Ok((line, json.to_string()))
}

/// One in so many reads may have been of a key that the filling missed.
const MISSES_MAX_SHARE: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_is_added_up() {
        let info = "$90\r\n# Stats\r\ntotal_commands_processed:12\r\nkeyspace_hits:7\r\nkeyspace_misses:1\r\n\
                    total_error_replies:3\r\n\r\n+OK\r\n";
        let mut served = Served::default();
        served.add(info);
        served.add(info);
        let expected = Served {
            commands: 24,
            errors: 6,
            hits: 14,
            misses: 2,
        };
        assert_eq!(served, expected);
    }
}
