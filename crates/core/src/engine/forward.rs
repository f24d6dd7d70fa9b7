//! The only routing code: key, hash, ring, server, connection.

use alloc::vec::Vec;
use core::mem;

use super::Engine;
use super::client::{Client, Pause, Pending, Phase};
use super::closed::Closed;
use super::pool::Pool;
use super::server::{Origin, Outgoing};
use super::shared::Shared;
use super::split::FragmentIdx;
use super::upstream::Upstream;
use crate::buf::{ChunkPool, Segment, SendQueue};
use crate::canary::{Canary, is_planted};
use crate::config::CrossServerKeys;
use crate::ids::{ClientId, ServerConnId, ServerIdx};
use crate::limits::SERVER_EARLY_FLUSH_LEN;
use crate::num::{to_u32, to_usize};
use crate::proto::redis::local::{self, After, LocalConfig};
use crate::proto::{self, Merge, PLACEHOLDER, Part, Protocol, Request, Route, Span, memcache};

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
    fn bytes(&self) -> &[u8] {
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

/// Memory of the routing of one multi-key request, kept for the next. All empty between uses.
#[derive(Debug, Default)]
pub(super) struct Work {
    parts: Vec<Part>,
    /// Position of each part's server in the pool.
    owners: Vec<u32>,
    /// Per position in the pool: the parts it owns.
    groups: Vec<Group>,
    /// Part indexes, by owner, in request order.
    sorted: Vec<u32>,
    /// Which fragment each part belongs to, in request order.
    order: Vec<u16>,
    fragments: Vec<Plan>,
    head: Vec<u8>,
}

/// The parts of one owner.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    count: u32,
    /// Where its next part goes in `sorted`.
    next: u32,
    fragment: u16,
}

/// One fragment to be sent.
#[derive(Clone, Copy, Debug)]
struct Plan {
    server: ServerIdx,
    /// `None` if the server is down.
    conn: Option<ServerConnId>,
    /// Its parts: `sorted[first..first + count]`.
    first: u32,
    count: u32,
}

/// Where the keys of a request live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owners {
    /// Every server is ejected.
    None,
    /// All on one.
    One(u32),
    /// On several; the first and the first that differs from it, as indexes into the parts.
    Several(usize, usize),
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
        let Some(client) = self.clients.slab.get_mut(id) else {
            return Ok(());
        };
        let pool_idx = client.pool.index();
        if client.limits.unauthenticated && !self.admit(id, request) {
            return Ok(());
        }
        let pool = &self.pools[pool_idx];
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
                    None => self.forward_together(id, frame, request, &mut work),
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
    fn forward<'a>(
        &mut self,
        id: ClientId,
        owner: Option<u32>,
        frame: Frame<'a>,
        request: &Request,
    ) -> Result<(), Stalled<'a>> {
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
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

    /// Finds the owner of every key of the request; fills `work.parts` and `work.owners`.
    fn find_owners(
        &mut self,
        id: ClientId,
        frame: &[u8],
        request: &Request,
        work: &mut Work,
    ) -> Owners {
        let client = self
            .clients
            .slab
            .get(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        proto::parts(pool.config.protocol, frame, request, &mut work.parts);
        assert!(!work.parts.is_empty(), "a request routed by keys has keys");
        for part in &work.parts {
            let Some(owner) = pool.owner(part.key.of(frame), &mut self.rng) else {
                return Owners::None;
            };
            work.owners.push(owner);
        }
        let first = work.owners[0];
        match work.owners.iter().position(|&owner| owner != first) {
            None => Owners::One(first),
            Some(other) => Owners::Several(0, other),
        }
    }

    /// Sends a multi-key request that cannot be split: unchanged, if one server has all its keys.
    fn forward_together<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
        work: &mut Work,
    ) -> Result<(), Stalled<'a>> {
        let owner = match self.find_owners(id, frame.bytes(), request, work) {
            Owners::None => None,
            Owners::One(owner) => Some(owner),
            Owners::Several(first, other) => {
                let client = self
                    .clients
                    .slab
                    .get(id)
                    .expect("the caller has just found it");
                let pool = &self.pools[client.pool.index()];
                if pool.config.cross_server_keys == CrossServerKeys::Error {
                    let mut reply = Vec::new();
                    let name = |part: usize| {
                        let server = &pool.config.servers[to_usize(work.owners[part])];
                        (
                            work.parts[part].key.of(frame.bytes()),
                            server.name.as_bytes(),
                        )
                    };
                    write_cross_slot(name(first), name(other), &mut reply);
                    self.answer_now(id, &reply);
                    return Ok(());
                }
                Some(work.owners[first])
            }
        };
        self.forward(id, owner, frame, request)
    }

    /// Splits a multi-key request by server.
    fn split<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
        merge: Merge,
        work: &mut Work,
    ) -> Result<(), Stalled<'a>> {
        if self.find_owners(id, frame.bytes(), request, work) == Owners::None {
            self.answer_failure(id, Closed::Refused, request);
            return Ok(());
        }
        if self.plan_fragments(id, work).is_err() {
            return Err(Stalled(frame));
        }
        if is_planted(Canary::MergeOrderReversed) {
            work.order.reverse();
        }
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        pool.counters
            .fragments
            .add(u64::from(to_u32(work.fragments.len())));
        let pending = if work.fragments.len() == 1 {
            Pending::Waiting
        } else {
            let count = to_u32(work.fragments.len());
            Pending::Split(self.clients.splits.open(merge, &work.order, count))
        };
        let seq = client.push(pending, &mut self.shared.orders);
        for (index, plan) in work.fragments.iter().enumerate() {
            let origin = fragment_origin(id, seq, index, work.fragments.len());
            let Some(conn_id) = plan.conn else {
                continue;
            };
            let parts = &work.sorted[to_usize(plan.first)..to_usize(plan.first + plan.count)];
            let raws = parts.iter().map(|&part| work.parts[to_usize(part)].raw);
            work.head.clear();
            let protocol = pool.config.protocol;
            proto::fragment_head(protocol, frame.bytes(), request, plan.count, &mut work.head);
            let conn = self
                .upstream
                .conns
                .get_mut(conn_id)
                .expect("it was just chosen");
            let before = conn.out.len();
            let out = &mut conn.out;
            let chunks = &mut self.shared.chunks;
            out.append(&work.head, chunks);
            let part_end = proto::part_end(protocol);
            append_parts(frame.bytes(), raws, part_end, |bytes| {
                if !bytes.is_empty() {
                    out.append(bytes, chunks);
                }
            });
            out.append(proto::fragment_end(protocol), chunks);
            let len = u32::try_from(out.len() - before).expect("a fragment is at most its request");
            let outgoing = Outgoing {
                origin: Some(origin),
                len,
                readonly: request.readonly,
            };
            let timeout = pool.config.timeout;
            self.upstream
                .queued(conn_id, outgoing, timeout, &mut self.shared);
        }
        for (index, plan) in work.fragments.iter().enumerate() {
            if plan.conn.is_none() {
                let origin = fragment_origin(id, seq, index, work.fragments.len());
                self.fail_down(plan.server, origin, request, plan.count);
            }
        }
        Ok(())
    }

    /// Groups the parts by owner, in server index order, and chooses each fragment's connection.
    /// Fails if the client must wait for one of them.
    fn plan_fragments(&mut self, id: ClientId, work: &mut Work) -> Result<(), ()> {
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        let servers = pool.config.servers.len();
        work.groups.resize(servers, Group::default());
        for &owner in &work.owners {
            work.groups[to_usize(owner)].count += 1;
        }
        let mut first = 0;
        for (position, group) in (0..).zip(&mut work.groups) {
            let count = group.count;
            if count == 0 {
                continue;
            }
            group.next = first;
            group.fragment = fragment_idx(work.fragments.len()).0;
            let server = pool.server(position);
            let conn = self.upstream.choose(pool, server, client, &mut self.shared);
            if conn.is_some_and(|conn| self.upstream.stalls(conn, id)) {
                client.pause = Pause::Server;
                return Err(());
            }
            work.fragments.push(Plan {
                server,
                conn,
                first,
                count,
            });
            first += count;
        }
        work.sorted.resize(work.parts.len(), 0);
        work.order.resize(work.parts.len(), 0);
        let order = work.order.iter_mut();
        for ((part, &owner), order) in (0..).zip(&work.owners).zip(order) {
            let group = &mut work.groups[to_usize(owner)];
            *order = group.fragment;
            work.sorted[to_usize(group.next)] = part;
            group.next += 1;
        }
        Ok(())
    }

    /// Whether a client must wait with a request to every server of its pool, because too much waits
    /// for one of them already.
    fn broadcast_stalls(&mut self, id: ClientId) -> bool {
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        for server in pool.servers() {
            let conn = self.upstream.choose(pool, server, client, &mut self.shared);
            if conn.is_some_and(|conn| self.upstream.stalls(conn, id)) {
                client.pause = Pause::Server;
                return true;
            }
        }
        false
    }

    /// Sends a request unchanged to every server of the pool.
    fn broadcast(&mut self, id: ClientId, frame: &[u8], request: &Request, merge: Merge) {
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        let seq = (!request.noreply).then(|| {
            let split = self.clients.splits.open(merge, &[], pool.server_count());
            client.push(Pending::Split(split), &mut self.shared.orders)
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
            let conn = self
                .upstream
                .conns
                .get_mut(conn_id)
                .expect("it was just chosen");
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

    /// Whether a client that has not authenticated may send this; if not, it was told.
    fn admit(&mut self, id: ClientId, request: &Request) -> bool {
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        if pool.config.protocol == Protocol::Memcache {
            return true;
        }
        let config = LocalConfig {
            password: pool.config.redis_auth.as_deref(),
            db: pool.config.redis_db,
        };
        let mut reply = mem::take(&mut self.shared.reply);
        let admitted = local::admit(request, &client.session, &config, &mut reply);
        if !admitted {
            self.answer_now(id, &reply);
        }
        reply.clear();
        self.shared.reply = reply;
        admitted
    }

    /// Answers a request that needs no server.
    fn answer_locally(&mut self, id: ClientId, frame: &[u8], request: &Request) {
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        let mut reply = mem::take(&mut self.shared.reply);
        let after = match pool.config.protocol {
            Protocol::Redis => {
                let config = LocalConfig {
                    password: pool.config.redis_auth.as_deref(),
                    db: pool.config.redis_db,
                };
                local::respond(frame, request, &mut client.session, &config, &mut reply)
            }
            Protocol::Memcache => memcache::local::respond(frame, request, &mut reply),
        };
        client.limits.unauthenticated =
            pool.config.redis_auth.is_some() && !client.session.authenticated;
        if !reply.is_empty() {
            self.answer_now(id, &reply);
        }
        reply.clear();
        self.shared.reply = reply;
        if after == After::Close
            && let Some(client) = self.clients.slab.get_mut(id)
        {
            client.phase = Phase::Closing { eof: true };
        }
    }

    /// Answers a request that no server could be found for.
    fn answer_failure(&mut self, id: ClientId, why: Closed, request: &Request) {
        if request.noreply {
            return;
        }
        let client = self
            .clients
            .slab
            .get(id)
            .expect("the caller has just found it");
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
        let conn = self
            .conns
            .get_mut(conn_id)
            .expect("the connection was just chosen");
        append(&mut conn.out, &mut shared.chunks);
        let is_owed = !request.noreply || is_planted(Canary::NoreplyOwed);
        let origin = is_owed.then(|| Origin::Whole {
            client: id,
            seq: client.push_waiting(),
        });
        if request.noreply && pool.config.server_connections > 1 {
            client.note_noreply(conn.server, conn.stream_end());
        }
        let outgoing = Outgoing {
            origin,
            len: request.len,
            readonly: request.readonly,
        };
        conn.queued(outgoing, shared.now);
        shared.outbox.is_urgent |= conn.out.len() > SERVER_EARLY_FLUSH_LEN;
        shared.memory.held += u64::from(request.len);
        if !conn.is_announced(pool.config.timeout) {
            self.announce(conn_id, pool.config.timeout, shared);
        }
    }
}

impl Work {
    fn clear(&mut self) {
        self.parts.clear();
        self.owners.clear();
        self.groups.clear();
        self.sorted.clear();
        self.order.clear();
        self.fragments.clear();
        self.head.clear();
    }
}

/// Gives `append` the parts `raws` of `frame`, each with `part_end` behind it. Those that lie side by
/// side in the frame are given as one.
#[inline]
fn append_parts(
    frame: &[u8],
    raws: impl Iterator<Item = Span>,
    part_end: &[u8],
    mut append: impl FnMut(&[u8]),
) {
    let gap = to_u32(part_end.len());
    let mut run: Option<Span> = None;
    for raw in raws {
        match &mut run {
            Some(run)
                if raw.start == run.end + gap
                    && (gap == 0 || frame[to_usize(run.end)..].starts_with(part_end)) =>
            {
                run.end = raw.end;
            }
            _ => {
                if let Some(run) = run.replace(raw) {
                    append(run.of(frame));
                    append(part_end);
                }
            }
        }
    }
    if let Some(run) = run {
        append(run.of(frame));
        append(part_end);
    }
}

/// Whose the response to a request's `index`-th fragment of `count` is.
fn fragment_origin(client: ClientId, seq: u32, index: usize, count: usize) -> Origin {
    if count == 1 {
        return Origin::Whole { client, seq };
    }
    Origin::Fragment {
        client,
        seq,
        fragment: fragment_idx(index),
    }
}

fn fragment_idx(index: usize) -> FragmentIdx {
    FragmentIdx(u16::try_from(index).expect("a pool has at most 65,535 servers"))
}

/// `-CROSSSLOT ... (key: server, key: server)`. Keys are shown short and printable.
fn write_cross_slot(first: (&[u8], &[u8]), other: (&[u8], &[u8]), out: &mut Vec<u8>) {
    const SHOWN_MAX: usize = 64;
    let mut show = |bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(SHOWN_MAX)];
        out.extend(bytes.iter().map(|&b| {
            if b.is_ascii_graphic() || b == b' ' {
                b
            } else {
                b'?'
            }
        }));
    };
    for text in [
        b"-CROSSSLOT Keys in request don't hash to the same server (".as_slice(),
        first.0,
        b": ",
        first.1,
        b", ",
        other.0,
        b": ",
        other.1,
        b")",
    ] {
        show(text);
    }
    out.extend_from_slice(b"\r\n");
}
