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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ClientCount;
    use crate::net::poller::Poller;
    use std::sync::mpsc::channel;
    use twemproxy_core::ids::{ServerConnId, ServerIdx};

    #[test]
    fn each_question_is_answered_to_the_worker_that_asked() {
        let name = |host: &str| Endpoint::Name {
            host: host.into(),
            port: 7,
        };
        let endpoints = [name("127.0.0.1"), name("never\0a name")].into();
        let poller = Poller::new().unwrap();
        let waker = Arc::new(poller.waker().unwrap());
        let (sender, mailbox) = channel();
        let worker = WorkerAddress::new(sender, waker, Arc::new(ClientCount::default()));
        let (ask, questions) = channel();
        for index in 0..2 {
            let conn = ServerConnId {
                index,
                generation: 0,
            };
            let server = ServerIdx(index);
            let lookup = Lookup {
                worker: 0,
                conn,
                server,
            };
            ask.send(lookup).unwrap();
        }
        drop(ask);
        Resolver::new(endpoints, vec![worker], questions).run();

        let answers: Vec<_> = mailbox
            .try_iter()
            .map(|mail| match mail {
                ToWorker::Resolved { conn, addresses } => (conn.index, addresses.ok()),
                other => panic!("an answer was expected, not {other:?}"),
            })
            .collect();
        let local = vec!["127.0.0.1:7".parse().unwrap()];
        assert_eq!(answers, [(0, Some(local)), (1, None)]);
    }
}
