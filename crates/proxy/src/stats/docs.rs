//! `docs/stats.md`, generated from the counter tables. After a change of a table, run the tests of
//! this package once with `UPDATE_DOCS=1`.

use std::fmt::Write;
use std::path::Path;

use twemproxy_core::counters::{Kind, Metric, PoolCounters, ServerCounters, Since};

const INTRODUCTION: &str = "\
<!-- Generated from the counter tables; run the tests with UPDATE_DOCS=1 to renew it. -->

# Statistics

Whoever connects to the statistics port (`-a` and `-s`; a unix socket if `-a` is an absolute path) gets
one JSON object and a line feed, and the connection is closed. Nothing is read. Names, order and spacing
are those of nutcracker 0.5 and never gain a field.

```
{\"service\":\"nutcracker\", \"source\":\"HOST\", \"version\":\"0.5.0\", \"uptime\":7, \"timestamp\":1700000000, \"total_connections\":5,
 \"curr_connections\":4, \"POOL\": {POOL METRICS, \"SERVER\": {SERVER METRICS},\"SERVER\": {...}}}
```

(one line on the wire). Pools and servers stand in the order of their names: shorter first, then by bytes.
Every number is read when it is asked for, summed over all workers; gauges are never negative.

| field | meaning |
|---|---|
| `service`, `source`, `version` | `nutcracker`, the host's name, the version of nutcracker that this is a drop-in for |
| `uptime`, `timestamp` | seconds since the start, seconds since 1970 |
| `total_connections` | listeners, accepted clients and attempted server connections so far |
| `curr_connections` | the same three kinds now |

A response to a client that is gone, and what the proxy asks or answers on its own account (AUTH, SELECT,
probes, PING, errors), count in no server's `requests` or `responses`. A `noreply` request has no response.
";

fn stats_markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    table(&mut text, "Per pool", PoolCounters::METRICS);
    table(&mut text, "Per server", ServerCounters::METRICS);
    text
}

fn table(text: &mut String, title: &str, metrics: &[Metric]) {
    writeln!(
        text,
        "\n## {title}\n\n| metric | kind | meaning |\n|---|---|---|"
    )
    .unwrap();
    // Nothing shows the others yet.
    let shown = metrics.iter().filter(|metric| metric.since == Since::V05);
    for metric in shown {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Timestamp => "time stamp",
        };
        let help = metric.help.trim_start_matches("# ");
        writeln!(text, "| `{}` | {kind} | {help} |", metric.name).unwrap();
    }
}

#[test]
fn the_page_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/stats.md");
    let generated = stats_markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == generated,
        "docs/stats.md is stale: run these tests with UPDATE_DOCS=1"
    );
}
