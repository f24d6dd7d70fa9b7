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
use crate::proto::{self, Merge, PLACEHOLDER, Part, Protocol, Request, Route, Run, Span, memcache};

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

/// Memory of the routing of one multi-key request, kept for the next. All but `parts` empty between uses.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The keys of the request; empty if they have not been noted when it was parsed.
    pub(super) parts: Vec<Part>,
    /// Position of each part's server in the pool.
    owners: Vec<u32>,
    /// Per position in the pool: the parts it owns.
    groups: Vec<Group>,
    /// Which fragment which parts belong to, in request order.
    runs: Vec<Run>,
    fragments: Vec<Plan>,
    head: Vec<u8>,
}

/// The parts of one owner.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    count: u32,
    fragment: u16,
}

/// One fragment to be sent.
#[derive(Clone, Copy, Debug)]
struct Plan {
    server: ServerIdx,
    /// `None` if the server is down.
    conn: Option<ServerConnId>,
    /// How many parts it has.
    count: u32,
    /// Bytes that were queued on the connection before it.
    queued: u64,
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

    /// Finds the owner of every key of the request; fills `work` up to `groups`. Returns false if every
    /// server is ejected.
    fn find_owners(
        &mut self,
        id: ClientId,
        frame: &[u8],
        request: &Request,
        work: &mut Work,
    ) -> bool {
        let client = self
            .clients
            .slab
            .get(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        if work.parts.is_empty() {
            proto::parts(pool.config.protocol, frame, request, &mut work.parts);
        }
        assert!(!work.parts.is_empty(), "a request routed by keys has keys");
        work.groups
            .resize(pool.config.servers.len(), Group::default());
        work.owners.reserve(work.parts.len());
        for part in &work.parts {
            let Some(owner) = pool.owner(part.key.of(frame), &mut self.rng) else {
                return false;
            };
            work.groups[to_usize(owner)].count += 1;
            work.owners.push(owner);
        }
        true
    }

    /// Sends a multi-key request that cannot be split: unchanged, if one server has all its keys.
    fn forward_together<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
        work: &mut Work,
    ) -> Result<(), Stalled<'a>> {
        if !self.find_owners(id, frame.bytes(), request, work) {
            return self.forward(id, None, frame, request);
        }
        let owner = work.owners[0];
        let other = work.owners.iter().position(|&other| other != owner);
        if let Some(other) = other {
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
                write_cross_slot(name(0), name(other), &mut reply);
                self.answer_now(id, &reply);
                return Ok(());
            }
        }
        self.forward(id, Some(owner), frame, request)
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
        if !self.find_owners(id, frame.bytes(), request, work) {
            self.answer_failure(id, Closed::Refused, request);
            return Ok(());
        }
        if self.plan_fragments(id, work).is_err() {
            return Err(Stalled(frame));
        }
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        let (protocol, timeout) = (pool.config.protocol, pool.config.timeout);
        let fragment_count = work.fragments.len();
        pool.counters
            .fragments
            .add(u64::from(to_u32(fragment_count)));
        let chunks = &mut self.shared.chunks;
        self.upstream
            .compose(protocol, frame.bytes(), request, work, chunks);
        if is_planted(Canary::MergeOrderReversed) {
            work.runs.reverse();
        }
        let pending = if fragment_count == 1 {
            Pending::Waiting
        } else {
            let counts = work.fragments.iter().map(|plan| plan.count);
            Pending::Split(self.clients.splits.open(merge, &work.runs, counts))
        };
        let seq = client.push(pending, &mut self.shared.orders);
        for (index, plan) in work.fragments.iter().enumerate() {
            if let Some(conn_id) = plan.conn {
                let conn = self.upstream.conns.get(conn_id);
                let end = conn.expect("it was just chosen").out.len();
                let len = u32::try_from(end - plan.queued);
                let outgoing = Outgoing {
                    origin: Some(fragment_origin(id, seq, index, fragment_count)),
                    len: len.expect("a fragment is at most its request"),
                    readonly: request.readonly,
                };
                self.upstream
                    .queued(conn_id, outgoing, timeout, &mut self.shared);
            }
        }
        for (index, plan) in work.fragments.iter().enumerate() {
            if plan.conn.is_none() {
                let origin = fragment_origin(id, seq, index, fragment_count);
                self.fail_down(plan.server, origin, request, plan.count);
            }
        }
        Ok(())
    }

    /// Makes each owner's parts a fragment, in server index order, and chooses its connection. Fails if
    /// the client must wait for one of them.
    fn plan_fragments(&mut self, id: ClientId, work: &mut Work) -> Result<(), ()> {
        let client = self
            .clients
            .slab
            .get_mut(id)
            .expect("the caller has just found it");
        let pool = &self.pools[client.pool.index()];
        for (position, group) in (0..).zip(&mut work.groups) {
            if group.count == 0 {
                continue;
            }
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
                count: group.count,
                queued: 0,
            });
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
            let counts = (0..pool.config.servers.len()).map(|_| 0);
            let split = self.clients.splits.open(merge, &[], counts);
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

    /// Queues the bytes of the planned fragments, each for its server, and fills `work.runs`.
    fn compose(
        &mut self,
        protocol: Protocol,
        frame: &[u8],
        request: &Request,
        work: &mut Work,
        chunks: &mut ChunkPool,
    ) {
        let Work {
            parts,
            owners,
            groups,
            runs,
            fragments,
            head,
        } = work;
        let mut append = |conn: ServerConnId, bytes: &[u8]| {
            let conn = self.conns.get_mut(conn).expect("it was just chosen");
            let queued = conn.out.len();
            conn.out.append(bytes, chunks);
            queued
        };
        for plan in fragments.iter_mut() {
            if let Some(conn) = plan.conn {
                head.clear();
                proto::fragment_head(protocol, frame, request, plan.count, head);
                plan.queued = append(conn, head);
            }
        }
        let part_end = proto::part_end(protocol);
        let gap = to_u32(part_end.len());
        let mut append_run = |owner: u32, raw: Span, keys: u32| {
            let fragment = groups[to_usize(owner)].fragment;
            runs.push(Run { fragment, keys });
            let Some(conn) = fragments[usize::from(fragment)].conn else {
                return;
            };
            let with_end = to_usize(raw.start)..to_usize(raw.end + gap);
            match frame.get(with_end) {
                Some(bytes) if bytes.ends_with(part_end) => _ = append(conn, bytes),
                _ => {
                    append(conn, raw.of(frame));
                    append(conn, part_end);
                }
            }
        };
        let (mut run_owner, mut raw, mut keys) = (owners[0], parts[0].raw, 1);
        for (part, &owner) in parts.iter().zip(&*owners).skip(1) {
            // What lies side by side in the frame is copied together.
            if owner == run_owner && part.raw.start == raw.end + gap {
                raw.end = part.raw.end;
                keys += 1;
            } else {
                append_run(run_owner, raw, keys);
                (run_owner, raw, keys) = (owner, part.raw, 1);
            }
        }
        append_run(run_owner, raw, keys);
        let fragment_end = proto::fragment_end(protocol);
        if !fragment_end.is_empty() {
            for conn in fragments.iter().filter_map(|plan| plan.conn) {
                append(conn, fragment_end);
            }
        }
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
            seq: client.push(Pending::Waiting, &mut shared.orders),
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
        self.runs.clear();
        self.fragments.clear();
        self.head.clear();
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
