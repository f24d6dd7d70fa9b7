//! The bare relay under the load tool, which checks every reply: as a floor it counts only if it is right.

use std::process::Command;

/// Runs the tool on its own relay; gives its report, or panics with its words.
fn run(options: &str) -> serde_json::Value {
    let ran = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(
            "run --relay --fixed-keys --quiet --cpus none --clients 7 --warmup 0 --seconds 20"
                .split(' '),
        )
        .args(options.split(' '))
        .output()
        .expect("the tool starts");
    assert!(
        ran.status.success(),
        "{options}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    serde_json::from_slice(&ran.stdout).expect("a line of JSON")
}

#[test]
fn replies_reach_their_clients_in_order_at_any_depth() {
    for options in [
        "--depth 1 --requests 500",
        "--depth 64 --requests 5000 --servers 3",
        "--depth 16 --op set --requests 2000",
        "--depth 16 --protocol memcache --transport unix --requests 2000",
    ] {
        let report = run(options);
        assert!(
            report["requests"].as_u64() >= Some(500),
            "{options}: {report}"
        );
    }
}

#[test]
fn frames_larger_than_a_read_pass_in_both_directions() {
    for op in ["get", "set"] {
        let report = run(&format!(
            "--op {op} --value-size 300000 --depth 3 --requests 100"
        ));
        assert!(report["requests"].as_u64() >= Some(100), "{op}: {report}");
    }
}

#[test]
fn memory_is_watched_past_the_end_of_the_load() {
    let report = run("--requests 100 --watch 0.3");
    let series = report["memory"]["series"].as_array().expect("a series");
    let last = series.last().expect("a sample")[0].as_f64();
    assert!(last > report["memory"]["load_ended"].as_f64(), "{report}");
}
