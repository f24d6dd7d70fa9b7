//! The page about memcached commands is the command table's. Run this test once with `UPDATE_DOCS=1` to
//! renew it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use twemproxy_core::proto::memcache::commands;

#[test]
fn the_page_about_commands_is_fresh() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/commands-memcache.md"
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, commands::document()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    assert_eq!(page, commands::document());
}
