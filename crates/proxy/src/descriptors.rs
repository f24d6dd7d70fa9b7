//! How many descriptors the process may have, and how many of them clients may take.
//!
//! A client too many waits in the kernel's backlog; a server connection too many is an error for a
//! client that was served until then. So servers come first, as do the log and the statistics.

use rustix::process::{Resource, getrlimit, setrlimit};
use twemproxy_config::ProxyConfig;

use crate::limits::{DESCRIPTORS_PER_WORKER, DESCRIPTORS_RESERVED};
use crate::log::{Level, log};
use crate::net::errno;

/// Takes all the descriptors that the system allows; returns their number, `None` for any number.
pub(crate) fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    if limit.current == limit.maximum {
        return limit.current;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        let text = errno::text(&error.into());
        log!(
            Level::Warning,
            "raising the limit of open files failed, ignored: {text}"
        );
        return before;
    }
    limit.current
}

/// The most clients that the process takes with this `limit` of open files.
pub(crate) fn clients_max(limit: Option<u64>, config: &ProxyConfig, workers: usize) -> u64 {
    let Some(limit) = limit else {
        return u64::MAX;
    };
    limit - reserve(config, workers).min(limit / 2)
}

/// Descriptors that are not for clients: one for every connection to a server that may be open at once, and
/// one more for each server: its probe, or the look-up of its name.
fn reserve(config: &ProxyConfig, workers: usize) -> u64 {
    let widen = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let workers = widen(workers);
    let of_pool = |pool: &twemproxy_core::config::PoolConfig| {
        let connections = u64::from(pool.server_connections).saturating_mul(workers);
        widen(pool.servers.len()).saturating_mul(connections.saturating_add(1))
    };
    let of_servers = config.core.pools.iter().map(of_pool);
    let of_workers = DESCRIPTORS_PER_WORKER.saturating_mul(workers.saturating_sub(1));
    let others = widen(config.pools.len())
        .saturating_add(DESCRIPTORS_RESERVED)
        .saturating_add(of_workers);
    of_servers.fold(others, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(server_connections: u32) -> ProxyConfig {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yml");
        let pool = |name, port| {
            format!(
                "{name}:\n  listen: 127.0.0.1:{port}\n  server_connections: {server_connections}\n  servers:\n   \
                 - 127.0.0.1:2:1\n   - 127.0.0.1:3:1\n"
            )
        };
        std::fs::write(&path, pool("a", 4) + &pool("b", 5)).unwrap();
        twemproxy_config::load(&path, 1 << 30).unwrap()
    }

    #[test]
    fn servers_listeners_and_the_process_itself_come_before_clients() {
        let one = config(1);
        // 4 servers with 2 descriptors each, 2 listeners, 32 others.
        assert_eq!(clients_max(Some(1000), &one, 1), 1000 - 42);
        // 4 servers with 4 connections of each of 3 workers and one more.
        assert_eq!(
            clients_max(Some(1000), &config(4), 3),
            1000 - (4 * 13 + 2 + 32 + 2 * 2)
        );
        assert_eq!(clients_max(Some(64), &one, 1), 32, "half at most");
        assert_eq!(clients_max(Some(65), &one, 1), 33);
        assert_eq!(clients_max(Some(1), &one, 1), 1);
        assert_eq!(clients_max(None, &one, 1), u64::MAX);
        assert_eq!(
            clients_max(Some(1000), &config(i32::MAX.unsigned_abs()), 16),
            500
        );
    }
}
