//! Requests with several keys: each goes whole to the one server that has all its keys, or in fragments
//! to several.
//!
//! The keys of a request are looked at once, in request order. Those that stand side by side and have one
//! owner are a *stretch*: they are copied together into their fragment, and their elements together into
//! the response. A fragment is the chain of its owner's stretches, or a part of the chain where a server may
//! not be sent all of them at once.

use alloc::vec::Vec;
use core::mem;

use super::Engine;
use super::client::Pause;
use super::closed::Closed;
use super::forward::{Frame, Stalled};
use super::order::Pending;
use super::pool::Pool;
use super::rng::Rng;
use super::slot::{Origin, Outgoing};
use super::split::FragmentIdx;
use crate::buf::{ChunkPool, SendQueue, append_piece};
use crate::canary::{Canary, is_planted};
use crate::config::CrossServerKeys;
use crate::ids::{ClientId, ServerConnId, ServerId};
use crate::limits::{FREE_PARTS_MAX, REQUEST_FRAGMENTS_MAX, SEND_SMALL_CHUNK_LEN};
use crate::num::{to_u32, to_usize};
use crate::proto::redis::own;
use crate::proto::{self, Invalid, Merge, Part, Protocol, Request, Run, Span};
use crate::topology::tag;

/// Memory of the routing of one multi-key request, kept for the next. All but `parts` empty between uses.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The keys of the request; empty if they have not been noted when it was parsed.
    pub(super) parts: Vec<Part>,
    /// What the keys are placed by.
    hashes: Vec<u32>,
    /// In request order.
    stretches: Vec<Stretch>,
    /// Per position in the pool.
    groups: Vec<Group>,
    fragments: Vec<Plan>,
    /// Where a fragment's bytes are put together.
    bytes: Vec<u8>,
}

/// Parts that lie side by side in the frame and have one owner.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Position of their server in the pool.
    owner: u32,
    /// How many parts, at least 1.
    keys: u32,
    raw: Span,
    /// The owner's next stretch, or [`NONE`].
    next: u32,
    /// Which of the owner's fragments it belongs to, from 0 on.
    piece: u16,
}

/// The parts of one owner.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    keys: u32,
    /// Its first and last stretch, if it has keys.
    first: u32,
    last: u32,
    /// Its first fragment.
    fragment: u16,
    /// How many fragments it has beside that one.
    more: u16,
    /// Bytes of the last of them so far; counted only if there may be several.
    len: u32,
}

/// One fragment to be sent.
#[derive(Clone, Copy, Debug)]
struct Plan {
    server: ServerId,
    /// `None` if the server is down.
    conn: Option<ServerConnId>,
    keys: u32,
    /// Its first stretch.
    first: u32,
    /// Which of its owner's fragments it is.
    piece: u16,
}

const NONE: u32 = u32::MAX;

/// A stretch above this length is not put together with others but copied to where it goes.
const TOGETHER_LEN_MAX: usize = 512;

impl Engine {
    /// Finds the owner of every key of the request, whose stretches and groups are then in `work`.
    /// Returns false if every server is ejected.
    fn find_owners(
        &mut self,
        id: ClientId,
        frame: &[u8],
        request: &Request,
        work: &mut Work,
    ) -> bool {
        let client = self.clients.roster.found(id);
        let pool = &self.pools[client.pool.index()];
        let protocol = pool.config.protocol;
        if work.parts.is_empty() {
            proto::parts(protocol, frame, request, &mut work.parts);
        }
        work.groups.resize(pool.shard_count(), Group::default());
        work.group(pool, frame, &mut self.rng).is_some()
    }

    /// Sends a multi-key request that cannot be split: unchanged, if one server has all its keys.
    pub(super) fn forward_together<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
        work: &mut Work,
    ) -> Result<(), Stalled<'a>> {
        if !self.find_owners(id, frame.bytes(), request, work) {
            return self.forward(id, None, frame, request);
        }
        let first = work.stretches[0];
        let other = work
            .stretches
            .iter()
            .find(|other| other.owner != first.owner);
        let client = self.clients.roster.found(id);
        let pool = &self.pools[client.pool.index()];
        let may_cross =
            pool.shard_count() == 1 || pool.config.cross_server_keys == CrossServerKeys::First;
        if let Some(other) = other
            && !may_cross
        {
            let mut reply = Vec::new();
            let name = |stretch: &Stretch| {
                let is_its = |part: &&Part| part.raw.start == stretch.raw.start;
                let part = work.parts.iter().find(is_its);
                let shard = &pool.topology.shards[to_usize(stretch.owner)];
                (
                    part.expect("a stretch begins with a part")
                        .key
                        .of(frame.bytes()),
                    shard.name.as_bytes(),
                )
            };
            own::write_cross_slot(name(&first), name(other), &mut reply);
            self.answer_now(id, &reply);
            return Ok(());
        }
        if !may_cross && let Some(reply) = self.pattern_error(id, frame.bytes(), request, work) {
            self.answer_now(id, &reply);
            return Ok(());
        }
        self.forward(id, Some(first.owner), frame, request)
    }

    /// The answer if the patterns of the request, whose keys all have one owner, may name keys of others:
    /// every key of a pattern must have the same tag, and the tag must have that owner.
    #[cold]
    fn pattern_error(
        &mut self,
        id: ClientId,
        frame: &[u8],
        request: &Request,
        work: &Work,
    ) -> Option<Vec<u8>> {
        let client = self.clients.roster.found(id);
        let pool = &self.pools[client.pool.index()];
        let mut patterns = Vec::new();
        proto::patterns(pool.config.protocol, frame, request, &mut patterns);
        let owner = work.stretches[0].owner;
        for pattern in patterns {
            let start = pattern.of(frame);
            let mut reply = Vec::new();
            if tag::tag_of(start, pool.config.hash_tag).is_none() {
                own::write_patterns_refused(request, &mut reply);
                return Some(reply);
            }
            match pool.owner(start, &mut self.rng) {
                Some(other) if other != owner => {
                    let name = |owner: u32| pool.topology.shards[to_usize(owner)].name.as_bytes();
                    let key = work.parts[0].key.of(frame);
                    own::write_cross_slot((key, name(owner)), (start, name(other)), &mut reply);
                    return Some(reply);
                }
                _ => {}
            }
        }
        None
    }

    /// Splits a multi-key request by server.
    pub(super) fn split<'a>(
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
        // Only lines of values are cut; other requests have no bound for a server's sake.
        if merge == Merge::Values
            && work
                .cut(Protocol::Memcache, frame.bytes(), request)
                .is_err()
        {
            let mut response = Vec::new();
            Invalid::TOO_MANY_FRAGMENTS.write(&[], &mut response);
            self.answer_now(id, &response);
            return Ok(());
        }
        if self.plan_fragments(id, work).is_err() {
            return Err(Stalled(frame));
        }
        let client = self.clients.roster.found_mut(id);
        let pool = &self.pools[client.pool.index()];
        let (protocol, timeout) = (pool.config.protocol, pool.config.timeout);
        let fragment_count = work.fragments.len();
        pool.counters
            .fragments
            .add(u64::from(to_u32(fragment_count)));
        if is_planted(Canary::MergeOrderReversed) {
            work.stretches.reverse();
        }
        let is_muted = client.session.is_muted();
        let pending = match fragment_count {
            1 if is_muted => Pending::Muted,
            1 => Pending::Waiting,
            _ => {
                let merge = if is_muted { Merge::Nothing } else { merge };
                let keys = work.fragments.iter().map(|plan| plan.keys);
                let chunks = &mut self.shared.chunks;
                Pending::Split(self.clients.splits.open(merge, work.runs(), keys, chunks))
            }
        };
        if is_planted(Canary::MergeOrderReversed) {
            work.stretches.reverse();
        }
        let seq = client.order.push(pending, &mut self.shared.chunks);
        let mut is_any_down = false;
        for index in 0..fragment_count {
            let Some(conn) = work.fragments[index].conn else {
                is_any_down = true;
                continue;
            };
            let out = &mut self.upstream.chosen_mut(conn).out;
            let head = (protocol, frame.bytes(), request);
            // A slot follows its bytes at once: it ends where the queue ends, and the next fragment may
            // go to the same connection.
            let outgoing = Outgoing {
                origin: Some(fragment_origin(id, seq, index, fragment_count)),
                len: work.compose(index, head, out, &mut self.shared.chunks),
                readonly: request.readonly,
            };
            self.upstream
                .queued(conn, outgoing, timeout, &mut self.shared);
        }
        if !is_any_down {
            return Ok(());
        }
        for (index, plan) in work.fragments.iter().enumerate() {
            if plan.conn.is_none() {
                let origin = fragment_origin(id, seq, index, fragment_count);
                self.fail_down(plan.server, origin, request, plan.keys);
            }
        }
        Ok(())
    }

    /// Makes each owner's parts its fragments, in server index order, and chooses its connection. Fails if
    /// the client must wait for one of them.
    fn plan_fragments(&mut self, id: ClientId, work: &mut Work) -> Result<(), ()> {
        let client = self.clients.roster.found_mut(id);
        let pool = &self.pools[client.pool.index()];
        for (position, group) in (0..).zip(&mut work.groups) {
            if group.keys == 0 {
                continue;
            }
            group.fragment = fragment_idx(work.fragments.len()).0;
            let server = pool.server(position);
            let conn = self.upstream.choose(pool, server, client, &mut self.shared);
            if self.upstream.must_wait(server, conn, id) {
                client.pause = Pause::Server;
                return Err(());
            }
            let plan = Plan {
                server,
                conn,
                keys: group.keys,
                first: group.first,
                piece: 0,
            };
            if group.more == 0 {
                work.fragments.push(plan);
            } else {
                push_pieces(plan, &work.stretches, &mut work.fragments);
            }
        }
        Ok(())
    }
}

impl Work {
    /// Forgets the request, and memory that few requests need.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.hashes.clear();
        self.stretches.clear();
        self.groups.clear();
        self.fragments.clear();
        self.bytes.clear();
        if self.parts.capacity() > FREE_PARTS_MAX {
            *self = Self::default();
        }
    }

    /// Makes stretches of the parts of `frame`, and groups of the stretches. `None` if every server is
    /// ejected.
    #[inline(never)]
    fn group(&mut self, pool: &Pool, frame: &[u8], rng: &mut Rng) -> Option<()> {
        // All hashes first: they take long one by one, and the processor computes several at a time as long
        // as nothing is decided by them, which it would guess wrong half the time.
        let keys = self.parts.iter().map(|part| part.key.of(frame));
        pool.hash_each(keys, rng, |hash| self.hashes.push(hash));
        let gap = to_u32(proto::part_end(pool.config.protocol).len());
        let mut parts = self.parts.iter().zip(&self.hashes);
        let (first, hash) = parts.next().expect("a request routed by keys has keys");
        let mut stretch = Stretch {
            owner: pool.pick(*hash)?,
            keys: 1,
            raw: first.raw,
            next: NONE,
            piece: 0,
        };
        for (part, hash) in parts {
            let owner = pool.pick(*hash)?;
            if owner == stretch.owner && part.raw.start == stretch.raw.end + gap {
                stretch.raw.end = part.raw.end;
                stretch.keys += 1;
            } else {
                add(stretch, &mut self.stretches, &mut self.groups);
                stretch = Stretch {
                    owner,
                    keys: 1,
                    raw: part.raw,
                    next: NONE,
                    piece: 0,
                };
            }
        }
        add(stretch, &mut self.stretches, &mut self.groups);
        Some(())
    }

    /// Cuts the parts of an owner into several fragments where one would be longer than its server may be
    /// sent. Fails if the request would have more fragments than there are numbers for.
    #[inline]
    fn cut(&mut self, protocol: Protocol, frame: &[u8], request: &Request) -> Result<(), ()> {
        let len_max = proto::fragment_len_max(protocol, request);
        // No fragment is longer than its request but by a blank and a CR.
        if frame.len() + 2 <= len_max {
            return Ok(());
        }
        self.cut_long(protocol, frame, request, len_max)
    }

    #[cold]
    fn cut_long(
        &mut self,
        protocol: Protocol,
        frame: &[u8],
        request: &Request,
        len_max: usize,
    ) -> Result<(), ()> {
        self.bytes.clear();
        proto::fragment_head(protocol, frame, request, 1, &mut self.bytes);
        let frame_len = to_u32(self.bytes.len() + proto::fragment_end(protocol).len());
        let gap = to_u32(proto::part_end(protocol).len());
        let uncut = mem::take(&mut self.stretches);
        let (mut parts, mut count) = (self.parts.iter(), 0);
        self.groups.fill(Group::default());
        for whole in uncut {
            let mut open: Option<Stretch> = None;
            for part in parts.by_ref().take(to_usize(whole.keys)) {
                let group = &mut self.groups[to_usize(whole.owner)];
                let len = part.raw.end - part.raw.start + gap;
                if group.len == 0 || to_usize(group.len + len) > len_max {
                    if let Some(stretch) = open.take() {
                        add(stretch, &mut self.stretches, &mut self.groups);
                    }
                    let group = &mut self.groups[to_usize(whole.owner)];
                    count += 1;
                    if count > REQUEST_FRAGMENTS_MAX {
                        return Err(());
                    }
                    group.more += u16::from(group.len > 0);
                    group.len = frame_len;
                }
                let group = &mut self.groups[to_usize(whole.owner)];
                group.len += len;
                let stretch = open.get_or_insert(Stretch {
                    keys: 0,
                    raw: part.raw,
                    next: NONE,
                    piece: group.more,
                    ..whole
                });
                stretch.keys += 1;
                stretch.raw.end = part.raw.end;
            }
            if let Some(stretch) = open {
                add(stretch, &mut self.stretches, &mut self.groups);
            }
        }
        Ok(())
    }

    /// Which fragment has which keys, in request order.
    fn runs(&self) -> impl Iterator<Item = Run> {
        self.stretches.iter().map(|stretch| Run {
            fragment: self.groups[to_usize(stretch.owner)].fragment + stretch.piece,
            keys: stretch.keys,
        })
    }

    /// Queues the bytes of a fragment. Returns how many they are.
    #[inline(never)]
    fn compose(
        &mut self,
        index: usize,
        (protocol, frame, request): (Protocol, &[u8], &Request),
        out: &mut SendQueue,
        chunks: &mut ChunkPool,
    ) -> u32 {
        let plan = self.fragments[index];
        let before = out.len();
        // Put together first: room in a send queue is looked for once.
        let bytes = &mut self.bytes;
        bytes.clear();
        proto::fragment_head(protocol, frame, request, plan.keys, bytes);
        let part_end = proto::part_end(protocol);
        let mut next = plan.first;
        while let Some(stretch) = self.stretches.get(to_usize(next))
            && stretch.piece == plan.piece
        {
            next = stretch.next;
            let raw = to_usize(stretch.raw.start)..to_usize(stretch.raw.end);
            if raw.len() > TOGETHER_LEN_MAX || bytes.len() > SEND_SMALL_CHUNK_LEN {
                out.append(bytes, chunks);
                bytes.clear();
                out.append(&frame[raw], chunks);
            } else {
                append_piece(bytes, frame, raw);
            }
            if let [blank] = part_end {
                bytes.push(*blank);
            }
        }
        bytes.extend_from_slice(proto::fragment_end(protocol));
        out.append(bytes, chunks);
        let len = u32::try_from(out.len() - before);
        len.expect("a fragment is at most its request")
    }
}

/// Adds a stretch to its owner's.
#[inline(always)]
fn add(stretch: Stretch, stretches: &mut Vec<Stretch>, groups: &mut [Group]) {
    let index = to_u32(stretches.len());
    let group = &mut groups[to_usize(stretch.owner)];
    if group.keys == 0 {
        group.first = index;
    } else {
        stretches[to_usize(group.last)].next = index;
    }
    group.last = index;
    group.keys += stretch.keys;
    stretches.push(stretch);
}

/// Adds the fragments of one owner, the first stretch of which `plan` has.
#[cold]
fn push_pieces(plan: Plan, stretches: &[Stretch], fragments: &mut Vec<Plan>) {
    let mut next = plan.first;
    let mut open: Option<Plan> = None;
    while let Some(stretch) = stretches.get(to_usize(next)) {
        if let Some(piece) = open.take_if(|piece| piece.piece != stretch.piece) {
            fragments.push(piece);
        }
        let piece = open.get_or_insert(Plan {
            keys: 0,
            first: next,
            piece: stretch.piece,
            ..plan
        });
        piece.keys += stretch.keys;
        next = stretch.next;
    }
    fragments.extend(open);
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

pub(super) fn fragment_idx(index: usize) -> FragmentIdx {
    FragmentIdx(u16::try_from(index).expect("a request has at most 65,535 fragments"))
}
