//! The harness keeps its promises about server processes.

use std::time::Duration;

use twemproxy_testkit::harness::{Server, ServerKind, private_dir};
use twemproxy_testkit::wire::Wire;

#[test]
fn a_restarted_server_listens_on_the_same_socket_and_has_forgotten_everything() {
    for (kind, set, get, found, missing) in [
        (
            ServerKind::Redis,
            &b"SET a 1\r\n"[..],
            &b"GET a\r\n"[..],
            &b"+OK\r\n$1\r\n1\r\n"[..],
            &b"$-1\r\n"[..],
        ),
        (
            ServerKind::Memcached,
            b"set a 0 0 1\r\n1\r\n",
            b"get a\r\n",
            b"STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n",
            b"END\r\n",
        ),
    ] {
        let dir = private_dir();
        let Some(mut server) = Server::start(kind, dir.path(), "server", &[]) else {
            return;
        };
        let mut before = server.connect();
        before.roundtrip(&[set, get].concat(), found);
        server.restart();
        before.expect_close();
        server.connect().roundtrip(get, missing);
    }
}

#[test]
fn a_paused_server_says_nothing_until_it_is_resumed() {
    let dir = private_dir();
    let Some(mut server) = Server::start(ServerKind::Redis, dir.path(), "server", &[]) else {
        return;
    };
    let mut impatient = server.connect().with_deadline(Duration::from_millis(50));
    server.process().pause();
    impatient.send(b"PING\r\n");
    let silent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        impatient.expect(b"+PONG\r\n");
    }));
    assert!(silent.is_err(), "a stopped process answered");
    server.process().resume();
    impatient
        .with_deadline(Duration::from_secs(10))
        .expect(b"+PONG\r\n");
}

#[test]
fn a_server_is_gone_when_it_is_dropped() {
    let dir = private_dir();
    let Some(mut server) = Server::start(ServerKind::Redis, dir.path(), "server", &[]) else {
        return;
    };
    assert!(server.process().resident_kib() > 0);
    let mut client = server.connect();
    let socket = server.socket().to_path_buf();
    drop(server);
    client.expect_close();
    assert!(Wire::unix(&socket).is_err());
}
