//! Warnings of what is no mistake and yet seldom meant. `-t` prints them; the verdict on the file stays as it is.
//!
//! Names of servers are looked up side by side and only for so long: a check that hangs is of no use in a deployment.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use twemproxy_core::proto::Protocol;

use crate::address::find;
use crate::error::Place;
use crate::resolve::Pool;
use crate::{Listen, Lookup, ServerAddress};

/// Time for the look-ups of all servers together. Hosts without an answer by then are named.
pub(crate) const LOOKUP_WAIT: Duration = Duration::from_secs(2);
/// Look-ups at a time. With more, name servers begin to drop questions.
const LOOKUPS_MAX: usize = 16;
/// Warnings that are told one by one; nobody reads more. The rest is counted.
const WARNINGS_MAX: usize = 100;

/// One thing that may not be meant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Warning {
    place: Place,
    text: String,
}

/// The outcome of a look-up: the host's address, the reason why it has none, or nothing in time.
type Answers = HashMap<String, Result<(), String>>;

/// The warnings as lines for the operator, in the order of the file; `file` is its name.
pub(crate) fn lines(file: &str, pools: &[Pool], lookup: Lookup, wait: Duration) -> Vec<String> {
    let mut warnings = Vec::new();
    for pool in pools {
        warn_of_listen(pool, &mut warnings);
        warn_of_limits(pool, &mut warnings);
        warn_of_sockets(pool, &mut warnings);
    }
    warn_of_shared_servers(pools, &mut warnings);
    warn_of_hosts(pools, lookup, wait, &mut warnings);
    warnings.sort();
    let more = warnings.len().saturating_sub(WARNINGS_MAX);
    warnings.truncate(WARNINGS_MAX);
    let mut lines: Vec<String> = warnings
        .iter()
        .map(|Warning { place, text }| format!("{file}:{place}: warning: {text}"))
        .collect();
    if more > 0 {
        lines.push(format!("{file}: warning: {more} more warnings"));
    }
    lines
}

fn warn(warnings: &mut Vec<Warning>, place: Place, text: impl fmt::Display) {
    let text = text.to_string();
    warnings.push(Warning { place, text });
}

fn warn_of_listen(pool: &Pool, warnings: &mut Vec<Warning>) {
    let place = pool.place_of("listen");
    match &pool.draft.listen {
        Some(Listen::Tcp { host, .. }) if host == "*" => {
            let text = "'*' is the loopback interface alone; 0.0.0.0 and :: are all of them";
            warn(warnings, place, text);
        }
        Some(Listen::Unix { path, .. }) => warn_of_directory(path, place, warnings),
        _ => {}
    }
}

fn warn_of_limits(pool: &Pool, warnings: &mut Vec<Warning>) {
    if !pool.has("timeout") {
        let name = pool.name();
        let text = format!(
            "pool '{name}' has no timeout: requests to a server that does not answer wait for ever"
        );
        warn(warnings, pool.place, text);
    }
    let clients = pool.draft.core.client_connections;
    if clients > 0 {
        let text = format!(
            "client_connections is in force, {clients} clients at a time; nutcracker 0.5 ignored it"
        );
        warn(warnings, pool.place_of("client_connections"), text);
    }
}

fn warn_of_sockets(pool: &Pool, warnings: &mut Vec<Warning>) {
    for server in &pool.draft.servers {
        if let ServerAddress::Unix(path) = &server.address {
            warn_of_directory(path, server.place, warnings);
        }
    }
}

/// The socket itself may come later; its directory is there from the installation on.
fn warn_of_directory(socket: &Path, place: Place, warnings: &mut Vec<Warning>) {
    let Some(directory) = socket.parent() else {
        return;
    };
    if fs::metadata(directory).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        let directory = directory.display();
        warn(
            warnings,
            place,
            format!("there is no directory {directory}"),
        );
    }
}

/// A server in two pools; the later one is blamed, once for all that it shares with an earlier one.
fn warn_of_shared_servers(pools: &[Pool], warnings: &mut Vec<Warning>) {
    let mut in_file: Vec<&Pool> = pools.iter().collect();
    in_file.sort_by_key(|pool| pool.place);
    let mut owners: HashMap<&ServerAddress, &Pool> = HashMap::new();
    for pool in in_file {
        let mut shared: HashMap<&str, (&Pool, Place, &ServerAddress, usize)> = HashMap::new();
        let mut seen = HashSet::new();
        for server in &pool.draft.servers {
            let address = &server.address;
            let owner = *owners.entry(address).or_insert(pool);
            if owner.name() != pool.name() && seen.insert(address) && same_keys(owner, pool) {
                let first = (owner, server.place, address, 0);
                shared.entry(owner.name()).or_insert(first).3 += 1;
            }
        }
        for (owner, place, address, count) in shared.into_values() {
            let others = match count {
                1 => String::new(),
                _ => format!(" and {} more", count - 1),
            };
            let text = format!(
                "pool '{}' has a server of pool '{}', {address}{others}: they see each other's keys",
                pool.name(),
                owner.name()
            );
            warn(warnings, place, text);
        }
    }
}

/// Databases of a redis server have nothing in common.
fn same_keys(a: &Pool, b: &Pool) -> bool {
    let database = |pool: &Pool| match pool.draft.core.protocol {
        Protocol::Redis => Some(pool.draft.core.redis_db),
        Protocol::Memcache => None,
    };
    database(a) == database(b) || database(a).is_none() != database(b).is_none()
}

fn warn_of_hosts(pools: &[Pool], lookup: Lookup, wait: Duration, warnings: &mut Vec<Warning>) {
    let mut first_of: HashMap<&str, (Place, u16)> = HashMap::new();
    for server in pools.iter().flat_map(|pool| &pool.draft.servers) {
        if let ServerAddress::Tcp { host, port } = &server.address
            && host.parse::<IpAddr>().is_err()
        {
            let first = first_of.entry(host).or_insert((server.place, *port));
            *first = (*first).min((server.place, *port));
        }
    }
    let questions = first_of
        .iter()
        .map(|(host, (_, port))| ((*host).to_owned(), *port))
        .collect();
    let answers = look_up(questions, lookup, wait);
    for (host, (place, _)) in first_of {
        let reason = match answers.get(host) {
            Some(Ok(())) => continue,
            Some(Err(reason)) => reason.clone(),
            None => format!("no answer within {} seconds", wait.as_secs_f32()),
        };
        warn(
            warnings,
            place,
            format!("host '{host}' has no address now: {reason}"),
        );
    }
}

/// Waits until all are answered or the time is up. A look-up that hangs is left to itself.
fn look_up(questions: VecDeque<(String, u16)>, lookup: Lookup, wait: Duration) -> Answers {
    let until = Instant::now() + wait;
    let threads = questions.len().min(LOOKUPS_MAX);
    let queue = Arc::new(Mutex::new(questions));
    let (sender, answered) = channel();
    for _ in 0..threads {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        let thread = thread::Builder::new().name("lookup".to_owned());
        // With fewer threads fewer hosts are answered in time, which is told.
        let _ = thread.spawn(move || work_off(&queue, lookup, &sender));
    }
    drop(sender);
    let mut answers = Answers::new();
    while let Ok((host, answer)) =
        answered.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        answers.insert(host, answer);
    }
    lock(&queue).clear();
    answers
}

fn work_off(
    queue: &Mutex<VecDeque<(String, u16)>>,
    lookup: Lookup,
    answers: &Sender<(String, Result<(), String>)>,
) {
    loop {
        let Some((host, port)) = lock(queue).pop_front() else {
            return;
        };
        let answer = find(&host, port, lookup).map(drop);
        // Nobody waits any more when the time is up.
        let _ = answers.send((host, answer));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
