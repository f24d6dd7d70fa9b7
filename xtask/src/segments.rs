//! TCP segments per request, in all: between clients, proxy and servers, each way.
//!
//! The load tool and the proxy run in a network name space of their own, whose counters count nobody else. Segments
//! with data are counted, by their delivery: those without are acknowledgements that a timer sends when the peer is
//! late, so their number depends on what else the machine does. System calls that are saved by sending more often
//! show here: one request at depth 1 needs two segments for its client, and shares those to and from its server.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::child::finish;
use crate::tools::{Failure, Outcome, release};

/// Brings up the loopback, runs the command and shows the counters behind its report.
const IN_NAME_SPACE: &str = r#"ip link set lo up && "$@" && cat /proc/net/netstat"#;
const COUNTER: &str = "TCPDelivered";
const RUN_MAX: Duration = Duration::from_secs(30);

/// Segments with data per request of a proxy with nutcracker's options, with so many requests in flight per client.
pub(crate) fn per_request(program: &Path, depth: &str) -> Outcome<f64> {
    let (few, many) = if depth == "1" {
        (2_000, 10_000)
    } else {
        (10_000, 100_000)
    };
    let (requests_short, short) = run(program, depth, few)?;
    let (requests_long, long) = run(program, depth, many)?;
    Ok((long - short) / (requests_long - requests_short))
}

/// One run: measured requests, and all segments.
fn run(program: &Path, depth: &str, requests: u64) -> Outcome<(f64, f64)> {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--net", "sh", "-c", IN_NAME_SPACE, "sh"])
        .arg(release("load"))
        .args(["run", "--quiet", "--cpus", "none", "--warmup", "0"])
        .args(["--seconds", "15", "--depth", depth])
        .args(["--requests", &requests.to_string(), "--nutcracker"])
        .arg(program);
    let (succeeded, out, said) = finish(&mut command, RUN_MAX).map_err(|reason| {
        Failure::new(format!(
            "the load tool in a name space (needs ip and unshare): {reason}"
        ))
    })?;
    if !succeeded {
        return Err(Failure::new(said.trim().to_owned()));
    }
    counts(&out).ok_or_else(|| Failure::new(format!("no requests and no {COUNTER} in:\n{out}")))
}

/// Requests of the report in the first line, and the counter of the table behind it.
fn counts(out: &str) -> Option<(f64, f64)> {
    let report: serde_json::Value = serde_json::from_str(out.lines().next()?).ok()?;
    let mut rows = out.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = rows.next()?.split_whitespace();
    let numbers = rows.next()?.split_whitespace();
    let (_, number) = names.zip(numbers).find(|(name, _)| *name == COUNTER)?;
    Some((report["requests"].as_f64()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let out = "{\"requests\":4001}\n\
                   TcpExt: SyncookiesSent TCPDelivered TCPDeliveredCE\n\
                   TcpExt: 0 9489 7\n\
                   IpExt: InNoRoutes\n\
                   IpExt: 0\n";
        assert_eq!(counts(out), Some((4001.0, 9489.0)));
        assert_eq!(counts("{\"requests\":1}\nTcpExt: X\nTcpExt: 1\n"), None);
        assert_eq!(counts("load: no proxy\n"), None);
    }
}
