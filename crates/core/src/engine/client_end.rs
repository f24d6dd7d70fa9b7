//! Why clients are closed: one table from reason to statistics, weight and words.

use super::closed::Closed;

/// Why a client's connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEnd {
    /// It sent its end, and was told everything.
    Eof,
    /// It asked for the end, or was told that this is the end.
    Quit,
    /// The process drains.
    Drained,
    /// The shell lost it.
    Lost(Closed),
    /// It was silent for `client_idle_timeout`.
    Idle,
    /// It sent something that is no request.
    Invalid,
    /// A reply that it was given a part of has failed.
    ReplyBroken,
    /// A request of it could not begin for a whole `timeout`, for want of memory, and is not complete.
    Overdue,
    /// Its unread output reached `client_output_limit`.
    OutputLimit,
    /// It held memory that others waited for.
    MemoryWait,
    /// It held most when `memory_limit` was reached.
    MemoryLimit,
    /// The merged reply to a request of it would not fit into `memory_limit`.
    ReplyTooLarge,
}

/// How much an operator should care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// It happens all the time.
    Daily,
    /// Something went wrong with this client.
    Fault,
    /// A limit of the process was reached.
    Limit,
}

impl ClientEnd {
    /// Every reason that the engine decides, in table order.
    pub const ALL: [Self; 11] = [
        Self::Eof,
        Self::Quit,
        Self::Drained,
        Self::Idle,
        Self::Invalid,
        Self::ReplyBroken,
        Self::Overdue,
        Self::OutputLimit,
        Self::MemoryWait,
        Self::MemoryLimit,
        Self::ReplyTooLarge,
    ];

    /// The table: whether it counts as an error, its weight, and its words.
    const fn row(self) -> (bool, Weight, &'static str) {
        use Weight::{Daily, Fault, Limit};
        match self {
            Self::Eof => (false, Daily, "it sent its end"),
            Self::Quit => (false, Daily, "it was to end"),
            Self::Drained => (false, Daily, "drained"),
            Self::Lost(Closed::Eof) => (false, Daily, Closed::Eof.text()),
            Self::Lost(why) => (true, Daily, why.text()),
            Self::Idle => (true, Daily, "it was idle for too long"),
            Self::Invalid => (true, Fault, "it sent an invalid request"),
            Self::ReplyBroken => (true, Fault, "a reply to it broke off"),
            Self::Overdue => (true, Fault, "its request waited for memory for too long"),
            Self::OutputLimit => (true, Limit, "it does not read its replies"),
            Self::MemoryWait => (true, Limit, "it held memory that others waited for"),
            Self::MemoryLimit => (true, Limit, "it held most when memory_limit was reached"),
            Self::ReplyTooLarge => (true, Limit, "its reply does not fit into memory_limit"),
        }
    }

    /// Whether it counts in `client_err` and not in `client_eof`.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.row().0
    }

    /// How much it matters.
    #[must_use]
    pub const fn weight(self) -> Weight {
        self.row().1
    }

    /// The words in the log.
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.row().2
    }

    /// Whether it is decided before what the client is owed has left, and told then.
    pub(crate) const fn is_told_early(self) -> bool {
        !matches!(self.weight(), Weight::Daily)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_errors_and_orderly_ends_are_none() {
        for end in ClientEnd::ALL {
            assert!(!end.text().is_empty());
            let is_orderly = matches!(end, ClientEnd::Eof | ClientEnd::Quit | ClientEnd::Drained);
            assert_eq!(end.is_error(), !is_orderly);
            assert!(end.is_error() || end.weight() == Weight::Daily);
        }
        assert!(!ClientEnd::Lost(Closed::Eof).is_error());
        assert!(ClientEnd::Lost(Closed::Reset).is_error());
    }
}
