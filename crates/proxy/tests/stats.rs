//! The statistics port, byte for byte, and listeners in need.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, free_address, private_dir, wait_for,
};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

const SERVER_ZERO: &str = concat!(
    r#"{"server_eof":0, "server_err":0, "server_timedout":0, "server_connections":0, "#,
    r#""server_ejected_at":0, "requests":0, "request_bytes":0, "responses":0, "#,
    r#""response_bytes":0, "in_queue":0, "in_queue_bytes":0, "out_queue":0, "#,
    r#""out_queue_bytes":0}"#
);

fn pool(name: &str) -> PoolBuilder {
    PoolBuilder::new(name, ServerKind::Redis).server_line("/nonexistent/socket:1 s0")
}

/// Replaces the digits after `"key":` by `#`.
fn mask(text: &str, key: &str) -> String {
    let key = format!("\"{key}\":");
    let start = text.find(&key).expect("the field is there") + key.len();
    let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
    format!("{}#{}", &text[..start], &text[start + digits..])
}

// C135 C136
#[test]
fn the_answer_is_the_originals_byte_for_byte() {
    let dir = private_dir();
    let config = ConfigBuilder::new(dir.path())
        .pool(pool("longer"))
        .pool(pool("b").server_line("/nonexistent/socket:1 \"q"));
    let mut proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let mut client = proxy.connect("b");
    client.roundtrip(PING, PONG);

    let stats = dir.path().join("stats.sock");
    let read = || {
        let bytes = Wire::unix(&stats).expect("it listens").read_to_close();
        String::from_utf8(bytes).expect("JSON is UTF-8")
    };
    // Starting the harness cost each pool one client, of which the proxy learns in its time.
    let text = wait_for("the harness' clients end", || {
        Some(read()).filter(|text| text.contains(r#""curr_connections":3"#))
    });
    let text = mask(&mask(&text, "uptime"), "timestamp");
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let pool = |name, connected| {
        format!(
            concat!(
                r#""{}": {{"client_eof":1, "client_err":0, "client_connections":{}, "#,
                r#""server_ejects":0, "forward_error":0, "fragments":0, "#
            ),
            name, connected
        )
    };
    let want = [
        &format!(r#"{{"service":"nutcracker", "source":"{host}", "version":"0.5.0", "#),
        r#""uptime":#, "timestamp":#, "total_connections":5, "curr_connections":3, "#,
        &pool("b", 1),
        &format!(r#""\"q": {SERVER_ZERO},"s0": {SERVER_ZERO}}},"#),
        &pool("longer", 0),
        &format!(r#""s0": {SERVER_ZERO}}}}}"#),
        "\n",
    ];
    assert_eq!(text, want.concat());
    assert_eq!(proxy.stop().code(), Some(0));
}

// D24
#[test]
fn a_second_instance_may_not_share_the_statistics_port() {
    let dir = private_dir();
    let address = free_address();
    let port = address.port().to_string();
    let config = ConfigBuilder::new(dir.path()).pool(pool(POOL));
    let args = ["-a", "127.0.0.1", "-s", &port];
    fs::write(dir.path().join("second.yml"), config.yaml()).expect("the directory is ours");
    // The harness waits for its own unix socket; a TCP port is asked for by hand.
    let mut first = Command::new(BINARY)
        .args(["-c", "second.yml", "-o", "first.log"])
        .args(args)
        .current_dir(dir.path())
        .spawn()
        .expect("the binary runs");
    wait_for("the port listens", || TcpStream::connect(address).ok());
    let text = Wire::tcp(address).expect("it listens").read_to_close();
    assert!(text.starts_with(br#"{"service":"nutcracker", "#));
    assert!(text.ends_with(b"}}}\n"));

    let second = Command::new(BINARY)
        .args(["-c", "second.yml"])
        .args(args)
        .current_dir(dir.path())
        .output();
    first.kill().expect("it is ours");
    first.wait().expect("it is ours");
    let second = second.expect("the binary runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let want = format!(" to stats server addr '127.0.0.1:{port}' failed: Address already in use\n");
    assert!(said.contains(&want), "{said}");
}

// C40
#[test]
fn a_unix_listener_gets_the_mode_of_the_file() {
    let dir = private_dir();
    let socket = dir.path().join("alpha.sock");
    let listen = format!("{} 0640", socket.display());
    let config = ConfigBuilder::new(dir.path()).pool(pool(POOL).listen(&listen));
    let _proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    let mut client = wait_for("it listens", || Wire::unix(&socket).ok());
    let mode = fs::metadata(&socket)
        .expect("it listens")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    client.roundtrip(PING, PONG);
}

/// Has `pid` keep its descriptors, and get no more than `spare` new ones.
fn limit_descriptors(pid: u32, spare: u64) {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .count();
    let highest = u64::try_from(open).expect("few");
    let raw = i32::try_from(pid).expect("process ids are positive");
    let limit = Rlimit {
        current: Some(highest + spare),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(Pid::from_raw(raw), Resource::Nofile, limit).expect("it is ours");
}

// C132 D16 D24
#[test]
fn a_listener_without_descriptors_goes_on_by_itself() {
    let dir = private_dir();
    let config = ConfigBuilder::new(dir.path()).pool(pool(POOL));
    let mut proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    wait_for("the harness' client ends", || {
        (proxy.stat(POOL, &["client_connections"]) == 0).then_some(())
    });
    limit_descriptors(proxy.process().pid(), 2);

    let mut clients: Vec<Wire> = (0..6).map(|_| proxy.connect(POOL)).collect();
    for client in &mut clients {
        client.send(PING);
    }
    proxy.wait_logged("failed: Too many open files");
    // Each client that goes makes room for one that waits; none is forgotten.
    for mut client in clients {
        client.expect(PONG);
    }
    assert_eq!(proxy.stop().code(), Some(0));
}
