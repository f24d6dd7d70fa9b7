//! The page about memcached commands is the command table's.

use twemproxy_core::proto::memcache::commands;

#[test]
fn the_page_about_commands_is_fresh() {
    let page = include_str!("../../../docs/commands-memcache.md");
    assert_eq!(page, commands::document());
}
