//! `listen:` and the entries of `servers:`, taken apart from the right as nutcracker 0.5 does.

use std::net::SocketAddr;
use std::path::PathBuf;

use twemproxy_core::config::ServerConfig;

use crate::error::system_words;
use crate::{Listen, Lookup, ServerAddress, number};

/// What a directive's value may be called, after `conf: directive "listen" `.
pub(crate) type Reason = String;

/// Bytes of a unix socket's path, with the NUL that ends it.
const UNIX_PATH_LEN_MAX: usize = 108;
const PERMISSIONS_MAX: u32 = 0o777;
/// Servers on this port are known to the ring by their host alone, as in libmemcached.
const PORT_WITHOUT_NAME: u16 = 11211;
/// Weights were 32 bits wide and signed.
const WEIGHT_MAX: u64 = 2_147_483_647;

/// `host:port` or `/path [mode]`. Looks the host up, which may take a while.
pub(crate) fn parse_listen(text: &str, lookup: Lookup) -> Result<Listen, Reason> {
    if text.starts_with('/') {
        return parse_listen_unix(text);
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("has an invalid \"hostname:port\" format string")?;
    let port = parse_port(port).ok_or("has an invalid port in \"hostname:port\" format string")?;
    Ok(Listen::Tcp {
        host: host.to_owned(),
        port,
        address: resolve(host, port, lookup)?,
    })
}

fn resolve(host: &str, port: u16, lookup: Lookup) -> Result<SocketAddr, Reason> {
    find(host, port, lookup)
        .map_err(|reason| format!("has an invalid value (host '{host}': {reason})"))
}

/// The address of a host, or why there is none.
pub(crate) fn find(host: &str, port: u16, lookup: Lookup) -> Result<SocketAddr, Reason> {
    // No host has such a name: nobody needs to be asked.
    if let Some(bare) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return Err(format!("an IPv6 address has no brackets: {bare}:{port}"));
    }
    match lookup(host, port) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err("no address".to_owned()),
        Err(error) => Err(system_words(&error)),
    }
}

fn parse_listen_unix(text: &str) -> Result<Listen, Reason> {
    let (path, mode) = match text.rsplit_once(' ') {
        Some((path, permissions)) => (path, parse_permissions(permissions)?),
        None => (text, 0),
    };
    if path.len() >= UNIX_PATH_LEN_MAX {
        return Err(format!(
            "has an invalid value (a unix path has at most {} bytes)",
            UNIX_PATH_LEN_MAX - 1
        ));
    }
    Ok(Listen::Unix {
        path: PathBuf::from(path),
        mode: Some(mode).filter(|&mode| mode != 0),
    })
}

/// Octal digits, and nothing else: `0999` would be read as 0, which sets no mode. compat: none are 0.
fn parse_permissions(text: &str) -> Result<u32, Reason> {
    const INVALID: &str =
        "has an invalid file permission in \"socket_path permission\" format string";
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut mode: u32 = 0;
    for digit in digits.trim_ascii_end().chars() {
        let digit = digit.to_digit(8).ok_or(INVALID)?;
        mode = mode * 8 + digit;
        // Checked at each digit, so that the product above cannot overflow.
        if mode > PERMISSIONS_MAX {
            return Err(INVALID.to_owned());
        }
    }
    if negative && mode != 0 {
        return Err(INVALID.to_owned());
    }
    Ok(mode)
}

/// `host:port:weight [name]` or `/path:weight [name]`. Hosts are not looked up here.
pub(crate) fn parse_server(text: &str) -> Result<(ServerConfig, ServerAddress), Reason> {
    const SHAPE: &str = "has an invalid \"hostname:port:weight [name]\"or \
                         \"/path/unix_socket:weight [name]\" format string";
    let (place, given_name) = match text.rsplit_once(' ') {
        Some((place, name)) => (place, Some(name)),
        None => (text, None),
    };
    let (rest, weight) = place.rsplit_once(':').ok_or(SHAPE)?;
    if text.starts_with('/') {
        if rest.contains(':') {
            return Err(SHAPE.to_owned());
        }
        let weight = parse_weight(weight)?;
        // compat: without a name, the path with its colon is the name.
        let name = given_name.map_or_else(|| format!("{rest}:"), str::to_owned);
        return Ok((server(&name, weight), ServerAddress::Unix(rest.into())));
    }
    let (host, port_typed) = rest.rsplit_once(':').ok_or(SHAPE)?;
    let weight = parse_weight(weight)?;
    let port = parse_port(port_typed)
        .ok_or("has an invalid port in \"hostname:port:weight [name]\" format string")?;
    let name = match given_name {
        Some(name) => name,
        None if port == PORT_WITHOUT_NAME => host,
        None => rest,
    };
    let host = host.to_owned();
    Ok((server(name, weight), ServerAddress::Tcp { host, port }))
}

fn server(name: &str, weight: u32) -> ServerConfig {
    ServerConfig {
        name: name.into(),
        weight,
    }
}

fn parse_weight(text: &str) -> Result<u32, Reason> {
    match number(text.as_bytes()) {
        Some(0) => {
            Err("has a zero weight in \"hostname:port:weight [name]\" format string".to_owned())
        }
        Some(weight @ 1..=WEIGHT_MAX) => Ok(u32::try_from(weight).expect("31 bits fit in 32")),
        _ => {
            const INVALID: &str =
                "has an invalid weight in \"hostname:port:weight [name]\" format string";
            // The name is what follows the last blank; what is left of it then ends up here.
            match text.contains(' ') {
                true => Err(format!("{INVALID} (one blank before the name, none in it)")),
                false => Err(INVALID.to_owned()),
            }
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let port = u16::try_from(number(text.as_bytes())?).ok()?;
    Some(port).filter(|&port| port != 0)
}
