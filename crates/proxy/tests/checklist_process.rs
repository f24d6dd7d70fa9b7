//! The life of the process: start, daemon, signals, files, end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit, test_kill_process};
use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, free_address, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::Wire;

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

fn ping(proxy: &Proxy) {
    let mut client = proxy.connect(POOL);
    client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
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

// C15 C16 C17 D20
#[test]
fn both_ending_signals_end_in_order_and_leave_no_file() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = private_dir();
        let pid_file = dir.path().join("pid");
        let args = ["-p", pid_file.to_str().unwrap()];
        let mut proxy = Proxy::start(BINARY, dir.path(), &lonely(dir.path()), &args);
        let pid = proxy.process().pid().to_string();
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid);
        let mode = fs::metadata(&pid_file).unwrap().permissions().mode();
        assert_eq!(mode & 0o133, 0, "0644, less what the umask takes");
        let socket = proxy.socket(POOL).to_path_buf();
        proxy.process().signal(signal);
        assert_eq!(proxy.process().wait().code(), Some(0), "{signal:?}");
        assert!(!pid_file.exists() && !socket.exists());
        let log = proxy.log();
        assert!(log.contains(" received, exiting\n"), "{log}");
        assert!(log.ends_with("done, rabbit done\n"), "{log}");
    }
}

// D20
#[test]
fn a_request_in_flight_is_finished_before_the_end() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Redis, 1) else {
        return;
    };
    let mut busy = bed.client();
    let mut idle = bed.client();
    busy.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    idle.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    bed.servers[0].process().pause();
    busy.send(&array_of(&["GET", "a"]));
    wait_for("the request is at the server", || {
        (bed.proxy.stat(POOL, &["s0", "out_queue"]) == 1).then_some(())
    });
    bed.proxy.process().signal(Signal::TERM);
    idle.expect_close();
    let socket = bed.proxy.socket(POOL).to_path_buf();
    wait_for("nobody is accepted", || {
        Wire::unix(&socket).is_err().then_some(())
    });
    assert!(bed.proxy.process().ended().is_none(), "a reply is owed");
    bed.servers[0].process().resume();
    busy.expect(b"$1\r\n1\r\n");
    busy.expect_close();
    assert_eq!(bed.proxy.process().wait().code(), Some(0));
}

// C18
#[test]
fn a_hang_up_opens_the_log_file_again() {
    let dir = private_dir();
    let mut proxy = Proxy::start(BINARY, dir.path(), &lonely(dir.path()), &[]);
    let (log, old) = (
        dir.path().join("nutcracker.log"),
        dir.path().join("old.log"),
    );
    fs::rename(&log, &old).unwrap();
    proxy.process().signal(Signal::HUP);
    wait_for("a new log file", || log.exists().then_some(()));
    let text = fs::read_to_string(&old).unwrap();
    let line = "[.......................] signal 1 (SIGHUP) received, reopening log file\n";
    assert!(text.ends_with(line), "{text}");
    proxy.process().signal(Signal::USR1);
    wait_for("lines go to the new file", || {
        proxy
            .log()
            .contains("signal 10 (SIGUSR1) received\n")
            .then_some(())
    });
    ping(&proxy);
}

// C19
#[test]
fn the_log_level_goes_up_to_11_and_down_to_0() {
    let dir = private_dir();
    let mut proxy = Proxy::start(BINARY, dir.path(), &lonely(dir.path()), &["-v", "9"]);
    let mut lines = 0;
    let mut step = |signal: Signal, wanted: Option<String>| {
        proxy.process().signal(signal);
        let suffix = if signal == Signal::TTIN { "up" } else { "down" };
        let received = format!("received, {suffix} logging level\n");
        lines += 1;
        wait_for("the signal is logged", || {
            let log = proxy.log();
            let seen = log.matches("logging level\n").count() == lines && log.ends_with('\n');
            let last = wanted.as_ref().map_or(received.as_str(), String::as_str);
            (seen && log.ends_with(last)).then_some(())
        });
    };
    let stamp = "[.......................]";
    for level in [10, 11] {
        step(
            Signal::TTIN,
            Some(format!("{stamp} up log level to {level}\n")),
        );
    }
    step(Signal::TTIN, None);
    for level in (0..11).rev() {
        step(
            Signal::TTOU,
            Some(format!("{stamp} down log level to {level}\n")),
        );
    }
    step(Signal::TTOU, None);
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
        wait_for("the signal is logged", || {
            proxy.log().contains(line).then_some(())
        });
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

/// A daemon; it does not die with the test by itself.
struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

// C22 D19
#[test]
fn a_daemon_is_up_when_its_command_returns() {
    let dir = private_dir();
    fs::write(dir.path().join("f.yml"), lonely(dir.path()).yaml()).unwrap();
    let stats = dir.path().join("stats.sock");
    let stats = stats.to_str().unwrap();
    let args = ["-d", "-c", "f.yml", "-o", "log", "-p", "pid", "-a", stats];
    let output = run(dir.path(), &args);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b""[..])
    );
    let pid: i32 = fs::read_to_string(dir.path().join("pid"))
        .unwrap()
        .parse()
        .unwrap();
    let daemon = Daemon(Pid::from_raw(pid).unwrap());
    // No waiting: it serves.
    let socket = dir.path().join(format!("pool-{POOL}.sock"));
    Wire::unix(&socket)
        .unwrap()
        .roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    let proc = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(proc("cwd"), dir.path().canonicalize().unwrap());
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(proc(stream), Path::new("/dev/null"));
    }
    kill_process(daemon.0, Signal::TERM).unwrap();
    wait_for("the daemon ends", || {
        test_kill_process(daemon.0).is_err().then_some(())
    });
    assert!(!dir.path().join("pid").exists());
}

// D19
#[test]
fn a_daemon_that_cannot_start_is_told_to_its_command() {
    let dir = private_dir();
    fs::write(dir.path().join("f.yml"), "p:\n  listen: nonsense\n").unwrap();
    let output = run(dir.path(), &["-d", "-c", "f.yml", "-o", "log", "-p", "pid"]);
    assert_ne!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("f.yml:"), "{said}");
    assert!(!dir.path().join("pid").exists());
}

// D24
#[test]
fn a_second_proxy_on_one_statistics_port_does_not_start() {
    let dir = private_dir();
    let address = free_address();
    let port = address.port().to_string();
    let args = ["-a", "127.0.0.1", "-s", &port];
    fs::write(dir.path().join("f.yml"), lonely(dir.path()).yaml()).unwrap();
    let first = Daemonless::start(dir.path(), &args);
    wait_for("the statistics listen", || Wire::tcp(address).ok());
    let other = private_dir();
    fs::write(other.path().join("f.yml"), lonely(other.path()).yaml()).unwrap();
    let output = run(other.path(), &[&["-c", "f.yml"][..], &args].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = format!("stats server addr '127.0.0.1:{port}' failed: Address already in use");
    assert!(said.contains(&words), "{said}");
    drop(first);
}

/// The binary in the foreground with its statistics on a port.
struct Daemonless(std::process::Child);

impl Daemonless {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["-c", "f.yml", "-o", "log"]).args(args);
        Self(command.current_dir(dir).spawn().unwrap())
    }
}

impl Drop for Daemonless {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
