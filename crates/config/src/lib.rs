//! The configuration file, in three steps: text to a tree (`yaml`), the tree to directives as
//! typed (`raw`), directives to a [`ProxyConfig`] that is checked, defaulted, ordered and ready to
//! use (`resolve`, by the directive `table`). Each step names the place of what is wrong.
//!
//! Nothing here panics on any file, talks to anybody but the name server, or looks at the file again once it was read. Time
//! and memory are bounded by the length of the file, which has a bound of its own.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod address;
#[cfg(test)]
mod docs;
mod error;
mod hint;
mod memory;
mod names;
mod raw;
mod resolve;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the manual is written from it by a test")
)]
mod table;
#[cfg(test)]
mod tests;
mod warnings;
mod yaml;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use error::{ConfigError, Place};
pub use memory::physical_memory;
pub use names::addresses;

/// Room for a hundred thousand servers; whoever names a device gets an answer.
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// What a file's meaning depends on besides its text.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Bytes of memory; `memory_limit` takes a half of it by default.
    pub memory: u64,
    /// Finds the host of a `listen:`.
    pub lookup: Lookup,
}

/// The address of a host and port, if there is any.
pub type Lookup = fn(&str, u16) -> io::Result<Option<SocketAddr>>;

/// Reads and checks a file. `physical_memory` is what `memory_limit` takes a half of by default.
///
/// Looks up the hosts of every `listen:`, so it may block.
pub fn load(path: &Path, physical_memory: u64) -> Result<ProxyConfig, ConfigError> {
    let (resolved, _) = load_with(path, physical_memory)?;
    Ok(resolved.finish())
}

/// Loads a file as [`load`] does. The lines that come with it warn of what is seldom meant.
///
/// Servers are looked up for two seconds at most, directories of sockets are looked for.
pub fn check(path: &Path, physical_memory: u64) -> Result<(ProxyConfig, Vec<String>), ConfigError> {
    let (resolved, machine) = load_with(path, physical_memory)?;
    let file = path.display().to_string();
    let wait = warnings::LOOKUP_WAIT;
    let warnings = warnings::lines(&file, &resolved.pools, machine.lookup, wait);
    Ok((resolved.finish(), warnings))
}

fn load_with(path: &Path, memory: u64) -> Result<(resolve::Resolved, Machine), ConfigError> {
    let text = read(path).map_err(|error| ConfigError::open(path, &error))?;
    let lookup = system_lookup;
    let machine = Machine { memory, lookup };
    let resolved = parse_and_resolve(&path.display().to_string(), &text, &machine)?;
    Ok((resolved, machine))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut file = File::open(path)?.take(FILE_LEN_MAX + 1);
    file.read_to_end(&mut text)?;
    if file.limit() == 0 {
        let words = format!("it has more than {FILE_LEN_MAX} bytes");
        return Err(io::Error::other(words));
    }
    Ok(text)
}

/// compat: the first address counts, of whichever family the resolver prefers.
fn system_lookup(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    Ok(addresses(host, port)?.into_iter().next())
}

/// Checks the text of a file; `file` is its name for messages.
pub fn parse(file: &str, text: &[u8], machine: &Machine) -> Result<ProxyConfig, ConfigError> {
    parse_and_resolve(file, text, machine).map(resolve::Resolved::finish)
}

fn parse_and_resolve(
    file: &str,
    text: &[u8],
    machine: &Machine,
) -> Result<resolve::Resolved, ConfigError> {
    yaml::parse(file, text)
        .and_then(|root| raw::read(file, &root))
        .map_err(|fault| hint::blame_missing_blank(text, fault))
        .and_then(|raw| resolve::resolve(file, &raw, machine))
        .map_err(|fault| ConfigError::invalid(file, fault))
}

/// A number as files and the command line have them: digits and nothing else. What does not fit
/// saturates, so that every range check refuses it.
pub fn number(text: &[u8]) -> Option<u64> {
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProxyConfig {
    /// What the engine needs.
    pub core: twemproxy_core::config::Config,
    /// What the shell needs, one per pool of `core`.
    pub pools: Vec<PoolAddresses>,
}

/// What the shell must know of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolAddresses {
    /// Where clients connect.
    pub listen: Listen,
    /// `backlog:`
    pub backlog: u32,
    /// `tcpkeepalive:`, for accepted clients.
    pub tcpkeepalive: bool,
    /// `reuseport:`
    pub reuseport: bool,
    /// In the order of the pool's `servers` in `core`.
    pub servers: Vec<ServerAddress>,
}

/// `listen:`
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// `host:port`
    Tcp {
        /// Name or address, resolved when the file is checked.
        host: String,
        /// 1..=65535
        port: u16,
        /// The first address `host` resolves to.
        address: SocketAddr,
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
pub enum ServerAddress {
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

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
