//! The real engine in simulated worlds; `SIM_SEED=n` looks at one, `SIM_SEEDS=n` at the first `n`.

use twemproxy_testkit::sim;

#[test]
fn no_oracle_speaks_up_in_any_of_the_first_worlds() {
    let mut answered = 0;
    for seed in sim::seeds(256) {
        match sim::run(seed) {
            Ok(report) => answered += report.answered,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(answered > 0, "somebody was answered");
}

#[test]
fn a_seed_brings_the_same_world_back() {
    for seed in 0..8 {
        let (first, second) = (sim::run(seed).unwrap(), sim::run(seed).unwrap());
        assert_eq!(first, second);
    }
}
