//! The owner of the servers' health among several workers: the supervisor runs it, workers report
//! to it, and what it decides goes to them all in the same order.

use std::sync::mpsc::{Receiver, RecvTimeoutError};

use twemproxy_core::config::Config;
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
    /// To whom all servers are well.
    pub(crate) fn new(config: &Config, workers: Vec<WorkerAddress>, clock: Clock) -> Self {
        Self {
            owner: HealthOwner::new(config),
            workers,
            clock,
        }
    }

    /// Waits for the supervisor's next mail, sending probes meanwhile. `None` if nobody is left to
    /// send any.
    pub(crate) fn next_mail(&mut self, inbox: &Receiver<ToSupervisor>) -> Option<ToSupervisor> {
        loop {
            let now = self.clock.now();
            self.owner.handle_timeout(now);
            self.deliver();
            let mail = match sleep_until(self.owner.poll_timeout(), now) {
                Some(left) => inbox.recv_timeout(left),
                None => inbox.recv().map_err(RecvTimeoutError::from),
            };
            match mail {
                Ok(ToSupervisor::Health(report)) => self.handle_report(report, self.clock.now()),
                Ok(mail) => return Some(mail),
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
