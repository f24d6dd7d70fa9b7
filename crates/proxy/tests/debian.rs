//! The binary in the place of Debian's nutcracker: the init script and the unit of the package as shipped, and our unit.
//!
//! Each test has a world of its own: a namespace in which the binary is bound over `/usr/sbin/nutcracker`, the package's directories
//! are empty, and no other process or port is seen. That takes root, the package, and its user `nutcracker`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;
use twemproxy_testkit::harness::{private_dir, wait_for};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const INIT_SCRIPT: &str = "/etc/init.d/nutcracker";
const UNIT: &str = "/lib/systemd/system/nutcracker.service";
const PID_FILE: &str = "/run/nutcracker/nutcracker.pid";

/// The world that the package's scripts find. systemd is hidden, or it would be asked to do the scripts' work. The shell stays: as the
/// first process of the namespace it takes the daemons that ended.
const STAGE: &str = "set -e
    mount -t tmpfs none /run
    mount -t tmpfs none /etc/nutcracker
    mount -t tmpfs none /var/log/nutcracker
    chown nutcracker:adm /var/log/nutcracker
    chmod 02755 /var/log/nutcracker
    mount --bind \"$1\" /usr/sbin/nutcracker
    mount --bind \"$2\" /etc/default/nutcracker
    echo staged
    sleep 600
    :";

/// Ends with everything that was started in it.
struct World {
    keeper: Child,
    /// Seen inside and outside of it, writable for all: sockets, and the options of the package's user.
    dir: TempDir,
}

impl World {
    /// `None` if this process may not, or nothing of the package is here; with `CI=true` that is a failure.
    fn start(default_options: &str) -> Option<Self> {
        let dir = private_dir();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let defaults = dir.path().join("default");
        fs::write(&defaults, default_options).unwrap();
        let stage = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc"])
            .args(["--kill-child", "sh", "-c", STAGE, "sh", BINARY])
            .arg(&defaults)
            .stdout(fs::File::create(dir.path().join("staged")).unwrap())
            .stderr(Stdio::null())
            .spawn();
        let missing = || !Path::new(INIT_SCRIPT).exists() || !Path::new(UNIT).exists();
        let (Ok(keeper), false) = (stage, missing()) else {
            return skipped();
        };
        let mut world = Self { keeper, dir };
        let staged = wait_for("the world is set up", || {
            let text = fs::read(world.dir.path().join("staged")).unwrap();
            let ended = world.keeper.try_wait().unwrap().is_some();
            (ended || !text.is_empty()).then_some(!text.is_empty())
        });
        if staged { Some(world) } else { skipped() }
    }

    /// A command that runs in it, as root, in the root directory as services do.
    fn command(&self, line: &str) -> Command {
        let keeper = self.keeper.id();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{keeper}/ns/mnt"))
            .arg(format!("--net=/proc/{keeper}/ns/net"))
            .arg(format!("--pid=/proc/{keeper}/ns/pid_for_children"))
            .args(["--wd=/", "sh", "-c", line]);
        command
    }

    /// Output and exit status of a command in it.
    fn run(&self, line: &str) -> (String, i32) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(line).output().unwrap();
        let text = String::from_utf8([stdout, stderr].concat()).unwrap();
        (text, status.code().expect("not killed"))
    }

    /// The output of a command that succeeds.
    #[track_caller]
    fn done(&self, line: &str) -> String {
        let (text, status) = self.run(line);
        assert_eq!(status, 0, "{line}: {text}");
        text
    }

    /// Runs the package's script.
    #[track_caller]
    fn init(&self, action: &str) -> String {
        self.done(&format!("{INIT_SCRIPT} {action}"))
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("pool.sock")
    }

    /// Puts the configuration where the package has it.
    fn configure(&self) {
        let file = self.dir.path().join("nutcracker.yml");
        let listen = format!("{} 0660", self.socket().display());
        let text = format!(
            "p:\n  listen: {listen}\n  redis: true\n  timeout: 400\n  servers:\n    - 127.0.0.1:2:1\n"
        );
        fs::write(&file, text).unwrap();
        self.done(&format!("cp {} /etc/nutcracker/", file.display()));
    }

    /// Whether the proxy answers, as soon as it listens.
    #[track_caller]
    fn serves(&self) {
        let mut client = wait_for("the proxy listens", || Wire::unix(&self.socket()).ok());
        client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn skipped() -> Option<World> {
    let required = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!required, "root and Debian's nutcracker are needed");
    eprintln!("skipped: takes root and Debian's nutcracker");
    None
}

/// The words after `ExecStart=` or the like.
fn exec_line(unit: &str, key: &str) -> String {
    let mut lines = unit.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap().to_owned()
}

/// Runs the line like a service manager: options from the environment file, the package's user, the root directory.
fn as_service(line: &str) -> String {
    format!(
        "set -a; . /etc/default/nutcracker
         exec setpriv --reuid nutcracker --regid nutcracker --clear-groups {line}"
    )
}

// D70
#[test]
fn the_packages_init_script_starts_reloads_restarts_and_stops_it() {
    // The file as the package ships it.
    let Some(world) =
        World::start("# extra daemon options; see nutcracker --help\nDAEMON_OPTS=\"\"\n")
    else {
        return;
    };
    assert!(world.init("start").contains("(unconfigured)"));
    world.configure();
    world.init("start");
    world.serves();
    let pid = world.done(&format!("cat {PID_FILE}"));
    let owner = world.done(&format!("stat -c %U /proc/{pid} {PID_FILE}"));
    assert_eq!(owner, "nutcracker\nnutcracker\n");
    let (said, status) = world.run(&format!("{INIT_SCRIPT} status"));
    assert_eq!(status, 0, "{said}");
    assert!(world.init("start").contains("already started"));

    // Like logrotate: away with the old file, then the script's reload.
    let log = "/var/log/nutcracker/nutcracker.log";
    assert!(world.done(&format!("cat {log}")).contains("started on pid"));
    world.done(&format!("mv {log} {log}.1"));
    world.init("reload");
    wait_for("the log is opened again", || {
        (world.run(&format!("test -e {log}")).1 == 0).then_some(())
    });

    world.init("restart");
    world.serves();
    let next = world.done(&format!("cat {PID_FILE}"));
    assert_ne!(next, pid);
    world.init("stop");
    let left = world.run(&format!("ls /proc/{next} {PID_FILE} 2>/dev/null"));
    assert_eq!(left.0, "");
    assert!(!world.socket().exists());
    assert!(world.init("stop").contains("already stopped"));

    world.done("echo 'p: x' > /etc/nutcracker/nutcracker.yml");
    let (said, status) = world.run(&format!("{INIT_SCRIPT} start"));
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("Checking nutcracker config syntax"), "{said}");
}

/// Runs the unit's line and expects a service in the foreground that ends in order.
#[track_caller]
fn serves_in_the_foreground(world: &World, exec_start: &str) {
    let mut command = world.command(&as_service(exec_start));
    let log = world.dir.path().join("stderr");
    command.stderr(fs::File::create(&log).unwrap());
    let mut service = command.spawn().unwrap();
    world.serves();
    let files = "ls /var/log/nutcracker /run/nutcracker 2>/dev/null";
    assert_eq!(world.run(files).0.replace("/var/log/nutcracker:\n", ""), "");
    // nsenter has a child in the namespace, and waits for it.
    world.done("kill $(pidof nutcracker)");
    assert_eq!(service.wait().unwrap().code(), Some(0));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("run, rabbit run"), "{log}");
    assert!(log.ends_with("done, rabbit done\n"), "{log}");
}

// D70
#[test]
fn the_packages_unit_runs_it_in_the_foreground_with_its_log_on_stderr() {
    let Some(world) = World::start("DAEMON_OPTS=\"\"\n") else {
        return;
    };
    world.configure();
    let unit = fs::read_to_string(UNIT).unwrap();
    let line = exec_line(&unit, "ExecStart");
    assert_eq!(line, "/usr/sbin/nutcracker $DAEMON_OPTS");
    serves_in_the_foreground(&world, &line);
}

#[test]
fn our_unit_reads_the_packages_options() {
    let Some(world) = World::start("DAEMON_OPTS=\"-v 7 --workers=2\"\n") else {
        return;
    };
    world.configure();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/nutcracker.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(unit.contains("\nEnvironmentFile=-/etc/default/nutcracker\n"));
    let said = world.done(&as_service(&exec_line(&unit, "ExecStartPre")));
    assert!(said.ends_with("syntax is ok\n"), "{said}");
    serves_in_the_foreground(&world, &exec_line(&unit, "ExecStart"));
    let log = fs::read_to_string(world.dir.path().join("stderr")).unwrap();
    // A client is told of at level 6.
    assert!(
        log.contains("accepted c "),
        "the options are in force: {log}"
    );
}
