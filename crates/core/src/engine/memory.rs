//! Waiting for memory, and its end.
//!
//! Above the soft limit nobody begins a request. What holds the memory usually goes by itself: servers
//! answer, and are given up if they do not. But a client may leave a request unfinished, or its replies
//! unread, for as long as it likes. So once somebody has waited for half of its pool's `timeout`,
//! [`MEMORY_WAIT_MAX`] at most, those who hold it are closed together until enough is free, first those who
//! have not moved for [`MEMORY_SILENCE`]. A request that could not begin for a whole `timeout` gets its error.
//!
//! Above half of the limit a client with many unread replies begins no request either: it is *pressed*, the
//! larger the pressure the sooner. It goes on when it has read, or when others have given enough back; if it
//! does not move it is closed like the others, so that nobody hangs who writes everything before reading.
//!
//! At the limit itself the same order decides who is closed at once.
//!
//! With several engines the limits are those of all together: each sees what the others hold, looks at its own
//! holders while it holds much, and closes them for the sake of others' clients too.

use core::cmp::Reverse;

use super::action::{Action, Notice};
use super::client::{Client, Pause, Phase};
use super::client_end::ClientEnd;
use super::clients::Clients;
use super::deadlines::Alarm;
use super::shared::{Memory, Shared};
use super::{Closed, Engine};
use crate::ids::ClientId;
use crate::limits::{MEMORY_LOOK_PERIOD, MEMORY_SILENCE, MEMORY_WAIT_MAX};
use crate::num::to_usize;
use crate::proto::{self, Parse, Route};
use crate::time::{Micros, Span};

/// The words for an unfinished request that is given up; memcached's.
const OUT_OF_MEMORY: &str = "out of memory reading request";

/// A client that waits for memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) id: ClientId,
    since: Micros,
    /// Its pool's time-out.
    timeout: Option<Span>,
}

impl Waiter {
    pub(super) const fn new(id: ClientId, since: Micros, timeout: Option<Span>) -> Self {
        Self { id, since, timeout }
    }

    /// How long it waits until holders are closed for its sake.
    fn patience(&self) -> Span {
        let half = self.timeout.map(|timeout| Span(timeout.0 / 2));
        half.unwrap_or(MEMORY_WAIT_MAX).min(MEMORY_WAIT_MAX)
    }

    /// When its request is answered with an error.
    fn overdue_at(&self) -> Option<Micros> {
        Some(self.since + self.timeout?)
    }
}

/// Holdings and wishes of the other engines of the process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Others {
    /// Bytes they hold together.
    pub held: u64,
    /// When the first of their clients will have waited long enough for holders to be closed.
    pub due: Option<Micros>,
}

/// How a client holds memory; the first are closed first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    /// It is its turn, and it has not moved for a while.
    Silent,
    /// It moves, or it is not its turn.
    Moving,
    /// It is kept from going on.
    Waiting,
}

/// A client that holds memory.
#[derive(Clone, Copy, Debug)]
struct Holder {
    id: ClientId,
    standing: Standing,
    held: u64,
    has_unread: bool,
}

impl Memory {
    /// When holders are to be closed for the sake of one that waits.
    fn due_of(&self, waiter: &Waiter) -> Micros {
        waiter.since.max(self.closed_at) + waiter.patience()
    }
}

impl Shared {
    /// A client begins to wait for memory.
    #[cold]
    pub(super) fn wait_for_memory(&mut self, waiter: Waiter) {
        let due = self.memory.due_of(&waiter);
        let overdue = waiter.overdue_at();
        self.memory.waiting.push(waiter);
        self.arm_memory(overdue.map_or(due, |at| at.min(due)));
    }

    /// A client with many unread replies begins to wait.
    #[cold]
    pub(super) fn wait_pressed(&mut self, waiter: Waiter) {
        self.memory.pressed.push(waiter);
        self.arm_memory(waiter.since + waiter.patience());
    }

    fn arm_memory(&mut self, at: Micros) {
        let at = at.max(self.now + Span(1));
        if self.memory.alarm_at.is_none_or(|armed| at < armed) {
            self.memory.alarm_at = Some(at);
            self.deadlines.arm(at, Alarm::Memory);
        }
    }

    /// Sees to it that what is held for long is looked at, also if only clients of other engines wait.
    #[inline]
    pub(super) fn watch_others(&mut self) {
        if self.memory.is_shared && self.memory.alarm_at.is_none() && self.holds_much() {
            self.arm_memory(self.now + MEMORY_LOOK_PERIOD);
        }
    }

    /// Arms the alarm for the next thing to be done.
    fn arm_next(&mut self) {
        let memory = &self.memory;
        let due = memory.waiting.iter().map(|waiter| memory.due_of(waiter));
        let overdue = memory.waiting.iter().filter_map(Waiter::overdue_at);
        let pressed = memory
            .pressed
            .iter()
            .map(|waiter| waiter.since + waiter.patience());
        let mut next = due.chain(overdue).chain(pressed).min();
        if memory.is_shared && (self.holds_much() || !memory.waiting.is_empty()) {
            let look = self.now + MEMORY_LOOK_PERIOD;
            next = Some(next.map_or(look, |next| next.min(look)));
        }
        if let Some(next) = next {
            self.arm_memory(next);
        }
    }
}

impl Clients {
    /// Everybody who holds something, in the order in which they are to be closed.
    fn holders(&self, now: Micros) -> alloc::vec::Vec<Holder> {
        let holder = |(id, client): (ClientId, &Client)| {
            let splits = client.order.splits();
            let in_splits: u64 = splits.map(|split| self.splits.held_by(split)).sum();
            let has_unread = !client.out.is_empty();
            let is_its_turn = has_unread || client.pause == Pause::No && !client.recv.is_empty();
            let is_silent = client.last_active + MEMORY_SILENCE <= now;
            let standing = if is_its_turn && is_silent {
                Standing::Silent
            } else if matches!(client.pause, Pause::Memory | Pause::Server) {
                Standing::Waiting
            } else {
                Standing::Moving
            };
            Holder {
                id,
                standing,
                held: client.recv.held() + client.output_len() + in_splits,
                has_unread,
            }
        };
        let working = self.roster.working().map(holder);
        let mut holders: alloc::vec::Vec<_> = working.filter(|holder| holder.held > 0).collect();
        holders.sort_by_key(|holder| (holder.standing, Reverse(holder.held)));
        holders
    }
}

impl Engine {
    /// Tells what the other engines hold, at the beginning of each tick, if there are any.
    pub fn note_others(&mut self, others: Others, now: Micros) {
        self.shared.now = now;
        let memory = &mut self.shared.memory;
        memory.is_shared = true;
        memory.others = others;
        if let Some(due) = others.due
            && self.shared.holds_much()
        {
            self.shared.arm_memory(due);
        }
    }

    /// When the first of this engine's clients will have waited for memory for long enough.
    #[must_use]
    pub fn memory_due(&self) -> Option<Micros> {
        let memory = &self.shared.memory;
        memory.waiting.first().map(|waiter| memory.due_of(waiter))
    }

    /// Clients that waited for memory go on once there is some.
    pub(super) fn wake_if_recovered(&mut self) {
        if !self.shared.memory.waiting.is_empty() && self.shared.has_recovered() {
            self.wake_waiting();
        }
        if !self.shared.memory.pressed.is_empty() && self.shared.has_eased() {
            let pressed = core::mem::take(&mut self.shared.memory.pressed);
            let ids = pressed.iter().map(|waiter| waiter.id);
            self.shared.outbox.resume.extend(ids);
        }
    }

    fn wake_waiting(&mut self) {
        let waiting = core::mem::take(&mut self.shared.memory.waiting);
        if !crate::canary::is_planted(crate::canary::Canary::MemoryWaitersForgotten) {
            let ids = waiting.iter().map(|waiter| waiter.id);
            self.shared.outbox.resume.extend(ids);
        }
    }

    /// Somebody may have waited for memory for too long.
    pub(super) fn check_memory(&mut self, at: Micros) {
        if self.shared.memory.alarm_at != Some(at) {
            return;
        }
        self.shared.memory.alarm_at = None;
        self.forget_gone_waiters();
        let (now, memory) = (self.shared.now, &self.shared.memory);
        let others_wait = memory.others.due.is_some_and(|due| due <= now);
        if others_wait || memory.waiting.iter().any(|one| memory.due_of(one) <= now) {
            self.shared.memory.closed_at = now;
            self.close_for_waiting();
            if !self.shared.is_short() {
                // The rest is held by those who wait: the margin that keeps them from coming all at
                // once would keep them for ever.
                self.wake_waiting();
            }
        }
        self.check_pressed();
        self.refuse_overdue();
        self.shared.arm_next();
    }

    fn forget_gone_waiters(&mut self) {
        let clients = &self.clients.roster;
        let memory = &mut self.shared.memory;
        memory.waiting.retain(|waiter| clients.contains(waiter.id));
        memory.pressed.retain(|waiter| clients.contains(waiter.id));
    }

    /// Closes those who hold memory until those who wait may go on.
    fn close_for_waiting(&mut self) {
        if !self.shared.is_short() {
            return;
        }
        let holders = self.clients.holders(self.shared.now);
        let waiting = holders
            .iter()
            .filter(|one| one.standing == Standing::Waiting);
        let held_by_waiting: u64 = waiting.map(|one| one.held).sum();
        // Those who wait are closed only if it is they who hold the memory.
        let spares_waiting = held_by_waiting < self.shared.chunks.held() / 2;
        for holder in holders {
            if self.shared.has_recovered() || spares_waiting && holder.standing == Standing::Waiting
            {
                return;
            }
            self.close_holder(holder.id, ClientEnd::MemoryWait);
        }
    }

    /// Closes clients that do not read and keep others, or only themselves, from beginning requests.
    fn check_pressed(&mut self) {
        let now = self.shared.now;
        let mut is_due = false;
        for waiter in &mut self.shared.memory.pressed {
            if waiter.since + waiter.patience() <= now {
                is_due = true;
                waiter.since = now;
            }
        }
        if !is_due {
            return;
        }
        for holder in self.clients.holders(now) {
            if self.shared.has_eased() {
                return;
            }
            if holder.standing == Standing::Silent && holder.has_unread {
                self.close_holder(holder.id, ClientEnd::MemoryWait);
            }
        }
    }

    /// Memory is used up: whoever moves least and holds most is closed, until there is some again.
    #[cold]
    pub(super) fn close_for_limit(&mut self) {
        for holder in self.clients.holders(self.shared.now) {
            if !self.shared.is_exhausted() {
                return;
            }
            self.close_holder(holder.id, ClientEnd::MemoryLimit);
        }
    }

    fn close_holder(&mut self, id: ClientId, end: ClientEnd) {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        let unfinished = client.recv.held();
        if client.phase != Phase::Open || unfinished <= client.output_len() {
            self.close_client(id, end);
            return;
        }
        // Its earlier requests are answered, and this one with an error.
        self.give_up_unfinished(id, end, OUT_OF_MEMORY);
    }

    /// Answers an unfinished request with an error; nothing more is read.
    fn give_up_unfinished(&mut self, id: ClientId, end: ClientEnd, words: &str) {
        self.tell_end(id, end);
        let client = self.clients.roster.found_mut(id);
        client.recv.clear(&mut self.shared.chunks);
        client.pause = Pause::No;
        client.phase = Phase::Closing { end };
        let protocol = self.pools[client.pool.index()].config.protocol;
        let mut reply = core::mem::take(&mut self.shared.reply);
        proto::write_error(protocol, words, &mut reply);
        self.answer_now(id, &reply);
        reply.clear();
        self.shared.reply = reply;
        self.close_if_settled(id);
    }

    /// Requests that could not begin for a whole time-out get their errors.
    fn refuse_overdue(&mut self) {
        let now = self.shared.now;
        let is_overdue = |waiter: &Waiter| waiter.overdue_at().is_some_and(|at| at <= now);
        let memory = &mut self.shared.memory;
        let overdue = memory.waiting.extract_if(.., |waiter| is_overdue(waiter));
        for waiter in overdue {
            if let Some(client) = self.clients.roster.get_mut(waiter.id) {
                client.is_overdue = true;
                self.shared.outbox.resume.push_back(waiter.id);
            }
        }
    }

    /// Answers the next request of a client whose requests are overdue, in `bytes`. Returns how many bytes
    /// are done with.
    #[cold]
    pub(super) fn refuse_one_overdue(&mut self, id: ClientId, bytes: &[u8]) -> usize {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return bytes.len();
        };
        let noted = &mut self.work.parts;
        match client.parser.parse_noting(bytes, &client.limits, noted) {
            Parse::Complete(request) => {
                let len = to_usize(request.len);
                if client.is_gated && !self.admit(id, &request) {
                    self.served(id);
                } else if request.route == Route::Local {
                    self.answer_locally(id, &bytes[..len], &request);
                } else {
                    self.answer_failure(id, Closed::TimedOut, &request);
                    self.close_misreader(id, &request);
                    self.served(id);
                }
                len
            }
            Parse::Skip { len } => len,
            Parse::Inline { len } => {
                let mut reply = alloc::vec::Vec::new();
                let protocol = self.pools[client.pool.index()].config.protocol;
                proto::write_error(protocol, Closed::TimedOut.text(), &mut reply);
                self.answer_now(id, &reply);
                self.served(id);
                len
            }
            Parse::Invalid { invalid, len, then } => {
                self.refuse_request(id, invalid, &bytes[..len], then);
                len
            }
            Parse::Incomplete { .. } => {
                self.give_up_unfinished(id, ClientEnd::Overdue, Closed::TimedOut.text());
                bytes.len()
            }
        }
    }

    /// Says why a client is about to be closed.
    pub(super) fn tell_end(&mut self, id: ClientId, end: ClientEnd) {
        let held = self.clients.roster.get(id).map_or(0, Client::held);
        self.shared.outbox.notice(Notice::ClientEnds {
            client: id,
            end,
            held,
        });
    }

    /// Closes a client, whatever it is owed, and says why.
    pub(super) fn close_client(&mut self, id: ClientId, end: ClientEnd) {
        self.tell_end(id, end);
        self.drop_client(id, end);
        self.shared
            .outbox
            .urgent
            .push_back(Action::Close(id.into()));
    }
}
