//! A process with little memory, for the stories about those who want some.

use twemproxy_core::config::Config;
use twemproxy_testkit::hand::Hand;

use super::redis;

/// A process with little memory.
pub(crate) fn short_of_memory() -> Hand {
    Hand::with_config(Config {
        pools: vec![redis(1)],
        memory_limit: 100_000,
        ..Config::default()
    })
}

/// A request of a million bytes of which `len` have come.
pub(crate) fn half_a_request(len: usize) -> String {
    format!(
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n{}",
        "v".repeat(len)
    )
}
