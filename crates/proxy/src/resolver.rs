//! Name resolution, on a thread of its own: `getaddrinfo` blocks, a worker must not.
//!
//! Names are looked up again for each new connection, so that a moved server is found; the cache
//! is the system's.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::dial::Endpoint;
use crate::mail::{Lookup, ToWorker, WorkerAddress};

/// The resolver thread's state.
#[derive(Debug)]
pub(crate) struct Resolver {
    endpoints: Arc<[Endpoint]>,
    workers: Vec<WorkerAddress>,
    questions: Receiver<Lookup>,
}

impl Resolver {
    /// A resolver that answers `questions` to `workers`.
    pub(crate) const fn new(
        endpoints: Arc<[Endpoint]>,
        workers: Vec<WorkerAddress>,
        questions: Receiver<Lookup>,
    ) -> Self {
        Self {
            endpoints,
            workers,
            questions,
        }
    }

    /// Answers until all workers are gone.
    pub(crate) fn run(self) {
        while let Ok(question) = self.questions.recv() {
            let addresses = match &self.endpoints[question.server.index()] {
                Endpoint::Name { host, port } => (host.as_str(), *port)
                    .to_socket_addrs()
                    .map(Iterator::collect),
                Endpoint::Address(address) => Ok(vec![*address]),
                Endpoint::Unix(_) => Err(io::ErrorKind::InvalidInput.into()),
            };
            let worker = &self.workers[question.worker];
            worker.put(ToWorker::Resolved {
                conn: question.conn,
                addresses,
            });
            worker.wake();
        }
    }
}
