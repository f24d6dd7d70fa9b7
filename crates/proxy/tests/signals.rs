//! The life of the process: start, signals, drain, end, and life as a daemon.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";

/// A proxy in front of a server that the test plays itself.
struct Stage {
    proxy: Proxy,
    server: UnixListener,
    pid_file: PathBuf,
    dir: TempDir,
}

fn config(dir: &Path) -> ConfigBuilder {
    let server = format!("{}:1 s0", dir.join("server.sock").display());
    let pool = PoolBuilder::new(POOL, ServerKind::Redis).server_line(&server);
    ConfigBuilder::new(dir).pool(pool)
}

fn stage(args: &[&str]) -> Stage {
    let dir = private_dir();
    let server = UnixListener::bind(dir.path().join("server.sock")).expect("the path is free");
    let pid_file = dir.path().join("pid");
    let pid_arg = pid_file.display().to_string();
    let args = [&["-p", &pid_arg], args].concat();
    Stage {
        proxy: Proxy::start(BINARY, dir.path(), &config(dir.path()), &args),
        server,
        pid_file,
        dir,
    }
}

impl Stage {
    /// A client whose request has reached the server, and the server's side of it.
    fn in_flight(&self) -> (Wire, UnixStream) {
        let mut client = self.proxy.connect(POOL);
        client.send(GET);
        let (mut server, _) = self.server.accept().expect("the proxy connects");
        let mut request = vec![0; GET.len()];
        server.read_exact(&mut request).expect("the request comes");
        assert_eq!(request, GET);
        (client, server)
    }

    fn signal(&mut self, signal: Signal) {
        self.proxy.process().signal(signal);
    }

    fn wait_logged(&self, text: &str) {
        self.proxy.wait_logged(text);
    }

    fn wait_not_listening(&self) {
        let socket = self.proxy.socket(POOL);
        wait_for("the listener closes", || (!socket.exists()).then_some(()));
    }

    fn expect_clean_end(&mut self) {
        let status = self.proxy.process().wait();
        assert_eq!(status.code(), Some(0));
        assert!(!self.pid_file.exists());
        assert!(!self.proxy.socket(POOL).exists());
        assert!(!self.dir.path().join("stats.sock").exists());
        assert!(self.proxy.log().contains("done, rabbit done\n"));
    }
}

// C15 C16 C17 D20
#[test]
fn term_and_int_close_idle_clients_remove_all_files_and_exit_with_0() {
    for (signal, words) in [
        (Signal::TERM, "signal 15 (SIGTERM) received, exiting"),
        (Signal::INT, "signal 2 (SIGINT) received, exiting"),
    ] {
        let mut stage = stage(&[]);
        let pid = fs::read_to_string(&stage.pid_file).expect("the pid file is there");
        assert_eq!(pid, stage.proxy.process().pid().to_string());
        let mut idle = stage.proxy.connect(POOL);
        idle.roundtrip(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n");
        stage.signal(signal);
        idle.expect_close();
        stage.expect_clean_end();
        let line = format!("[.......................] {words}\n");
        assert!(stage.proxy.log().contains(&line));
    }
}

#[test]
fn what_a_killed_proxy_left_behind_does_not_stop_the_next() {
    let mut stage = stage(&[]);
    stage.signal(Signal::KILL);
    stage.proxy.process().wait();
    let killed = fs::read_to_string(&stage.pid_file).expect("nobody removed it");
    assert!(stage.proxy.socket(POOL).exists());
    let dir = stage.dir.path();
    assert!(dir.join("stats.sock").exists());
    let pid_arg = stage.pid_file.display().to_string();
    stage.proxy = Proxy::start(BINARY, dir, &config(dir), &["-p", &pid_arg]);
    let pid = fs::read_to_string(&stage.pid_file).expect("the pid file is there");
    assert_ne!(pid, killed);
    assert_eq!(pid, stage.proxy.process().pid().to_string());
    let mut client = stage.proxy.connect(POOL);
    client.roundtrip(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n");
    drop(client);
    stage.signal(Signal::TERM);
    stage.expect_clean_end();
}

// D20
#[test]
fn a_drain_finishes_what_is_in_flight_and_takes_nobody_new() {
    let mut stage = stage(&[]);
    let (mut client, mut server) = stage.in_flight();
    stage.signal(Signal::TERM);
    stage.wait_not_listening();
    assert!(stage.proxy.process().ended().is_none());
    server.write_all(b"$1\r\nx\r\n").expect("the proxy reads");
    client.expect(b"$1\r\nx\r\n");
    client.expect_close();
    stage.expect_clean_end();
}

/// Nanoseconds of CPU that a process has had, all threads.
fn cpu_time(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let stats = tasks.map(|task| {
        let path = task.expect("a thread is listed").path().join("schedstat");
        fs::read_to_string(path).unwrap_or_default()
    });
    stats
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Begins a tick that takes long: a line of hundreds of thousands of keys is cut into requests. What arrives
/// meanwhile reaches the worker in one tick, the next.
fn keep_busy(bed: &mut Bed, busy: &mut Wire) {
    const BUSY: u64 = 20_000_000;
    let keys: String = (0..400_000).map(|key| format!(" key{key}")).collect();
    busy.send(format!("get{keys}").as_bytes());
    let pid = bed.proxy.process().pid();
    let mut before = cpu_time(pid);
    wait_for("all of it is read", || {
        let now = cpu_time(pid);
        let is_idle = now == before;
        before = now;
        is_idle.then_some(())
    });
    busy.send(b"\r\n");
    wait_for("the line is cut up", || {
        (cpu_time(pid) > before + BUSY).then_some(())
    });
}

#[test]
fn a_request_that_arrives_with_the_signal_is_served() {
    let Some(mut bed) = Bed::start(BINARY, ServerKind::Memcached, 1) else {
        return;
    };
    let (mut busy, mut quick) = (bed.client(), bed.client());
    quick.roundtrip(b"get a\r\n", b"END\r\n");
    keep_busy(&mut bed, &mut busy);
    bed.proxy.process().signal(Signal::TERM);
    quick.send(b"get a\r\n");
    quick.expect(b"END\r\n");
    quick.expect_close();
}

// D20
#[test]
fn a_drain_ends_at_its_time_out() {
    let mut stage = stage(&["--drain-timeout=50"]);
    let (mut client, _server) = stage.in_flight();
    stage.signal(Signal::TERM);
    client.expect_close();
    stage.expect_clean_end();
    assert!(stage.proxy.log().contains("drain timed out"));
}

// D20
#[test]
fn a_second_signal_ends_at_once() {
    let mut stage = stage(&["--drain-timeout=3600000"]);
    let (mut client, _server) = stage.in_flight();
    stage.signal(Signal::INT);
    stage.wait_not_listening();
    stage.signal(Signal::TERM);
    client.expect_close();
    stage.expect_clean_end();
}

// C18
#[test]
fn hup_opens_a_rotated_log_again() {
    let mut stage = stage(&[]);
    let log = stage.dir.path().join("nutcracker.log");
    let rotated = stage.dir.path().join("nutcracker.log.1");
    fs::rename(&log, &rotated).expect("the log is there");
    stage.signal(Signal::HUP);
    wait_for("a new log", || log.exists().then_some(()));
    stage.signal(Signal::USR1);
    stage.wait_logged("signal 10 (SIGUSR1) received\n");
    let old = fs::read_to_string(&rotated).expect("it was moved there");
    // Another thread's line may have come between this one and the reopening.
    assert!(old.contains("signal 1 (SIGHUP) received, reopening log file\n"));
}

// C19
#[test]
fn ttin_and_ttou_move_the_log_level() {
    let mut stage = stage(&["-v", "10"]);
    for (signal, words) in [
        (
            Signal::TTIN,
            "signal 21 (SIGTTIN) received, up logging level",
        ),
        (
            Signal::TTOU,
            "signal 22 (SIGTTOU) received, down logging level",
        ),
        (Signal::USR2, "signal 12 (SIGUSR2) received"),
    ] {
        stage.signal(signal);
        stage.wait_logged(&format!("[.......................] {words}\n"));
    }
    stage.wait_logged("[.......................] up log level to 11\n");
    stage.wait_logged("[.......................] down log level to 10\n");
}

// D27
#[test]
fn connections_are_logged_at_level_6_only() {
    for (level, logged) in [("5", false), ("6", true)] {
        let mut stage = stage(&["-v", level]);
        let mut client = stage.proxy.connect(POOL);
        client.roundtrip(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n");
        stage.signal(Signal::TERM);
        stage.expect_clean_end();
        let log = stage.proxy.log();
        assert_eq!(log.contains("] acceptor.rs:"), logged, "{log}");
        assert_eq!(log.contains(" accepted c "), logged, "{log}");
        assert_eq!(log.contains(" close c "), logged, "{log}");
    }
}

// D27
#[test]
fn protocol_errors_and_lost_servers_are_logged_at_level_5() {
    for (level, logged) in [("4", false), ("5", true)] {
        let mut stage = stage(&["-v", level]);
        let mut client = stage.proxy.connect(POOL);
        client.send(b"*x\r\n");
        client.expect(b"-ERR Protocol error: invalid multibulk length\r\n");
        client.expect_close();
        let (mut client, server) = stage.in_flight();
        drop(server);
        // A read is sent once more.
        drop(stage.server.accept().expect("the proxy connects again"));
        assert!(client.read_redis().starts_with(b"-ERR "));
        drop(client);
        stage.signal(Signal::TERM);
        stage.expect_clean_end();
        let log = stage.proxy.log();
        assert_eq!(log.contains(" sent an invalid request\n"), logged, "{log}");
        let lost = "connection to server 's0' of pool 'alpha' lost: ";
        assert_eq!(log.contains(lost), logged, "{log}");
        assert!(!log.contains(" accepted c "), "{log}");
    }
}

// D27
#[test]
fn a_burst_of_lines_is_cut_and_none_of_them_is_missed_in_the_count() {
    const CLIENTS: usize = 300;
    let stage = stage(&["-v", "6"]);
    let mut wires: Vec<Wire> = (0..CLIENTS).map(|_| stage.proxy.connect(POOL)).collect();
    for wire in &mut wires {
        wire.roundtrip(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n");
    }
    wait_for("every client is a line or in a count", || {
        let log = stage.proxy.log();
        let shown = log.matches(" accepted c ").count();
        let counted: usize = log
            .lines()
            .filter_map(|line| line.strip_suffix(" more accepted clients not shown"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum();
        // The harness' first connection is one, too.
        (counted > 0 && shown > 0 && shown + counted == CLIENTS + 1).then_some(())
    });
}

#[test]
fn the_log_begins_with_the_originals_banner() {
    let mut stage = stage(&[]);
    let pid = stage.proxy.process().pid();
    stage.wait_logged("run, rabbit run");
    let log = stage.proxy.log();
    let mut lines = log.lines();
    let first = lines.next().expect("a first line");
    assert!(
        first.contains(" nutcracker-0.5.0 built for Linux "),
        "{first}"
    );
    assert!(
        first.ends_with(&format!(" started on pid {pid}")),
        "{first}"
    );
    let second = lines.next().expect("a second line");
    assert!(second.contains(" run, rabbit run"), "{second}");
}

/// A configuration in a directory, and the daemon that may come of it.
struct DaemonStage {
    dir: TempDir,
}

impl DaemonStage {
    fn new() -> Self {
        let dir = private_dir();
        let listen = dir.path().join("alpha.sock").display().to_string();
        let pool = PoolBuilder::new(POOL, ServerKind::Redis)
            .listen(&listen)
            .server_line("/nonexistent/socket:1 s0");
        let yaml = ConfigBuilder::new(dir.path()).pool(pool).yaml();
        fs::write(dir.path().join("n.yml"), yaml).expect("the directory is ours");
        Self { dir }
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(BINARY)
            .args(["-c", "n.yml", "-o", "log", "-p", "pid"])
            .args(["-a", &self.path("stats.sock").display().to_string()])
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("the binary runs")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn daemon(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.path("pid")).ok()?;
        Pid::from_raw(text.parse().expect("a bare number"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("the log was made")
    }
}

impl Drop for DaemonStage {
    fn drop(&mut self) {
        if let Some(pid) = self.daemon() {
            // It has ended if all went well.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

// C22 D19
#[test]
fn the_command_returns_once_the_daemon_serves() {
    let stage = DaemonStage::new();
    let output = stage.run(&["-d"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));

    // No waiting here: it serves already.
    let mut client = Wire::unix(&stage.path("alpha.sock")).expect("the daemon listens");
    client.roundtrip(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n");
    let pid = stage.daemon().expect("the pid file is there");
    test_kill_process(pid).expect("it is a process");
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .expect("it is a process");
    let (_, after_name) = stat.rsplit_once(')').expect("the name is in parentheses");
    // State, parent, group, session, terminal.
    let terminal = after_name.split_whitespace().nth(4).expect("a field");
    assert_eq!(terminal, "0", "the daemon has left its terminal");
    let cwd = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).expect("it runs");
    assert_eq!(cwd, stage.dir.path().canonicalize().expect("it is there"));

    kill_process(pid, Signal::TERM).expect("it is ours");
    client.expect_close();
    wait_for("the daemon ends", || stage.daemon().is_none().then_some(()));
    wait_for("its last line", || {
        stage.log().contains("done, rabbit done\n").then_some(())
    });
}

// D19
#[test]
fn the_command_tells_why_the_daemon_did_not_start() {
    let stage = DaemonStage::new();
    fs::write(stage.path("stats.sock"), "in the way").expect("the directory is ours");
    let output = stage.run(&["-d"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.ends_with("failed: Address already in use\n"), "{said}");
    assert!(stage.daemon().is_none(), "the pid file is removed");

    fs::write(stage.path("n.yml"), "alpha:\n  nonsense: 1\n").expect("the directory is ours");
    let output = stage.run(&["-d"]);
    assert_eq!(output.status.code(), Some(1));
    assert_ne!(output.stderr, b"");
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let stage = DaemonStage::new();
    fs::create_dir(stage.path("alpha.sock")).expect("the directory is ours");
    let output = stage.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let log = stage.log();
    assert!(log.contains(" bind on p "), "{log}");
    assert!(log.contains("done, rabbit done\n"), "{log}");
    assert!(!stage.path("pid").exists());
    assert!(!stage.path("stats.sock").exists());

    let output = stage.run(&["-o", "/nonexistent/log"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let want = "opening log file '/nonexistent/log' failed: No such file or directory\n";
    assert_eq!(said, want);
}

#[test]
fn a_signal_ends_a_start_that_waits_for_its_configuration() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = private_dir();
        let [fifo, pid_file, log] = ["conf", "pid", "log"].map(|name| dir.path().join(name));
        let made = Command::new("mkfifo").arg(&fifo).status();
        assert!(made.is_ok_and(|status| status.success()));
        let mut command = Command::new(BINARY);
        command.arg("-c").arg(&fifo).arg("-p").arg(&pid_file);
        let mut child = command.arg("-o").arg(&log).spawn().expect("it starts");
        wait_for("it starts", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.contains("run, rabbit run").then_some(())
        });
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).expect("it runs");
        let status = wait_for("it ends", || child.try_wait().expect("it is ours"));
        assert_eq!(status.code(), Some(0));
        assert!(!pid_file.exists());
        let text = fs::read_to_string(&log).expect("it was written");
        assert!(
            text.contains(", exiting\n") && text.ends_with("done, rabbit done\n"),
            "{text}"
        );
    }
}
