//! The part of a configuration file that the engine is told: resolved, checked, without addresses.

use alloc::{boxed::Box, vec::Vec};

use crate::proto::Protocol;
use crate::time::Span;
use crate::topology::{Distribution, HashKind};
use crate::words::configured_word;

/// Everything one engine serves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// Pools in the order of statistics: by name, shorter first, then bytewise.
    pub pools: Vec<PoolConfig>,
    /// Bytes that all buffers of this engine may hold together; see
    /// [`crate::limits::MEMORY_LIMIT_SOFT_PERCENT`] for the outcome.
    pub memory_limit: u64,
    /// Wall clock of the origin of [`crate::time::Micros`], in microseconds since 1970: what turns
    /// a moment into the time stamp `server_ejected_at`.
    pub wall_clock_origin: u64,
    /// Number of the process, which memcached's `stats` tells.
    pub process_id: u32,
}

/// One pool: a listen address, its servers and how they are used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// The pool's name.
    pub name: Box<str>,
    /// `redis:`
    pub protocol: Protocol,
    /// `hash:`
    pub hash: HashKind,
    /// `hash_tag:`
    pub hash_tag: Option<[u8; 2]>,
    /// `distribution:`
    pub distribution: Distribution,
    /// `timeout:`; `None` waits for ever.
    pub timeout: Option<Span>,
    /// `client_connections:`; 0 is no limit of the pool's own.
    pub client_connections: u32,
    /// `redis_auth:`: the password wanted from clients and sent to servers.
    pub redis_auth: Option<Box<[u8]>>,
    /// `redis_db:`
    pub redis_db: u32,
    /// `preconnect:`
    pub preconnect: bool,
    /// `auto_eject_hosts:`
    pub auto_eject_hosts: bool,
    /// `auto_eject_policy:`
    pub auto_eject_policy: EjectPolicy,
    /// `client_idle_timeout:`; `None` lets clients be idle for ever.
    pub client_idle_timeout: Option<Span>,
    /// `server_connections:`, at least 1.
    pub server_connections: u32,
    /// `server_retry_timeout:`
    pub server_retry_timeout: Span,
    /// `server_failure_limit:`, at least 1 (0 in the file counts as 1).
    pub server_failure_limit: u32,
    /// `request_size_limit:` in bytes: a larger request is refused and swallowed.
    pub request_size_limit: u32,
    /// `client_output_limit:` in bytes: a client with more unread replies is closed.
    pub client_output_limit: u64,
    /// `allow_flush:`: whether memcached `flush_all` is served.
    pub allow_flush: bool,
    /// `cross_server_keys:`
    pub cross_server_keys: CrossServerKeys,
    /// Servers in index order: by name, shorter first, then bytewise.
    pub servers: Vec<ServerConfig>,
}

configured_word! {
    /// The outcome of a multi-key command that cannot be split when its keys live on several
    /// servers.
    pub enum CrossServerKeys {
        /// The client gets a `CROSSSLOT` error (default).
        Error = "error",
        /// The whole request goes to the server of its first key, as in twemproxy 0.5.
        First = "first",
    }
}

configured_word! {
    /// The outcome of requests for the keys of an ejected server.
    pub enum EjectPolicy {
        /// The other servers get them (default).
        Rehash = "rehash",
        /// Their requests get an error at once.
        Fail = "fail",
        /// Like `Fail`, but plain reads are answered as if the key were not there.
        Miss = "miss",
    }
}

/// One server of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// The name that places the server on the ring and in the statistics.
    pub name: Box<str>,
    /// Weight, at least 1.
    pub weight: u32,
}

impl PoolConfig {
    /// A pool with twemproxy's defaults and no servers.
    #[must_use]
    pub fn new(name: &str, protocol: Protocol) -> Self {
        Self {
            name: name.into(),
            protocol,
            hash: HashKind::Fnv1a64,
            hash_tag: None,
            distribution: Distribution::Ketama,
            timeout: None,
            client_connections: 0,
            redis_auth: None,
            redis_db: 0,
            preconnect: false,
            auto_eject_hosts: false,
            auto_eject_policy: EjectPolicy::Rehash,
            client_idle_timeout: None,
            server_connections: 1,
            server_retry_timeout: Span::from_millis(30_000),
            server_failure_limit: 2,
            request_size_limit: crate::limits::REQUEST_SIZE_LIMIT_DEFAULT,
            client_output_limit: crate::limits::CLIENT_OUTPUT_LIMIT_DEFAULT,
            allow_flush: false,
            cross_server_keys: CrossServerKeys::Error,
            servers: Vec::new(),
        }
    }
}
