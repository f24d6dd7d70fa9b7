//! The event loop: wait, read, tell the engine, do what it asks.
//!
//! A worker owns a poller, the sockets of its connections and an engine. It makes the system calls
//! and decides nothing: which connection is read is the kernel's and the engine's business.
//!
//! Invariants:
//! 1. Readiness is remembered: `readable` stays true from an edge until a read shows that the
//!    kernel's buffer is empty. A readable connection is on a ready list unless the engine paused
//!    it, so a worker never sleeps over bytes it could read.
//! 2. `blocked` is true exactly while a writable edge is owed; only then is a flush put off.
//! 3. Two clock reads and at most one engine time-out per tick, no allocation per event, and no
//!    system call per connection but its reads and its writes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Duration;

use twemproxy_core::engine::{Action, ClientEnd, Closed, Engine, Notice};
use twemproxy_core::ids::{ConnId, PoolIdx, ServerConnId};
use twemproxy_core::limits::{READS_PER_TICK, SEND_SLICES_MAX};
use twemproxy_core::time::Micros;

use crate::clock::{Clock, sleep_until};
use crate::dial::{Dialer, Progress};
use crate::limits::{EVENTS_PER_WAIT, READS_PER_FLUSH};
use crate::mail::{ClientCount, ToSupervisor, ToWorker, Unresolved};
use crate::memory::Holdings;
use crate::net::errno;
use crate::net::poller::{Event, Events, Poller, WAKER_TOKEN};
use crate::net::stream::Stream;
use crate::notices::{Kind, Notices};
use crate::slots::Slots;

/// One worker thread's state.
#[derive(Debug)]
pub(crate) struct Worker {
    engine: Engine,
    poller: Poller,
    conns: Conns,
    dialer: Dialer,
    ready_servers: VecDeque<ConnId>,
    ready_clients: VecDeque<ConnId>,
    mailbox: Receiver<ToWorker>,
    notices: Notices,
    clock: Clock,
    clients: Arc<ClientCount>,
    holdings: Holdings,
    /// The supervisor has asked for it; the engine learns of it at the end of the tick.
    drain_asked: bool,
    /// New clients, to be taken at the end of the tick's reads.
    accepted: Vec<(PoolIdx, Stream)>,
}

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct WorkerParts {
    /// Everything that happens between a client and its servers.
    pub(crate) engine: Engine,
    /// Its own, with the waker of its mailbox.
    pub(crate) poller: Poller,
    /// Connections being made.
    pub(crate) dialer: Dialer,
    /// From acceptor, resolver and supervisor.
    pub(crate) mailbox: Receiver<ToWorker>,
    /// Log lines.
    pub(crate) notices: Notices,
    /// The process' clock.
    pub(crate) clock: Clock,
    /// What the acceptor deals by.
    pub(crate) clients: Arc<ClientCount>,
    /// The holdings of all engines.
    pub(crate) holdings: Holdings,
}

/// The connections that stand, under the engine's ids.
#[derive(Debug)]
struct Conns {
    clients: Slots<Conn>,
    servers: Slots<Conn>,
}

#[derive(Debug)]
struct Conn {
    stream: Stream,
    /// There may be something to read.
    readable: bool,
    /// A short read is not the last one: the peer's end of input is in the kernel's buffer, or an urgent
    /// byte was, before which each read ends.
    reads_on: bool,
    /// The end of input was read: nothing is to be read any more.
    ended: bool,
    /// On a ready list.
    queued: bool,
    /// The kernel took no more bytes; a writable edge will tell.
    blocked: bool,
    /// The log has said why it is closed.
    told: bool,
}

// Every client has one, idle or not. (mio's sockets are larger when debugged.)
const _: () = assert!(cfg!(debug_assertions) || size_of::<Conn>() <= 16);

impl Worker {
    /// A worker without connections.
    pub(crate) fn new(parts: WorkerParts) -> Self {
        Self {
            engine: parts.engine,
            poller: parts.poller,
            conns: Conns {
                clients: Slots::new(),
                servers: Slots::new(),
            },
            dialer: parts.dialer,
            ready_servers: VecDeque::new(),
            ready_clients: VecDeque::new(),
            mailbox: parts.mailbox,
            notices: parts.notices,
            clock: parts.clock,
            clients: parts.clients,
            holdings: parts.holdings,
            drain_asked: false,
            accepted: Vec::new(),
        }
    }

    /// Works until drained, and says so.
    pub(crate) fn run(mut self, supervisor: &Sender<ToSupervisor>) {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        make_sleeps_exact();
        let mut now = self.clock.now();
        self.engine.start(now);
        self.perform_actions(now);
        while !self.engine.is_drained() {
            while let Some(report) = self.engine.poll_mail() {
                // A supervisor that ends needs no reports.
                let _ = supervisor.send(ToSupervisor::Health(report));
            }
            self.wait(&mut events, now);
            now = self.clock.now();
            self.tick(&events, now);
        }
        // The supervisor may have ended the drain before us.
        let _ = supervisor.send(ToSupervisor::WorkerDone);
    }

    /// Sleeps until something happens or is due. If the engine would rather have events gather, and none is
    /// there already, sleeps first without being woken.
    fn wait(&mut self, events: &mut Events, now: Micros) {
        let deadline = self.next_deadline(now);
        let mut now = self.clock.now();
        if let Some(until) = self.engine.poll_gather(now)
            && deadline.is_none_or(|deadline| deadline > until)
        {
            self.poller.wait(events, Some(Duration::ZERO));
            if !events.is_empty() {
                return;
            }
            thread::sleep(Duration::from_micros(until.since(now).0));
            now = self.clock.now();
        }
        self.poller.wait(events, sleep_until(deadline, now));
    }

    /// Everything between two waits.
    fn tick(&mut self, events: &Events, now: Micros) {
        self.holdings.read(&mut self.engine, now);
        for event in events.iter() {
            self.handle_event(event, now);
        }
        self.read_ready(now);
        self.accept_all(now);
        if mem::take(&mut self.drain_asked) {
            // After the reads: whoever's request has arrived is not idle.
            self.engine.start_drain(now);
        }
        self.engine.handle_timeout(now);
        self.notices.handle_timeout(now);
        self.perform_actions(now);
        self.holdings.write(&self.engine);
    }

    /// Never later than now while a connection waits to be read.
    fn next_deadline(&self, now: Micros) -> Option<Micros> {
        if !self.ready_servers.is_empty() || !self.ready_clients.is_empty() {
            return Some(now);
        }
        match (self.engine.poll_timeout(), self.notices.poll_timeout()) {
            (Some(engine), Some(notices)) => Some(engine.min(notices)),
            (engine, notices) => engine.or(notices),
        }
    }

    fn handle_event(&mut self, event: Event, now: Micros) {
        if event.token == WAKER_TOKEN {
            return self.read_mail(now);
        }
        let id = ConnId::from_token(event.token);
        let Some(conn) = self.conns.get_mut(id) else {
            return self.handle_dial_event(id, event, now);
        };
        if event.error && matches!(id, ConnId::Client(_)) {
            let why = pending_error(&conn.stream);
            return self.lose(id, why, now);
        }
        // A server's error waits until the responses before it are read: the read returns it.
        if event.readable || event.hangup || event.error || event.urgent {
            conn.readable = !conn.ended;
            conn.reads_on |= event.hangup || event.error || event.urgent;
            self.queue_if_readable(id);
        }
        self.handle_writable(id, event, now);
    }

    /// Every edge says that there is room; only one that was waited for matters.
    fn handle_writable(&mut self, id: ConnId, event: Event, now: Micros) {
        if let Some(conn) = self.conns.get_mut(id)
            && conn.blocked
            && (event.writable || event.error)
        {
            conn.blocked = false;
            self.flush(id, now);
        }
    }

    /// An edge of a socket that is still connecting, or a stale one.
    fn handle_dial_event(&mut self, id: ConnId, event: Event, now: Micros) {
        if let ConnId::Server(conn) = id {
            let progress = self.dialer.ready(&self.poller, conn);
            self.handle_progress(conn, progress, now);
            if event.readable || event.hangup || event.urgent {
                self.mark_readable(id, event.hangup || event.urgent);
            }
        }
    }

    fn handle_progress(&mut self, conn: ServerConnId, progress: Progress, now: Micros) {
        match progress {
            Progress::Pending => {}
            Progress::Connected(stream) => {
                self.conns.insert(conn.into(), stream);
                self.engine.handle_connected(conn, now);
            }
            Progress::Failed(why) => self.engine.handle_closed(conn.into(), why, now),
        }
    }

    fn read_mail(&mut self, now: Micros) {
        while let Ok(mail) = self.mailbox.try_recv() {
            match mail {
                ToWorker::Accepted { pool, stream } => self.accepted.push((pool, stream)),
                ToWorker::Resolved { conn, addresses } => self.resolved(conn, addresses, now),
                ToWorker::Health(mail) => self.engine.handle_mail(mail, now),
                ToWorker::Drain => self.drain_asked = true,
            }
        }
    }

    /// Takes the new clients, after the reads: a client that has gone makes room for one that comes.
    fn accept_all(&mut self, now: Micros) {
        if self.accepted.is_empty() {
            return;
        }
        self.perform_actions(now);
        for (pool, stream) in mem::take(&mut self.accepted) {
            self.accept(pool, stream, now);
        }
    }

    fn accept(&mut self, pool: PoolIdx, mut stream: Stream, now: Micros) {
        match self.engine.handle_accept(pool, now) {
            Ok(client) => {
                let id = ConnId::from(client);
                let added = self.poller.add(&mut stream, id.token());
                self.conns.insert(id, stream);
                if let Err(error) = added {
                    self.lose(id, errno::closed(&error), now);
                }
            }
            Err(refused) => {
                // Best effort: a fresh socket has room for so little.
                let _ = stream.send(refused.reply);
                if !refused.reply.is_empty() {
                    let (fd, peer) = (stream.fd(), stream.peer());
                    self.notices.write(Kind::ClientFault, now, || {
                        format!("close c {fd} '{peer}': client_connections is reached")
                    });
                }
                stream.close_gently();
                self.clients.down();
            }
        }
    }

    fn resolved(
        &mut self,
        conn: ServerConnId,
        addresses: Result<Vec<SocketAddr>, Unresolved>,
        now: Micros,
    ) {
        let addresses = addresses.map_err(|unresolved| {
            self.notices
                .write(Kind::NameUnknown, now, || unresolved.text);
            unresolved.why
        });
        let progress = self.dialer.resolved(&self.poller, conn, addresses);
        self.handle_progress(conn, progress, now);
    }

    /// Reads every ready connection a bounded number of times; those that have more stay ready.
    ///
    /// Servers first: their responses are older than any new request, and free what it needs.
    fn read_ready(&mut self, now: Micros) {
        for _ in 0..self.ready_servers.len() {
            if let Some(id) = self.ready_servers.pop_front() {
                self.read_some(id, now);
            }
            if self.engine.is_urgent() {
                self.perform_actions(now);
            }
        }
        let mut reads = 0;
        for _ in 0..self.ready_clients.len() {
            if let Some(id) = self.ready_clients.pop_front() {
                reads += self.read_some(id, now);
            }
            if reads >= READS_PER_FLUSH || self.engine.is_urgent() {
                reads = 0;
                self.perform_actions(now);
            }
        }
    }

    /// Returns how many reads were made.
    fn read_some(&mut self, id: ConnId, now: Micros) -> usize {
        for reads in 0..READS_PER_TICK {
            let Some(conn) = self.conns.get_mut(id) else {
                return reads;
            };
            conn.queued = false;
            let space = self.engine.recv_space(id);
            if space.is_empty() {
                return reads;
            }
            let room = space.len();
            match conn.stream.recv(space) {
                Ok(0) => {
                    self.end_input(id, now);
                    return reads + 1;
                }
                Ok(len) => {
                    // A short read of a stream has emptied it; the next bytes make a new edge.
                    conn.readable = len == room || conn.reads_on;
                    let is_empty = !conn.readable;
                    self.engine.recv_commit(id, len, now);
                    if is_empty {
                        return reads + 1;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    conn.readable = false;
                    return reads + 1;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(id, errno::closed(&error), now);
                    return reads + 1;
                }
            }
        }
        self.queue_if_readable(id);
        READS_PER_TICK
    }

    /// A client may still read its replies; a server that says no more is of no use.
    fn end_input(&mut self, id: ConnId, now: Micros) {
        match id {
            ConnId::Server(_) => self.lose(id, Closed::Eof, now),
            ConnId::Client(_) => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.readable = false;
                    conn.ended = true;
                }
                self.engine.handle_read_eof(id, now);
            }
        }
    }

    fn perform_actions(&mut self, now: Micros) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Connect { conn, server } => {
                    let progress = self.dialer.dial(&self.poller, conn, server);
                    self.handle_progress(conn, progress, now);
                }
                Action::Flush(id) => self.flush(id, now),
                Action::ResumeRead(id) => self.queue_if_readable(id),
                Action::Close(id) => self.close(id),
                Action::Notice(Notice::ClientEnds { client, end, held }) => {
                    if let Some(conn) = self.conns.get_mut(client.into()) {
                        conn.told = true;
                        let stream = &conn.stream;
                        self.notices.write_client_end(stream, end, held, now);
                    }
                }
                Action::Notice(notice) => self.notices.write_notice(notice, now),
            }
        }
    }

    /// Sends until nothing is left or the kernel takes no more.
    fn flush(&mut self, id: ConnId, now: Micros) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        while !conn.blocked {
            match send_once(&self.engine, id, &conn.stream) {
                Ok(Sent::Nothing) => return,
                Ok(Sent::All(len)) => return self.engine.send_commit(id, len, now),
                Ok(Sent::Some(len)) => self.engine.send_commit(id, len, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lose_writing(id, errno::closed(&error), now),
            }
        }
    }

    /// A write failed. The last words of a server may still be there to be read: why it closes.
    fn lose_writing(&mut self, id: ConnId, why: Closed, now: Micros) {
        if matches!(id, ConnId::Server(_)) {
            self.read_some(id, now);
        }
        self.lose(id, why, now);
    }

    /// The engine is done with a connection.
    fn close(&mut self, id: ConnId) {
        match (self.conns.remove(id), id) {
            (Some(conn), ConnId::Client(_)) => {
                if conn.readable {
                    conn.stream.close_gently();
                } else {
                    drop(conn);
                }
                // After its descriptor: the acceptor may take a client for each that went.
                self.clients.down();
            }
            (None, ConnId::Server(conn)) => self.dialer.cancel(conn),
            _ => {}
        }
    }

    /// A connection broke.
    fn lose(&mut self, id: ConnId, why: Closed, now: Micros) {
        if let Some(conn) = self.conns.remove(id)
            && matches!(id, ConnId::Client(_))
        {
            if !conn.told {
                let end = ClientEnd::Lost(why);
                self.notices.write_client_end(&conn.stream, end, 0, now);
            }
            drop(conn);
            self.clients.down();
        }
        self.engine.handle_closed(id, why, now);
    }

    fn mark_readable(&mut self, id: ConnId, reads_on: bool) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.readable = true;
            conn.reads_on |= reads_on;
            self.queue_if_readable(id);
        }
    }

    /// Puts a connection with something to read on its ready list, once.
    fn queue_if_readable(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && conn.readable
            && !conn.queued
        {
            conn.queued = true;
            match id {
                ConnId::Client(_) => self.ready_clients.push_back(id),
                ConnId::Server(_) => self.ready_servers.push_back(id),
            }
        }
    }
}

impl Conns {
    fn insert(&mut self, id: ConnId, stream: Stream) {
        let conn = Conn {
            stream,
            readable: false,
            reads_on: false,
            ended: false,
            queued: false,
            blocked: false,
            told: false,
        };
        match id {
            ConnId::Client(id) => self.clients.insert(id.index, id.generation, conn),
            ConnId::Server(id) => self.servers.insert(id.index, id.generation, conn),
        }
    }

    #[inline]
    fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        match id {
            ConnId::Client(id) => self.clients.get_mut(id.index, id.generation),
            ConnId::Server(id) => self.servers.get_mut(id.index, id.generation),
        }
    }

    fn remove(&mut self, id: ConnId) -> Option<Conn> {
        match id {
            ConnId::Client(id) => self.clients.remove(id.index, id.generation),
            ConnId::Server(id) => self.servers.remove(id.index, id.generation),
        }
    }
}

/// The kernel may end a sleep late by its timer slack, usually 50 microseconds: longer than the sleeps that
/// let events gather.
fn make_sleeps_exact() {
    // Refused, the sleeps are longer; nothing else is wrong.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
}

/// What the kernel took of what the engine has for a connection.
enum Sent {
    /// There was nothing.
    Nothing,
    /// So many bytes, and nothing is left.
    All(usize),
    /// So many bytes; there may be more.
    Some(usize),
}

/// One write of as much as the engine has.
fn send_once(engine: &Engine, id: ConnId, stream: &Stream) -> io::Result<Sent> {
    let mut slices: [&[u8]; SEND_SLICES_MAX] = [&[]; SEND_SLICES_MAX];
    let count = engine.send_slices(id, &mut slices);
    match slices[..count] {
        [] => Ok(Sent::Nothing),
        [only] => {
            let len = stream.send(only)?;
            Ok(if len == only.len() {
                Sent::All(len)
            } else {
                Sent::Some(len)
            })
        }
        [..] => {
            let vector = slices.map(IoSlice::new);
            stream.send_vectored(&vector[..count]).map(Sent::Some)
        }
    }
}

/// Why a socket shows an error.
fn pending_error(stream: &Stream) -> Closed {
    match stream.take_error() {
        Ok(Some(error)) | Err(error) => errno::closed(&error),
        // Another call has taken it.
        Ok(None) => Closed::Reset,
    }
}
