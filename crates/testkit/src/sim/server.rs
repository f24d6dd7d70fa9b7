//! The servers: small correct stores that may be slow, sick, silent, or lie.

use twemproxy_core::config::Config;
use twemproxy_core::engine::Closed;
use twemproxy_core::proto::Protocol;

use super::client::{MemcacheFrame, RedisFrame, memcache_store, redis_store};
use super::plan::Faults;
use super::words::{memcache_writes, redis_writes};
use super::world::{Event, LinkPhase, World};
use crate::model::{memcache, redis};

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

#[derive(Debug)]
enum Store {
    Redis(redis::Store),
    Memcache(memcache::Store),
}

/// Why a client may be told an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Excuse {
    Lost(Closed),
    Lied,
    Sick,
}

/// One server.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) pool: usize,
    /// Place in its pool.
    pub(super) position: usize,
    store: Store,
    password: Option<Box<[u8]>>,
    db: u32,
    /// With the step at which it happened.
    pub(super) excuses: Vec<(u64, Excuse)>,
    /// Client requests received whole, and their bytes.
    pub(super) requests: u64,
    pub(super) request_bytes: u64,
}

/// The server's end of one connection.
#[derive(Debug)]
pub(super) struct ServerConn {
    pub(super) server: usize,
    pub(super) link: usize,
    inbox: Vec<u8>,
    /// AUTH and SELECT have come, where they must.
    handshakes: usize,
    /// Something was said here that was no true answer.
    pub(super) lied: bool,
    /// Nothing true is said here any more.
    poisoned: bool,
    /// Nothing is said here any more.
    mute: bool,
    /// The next request has been answered.
    answered_early: bool,
    /// No request is read any more.
    closing: bool,
}

impl ServerState {
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let pools = config.pools.iter().enumerate();
        pools
            .flat_map(|(index, pool)| {
                (0..pool.servers.len()).map(move |position| Self {
                    pool: index,
                    position,
                    store: match pool.protocol {
                        Protocol::Redis => Store::Redis(redis_store()),
                        Protocol::Memcache => Store::Memcache(memcache_store()),
                    },
                    password: pool.redis_auth.clone(),
                    db: pool.redis_db,
                    excuses: Vec::new(),
                    requests: 0,
                    request_bytes: 0,
                })
            })
            .collect()
    }
}

impl ServerConn {
    pub(super) const fn new(server: usize) -> Self {
        Self {
            server,
            link: 0,
            inbox: Vec::new(),
            handshakes: 0,
            lied: false,
            poisoned: false,
            mute: false,
            answered_early: false,
            closing: false,
        }
    }

    /// Whether true answers can be had here again.
    pub(super) const fn is_broken(&self) -> bool {
        self.lied && self.poisoned || self.mute || self.closing
    }
}

/// One request as a server understands it.
struct Heard {
    len: usize,
    reply: Vec<u8>,
    is_handshake: bool,
}

impl World {
    /// Bytes of the proxy reach a server.
    pub(super) fn deliver_to_server(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        let link = &mut self.links[conn.link];
        let mut len = link.down.readable(self.now).len();
        if len == 0 || conn.closing {
            link.down.took(len);
            return;
        }
        if self.dice.chance(self.plan.net.cut) {
            len = 1 + self.dice.upto(len - 1);
            self.next_delivery(at);
        }
        let conn = &mut self.conns[at];
        let link = &mut self.links[conn.link];
        conn.inbox
            .extend_from_slice(&link.down.readable(self.now)[..len]);
        link.down.took(len);
        let link = conn.link;
        self.drained(link);
        self.serve(at);
    }

    fn next_delivery(&mut self, at: usize) {
        let link = self.conns[at].link;
        self.at(self.now, Event::Deliver(link));
    }

    /// The server answers every whole request it has.
    fn serve(&mut self, at: usize) {
        let mut inbox = std::mem::take(&mut self.conns[at].inbox);
        let mut done = 0;
        while done < inbox.len() && !self.conns[at].closing {
            let rest = &inbox[done..];
            let skips = self.conns[at].answered_early;
            let Some(heard) = self.hear(at, rest, skips) else {
                self.maybe_answer_early(at, rest);
                break;
            };
            done += heard.len;
            let server = &mut self.servers[self.conns[at].server];
            if !heard.is_handshake {
                server.requests += 1;
                server.request_bytes += u64::try_from(heard.len).expect("a length");
            }
            if skips {
                self.conns[at].answered_early = false;
            } else {
                self.answer(at, heard);
            }
        }
        inbox.drain(..done);
        self.conns[at].inbox = inbox;
    }

    /// Reads and executes one request; with `skips` only reads it. `None`: it goes on.
    fn hear(&mut self, at: usize, bytes: &[u8], skips: bool) -> Option<Heard> {
        let server = self.conns[at].server;
        match self.servers[server].store {
            Store::Redis(_) => match redis::request(bytes) {
                RedisFrame::Array { words, len } => Some(self.obey_redis(at, &words, len, skips)),
                RedisFrame::Unfinished => None,
                other => panic!("the proxy sent a redis server {other:?}: {bytes:?}"),
            },
            Store::Memcache(_) => {
                for (request, reply) in [
                    (b"verbosity 1\r\n".as_slice(), b"OK\r\n".as_slice()),
                    (b"version\r\n", b"VERSION 1.6.18\r\n"),
                ] {
                    if bytes.starts_with(request) {
                        return Some(Heard {
                            len: request.len(),
                            reply: reply.to_vec(),
                            is_handshake: false,
                        });
                    }
                }
                match memcache::request(bytes) {
                    MemcacheFrame::Request {
                        words,
                        data,
                        noreply,
                        len,
                        ..
                    } => Some(self.obey_memcache(at, &words, (&data, noreply), len, skips)),
                    MemcacheFrame::Unfinished => None,
                    other => panic!("the proxy sent a memcached server {other:?}: {bytes:?}"),
                }
            }
        }
    }

    fn obey_redis(&mut self, at: usize, words: &[Vec<u8>], len: usize, skips: bool) -> Heard {
        let conn = &mut self.conns[at];
        let server = &mut self.servers[conn.server];
        let password = server.password.as_deref();
        let expected = usize::from(password.is_some()) + usize::from(server.db > 0);
        if conn.handshakes < expected {
            let wanted = if conn.handshakes == 0 && password.is_some() {
                vec![b"AUTH".to_vec(), password.unwrap_or_default().to_vec()]
            } else {
                vec![b"SELECT".to_vec(), server.db.to_string().into_bytes()]
            };
            assert_eq!(words, wanted, "AUTH, then SELECT, then requests");
            conn.handshakes += 1;
            return Heard {
                len,
                reply: b"+OK\r\n".to_vec(),
                is_handshake: true,
            };
        }
        if words[0].eq_ignore_ascii_case(b"ping") {
            return Heard {
                len,
                reply: b"+PONG\r\n".to_vec(),
                is_handshake: true,
            };
        }
        let reply = if skips || self.is_sick(at) {
            format!("{SICK_REDIS}\r\n").into_bytes()
        } else {
            self.executes(at, &redis_writes(words));
            let server = self.conns[at].server;
            match &mut self.servers[server].store {
                Store::Redis(store) => store.apply(words),
                Store::Memcache(_) => unreachable!("a redis server"),
            }
        };
        Heard {
            len,
            reply,
            is_handshake: false,
        }
    }

    fn obey_memcache(
        &mut self,
        at: usize,
        words: &[Vec<u8>],
        (data, noreply): (&[u8], bool),
        len: usize,
        skips: bool,
    ) -> Heard {
        let reply = if skips || (!noreply && self.is_sick(at)) {
            format!("{SICK_MEMCACHE}\r\n").into_bytes()
        } else {
            self.executes(at, &memcache_writes(words, data));
            let server = self.conns[at].server;
            match &mut self.servers[server].store {
                Store::Memcache(store) => store.apply(words, data, noreply),
                Store::Redis(_) => unreachable!("a memcached server"),
            }
        };
        Heard {
            len,
            reply,
            is_handshake: false,
        }
    }

    /// Counts writes: none may ever happen twice.
    fn executes(&mut self, at: usize, writes: &[u64]) {
        for &write in writes {
            let is_new = self.executed.insert(write);
            assert!(
                is_new,
                "server {} executes a write a second time",
                self.conns[at].server
            );
        }
    }

    fn is_sick(&mut self, at: usize) -> bool {
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

    fn is_open(&self, at: usize) -> bool {
        self.links[self.conns[at].link].phase == LinkPhase::Open
    }

    /// A part of a request is there: some servers have seen enough.
    fn maybe_answer_early(&mut self, at: usize, part: &[u8]) {
        let Some(faults) = self.faults_of(at) else {
            return;
        };
        let conn = &self.conns[at];
        if conn.answered_early || conn.is_broken() || conn.handshakes < self.handshakes_of(at) {
            return;
        }
        let is_redis = matches!(self.servers[conn.server].store, Store::Redis(_));
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

    fn handshakes_of(&self, at: usize) -> usize {
        let server = &self.servers[self.conns[at].server];
        usize::from(server.password.is_some()) + usize::from(server.db > 0)
    }

    /// Sends the reply to one request, or what a fault makes of it.
    fn answer(&mut self, at: usize, heard: Heard) {
        if self.conns[at].mute {
            return;
        }
        let is_redis = matches!(self.servers[self.conns[at].server].store, Store::Redis(_));
        let lie = if is_redis { LIE_REDIS } else { LIE_MEMCACHE };
        let lie = format!("{lie}\r\n").into_bytes();
        if self.conns[at].poisoned {
            self.say(at, &lie, 0);
            return;
        }
        let Some(faults) = self.faults_of(at).filter(|_| !heard.is_handshake) else {
            self.say(at, &heard.reply, 0);
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
            self.tell(|| format!("link {link}: one answer too many"));
            self.conns[at].lied = true;
            self.conns[at].poisoned = true;
            self.say(at, &lie, 0);
        }
        self.maybe_break(at, &faults);
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
            self.tell(|| format!("link {link}: the server closes in order"));
            self.conns[at].closing = true;
            let arrival = self.after_way();
            let arrival = self.links[link].up.finish(arrival);
            self.at(arrival, Event::Arrive(link));
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

    /// Bytes leave for the proxy.
    fn say(&mut self, at: usize, bytes: &[u8], late: u64) {
        if bytes.is_empty() || !self.is_open(at) {
            return;
        }
        let link = self.conns[at].link;
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut len = rest.len();
            if self.dice.chance(self.plan.net.cut) {
                len = 1 + self.dice.upto(len - 1);
            }
            let arrival = self.after_way() + late;
            let arrival = self.links[link].up.write(&rest[..len], arrival);
            self.at(arrival, Event::Arrive(link));
            rest = &rest[len..];
        }
    }
}
