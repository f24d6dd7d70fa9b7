//! Why connections end: one table from reason to statistics and words.

use crate::counters::ServerCounters;

/// Why a connection ended or could not be made: the shell's errno, reduced to what matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The peer closed in order.
    Eof,
    /// Nobody listens.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// The kernel gave up.
    TimedOut,
    /// A write to a connection that is gone.
    BrokenPipe,
    /// No route to the host.
    HostUnreachable,
    /// The network is down or unknown.
    NetworkUnreachable,
    /// The name does not resolve, or the unix path is too long.
    HostDown,
    /// The unix socket does not exist.
    NoSuchFile,
    /// The unix socket may not be opened.
    PermissionDenied,
    /// The unix socket's backlog is full.
    WouldBlock,
    /// The proxy has no descriptors left.
    TooManyFiles,
    /// The proxy's machine has no memory left.
    NoMemory,
    /// The proxy's kernel has no room left for a connection's buffers.
    NoBuffers,
    /// The proxy's machine has no local address or port left to connect from.
    NoLocalAddress,
    /// The server sent something that is no response, or a response nobody waits for.
    Invalid,
    /// The server refused AUTH or SELECT.
    HandshakeRefused,
    /// The server took the connection, but said that it will not serve it.
    TurnedAway,
    /// Anything else.
    Other,
}

/// Which counter of a server a closed connection adds to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tally {
    Eof,
    TimedOut,
    Err,
}

impl Closed {
    /// Every reason, in table order.
    pub const ALL: [Self; 19] = [
        Self::Eof,
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::BrokenPipe,
        Self::HostUnreachable,
        Self::NetworkUnreachable,
        Self::HostDown,
        Self::NoSuchFile,
        Self::PermissionDenied,
        Self::WouldBlock,
        Self::TooManyFiles,
        Self::NoMemory,
        Self::NoBuffers,
        Self::NoLocalAddress,
        Self::Invalid,
        Self::HandshakeRefused,
        Self::TurnedAway,
        Self::Other,
    ];

    /// The table: statistics and the text a waiting client gets.
    const fn row(self) -> (Tally, &'static str) {
        match self {
            Self::Eof => (Tally::Eof, "Server closed the connection"),
            Self::Refused => (Tally::Err, "Connection refused"),
            Self::Reset => (Tally::Err, "Connection reset by peer"),
            Self::TimedOut => (Tally::TimedOut, "Connection timed out"),
            Self::BrokenPipe => (Tally::Err, "Broken pipe"),
            Self::HostUnreachable => (Tally::Err, "No route to host"),
            Self::NetworkUnreachable => (Tally::Err, "Network is unreachable"),
            Self::HostDown => (Tally::Err, "Host is down"),
            Self::NoSuchFile => (Tally::Err, "No such file or directory"),
            Self::PermissionDenied => (Tally::Err, "Permission denied"),
            Self::WouldBlock => (Tally::Err, "Resource temporarily unavailable"),
            Self::TooManyFiles => (Tally::Err, "Too many open files"),
            Self::NoMemory => (Tally::Err, "Cannot allocate memory"),
            Self::NoBuffers => (Tally::Err, "No buffer space available"),
            Self::NoLocalAddress => (Tally::Err, "Cannot assign requested address"),
            Self::Invalid => (Tally::Err, "Invalid argument"),
            Self::HandshakeRefused | Self::TurnedAway => {
                (Tally::Err, "Server refused the connection")
            }
            Self::Other => (Tally::Err, "Input/output error"),
        }
    }

    /// What a client is told, without the protocol's error prefix. C-locale errno texts, as
    /// twemproxy words them.
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.row().1
    }

    /// Whether this process or its machine lacks something: that says nothing about the server.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(
            self,
            Self::TooManyFiles | Self::NoMemory | Self::NoBuffers | Self::NoLocalAddress
        )
    }

    /// Counts one closed server connection.
    pub(crate) fn count(self, counters: &ServerCounters) {
        match self.row().0 {
            Tally::Eof => counters.server_eof.add(1),
            Tally::TimedOut => counters.server_timedout.add(1),
            Tally::Err => counters.server_err.add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_words_and_moves_exactly_one_counter() {
        for reason in Closed::ALL {
            assert!(!reason.text().is_empty());
            let counters = ServerCounters::default();
            reason.count(&counters);
            assert_eq!(counters.values().iter().sum::<u64>(), 1);
        }
    }
}
