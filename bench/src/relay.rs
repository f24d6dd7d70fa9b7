//! The bare relay: what the sockets alone cost, and so the floor under every proxy.
//!
//! It waits and reads as the proxy's worker does (each socket registered once, everything ready is read, servers
//! before clients, one write per connection and tick, the same scratch buffer) but knows nothing of what it carries:
//! all requests have one length, all replies another, a counter chooses the server, and replies go back in the order
//! of the requests. What a proxy costs beyond this is its own code.
//!
//! Invariants:
//! 1. a server's `owed` names the request of each reply that is to come, in order;
//! 2. each reply has its place in the client's `out` from the number of its request, so that it is copied once, straight
//!    to where it leaves from, however the servers interleave; only what lies before `ready` may leave.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, mem};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::failure::{During, Failure, Outcome};
use crate::net::{Addr, Listener, Stream};
use crate::num;

/// What the relay is told.
#[derive(Debug)]
pub(crate) struct Relay {
    /// A configuration file as `load run` writes it; only addresses are read.
    pub(crate) conf: PathBuf,
    pub(crate) request_len: usize,
    pub(crate) reply_len: usize,
}

/// Relays until it is killed.
pub(crate) fn relay(relay: &Relay) -> Outcome<()> {
    let text =
        fs::read_to_string(&relay.conf).during(|| format!("reading {}", relay.conf.display()))?;
    let (listen, servers) = addresses(&text)?;
    if relay.request_len == 0 || relay.reply_len == 0 || servers.is_empty() {
        return Err(Failure::new("a relay needs servers and lengths above 0"));
    }
    let mut bed = Bed::new(relay, &listen, &servers)?;
    loop {
        bed.tick()?;
    }
}

/// The listen address and those of the servers.
fn addresses(conf: &str) -> Outcome<(Addr, Vec<Addr>)> {
    let mut listen = None;
    let mut servers = Vec::new();
    for line in conf.lines().map(str::trim) {
        if let Some(addr) = line.strip_prefix("listen: ") {
            listen = Some(Addr::parse(addr)?);
        } else if let Some(server) = line.strip_prefix("- ") {
            let addr = server
                .split(' ')
                .next()
                .and_then(|word| word.rsplit_once(':'));
            let (addr, _weight) = addr.ok_or_else(|| Failure::new(format!("no server: {line}")))?;
            servers.push(Addr::parse(addr)?);
        }
    }
    let listen = listen.ok_or_else(|| Failure::new("the configuration has no listen address"))?;
    Ok((listen, servers))
}

/// A socket with what waits to leave it and the unfinished frame that came in.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    out: Vec<u8>,
    /// Of `out`, what has left and what may leave.
    sent: usize,
    ready: usize,
    is_dirty: bool,
    is_blocked: bool,
    is_ready: bool,
}

#[derive(Debug)]
struct ServerEnd {
    wire: Wire,
    /// (client, number of the request) of each reply to come.
    owed: VecDeque<(usize, u64)>,
    /// Bytes of the reply in front that have come.
    received: usize,
}

#[derive(Debug)]
struct ClientEnd {
    wire: Wire,
    /// An unfinished request.
    tail: Vec<u8>,
    /// Number of the request whose reply is not yet ready to leave, and of the one that comes next.
    first: u64,
    next: u64,
    /// Whether each reply from `first` on is whole.
    whole: VecDeque<bool>,
}

struct Bed {
    poll: Poll,
    events: Events,
    listener: Listener,
    servers: Vec<ServerEnd>,
    /// A client that went away leaves a hole, which replies to it fall into.
    clients: Vec<Option<ClientEnd>>,
    ready: VecDeque<usize>,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    request_len: usize,
    reply_len: usize,
    turn: usize,
}

impl Wire {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            out: Vec::new(),
            sent: 0,
            ready: 0,
            is_dirty: false,
            is_blocked: false,
            is_ready: false,
        }
    }

    /// Sends until nothing is left or the kernel takes no more.
    fn flush(&mut self) -> io::Result<()> {
        self.is_dirty = false;
        while !self.is_blocked && self.sent < self.ready {
            match self.stream.send(&self.out[self.sent..self.ready])? {
                Some(len) => self.sent += len,
                None => self.is_blocked = true,
            }
        }
        // What has left is dropped when nothing lies behind it, or when it is worth the move.
        if self.sent == self.out.len() || self.sent >= SCRATCH_LEN {
            self.out.drain(..self.sent);
            self.ready -= self.sent;
            self.sent = 0;
        }
        Ok(())
    }
}

impl Bed {
    fn new(relay: &Relay, listen: &Addr, servers: &[Addr]) -> Outcome<Self> {
        let poll = Poll::new().during(|| "creating a poller".to_owned())?;
        let mut ends = Vec::with_capacity(servers.len());
        for (index, addr) in servers.iter().enumerate() {
            let stream = Stream::connect(addr).during(|| format!("connecting to {addr}"))?;
            watch(&poll, &stream, FIRST_SERVER + index)?;
            ends.push(ServerEnd {
                wire: Wire::new(stream),
                owed: VecDeque::new(),
                received: 0,
            });
        }
        let listener = Listener::bind(listen)?;
        watch(&poll, &listener, LISTENER)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            listener,
            servers: ends,
            clients: Vec::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            scratch: vec![0; SCRATCH_LEN],
            request_len: relay.request_len,
            reply_len: relay.reply_len,
            turn: 0,
        })
    }

    fn first_client(&self) -> usize {
        FIRST_SERVER + self.servers.len()
    }

    fn tick(&mut self) -> Outcome<()> {
        let has_more =
            !self.ready.is_empty() || self.servers.iter().any(|server| server.wire.is_ready);
        let timeout = has_more.then_some(Duration::ZERO);
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(Failure::new(format!("waiting: {error}")));
        }
        let events = mem::replace(&mut self.events, Events::with_capacity(0));
        let mut may_accept = false;
        for event in &events {
            match event.token().0 {
                LISTENER => may_accept = true,
                token => self.note(token, event),
            }
        }
        self.events = events;
        if may_accept {
            self.accept()?;
        }
        for index in 0..self.servers.len() {
            if self.servers[index].wire.is_ready {
                self.read_server(index)?;
            }
        }
        for count in 1..=self.ready.len() {
            if let Some(index) = self.ready.pop_front() {
                self.read_client(index);
            }
            if count % READS_PER_FLUSH == 0 {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn note(&mut self, token: usize, event: &Event) {
        let first_client = self.first_client();
        let wire = if token < first_client {
            Some(&mut self.servers[token - FIRST_SERVER].wire)
        } else {
            let client = self.clients.get_mut(token - first_client);
            client
                .and_then(Option::as_mut)
                .map(|client| &mut client.wire)
        };
        let Some(wire) = wire else { return };
        if wire.is_blocked && event.is_writable() {
            wire.is_blocked = false;
            if !wire.is_dirty {
                wire.is_dirty = true;
                self.dirty.push(token);
            }
        }
        let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
        if is_readable && !wire.is_ready {
            wire.is_ready = true;
            if token >= first_client {
                self.ready.push_back(token - first_client);
            }
        }
    }

    fn accept(&mut self) -> Outcome<()> {
        while let Some(stream) = self.listener.accept().during(|| "accepting".to_owned())? {
            watch(
                &self.poll,
                &stream,
                self.first_client() + self.clients.len(),
            )?;
            self.clients.push(Some(ClientEnd {
                wire: Wire::new(stream),
                tail: Vec::new(),
                first: 0,
                next: 0,
                whole: VecDeque::new(),
            }));
        }
        Ok(())
    }

    fn read_server(&mut self, index: usize) -> Outcome<()> {
        for _ in 0..READS_PER_TICK {
            let server = &mut self.servers[index];
            let got = server
                .wire
                .stream
                .recv(&mut self.scratch)
                .during(|| format!("reading from server {index}"))?;
            let Some(got) = got else {
                server.wire.is_ready = false;
                return Ok(());
            };
            if got == 0 {
                return Err(Failure::new(format!("server {index} closed")));
            }
            self.return_replies(index, got)?;
            if got < self.scratch.len() {
                self.servers[index].wire.is_ready = false;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Puts what came from a server where it leaves from.
    fn return_replies(&mut self, index: usize, got: usize) -> Outcome<()> {
        let first_client = self.first_client();
        let server = &mut self.servers[index];
        let mut bytes = &self.scratch[..got];
        while !bytes.is_empty() {
            let Some(&(owner, number)) = server.owed.front() else {
                return Err(Failure::new(format!(
                    "server {index} says more than it was asked"
                )));
            };
            let part = bytes.len().min(self.reply_len - server.received);
            let is_whole = server.received + part == self.reply_len;
            if let Some(client) = &mut self.clients[owner] {
                client.place(number, server.received, &bytes[..part], self.reply_len);
                let may_leave = is_whole && client.complete(number, self.reply_len);
                if may_leave && !client.wire.is_dirty {
                    client.wire.is_dirty = true;
                    self.dirty.push(first_client + owner);
                }
            }
            server.received += part;
            if is_whole {
                server.received = 0;
                server.owed.pop_front();
            }
            bytes = &bytes[part..];
        }
        Ok(())
    }

    fn read_client(&mut self, index: usize) {
        for _ in 0..READS_PER_TICK {
            let Some(client) = &mut self.clients[index] else {
                return;
            };
            let is_drained = match client.wire.stream.recv(&mut self.scratch) {
                Ok(Some(got)) if got > 0 => {
                    self.forward_requests(index, got);
                    got < SCRATCH_LEN
                }
                Ok(None) => true,
                // A client that leaves, in order or not, is forgotten.
                Ok(Some(_)) | Err(_) => {
                    self.clients[index] = None;
                    return;
                }
            };
            if is_drained {
                if let Some(client) = &mut self.clients[index] {
                    client.wire.is_ready = false;
                }
                return;
            }
        }
        self.ready.push_back(index);
    }

    /// Deals whole requests to the servers in turn.
    fn forward_requests(&mut self, index: usize, got: usize) {
        let Some(client) = &mut self.clients[index] else {
            return;
        };
        let mut bytes = &self.scratch[..got];
        loop {
            let part = (self.request_len - client.tail.len()).min(bytes.len());
            if client.tail.len() + part < self.request_len {
                client.tail.extend_from_slice(bytes);
                return;
            }
            let server = &mut self.servers[self.turn];
            server.wire.out.extend_from_slice(&client.tail);
            server.wire.out.extend_from_slice(&bytes[..part]);
            server.wire.ready = server.wire.out.len();
            client.tail.clear();
            server.owed.push_back((index, client.next));
            client.next += 1;
            client.whole.push_back(false);
            if !server.wire.is_dirty {
                server.wire.is_dirty = true;
                self.dirty.push(FIRST_SERVER + self.turn);
            }
            self.turn = (self.turn + 1) % self.servers.len();
            bytes = &bytes[part..];
        }
    }

    fn flush(&mut self) -> Outcome<()> {
        let first_client = self.first_client();
        let mut dirty = mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            if token < first_client {
                let server = &mut self.servers[token - FIRST_SERVER];
                server
                    .wire
                    .flush()
                    .during(|| "writing to a server".to_owned())?;
                continue;
            }
            let slot = &mut self.clients[token - first_client];
            if slot
                .as_mut()
                .is_some_and(|client| client.wire.flush().is_err())
            {
                *slot = None;
            }
        }
        self.dirty = dirty;
        Ok(())
    }
}

impl ClientEnd {
    /// Copies a piece of reply `number` to its place.
    fn place(&mut self, number: u64, offset: usize, bytes: &[u8], reply_len: usize) {
        let start = self.wire.ready + num::index(number - self.first) * reply_len + offset;
        let end = start + bytes.len();
        let out = &mut self.wire.out;
        if start == out.len() {
            out.extend_from_slice(bytes);
            return;
        }
        if out.len() < end {
            out.resize(end, 0);
        }
        out[start..end].copy_from_slice(bytes);
    }

    /// Reply `number` is whole; whether anything may leave now that could not before.
    fn complete(&mut self, number: u64, reply_len: usize) -> bool {
        self.whole[num::index(number - self.first)] = true;
        let mut may_leave = false;
        while self.whole.front() == Some(&true) {
            self.whole.pop_front();
            self.first += 1;
            self.wire.ready += reply_len;
            may_leave = true;
        }
        may_leave
    }
}

fn watch(poll: &Poll, socket: &impl AsFd, token: usize) -> Outcome<()> {
    poll.registry()
        .register(
            &mut SourceFd(&socket.as_fd().as_raw_fd()),
            Token(token),
            Interest::READABLE | Interest::WRITABLE,
        )
        .during(|| "watching a socket".to_owned())
}

const LISTENER: usize = 0;
const FIRST_SERVER: usize = 1;

// As in the proxy.
const EVENTS_PER_WAIT: usize = 1024;
const SCRATCH_LEN: usize = 64 * 1024;
const READS_PER_TICK: usize = 4;
const READS_PER_FLUSH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_configuration_of_a_run() {
        let conf = "bench:\n  listen: 127.0.0.1:7000\n  redis: true\n  servers:\n    - 127.0.0.1:7001:1 server0\n    - /s/1.sock:1 server1\n";
        let (listen, servers) = addresses(conf).expect("a good configuration");
        assert_eq!(listen, Addr::Tcp("127.0.0.1:7000".to_owned()));
        assert_eq!(
            servers,
            [
                Addr::Tcp("127.0.0.1:7001".to_owned()),
                Addr::Unix(PathBuf::from("/s/1.sock"))
            ]
        );
        assert!(addresses("servers:\n  - x\n").is_err());
    }

    #[test]
    fn replies_leave_in_order_whatever_the_order_they_come_in() {
        let (near, _far) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        let mut client = ClientEnd {
            wire: Wire::new(Stream::Unix(near)),
            tail: Vec::new(),
            first: 0,
            next: 3,
            whole: VecDeque::from([false; 3]),
        };
        client.place(2, 0, b"ccc", 3);
        assert!(!client.complete(2, 3));
        client.place(0, 0, b"a", 3);
        client.place(0, 1, b"aa", 3);
        assert!(client.complete(0, 3));
        assert_eq!(&client.wire.out[..client.wire.ready], b"aaa");
        client.place(1, 0, b"bbb", 3);
        assert!(client.complete(1, 3));
        assert_eq!(&client.wire.out[..client.wire.ready], b"aaabbbccc");
    }
}
