//! The files of a process: whose the pid file and the sockets are when there are two of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use twemproxy_testkit::harness::{
    ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

fn config(dir: &Path, listen: &str) -> ConfigBuilder {
    // Nothing that is worth another warning.
    let pool = PoolBuilder::new(POOL, ServerKind::Redis)
        .set("timeout", "400")
        .server_line("/tmp/nowhere-at-all:1 s0");
    let pool = match listen {
        "" => pool,
        listen => pool.listen(listen),
    };
    ConfigBuilder::new(dir).pool(pool)
}

/// Runs `program` until it ends, or its parent for a daemon.
fn run(dir: &Path, program: &[&str], args: &[&str]) -> Output {
    Command::new(program[0])
        .args(&program[1..])
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ping(socket: &Path) {
    let mut client = Wire::unix(socket).expect("it listens");
    client.roundtrip(PING, PONG);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// D65
#[test]
fn a_second_start_leaves_the_pid_file_of_the_first() {
    let dir = private_dir();
    let pid_file = dir.path().join("pid");
    let first = config(dir.path(), "");
    let args = ["-p", pid_file.to_str().unwrap()];
    let mut first = Proxy::start(BINARY, dir.path(), &first, &args);
    let pid = first.process().pid().to_string();

    // Nothing else in common, in the foreground and as a daemon.
    let second = config(dir.path(), dir.path().join("other.sock").to_str().unwrap());
    fs::write(dir.path().join("second.yml"), second.yaml()).unwrap();
    let stats = dir.path().join("stats2.sock").display().to_string();
    for more in [&[][..], &["-d", "-o", "second.log"]] {
        let args = [&["-c", "second.yml", "-p", "pid", "-a", &stats], more].concat();
        let second = run(dir.path(), &[BINARY], &args);
        assert_eq!(second.status.code(), Some(1));
        let words = format!("locking pid file 'pid' failed: process {pid} runs with it\n");
        assert!(said(&second).contains(words.trim()), "{}", said(&second));
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid);
    }
    ping(first.socket(POOL));
    assert_eq!(first.stop().code(), Some(0));
    assert!(!pid_file.exists());
}

// D65
#[test]
fn a_start_that_fails_later_leaves_the_pid_file_as_it_was() {
    let dir = private_dir();
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    fs::write(
        dir.path().join("n.yml"),
        config(dir.path(), &address).yaml(),
    )
    .unwrap();
    let stats = dir.path().join("stats.sock");
    let args = ["-c", "n.yml", "-p", "pid", "-a", stats.to_str().unwrap()];
    // Written by a nutcracker 0.5, which locks nothing.
    let pid_file = dir.path().join("pid");
    for before in [Some("4711"), None] {
        match before {
            Some(text) => fs::write(&pid_file, text).unwrap(),
            None => fs::remove_file(&pid_file).unwrap(),
        }
        let start = run(dir.path(), &[BINARY], &args);
        assert_eq!(start.status.code(), Some(1));
        assert!(
            said(&start).contains("Address already in use"),
            "{}",
            said(&start)
        );
        assert_eq!(fs::read_to_string(&pid_file).ok().as_deref(), before);
        assert!(!stats.exists());
    }
}

// D66
#[test]
fn a_second_start_takes_no_socket_from_the_first() {
    let dir = private_dir();
    let mut first = Proxy::start(BINARY, dir.path(), &config(dir.path(), ""), &[]);
    let (pool, stats) = (first.socket(POOL).to_owned(), dir.path().join("stats.sock"));
    let other = |name: &str| dir.path().join(name).display().to_string();

    // The same listener, then the same statistics.
    let second = config(dir.path(), &other("other.sock"));
    fs::write(dir.path().join("second.yml"), second.yaml()).unwrap();
    for (file, stats, words) in [
        ("nutcracker.yml", other("stats2.sock"), " bind on p "),
        ("second.yml", stats.display().to_string(), " bind on m "),
    ] {
        let second = run(dir.path(), &[BINARY], &["-c", file, "-a", &stats]);
        assert_eq!(second.status.code(), Some(1));
        let said = said(&second);
        assert!(said.contains(words), "{said}");
        assert!(said.contains(" failed: Address already in use\n"), "{said}");
        ping(&pool);
    }
    for gone in ["stats2.sock", "other.sock"] {
        assert!(!dir.path().join(gone).exists(), "{gone} was undone");
    }
    assert!(first.stat(POOL, &["client_connections"]) >= 0);
    assert_eq!(first.stop().code(), Some(0));
    assert!(!pool.exists() && !stats.exists());
}

// D66
#[test]
fn the_sockets_of_a_killed_process_are_replaced_and_other_files_stay() {
    let dir = private_dir();
    let mut proxy = Proxy::start(BINARY, dir.path(), &config(dir.path(), ""), &[]);
    proxy.process().kill();
    let pool = proxy.socket(POOL).to_owned();
    assert!(pool.exists() && dir.path().join("stats.sock").exists());
    let mut proxy = Proxy::start(BINARY, dir.path(), &config(dir.path(), ""), &[]);
    ping(&pool);
    assert_eq!(proxy.stop().code(), Some(0));

    for taken in [pool, dir.path().join("stats.sock")] {
        fs::write(&taken, "precious").unwrap();
        let stats = dir.path().join("stats.sock").display().to_string();
        let start = run(
            dir.path(),
            &[BINARY],
            &["-c", "nutcracker.yml", "-a", &stats],
        );
        assert_eq!(start.status.code(), Some(1));
        assert!(
            said(&start).contains("Address already in use"),
            "{}",
            said(&start)
        );
        assert_eq!(fs::read(&taken).unwrap(), b"precious");
        fs::remove_file(&taken).unwrap();
    }
}

/// A daemon and its directory.
struct Daemon {
    dir: TempDir,
}

impl Daemon {
    /// Starts it with this umask; also what the command said.
    fn start(listen_mode: &str, umask: &str, args: &[&str]) -> (Self, String) {
        let dir = private_dir();
        let listen = dir.path().join("alpha.sock");
        let listen = format!("{}{listen_mode}", listen.display());
        fs::write(dir.path().join("n.yml"), config(dir.path(), &listen).yaml()).unwrap();
        let daemon = Self { dir };
        let stats = daemon.path("stats.sock").display().to_string();
        let script = format!("umask {umask}; exec {BINARY} -d -p pid -a {stats} -c n.yml \"$@\"");
        let started = run(daemon.dir.path(), &["sh", "-c", &script, "sh"], args);
        assert_eq!(started.status.code(), Some(0), "{}", said(&started));
        (daemon, said(&started))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.path("pid")).ok();
        if let Some(pid) = pid.and_then(|text| Pid::from_raw(text.parse().ok()?)) {
            // It may have ended.
            let _ = kill_process(pid, Signal::TERM);
            wait_for("it ends", || (!self.path("pid").exists()).then_some(()));
        }
    }
}

// D67
#[test]
fn sockets_of_a_daemon_have_the_modes_that_were_asked_for() {
    let (daemon, words) = Daemon::start("", "027", &["-o", "log"]);
    assert_eq!(words, "");
    let socket = daemon.path("alpha.sock");
    ping(&socket);
    assert_eq!(mode(&socket), 0o777);
    assert_eq!(mode(&daemon.path("stats.sock")), 0o750);
    let warning = format!(
        "pool 'alpha': with -d every user may connect to '{path}', which has no mode; to name one: \
         listen: {path} 0660\n",
        path = socket.display()
    );
    wait_for("a warning", || {
        let log = fs::read_to_string(daemon.path("log")).ok()?;
        log.contains(&warning).then_some(())
    });
    let tested = run(daemon.dir.path(), &[BINARY], &["-t", "-c", "n.yml"]);
    let want = format!(
        "nutcracker: configuration file 'n.yml' syntax is ok\nnutcracker: warning: {warning}"
    );
    assert_eq!((tested.status.code(), said(&tested)), (Some(0), want));

    let (daemon, _) = Daemon::start(" 0640", "077", &["-o", "log"]);
    assert_eq!(mode(&daemon.path("alpha.sock")), 0o640);
    assert_eq!(mode(&daemon.path("stats.sock")), 0o700);
    let tested = run(daemon.dir.path(), &[BINARY], &["-t", "-c", "n.yml"]);
    assert!(!said(&tested).contains("warning"), "{}", said(&tested));
    assert!(
        !fs::read_to_string(daemon.path("log"))
            .unwrap()
            .contains("has no mode")
    );
}

// D67
#[test]
fn a_daemon_without_a_log_is_warned_of() {
    let warning = "nutcracker: warning: -d without -o: the daemon's log goes nowhere\n";
    let (daemon, words) = Daemon::start(" 0600", "022", &[]);
    assert_eq!(words, warning);
    ping(&daemon.path("alpha.sock"));
    let tested = run(daemon.dir.path(), &[BINARY], &["-t", "-d", "-c", "n.yml"]);
    assert!(said(&tested).ends_with(warning), "{}", said(&tested));
}

// D65
#[test]
fn a_disk_that_is_full_leaves_no_empty_pid_file() {
    let dir = private_dir();
    fs::write(dir.path().join("n.yml"), config(dir.path(), "").yaml()).unwrap();
    let stats = dir.path().join("stats.sock").display().to_string();
    let start = format!("exec {BINARY} -c n.yml -a {stats} -p pids/pid");
    // A file of no byte is what a full disk is, without the rights to make one.
    let limited = format!("ulimit -f 0; {start}");
    let full =
        format!("mount -t tmpfs -o size=4k none pids && {{ cat /dev/zero >pids/fill; {start}; }}");
    let unshared = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none pids"];
    fs::create_dir(dir.path().join("pids")).unwrap();
    let may_mount =
        run_if_there(dir.path(), &unshared).is_some_and(|output| output.status.success());
    for old in ["", "4711"] {
        let pid_file = dir.path().join("pids/pid");
        if !old.is_empty() {
            fs::write(&pid_file, old).unwrap();
        }
        let output = run(dir.path(), &["sh", "-c", &limited], &[]);
        let words = "write to pid file 'pids/pid' failed: File too large\n";
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        assert!(!pid_file.exists());
        assert!(!dir.path().join("stats.sock").exists());
    }
    if may_mount {
        let script = full.replace("exec ", "");
        let script = format!("{script}; ls pids >left");
        let output = run(
            dir.path(),
            &["unshare", "--mount", "sh", "-c", &script],
            &[],
        );
        let words = "write to pid file 'pids/pid' failed: No space left on device\n";
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(
            fs::read_to_string(dir.path().join("left")).unwrap(),
            "fill\n"
        );
    } else {
        eprintln!("skipped: a full disk takes root");
    }
}

fn run_if_there(dir: &Path, program: &[&str]) -> Option<Output> {
    let mut command = Command::new(program[0]);
    match command.args(&program[1..]).current_dir(dir).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            None
        }
    }
}

// D66
#[test]
fn a_listener_that_is_not_ours_is_not_taken_over() {
    let dir = private_dir();
    let socket = dir.path().join("other.sock");
    let other = UnixListener::bind(&socket).unwrap();
    let listen = socket.display().to_string();
    fs::write(dir.path().join("n.yml"), config(dir.path(), &listen).yaml()).unwrap();
    let stats = dir.path().join("stats.sock").display().to_string();
    let start = run(dir.path(), &[BINARY], &["-c", "n.yml", "-a", &stats]);
    assert_eq!(start.status.code(), Some(1));
    assert!(
        said(&start).contains("Address already in use"),
        "{}",
        said(&start)
    );
    // The question whether it is alive was one connection.
    other.accept().unwrap();
    assert!(socket.exists());
}
