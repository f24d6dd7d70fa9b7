//! Clients come and go.

use alloc::boxed::Box;

use super::action::Action;
use super::client::{Client, Pause, Phase, Resting};
use super::client_end::ClientEnd;
use super::clients::resume_if_drained;
use super::closed::Closed;
use super::deadlines::Alarm;
use super::roster::Seat;
use super::{Engine, Refused};
use crate::canary::{Canary, is_planted};
use crate::ids::{ClientId, PoolIdx};
use crate::proto::{Protocol, memcache, redis};

/// Clients that are gone and may stay on a list of those who wait, beside as many as there are.
pub(super) const DEAD_WAITERS_MAX: usize = 1024;

impl Engine {
    pub(super) fn accept(&mut self, pool_idx: PoolIdx) -> Result<ClientId, Refused> {
        let pool = &mut self.pools[pool_idx.index()];
        if self.draining {
            return Err(Refused { reply: b"" });
        }
        if !self
            .client_counts
            .take(pool_idx, pool.config.client_connections)
        {
            return Err(Refused {
                reply: too_many(pool.config.protocol),
            });
        }
        pool.counters.client_connections.add(1);
        self.shared.counters.total_connections.add(1);
        self.shared.counters.curr_connections.add(1);
        let session_id = self.clients.take_session_id();
        let now = self.shared.now;
        let client = Resting::new(pool_idx, session_id, now);
        let id = self.clients.roster.insert(client);
        if let Some(limit) = pool.config.client_idle_timeout {
            self.shared.deadlines.arm(now + limit, Alarm::Client(id));
        }
        Ok(id)
    }

    /// The shell lost the client.
    pub(super) fn client_closed(&mut self, id: ClientId, why: Closed) {
        self.drop_client(id, ClientEnd::Lost(why));
    }

    /// The client will send no more; what it is owed still leaves.
    pub(super) fn client_eof(&mut self, id: ClientId) {
        let Some(client) = self.clients.roster.wake(id, &self.pools) else {
            return;
        };
        if client.pause != Pause::No && !is_planted(Canary::EofDropsRequests) {
            client.eof_read = true;
            return;
        }
        client.recv.clear(&mut self.shared.chunks);
        if client.phase == Phase::Open {
            client.phase = Phase::Closing {
                end: ClientEnd::Eof,
            };
        }
        self.close_if_settled(id);
    }

    /// The kernel took `len` bytes of a client's responses.
    pub(super) fn sent_to_client(&mut self, id: ClientId, len: usize) {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        client.last_active = self.shared.now;
        client.out.commit(len, &mut self.shared.chunks);
        resume_if_drained(id, client, &mut self.shared);
        if client.is_settled() {
            let phase = client.phase;
            self.settle(id, phase);
        }
    }

    /// A client is owed nothing any more: it is closed, if it is to be, or rests.
    #[inline]
    pub(super) fn settle(&mut self, id: ClientId, phase: Phase) {
        match phase {
            Phase::Open => self.clients.roster.rest(id),
            Phase::Closing { .. } => self.close_if_settled(id),
        }
    }

    /// Closes a client that is to be closed and is owed nothing more.
    pub(super) fn close_if_settled(&mut self, id: ClientId) {
        let Some(client) = self.clients.roster.get(id) else {
            return;
        };
        let Phase::Closing { end } = client.phase else {
            return;
        };
        if client.is_settled() {
            if !end.is_told_early() {
                self.tell_end(id, end);
            }
            self.drop_client(id, end);
            self.shared
                .outbox
                .urgent
                .push_back(Action::Close(id.into()));
        }
    }

    /// Closes a client that cannot be given what it is owed.
    pub(super) fn close_doomed(&mut self, id: ClientId, end: ClientEnd) {
        if self.clients.roster.contains(id) {
            self.close_client(id, end);
        }
    }

    /// Forgets a client. Its requests stay where they are: they are executed and their responses
    /// discarded.
    pub(super) fn drop_client(&mut self, id: ClientId, end: ClientEnd) {
        let Some(seat) = self.clients.roster.remove(id) else {
            return;
        };
        let pool_idx = match &seat {
            Seat::Resting(client) => client.pool,
            Seat::Working(client) => client.pool,
        };
        let pool = &mut self.pools[pool_idx.index()];
        self.client_counts.give(pool_idx);
        pool.counters.client_connections.sub(1);
        if end.is_error() {
            pool.counters.client_err.add(1);
        } else {
            pool.counters.client_eof.add(1);
        }
        self.shared.counters.curr_connections.sub(1);
        self.forget_dead_alarms();
        match seat {
            Seat::Resting(client) => self.shared.chunks.ledger.free(client.held()),
            Seat::Working(client) => self.forget_work(client),
        }
    }

    /// Forgets what a client that is gone has sent and was owed.
    fn forget_work(&mut self, mut client: Box<Client>) {
        if !is_planted(Canary::SplitsLeaked) {
            for split in client.order.take_splits() {
                self.clients.splits.close(split, &mut self.shared.chunks);
            }
        }
        if client.pause != Pause::No {
            self.forget_dead_waiters();
        }
        client.clear(&mut self.shared.chunks);
        self.clients.roster.give_back(client);
    }

    /// Forgets the clients that are gone where clients wait, if there are many: a server that takes
    /// nothing must not collect all who came and went meanwhile.
    fn forget_dead_waiters(&mut self) {
        let clients = &self.clients.roster;
        let most = 2 * clients.len() + DEAD_WAITERS_MAX;
        let conns = self
            .upstream
            .servers
            .values()
            .flat_map(|server| &server.conns);
        for &id in conns {
            if let Some(conn) = self.upstream.conns.get_mut(id)
                && conn.stalled.len() > most
            {
                conn.stalled.retain(|&id| clients.contains(id));
            }
        }
        let memory = &mut self.shared.memory;
        for waiting in [&mut memory.waiting, &mut memory.pressed] {
            if waiting.len() > most {
                waiting.retain(|waiter| clients.contains(waiter.id));
            }
        }
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        for id in self.clients.ids() {
            let Some(client) = self.clients.roster.wake(id, &self.pools) else {
                continue;
            };
            if client.pause == Pause::No {
                if client.phase == Phase::Open {
                    client.phase = Phase::Closing {
                        end: ClientEnd::Drained,
                    };
                }
            } else {
                // What it had sent before the drain is served first.
                client.eof_read = true;
            }
            self.close_if_settled(id);
        }
    }
}

const fn too_many(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Redis => redis::own::TOO_MANY_CLIENTS,
        Protocol::Memcache => memcache::own::TOO_MANY_CLIENTS,
    }
}
