//! The owner of the servers' health: the supervisor runs it, workers report to it, and what it decides
//! goes to them all in the same order.
//!
//! It runs here, not beside a worker's engine, because a topology of 100 servers takes about 2 ms to build:
//! on this thread nobody waits for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use twemproxy_core::owner::{HealthOwner, Report};
use twemproxy_core::time::Micros;

use crate::clock::{Clock, sleep_until};
use crate::mail::{ToSupervisor, ToWorker, WorkerAddress};

/// The owner and those it talks to.
#[derive(Debug)]
pub(crate) struct Health {
    owner: HealthOwner,
    workers: Vec<WorkerAddress>,
    clock: Clock,
}

impl Health {
    /// Runs `owner` for `workers`.
    pub(crate) const fn new(owner: HealthOwner, workers: Vec<WorkerAddress>, clock: Clock) -> Self {
        Self {
            owner,
            workers,
            clock,
        }
    }

    /// Waits for the supervisor's next mail, `wait` at most, sending probes meanwhile. `None` if the time
    /// is over or nobody is left to send any.
    pub(crate) fn next_mail(
        &mut self,
        inbox: &Receiver<ToSupervisor>,
        wait: Option<Duration>,
    ) -> Option<ToSupervisor> {
        let until = wait.map(|wait| Instant::now() + wait);
        loop {
            let now = self.clock.now();
            self.owner.handle_timeout(now);
            self.deliver();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let probe = sleep_until(self.owner.poll_timeout(), now);
            let mail = match left.into_iter().chain(probe).min() {
                Some(sleep) => inbox.recv_timeout(sleep),
                None => inbox.recv().map_err(RecvTimeoutError::from),
            };
            match mail {
                Ok(ToSupervisor::Health(report)) => self.handle_report(report, self.clock.now()),
                Ok(mail) => return Some(mail),
                Err(RecvTimeoutError::Timeout) if left.is_some_and(|left| left.is_zero()) => {
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn handle_report(&mut self, report: Report, now: Micros) {
        self.owner.handle_report(report, now);
        self.deliver();
    }

    /// Sends what the owner has to say: to all workers, or to the first one.
    fn deliver(&mut self) {
        while let Some(mail) = self.owner.poll_mail() {
            let count = if mail.is_for_all() {
                self.workers.len()
            } else {
                1
            };
            for worker in &self.workers[..count] {
                worker.put(ToWorker::Health(mail.clone()));
                worker.wake();
            }
        }
    }
}
