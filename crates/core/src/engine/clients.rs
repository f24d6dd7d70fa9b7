//! All clients of the engine, and the way of a response to its client.

use alloc::vec::Vec;
use core::mem;

use super::client::{Client, Pause, Phase};
use super::client_end::ClientEnd;
use super::order::Pending;
use super::roster::Roster;
use super::shared::Shared;
use super::slot::Origin;
use super::split::Splits;
use crate::canary::{Canary, is_planted};
use crate::ids::ClientId;
use crate::limits::EARLY_FLUSH_LEN;
use crate::num::to_u64;

#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) roster: Roster,
    pub(crate) splits: Splits,
    next_session: u64,
    session_step: u64,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            roster: Roster::default(),
            splits: Splits::default(),
            next_session: 1,
            session_step: 1,
        }
    }
}

impl Clients {
    pub(crate) const fn number(&mut self, first: u64, step: u64) {
        self.next_session = first;
        self.session_step = step;
    }

    pub(crate) const fn take_session_id(&mut self) -> u64 {
        let id = self.next_session;
        self.next_session += self.session_step;
        id
    }

    /// A server's response, or its last part, has come. Returns whether it was anybody's.
    #[inline]
    pub(crate) fn answer(&mut self, origin: Origin, bytes: &[u8], shared: &mut Shared) -> bool {
        match origin {
            Origin::Whole { client: id, seq } => {
                let Some(client) = self.roster.get_mut(id) else {
                    return false;
                };
                let bytes = client.wanted(seq, bytes);
                let flush = client.respond(seq, bytes, &mut shared.chunks);
                answered(id, client, flush, shared);
                true
            }
            Origin::Fragment {
                client: id,
                seq,
                fragment,
            } => {
                let Some(client) = self.roster.get_mut(id) else {
                    return false;
                };
                let split = client.order.split(seq);
                let response = (bytes, &*shared.marks);
                let len = self
                    .splits
                    .finish(split, fragment, response, &mut shared.chunks);
                if to_u64(len) > client.output_limit {
                    shared.outbox.doomed.push((id, ClientEnd::OutputLimit));
                }
                self.fragment_done(id, seq, shared);
                true
            }
            Origin::Discarded | Origin::Own(_) => false,
        }
    }

    /// A response, of `len` bytes in all, was the last part of an answer's.
    #[inline]
    pub(crate) fn note_response(&mut self, origin: Origin, len: u64) {
        let client = origin.client().and_then(|id| self.roster.get_mut(id));
        if let Some(client) = client {
            client.note_response(len);
        }
    }

    /// A part of a response has come and more will; in all it has `least_len` bytes at least. Returns whether it
    /// was anybody's.
    pub(crate) fn answer_more(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        least_len: u64,
        shared: &mut Shared,
    ) -> bool {
        let id = match origin {
            Origin::Whole { client, .. } | Origin::Fragment { client, .. } => client,
            Origin::Discarded | Origin::Own(_) => return false,
        };
        let Some(client) = self.roster.get_mut(id) else {
            return false;
        };
        if let Origin::Whole { seq, .. } = origin
            && client.order.is_muted(seq)
        {
            return true;
        }
        match origin {
            Origin::Whole { seq, .. } => {
                let flush = client.respond_more(seq, bytes, least_len, &mut shared.chunks);
                answered(id, client, flush, shared);
            }
            Origin::Fragment { seq, fragment, .. } => {
                let split = client.order.split(seq);
                let held = self
                    .splits
                    .extend(split, fragment, bytes, &mut shared.chunks);
                if to_u64(held) > client.output_limit {
                    shared.outbox.doomed.push((id, ClientEnd::OutputLimit));
                } else if shared.is_exhausted() {
                    shared.outbox.is_exhausted = true;
                }
            }
            Origin::Discarded | Origin::Own(_) => {}
        }
        true
    }

    /// A request (or fragment) fails with the composed error line `reply`. A client that was already
    /// given a part of the response can only be closed. Returns whether it was anybody's.
    pub(crate) fn fail(&mut self, origin: Origin, reply: &[u8], shared: &mut Shared) -> bool {
        match origin {
            Origin::Whole { client: id, seq } => {
                let Some(client) = self.roster.get_mut(id) else {
                    return false;
                };
                let is_brittle = client.order.is_brittle(seq);
                if !client.retract(seq, &mut shared.chunks) {
                    shared.outbox.doomed.push((id, ClientEnd::ReplyBroken));
                    return true;
                }
                if !is_planted(Canary::HalfReplyKept) {
                    client.order.forget_partial(seq, &mut shared.chunks);
                }
                let reply = client.wanted(seq, reply);
                let flush = client.respond(seq, reply, &mut shared.chunks);
                answered(id, client, flush, shared);
                if is_brittle && client.phase == Phase::Open {
                    client.phase = Phase::Closing {
                        end: ClientEnd::Quit,
                    };
                }
                true
            }
            Origin::Fragment {
                client: id,
                seq,
                fragment,
            } => {
                let Some(client) = self.roster.get_mut(id) else {
                    return false;
                };
                let split = client.order.split(seq);
                self.splits
                    .replace(split, fragment, reply, &mut shared.chunks);
                self.fragment_done(id, seq, shared);
                true
            }
            Origin::Discarded | Origin::Own(_) => false,
        }
    }

    /// A fragment of request `seq` is answered; with the last one the merged response is.
    fn fragment_done(&mut self, id: ClientId, seq: u32, shared: &mut Shared) {
        let client = self.roster.found_mut(id);
        let Pending::Split(split) = *client.order.pending(seq) else {
            return;
        };
        if !self.splits.finish_fragment(split) {
            return;
        }
        // Both the parts and the whole are held for a moment.
        if !shared.has_room_for(self.splits.len_of(split)) {
            shared.outbox.doomed.push((id, ClientEnd::ReplyTooLarge));
            return;
        }
        let mut reply = mem::take(&mut shared.reply);
        self.splits.merge(split, &mut reply, &mut shared.chunks);
        *client.order.pending_mut(seq) = Pending::Waiting;
        let flush = if reply.len() < crate::limits::SEND_MOVE_MIN {
            let flush = client.respond(seq, &reply, &mut shared.chunks);
            reply.clear();
            shared.reply = reply;
            flush
        } else {
            client.respond_owned(seq, reply, &mut shared.chunks)
        };
        answered(id, client, flush, shared);
    }

    /// Whether a client on the list of dirty ones still has bytes to send.
    #[inline]
    pub(crate) fn wants_flush(&mut self, id: ClientId) -> bool {
        let Some(client) = self.roster.get_mut(id) else {
            return false;
        };
        client.dirty = false;
        let has_some = !client.out.is_empty();
        if !has_some {
            // It was sent meanwhile, and nobody else looks after it.
            self.roster.rest(id);
        }
        has_some
    }

    /// Bytes held for all clients.
    pub(crate) fn held(&self) -> u64 {
        let of_clients: u64 = self.roster.working().map(|(_, client)| client.held()).sum();
        of_clients + self.splits.held() + self.roster.held_at_rest()
    }

    /// Bytes of memory that buffers and queues of all clients take.
    pub(crate) fn footprint(&self) -> u64 {
        let working = self.roster.working();
        let of_clients: u64 = working.map(|(_, client)| client.footprint()).sum();
        of_clients + self.splits.footprint() + self.roster.held_at_rest()
    }

    pub(crate) fn check_invariants(&self) {
        self.roster.check_invariants();
        let clients = self.roster.working();
        assert_eq!(
            clients
                .map(|(_, client)| client.order.splits().count())
                .sum::<usize>(),
            self.splits.len(),
            "each split belongs to one client"
        );
    }

    /// Ids of all clients, to walk them while they change.
    pub(crate) fn ids(&self) -> Vec<ClientId> {
        self.roster.ids()
    }
}

/// What follows any response to a client: it is flushed, parses on, or has too much.
#[inline(always)]
pub(crate) fn answered(id: ClientId, client: &mut Client, flush: bool, shared: &mut Shared) {
    if flush {
        shared.outbox.is_urgent |= client.out.len() > EARLY_FLUSH_LEN;
        if !client.dirty {
            client.dirty = true;
            shared.outbox.dirty_clients.push_back(id);
        }
        if client.pause == Pause::Own {
            resume_if_drained(id, client, shared);
        }
    }
    if client.output_len() > client.output_limit {
        shared.outbox.doomed.push((id, ClientEnd::OutputLimit));
    } else if shared.is_exhausted() {
        shared.outbox.is_exhausted = true;
    }
}

/// Puts a client that paused for its own sake back to work once it has room again.
pub(crate) fn resume_if_drained(id: ClientId, client: &mut Client, shared: &mut Shared) {
    let waits = matches!(client.pause, Pause::Own | Pause::Output);
    if waits && client.has_drained() && !client.resuming {
        client.resuming = true;
        if !is_planted(Canary::WakeupLost) {
            shared.outbox.resume.push_back(id);
        }
    }
}
