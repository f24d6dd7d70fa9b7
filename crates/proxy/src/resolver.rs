//! Name resolution, on threads of its own: `getaddrinfo` blocks, a worker must not.
//!
//! Names are looked up again for each new connection, so that a moved server is found; the cache
//! is the system's. One slow name holds up nobody but those who ask for it: each look-up under way
//! has a thread, which ends with it, and whoever asks for the same server meanwhile gets its answer.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use twemproxy_core::engine::Closed;
use twemproxy_core::ids::ServerId;
use twemproxy_core::table::Table;

use crate::dial::{Endpoint, Endpoints};
use crate::limits::LOOKUPS_MAX;
use crate::mail::{Lookup, ToWorker, Unresolved, WorkerAddress};
use crate::net::errno;

/// How the addresses of an endpoint are found.
type Find = fn(&Endpoint) -> io::Result<Vec<SocketAddr>>;

/// The resolver thread's state.
#[derive(Debug)]
pub(crate) struct Resolver {
    desk: Arc<Desk>,
    questions: Receiver<Lookup>,
}

/// What the resolver and its look-ups share.
#[derive(Debug)]
struct Desk {
    endpoints: Arc<Endpoints>,
    workers: Vec<WorkerAddress>,
    find: Find,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Per server, once its addresses were asked for: the questions that wait for them. There are some
    /// if and only if a look-up is under way or in the queue.
    askers: Table<ServerId, Vec<Lookup>>,
    /// Servers whose look-up waits for a thread.
    queue: VecDeque<ServerId>,
    threads: usize,
}

impl Resolver {
    /// A resolver that answers `questions` to `workers`.
    pub(crate) fn new(
        endpoints: Arc<Endpoints>,
        workers: Vec<WorkerAddress>,
        questions: Receiver<Lookup>,
    ) -> Self {
        Self::with(endpoints, workers, questions, addresses_of)
    }

    fn with(
        endpoints: Arc<Endpoints>,
        workers: Vec<WorkerAddress>,
        questions: Receiver<Lookup>,
        find: Find,
    ) -> Self {
        let state = State {
            askers: Table::default(),
            queue: VecDeque::new(),
            threads: 0,
        };
        let desk = Arc::new(Desk {
            endpoints,
            workers,
            find,
            state: Mutex::new(state),
        });
        Self { desk, questions }
    }

    /// Answers until all workers are gone.
    pub(crate) fn run(self) {
        while let Ok(question) = self.questions.recv() {
            if let Some(server) = self.desk.ask(question) {
                let desk = Arc::clone(&self.desk);
                let thread = thread::Builder::new().name("lookup".to_owned());
                if thread.spawn(move || desk.look_up(server)).is_err() {
                    // Slower for everybody, but nobody is left without an answer.
                    self.desk.look_up(server);
                }
            }
        }
    }
}

impl Desk {
    /// Notes a question; returns the server if a look-up is to begin.
    fn ask(&self, question: Lookup) -> Option<ServerId> {
        let mut state = self.state();
        let server = question.server;
        if let Some(askers) = state.askers.get_mut(server) {
            askers.push(question);
            if askers.len() > 1 {
                return None;
            }
        } else {
            state.askers.insert(server, vec![question]);
        }
        if state.threads == LOOKUPS_MAX {
            state.queue.push_back(server);
            return None;
        }
        state.threads += 1;
        Some(server)
    }

    /// Answers those who ask for `server`, and then for others as long as some wait.
    fn look_up(&self, mut server: ServerId) {
        loop {
            let addresses = match self.endpoints.get(server) {
                Some(endpoint) => {
                    (self.find)(endpoint).map_err(|error| unresolved(endpoint, &error))
                }
                None => Err(Unresolved {
                    why: Closed::HostDown,
                    text: "the server has left the configuration".to_owned(),
                }),
            };
            let mut state = self.state();
            let askers = mem::take(&mut state.askers[server]);
            let next = state.queue.pop_front();
            state.threads -= usize::from(next.is_none());
            drop(state);
            for asker in askers {
                let worker = &self.workers[asker.worker];
                worker.put(ToWorker::Resolved {
                    conn: asker.conn,
                    addresses: addresses.clone(),
                });
                worker.wake();
            }
            match next {
                Some(next) => server = next,
                None => return,
            }
        }
    }

    /// A panic ends the process, so nobody is ever left with a half-changed state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn addresses_of(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    match endpoint {
        Endpoint::Name { host, port } => twemproxy_config::addresses(host, *port),
        Endpoint::Address(address) => Ok(vec![*address]),
        Endpoint::Unix(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The name and the resolver's reason in one line. What the process itself lacks for a look-up says nothing
/// about the server.
fn unresolved(endpoint: &Endpoint, error: &io::Error) -> Unresolved {
    let text = errno::text(error);
    let reason = text.rsplit("address information: ").next().unwrap_or(&text);
    let name = match endpoint {
        Endpoint::Name { host, .. } => host.clone(),
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Unix(path) => path.display().to_string(),
    };
    let why = errno::closed(error);
    Unresolved {
        why: if why.is_ours() { why } else { Closed::HostDown },
        text: format!("looking up '{name}' failed: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ClientCount;
    use crate::net::poller::Poller;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::JoinHandle;
    use std::time::Duration;
    use twemproxy_core::ids::ServerConnId;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A resolver on a thread, and the worker that asks it.
    struct Stage {
        ask: Sender<Lookup>,
        mailbox: Receiver<ToWorker>,
        resolver: JoinHandle<()>,
        /// The waker works as long as its poller lives.
        _poller: Poller,
    }

    impl Stage {
        fn new(hosts: &[&str], find: Find) -> Self {
            let name = |(host, nth): (&&str, u32)| {
                let host = (*host).into();
                (ServerId::initial(nth), Endpoint::Name { host, port: 7 })
            };
            let endpoints = Arc::new(hosts.iter().zip(0..).map(name).collect());
            let poller = Poller::new().unwrap();
            let waker = Arc::new(poller.waker().unwrap());
            let (sender, mailbox) = channel();
            let worker = WorkerAddress::new(sender, waker, Arc::new(ClientCount::default()));
            let (ask, questions) = channel();
            let resolver = Resolver::with(endpoints, vec![worker], questions, find);
            Self {
                ask,
                mailbox,
                resolver: thread::spawn(move || resolver.run()),
                _poller: poller,
            }
        }

        /// Connection `conn` asks for `server`.
        fn ask(&self, conn: u32, server: u32) {
            let lookup = Lookup {
                worker: 0,
                conn: ServerConnId {
                    index: conn,
                    generation: 0,
                },
                server: ServerId::initial(server),
            };
            self.ask.send(lookup).unwrap();
        }

        /// The next answer: to which connection, and what.
        fn answer(&self) -> (u32, Option<Vec<SocketAddr>>) {
            match self.mailbox.recv_timeout(PATIENCE).unwrap() {
                ToWorker::Resolved { conn, addresses } => (conn.index, addresses.ok()),
                other => panic!("an answer was expected, not {other:?}"),
            }
        }
    }

    fn local() -> Vec<SocketAddr> {
        vec!["127.0.0.1:7".parse().unwrap()]
    }

    #[test]
    fn each_question_is_answered_to_the_worker_that_asked() {
        let stage = Stage::new(&["127.0.0.1", "never\0a name"], addresses_of);
        stage.ask(0, 0);
        assert_eq!(stage.answer(), (0, Some(local())));
        stage.ask(1, 1);
        assert_eq!(stage.answer(), (1, None));
        let name = Endpoint::Name {
            host: "a.test".into(),
            port: 7,
        };
        let none = unresolved(&name, &rustix::io::Errno::MFILE.into());
        assert_eq!(none.why, Closed::TooManyFiles);
        assert_eq!(none.text, "looking up 'a.test' failed: Too many open files");
        drop(stage.ask);
        stage.resolver.join().unwrap();
    }

    /// Open once a test lets slow names through.
    static GATE: Mutex<()> = Mutex::new(());

    fn slow_or_fast(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
        if matches!(endpoint, Endpoint::Name { host, .. } if host == "slow") {
            drop(GATE.lock().unwrap());
        }
        Ok(local())
    }

    // D22
    #[test]
    fn a_slow_name_holds_up_only_those_who_ask_for_it() {
        // As many slow ones as there are threads but one, and one more.
        let mut hosts = vec!["slow"; LOOKUPS_MAX - 1];
        hosts.extend(["fast", "fast"]);
        let stage = Stage::new(&hosts, slow_or_fast);
        let fast = u32::try_from(LOOKUPS_MAX).unwrap() - 1;
        let gate = GATE.lock().unwrap();
        for server in 0..fast {
            stage.ask(server, server);
        }
        // Further questions for a name under way begin no further look-up.
        for conn in 100..150 {
            stage.ask(conn, 0);
        }
        for server in [fast, fast + 1, fast] {
            stage.ask(server, server);
            assert_eq!(stage.answer(), (server, Some(local())));
        }
        drop(gate);
        let mut answered: Vec<u32> = (0..fast + 50).map(|_| stage.answer().0).collect();
        answered.sort_unstable();
        assert!(answered.into_iter().eq((0..fast).chain(100..150)));
    }
}
