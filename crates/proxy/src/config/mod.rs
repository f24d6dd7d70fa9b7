//! The configuration file, in three steps: text to a tree ([`yaml`]), the tree to directives as
//! typed ([`raw`]), directives to a [`ProxyConfig`] that is checked, defaulted, ordered and ready to
//! use ([`resolve`], by the directive [`table`]). Each step names the place of what is wrong.
//!
//! Nothing here panics on any file, opens a socket, or looks at the file again once it was read.

mod address;
#[cfg(test)]
mod docs;
mod error;
mod memory;
mod raw;
mod resolve;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the manual is written from it by a test")
)]
mod table;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};

pub(crate) use error::ConfigError;
pub(crate) use memory::physical_memory;

/// Reads and checks a file. `physical_memory` is what `memory_limit` takes a half of by default.
///
/// Looks up the hosts of every `listen:`, so it may block.
pub(crate) fn load(path: &Path, physical_memory: u64) -> Result<ProxyConfig, ConfigError> {
    let text = std::fs::read(path).map_err(|error| ConfigError::open(path, &error))?;
    parse(&path.display().to_string(), &text, physical_memory)
}

/// Checks the text of a file; `file` is its name for messages.
fn parse(file: &str, text: &[u8], physical_memory: u64) -> Result<ProxyConfig, ConfigError> {
    yaml::parse(file, text)
        .and_then(|root| raw::read(file, &root))
        .and_then(|raw| resolve::resolve(file, &raw, physical_memory))
        .map_err(|fault| ConfigError::invalid(file, fault))
}

/// A number as files and the command line have them: digits and nothing else. What does not fit
/// saturates, so that every range check refuses it.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let push = |number: u64, digit: &u8| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(text.iter().fold(0, push))
}

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
