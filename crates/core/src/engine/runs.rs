//! Runs: the ordinary requests, or responses, of one read, one after the other.
//!
//! What one request needs to know of its client, its pool and its server hardly changes from the next
//! one's, so it is looked up once for many. Requests are first planned, some dozens at a time, then
//! queued server by server: each server gets its own in order, and nobody can tell in which order
//! different servers got theirs. Nothing is decided here: whatever is not ordinary ends the run and is
//! left to [`super::parse`] or [`super::respond`], which could do it all alone.
//!
//! Nobody sees the inside of a run but other threads that read the counters, each of which is written
//! once for several requests.

use alloc::vec::Vec;
use core::mem;

use super::Engine;
use super::client::Client;
use super::clients::{Clients, answered};
use super::forward::Sender;
use super::pool::Pool;
use super::respond::Reader;
use super::rng::Rng;
use super::server::ServerConn;
use super::shared::Shared;
use super::slot::{Finished, Origin, Queued, Slot};
use crate::canary::{Canary, is_planted};
use crate::ids::{ClientId, ServerConnId};
use crate::limits::{
    REQUEST_HELD_LEN, RUN_COPY_LEN_MAX, RUN_LEN_MAX, SERVER_EARLY_FLUSH_LEN, SLOT_HELD_LEN,
};
use crate::num::{to_u32, to_u64, to_usize};
use crate::proto::{Parse, Part, Request, RequestParser, ResponseStep, Route};
use crate::time::Micros;

/// The next requests of one client, by server; the memory is kept for the next run.
#[derive(Debug)]
pub(super) struct Plan {
    /// As many as were parsed; what lies behind is of earlier plans, here as in all arrays.
    requests: [Request; RUN_LEN_MAX],
    /// What their keys are placed by.
    hashes: [u32; RUN_LEN_MAX],
    entries: [Entry; RUN_LEN_MAX],
    /// Per entry: the next one for the same server, or [`NONE`].
    next: [u32; RUN_LEN_MAX],
    owners: Vec<Owner>,
    /// Per position in a pool: the last entry planned for that server, or [`NONE`].
    last: Vec<u32>,
    /// How many of the entries are owed a response.
    owed: u32,
    /// Bytes of all entries.
    len: usize,
    /// So many requests go alone before the next plan, whosever they are: the last one was given up with so
    /// many, because a server takes none, and would be again for each of them.
    alone: usize,
    /// Of the server whose turn it is.
    slots: [Slot; RUN_LEN_MAX],
}

/// One planned request.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where it lies in the client's bytes.
    start: u32,
    /// How many of the requests before it are owed a response.
    place: u32,
}

/// A server that gets some of the planned requests.
#[derive(Clone, Copy, Debug)]
struct Owner {
    /// Its position in the pool.
    position: u32,
    first: u32,
    conn: Option<ServerConnId>,
}

/// Bytes held for each request that is owed a response, beside its own.
const OWED_HELD_LEN: usize = REQUEST_HELD_LEN + SLOT_HELD_LEN;

const NONE: u32 = u32::MAX;

impl Default for Plan {
    fn default() -> Self {
        let request = Request {
            len: 0,
            command: 0,
            noreply: false,
            readonly: false,
            route: Route::Local,
        };
        let entry = Entry { start: 0, place: 0 };
        let slot = Slot::new(Origin::Discarded, 0, false, Micros(0));
        Self {
            requests: [request; RUN_LEN_MAX],
            hashes: [0; RUN_LEN_MAX],
            entries: [entry; RUN_LEN_MAX],
            next: [NONE; RUN_LEN_MAX],
            owners: Vec::new(),
            last: Vec::new(),
            owed: 0,
            len: 0,
            alone: 0,
            slots: [slot; RUN_LEN_MAX],
        }
    }
}

impl Plan {
    fn clear(&mut self) {
        for owner in self.owners.drain(..) {
            self.last[to_usize(owner.position)] = NONE;
        }
        self.owed = 0;
        self.len = 0;
    }

    /// Bytes that will be held for all entries.
    const fn held_len(&self) -> usize {
        self.len + to_usize(self.owed) * OWED_HELD_LEN
    }

    /// Parses requests with one key, at most `count_max`. Returns how many, and what was parsed of the
    /// first that is another, if the bytes do not end before.
    #[inline(never)]
    fn parse(
        &mut self,
        bytes: &[u8],
        client: &mut Client,
        count_max: usize,
        noted: &mut Vec<Part>,
    ) -> (usize, Option<Parse>) {
        let requests = &mut self.requests[..count_max.min(RUN_LEN_MAX)];
        let (mut at, mut count) = (0, 0);
        loop {
            let (more, len) =
                client
                    .parser
                    .parse_ordinary(&bytes[at..], &client.limits, &mut requests[count..]);
            at += len;
            count += more;
            if at == bytes.len() || count == requests.len() {
                return (count, None);
            }
            match client
                .parser
                .parse_noting(&bytes[at..], &client.limits, noted)
            {
                Parse::Complete(request) if matches!(request.route, Route::Key(_)) => {
                    requests[count] = request;
                    at += to_usize(request.len);
                    count += 1;
                    if at == bytes.len() || count == requests.len() {
                        return (count, None);
                    }
                }
                other => return (count, Some(other)),
            }
        }
    }

    /// Plans the first `count` requests, the bytes of which begin at `start`, until more than `held_max` bytes
    /// are held for them. Returns how many.
    #[inline(never)]
    fn find_owners(
        &mut self,
        count: usize,
        (bytes, start): (&[u8], usize),
        held_max: usize,
        pool: &Pool,
        rng: &mut Rng,
    ) -> usize {
        let requests = &self.requests[..count];
        let mut rest = &bytes[start..];
        let keys = requests.iter().map_while(|request| {
            let frame = rest.split_off(..to_usize(request.len))?;
            match request.route {
                Route::Key(key) => Some(key.of(frame)),
                _ => None,
            }
        });
        let mut hashes = self.hashes.iter_mut();
        pool.hash_each(keys, rng, |hash| {
            hashes.next().into_iter().for_each(|place| *place = hash);
        });
        let hashed = RUN_LEN_MAX - hashes.len();
        let first = to_u32(start);
        let (mut at, mut owed, mut planned) = (first, 0, 0);
        let places = (0..).zip(&mut self.entries);
        let requests = requests.iter().zip(&self.hashes[..hashed]);
        for ((request, &hash), (index, entry)) in requests.zip(places) {
            let Some(position) = pool.pick(hash) else {
                break;
            };
            *entry = Entry {
                start: at,
                place: owed,
            };
            self.next[to_usize(index)] = NONE;
            let last = mem::replace(&mut self.last[to_usize(position)], index);
            match self.next.get_mut(to_usize(last)) {
                Some(next) => *next = index,
                None => self.owners.push(Owner {
                    position,
                    first: index,
                    conn: None,
                }),
            }
            planned = index + 1;
            owed += u32::from(!request.noreply || is_planted(Canary::NoreplyOwed));
            at += request.len;
            if to_usize(at - first) + to_usize(owed) * OWED_HELD_LEN > held_max {
                break;
            }
        }
        self.owed = owed;
        self.len = to_usize(at - first);
        to_usize(planned)
    }

    /// Queues the requests of one server, `first` and those that follow it. Returns whether there was
    /// one to which no response comes.
    #[inline(never)]
    fn send(
        &mut self,
        first: u32,
        bytes: &[u8],
        (client, first_seq): (ClientId, u32),
        conn: &mut ServerConn,
        shared: &mut Shared,
    ) -> bool {
        let stream_start = conn.stream_end();
        let (mut stream_end, queued_at) = (stream_start, shared.now);
        let (mut silent, mut silent_len) = (0, 0);
        let mut index = to_usize(first);
        let mut start = self.entries[index].start;
        let (mut end, mut slots) = (start, 0);
        while let Some(entry) = self.entries.get(index) {
            let request = &self.requests[index];
            // Those that lie side by side are copied at once.
            if entry.start != end || to_usize(end - start + request.len) > RUN_COPY_LEN_MAX {
                conn.out
                    .append(&bytes[to_usize(start)..to_usize(end)], &mut shared.chunks);
                start = entry.start;
            }
            end = entry.start + request.len;
            stream_end += u64::from(request.len);
            if request.noreply && !is_planted(Canary::NoreplyOwed) {
                silent += 1;
                silent_len += u64::from(request.len);
            } else {
                self.slots[slots] = Slot {
                    origin: Origin::Whole {
                        client,
                        seq: first_seq.wrapping_add(entry.place),
                    },
                    queued_at,
                    end: stream_end,
                    len: request.len,
                    moved: false,
                    readonly: request.readonly,
                };
                slots += 1;
            }
            index = to_usize(self.next[index]);
        }
        conn.out
            .append(&bytes[to_usize(start)..to_usize(end)], &mut shared.chunks);
        let (count, len) = (to_u64(slots), stream_end - stream_start);
        let queued = Queued {
            requests: count + silent,
            len,
            slots: count,
            slots_len: len - silent_len,
        };
        conn.push_slots(&self.slots[..slots], &queued, &mut shared.chunks);
        shared.outbox.is_urgent |= conn.out.len() > SERVER_EARLY_FLUSH_LEN;
        silent > 0
    }
}

impl Engine {
    /// Parses and forwards requests from `at` on, as long as each has one key and a server connection
    /// that takes it, and moves `at` behind them. Returns what was parsed of the first other one;
    /// `None` if the bytes end, or if the client may have to wait before the next.
    ///
    /// The caller has seen that one more request may be parsed.
    #[inline]
    pub(super) fn forward_run(
        &mut self,
        id: ClientId,
        bytes: &[u8],
        at: &mut usize,
    ) -> Option<Parse> {
        let client = self.clients.roster.get_mut(id)?;
        let pool = &self.pools[client.pool.index()];
        if client.is_gated && !is_planted(Canary::StrangerAdmitted) {
            return Some(client.parser.parse_noting(
                &bytes[*at..],
                &client.limits,
                &mut self.work.parts,
            ));
        }
        let (shared, plan) = (&mut self.shared, &mut self.plan);
        let noted = &mut self.work.parts;
        let rest = &bytes[*at..];
        let parser = client.parser;
        let first = client.parser.parse_noting(rest, &client.limits, noted);
        let Parse::Complete(request) = &first else {
            return Some(first);
        };
        let Route::Key(key) = request.route else {
            return Some(first);
        };
        // Nothing is answered meanwhile.
        let room = to_usize(client.room());
        let goes_alone = plan.alone > 0;
        plan.alone = plan.alone.saturating_sub(1);
        if goes_alone || to_usize(request.len) == rest.len() || room == 1 || shared.left() == 0 {
            // One alone needs no plan.
            let Some(owner) = pool.owner(key.of(rest), &mut self.rng) else {
                return Some(first);
            };
            let chosen = self
                .upstream
                .choose(pool, pool.server(owner), client, shared);
            let Some(conn) = chosen.filter(|&conn| !self.upstream.is_full(conn)) else {
                return Some(first);
            };
            let from = Sender { id, client, pool };
            let frame = &rest[..to_usize(request.len)];
            self.upstream
                .enqueue(conn, from, request, shared, |out, chunks| {
                    out.append(frame, chunks);
                });
            *at += frame.len();
            return None;
        }
        if plan.last.len() < pool.shard_count() {
            plan.last.resize(pool.shard_count(), NONE);
        }
        let (parsed, mut left) = plan.parse(rest, client, room, noted);
        let memory_left = usize::try_from(shared.left()).unwrap_or(usize::MAX);
        let planned = plan.find_owners(parsed, (bytes, *at), memory_left, pool, &mut self.rng);
        let is_taken = plan.owners.iter_mut().all(|owner| {
            let server = pool.server(owner.position);
            owner.conn = self.upstream.choose(pool, server, client, shared);
            let conn = owner.conn;
            conn.is_some_and(|conn| self.upstream.has_room(conn, plan.len))
        });
        if planned == 0 || !is_taken {
            // The first one alone finds out why, and whether it matters to the others.
            plan.clear();
            plan.alone = parsed.saturating_sub(1);
            client.parser = parser;
            return Some(client.parser.parse_noting(rest, &client.limits, noted));
        }
        if planned < parsed || plan.held_len() > memory_left {
            client.parser = RequestParser::new(pool.config.protocol);
            left = None;
        }
        let first_seq = client.order.push_many(plan.owed, &mut shared.chunks);
        for place in 0..plan.owners.len() {
            let owner = plan.owners[place];
            let conn_id = owner.conn.expect("it was just chosen");
            let conn = self.upstream.chosen_mut(conn_id);
            let origin = (id, first_seq);
            if plan.send(owner.first, bytes, origin, conn, shared)
                && pool.config.server_connections > 1
            {
                client.note_noreply(conn.server, conn.stream_end());
            }
            if !conn.is_announced(pool.config.timeout) {
                self.upstream.announce(conn_id, pool.config.timeout, shared);
            }
        }
        *at += plan.len;
        plan.clear();
        left
    }
}

/// Responses of one client that follow one another in a server's bytes.
struct Group<'a> {
    id: ClientId,
    client: &'a mut Client,
    /// Where the first one begins that has not been copied.
    start: usize,
    /// Those that have not been copied came before their turn.
    are_early: bool,
    has_output: bool,
}

impl Reader<'_> {
    /// Passes on responses from `at` on, as long as each is whole, no failure, and the whole answer to
    /// a client that waits for it, and moves `at` behind them. Returns what was measured of the first
    /// other one; `None` if nothing was.
    #[inline]
    pub(super) fn answer_run(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        shared: &mut Shared,
    ) -> Option<ResponseStep> {
        let conn = &mut *self.conn;
        // The first response on a connection may be the server's refusal: it is looked at alone.
        let is_first = conn.answered == 0;
        if is_first || conn.expired > 0 || conn.response_len > 0 || self.health.is_watched {
            return None;
        }
        let (slots, _) = conn.pipeline.as_slices();
        let written = &slots[..conn.written.min(slots.len()).min(RUN_LEN_MAX)];
        let is_whole = |slot: &Slot| matches!(slot.origin, Origin::Whole { .. });
        let whole = written.iter().position(|slot| !is_whole(slot));
        let whole = whole.unwrap_or(written.len());
        let mut lens = [0; RUN_LEN_MAX];
        let (count, left) = conn.parser.measure(&bytes[*at..], &mut lens[..whole]);
        if count > 0 {
            let waited = shared.now.since(written[0].queued_at);
            shared.gather.note_response(waited);
            let ahead = (&written[..count], &lens[..count]);
            let (done, len) = pass_on(ahead, &bytes[*at..], self.clients, shared);
            *at += len;
            conn.finish_run(&done, &mut shared.chunks);
        }
        left
    }
}

/// Gives responses in `bytes`, each with its slot and length, to their clients. Returns what that was,
/// and their bytes.
#[inline(never)]
fn pass_on(
    (ahead, lens): (&[Slot], &[u32]),
    bytes: &[u8],
    clients: &mut Clients,
    shared: &mut Shared,
) -> (Finished, usize) {
    let (mut at, mut unwanted, mut gone_len, mut index) = (0, 0, 0, 0);
    let mut group: Option<Group<'_>> = None;
    while let (Some(slot), Some(&len)) = (ahead.get(index), lens.get(index)) {
        let len = to_usize(len);
        let Origin::Whole { client: id, seq } = slot.origin else {
            unreachable!("only whole responses are measured ahead")
        };
        if group.as_ref().is_none_or(|group| group.id != id) {
            if let Some(group) = group {
                group.end(bytes, at, shared);
            }
            let Some(client) = clients.roster.get_mut(id) else {
                // Nobody's any more.
                group = None;
                at += len;
                index += 1;
                unwanted += 1;
                gone_len += len;
                continue;
            };
            group = Some(Group {
                id,
                client,
                start: at,
                are_early: false,
                has_output: false,
            });
        }
        let of_client = group.as_mut().expect("it was just made");
        if of_client.client.order.waiting_head() == Some(seq)
            && ahead.get(index + 1).is_some_and(
                |next| matches!(next.origin, Origin::Whole { client, .. } if client == id),
            )
        {
            let (in_turn, in_turn_len) =
                of_client.find_in_turn((&ahead[index..], &lens[index..]), at);
            if in_turn > 1 {
                let count = to_u32(in_turn);
                of_client.client.pop_waiting(count, &mut shared.chunks);
                of_client.has_output = true;
                at += in_turn_len;
                index += in_turn;
                continue;
            }
        }
        of_client.add(bytes, at, len, seq, shared);
        at += len;
        index += 1;
    }
    if let Some(group) = group {
        group.end(bytes, at, shared);
    }
    let done = Finished {
        slots: index,
        slots_len: ahead[..index].iter().map(Slot::len).sum(),
        unwanted,
        response_len: to_u64(at - gone_len),
    };
    (done, at)
}

impl Group<'_> {
    /// How many of the first slots are the client's next, each in its turn, with no other answer due
    /// between them, and the bytes of their responses, which are copied at once.
    #[inline(never)]
    fn find_in_turn(&self, (slots, lens): (&[Slot], &[u32]), at: usize) -> (usize, usize) {
        let (mut count, mut len) = (0, 0);
        let Some(mut seq) = self.client.order.waiting_head().filter(|_| !self.are_early) else {
            return (0, 0);
        };
        let len_max = RUN_COPY_LEN_MAX.saturating_sub(at - self.start);
        for (slot, &more) in slots.iter().zip(lens) {
            let expected = Origin::Whole {
                client: self.id,
                seq,
            };
            if slot.origin != expected || len + to_usize(more) > len_max {
                break;
            }
            len += to_usize(more);
            count += 1;
            seq = seq.wrapping_add(1);
        }
        (count, len)
    }

    /// The next response is the answer to `seq` and has `len` bytes, from `at` on.
    #[inline(always)]
    fn add(&mut self, bytes: &[u8], at: usize, len: usize, seq: u32, shared: &mut Shared) {
        self.client.note_response(to_u64(len));
        if self.client.order.is_muted(seq) {
            self.drop(bytes, at, len, seq, shared);
            return;
        }
        let is_early = !self.client.order.is_head(seq);
        if is_early != self.are_early || at + len - self.start > RUN_COPY_LEN_MAX {
            self.copy(bytes, at, shared);
            self.are_early = is_early;
        }
        if is_early {
            let behind = at - self.start;
            if !self.client.order.expect_parked(seq, behind, len) {
                self.copy(bytes, at, shared);
                let response = &bytes[at..at + len];
                self.client
                    .order
                    .respond_early(seq, response, &mut shared.chunks);
                self.start = at + len;
            }
        } else {
            self.client.order.pop_head(&mut shared.chunks);
            self.has_output = true;
            if self.client.order.is_head_answered() {
                self.copy(bytes, at + len, shared);
                self.client
                    .order
                    .release(&mut self.client.out, &mut shared.chunks);
            }
        }
    }

    /// The client wants nothing of the next response but that its turn passes.
    #[cold]
    fn drop(&mut self, bytes: &[u8], at: usize, len: usize, seq: u32, shared: &mut Shared) {
        self.copy(bytes, at, shared);
        self.start += len;
        self.has_output |= self.client.respond(seq, &[], &mut shared.chunks);
    }

    /// Copies the responses before `end` to where they belong.
    #[inline(always)]
    fn copy(&mut self, bytes: &[u8], end: usize, shared: &mut Shared) {
        let range = mem::replace(&mut self.start, end)..end;
        if range.is_empty() {
            return;
        }
        if self.are_early {
            self.client
                .order
                .park_expected(&bytes[range], &mut shared.chunks);
        } else {
            self.client.out.append(&bytes[range], &mut shared.chunks);
        }
    }

    /// No more follow; the last one ends at `end`.
    #[inline]
    fn end(mut self, bytes: &[u8], end: usize, shared: &mut Shared) {
        self.copy(bytes, end, shared);
        answered(self.id, self.client, self.has_output, shared);
    }
}
