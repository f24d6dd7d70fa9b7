//! From the file as typed to a configuration that can be used: values read by the table, then
//! checked against each other, in the order and the words of nutcracker 0.5. The first fault ends it.

use std::cmp::Ordering;

use twemproxy_core::config::{Config, EjectPolicy, PoolConfig};
use twemproxy_core::limits::POOL_SERVERS_MAX;
use twemproxy_core::proto::Protocol;

use crate::error::{Fault, Place};
use crate::raw::{RawFile, RawSection};
use crate::table::{Directive, GLOBAL, GlobalDraft, POOL, PoolDraft, ServerDraft};
use crate::{Lookup, Machine, PoolAddresses, ProxyConfig};

/// A file in which nothing is wrong.
pub(crate) struct Resolved {
    /// In the order of the statistics.
    pub(crate) pools: Vec<Pool>,
    memory_limit: u64,
}

/// Checks the whole file; `file` is its name for messages.
pub(crate) fn resolve(file: &str, raw: &RawFile, machine: &Machine) -> Result<Resolved, Fault> {
    let mut global = GlobalDraft::default();
    if let Some(section) = &raw.global {
        read_section(GLOBAL, section, &mut global)?;
    }
    let mut pools = Vec::with_capacity(raw.pools.len());
    for section in &raw.pools {
        pools.push(Pool::read(section, machine.lookup)?);
    }
    if pools.is_empty() {
        return Err(Fault::new(
            Place::START,
            format!("conf: '{file}' has no pools"),
        ));
    }
    for pool in &mut pools {
        pool.check()?;
    }
    check_listen_addresses(&mut pools)?;
    // compat: this is the order of pools in the statistics and when they start to listen.
    pools.sort_by(|a, b| by_name(a.name(), b.name()));
    check_pool_names(file, &pools)?;

    Ok(Resolved {
        pools,
        memory_limit: match global.memory_limit {
            0 => machine.memory / 2,
            limit => limit,
        },
    })
}

impl Resolved {
    pub(crate) fn finish(self) -> ProxyConfig {
        let (cores, addresses) = self.pools.into_iter().map(Pool::finish).unzip();
        ProxyConfig {
            core: Config {
                pools: cores,
                memory_limit: self.memory_limit,
                // The shell knows the clock and the process.
                wall_clock_origin: 0,
                process_id: 0,
            },
            pools: addresses,
        }
    }
}

/// The order of servers and pools everywhere: shorter names first, then by bytes.
fn by_name(a: &str, b: &str) -> Ordering {
    (a.len(), a).cmp(&(b.len(), b))
}

/// Where the values of a section stand.
struct Places(Vec<(&'static str, Place)>);

impl Places {
    fn of(&self, name: &str) -> Option<Place> {
        let mut found = self.0.iter().filter(|(seen, _)| *seen == name);
        found.next().map(|(_, place)| *place)
    }
}

fn read_section<T>(
    table: &'static [Directive<T>],
    section: &RawSection,
    draft: &mut T,
) -> Result<Places, Fault> {
    let mut places = Places(Vec::new());
    for typed in &section.directives {
        let key = typed.key.value.as_str();
        let directive = table.iter().find(|directive| directive.name == key);
        let directive =
            directive.ok_or_else(|| Fault::directive(typed.key.place, key, "is unknown"))?;
        // compat: a list of one is as good as a plain value, a longer one repeats the directive.
        for (position, text) in typed.values.iter().enumerate() {
            if !directive.is_list() && places.of(key).is_some() {
                let place = match position {
                    0 => typed.key.place,
                    _ => text.place,
                };
                return Err(Fault::directive(place, key, "is a duplicate"));
            }
            directive
                .apply(draft, text)
                .map_err(|reason| Fault::directive(text.place, key, reason))?;
            places.0.push((directive.name, text.place));
        }
    }
    Ok(places)
}

/// A pool on its way: read, then checked, then finished.
pub(crate) struct Pool {
    /// Of its key in the file.
    pub(crate) place: Place,
    /// As typed.
    listen: String,
    places: Places,
    pub(crate) draft: PoolDraft,
}

impl Pool {
    fn read(section: &RawSection, lookup: Lookup) -> Result<Self, Fault> {
        let name = &section.name;
        if name.value.is_empty() {
            return Err(Fault::new(name.place, "conf: the name of a pool is empty"));
        }
        let mut draft = PoolDraft::new(&name.value, lookup);
        let places = read_section(POOL, section, &mut draft)?;
        let mut directives = section.directives.iter();
        let listen = directives
            .find(|typed| typed.key.value == "listen")
            .and_then(|typed| typed.values.first())
            .map_or_else(String::new, |text| text.value.clone());
        Ok(Self {
            place: name.place,
            listen,
            places,
            draft,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.draft.core.name
    }

    fn listen_place(&self) -> Place {
        self.place_of("listen")
    }

    pub(crate) fn has(&self, directive: &str) -> bool {
        self.places.of(directive).is_some()
    }

    pub(crate) fn place_of(&self, directive: &str) -> Place {
        self.places.of(directive).unwrap_or(self.place)
    }

    /// Sorts the servers; compat: in exactly this order of checks.
    fn check(&mut self) -> Result<(), Fault> {
        if self.draft.listen.is_none() {
            return Err(Fault::directive(self.place, "listen:", "is missing"));
        }
        if self.draft.core.server_connections == 0 {
            let place = self.place_of("server_connections");
            return Err(Fault::directive(
                place,
                "server_connections:",
                "cannot be 0",
            ));
        }
        let policy = self.draft.core.auto_eject_policy;
        if policy != EjectPolicy::Rehash && !self.draft.core.auto_eject_hosts {
            return Err(Fault::directive(
                self.place_of("auto_eject_policy"),
                "auto_eject_policy:",
                "is only valid with auto_eject_hosts: true",
            ));
        }
        if self.draft.core.redis_auth.is_some() && self.draft.core.protocol != Protocol::Redis {
            return Err(Fault::directive(
                self.place_of("redis_auth"),
                "redis_auth:",
                "is only valid for a redis pool",
            ));
        }
        let name = self.draft.core.name.clone();
        if self.draft.servers.is_empty() {
            let reason = format!("conf: pool '{name}' has no servers");
            return Err(Fault::new(self.place, reason));
        }
        let count = self.draft.servers.len();
        if count > POOL_SERVERS_MAX {
            let reason =
                format!("conf: pool '{name}' has {count} servers, more than {POOL_SERVERS_MAX}");
            return Err(Fault::new(self.place, reason));
        }
        let servers = &mut self.draft.servers;
        // Stable, so that of equal names the later one is blamed.
        servers.sort_by(|a, b| by_name(&a.core.name, &b.core.name));
        match adjacent(servers, |a, b| a.core.name == b.core.name) {
            Some((_, ServerDraft { core, place, .. })) => Err(Fault::new(
                *place,
                format!(
                    "conf: pool '{name}' has servers with same name '{}'",
                    core.name
                ),
            )),
            None => Ok(()),
        }
    }

    fn finish(self) -> (PoolConfig, PoolAddresses) {
        let draft = self.draft;
        let mut core = draft.core;
        let mut servers = Vec::with_capacity(draft.servers.len());
        for server in draft.servers {
            core.servers.push(server.core);
            servers.push(server.address);
        }
        let addresses = PoolAddresses {
            listen: draft.listen.expect("checked: no pool lacks it"),
            backlog: draft.backlog,
            tcpkeepalive: draft.tcpkeepalive,
            reuseport: draft.reuseport,
            servers,
        };
        (core, addresses)
    }
}

/// compat: addresses are compared as typed, so equal ones spelled differently pass.
fn check_listen_addresses(pools: &mut [Pool]) -> Result<(), Fault> {
    pools.sort_by(|a, b| by_name(&a.listen, &b.listen));
    match adjacent(pools, |a, b| a.listen == b.listen) {
        Some((first, second)) => Err(Fault::new(
            second.listen_place(),
            format!(
                "conf: pools '{}' and '{}' have the same listen address '{}'",
                first.name(),
                second.name(),
                second.listen
            ),
        )),
        None => Ok(()),
    }
}

fn check_pool_names(file: &str, pools: &[Pool]) -> Result<(), Fault> {
    match adjacent(pools, |a, b| a.name() == b.name()) {
        Some((first, second)) => Err(Fault::new(
            first.place.max(second.place),
            // compat: the quotes do not pair.
            format!("conf: '{file}' has pools with same name {}'", first.name()),
        )),
        None => Ok(()),
    }
}

/// The first neighbours of a sorted list that are `same`.
fn adjacent<T>(sorted: &[T], same: impl Fn(&T, &T) -> bool) -> Option<(&T, &T)> {
    let mut pairs = sorted.iter().zip(sorted.iter().skip(1));
    pairs.find(|(a, b)| same(a, b))
}
