//! What servers do wrong: they are slow, sick, silent or dead, break off, turn away, or lie.

use twemproxy_core::engine::Closed;
use twemproxy_core::proto::Protocol;

use super::plan::Faults;
use super::server::Heard;
use super::world::{Event, Peer, World};

/// What a redis server in trouble says.
pub(super) const SICK_REDIS: &str = "-LOADING simulated";
/// What a memcached server in trouble says.
pub(super) const SICK_MEMCACHE: &str = "SERVER_ERROR out of memory";
/// What a liar says to a redis client.
pub(super) const LIE_REDIS: &str = "+LIE";
/// What a liar says to a memcached client.
pub(super) const LIE_MEMCACHE: &str = "VERSION lie";
/// An answer that comes before the whole request.
pub(super) const EARLY_REDIS: &str = "-ERR early";
/// An answer that comes before the whole request.
pub(super) const EARLY_MEMCACHE: &str = "SERVER_ERROR early";
/// What a redis with too many connections says.
const FULL_REDIS: &str = "-ERR max number of clients reached";
/// What a memcached with too many connections says.
const FULL_MEMCACHE: &str = "ERROR Too many open connections";

/// Why a client may be told an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Excuse {
    /// A connection ended.
    Lost(Closed),
    /// A server said what was no answer.
    Lied,
    /// A server is in trouble.
    Sick,
    /// A server refused to serve, in these words.
    Refused(&'static str),
    /// A server closed, and may have said nothing but an error before.
    TurnedAway,
}

impl World {
    pub(super) fn is_sick(&mut self, at: usize) -> bool {
        let is_sick = self.faults_of(at).is_some_and(|faults| {
            let sick = faults.sick;
            self.dice.chance(sick)
        });
        if is_sick {
            self.excuse(self.conns[at].server, Excuse::Sick);
        }
        is_sick
    }

    /// What may go wrong on a connection now.
    fn faults_of(&self, at: usize) -> Option<Faults> {
        (self.is_stormy && !self.plan.calm && self.is_open(at)).then(|| self.plan.faults.clone())
    }

    fn is_redis_server(&self, at: usize) -> bool {
        let pool = self.servers[self.conns[at].server].pool;
        self.plan.config.pools[pool].protocol == Protocol::Redis
    }

    /// A server may want another password, or have no such database.
    pub(super) fn refuse(&mut self, at: usize, is_auth: bool) -> Option<&'static str> {
        let faults = self.faults_of(at)?;
        if !self.dice.chance(faults.refuse_auth) {
            return None;
        }
        let refusal = if is_auth {
            self.dice.pick(&[
                "-WRONGPASS invalid username-password pair or user is disabled.",
                "-ERR invalid password",
                SICK_REDIS,
            ])
        } else {
            "-ERR DB index is out of range"
        };
        let conn = &mut self.conns[at];
        conn.refusal = Some(refusal);
        let link = conn.link;
        self.tell(|| format!("link {link}: refuses with {refusal}"));
        Some(refusal)
    }

    /// A server that has too many connections says so and closes.
    pub(super) fn maybe_turn_away(&mut self, link: usize) {
        let Peer::Server(at) = self.links[link].peer else {
            return;
        };
        let Some(faults) = self.faults_of(at) else {
            return;
        };
        if !self.dice.chance(faults.full) {
            return;
        }
        self.tell(|| format!("link {link}: the server is full"));
        let text = if self.is_redis_server(at) {
            FULL_REDIS
        } else {
            FULL_MEMCACHE
        };
        self.conns[at].refusal = Some(text);
        self.say(at, format!("{text}\r\n").as_bytes(), 0);
        self.close_in_order(at);
    }

    /// A part of a request is there: some servers have seen enough.
    pub(super) fn maybe_answer_early(&mut self, at: usize, part: &[u8]) {
        let Some(faults) = self.faults_of(at) else {
            return;
        };
        let conn = &self.conns[at];
        if conn.answered_early || conn.is_broken() || conn.handshakes < self.handshakes_of(at) {
            return;
        }
        let is_redis = self.is_redis_server(at);
        // The answer must be owed: a noreply request shows only in the end of its line.
        if !is_redis && !part.starts_with(b"get ") {
            return;
        }
        if !self.dice.chance(faults.early) {
            return;
        }
        let text = if is_redis {
            EARLY_REDIS
        } else {
            EARLY_MEMCACHE
        };
        let conn = &mut self.conns[at];
        conn.answered_early = true;
        conn.lied = true;
        let link = conn.link;
        self.tell(|| format!("link {link}: an early answer"));
        self.say(at, format!("{text}\r\n").as_bytes(), 0);
    }

    /// Sends the reply to one request, or what a fault makes of it.
    pub(super) fn answer(&mut self, at: usize, heard: Heard) {
        if self.conns[at].mute {
            return;
        }
        let is_redis = self.is_redis_server(at);
        let lie = if is_redis { LIE_REDIS } else { LIE_MEMCACHE };
        if self.conns[at].stray_end.is_some() {
            self.say(at, &[lie.as_bytes(), b"\r\n"].concat(), 0);
            return;
        }
        let Some(faults) = self.faults_of(at).filter(|_| !heard.is_handshake) else {
            self.say(at, &heard.reply, 0);
            self.note_greeting(at);
            let faults = self.faults_of(at).unwrap_or_default();
            // Requests wait behind a greeting: what follows it is none of their answers.
            if self.conns[at].greeting_end > 0 && self.dice.chance(10 * faults.extra) {
                self.say_too_much(at);
            }
            return;
        };
        let link = self.conns[at].link;
        if self.dice.chance(faults.garbage) {
            self.tell(|| format!("link {link}: garbage"));
            self.conns[at].lied = true;
            self.conns[at].mute = true;
            let garbage = self.dice.pick(&[
                b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
                b"\0\0\0\0",
                b"$-7\r\n",
                b"VALUE x y z\r\n",
            ]);
            self.say(at, garbage, 0);
            return;
        }
        if self.dice.chance(faults.mute) {
            self.tell(|| format!("link {link}: silence"));
            self.conns[at].mute = true;
            return;
        }
        if heard.reply.len() > 1 && self.dice.chance(faults.half) {
            self.break_off(at, &heard.reply);
            return;
        }
        let late = if self.dice.chance(faults.slow) {
            let pool = self.servers[self.conns[at].server].pool;
            let timeout = self.plan.config.pools[pool].timeout;
            let longest = timeout.map_or(100_000, |timeout| 3 * timeout.0);
            self.dice.micros(longest)
        } else {
            0
        };
        self.say(at, &heard.reply, late);
        if self.dice.chance(faults.extra) {
            self.say_too_much(at);
        }
        self.maybe_break(at, &faults);
    }

    /// One answer more than there were requests; what follows it can only be lies.
    fn say_too_much(&mut self, at: usize) {
        let link = self.conns[at].link;
        self.tell(|| format!("link {link}: one answer too many"));
        let lie = if self.is_redis_server(at) {
            LIE_REDIS
        } else {
            LIE_MEMCACHE
        };
        self.conns[at].lied = true;
        self.say(at, &[lie.as_bytes(), b"\r\n"].concat(), 0);
        let said = self.links[link].up.written();
        self.conns[at].stray_end = Some(said);
    }

    /// With the last answer to AUTH or SELECT the connection is of use.
    fn note_greeting(&mut self, at: usize) {
        let said = self.links[self.conns[at].link].up.written();
        let is_last = self.conns[at].handshakes == self.handshakes_of(at);
        let conn = &mut self.conns[at];
        if is_last && conn.greeting_end == 0 {
            conn.greeting_end = said;
        }
    }

    /// The connection itself may come to harm.
    fn maybe_break(&mut self, at: usize, faults: &Faults) {
        let link = self.conns[at].link;
        if self.dice.chance(faults.reset) {
            self.conns[at].closing = true;
            let reason = self.dice.pick(&[2, 4, 14]);
            let arrival = self.after_way();
            self.at(arrival, Event::Lost(link, reason));
        } else if self.dice.chance(faults.eof) {
            self.close_in_order(at);
        } else if self.dice.chance(faults.outage) {
            self.die(at);
        } else if self.dice.chance(faults.stall) {
            let until = self.now + self.dice.micros(1_500_000);
            let is_up = self.dice.chance(500);
            self.tell(|| format!("link {link}: stands still (up: {is_up}) until {until}"));
            let pipe = &mut self.links[link];
            if is_up {
                pipe.up.stall(until);
                self.at(until, Event::Arrive(link));
            } else {
                pipe.down.stall(until);
                self.at(until, Event::Deliver(link));
            }
        }
    }

    fn close_in_order(&mut self, at: usize) {
        let link = self.conns[at].link;
        self.tell(|| format!("link {link}: the server closes in order"));
        self.conns[at].closing = true;
        let arrival = self.after_way();
        let arrival = self.links[link].up.finish(arrival);
        self.at(arrival, Event::Arrive(link));
    }

    /// Only a part of a response leaves before the connection ends.
    fn break_off(&mut self, at: usize, reply: &[u8]) {
        let link = self.conns[at].link;
        let len = 1 + self.dice.upto(reply.len() - 2);
        self.tell(|| format!("link {link}: {len} of {} bytes, and the end", reply.len()));
        self.say(at, &reply[..len], 0);
        if self.dice.chance(500) {
            self.close_in_order(at);
            return;
        }
        self.conns[at].closing = true;
        let arrival = self.now + 1 + self.dice.micros(2 * self.plan.net.delay);
        self.at(arrival, Event::Lost(link, 2));
    }

    /// A server is gone for a while, with all its connections.
    fn die(&mut self, at: usize) {
        let server = self.conns[at].server;
        let until = self.now + self.dice.micros(3_000_000);
        self.tell(|| format!("server {server} is dead until {until}"));
        self.servers[server].dead_until = until;
        for conn in 0..self.conns.len() {
            if self.conns[conn].server == server && self.is_open(conn) {
                self.conns[conn].closing = true;
                let link = self.conns[conn].link;
                let arrival = self.after_way();
                self.at(arrival, Event::Lost(link, 2));
            }
        }
    }

    /// Whether the proxy has read an answer too many on a connection on which it had sent nothing that
    /// was not answered.
    pub(super) fn holds_stray(&self, at: usize) -> bool {
        let conn = &self.conns[at];
        let link = &self.links[conn.link];
        !conn.mute
            && conn.stray_end.is_some_and(|end| link.up.taken() >= end)
            && link.down.written() == conn.heard()
            && link.up.is_empty()
    }
}
