//! Servers with names, looked up at a name server of the test's own.
//!
//! The proxy runs in a mount namespace in which `/etc/resolv.conf` names an address of the loopback
//! interface; nothing outside of it changes. That takes root, and the tests are skipped without.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use twemproxy_testkit::harness::{
    ConfigBuilder, PoolBuilder, Proxy, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

/// A name server that knows the addresses of some names and never answers for others.
struct NameServer {
    address: Ipv4Addr,
    names: Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>,
    /// The names asked for so far.
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// `None` if this process may not.
    fn start() -> Option<Self> {
        let process = std::process::id().to_be_bytes();
        // Tests of one process run at the same time.
        let bound = (64..128).find_map(|n| {
            let address = Ipv4Addr::new(127, n, process[2], process[3]);
            match UdpSocket::bind((address, 53)) {
                Ok(socket) => Some(Some((address, socket))),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(None),
                Err(_) => None,
            }
        });
        let (address, socket) = bound.flatten()?;
        let server = Self {
            address,
            names: Arc::default(),
            asked: Arc::default(),
        };
        let (names, asked) = (Arc::clone(&server.names), Arc::clone(&server.asked));
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((len, peer)) = socket.recv_from(&mut question) {
                let (name, kind, end) = read_question(&question[..len]);
                asked.lock().expect("nobody panics").push(name.clone());
                if let Some(addresses) = names.lock().expect("nobody panics").get(&name) {
                    let addresses = if kind == 1 { addresses.as_slice() } else { &[] };
                    let reply = write_reply(&question[..end], addresses);
                    // The proxy may have given up.
                    let _ = socket.send_to(&reply, peer);
                }
            }
        });
        Some(server)
    }

    fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        let mut names = self.names.lock().expect("nobody panics");
        names.insert(name.to_owned(), addresses.to_vec());
    }

    fn was_asked(&self, name: &str) -> bool {
        let asked = self.asked.lock().expect("nobody panics");
        asked.iter().any(|seen| seen == name)
    }

    /// A program that runs the proxy where this is the name server. `None` if this process may not.
    fn wrapper(&self, dir: &Path) -> Option<PathBuf> {
        let settings = dir.join("resolv.conf");
        let text = format!(
            "nameserver {}\noptions timeout:30 attempts:1\n",
            self.address
        );
        fs::write(&settings, text).expect("the directory is ours");
        let settings = settings.display();
        let mount = format!("mount --bind {settings} /etc/resolv.conf");
        let may = Command::new("unshare")
            .args(["--mount", "sh", "-c", &mount])
            .output();
        if !may.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let path = dir.join("nutcracker");
        let script = format!(
            "#!/bin/sh\nexec unshare --mount sh -c '{mount} && exec {BINARY} \"$@\"' sh \"$@\"\n"
        );
        fs::write(&path, script).expect("the directory is ours");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).expect("the file is ours");
        Some(path)
    }
}

/// The name asked for, which kind of record, and where the question ends.
fn read_question(message: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while message[at] > 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).into_owned());
        at = end;
    }
    let kind = u16::from_be_bytes([message[at + 1], message[at + 2]]);
    (labels.join("."), kind, at + 5)
}

fn write_reply(question: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    let count = u8::try_from(addresses.len()).expect("few addresses");
    let mut reply = question.to_vec();
    // A response without error to one question.
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    for address in addresses {
        // The name of the question, an address of the internet, not to be kept.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        reply.extend(address.octets());
    }
    reply
}

/// A TCP server that answers `+OK` to whatever comes.
fn agreeable(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("the loopback interface is up");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut space = [0; 4096];
                while let Ok(1..) = stream.read(&mut space) {
                    if stream.write_all(b"+OK\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// The proxy with one pool for each server, all of them with names.
fn start(servers: &[(&str, u16)]) -> Option<(NameServer, Proxy, tempfile::TempDir)> {
    let dir = private_dir();
    let staged = NameServer::start()
        .and_then(|names| names.wrapper(dir.path()).map(|wrapper| (names, wrapper)));
    let Some((names, wrapper)) = staged else {
        eprintln!("skipped: a name server of one's own takes root");
        return None;
    };
    let mut config = ConfigBuilder::new(dir.path());
    for (n, (host, port)) in servers.iter().enumerate() {
        let pool = PoolBuilder::new(&format!("p{n}"), ServerKind::Redis)
            .server_line(&format!("{host}:{port}:1 s0"))
            .set("timeout", "3000");
        config = config.pool(pool);
    }
    let wrapper = wrapper.to_str().expect("a plain path");
    let proxy = Proxy::start(wrapper, dir.path(), &config, &[]);
    Some((names, proxy, dir))
}

// D22
#[test]
fn all_addresses_of_a_name_are_tried_and_it_is_looked_up_again() {
    // Each server listens at one address of the three; at most one of them is the first.
    let addresses = [1, 2, 3].map(|n| Ipv4Addr::new(127, 0, 0, n));
    let ports = addresses.map(agreeable);
    let moved = agreeable(Ipv4Addr::new(127, 0, 0, 9));
    let servers = [
        ("many.test", ports[0]),
        ("many.test", ports[1]),
        ("many.test", ports[2]),
        ("moves.test", moved),
    ];
    let Some((names, proxy, _dir)) = start(&servers) else {
        return;
    };
    names.set("many.test", &addresses);
    names.set("moves.test", &addresses[..1]);
    let set = array_of(&["SET", "a", "1"]);
    for pool in ["p0", "p1", "p2"] {
        proxy.connect(pool).roundtrip(&set, b"+OK\r\n");
    }
    let mut client = proxy.connect("p3");
    client.roundtrip(&set, b"-ERR Connection refused\r\n");
    names.set("moves.test", &[Ipv4Addr::new(127, 0, 0, 9)]);
    client.roundtrip(&set, b"+OK\r\n");
}

// D22
#[test]
fn a_name_server_that_does_not_answer_holds_up_only_the_names_it_was_asked_for() {
    let port = agreeable(Ipv4Addr::LOCALHOST);
    let Some((names, proxy, _dir)) = start(&[("slow.test", port), ("fast.test", port)]) else {
        return;
    };
    names.set("fast.test", &[Ipv4Addr::LOCALHOST]);
    let set = array_of(&["SET", "a", "1"]);
    let mut slow = proxy.connect("p0");
    slow.send(&set);
    wait_for("the slow name is asked for", || {
        names.was_asked("slow.test").then_some(())
    });
    // The look-up takes half a minute; this one, a connection later, does not wait for it.
    proxy.connect("p1").roundtrip(&set, b"+OK\r\n");
    slow.roundtrip(
        &array_of(&["PING"]),
        b"-ERR Connection timed out\r\n+PONG\r\n",
    );
}

#[test]
fn a_name_without_addresses_is_logged_with_the_resolvers_reason() {
    let Some((names, proxy, _dir)) = start(&[("none.test", 1)]) else {
        return;
    };
    names.set("none.test", &[]);
    let set = array_of(&["SET", "a", "1"]);
    proxy
        .connect("p0")
        .roundtrip(&set, b"-ERR Host is down\r\n");
    proxy.wait_logged("looking up 'none.test' failed: No address associated with hostname\n");
}
