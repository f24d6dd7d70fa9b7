//! The bytes of an answer: the original's fields, order and spacing, which never change.
//!
//! A blank follows each comma between values and the colon before an object; none follows the
//! comma after an object. Unlike the original, names are escaped.

use std::fmt::{self, Write};

use twemproxy_core::counters::Since;

use super::snapshot::{Row, Snapshot};

/// compat: clients tell versions by it.
const VERSION: &str = "0.5.0";

/// One line of JSON.
pub(super) fn render(snapshot: &Snapshot<'_>) -> String {
    let mut out = String::with_capacity(4096);
    write_object(&mut out, snapshot).expect("a String takes every write");
    out
}

fn write_object(out: &mut String, snapshot: &Snapshot<'_>) -> fmt::Result {
    write!(
        out,
        r#"{{"service":"nutcracker", "source":{}, "version":"{VERSION}", "#,
        Quoted(snapshot.source)
    )?;
    write!(
        out,
        r#""uptime":{}, "timestamp":{}, "total_connections":{}, "curr_connections":{}"#,
        snapshot.uptime, snapshot.timestamp, snapshot.total_connections, snapshot.curr_connections,
    )?;
    for (index, pool) in snapshot.pools.iter().enumerate() {
        // compat: a blank before the first pool, as before the first server, and no other.
        out.push_str(if index == 0 { ", " } else { "," });
        write_open(out, pool.name, &pool.rows)?;
        for (position, server) in pool.servers.iter().enumerate() {
            out.push_str(if position == 0 { ", " } else { "," });
            write_open(out, server.name, &server.rows)?;
            out.push('}');
        }
        out.push('}');
    }
    out.push_str("}\n");
    Ok(())
}

/// `"name": {"metric":value, ...`, with the metrics of 0.5.
fn write_open(out: &mut String, name: &str, rows: &[Row]) -> fmt::Result {
    write!(out, "{}: {{", Quoted(name))?;
    let rows = rows.iter().filter(|row| row.metric.since == Since::V05);
    for (index, row) in rows.enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(out, r#"{comma}"{}":{}"#, row.metric.name, row.value)?;
    }
    Ok(())
}

/// A JSON string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(out, "\\{c}")?,
                '\0'..='\x1f' => write!(out, "\\u{:04x}", u32::from(c))?,
                _ => out.write_char(c)?,
            }
        }
        out.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::snapshot;
    use super::*;
    use twemproxy_core::config::{Config, PoolConfig, ServerConfig};
    use twemproxy_core::counters::{Counters, Kind, Metric};
    use twemproxy_core::ids::ServerId;
    use twemproxy_core::owner::HealthOwner;
    use twemproxy_core::proto::Protocol;

    fn pool(name: &str, servers: &[&str]) -> PoolConfig {
        let server = |&name: &&str| ServerConfig {
            name: name.into(),
            weight: 1,
        };
        PoolConfig {
            servers: servers.iter().map(server).collect(),
            ..PoolConfig::new(name, Protocol::Redis)
        }
    }

    fn render_two_pools(workers: usize, touch: impl Fn(usize, &Counters)) -> String {
        let config = Config {
            pools: vec![
                pool("alpha", &["server1", "server2"]),
                pool("beta", &["b\"1"]),
            ],
            ..Config::default()
        };
        let topologies = HealthOwner::new(&config).topologies();
        let counters: Vec<_> = (0..workers)
            .map(|worker| {
                let counters = Counters::new(&topologies);
                touch(worker, &counters);
                Arc::new(counters)
            })
            .collect();
        render(&Snapshot {
            source: "host1",
            uptime: 7,
            timestamp: 1_700_000_000,
            total_connections: snapshot::sum(counters.iter().map(|c| c.total_connections.value())),
            curr_connections: snapshot::sum(counters.iter().map(|c| c.curr_connections.value())),
            pools: snapshot::pools(&config, &topologies, &counters),
        })
    }

    // C136 D23
    #[test]
    fn the_layout_is_the_originals_byte_for_byte() {
        let zero_server = concat!(
            r#"{"server_eof":0, "server_err":0, "server_timedout":0, "server_connections":0, "#,
            r#""server_ejected_at":0, "requests":0, "request_bytes":0, "responses":0, "#,
            r#""response_bytes":0, "in_queue":0, "in_queue_bytes":0, "out_queue":0, "#,
            r#""out_queue_bytes":0}"#
        );
        let zero_pool = concat!(
            r#"{"client_eof":0, "client_err":0, "client_connections":0, "server_ejects":0, "#,
            r#""forward_error":0, "fragments":0"#
        );
        let want = [
            r#"{"service":"nutcracker", "source":"host1", "version":"0.5.0", "uptime":7, "#,
            r#""timestamp":1700000000, "total_connections":0, "curr_connections":0, "#,
            &format!(r#""alpha": {zero_pool}, "server1": {zero_server},"#),
            &format!(r#""server2": {zero_server}}},"#),
            &format!(r#""beta": {zero_pool}, "b\"1": {zero_server}}}}}"#),
            "\n",
        ];
        assert_eq!(render_two_pools(1, |_, _| {}), want.concat());
    }

    #[test]
    fn workers_are_summed_and_the_latest_time_stamp_wins() {
        let text = render_two_pools(3, |worker, counters| {
            let n = u64::try_from(worker).unwrap() + 1;
            counters.total_connections.add(10 * n);
            counters.curr_connections.add(n);
            counters.pools[1].client_eof.add(n);
            counters.servers[ServerId::initial(2)].requests.add(n);
            counters.servers[ServerId::initial(2)]
                .server_ejected_at
                .set(1000 * (n % 3));
        });
        assert!(text.contains(r#""total_connections":60, "curr_connections":6, "#));
        assert!(text.contains(r#""beta": {"client_eof":6, "#), "{text}");
        assert!(
            text.contains(r#""server_ejected_at":2000, "requests":6, "#),
            "{text}"
        );
        assert!(text.contains(r#""alpha": {"client_eof":0, "#), "{text}");
    }

    #[test]
    fn counters_that_0_5_has_not_are_left_out() {
        const METRIC: Metric = Metric {
            name: "requests",
            kind: Kind::Counter,
            since: Since::V05,
            help: "",
        };
        const ADDED: Metric = Metric {
            name: "added",
            since: Since::Ours,
            ..METRIC
        };
        let mut text = String::new();
        let rows = [&ADDED, &METRIC, &ADDED].map(|metric| Row { metric, value: 7 });
        write_open(&mut text, "s", &rows).unwrap();
        assert_eq!(text, r#""s": {"requests":7"#);
    }

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        let quoted = Quoted("a\"b\\c\n\u{e4}").to_string();
        assert_eq!(quoted, "\"a\\\"b\\\\c\\u000a\u{e4}\"");
    }
}
