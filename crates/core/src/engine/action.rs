//! What the engine asks of the shell.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::client_end::ClientEnd;
use super::closed::Closed;
use crate::ids::{ClientId, ConnId, ServerConnId, ServerId};
use crate::limits::OUTBOX_LEN_MIN;
use crate::num::to_u64;

/// One thing for the shell to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open a connection; answer with [`super::Engine::handle_connected`] or
    /// [`super::Engine::handle_closed`].
    Connect {
        /// The connection's id from now on.
        conn: ServerConnId,
        /// Whose address.
        server: ServerId,
    },
    /// There are bytes to send (at most one pending per connection).
    Flush(ConnId),
    /// Read again: `recv_space` was empty and is no longer.
    ResumeRead(ConnId),
    /// Close the socket. The id is dead already: no `handle_closed` follows.
    Close(ConnId),
    /// Worth a log line.
    Notice(Notice),
}

/// A rare fact for humans. The shell words and rate-limits it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A server was taken off the ring.
    Ejected(ServerId),
    /// A server is back on the ring.
    Restored(ServerId),
    /// A server connection ended or could not be made.
    ServerLost {
        /// Whose.
        server: ServerId,
        /// Why.
        why: Closed,
    },
    /// A server sent something that is no response.
    ServerInvalid(ServerId),
    /// A server did not answer in time.
    ServerTimedOut(ServerId),
    /// A server refused AUTH or SELECT.
    ServerRefusedHandshake(ServerId),
    /// A server that had failed, and was not ejected, serves again.
    ServerBack(ServerId),
    /// A server took a connection and refused to serve it.
    ServerTurnedAway(ServerId),
    /// A client is closed, or will be when what it is owed has left.
    ClientEnds {
        /// The client.
        client: ClientId,
        /// Why.
        end: ClientEnd,
        /// Bytes held for it when this was decided.
        held: u64,
    },
}

/// Gives back most of the room of a queue that is nearly empty; room for `len_min` stays. Returns how
/// many bytes: none in the end, so that whoever waits for that sleeps.
pub(crate) fn shrink<T>(queue: &mut VecDeque<T>, len_min: usize) -> u64 {
    let before = queue.capacity();
    if before > 2 * len_min && queue.len() < before / 8 {
        queue.shrink_to(len_min.max(before / 4));
    }
    to_u64((before - queue.capacity()) * size_of::<T>())
}

/// Actions that wait for [`super::Engine::poll_action`].
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// In the order they arose.
    pub(crate) urgent: VecDeque<Action>,
    /// Server connections with bytes to send; each at most once.
    pub(crate) dirty_servers: VecDeque<ServerConnId>,
    /// Clients with bytes to send; each at most once.
    pub(crate) dirty_clients: VecDeque<ClientId>,
    /// Clients whose parsing goes on; each at most once.
    pub(crate) resume: VecDeque<ClientId>,
    /// Clients that will be closed at once, whatever they are owed.
    pub(crate) doomed: Vec<(ClientId, ClientEnd)>,
    /// Something came when memory was used up.
    pub(crate) is_exhausted: bool,
    /// So much waits on one connection that it should not wait for the end of the tick.
    pub(crate) is_urgent: bool,
}

impl Outbox {
    /// Gives back room that the queues need no more; returns how many bytes.
    pub(crate) fn tidy(&mut self) -> u64 {
        shrink(&mut self.urgent, OUTBOX_LEN_MIN)
            + shrink(&mut self.dirty_clients, OUTBOX_LEN_MIN)
            + shrink(&mut self.resume, OUTBOX_LEN_MIN)
    }

    /// Whether [`Self::tidy`] may have something to do, now or later.
    #[inline]
    pub(crate) fn is_untidy(&self) -> bool {
        self.dirty_clients.capacity() > 2 * OUTBOX_LEN_MIN
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.urgent.push_back(Action::Notice(notice));
    }
}
