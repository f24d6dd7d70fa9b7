//! The servers: small correct stores. What they do wrong is in `mischief`.

use twemproxy_core::proto::Protocol;

use super::client::{memcache_store, redis_store};
use super::mischief::{Excuse, SICK_MEMCACHE, SICK_REDIS};
use super::plan::Plan;
use super::words::{flush_write, memcache_writes, redis_writes};
use super::world::{Event, Link, LinkPhase, World};
use crate::model::memcache::{self, Frame as MemcacheFrame};
use crate::model::redis::{self, Frame as RedisFrame};

#[derive(Debug)]
enum Store {
    Redis(redis::Store),
    Memcache(memcache::Store),
}

/// One server.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) pool: usize,
    /// Place in its pool.
    pub(super) position: usize,
    store: Store,
    password: Option<Box<[u8]>>,
    /// It wants no password, and says so.
    is_open: bool,
    db: u32,
    /// The engine said that it took the server off the ring, and has not put it back.
    pub(super) is_ejected: bool,
    /// It takes no connection before.
    pub(super) dead_until: u64,
    /// With the step at which it happened.
    pub(super) excuses: Vec<(u64, Excuse)>,
    /// What those who waited for a connection were told, and how long others may be told the same.
    pub(super) last_words: Vec<(u64, Excuse)>,
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
    /// Bytes of the requests that have come whole.
    heard: u64,
    /// AUTH and SELECT have come, where they must.
    pub(super) handshakes: usize,
    /// Where the answers to them end in the stream to the proxy.
    pub(super) greeting_end: u64,
    /// Opened to ask an ejected server whether it is well.
    pub(super) is_probe: bool,
    /// Something was said here that was no true answer.
    pub(super) lied: bool,
    /// Why nobody is served here, as the server said.
    pub(super) refusal: Option<&'static str>,
    /// Nothing true is said here any more: where in the stream to the proxy the first answer too many
    /// ends.
    pub(super) stray_end: Option<u64>,
    /// Nothing is said here any more.
    pub(super) mute: bool,
    /// The next request has been answered.
    pub(super) answered_early: bool,
    /// No request is read any more.
    pub(super) closing: bool,
}

impl ServerState {
    pub(super) fn all(plan: &Plan) -> Vec<Self> {
        let pools = plan.config.pools.iter().enumerate();
        let large = plan.manners.gorge;
        pools
            .flat_map(|(index, pool)| {
                (0..pool.servers.len()).map(move |position| Self {
                    pool: index,
                    position,
                    store: match pool.protocol {
                        Protocol::Redis => Store::Redis(redis_store(large)),
                        Protocol::Memcache => Store::Memcache(memcache_store(large)),
                    },
                    password: pool.redis_auth.clone(),
                    is_open: plan.open_servers,
                    db: pool.redis_db,
                    is_ejected: false,
                    dead_until: 0,
                    excuses: Vec::new(),
                    last_words: Vec::new(),
                    requests: 0,
                    request_bytes: 0,
                })
            })
            .collect()
    }
}

impl ServerConn {
    pub(super) const fn new(server: usize, is_probe: bool) -> Self {
        Self {
            server,
            is_probe,
            link: 0,
            inbox: Vec::new(),
            heard: 0,
            handshakes: 0,
            greeting_end: 0,
            lied: false,
            refusal: None,
            stray_end: None,
            mute: false,
            answered_early: false,
            closing: false,
        }
    }

    /// Bytes of the requests that have come whole.
    pub(super) const fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether the proxy has read the answers to AUTH and SELECT.
    pub(super) const fn is_greeted(&self, link: &Link) -> bool {
        self.greeting_end > 0 && link.up.taken() >= self.greeting_end
    }

    /// Whether true answers can be had here no more.
    pub(super) const fn is_broken(&self) -> bool {
        self.stray_end.is_some() || self.mute || self.closing || self.refusal.is_some()
    }
}

/// One request as a server understands it.
pub(super) struct Heard {
    len: usize,
    pub(super) reply: Vec<u8>,
    pub(super) is_handshake: bool,
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
        let conn = &mut self.conns[at];
        conn.inbox = inbox;
        conn.heard += u64::try_from(done).expect("a length");
    }

    /// Reads and executes one request; with `skips` only reads it. `None`: it goes on.
    fn hear(&mut self, at: usize, bytes: &[u8], skips: bool) -> Option<Heard> {
        let server = self.conns[at].server;
        match self.servers[server].store {
            Store::Redis(_) => match redis_request(bytes) {
                RedisFrame::Array { words, len } => Some(self.obey_redis(at, &words, len, skips)),
                RedisFrame::Unfinished => None,
                other => panic!("the proxy sent a redis server {other:?}: {bytes:?}"),
            },
            Store::Memcache(_) => {
                if let Some(heard) = self.obey_flush(at, bytes) {
                    return heard;
                }
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
        if self.conns[at].handshakes < self.handshakes_of(at) {
            let reply = self.greet(at, words);
            return Heard {
                len,
                reply: format!("{reply}\r\n").into_bytes(),
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
        let refusal = self.conns[at].refusal;
        assert_eq!(refusal, None, "who was refused asks nothing but a probe");
        let reply = if skips || self.is_sick(at) {
            [SICK_REDIS.as_bytes(), b"\r\n"].concat()
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

    /// AUTH and SELECT come first, in this order.
    fn greet(&mut self, at: usize, words: &[Vec<u8>]) -> &'static str {
        let conn = &mut self.conns[at];
        let server = &self.servers[conn.server];
        let is_auth = conn.handshakes == 0 && server.password.is_some();
        let wanted = match &server.password {
            Some(password) if is_auth => vec![b"AUTH".to_vec(), password.to_vec()],
            _ => vec![b"SELECT".to_vec(), server.db.to_string().into_bytes()],
        };
        assert_eq!(words, wanted, "AUTH, then SELECT, then requests");
        conn.handshakes += 1;
        if let Some(refusal) = conn.refusal {
            return refusal;
        }
        let is_open = server.is_open;
        if let Some(refusal) = self.refuse(at, is_auth) {
            return refusal;
        }
        if is_auth && is_open {
            // In the words of old servers and of new ones.
            return self.dice.pick(&[
                "-ERR Client sent AUTH, but no password is set",
                "-ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ]);
        }
        "+OK"
    }

    /// A flush is for every server. With a delay nothing happens before the world ends; the delay
    /// names the request.
    fn obey_flush(&mut self, at: usize, bytes: &[u8]) -> Option<Option<Heard>> {
        if !bytes.starts_with(b"flush_all") {
            return None;
        }
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
            return Some(None);
        };
        let mut words: Vec<_> = bytes[..end].split(|&byte| byte == b' ').collect();
        let noreply = words.pop_if(|word| *word == b"noreply").is_some();
        let server = self.conns[at].server;
        match words[1..] {
            [] => self.servers[server].store = Store::Memcache(memcache::Store::default()),
            [delay] => self.executes(at, &[flush_write(server, delay)]),
            _ => panic!("no flush: {}", bytes[..end].escape_ascii()),
        }
        Some(Some(Heard {
            len: end + 2,
            reply: if noreply {
                Vec::new()
            } else {
                b"OK\r\n".to_vec()
            },
            is_handshake: false,
        }))
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
            [SICK_MEMCACHE.as_bytes(), b"\r\n"].concat()
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

    pub(super) fn is_open(&self, at: usize) -> bool {
        self.links[self.conns[at].link].phase == LinkPhase::Open
    }

    pub(super) fn handshakes_of(&self, at: usize) -> usize {
        let server = &self.servers[self.conns[at].server];
        usize::from(server.password.is_some()) + usize::from(server.db > 0)
    }

    /// Bytes leave for the proxy.
    pub(super) fn say(&mut self, at: usize, bytes: &[u8], late: u64) {
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

/// Reads a request in the one form in which the proxy sends all of them; the model, which is slow,
/// judges the others.
fn redis_request(bytes: &[u8]) -> RedisFrame {
    plain_request(bytes).unwrap_or_else(|| redis::request(bytes))
}

fn plain_request(bytes: &[u8]) -> Option<RedisFrame> {
    let mut at = 0;
    let count = header(bytes, b'*', &mut at)?;
    let mut words = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let len = header(bytes, b'$', &mut at)?;
        let word = bytes.get(at..at + len)?;
        if bytes.get(at + len..at + len + 2)? != b"\r\n" {
            return None;
        }
        words.push(word.to_vec());
        at += len + 2;
    }
    (count > 0).then_some(RedisFrame::Array { words, len: at })
}

/// A header line of up to 7 digits without leading zeros.
fn header(bytes: &[u8], kind: u8, at: &mut usize) -> Option<usize> {
    let (&first, rest) = bytes.get(*at..)?.split_first()?;
    let digits = rest.iter().take(8).take_while(|byte| byte.is_ascii_digit());
    let len = digits.count();
    let is_canonical = len == 1 || rest.first() != Some(&b'0');
    let is_plain = first == kind && (1..8).contains(&len) && is_canonical;
    if !is_plain || rest.get(len..len + 2)? != b"\r\n" {
        return None;
    }
    *at += 1 + len + 2;
    let digits = rest[..len].iter().map(|digit| usize::from(digit - b'0'));
    Some(digits.fold(0, |number, digit| number * 10 + digit))
}
