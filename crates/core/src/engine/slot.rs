//! One place in a server connection's pipeline: whose the response is that will come, and for which request.
//! The pipeline itself is [`super::server`]'s.

use alloc::vec::Vec;

use super::errand::Errand;
use super::split::FragmentIdx;
use crate::ids::ClientId;
use crate::time::Micros;

/// Whose a response is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The whole answer to a client's request.
    Whole { client: ClientId, seq: u32 },
    /// A part of the answer to a client's request.
    Fragment {
        client: ClientId,
        seq: u32,
        fragment: FragmentIdx,
    },
    /// Nobody's any more: the client was answered when the request expired.
    Discarded,
    /// The proxy's own request.
    Own(Errand),
}

impl Origin {
    /// Whether the request is the proxy's own and no client's.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// The client that waits for the response.
    pub(crate) const fn client(self) -> Option<ClientId> {
        match self {
            Self::Whole { client, .. } | Self::Fragment { client, .. } => Some(client),
            Self::Discarded | Self::Own(_) => None,
        }
    }
}

/// One request on a server connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) origin: Origin,
    /// When the request was queued; its deadline is a pool's time-out later.
    pub(crate) queued_at: Micros,
    /// Offset one past its last byte.
    pub(crate) end: u64,
    pub(crate) len: u32,
    /// It was already moved here from a connection that closed.
    pub(crate) moved: bool,
    /// It changes nothing: it may be sent a second time.
    pub(crate) readonly: bool,
}

impl Slot {
    /// A request that is queued now and sent for the first time.
    #[inline]
    pub(crate) const fn new(origin: Origin, len: u32, readonly: bool, now: Micros) -> Self {
        Self {
            origin,
            queued_at: now,
            end: 0,
            len,
            moved: false,
            readonly,
        }
    }

    /// Bytes of the request.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.len)
    }

    /// Whether it is the proxy's own request and no client's.
    pub(crate) const fn is_ours(&self) -> bool {
        self.origin.is_ours()
    }

    /// Offset of its first byte.
    pub(crate) fn start(&self) -> u64 {
        self.end - u64::from(self.len)
    }
}

/// A request whose bytes have been appended to a connection's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    /// `None` if no response will come.
    pub(crate) origin: Option<Origin>,
    pub(crate) len: u32,
    pub(crate) readonly: bool,
}

/// Requests of one run whose bytes and slots have been appended to a connection's queues.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queued {
    pub(crate) requests: u64,
    pub(crate) len: u64,
    /// Those that are owed a response.
    pub(crate) slots: u64,
    pub(crate) slots_len: u64,
}

/// Requests whose responses have come in one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) slots: usize,
    pub(crate) slots_len: u64,
    /// Those whose clients are gone.
    pub(crate) unwanted: u64,
    /// Bytes of the responses to the others.
    pub(crate) response_len: u64,
}

/// A request taken out of a connection that closed, to be queued on another.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) slot: Slot,
    pub(crate) bytes: Vec<u8>,
}
