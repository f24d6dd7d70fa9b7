//! The real engine in simulated worlds; `SIM_SEED=n` looks at one, `SIM_SEEDS=n` at that many.

use std::env;

use twemproxy_testkit::sim;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn no_oracle_speaks_up_in_any_of_the_first_worlds() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(256),
    };
    let mut answered = 0;
    for seed in seeds {
        match sim::run(seed) {
            Ok(report) => answered += report.answered,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(answered > 0, "somebody was answered");
}
