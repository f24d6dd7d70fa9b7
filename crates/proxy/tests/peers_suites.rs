//! Other people's clients and their own tests, against the proxy.

use std::path::Path;
use std::process::Command;

use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, Server, ServerKind, free_address, private_dir,
};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

/// Runs a program; `false` if it is not there, which is a failure where nothing may be missing.
fn passes(command: &mut Command) -> bool {
    let program = command.get_program().to_owned();
    match command.output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{}: {}{}",
                program.display(),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            true
        }
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "{}: {error}",
                program.display()
            );
            eprintln!("skipped: {} is not installed", program.display());
            false
        }
    }
}

/// The interpreter with the pinned client libraries.
fn python() -> String {
    // A name that cannot be found: the test is skipped, or fails where nothing may be missing.
    std::env::var("PEER_PYTHON").unwrap_or_else(|_| "python-with-peers".to_owned())
}

fn script(name: &str) -> String {
    format!(
        "{}/../../scripts/peer-tests/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

#[test]
fn redis_py_works_as_applications_use_it() {
    let Some(bed) = Bed::start(BINARY, ServerKind::Redis, 4) else {
        return;
    };
    let mut command = Command::new(python());
    command
        .arg(script("redis_client.py"))
        .arg(bed.proxy.socket(POOL));
    passes(&mut command);
}

#[test]
fn pymemcache_works_as_applications_use_it() {
    let flush = |pool: PoolBuilder| pool.set("allow_flush", "true");
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Memcached, 4, flush) else {
        return;
    };
    let mut command = Command::new(python());
    command
        .arg(script("memcache_client.py"))
        .arg(bed.proxy.socket(POOL));
    passes(&mut command);
}

/// pytest with the suite of a client library, from its own sources, against the list of what must fail.
/// `None` where the sources are not there.
fn pytest(library: &str, expected: &str) -> Option<Command> {
    let Some(suites) = std::env::var_os("PEER_SUITES") else {
        assert!(std::env::var_os("CI").is_none(), "PEER_SUITES is not set");
        eprintln!("skipped: the suite of {library} is not installed");
        return None;
    };
    let mut command = Command::new(python());
    command
        .current_dir(Path::new(&suites).join(library))
        .env("PYTHONPATH", script(""))
        .args(["-m", "pytest", "--rootdir=."])
        .arg(format!("--config-file={}", script("pytest.ini")))
        .arg(format!("--expected={}", script(expected)));
    Some(command)
}

#[test]
fn the_suite_of_redis_py_passes_but_for_what_one_server_alone_can_answer() {
    let Some(mut command) = pytest("redis", "redis-py.expected") else {
        return;
    };
    let address = free_address();
    let reachable = |pool: PoolBuilder| {
        // The suite names keys that belong together as it does for a cluster.
        pool.listen(&address.to_string()).set("hash_tag", "\"{}\"")
    };
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Redis, 3, reachable) else {
        return;
    };
    let sockets: Vec<String> = bed
        .servers
        .iter()
        .map(|server| server.socket().display().to_string())
        .collect();
    command
        .arg(format!("--redis-url=redis://{address}"))
        .arg(format!("--redis-mod-url=redis://{address}"))
        .arg(format!("--servers={}", sockets.join(",")))
        .args([
            "tests/test_commands.py",
            "tests/test_encoding.py",
            "tests/test_multiprocessing.py",
            "tests/test_retry.py",
        ]);
    passes(&mut command);
}

#[test]
fn the_suite_of_pymemcache_passes_but_for_what_one_server_alone_can_answer() {
    let Some(mut command) = pytest("pymemcache", "pymemcache.expected") else {
        return;
    };
    let address = free_address();
    let reachable =
        |pool: PoolBuilder| pool.listen(&address.to_string()).set("allow_flush", "true");
    let Some(_bed) = Bed::start_with(BINARY, ServerKind::Memcached, 3, reachable) else {
        return;
    };
    command
        .arg(format!("--server={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .arg("pymemcache/test/test_integration.py");
    passes(&mut command);
}

/// libmemcached's conformance test of servers, without three parts: `ascii stat` asks one server for
/// its own statistics, which a pool has not; `ascii quit` fails with memcached 1.6 itself, for it
/// wants an error for `quit foo`; the binary tests are about another protocol.
#[test]
fn memccapable_finds_the_ascii_protocol_right() {
    const TESTS: [&str; 25] = [
        "ascii version",
        "ascii verbosity",
        "ascii set",
        "ascii set noreply",
        "ascii get",
        "ascii gets",
        "ascii mget",
        "ascii flush",
        "ascii flush noreply",
        "ascii add",
        "ascii add noreply",
        "ascii replace",
        "ascii replace noreply",
        "ascii cas",
        "ascii cas noreply",
        "ascii delete",
        "ascii delete noreply",
        "ascii incr",
        "ascii incr noreply",
        "ascii decr",
        "ascii decr noreply",
        "ascii append",
        "ascii append noreply",
        "ascii prepend",
        "ascii prepend noreply",
    ];
    let dir = private_dir();
    let servers: Option<Vec<Server>> = (0..3)
        .map(|i| Server::start(ServerKind::Memcached, dir.path(), &format!("s{i}"), &[]))
        .collect();
    let Some(servers) = servers else { return };
    let address = free_address();
    let pool = PoolBuilder::new(POOL, ServerKind::Memcached)
        .listen(&address.to_string())
        .set("allow_flush", "true")
        .servers(&servers);
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let _proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    for test in TESTS {
        let mut command = Command::new("memccapable");
        command.args([
            "-a",
            "-h",
            "127.0.0.1",
            "-p",
            &address.port().to_string(),
            "-T",
            test,
        ]);
        if !passes(&mut command) {
            return;
        }
    }
}
