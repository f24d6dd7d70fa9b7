//! Code that the scenario tests share.

#[allow(dead_code, reason = "few tests are about memory")]
pub(crate) mod memory;

use twemproxy_core::config::PoolConfig;
use twemproxy_core::ids::ClientId;
use twemproxy_core::limits::CLIENT_IN_FLIGHT_MAX;
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_core::topology::{Placement, RingServer};
use twemproxy_testkit::hand::{Hand, pool};

/// A redis command as an array of bulk strings.
pub(crate) fn cmd(words: &str) -> String {
    let words: Vec<_> = words.split(' ').collect();
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out
}

pub(crate) fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

/// The `n`-th key (`k0`, `k1`, ...) that `server` owns.
pub(crate) fn key_of(config: &PoolConfig, server: u32, n: usize) -> String {
    let servers: Vec<_> = config
        .servers
        .iter()
        .map(|s| RingServer {
            name: &s.name,
            weight: s.weight,
            live: true,
        })
        .collect();
    let ring = Placement::build(config.distribution, &servers);
    (0..)
        .map(|i| format!("k{i}"))
        .filter(|key| ring.pick(config.hash.hash(key.as_bytes())) == Some(server))
        .nth(n)
        .expect("every server owns keys")
}

/// Lets the only server answer `request` so often that the client may have as many in flight as any.
#[allow(dead_code, reason = "few tests need a deep pipeline")]
pub(crate) fn open_window(hand: &mut Hand, client: ClientId, request: &str, response: &str) {
    let most = usize::try_from(CLIENT_IN_FLIGHT_MAX).expect("a small number");
    let requests = request.repeat(2 * most);
    let (mut sent, mut answered) = (0, 0);
    while answered < 2 * most {
        sent += hand.send(client, &requests.as_bytes()[sent..]);
        let conn = hand.conn(0);
        let asked = hand.got(conn).len() / request.len();
        hand.say(conn, response.repeat(asked).as_bytes());
        answered += asked;
    }
    assert_eq!(hand.got(client), response.repeat(2 * most));
}

pub(crate) fn redis(servers: usize) -> PoolConfig {
    pool(Protocol::Redis, servers)
}

pub(crate) fn with_timeout(mut config: PoolConfig, millis: u64) -> PoolConfig {
    config.timeout = Some(Span::from_millis(millis));
    config
}
