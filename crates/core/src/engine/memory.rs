//! Waiting for memory, and its end.
//!
//! Above the soft limit nobody begins a request. What holds the memory usually goes by itself: servers
//! answer, and are given up if they do not. But a client may leave a request unfinished, or its replies
//! unread, for as long as it likes. So once somebody has waited for [`MEMORY_WAIT_MAX`], the client that
//! holds most is closed, and again after each further such time: who waits gets on.

use super::action::{Action, Notice};
use super::client::Phase;
use super::deadlines::Alarm;
use super::lifecycle::End;
use super::shared::Shared;
use super::{Engine, client::Pause};
use crate::ids::ClientId;
use crate::limits::MEMORY_WAIT_MAX;
use crate::proto;

/// memcached's words for the same.
const OUT_OF_MEMORY: &str = "out of memory reading request";

impl Shared {
    /// A client begins to wait for memory.
    #[cold]
    pub(super) fn wait_for_memory(&mut self, id: ClientId) {
        if self.memory.waiting.is_empty() {
            self.memory.waiting_since = self.now;
        }
        self.memory.waiting.push(id);
        if self.memory.alarm_at.is_none() {
            self.arm_memory();
        }
    }

    fn arm_memory(&mut self) {
        let at = self.memory.waiting_since + MEMORY_WAIT_MAX;
        self.memory.alarm_at = Some(at);
        self.deadlines.arm(at, Alarm::Memory);
    }
}

impl Engine {
    /// Somebody may have waited for memory for too long.
    pub(super) fn check_memory(&mut self) {
        let clients = &self.clients.roster;
        let is_short = self.shared.is_short();
        let memory = &mut self.shared.memory;
        memory.alarm_at = None;
        memory.waiting.retain(|&id| clients.contains(id));
        if memory.waiting.is_empty() {
            return;
        }
        if memory.waiting_since + MEMORY_WAIT_MAX <= self.shared.now {
            memory.waiting_since = self.shared.now;
            if is_short {
                self.close_largest_holder();
            } else {
                // It is held by those who wait: the margin that keeps them from coming all at once
                // would keep them for ever.
                let waiting = core::mem::take(&mut memory.waiting);
                self.shared.outbox.resume.extend(waiting);
                return;
            }
        }
        self.shared.arm_memory();
    }

    fn close_largest_holder(&mut self) {
        let Some((id, held)) = self.clients.largest_holder() else {
            return;
        };
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        self.shared.outbox.notice(Notice::ClientMemory(id));
        let unfinished = client.recv.held();
        if client.phase != Phase::Open || unfinished <= held / 2 {
            self.drop_client(id, End::Err);
            let close = Action::Close(id.into());
            self.shared.outbox.urgent.push_back(close);
            return;
        }
        // Its earlier requests are answered, and this one with an error.
        client.recv.clear(&mut self.shared.chunks);
        client.pause = Pause::No;
        client.phase = Phase::Closing { eof: false };
        let protocol = self.pools[client.pool.index()].config.protocol;
        let mut reply = core::mem::take(&mut self.shared.reply);
        proto::write_error(protocol, OUT_OF_MEMORY, &mut reply);
        self.answer_now(id, &reply);
        reply.clear();
        self.shared.reply = reply;
    }
}
