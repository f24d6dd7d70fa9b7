//! The only routing code: key, hash, ring, server, connection. Requests with several keys go on in
//! [`super::fragments`].

use alloc::vec::Vec;
use core::mem;

use super::Engine;
use super::client::{Client, Pause, Phase};
use super::client_end::ClientEnd;
use super::closed::Closed;
use super::fragments::fragment_idx;
use super::order::Pending;
use super::pool::Pool;
use super::shared::Shared;
use super::slot::{Origin, Outgoing};
use super::upstream::Upstream;
use crate::buf::{ChunkPool, Segment, SendQueue};
use crate::canary::{Canary, is_planted};
use crate::ids::{ClientId, ServerConnId};
use crate::limits::SERVER_EARLY_FLUSH_LEN;
use crate::proto::redis::local::{self, After, LocalConfig};
use crate::proto::{self, Merge, PLACEHOLDER, Protocol, Request, Route, memcache};
use crate::time::Micros;

const SECOND: u64 = 1_000_000;

/// The bytes of one request.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    /// In a buffer that others use too.
    Lent(&'a [u8]),
    /// In a buffer of its own, which can move to the send queue.
    Owned(Segment),
}

/// The request must wait until its server connection has room; the client is paused.
#[derive(Debug)]
pub(super) struct Stalled<'a>(pub(super) Frame<'a>);

impl Frame<'_> {
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Owned(segment) => segment.unsent(),
        }
    }

    #[inline]
    fn append_to(self, out: &mut SendQueue, chunks: &mut ChunkPool) {
        match self {
            Self::Lent(bytes) => out.append(bytes, chunks),
            Self::Owned(segment) => out.push(segment, chunks),
        }
    }
}

impl Engine {
    /// Serves one complete request.
    #[inline]
    pub(super) fn route<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
    ) -> Result<(), Stalled<'a>> {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return Ok(());
        };
        if client.is_gated {
            return self.route_gated(id, frame, request);
        }
        self.route_admitted(id, frame, request)
    }

    /// Serves one complete request, which the client may send.
    #[inline]
    pub(super) fn route_admitted<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
    ) -> Result<(), Stalled<'a>> {
        let client = self.clients.roster.found(id);
        let pool = &self.pools[client.pool.index()];
        match request.route {
            Route::Key(key) => {
                let owner = pool.owner(key.of(frame.bytes()), &mut self.rng);
                self.forward(id, owner, frame, request)
            }
            Route::Placeholder => {
                let owner = pool.owner(PLACEHOLDER, &mut self.rng);
                self.forward(id, owner, frame, request)
            }
            Route::Keys(merge) => {
                let mut work = mem::take(&mut self.work);
                let result = match merge {
                    Some(merge) => self.split(id, frame, request, merge, &mut work),
                    None => self.forward_apart(id, frame, request, &mut work),
                };
                work.clear();
                self.work = work;
                result
            }
            Route::EveryServer(merge) => {
                if self.broadcast_stalls(id) {
                    return Err(Stalled(frame));
                }
                self.broadcast(id, frame.bytes(), request, merge);
                Ok(())
            }
            Route::Local => {
                self.answer_locally(id, frame.bytes(), request);
                Ok(())
            }
        }
    }

    /// Sends a request unchanged to the server at `owner`.
    pub(super) fn forward<'a>(
        &mut self,
        id: ClientId,
        owner: Option<u32>,
        frame: Frame<'a>,
        request: &Request,
    ) -> Result<(), Stalled<'a>> {
        let client = self.clients.roster.found_mut(id);
        let pool = &self.pools[client.pool.index()];
        let Some(owner) = owner else {
            // compat: with all servers ejected the words are those of a refused connection.
            self.answer_failure(id, Closed::Refused, request);
            return Ok(());
        };
        let from = Sender { id, client, pool };
        self.upstream
            .forward(from, owner, frame, request, &mut self.shared)
    }

    /// Whether a client must wait with a request to every server of its pool, because too much waits
    /// for one of them already.
    fn broadcast_stalls(&mut self, id: ClientId) -> bool {
        let client = self.clients.roster.found_mut(id);
        let pool = &self.pools[client.pool.index()];
        for server in pool.servers() {
            let conn = self.upstream.choose(pool, server, client, &mut self.shared);
            if self.upstream.must_wait(server, conn, id) {
                client.pause = Pause::Server;
                return true;
            }
        }
        false
    }

    /// Sends a request unchanged to every server of the pool.
    fn broadcast(&mut self, id: ClientId, frame: &[u8], request: &Request, merge: Merge) {
        let client = self.clients.roster.found_mut(id);
        let pool = &self.pools[client.pool.index()];
        let seq = (!request.noreply).then(|| {
            let counts = (0..pool.shard_count()).map(|_| 0);
            let chunks = &mut self.shared.chunks;
            let split = self.clients.splits.open(merge, [], counts, chunks);
            client.order.push(Pending::Split(split), chunks)
        });
        let mut down = Vec::new();
        for (index, server) in pool.servers().enumerate() {
            let origin = seq.map(|seq| Origin::Fragment {
                client: id,
                seq,
                fragment: fragment_idx(index),
            });
            let Some(conn_id) = self.upstream.choose(pool, server, client, &mut self.shared) else {
                down.extend(origin.map(|origin| (server, origin)));
                continue;
            };
            let conn = self.upstream.chosen_mut(conn_id);
            conn.out.append(frame, &mut self.shared.chunks);
            if request.noreply {
                client.note_noreply(server, conn.stream_end());
            }
            let outgoing = Outgoing {
                origin,
                len: request.len,
                readonly: request.readonly,
            };
            let timeout = pool.config.timeout;
            self.upstream
                .queued(conn_id, outgoing, timeout, &mut self.shared);
        }
        for (server, origin) in down {
            self.fail_down(server, origin, request, 0);
        }
    }

    /// Answers a request that needs no server.
    pub(super) fn answer_locally(&mut self, id: ClientId, frame: &[u8], request: &Request) {
        let client = self.clients.roster.found_mut(id);
        let pool = &self.pools[client.pool.index()];
        let mut reply = mem::take(&mut self.shared.reply);
        let held = client.session.held();
        let after = match pool.config.protocol {
            Protocol::Redis => {
                let config = LocalConfig {
                    password: pool.config.redis_auth.as_deref(),
                    db: pool.config.redis_db,
                };
                local::respond(frame, request, &mut client.session, &config, &mut reply)
            }
            Protocol::Memcache => {
                let Micros(uptime) = self.shared.now;
                let stats = memcache::own::Stats {
                    process_id: self.config.process_id,
                    uptime: uptime / SECOND,
                    wall_clock: (self.config.wall_clock_origin + uptime) / SECOND,
                    client_count: self.client_counts.get(client.pool),
                };
                memcache::local::respond(frame, request, &stats, &mut reply)
            }
        };
        let ledger = &mut self.shared.chunks.ledger;
        ledger.change(held, client.session.held());
        client.limits.unauthenticated =
            pool.config.redis_auth.is_some() && !client.session.authenticated;
        if !reply.is_empty() {
            self.answer_now(id, &reply);
        }
        reply.clear();
        self.shared.reply = reply;
        self.served(id);
        if after == After::Close
            && let Some(client) = self.clients.roster.get_mut(id)
        {
            client.phase = Phase::Closing {
                end: ClientEnd::Quit,
            };
        }
    }

    /// Answers a request that no server could be found for.
    pub(super) fn answer_failure(&mut self, id: ClientId, why: Closed, request: &Request) {
        if request.noreply {
            return;
        }
        let client = self.clients.roster.found(id);
        let pool = &self.pools[client.pool.index()];
        pool.counters.forward_error.add(1);
        let mut reply = mem::take(&mut self.shared.reply);
        proto::write_error(pool.config.protocol, why.text(), &mut reply);
        self.answer_now(id, &reply);
        reply.clear();
        self.shared.reply = reply;
    }
}

/// Who sends a request.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    pub(super) id: ClientId,
    pub(super) client: &'a mut Client,
    pub(super) pool: &'a Pool,
}

impl Upstream {
    /// Queues a request unchanged for the server at `owner`.
    fn forward<'a>(
        &mut self,
        from: Sender<'_>,
        owner: u32,
        frame: Frame<'a>,
        request: &Request,
        shared: &mut Shared,
    ) -> Result<(), Stalled<'a>> {
        let server = from.pool.server(owner);
        let Some(conn) = self.choose(from.pool, server, from.client, shared) else {
            if self.holds(server, from.id) {
                from.client.pause = Pause::Server;
                return Err(Stalled(frame));
            }
            self.answer_down(from, server, request, shared);
            return Ok(());
        };
        if self.stalls(conn, from.id) {
            from.client.pause = Pause::Server;
            return Err(Stalled(frame));
        }
        self.enqueue(conn, from, request, shared, |out, chunks| {
            frame.append_to(out, chunks);
        });
        Ok(())
    }

    /// Queues the request that `append` puts into the connection's queue.
    #[inline(always)]
    pub(super) fn enqueue(
        &mut self,
        conn_id: ServerConnId,
        from: Sender<'_>,
        request: &Request,
        shared: &mut Shared,
        append: impl FnOnce(&mut SendQueue, &mut ChunkPool),
    ) {
        let Sender { id, client, pool } = from;
        let conn = self.chosen_mut(conn_id);
        append(&mut conn.out, &mut shared.chunks);
        let is_owed = !request.noreply || is_planted(Canary::NoreplyOwed);
        let origin = is_owed.then(|| Origin::Whole {
            client: id,
            seq: client.order.push_waiting(&mut shared.chunks),
        });
        if request.noreply && pool.config.server_connections > 1 {
            client.note_noreply(conn.server, conn.stream_end());
        }
        let outgoing = Outgoing {
            origin,
            len: request.len,
            readonly: request.readonly,
        };
        conn.queued(outgoing, shared.now, &mut shared.chunks);
        shared.outbox.is_urgent |= conn.out.len() > SERVER_EARLY_FLUSH_LEN;
        if !conn.is_announced(pool.config.timeout) {
            self.announce(conn_id, pool.config.timeout, shared);
        }
    }
}
