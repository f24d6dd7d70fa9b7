//! The acceptor thread: owns all listeners and deals accepted clients to the workers.
//!
//! Invariants:
//! 1. A listener lives until the drain: no error of one connection, and no want of descriptors,
//!    closes it.
//! 2. A listener that is ready and not paused is never slept over.
//! 3. Clients never take the descriptors that servers, log and statistics need.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use twemproxy_core::ids::PoolIdx;
use twemproxy_core::time::{Micros, Span};

use crate::clock::{Clock, sleep_until};
use crate::limits::{ACCEPT_FAILED_PERIOD, ACCEPT_PAUSE, ACCEPTS_PER_TURN, EVENTS_PER_WAIT};
use crate::mail::{ToWorker, WorkerAddress};
use crate::net::errno;
use crate::net::listener::Listener;
use crate::net::poller::{Events, Poller, WAKER_TOKEN};
use crate::notices::{Kind, Notices};

/// The acceptor thread's state.
#[derive(Debug)]
pub(crate) struct Acceptor {
    poller: Poller,
    doors: Vec<Door>,
    workers: Workers,
    notices: Notices,
    clock: Clock,
    open_listeners: Arc<AtomicU64>,
    /// When the log was last told that a listener cannot accept.
    told_at: Option<Micros>,
}

/// A listener and how it stands.
#[derive(Debug)]
pub(crate) struct Door {
    pool: PoolIdx,
    listener: Listener,
    tcpkeepalive: bool,
    is_ready: bool,
    paused_until: Option<Micros>,
}

/// The workers, and how clients are dealt to them.
#[derive(Debug)]
pub(crate) struct Workers {
    all: Vec<WorkerAddress>,
    /// Which have mail they do not know of.
    unwoken: Vec<bool>,
    /// Where the search begins, so that equals take turns.
    next: usize,
    /// Clients that all of them may have: more descriptors are not to be had, or are reserved.
    clients_max: u64,
}

/// How an accept ended.
enum Accepted {
    /// With a client, or with one that was gone already.
    One,
    /// Nobody waits.
    Nobody,
    /// It cannot work now, for this reason.
    Failed(String),
}

impl Door {
    /// The listener of `pool`.
    pub(crate) const fn new(pool: PoolIdx, listener: Listener, tcpkeepalive: bool) -> Self {
        Self {
            pool,
            listener,
            tcpkeepalive,
            is_ready: false,
            paused_until: None,
        }
    }
}

impl Acceptor {
    /// An acceptor that deals what comes through `doors` to `workers`. `open_listeners` is kept at
    /// the number of open listeners.
    pub(crate) fn new(
        poller: Poller,
        mut doors: Vec<Door>,
        workers: Workers,
        notices: Notices,
        clock: Clock,
        open_listeners: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        for (token, door) in (0..).zip(&mut doors) {
            poller.add_listener(&mut door.listener, token)?;
            open_listeners.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Self {
            poller,
            doors,
            workers,
            notices,
            clock,
            open_listeners,
            told_at: None,
        })
    }

    /// Accepts until `stop` says so, or its sender is gone and the poller was woken.
    pub(crate) fn run(mut self, stop: &Receiver<()>) {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        let mut now = self.clock.now();
        loop {
            let timeout = sleep_until(self.next_deadline(now), now);
            self.poller.wait(&mut events, timeout);
            now = self.clock.now();
            for event in events.iter() {
                if event.token == WAKER_TOKEN {
                    if stop.try_recv() != Err(TryRecvError::Empty) {
                        return self.close();
                    }
                } else if let Some(door) = door_at(&mut self.doors, event.token) {
                    door.is_ready = true;
                }
            }
            self.turn(now);
            self.notices.handle_timeout(now);
        }
    }

    /// Accepts a bounded number at each ready listener.
    fn turn(&mut self, now: Micros) {
        for door in &mut self.doors {
            if door.paused_until.is_some_and(|end| end > now) {
                continue;
            }
            door.paused_until = None;
            for _ in 0..ACCEPTS_PER_TURN {
                if !door.is_ready {
                    break;
                }
                match door.accept(&mut self.workers, &mut self.notices, now) {
                    Accepted::One => {}
                    Accepted::Nobody => door.is_ready = false,
                    Accepted::Failed(reason) => {
                        door.paused_until = Some(now + span(ACCEPT_PAUSE));
                        // However many listeners there are, and however often they try.
                        let period = span(ACCEPT_FAILED_PERIOD);
                        if self.told_at.is_none_or(|at| at + period <= now) {
                            self.told_at = Some(now);
                            self.notices.write(Kind::AcceptFailed, now, || reason);
                        }
                        break;
                    }
                }
            }
        }
        self.workers.wake();
    }

    fn next_deadline(&self, now: Micros) -> Option<Micros> {
        self.doors
            .iter()
            .filter(|door| door.is_ready)
            .map(|door| door.paused_until.unwrap_or(now))
            .chain(self.notices.poll_timeout())
            .min()
    }

    fn close(self) {
        for door in self.doors {
            drop(door);
            self.open_listeners.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Door {
    fn accept(&self, workers: &mut Workers, notices: &mut Notices, now: Micros) -> Accepted {
        let p = self.listener.fd();
        if workers.client_count() >= workers.clients_max {
            if !self.listener.has_waiting() {
                return Accepted::Nobody;
            }
            let count = workers.clients_max;
            return Accepted::Failed(format!(
                "accept on p {p} waits: {count} clients have all descriptors but the reserve"
            ));
        }
        let (stream, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                use io::ErrorKind as E;
                return match error.kind() {
                    E::WouldBlock => Accepted::Nobody,
                    E::Interrupted | E::ConnectionAborted => Accepted::One,
                    _ => {
                        let text = errno::text(&error);
                        Accepted::Failed(format!("accept on p {p} failed: {text}"))
                    }
                };
            }
        };
        if let Err(error) = stream.set_client_options(self.tcpkeepalive) {
            // The client has gone meanwhile.
            notices.write(Kind::AcceptFailed, now, || {
                format!(
                    "set options on c {} failed: {}",
                    stream.fd(),
                    errno::text(&error)
                )
            });
            return Accepted::One;
        }
        notices.write(Kind::Accepted, now, || {
            let c = stream.fd();
            match peer {
                Some(peer) => format!("accepted c {c} on p {p} from '{peer}'"),
                None => format!("accepted c {c} on p {p}"),
            }
        });
        workers.deal(ToWorker::Accepted {
            pool: self.pool,
            stream,
        });
        Accepted::One
    }
}

impl Workers {
    /// The workers at `all`, which may have `clients_max` clients together.
    pub(crate) fn new(all: Vec<WorkerAddress>, clients_max: u64) -> Self {
        Self {
            unwoken: vec![false; all.len()],
            all,
            next: 0,
            clients_max,
        }
    }

    /// Clients of all workers, those included that are still in a mailbox.
    fn client_count(&self) -> u64 {
        let counts = self.all.iter().map(|worker| worker.clients().count());
        u64::try_from(counts.sum::<usize>()).unwrap_or(u64::MAX)
    }

    /// Gives a client to the worker with the fewest.
    fn deal(&mut self, mail: ToWorker) {
        let count = self.all.len();
        let chosen = (0..count)
            .map(|step| (self.next + step) % count)
            .min_by_key(|&index| self.all[index].clients().count())
            .expect("there is at least one worker");
        self.all[chosen].clients().up();
        self.all[chosen].put(mail);
        self.unwoken[chosen] = true;
        self.next = (chosen + 1) % count;
    }

    fn wake(&mut self) {
        for (worker, unwoken) in self.all.iter().zip(&mut self.unwoken) {
            if std::mem::take(unwoken) {
                worker.wake();
            }
        }
    }
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn door_at(doors: &mut [Door], token: u64) -> Option<&mut Door> {
    doors.get_mut(usize::try_from(token).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ClientCount;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;
    use twemproxy_config::{Listen, PoolAddresses};
    use twemproxy_core::config::Config;

    fn door(path: &Path, pool: u32) -> Door {
        let addresses = PoolAddresses {
            listen: Listen::Unix {
                path: path.to_owned(),
                mode: None,
            },
            backlog: 16,
            tcpkeepalive: false,
            reuseport: false,
            servers: Vec::new(),
        };
        Door::new(PoolIdx(pool), Listener::open(&addresses).unwrap(), false)
    }

    struct FakeWorker {
        address: WorkerAddress,
        mailbox: Receiver<ToWorker>,
        /// The waker works as long as its poller lives.
        _poller: Poller,
    }

    fn worker() -> FakeWorker {
        let poller = Poller::new().unwrap();
        let waker = Arc::new(poller.waker().unwrap());
        let (sender, mailbox) = channel();
        FakeWorker {
            address: WorkerAddress::new(sender, waker, Arc::new(ClientCount::default())),
            mailbox,
            _poller: poller,
        }
    }

    #[test]
    fn clients_go_to_the_worker_with_the_fewest_and_listeners_end_with_the_acceptor() {
        let directory = tempfile::tempdir().unwrap();
        let paths = [directory.path().join("a"), directory.path().join("b")];
        let doors = vec![door(&paths[0], 0), door(&paths[1], 1)];
        let workers = [worker(), worker()];
        // The first worker has two clients more.
        workers[0].address.clients().up();
        workers[0].address.clients().up();

        let poller = Poller::new().unwrap();
        let waker = poller.waker().unwrap();
        let open = Arc::new(AtomicU64::new(0));
        let addresses = workers.iter().map(|w| w.address.clone()).collect();
        let acceptor = Acceptor::new(
            poller,
            doors,
            Workers::new(addresses, 4),
            Notices::new(&Config::default(), &[]),
            Clock::start(),
            Arc::clone(&open),
        )
        .unwrap();
        assert_eq!(open.load(Ordering::Relaxed), 2);
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || acceptor.run(&stopped));

        let mut clients = Vec::new();
        for (path, want_pool) in [(&paths[0], 0), (&paths[1], 1)] {
            clients.push(UnixStream::connect(path).unwrap());
            let mail = workers[1].mailbox.recv_timeout(Duration::from_secs(10));
            let ToWorker::Accepted { pool, .. } = mail.unwrap() else {
                panic!("a client was expected")
            };
            assert_eq!(pool, PoolIdx(want_pool));
        }
        let counts = || workers.each_ref().map(|w| w.address.clients().count());
        assert_eq!(counts(), [2, 2]);

        // One more than there may be waits until another has gone.
        clients.push(UnixStream::connect(&paths[0]).unwrap());
        let pause = ACCEPT_PAUSE * 2;
        assert!(workers[1].mailbox.recv_timeout(pause).is_err());
        assert_eq!(counts(), [2, 2]);
        workers[1].address.clients().down();
        let mail = workers[1].mailbox.recv_timeout(Duration::from_secs(10));
        assert!(matches!(mail, Ok(ToWorker::Accepted { .. })));

        stop.send(()).unwrap();
        waker.wake();
        thread.join().unwrap();
        assert_eq!(open.load(Ordering::Relaxed), 0);
        assert!(paths.iter().all(|path| !path.exists()));
    }
}
