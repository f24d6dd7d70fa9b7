//! Log lines of a worker's and the acceptor's every-day events, worded and rate-limited here.
//!
//! Each kind of line may come [`NOTICES_PER_WINDOW`] times per second and thread; one line counts
//! the rest. A line whose level is off costs one atomic load.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use twemproxy_core::config::Config;
use twemproxy_core::engine::{ClientEnd, Notice, Weight};
use twemproxy_core::ids::ServerId;
use twemproxy_core::table::Table;
use twemproxy_core::time::{Micros, Span};
use twemproxy_core::topology::Topology;

use crate::limits::{NOTICE_WINDOW_MICROS, NOTICES_PER_WINDOW};
use crate::log::{self, Level, log};
use crate::net::stream::Stream;

/// The kinds that are limited apart from each other, with their level and plural.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A server left the ring.
    Ejected,
    /// A server came back to the ring.
    Restored,
    /// A server refused AUTH or SELECT.
    HandshakeRefused,
    /// A server took a connection and refused to serve it.
    TurnedAway,
    /// The name of a server could not be looked up.
    NameUnknown,
    /// A connection to a server ended or could not be made.
    ServerLost,
    /// A server that had failed without being ejected serves again.
    ServerBack,
    /// A server sent what is no response.
    ServerInvalid,
    /// A server was late.
    ServerTimedOut,
    /// A listener could not accept.
    AcceptFailed,
    /// A client came.
    Accepted,
    /// A client went.
    ClientClosed,
    /// A client was closed for a fault.
    ClientFault,
    /// A client was closed because a limit was reached.
    ClientLimit,
}

const KINDS: &[(Kind, Level, &str)] = &[
    (Kind::Ejected, Level::Warning, "ejected servers"),
    (Kind::Restored, Level::Warning, "restored servers"),
    (Kind::HandshakeRefused, Level::Warning, "refused handshakes"),
    (Kind::TurnedAway, Level::Warning, "refused connections"),
    (Kind::NameUnknown, Level::Warning, "failed look-ups"),
    (Kind::ServerLost, Level::Notice, "lost server connections"),
    (Kind::ServerBack, Level::Notice, "servers connected again"),
    (Kind::ServerInvalid, Level::Notice, "invalid responses"),
    (Kind::ServerTimedOut, Level::Notice, "server time-outs"),
    (Kind::AcceptFailed, Level::Error, "failed accepts"),
    (Kind::Accepted, Level::Info, "accepted clients"),
    (Kind::ClientClosed, Level::Info, "closed clients"),
    (Kind::ClientFault, Level::Notice, "faulty clients"),
    (Kind::ClientLimit, Level::Warning, "clients at a limit"),
];

/// The limiter of one thread, with the names it needs.
#[derive(Debug)]
pub(crate) struct Notices {
    servers: Table<ServerId, String>,
    windows: [Window; KINDS.len()],
    /// When the first window with suppressed lines ends.
    due: Option<Micros>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Window {
    start: Micros,
    written: u32,
    suppressed: u64,
}

impl Notices {
    /// A limiter that has seen nothing, for the pools of `config`, which have `topologies`.
    pub(crate) fn new(config: &Config, topologies: &[Arc<Topology>]) -> Self {
        let pools = config.pools.iter().zip(topologies);
        let servers = pools.flat_map(|(pool, topology)| {
            let named = move |name| format!("server '{name}' of pool '{}'", pool.name);
            let shards = topology.shards.iter();
            shards.map(move |shard| (shard.primary, named(&shard.name)))
        });
        Self {
            servers: servers.collect(),
            windows: [Window::default(); KINDS.len()],
            due: None,
        }
    }

    /// Writes why a client is closed; `held` bytes are held for it.
    pub(crate) fn write_client_end(
        &mut self,
        stream: &Stream,
        end: ClientEnd,
        held: u64,
        now: Micros,
    ) {
        let kind = match end.weight() {
            Weight::Daily => Kind::ClientClosed,
            Weight::Fault => Kind::ClientFault,
            Weight::Limit => Kind::ClientLimit,
        };
        if !self.admits(kind, now) {
            return;
        }
        let (fd, peer, why) = (stream.fd(), stream.peer(), end.text());
        if kind == Kind::ClientLimit {
            log!(
                level(kind),
                "close c {fd} '{peer}', which holds {held} bytes: {why}"
            );
        } else {
            log!(level(kind), "close c {fd} '{peer}': {why}");
        }
    }

    /// Writes a notice of the engine about a server.
    pub(crate) fn write_notice(&mut self, notice: Notice, now: Micros) {
        match notice {
            Notice::Ejected(server) => self.server(Kind::Ejected, server, "ejected", now),
            Notice::Restored(server) => self.server(Kind::Restored, server, "restored", now),
            Notice::ServerLost { server, why } => {
                if self.admits(Kind::ServerLost, now) {
                    let (name, why) = (&self.servers[server], why.text());
                    log!(Level::Notice, "connection to {name} lost: {why}");
                }
            }
            Notice::ServerInvalid(server) => {
                self.server(Kind::ServerInvalid, server, "sent an invalid response", now);
            }
            Notice::ServerTimedOut(server) => {
                self.server(Kind::ServerTimedOut, server, "timed out", now);
            }
            Notice::ServerRefusedHandshake(server) => {
                self.server(
                    Kind::HandshakeRefused,
                    server,
                    "refused AUTH or SELECT",
                    now,
                );
            }
            Notice::ServerBack(server) => {
                self.server(Kind::ServerBack, server, "is connected again", now);
            }
            Notice::ServerTurnedAway(server) => {
                let what = "refused a new connection with an error; it may have too many";
                self.server(Kind::TurnedAway, server, what, now);
            }
            // These name a connection: see [`Self::write_client_end`].
            Notice::ClientEnds { .. } => {}
        }
    }

    /// Writes a line of `kind`, as the caller's; its text is only made when it is wanted.
    #[track_caller]
    pub(crate) fn write<T: fmt::Display>(
        &mut self,
        kind: Kind,
        now: Micros,
        text: impl FnOnce() -> T,
    ) {
        if self.admits(kind, now) {
            let place = Location::caller();
            log::write(place.file(), place.line(), format_args!("{}", text()));
        }
    }

    /// Writes the counts of windows that have ended.
    pub(crate) fn handle_timeout(&mut self, now: Micros) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        for index in 0..KINDS.len() {
            self.end_window(index, now);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub(crate) const fn poll_timeout(&self) -> Option<Micros> {
        self.due
    }

    fn server(&mut self, kind: Kind, server: ServerId, what: &str, now: Micros) {
        if self.admits(kind, now) {
            log!(level(kind), "{} {what}", self.servers[server]);
        }
    }

    /// Whether one more line of `kind` may be written.
    fn admits(&mut self, kind: Kind, now: Micros) -> bool {
        if !log::is_on(level(kind)) {
            return false;
        }
        let index = position(kind);
        self.end_window(index, now);
        let window = &mut self.windows[index];
        if window.written < NOTICES_PER_WINDOW {
            window.written += 1;
            return true;
        }
        window.suppressed += 1;
        let end = window.start + WINDOW;
        self.due = Some(self.due.map_or(end, |due| due.min(end)));
        false
    }

    /// Begins a new window if the old one is over, or else keeps its end in mind.
    fn end_window(&mut self, index: usize, now: Micros) {
        let window = &mut self.windows[index];
        let end = window.start + WINDOW;
        if end > now {
            if window.suppressed > 0 {
                self.due = Some(self.due.map_or(end, |due| due.min(end)));
            }
            return;
        }
        let (_, level, what) = KINDS[index];
        if window.suppressed > 0 {
            log!(level, "{} more {what} not shown", window.suppressed);
        }
        *window = Window {
            start: now,
            ..Window::default()
        };
    }
}

const WINDOW: Span = Span(NOTICE_WINDOW_MICROS);

fn position(kind: Kind) -> usize {
    KINDS
        .iter()
        .position(|&(row, ..)| row == kind)
        .expect("every kind has a row, as a test shows")
}

fn level(kind: Kind) -> Level {
    KINDS[position(kind)].1
}

#[cfg(test)]
mod tests {
    use super::*;

    // D27
    #[test]
    fn every_kind_has_a_row_and_the_levels_of_the_contract() {
        use Kind as K;
        for kind in [K::Ejected, K::Restored] {
            assert_eq!(level(kind), Level::Warning);
        }
        for kind in [
            K::ServerBack,
            K::ServerTimedOut,
            K::ServerInvalid,
            K::ClientFault,
        ] {
            assert_eq!(level(kind), Level::Notice);
        }
        for kind in [K::Accepted, K::ClientClosed] {
            assert_eq!(level(kind), Level::Info);
        }
        for kind in [
            K::HandshakeRefused,
            K::TurnedAway,
            K::NameUnknown,
            K::ServerLost,
            K::ClientLimit,
            K::AcceptFailed,
        ] {
            assert!(level(kind) <= Level::Notice);
        }
    }

    #[test]
    fn a_burst_is_cut_and_counted_once_its_window_has_ended() {
        let mut notices = Notices::new(&Config::default(), &[]);
        let start = Micros(5_000_000);
        let admitted = (0..25)
            .filter(|&n| notices.admits(Kind::AcceptFailed, start + Span(n)))
            .count();
        assert_eq!(admitted, 10);
        assert_eq!(notices.windows[position(Kind::AcceptFailed)].suppressed, 15);
        assert!(notices.admits(Kind::ServerLost, start), "kinds are apart");

        let due = notices.poll_timeout().unwrap();
        assert_eq!(due, start + WINDOW);
        notices.handle_timeout(due);
        assert_eq!(notices.poll_timeout(), None);
        assert_eq!(notices.windows[position(Kind::AcceptFailed)].suppressed, 0);
        assert!(notices.admits(Kind::AcceptFailed, due));
    }
}
