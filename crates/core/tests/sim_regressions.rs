//! Seeds that once failed, each with what it found.

use twemproxy_testkit::sim;

#[test]
fn a_probe_answered_twice_in_one_read_is_closed_once() {
    sim::run(100_253).unwrap();
}

#[test]
fn a_reply_that_breaks_before_any_of_it_was_sent_closes_nobody() {
    sim::run(2672).unwrap();
    sim::run(7450).unwrap();
}
