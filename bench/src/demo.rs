//! The demonstration: keys through both pools, where they went, what the statistics say.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::failure::{During, Failure, Outcome};
use crate::net::{Addr, Stream};

/// Where everything listens. The servers are fresh: whatever they hold came through the proxy.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) redis_pool: Addr,
    pub(crate) redis_servers: Vec<Addr>,
    pub(crate) memcache_pool: Addr,
    pub(crate) memcache_servers: Vec<Addr>,
    pub(crate) stats: Addr,
    pub(crate) keys: u32,
}

/// Shows the proxy at work; fails if one key or one count is not as it must be.
pub(crate) fn demo(demo: &Demo) -> Outcome<()> {
    println!(
        "redis: {} keys through the pool at {}",
        demo.keys, demo.redis_pool
    );
    exercise(&demo.redis_pool, demo.keys, &REDIS)?;
    println!(
        "memcached: {} keys through the pool at {}",
        demo.keys, demo.memcache_pool
    );
    exercise(&demo.memcache_pool, demo.keys, &MEMCACHE)?;

    println!("\nwhere the keys went");
    show_share("redis", &demo.redis_servers, demo.keys, redis_key_count)?;
    show_share(
        "memcached",
        &demo.memcache_servers,
        demo.keys,
        memcache_key_count,
    )?;

    let stats = fresh_stats(demo)?;
    println!("\nstatistics from {}", demo.stats);
    show_stats(&stats);
    Ok(())
}

/// How one protocol writes and reads; each function adds a request to the first or checks the reply to it.
struct Language {
    write: fn(&mut Vec<u8>, u32),
    written: fn(&mut Wire, u32) -> Outcome<()>,
    /// Reads `BATCH` keys from this one on.
    read: fn(&mut Vec<u8>, u32),
    was_read: fn(&mut Wire, u32) -> Outcome<()>,
}

const REDIS: Language = Language {
    write: |out, n| {
        let (key, value) = pair(n);
        push_command(out, &["SET", &key, &value]);
    },
    written: |wire, _| wire.expect_line("+OK"),
    read: |out, first| {
        let keys: Vec<String> = (first..first + BATCH).map(|n| pair(n).0).collect();
        let mut words = vec!["MGET"];
        words.extend(keys.iter().map(String::as_str));
        push_command(out, &words);
    },
    was_read: |wire, first| {
        wire.expect_line(&format!("*{BATCH}"))?;
        (first..first + BATCH).try_for_each(|n| {
            let (_, value) = pair(n);
            wire.expect_line(&format!("${}", value.len()))?;
            wire.expect_line(&value)
        })
    },
};

const MEMCACHE: Language = Language {
    write: |out, n| {
        let (key, value) = pair(n);
        out.extend_from_slice(format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
    },
    written: |wire, _| wire.expect_line("STORED"),
    read: |out, first| {
        out.extend_from_slice(b"get");
        for n in first..first + BATCH {
            out.extend_from_slice(format!(" {}", pair(n).0).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    },
    was_read: |wire, first| {
        // The values come grouped by server.
        let mut missing: Vec<(String, String)> = (first..first + BATCH).map(pair).collect();
        while !missing.is_empty() {
            let line = wire.line()?;
            let at = missing
                .iter()
                .position(|(key, value)| line == format!("VALUE {key} 0 {}", value.len()))
                .ok_or_else(|| Failure::new(format!("'{line}' in reply to a get")))?;
            let (_, value) = missing.swap_remove(at);
            wire.expect_line(&value)?;
        }
        wire.expect_line("END")
    },
};

/// Keys per multi-key read.
pub(crate) const BATCH: u32 = 10;

/// Requests that are sent before their replies are read.
const WINDOW: u32 = 200;

fn pair(n: u32) -> (String, String) {
    (format!("demo:{n}"), format!("value of demo:{n}"))
}

fn push_command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

fn exercise(pool: &Addr, keys: u32, language: &Language) -> Outcome<()> {
    let mut wire = Wire::connect(pool)?;
    let writes: Vec<u32> = (0..keys).collect();
    pipeline(
        &mut wire,
        "wrote",
        &writes,
        keys,
        (language.write, language.written),
    )?;
    // Keys that do not fill a batch are asked for with the last full one.
    let batches: Vec<u32> = (0..keys.div_ceil(BATCH))
        .map(|batch| (batch * BATCH).min(keys.saturating_sub(BATCH)))
        .collect();
    pipeline(
        &mut wire,
        "read",
        &batches,
        keys,
        (language.read, language.was_read),
    )
}

type Request = fn(&mut Vec<u8>, u32);
type Reply = fn(&mut Wire, u32) -> Outcome<()>;

fn pipeline(
    wire: &mut Wire,
    verb: &str,
    work: &[u32],
    keys: u32,
    (request, reply): (Request, Reply),
) -> Outcome<()> {
    let per_window = usize::try_from(WINDOW).during(|| "the window".to_owned())?;
    let windows = work.len().div_ceil(per_window);
    let mut done = 0;
    for (index, window) in work.chunks(per_window).enumerate() {
        let mut bytes = Vec::new();
        for n in window {
            request(&mut bytes, *n);
        }
        wire.send(&bytes)?;
        for n in window {
            reply(wire, *n)?;
        }
        done += window.len();
        if (index + 1) % windows.div_ceil(4) == 0 || index + 1 == windows {
            println!(
                "  {verb} {} % of {keys} keys, all correct",
                done * 100 / work.len()
            );
        }
    }
    Ok(())
}

/// A blocking connection that reads lines.
struct Wire {
    stream: Stream,
    input: Vec<u8>,
    at: usize,
}

impl Wire {
    fn connect(addr: &Addr) -> Outcome<Self> {
        let doing = || format!("connecting to {addr}");
        let stream = Stream::connect(addr).during(doing)?;
        stream.set_nonblocking(false).during(doing)?;
        match &stream {
            Stream::Tcp(tcp) => tcp.set_read_timeout(Some(ANSWER_TIMEOUT)),
            Stream::Unix(unix) => unix.set_read_timeout(Some(ANSWER_TIMEOUT)),
        }
        .during(doing)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            at: 0,
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let sent = self.stream.send(left).during(|| "sending".to_owned())?;
            left = &left[sent.unwrap_or(0)..];
        }
        Ok(())
    }

    /// Reads more; `false` at the end.
    fn fill(&mut self) -> Outcome<bool> {
        let mut block = [0; 16 * 1024];
        match self
            .stream
            .recv(&mut block)
            .during(|| "reading".to_owned())?
        {
            None => Err(Failure::new(format!(
                "no answer in {} s",
                ANSWER_TIMEOUT.as_secs()
            ))),
            Some(0) => Ok(false),
            Some(n) => {
                self.input.drain(..self.at);
                self.at = 0;
                self.input.extend_from_slice(&block[..n]);
                Ok(true)
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> Outcome<String> {
        loop {
            let rest = &self.input[self.at..];
            if let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.at += end + 2;
                return Ok(line);
            }
            if !self.fill()? {
                return Err(Failure::new("the connection was closed"));
            }
        }
    }

    fn expect_line(&mut self, expected: &str) -> Outcome<()> {
        let line = self.line()?;
        if line == expected {
            Ok(())
        } else {
            Err(Failure::new(format!("'{line}' instead of '{expected}'")))
        }
    }

    /// All that comes until the other side closes.
    fn rest(mut self) -> Outcome<Vec<u8>> {
        while self.fill()? {}
        Ok(self.input)
    }
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

fn redis_key_count(server: &Addr) -> Outcome<u64> {
    let mut wire = Wire::connect(server)?;
    wire.send(b"*1\r\n$6\r\nDBSIZE\r\n")?;
    let line = wire.line()?;
    line.strip_prefix(':')
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| Failure::new(format!("'{line}' in reply to DBSIZE")))
}

fn memcache_key_count(server: &Addr) -> Outcome<u64> {
    let mut wire = Wire::connect(server)?;
    wire.send(b"stats\r\n")?;
    loop {
        let line = wire.line()?;
        if let Some(count) = line.strip_prefix("STAT curr_items ") {
            return count.parse().during(|| format!("reading '{line}'"));
        }
        if line == "END" {
            return Err(Failure::new(
                "the server does not say how many items it has",
            ));
        }
    }
}

fn show_share(
    name: &str,
    servers: &[Addr],
    keys: u32,
    count: fn(&Addr) -> Outcome<u64>,
) -> Outcome<()> {
    let mut total = 0;
    for server in servers {
        let held = count(server).during(|| format!("asking {server}"))?;
        total += held;
        let share = held * 100 / u64::from(keys);
        println!("  {name:<10} {server:<24} {held:>7} keys  {share:>3} %");
    }
    if total == u64::from(keys) {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "the {name} servers hold {total} keys instead of {keys}"
        )))
    }
}

/// The statistics, as soon as they show what was just done.
fn fresh_stats(demo: &Demo) -> Outcome<Map<String, Value>> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let text = Wire::connect(&demo.stats)?.rest()?;
        let stats: Map<String, Value> =
            serde_json::from_slice(&text).during(|| "reading the statistics".to_owned())?;
        let requests: u64 = servers_of(&stats)
            .map(|(_, _, server)| number(server, "requests"))
            .sum();
        // Each key was written once in each pool.
        if requests >= 2 * u64::from(demo.keys) {
            return Ok(stats);
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!(
                "the statistics know only {requests} requests"
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn show_stats(stats: &Map<String, Value>) {
    for name in [
        "service",
        "version",
        "uptime",
        "total_connections",
        "curr_connections",
    ] {
        if let Some(value) = stats.get(name) {
            println!(
                "  {name:<20} {}",
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            );
        }
    }
    for (pool, metrics) in pools_of(stats) {
        let shown: Vec<String> = [
            "client_connections",
            "client_eof",
            "client_err",
            "forward_error",
            "fragments",
        ]
        .iter()
        .map(|name| format!("{name} {}", number(metrics, name)))
        .collect();
        println!("  pool {pool}: {}", shown.join(", "));
    }
    println!(
        "  {:<24} {:>9} {:>13} {:>9} {:>14} {:>6}",
        "server", "requests", "request_bytes", "responses", "response_bytes", "errors"
    );
    for (pool, name, server) in servers_of(stats) {
        let errors = number(server, "server_err") + number(server, "server_timedout");
        println!(
            "  {:<24} {:>9} {:>13} {:>9} {:>14} {errors:>6}",
            format!("{pool} {name}"),
            number(server, "requests"),
            number(server, "request_bytes"),
            number(server, "responses"),
            number(server, "response_bytes"),
        );
    }
    // Nothing can be done about a closed standard output here.
    let _ = io::stdout().flush();
}

fn pools_of(stats: &Map<String, Value>) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
    stats
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_object()?)))
}

fn servers_of(
    stats: &Map<String, Value>,
) -> impl Iterator<Item = (&String, &String, &Map<String, Value>)> {
    pools_of(stats).flat_map(|(pool, metrics)| {
        metrics
            .iter()
            .filter_map(move |(name, value)| Some((pool, name, value.as_object()?)))
    })
}

fn number(metrics: &Map<String, Value>, name: &str) -> u64 {
    metrics.get(name).and_then(Value::as_u64).unwrap_or(0)
}
