//! When the engine wants to be woken.
//!
//! A pool's time-out is constant, so the pipeline of a server connection is already sorted by
//! deadline: only its first unexpired request matters. Hence one entry per *connection*, armed for a
//! moment not later than the true deadline and looked at again when it comes. A request costs
//! nothing here; a busy connection costs one heap operation per time-out. A client with an idle
//! limit has one entry, too, looked at once per limit.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::ids::{ClientId, ServerConnId};
use crate::time::Micros;

/// What a deadline is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// The oldest unexpired request of a server connection, or its silence. Void if the connection
    /// has meanwhile been given an earlier one.
    Conn(ServerConnId),
    /// A client that may be idle for too long.
    Client(ClientId),
    /// Memory kept for reuse is looked through.
    Tidy,
    /// Clients that may have waited for memory for too long.
    Memory,
}

/// Entries of dead connections that may always stay until their time has come.
const DEAD_MAX: usize = 1024;

/// All armed deadlines, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Micros, Alarm)>>,
}

impl Deadlines {
    pub(crate) fn arm(&mut self, at: Micros, alarm: Alarm) {
        self.heap.push(Reverse((at, alarm)));
    }

    /// Drops the entries of connections that are gone once they outnumber the `live_count` others, so
    /// that clients that come and go and a server that keeps failing do not fill the memory.
    pub(crate) fn forget_dead(&mut self, live_count: usize, is_live: impl Fn(Alarm) -> bool) {
        if self.heap.len() > 2 * live_count + DEAD_MAX {
            self.heap.retain(|Reverse((_, alarm))| is_live(*alarm));
        }
    }

    pub(crate) fn next(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out one entry whose time has come.
    pub(crate) fn pop_due(&mut self, now: Micros) -> Option<(Micros, Alarm)> {
        let Reverse((at, alarm)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some((at, alarm))
    }
}
