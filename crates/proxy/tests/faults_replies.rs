//! Servers that break off in the middle of a response, seen through the real binary.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, private_dir,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

/// A server that answers the first request of each of its first `breaks` connections with `half`, and closes; later
/// connections get `whole` for each read.
fn breaks_off(breaks: usize, half: &'static [u8], whole: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface is up");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for (nth, mut stream) in listener.incoming().flatten().enumerate() {
            let answer = if nth < breaks { half } else { whole };
            let mut space = [0; 4096];
            while let Ok(1..) = stream.read(&mut space) {
                if stream.write_all(answer).is_err() || nth < breaks {
                    break;
                }
            }
        }
    });
    port
}

/// Asks a server that breaks off three times; each time is one error, and the client stays.
fn stays(
    kind: ServerKind,
    request: &[u8],
    half: &'static [u8],
    whole: &'static [u8],
    error: &[u8],
) {
    const BREAKS: usize = 3;
    let port = breaks_off(BREAKS, half, whole);
    let dir = private_dir();
    let pool = PoolBuilder::new(POOL, kind).server_line(&format!("127.0.0.1:{port}:1"));
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let mut client: Wire = proxy.connect(POOL);
    for _ in 0..BREAKS {
        client.send(request);
        client.expect(error);
    }
    client.roundtrip(request, whole);
    assert_eq!(proxy.stat(POOL, &["client_connections"]), 1);
    assert_eq!(proxy.stat(POOL, &["client_err"]), 0);
}

#[test]
fn a_break_within_a_short_response_is_one_error_and_the_client_stays() {
    stays(
        ServerKind::Redis,
        &array_of(&["GET", "key"]),
        b"$20\r\n0123456789",
        b"$20\r\n01234567890123456789\r\n",
        b"-ERR Server closed the connection\r\n",
    );
    stays(
        ServerKind::Memcached,
        b"get key\r\n",
        b"VALUE key 0 20\r\n0123456789",
        b"VALUE key 0 20\r\n01234567890123456789\r\nEND\r\n",
        b"SERVER_ERROR Server closed the connection\r\n",
    );
}
