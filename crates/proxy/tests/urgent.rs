//! TCP's urgent bytes: each read ends before one, however much is behind it. What is behind must not wait for
//! the next packet.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::SockRef;
use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, free_address, private_dir,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::{DEADLINE, Wire};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

/// Sends two parts with an urgent byte between them, which no reader sees.
fn send_with_urgent_byte(mut stream: &TcpStream, before: &[u8], behind: &[u8]) {
    stream.write_all(before).expect("it goes out");
    let sent = SockRef::from(stream).send_out_of_band(b"!");
    assert_eq!(sent.expect("it goes out"), 1);
    stream.write_all(behind).expect("it goes out");
}

fn tcp_proxy(server: SocketAddr) -> (tempfile::TempDir, SocketAddr, Proxy) {
    let dir = private_dir();
    let address = free_address();
    let pool = PoolBuilder::new(POOL, ServerKind::Redis)
        .listen(&address.to_string())
        .server_line(&format!("{server}:1 s0"));
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let mut proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    // It listens as soon as a connection is taken.
    drop(Wire::tcp(address));
    proxy.process().pause();
    (dir, address, proxy)
}

#[test]
fn what_is_behind_an_urgent_byte_of_a_client_is_read() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (_dir, address, mut proxy) = tcp_proxy(server.local_addr().expect("it is bound"));
    let client = TcpStream::connect(address).expect("the kernel takes it");
    // All of it is in the proxy's buffer before it reads.
    let pings = array_of(&["PING"]).repeat(2);
    let (before, behind) = pings.split_at(19);
    send_with_urgent_byte(&client, before, behind);
    proxy.process().resume();
    client
        .set_read_timeout(Some(DEADLINE))
        .expect("it is a socket");
    let mut answer = [0; 14];
    (&client)
        .read_exact(&mut answer)
        .expect("both are answered");
    assert_eq!(&answer, b"+PONG\r\n+PONG\r\n");
}

#[test]
fn what_is_behind_an_urgent_byte_of_a_server_is_read() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (_dir, address, mut proxy) = tcp_proxy(server.local_addr().expect("it is bound"));
    proxy.process().resume();
    let mut client = Wire::tcp(address).expect("it listens");
    let get = array_of(&["GET", "a"]);
    client.send(&get.repeat(2));
    let (mut stream, _) = server.accept().expect("the proxy connects");
    let mut asked = vec![0; get.len() * 2];
    stream.read_exact(&mut asked).expect("both are forwarded");
    proxy.process().pause();
    send_with_urgent_byte(&stream, b"$1\r\na\r\n$1\r", b"\nb\r\n");
    proxy.process().resume();
    client.expect(b"$1\r\na\r\n$1\r\nb\r\n");
}
