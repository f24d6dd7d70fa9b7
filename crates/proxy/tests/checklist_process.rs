//! The process where `signals.rs` does not look: starts that fail, signals without effect, faults.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

/// A redis pool whose only server is nowhere: enough for what needs no server.
fn lonely(dir: &Path) -> ConfigBuilder {
    ConfigBuilder::new(dir)
        .pool(PoolBuilder::new(POOL, ServerKind::Redis).server_line("/nowhere/at/all:1 s0"))
}

/// Runs the binary until it ends, without a terminal.
fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(BINARY)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

// C13
#[test]
fn a_start_without_configuration_fails() {
    let dir = private_dir();
    let stats = dir.path().join("stats.sock");
    let args = ["-c", "none.yml", "-o", "log", "-a", stats.to_str().unwrap()];
    assert_eq!(run(dir.path(), &args).status.code(), Some(1));
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let words = "conf: failed to open configuration 'none.yml': No such file or directory\n";
    assert!(log.contains(words), "{log}");
    assert!(!stats.exists());
}

// C14
#[test]
fn a_start_on_a_port_in_use_fails_and_says_so() {
    let dir = private_dir();
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let pool = PoolBuilder::new(POOL, ServerKind::Redis)
        .listen(&address)
        .server_line("/nowhere/at/all:1");
    let yaml = ConfigBuilder::new(dir.path()).pool(pool).yaml();
    fs::write(dir.path().join("f.yml"), yaml).unwrap();
    let stats = dir.path().join("stats.sock");
    let args = [
        "-c",
        "f.yml",
        "-o",
        "log",
        "-p",
        "pid",
        "-a",
        stats.to_str().unwrap(),
    ];
    assert_eq!(run(dir.path(), &args).status.code(), Some(1));
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let line = log.lines().find(|line| line.contains("bind on p")).unwrap();
    assert!(line.ends_with("failed: Address already in use"), "{line}");
    assert!(line.contains(&address), "{line}");
    assert!(!dir.path().join("pid").exists());
}

// C20
#[test]
fn user_signals_and_broken_pipes_do_no_harm() {
    let dir = private_dir();
    let mut proxy = Proxy::start(BINARY, dir.path(), &lonely(dir.path()), &[]);
    let mut client = proxy.connect(POOL);
    for (signal, line) in [
        (Signal::USR1, "signal 10 (SIGUSR1) received\n"),
        (Signal::USR2, "signal 12 (SIGUSR2) received\n"),
    ] {
        proxy.process().signal(signal);
        proxy.wait_logged(line);
    }
    proxy.process().signal(Signal::PIPE);
    client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    assert!(proxy.process().ended().is_none());
}

// D33
#[test]
fn a_fault_ends_the_process_as_the_system_ends_it() {
    let dir = private_dir();
    let mut proxy = Proxy::start(BINARY, dir.path(), &lonely(dir.path()), &[]);
    let process = proxy.process();
    let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap());
    // The test wants the status, not the dump.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    prlimit(pid, Resource::Core, none).unwrap();
    let status = wait_for("the fault ends it", || {
        // Sent by a process and not by a wrong access, the first one is not repeated by itself.
        let ended = process.ended();
        if ended.is_none() {
            process.signal(Signal::SEGV);
        }
        ended
    });
    assert_eq!(status.signal(), Some(Signal::SEGV.as_raw()));
    assert!(!proxy.log().contains("core dumping"));
}
