//! The texts of `-V`, `-h` and `-D`, byte for byte those of nutcracker 0.5, and our additions.

use std::fmt::Write;

use twemproxy_core::counters::{Metric, PoolCounters, ServerCounters, Since};

/// The version whose interface this program has.
const NUTCRACKER_VERSION: &str = "0.5.0";
const EVENT_BACKEND: &str = if cfg!(target_os = "linux") {
    "epoll"
} else {
    "kqueue"
};

// compat: lines end in CRLF, the last one of each block has a bare LF after it, and so has `-D`.
const USAGE: &str = "\
Usage: nutcracker [-?hVdDt] [-v verbosity level] [-o output file]\r
                  [-c conf file] [-s stats port] [-a stats addr]\r
                  [-i stats interval] [-p pid file] [-m mbuf size]\r

Options:\r
  -h, --help             : this help\r
  -V, --version          : show version and exit\r
  -t, --test-conf        : test configuration for syntax errors and exit\r
  -d, --daemonize        : run as a daemon\r
  -D, --describe-stats   : print stats description and exit
  -v, --verbose=N        : set logging level (default: 5, min: 0, max: 11)\r
  -o, --output=S         : set logging file (default: stderr)\r
  -c, --conf-file=S      : set configuration file (default: conf/nutcracker.yml)\r
  -s, --stats-port=N     : set stats monitoring port (default: 22222)\r
  -a, --stats-addr=S     : set stats monitoring ip (default: 0.0.0.0)\r
  -i, --stats-interval=N : set stats aggregation interval in msec (default: 30000 msec)\r
  -p, --pid-file=S       : set pid file (default: off)\r
  -m, --mbuf-size=N      : set size of mbuf chunk in bytes (default: 16384 bytes)\r

";

/// A block of its own, so that the text above stays what scripts know.
const USAGE_NEW: &str = "\
Options that nutcracker 0.5 does not have:\r
      --workers=N        : set number of worker threads (default: 1, max: 1024)\r
      --drain-timeout=N  : set time to finish requests at the end in msec (default: 10000 msec)\r

";

/// The first lines of `-V`, `-h` and `-D`. Our own version stands where debug builds of 0.5 had a
/// line of theirs: before the empty one.
pub(super) fn banner() -> String {
    let ours = env!("CARGO_PKG_VERSION");
    format!(
        "This is nutcracker-{NUTCRACKER_VERSION}\n\
         async event backend: {EVENT_BACKEND}\n\
         twemproxy in Rust, version {ours}\n\n"
    )
}

/// The text of `-h`, also shown after a bad option.
pub(super) fn usage() -> String {
    [USAGE, USAGE_NEW].concat()
}

/// The text of `-D`.
pub(super) fn describe_stats() -> String {
    let pool = table("pool", PoolCounters::METRICS);
    let server = table("server", ServerCounters::METRICS);
    format!("{pool}\n{server}")
}

fn table(title: &str, metrics: &[Metric]) -> String {
    let mut text = format!("{title} stats:\n");
    // compat: what nutcracker 0.5 says, and nothing more.
    let shown = metrics.iter().filter(|metric| metric.since == Since::V05);
    for Metric { name, help, .. } in shown {
        writeln!(text, "  {name:<20}\"{help}\"").expect("a string takes everything");
    }
    text
}
