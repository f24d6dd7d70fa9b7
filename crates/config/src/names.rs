//! Looking hosts up.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// The addresses of a host, in the order in which they should be tried. May block for as long as a name server takes.
pub fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    // compat: the resolver of 0.5 read `*` as no name at all, and that as the loopback interface.
    match host {
        "*" => Ok(loopback(port)),
        _ => Ok((host, port).to_socket_addrs()?.collect()),
    }
}

/// IPv6 first, as `getaddrinfo` has it, unless the machine has none.
fn loopback(port: u16) -> Vec<SocketAddr> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => vec![SocketAddr::from((Ipv6Addr::LOCALHOST, port)), v4],
        Err(_) => vec![v4],
    }
}
