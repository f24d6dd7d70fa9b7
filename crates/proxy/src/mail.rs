//! What threads tell each other: one enum per receiver.
//!
//! Queues are bounded by what they carry: a worker's by the descriptors of the process, the
//! resolver's by the server connections being made, the supervisor's by threads and signals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use twemproxy_config::{ConfigError, ProxyConfig};
use twemproxy_core::engine::Closed;
use twemproxy_core::ids::{PoolIdx, ServerConnId, ServerId};
use twemproxy_core::owner::{Mail, Report};

use crate::net::poller::Waker;
use crate::net::stream::Stream;

/// To a worker.
#[derive(Debug)]
pub(crate) enum ToWorker {
    /// From the acceptor: a client of `pool`.
    Accepted {
        /// Whose listener took it.
        pool: PoolIdx,
        /// Its options are set.
        stream: Stream,
    },
    /// From the resolver.
    Resolved {
        /// Who asked.
        conn: ServerConnId,
        /// All addresses of the name, in the system's order.
        addresses: Result<Vec<SocketAddr>, Unresolved>,
    },
    /// From the owner of the servers' health, which the supervisor runs.
    Health(Mail),
    /// From the supervisor: finish what is in flight, then end.
    Drain,
}

/// A look-up that found no address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unresolved {
    /// For the engine.
    pub(crate) why: Closed,
    /// For the log: the name, and the resolver's reason.
    pub(crate) text: String,
}

/// To the resolver, from a worker.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Which worker asks: position in the resolver's table.
    pub(crate) worker: usize,
    /// For which connection.
    pub(crate) conn: ServerConnId,
    /// Whose name.
    pub(crate) server: ServerId,
}

/// To the supervisor.
#[derive(Debug)]
pub(crate) enum ToSupervisor {
    /// From the signal thread.
    Signal(i32),
    /// From a worker.
    Health(Report),
    /// From a worker that has drained.
    WorkerDone,
    /// From the thread that reads the configuration.
    Loaded(Box<Result<ProxyConfig, ConfigError>>),
}

/// Where a worker gets its mail.
#[derive(Clone, Debug)]
pub(crate) struct WorkerAddress {
    sender: Sender<ToWorker>,
    waker: Arc<Waker>,
    clients: Arc<ClientCount>,
}

/// How many clients a worker was dealt and still has: counted up by the acceptor, down by the
/// worker.
#[derive(Debug, Default)]
pub(crate) struct ClientCount(AtomicUsize);

impl WorkerAddress {
    /// The address of the worker that reads what `sender` sends and sleeps on `waker`'s poller.
    pub(crate) const fn new(
        sender: Sender<ToWorker>,
        waker: Arc<Waker>,
        clients: Arc<ClientCount>,
    ) -> Self {
        Self {
            sender,
            waker,
            clients,
        }
    }

    /// Leaves a message; [`Self::wake`] must follow, once per batch.
    pub(crate) fn put(&self, mail: ToWorker) {
        // A worker that is gone has drained: what comes too late is dropped, sockets closed.
        let _ = self.sender.send(mail);
    }

    /// Has the worker read its mail.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// The worker's share of the clients.
    pub(crate) fn clients(&self) -> &ClientCount {
        &self.clients
    }
}

impl ClientCount {
    /// One more.
    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
