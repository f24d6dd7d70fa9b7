//! Seeds that once failed, each with what it found.

use twemproxy_testkit::sim;

#[test]
fn a_probe_answered_twice_in_one_read_is_closed_once() {
    sim::run(100_253).unwrap();
}
