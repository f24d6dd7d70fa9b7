//! Requests that the proxy answers itself.

use alloc::vec::Vec;

use super::commands::{COMMANDS, Shape};
use super::own::{Stats, write_stats};
use super::request::without_end;
pub use crate::proto::redis::local::After;
use crate::proto::{Request, Route};

/// Appends the answer to a request with [`crate::proto::Route::Local`] (`quit` has none).
pub fn respond(frame: &[u8], request: &Request, stats: &Stats, out: &mut Vec<u8>) -> After {
    debug_assert_eq!(request.route, Route::Local);
    let command = &COMMANDS[usize::from(request.command)];
    if command.shape != Shape::Stats {
        return After::Close;
    }
    let is_general = without_end(frame).trim_ascii_end() == command.name.as_bytes();
    write_stats(is_general, stats, out);
    After::Continue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::memcache::request::RequestParser;
    use crate::proto::{Parse, RequestLimits};

    const STATS: Stats = Stats {
        process_id: 4711,
        uptime: 12,
        wall_clock: 1_900_000_000,
        client_count: 3,
    };

    fn answer(frame: &[u8]) -> (Vec<u8>, After) {
        let limits = RequestLimits {
            frame_len_max: 1024,
            unauthenticated: false,
            allow_flush: false,
        };
        let Parse::Complete(request) = RequestParser::default().parse(frame, &limits) else {
            panic!("not a request");
        };
        let mut out = Vec::new();
        let after = respond(frame, &request, &STATS, &mut out);
        (out, after)
    }

    #[test]
    fn every_list_has_an_end() {
        let list = concat!(
            "STAT pid 4711\r\nSTAT uptime 12\r\nSTAT time 1900000000\r\nSTAT version ",
            env!("CARGO_PKG_VERSION"),
            "\r\nSTAT pointer_size 64\r\nSTAT curr_connections 3\r\nEND\r\n"
        );
        for frame in [&b"stats\r\n"[..], b"stats\n", b"stats  \r\n"] {
            assert_eq!(answer(frame), (list.into(), After::Continue));
        }
        for frame in [&b"stats items\r\n"[..], b"stats cachedump 1 0\r\n"] {
            assert_eq!(answer(frame), (b"END\r\n".to_vec(), After::Continue));
        }
        assert_eq!(answer(b"quit\r\n"), (Vec::new(), After::Close));
    }
}
