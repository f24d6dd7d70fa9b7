//! What clients do: come, ask, misbehave, read, judge, go.

use twemproxy_core::engine::Closed;
use twemproxy_core::ids::{ConnId, PoolIdx};
use twemproxy_core::time::Micros;

use super::client::{Client, Expect, Phase, Place, Shape};
use super::words::holds_foreign_tag;
use super::world::{Event, Peer, World};
use crate::model::Measure;

/// What a client does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Ask,
    Vanish,
    HalfClose,
    Quit,
    Rubbish,
}

/// Said to a client whose unfinished request is given up for want of memory.
const LAST_WORDS: [&[u8]; 2] = [
    b"-ERR out of memory reading request\r\n",
    b"SERVER_ERROR out of memory reading request\r\n",
];

impl World {
    /// Somebody connects to a pool.
    pub(super) fn spawn(&mut self, pool: usize) {
        let config = &self.plan.config.pools[pool];
        let limit = config.client_connections;
        let needs_auth = config.redis_auth.is_some();
        let pool_idx = PoolIdx(u32::try_from(pool).expect("few pools"));
        let worker = self.dice.upto(self.workers.len() - 1);
        let now = Micros(self.now);
        let id = match self.busy(worker).handle_accept(pool_idx, now) {
            Ok(id) => id,
            Err(refused) => {
                let live = self.live_clients(pool);
                assert!(
                    limit > 0 && live >= limit,
                    "refused with {live} of {limit} clients: {refused:?}"
                );
                if self.budget > 0 {
                    self.at(self.now + 10_000, Event::Spawn(pool));
                }
                return;
            }
        };
        let number = self.clients.len();
        let link = self.new_link(worker, ConnId::Client(id), Peer::Client(number));
        let place = Place {
            pool,
            link,
            config: &self.plan.config.pools[pool],
            servers: self.pools[pool].servers(),
            large: self.plan.manners.gorge,
        };
        let mut client = Client::new(number, place);
        client.trusts_silence = self.plan.calm;
        let may_be_silent = !client.is_redis() && !self.is_last;
        client.silent = may_be_silent && self.dice.chance(self.plan.manners.silent);
        self.clients.push(client);
        self.tell(|| format!("client {number}: comes to pool {pool} on link {link}"));
        if needs_auth {
            self.introduce(number);
        }
        self.at(self.now, Event::Think(number));
    }

    /// The client gives its password; a stranger asks before, and is refused.
    fn introduce(&mut self, at: usize) {
        let mut bytes = Vec::new();
        if self.dice.chance(self.plan.manners.stranger) {
            for _ in 0..=self.dice.upto(2) {
                let is_wrong = self.dice.chance(500);
                let (request, reply): (&[u8], &[u8]) = if is_wrong {
                    let refusal = self.clients[at].auth_refusal();
                    (b"*2\r\n$4\r\nAUTH\r\n$2\r\npW\r\n", refusal)
                } else {
                    (
                        self.dice
                            .pick(&[b"get s1\r\n".as_slice(), b"*2\r\n$3\r\nGET\r\n$2\r\ns1\r\n"]),
                        b"-NOAUTH Authentication required.\r\n",
                    )
                };
                bytes.extend_from_slice(request);
                self.expect(at, Expect::exact(reply), bytes.len());
            }
        }
        bytes.extend_from_slice(b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n");
        self.expect(at, Expect::exact(b"+OK\r\n"), bytes.len());
        self.send(at, &bytes);
    }

    /// A client may ask.
    pub(super) fn think(&mut self, at: usize) {
        if self.clients[at].phase != Phase::Open {
            return;
        }
        let mut bytes = Vec::new();
        let depth = self.plan.manners.depth;
        let burst = 1 + self.dice.upto(depth - 1);
        for _ in 0..burst {
            if self.budget == 0 {
                break;
            }
            if self.clients[at].expects.len() >= depth {
                self.clients[at].waits = true;
                break;
            }
            self.budget -= 1;
            let act = self.next_act();
            if !self.perform_act(at, act, &mut bytes) {
                return;
            }
        }
        self.send(at, &bytes);
        if !self.clients[at].waits && self.budget > 0 {
            let next = self.now + 1 + self.dice.micros(self.plan.manners.think);
            self.at(next, Event::Think(at));
        }
    }

    fn next_act(&mut self) -> Act {
        let manners = &self.plan.manners;
        let odds = [
            (manners.vanish, Act::Vanish),
            (manners.half_close, Act::HalfClose),
            (manners.quit, Act::Quit),
            (manners.rubbish, Act::Rubbish),
        ];
        for (chance, act) in odds {
            if self.dice.chance(chance) {
                return act;
            }
        }
        Act::Ask
    }

    /// Returns whether the client goes on asking.
    fn perform_act(&mut self, at: usize, act: Act, bytes: &mut Vec<u8>) -> bool {
        let is_redis = self.clients[at].is_redis();
        match act {
            Act::Ask => {
                self.ask(at, bytes);
                true
            }
            Act::Vanish => {
                let why = self.dice.pick(&[Closed::Reset, Closed::Eof]);
                self.send(at, bytes);
                self.leave(at);
                self.lose(self.clients[at].link, why);
                false
            }
            Act::HalfClose => {
                self.send(at, bytes);
                self.half_close(at);
                false
            }
            Act::Quit => {
                bytes.extend_from_slice(b"quit\r\n");
                if is_redis {
                    self.expect(at, Expect::exact(b"+OK\r\n"), bytes.len());
                }
                self.send(at, bytes);
                self.clients[at].phase = Phase::Closing;
                false
            }
            Act::Rubbish => {
                let is_fatal = self.dice.chance(200);
                match (is_redis, is_fatal) {
                    (true, false) => bytes.extend_from_slice(b"*2\r\n$6\r\nNOSUCH\r\n$1\r\nx\r\n"),
                    (true, true) => bytes.extend_from_slice(b"*2\r\n!x\r\n"),
                    (false, false) => bytes.extend_from_slice(b"nosuch x\r\n"),
                    (false, true) => bytes.extend(std::iter::repeat_n(b'x', 3_000)),
                }
                self.expect(at, Expect::refused(), bytes.len());
                if is_fatal {
                    bytes.extend_from_slice(b"\r\nget s1\r\n");
                    self.send(at, bytes);
                    self.clients[at].phase = Phase::Closing;
                }
                !is_fatal
            }
        }
    }

    /// One more request.
    pub(super) fn ask(&mut self, at: usize, bytes: &mut Vec<u8>) {
        let before = bytes.len();
        let client = &mut self.clients[at];
        let may_wipe = !client.is_redis() && client.allow_flush && self.is_stormy;
        if may_wipe && self.dice.chance(self.plan.manners.wipe) {
            self.pools[client.pool].is_uncertain = true;
            bytes.extend_from_slice(b"flush_all\r\n");
            let mut expect = Expect::exact(b"OK\r\n");
            expect.shape = Shape::Lines(&["OK"]);
            self.expect(at, expect, bytes.len());
            return;
        }
        let limit = self.plan.config.pools[client.pool].request_size_limit;
        let expect = client.ask(&mut self.dice, &self.plan.manners, bytes);
        let Some(mut expect) = expect else {
            return;
        };
        let is_too_long = u32::try_from(bytes.len() - before).is_ok_and(|len| len > limit);
        if is_too_long {
            client.taint(&expect);
            expect = Expect::refused();
        }
        self.expect(at, expect, bytes.len());
    }

    /// A request is under way whose last byte is the last of `pending` that are yet to be sent.
    fn expect(&mut self, at: usize, mut expect: Expect, pending: usize) {
        expect.step = self.step;
        expect.at = self.now;
        let written = self.links[self.clients[at].link].up.written();
        expect.end = written + u64::try_from(pending).expect("a length");
        self.clients[at].expects.push_back(expect);
        self.owed += 1;
    }

    /// Bytes leave for the proxy, in one piece or several.
    pub(super) fn send(&mut self, at: usize, mut bytes: &[u8]) {
        let link = self.clients[at].link;
        while !bytes.is_empty() {
            let mut len = bytes.len();
            if self.dice.chance(self.plan.net.cut) {
                len = 1 + self.dice.upto(len - 1);
            }
            let arrival = self.after_way();
            let arrival = self.links[link].up.write(&bytes[..len], arrival);
            self.at(arrival, Event::Arrive(link));
            bytes = &bytes[len..];
        }
    }

    /// The client will say no more.
    fn half_close(&mut self, at: usize) {
        self.tell(|| format!("client {at}: half-closes"));
        self.clients[at].phase = Phase::Closing;
        let link = self.clients[at].link;
        let arrival = self.after_way();
        let arrival = self.links[link].up.finish(arrival);
        self.at(arrival, Event::Arrive(link));
    }

    /// The client is gone; somebody else may come.
    fn leave(&mut self, at: usize) {
        self.tell(|| format!("client {at}: is gone"));
        let client = &mut self.clients[at];
        client.phase = Phase::Gone;
        self.owed -= client.expects.len();
        client.expects.clear();
        client.inbox = Vec::new();
        if self.budget > 0 {
            let pool = self.dice.upto(self.pools.len() - 1);
            let arrival = self.after_way();
            self.at(arrival, Event::Spawn(pool));
        }
    }

    /// Bytes of the proxy reach a client.
    pub(super) fn deliver_to_client(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.phase == Phase::Gone {
            return;
        }
        let link = client.link;
        if self.now < client.next_read {
            if !client.read_planned {
                client.read_planned = true;
                let next = client.next_read;
                self.at(next, Event::Deliver(link));
            }
            return;
        }
        client.read_planned = false;
        let readable = self.links[link].down.readable(self.now);
        let len = readable.len().min(self.plan.manners.read_len);
        client.inbox.extend_from_slice(&readable[..len]);
        self.links[link].down.took(len);
        if len > 0 {
            self.judge(at);
            self.drained(link);
        }
        if self.links[link].down.is_finished(self.now) {
            self.closed_on(at);
            return;
        }
        let pause = self.dice.micros(self.plan.manners.read_pause);
        if pause > 0 {
            self.clients[at].next_read = self.now + pause;
        }
        if !self.links[link].down.readable(self.now).is_empty() {
            self.clients[at].read_planned = true;
            let next = self.clients[at].next_read;
            self.at(next, Event::Deliver(link));
        }
        let client = &mut self.clients[at];
        if client.waits && client.expects.len() <= self.plan.manners.depth / 2 {
            client.waits = false;
            self.at(self.now, Event::Think(at));
        }
    }

    /// Every whole reply must be the right one.
    fn judge(&mut self, at: usize) {
        let mut inbox = std::mem::take(&mut self.clients[at].inbox);
        let mut done = 0;
        while done < inbox.len() {
            let rest = &inbox[done..];
            let client = &mut self.clients[at];
            let Some(expect) = client.expects.front() else {
                // The error for an unfinished request that was to have no reply ends the connection.
                if client.doomed && LAST_WORDS.iter().any(|words| words.starts_with(rest)) {
                    if rest.ends_with(b"\r\n") {
                        done = inbox.len();
                    }
                    break;
                }
                panic!("client {at} is told what it never asked: {}", shown(rest));
            };
            let len = if !expect.reply.is_empty() && rest.starts_with(&expect.reply) {
                expect.reply.len()
            } else {
                match client.measure(rest) {
                    Measure::Done(len) => len,
                    Measure::More => break,
                    Measure::Broken => panic!("client {at} is told nonsense: {}", shown(rest)),
                }
            };
            let expect = client.expects.pop_front().expect("just looked");
            self.owed -= 1;
            self.judge_reply(at, &expect, &rest[..len]);
            self.answered += 1;
            done += len;
        }
        inbox.drain(..done);
        self.clients[at].inbox = inbox;
    }

    fn judge_reply(&mut self, at: usize, expect: &Expect, reply: &[u8]) {
        let client = &self.clients[at];
        let is_uncertain = client.is_uncertain(expect)
            || self.pools[client.pool].is_uncertain
            || self.may_be_repeated(at, expect);
        let is_models = client.is_models(expect, reply);
        let may_miss = || self.may_miss(client.pool, expect);
        let is_right = is_models
            || may_miss() && client.is_models_with_misses(expect, reply)
            || matches!(expect.shape, Shape::Refused) && client.is_plausible(expect, reply)
            || is_uncertain && client.is_plausible(expect, reply);
        if is_right {
            let is_done = expect
                .writes
                .iter()
                .all(|write| self.executed.contains(write));
            if !is_done {
                assert!(
                    self.was_lied_to(at, expect) || self.may_be_missed_write(at, expect, reply),
                    "client {at} is told of a write that never happened: {expect:?}"
                );
                self.clients[at].taint(expect);
            }
            if expect.has_versions && is_models && !is_uncertain {
                self.clients[at].learn_versions(expect, reply);
            }
            return;
        }
        assert!(
            self.is_excused(at, expect, reply),
            "client {at} is told {}, should be {}; {:?}, sent at step {}, {}",
            shown(reply),
            shown(&expect.reply),
            expect.shape,
            expect.step,
            expect.at,
        );
        self.clients[at].taint(expect);
    }

    /// The proxy has closed, and everything it sent has been read.
    fn closed_on(&mut self, at: usize) {
        let client = &self.clients[at];
        let is_owed = !client.expects.is_empty();
        assert!(
            !holds_foreign_tag(&client.prefix, &client.inbox) || client.expects.is_empty(),
            "client {at} holds a part of somebody else's reply: {}",
            shown(&client.inbox)
        );
        let link = &self.links[client.link];
        // Requests may have been under way to a client that had been idle for too long.
        let none_was_read = || {
            let taken = link.up.taken();
            client.expects.iter().all(|expect| expect.end > taken) && client.inbox.is_empty()
        };
        let is_idled = client.idled && none_was_read();
        if !is_idled && (client.phase == Phase::Open || is_owed) {
            let may_break = !self.plan.calm && !self.is_strict && !client.inbox.is_empty();
            assert!(
                client.doomed && (self.plan.tight || may_break),
                "client {at} is closed for nothing ({:?}), with {} replies owed",
                client.phase,
                client.expects.len()
            );
        }
        self.leave(at);
    }

    /// Everybody who is still there asks for the last time, and must be served.
    pub(super) fn ask_once_more(&mut self) {
        self.tell(|| "the last questions".into());
        self.is_strict = true;
        self.is_last = true;
        for pool in 0..self.pools.len() {
            self.spawn(pool);
        }
        self.plan.manners.value = 100;
        for at in 0..self.clients.len() {
            if self.clients[at].phase != Phase::Open {
                continue;
            }
            self.clients[at].silent = false;
            let mut bytes = Vec::new();
            for _ in 0..4 {
                self.ask(at, &mut bytes);
            }
            self.send(at, &bytes);
        }
    }

    /// Everybody goes, or is sent away.
    pub(super) fn part(&mut self) {
        if self.plan.drain {
            self.tell(|| "the engine drains".into());
            for client in &mut self.clients {
                if client.phase == Phase::Open {
                    client.phase = Phase::Closing;
                }
            }
            for at in 0..self.workers.len() {
                let now = Micros(self.now);
                self.busy(at).start_drain(now);
            }
            self.settle();
            return;
        }
        for at in 0..self.clients.len() {
            if self.clients[at].phase != Phase::Open {
                continue;
            }
            if self.dice.chance(500) {
                self.half_close(at);
            } else {
                self.leave(at);
                self.lose(self.clients[at].link, Closed::Eof);
            }
        }
        self.settle();
    }
}

/// Bytes for people, not too many.
fn shown(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(200)].escape_ascii();
    let more = if bytes.len() > 200 { "..." } else { "" };
    format!("\"{text}\"{more} ({} bytes)", bytes.len())
}
