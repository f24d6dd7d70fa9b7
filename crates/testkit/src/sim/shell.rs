//! The shell's part: it performs what the engines ask for, and reads and writes the connections.

use twemproxy_core::engine::{Action, Closed};
use twemproxy_core::ids::{ConnId, ServerConnId, ServerId};
use twemproxy_core::limits::READS_PER_TICK;
use twemproxy_core::time::Micros;

use super::oracle::place;
use super::pipe::Pipe;
use super::plan::Faults;
use super::server::ServerConn;
use super::world::{Event, Link, LinkPhase, Peer, World};

/// Actions one tick may ask for.
const ACTIONS_MAX: usize = 50_000;

impl World {
    /// Everything a worker's engine asks for is done.
    pub(super) fn finish_tick(&mut self, worker: usize) {
        let mut actions = 0;
        while let Some(action) = self.workers[worker].engine.poll_action() {
            self.perform(worker, action);
            actions += 1;
            assert!(actions < ACTIONS_MAX, "a tick ends");
        }
        let worker = &mut self.workers[worker];
        worker.just_lost.clear();
        worker.is_busy = false;
    }

    fn perform(&mut self, worker: usize, action: Action) {
        match action {
            Action::Connect { conn, server } => self.connect(worker, conn, server),
            Action::Flush(id) => {
                if let Some(link) = self.link_of(worker, id)
                    && !self.links[link].write_blocked
                {
                    self.flush(link);
                }
            }
            Action::ResumeRead(id) => {
                if let Some(link) = self.link_of(worker, id)
                    && self.links[link].read_blocked
                {
                    self.links[link].read_blocked = false;
                    self.at(self.now, Event::Arrive(link));
                }
            }
            Action::Close(id) => self.close(worker, id),
            Action::Notice(notice) => self.notice(worker, notice),
        }
    }

    /// The link of a connection that the engine names; `None` if it was lost in this very tick, after
    /// the engine had made up its mind.
    pub(super) fn link_of(&self, worker: usize, id: ConnId) -> Option<usize> {
        let worker = &self.workers[worker];
        let link = worker.by_id.get(&id).copied();
        assert!(
            link.is_some() || worker.just_lost.contains(&id),
            "the engine names {id:?}, which does not exist"
        );
        link
    }

    /// A connection that a worker's engine calls `id`.
    pub(super) fn new_link(&mut self, worker: usize, id: ConnId, peer: Peer) -> usize {
        let phase = match peer {
            Peer::Client(_) => LinkPhase::Open,
            Peer::Server(_) => LinkPhase::Connecting,
        };
        let capacity = self.plan.net.capacity;
        self.links.push(Link {
            worker,
            id,
            peer,
            phase,
            up: Pipe::new(usize::MAX),
            down: Pipe::new(capacity),
            read_blocked: false,
            write_blocked: false,
            ended: false,
            last_arrival: self.now,
            last_departure: self.now,
        });
        let link = self.links.len() - 1;
        let before = self.workers[worker].by_id.insert(id, link);
        assert!(before.is_none(), "a connection's id is its own");
        link
    }

    /// An engine wants a connection to a server.
    fn connect(&mut self, worker: usize, id: ServerConnId, server: ServerId) {
        let at = place(server);
        let is_probe = worker == 0 && self.servers[at].is_ejected;
        self.conns.push(ServerConn::new(at, is_probe));
        let conn = self.conns.len() - 1;
        let link = self.new_link(worker, id.into(), Peer::Server(conn));
        self.conns[conn].link = link;
        self.tell(|| format!("link {link}: to server {at}"));
        let faults = if self.is_stormy {
            self.plan.faults.clone()
        } else {
            Faults::default()
        };
        let arrival = self.after_way();
        if self.is_stormy && self.servers[at].dead_until > self.now {
            self.at(arrival, Event::Lost(link, 1));
        } else if self.dice.chance(faults.refuse) {
            let reason = 1 + self.dice.upto(10);
            self.at(arrival, Event::Lost(link, reason));
        } else if !self.dice.chance(faults.hang) {
            if arrival == self.now {
                self.connected(link);
            } else {
                self.at(arrival, Event::Connected(link));
            }
        }
    }

    pub(super) fn connected(&mut self, link: usize) {
        if self.links[link].phase != LinkPhase::Connecting {
            return;
        }
        self.links[link].phase = LinkPhase::Open;
        self.links[link].last_arrival = self.now;
        let ConnId::Server(id) = self.links[link].id else {
            unreachable!("only server connections are made by the proxy");
        };
        let now = Micros(self.now);
        self.busy(self.links[link].worker).handle_connected(id, now);
        self.maybe_turn_away(link);
    }

    /// Bytes of a peer can be read: the shell reads as often as one tick allows.
    pub(super) fn arrive(&mut self, at: usize) {
        for _ in 0..READS_PER_TICK {
            let link = &mut self.links[at];
            if link.phase != LinkPhase::Open || link.read_blocked {
                return;
            }
            let available = link.up.readable(self.now).len();
            if available == 0 {
                if link.up.is_finished(self.now) && !link.ended {
                    self.end_input(at);
                }
                return;
            }
            let worker = &mut self.workers[link.worker];
            let space = worker.engine.recv_space(link.id);
            if space.is_empty() {
                match link.peer {
                    Peer::Client(_) => link.read_blocked = true,
                    Peer::Server(_) => {
                        let why = "a server connection is never left unread";
                        self.condemned.push((at, why));
                    }
                }
                return;
            }
            let mut len = space.len().min(available);
            if self.dice.chance(self.plan.net.cut) {
                len = 1 + self.dice.upto(len - 1);
            }
            space[..len].copy_from_slice(&link.up.readable(self.now)[..len]);
            link.up.took(len);
            link.last_arrival = self.now;
            let (worker, id, peer) = (link.worker, link.id, link.peer);
            if let Peer::Server(conn) = peer {
                self.excuse_lies(conn);
            }
            let now = Micros(self.now);
            self.busy(worker).recv_commit(id, len, now);
            if let Peer::Server(conn) = peer
                && self.holds_stray(conn)
            {
                let why = "a response that nobody waits for ends its connection";
                self.condemned.push((at, why));
            }
        }
        self.at(self.now, Event::Arrive(at));
    }

    /// A read found the end.
    fn end_input(&mut self, at: usize) {
        let link = &mut self.links[at];
        let (worker, id, peer) = (link.worker, link.id, link.peer);
        let engine = &mut self.workers[worker].engine;
        if engine.recv_space(id).is_empty() && self.dice.chance(500) {
            // A poller that reports ends by themselves need not wait for room.
            link.read_blocked = true;
            return;
        }
        link.ended = true;
        let now = Micros(self.now);
        match peer {
            Peer::Server(_) if self.dice.chance(500) => self.lose(at, Closed::Eof),
            Peer::Server(conn) => {
                self.excuse_loss(conn, Closed::Eof);
                self.busy(worker).handle_read_eof(id, now);
            }
            Peer::Client(_) => self.busy(worker).handle_read_eof(id, now),
        }
    }

    /// A connection breaks under the proxy's hands.
    pub(super) fn lose(&mut self, at: usize, why: Closed) {
        let link = &self.links[at];
        if link.phase == LinkPhase::Closed {
            return;
        }
        let (worker, id, peer) = (link.worker, link.id, link.peer);
        self.tell(|| format!("link {at}: lost, {why:?}"));
        if let Peer::Server(conn) = peer {
            self.excuse_loss(conn, why);
        }
        self.links[at].phase = LinkPhase::Closed;
        self.workers[worker].by_id.remove(&id);
        self.workers[worker].just_lost.push(id);
        let now = Micros(self.now);
        self.busy(worker).handle_closed(id, why, now);
    }

    /// An engine closes a connection.
    fn close(&mut self, worker: usize, id: ConnId) {
        let Some(at) = self.link_of(worker, id) else {
            return;
        };
        self.workers[worker].by_id.remove(&id);
        let arrival = self.after_way();
        let link = &mut self.links[at];
        let was_connecting = link.phase == LinkPhase::Connecting;
        link.phase = LinkPhase::Closed;
        let arrival = link.down.finish(arrival);
        let peer = link.peer;
        self.tell(|| format!("link {at}: closed by the proxy"));
        self.at(arrival, Event::Deliver(at));
        if let Peer::Server(conn) = peer {
            self.check_close_of_server(conn, was_connecting);
        }
    }

    /// The proxy writes what fits.
    pub(super) fn flush(&mut self, at: usize) {
        loop {
            let arrival = self.after_way();
            let link = &mut self.links[at];
            if link.phase != LinkPhase::Open {
                return;
            }
            let mut room = link.down.room();
            if self.dice.chance(self.plan.net.cut) {
                room = room.min(1 + self.dice.upto(200));
                link.write_blocked = true;
            }
            let mut slices = [&[][..]; 8];
            let engine = &self.workers[link.worker].engine;
            let count = engine.send_slices(link.id, &mut slices);
            if count == 0 {
                link.write_blocked = false;
                return;
            }
            let (mut len, mut arrives_at) = (0, arrival);
            for slice in &slices[..count] {
                let taken = &slice[..slice.len().min(room - len)];
                arrives_at = link.down.write(taken, arrival);
                len += taken.len();
            }
            let (worker, id) = (link.worker, link.id);
            if len == 0 {
                link.write_blocked = true;
                return;
            }
            link.last_departure = self.now;
            let now = Micros(self.now);
            self.busy(worker).send_commit(id, len, now);
            self.at(arrives_at, Event::Deliver(at));
            if self.links[at].write_blocked {
                self.at(arrival, Event::Writable(at));
                return;
            }
        }
    }

    /// The peer has read: the proxy may write again.
    pub(super) fn drained(&mut self, at: usize) {
        let link = &self.links[at];
        if link.write_blocked && link.phase == LinkPhase::Open {
            self.at(self.now, Event::Writable(at));
        }
    }
}
