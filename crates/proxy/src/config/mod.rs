//! The configuration file: as typed (`raw`), the directive table (`table`), and resolved
//! ([`ProxyConfig`]): checked, defaulted, ordered, ready to use.

use std::path::PathBuf;

/// A whole configuration file, resolved. `core` and `pools` have the same pools in the same order.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    /// What the engine needs.
    pub(crate) core: twemproxy_core::config::Config,
    /// What the shell needs, one per pool of `core`.
    pub(crate) pools: Vec<PoolAddresses>,
}

/// What the shell must know of a pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolAddresses {
    /// Where clients connect.
    pub(crate) listen: Listen,
    /// `backlog:`
    pub(crate) backlog: u32,
    /// `tcpkeepalive:`, for accepted clients.
    pub(crate) tcpkeepalive: bool,
    /// `reuseport:`
    pub(crate) reuseport: bool,
    /// In the order of the pool's `servers` in `core`.
    pub(crate) servers: Vec<ServerAddress>,
}

/// `listen:`
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Listen {
    /// `host:port`
    Tcp {
        /// Name or address, resolved when the file is checked.
        host: String,
        /// 1..=65535
        port: u16,
        /// The first address `host` resolves to.
        address: std::net::SocketAddr,
    },
    /// `/path [mode]`
    Unix {
        /// Absolute path.
        path: PathBuf,
        /// Permission bits to set; `None` leaves what the umask gives.
        mode: Option<u32>,
    },
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum ServerAddress {
    /// Resolved at each new connection.
    Tcp {
        /// Name or address.
        host: String,
        /// 1..=65535
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}
