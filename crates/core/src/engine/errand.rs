//! Requests of the proxy's own on a server connection: their bytes, and the answers that they accept.

use alloc::vec::Vec;

use crate::config::PoolConfig;
use crate::proto::redis::local::{write_auth, write_select};
use crate::proto::redis::own::auth_accepted;
use crate::proto::{Protocol, memcache};

/// One request of the proxy's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    /// AUTH on a new connection.
    Auth,
    /// SELECT on a new connection.
    Select,
    /// Asks an ejected server whether it is healthy.
    Probe,
}

/// The only ways in which a redis that can serve answers PING. The errors are those of a server that
/// wants a password, does not allow the command or does not know it; any other is no answer. Above
/// all `-ERR max number of clients reached` and `-DENIED` are none: a redis that refuses a connection
/// says them whatever it is asked.
const PING_ANSWERS: [&[u8]; 6] = [
    b"+PONG\r",
    b"-NOAUTH ",
    b"-NOPERM ",
    b"-MISCONF ",
    b"-ERR operation not permitted",
    b"-ERR unknown command",
];

impl Errand {
    /// The errands with which a new connection of `pool` begins, in their order.
    pub(crate) fn on_connect(pool: &PoolConfig, is_probe: bool) -> impl Iterator<Item = Self> {
        let auth = pool.redis_auth.is_some().then_some(Self::Auth);
        let select = (pool.redis_db > 0).then_some(Self::Select);
        let probe = is_probe.then_some(Self::Probe);
        auth.into_iter().chain(select).chain(probe)
    }

    /// Appends its bytes.
    pub(crate) fn write(self, pool: &PoolConfig, out: &mut Vec<u8>) {
        match (self, pool.protocol) {
            (Self::Auth, _) => {
                let password = pool.redis_auth.as_deref();
                write_auth(password.expect("AUTH is sent with a password"), out);
            }
            (Self::Select, _) => write_select(pool.redis_db, out),
            (Self::Probe, Protocol::Redis) => out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n"),
            (Self::Probe, Protocol::Memcache) => out.extend_from_slice(memcache::own::PROBE),
        }
    }

    /// Whether `response` is what a server that will serve answers to it.
    pub(crate) fn accepts(self, protocol: Protocol, response: &[u8]) -> bool {
        match (self, protocol) {
            (Self::Auth, _) => auth_accepted(response),
            (Self::Select, _) => response.starts_with(b"+"),
            (Self::Probe, Protocol::Redis) => PING_ANSWERS
                .iter()
                .any(|answer| response.starts_with(answer)),
            (Self::Probe, Protocol::Memcache) => memcache::own::answers_probe(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D59
    #[test]
    fn a_probe_is_answered_only_by_what_its_question_can_be_answered_with() {
        let accepts = |answer: &str| Errand::Probe.accepts(Protocol::Redis, answer.as_bytes());
        for answer in [
            "+PONG\r\n",
            "-NOAUTH Authentication required.\r\n",
            "-NOPERM this user has no permissions to run the 'ping' command\r\n",
            "-MISCONF Redis is configured to save RDB snapshots\r\n",
            "-ERR operation not permitted\r\n",
            "-ERR unknown command 'PING', with args beginning with: \r\n",
        ] {
            assert!(accepts(answer), "{answer}");
        }
        for answer in [
            "-ERR max number of clients reached\r\n",
            "-ERR max number of clients + cluster connections reached\r\n",
            "-DENIED Redis is running in protected mode because\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-MASTERDOWN Link with MASTER is down\r\n",
            "+OK\r\n",
            ":1\r\n",
            "$4\r\nPONG\r\n",
        ] {
            assert!(!accepts(answer), "{answer}");
        }
        let accepts = |answer: &str| Errand::Probe.accepts(Protocol::Memcache, answer.as_bytes());
        assert!(accepts("VERSION 1.6.18\r\n"));
        for answer in [
            "ERROR Too many open connections\r\n",
            "END\r\n",
            "ERROR\r\n",
        ] {
            assert!(!accepts(answer), "{answer}");
        }
    }
}
