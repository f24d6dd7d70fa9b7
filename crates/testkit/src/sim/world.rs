//! The world around one engine: virtual time, connections, and the part of the shell.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;

use twemproxy_core::engine::{Action, Closed, Engine};
use twemproxy_core::ids::{ConnId, ServerConnId, ServerIdx};
use twemproxy_core::limits::READS_PER_TICK;
use twemproxy_core::time::Micros;

use super::client::Client;
use super::dice::Dice;
use super::oracle::PoolView;
use super::pipe::Pipe;
use super::plan::Plan;
use super::server::{ServerConn, ServerState};

/// Actions one tick may ask for.
const ACTIONS_MAX: usize = 50_000;
/// What one tick adds to the work that looking the engine over may take, in requests in flight: the
/// more there is to look at, the less often it happens, so that it costs the same everywhere.
const LOOK_PER_TICK: usize = 24;
/// Lines of the story kept for a failure.
const STORY_MAX: usize = 80;

/// Something that will happen. Numbers are indexes into the world's tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Event {
    /// A client may ask.
    Think(usize),
    /// Bytes (or the end) of a link's peer reach the proxy.
    Arrive(usize),
    /// Bytes (or the end) of the proxy reach a link's peer.
    Deliver(usize),
    /// A link takes bytes again.
    Writable(usize),
    /// A connection attempt succeeds.
    Connected(usize),
    /// A link breaks, for the reason at this place of [`Closed::ALL`].
    Lost(usize, usize),
    /// Somebody connects to a pool.
    Spawn(usize),
    /// Only time passes.
    Nothing,
}

/// Where a link is in its life, as the proxy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkPhase {
    Connecting,
    Open,
    Closed,
}

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    Client(usize),
    Server(usize),
}

/// One connection of the proxy.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnId,
    pub(super) peer: Peer,
    pub(super) phase: LinkPhase,
    /// To the proxy.
    pub(super) up: Pipe,
    /// From the proxy.
    pub(super) down: Pipe,
    /// The proxy did not want to read and must say when it does.
    pub(super) read_blocked: bool,
    /// The proxy waits for room.
    pub(super) write_blocked: bool,
    /// The proxy knows that no more will come.
    pub(super) ended: bool,
    /// When bytes last reached the proxy.
    pub(super) last_arrival: u64,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) engine: Engine,
    pub(super) now: u64,
    pub(super) step: u64,
    pub(super) links: Vec<Link>,
    pub(super) clients: Vec<Client>,
    pub(super) conns: Vec<ServerConn>,
    pub(super) servers: Vec<ServerState>,
    pub(super) pools: Vec<PoolView>,
    /// Requests the clients may still send.
    pub(super) budget: u32,
    /// Requests in flight.
    pub(super) owed: usize,
    /// Requests answered.
    pub(super) answered: u64,
    /// Faults happen.
    pub(super) is_stormy: bool,
    /// No error is acceptable, whatever happened before.
    pub(super) is_strict: bool,
    /// Fingerprints of the writes that servers executed.
    pub(super) executed: HashSet<u64>,
    /// What happened, for a failure; `None` if nobody will ask.
    pub(super) story: Option<Vec<String>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_order: u64,
    by_id: BTreeMap<ConnId, usize>,
    /// Server connections that the engine would not read: it must be about to close them.
    unread: Vec<usize>,
    /// Connections lost since the last tick ended.
    just_lost: Vec<ConnId>,
    unsettled: bool,
    /// Work saved up for looking the engine over.
    look: usize,
}

impl World {
    pub(super) fn new(seed: u64, with_story: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let config = Arc::new(plan.config.clone());
        let pools: Vec<_> = PoolView::all(&config);
        let servers = ServerState::all(&config);
        Self {
            engine: Engine::new(config, dice.seed()),
            now: 1_000_000,
            step: 0,
            links: Vec::new(),
            clients: Vec::new(),
            conns: Vec::new(),
            servers,
            pools,
            budget: plan.manners.requests,
            owed: 0,
            answered: 0,
            is_stormy: true,
            is_strict: plan.calm,
            executed: HashSet::new(),
            story: with_story.then(Vec::new),
            events: BinaryHeap::new(),
            next_order: 0,
            by_id: BTreeMap::new(),
            unread: Vec::new(),
            just_lost: Vec::new(),
            unsettled: true,
            look: 0,
            dice,
            plan,
        }
    }

    /// The whole life of this world.
    pub(super) fn run(&mut self) {
        self.engine.start(Micros(self.now));
        for _ in 0..self.plan.manners.clients {
            let pool = self.dice.upto(self.pools.len() - 1);
            let at = self.now + self.dice.micros(2_000);
            self.at(at, Event::Spawn(pool));
        }
        let until = self.now + 60_000_000;
        self.go(|world| world.budget == 0 || world.now > until);
        self.budget = 0;
        self.stop_faults();
        let bound = self.now + 100_000_000;
        self.go(|world| world.is_quiet() || world.now > bound);
        self.check_answered();
        self.let_servers_return();
        self.ask_once_more();
        self.go(|world| world.is_quiet() || world.now > bound);
        self.check_answered();
        self.part();
        self.go(|_| false);
        self.check_end();
    }

    /// Time passes until `done`, or until nothing more will ever happen.
    pub(super) fn go(&mut self, done: impl Fn(&Self) -> bool) {
        loop {
            if self.unsettled && !self.shell_goes_on() {
                self.settle();
                if done(self) {
                    return;
                }
            }
            if !self.advance() {
                return;
            }
        }
    }

    /// Whether the shell handles one more event before it performs actions.
    fn shell_goes_on(&mut self) -> bool {
        let is_due = self
            .events
            .peek()
            .is_some_and(|Reverse((at, _, _))| *at <= self.now);
        is_due && self.dice.chance(self.plan.net.batch)
    }

    /// The next event or deadline. Returns false if there is none.
    fn advance(&mut self) -> bool {
        let event_at = self.events.peek().map(|Reverse((at, _, _))| *at);
        let alarm_at = self.engine.poll_timeout().map(|at| at.0);
        let Some(at) = event_at.into_iter().chain(alarm_at).min() else {
            return false;
        };
        if at > self.now {
            if self.unsettled {
                self.settle();
                return true;
            }
            self.now = at;
            if self.dice.chance(self.plan.net.lag) {
                self.now += self.dice.micros(3_000);
            }
        }
        self.step += 1;
        self.unsettled = true;
        let is_alarm_due = alarm_at.is_some_and(|at| at <= self.now);
        let is_event_due = event_at.is_some_and(|at| at <= self.now);
        if is_alarm_due && (!is_event_due || self.dice.chance(500)) {
            self.tell(|| "the engine looks at its deadlines".into());
            self.engine.handle_timeout(Micros(self.now));
            let next = self.engine.poll_timeout();
            assert!(
                next.is_none_or(|next| next.0 > self.now),
                "poll_timeout advances: {next:?} at {}",
                self.now
            );
        } else if let Some(Reverse((_, _, event))) = self.events.pop() {
            self.happen(event);
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Think(client) => self.think(client),
            Event::Arrive(link) => self.arrive(link),
            Event::Deliver(link) => match self.links[link].peer {
                Peer::Client(client) => self.deliver_to_client(client),
                Peer::Server(conn) => self.deliver_to_server(conn),
            },
            Event::Writable(link) => {
                if self.links[link].write_blocked {
                    self.links[link].write_blocked = false;
                    self.flush(link);
                }
            }
            Event::Connected(link) => self.connected(link),
            Event::Lost(link, reason) => self.lose(link, Closed::ALL[reason]),
            Event::Spawn(pool) => self.spawn(pool),
            Event::Nothing => {}
        }
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.next_order += 1;
        self.events
            .push(Reverse((at.max(self.now), self.next_order, event)));
    }

    /// When something that leaves now arrives.
    pub(super) fn after_way(&mut self) -> u64 {
        self.now + self.dice.micros(self.plan.net.delay)
    }

    /// Adds a line to the story.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            if story.len() == 2 * STORY_MAX {
                story.drain(..STORY_MAX);
            }
            story.push(format!("{:>8} {:>10} {}", self.step, self.now, line()));
        }
    }

    /// The end of a tick: everything the engine asks for is done, then it is looked over.
    pub(super) fn settle(&mut self) {
        self.unsettled = false;
        let mut actions = 0;
        while let Some(action) = self.engine.poll_action() {
            self.perform(action);
            actions += 1;
            assert!(actions < ACTIONS_MAX, "a tick ends");
        }
        self.just_lost.clear();
        for at in self.unread.drain(..) {
            assert_eq!(
                self.links[at].phase,
                LinkPhase::Closed,
                "a server connection is never left unread"
            );
        }
        self.look += LOOK_PER_TICK;
        // Who takes notes wants to know the very tick.
        if self.look >= self.owed || self.story.is_some() {
            self.look = 0;
            self.engine.check_invariants();
        }
        self.check_gauges();
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { conn, server } => self.connect(conn, server),
            Action::Flush(id) => {
                if let Some(link) = self.link_of(id)
                    && !self.links[link].write_blocked
                {
                    self.flush(link);
                }
            }
            Action::ResumeRead(id) => {
                if let Some(link) = self.link_of(id)
                    && self.links[link].read_blocked
                {
                    self.links[link].read_blocked = false;
                    self.at(self.now, Event::Arrive(link));
                }
            }
            Action::Close(id) => self.close(id),
            Action::Notice(notice) => self.notice(notice),
        }
    }

    /// The link of a connection that the engine names; `None` if it was lost in this very tick, after
    /// the engine had made up its mind.
    pub(super) fn link_of(&self, id: ConnId) -> Option<usize> {
        let link = self.by_id.get(&id).copied();
        assert!(
            link.is_some() || self.just_lost.contains(&id),
            "the engine names {id:?}, which does not exist"
        );
        link
    }

    pub(super) fn new_link(&mut self, id: ConnId, peer: Peer, phase: LinkPhase) -> usize {
        let capacity = self.plan.net.capacity;
        self.links.push(Link {
            id,
            peer,
            phase,
            up: Pipe::new(usize::MAX),
            down: Pipe::new(capacity),
            read_blocked: false,
            write_blocked: false,
            ended: false,
            last_arrival: self.now,
        });
        let link = self.links.len() - 1;
        let before = self.by_id.insert(id, link);
        assert!(before.is_none(), "a connection's id is its own");
        link
    }

    /// The engine wants a connection to a server.
    fn connect(&mut self, id: ServerConnId, server: ServerIdx) {
        let is_probe = self.servers[server.index()].is_ejected;
        self.conns.push(ServerConn::new(server.index(), is_probe));
        let conn = self.conns.len() - 1;
        let link = self.new_link(id.into(), Peer::Server(conn), LinkPhase::Connecting);
        self.conns[conn].link = link;
        self.tell(|| format!("link {link}: to server {}", server.0));
        let faults = if self.is_stormy {
            self.plan.faults.clone()
        } else {
            super::plan::Faults::default()
        };
        let at = self.after_way();
        if self.dice.chance(faults.refuse) {
            let reason = 1 + self.dice.upto(10);
            self.at(at, Event::Lost(link, reason));
        } else if !self.dice.chance(faults.hang) {
            if at == self.now {
                self.connected(link);
            } else {
                self.at(at, Event::Connected(link));
            }
        }
    }

    pub(super) fn connected(&mut self, link: usize) {
        if self.links[link].phase != LinkPhase::Connecting {
            return;
        }
        self.links[link].phase = LinkPhase::Open;
        let ConnId::Server(id) = self.links[link].id else {
            unreachable!("only server connections are made by the proxy");
        };
        self.engine.handle_connected(id, Micros(self.now));
    }

    /// Bytes of a peer can be read: the shell reads as often as one tick allows.
    fn arrive(&mut self, at: usize) {
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
            let space = self.engine.recv_space(link.id);
            if space.is_empty() {
                match link.peer {
                    Peer::Client(_) => link.read_blocked = true,
                    Peer::Server(_) => self.unread.push(at),
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
            let (id, peer) = (link.id, link.peer);
            if let Peer::Server(conn) = peer {
                self.excuse_lies(conn);
            }
            self.engine.recv_commit(id, len, Micros(self.now));
        }
        self.at(self.now, Event::Arrive(at));
    }

    /// A read found the end.
    fn end_input(&mut self, at: usize) {
        let link = &mut self.links[at];
        if self.engine.recv_space(link.id).is_empty() && self.dice.chance(500) {
            // A poller that reports ends by themselves need not wait for room.
            link.read_blocked = true;
            return;
        }
        link.ended = true;
        let id = link.id;
        match link.peer {
            Peer::Server(_) if self.dice.chance(500) => self.lose(at, Closed::Eof),
            Peer::Server(conn) => {
                self.excuse_loss(conn, Closed::Eof);
                self.engine.handle_read_eof(id, Micros(self.now));
            }
            Peer::Client(_) => self.engine.handle_read_eof(id, Micros(self.now)),
        }
    }

    /// A connection breaks under the proxy's hands.
    pub(super) fn lose(&mut self, at: usize, why: Closed) {
        let link = &mut self.links[at];
        if link.phase == LinkPhase::Closed {
            return;
        }
        link.phase = LinkPhase::Closed;
        let (id, peer) = (link.id, link.peer);
        self.by_id.remove(&id);
        self.just_lost.push(id);
        self.tell(|| format!("link {at}: lost, {why:?}"));
        if let Peer::Server(conn) = peer {
            self.excuse_loss(conn, why);
        }
        self.engine.handle_closed(id, why, Micros(self.now));
    }

    /// The engine closes a connection.
    fn close(&mut self, id: ConnId) {
        let Some(at) = self.link_of(id) else {
            return;
        };
        self.by_id.remove(&id);
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
    fn flush(&mut self, at: usize) {
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
            let count = self.engine.send_slices(link.id, &mut slices);
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
            let id = link.id;
            if len == 0 {
                link.write_blocked = true;
                return;
            }
            self.engine.send_commit(id, len, Micros(self.now));
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

    /// Bad things end: whatever stands still moves on, and who lied is cut off.
    fn stop_faults(&mut self) {
        self.tell(|| "the faults stop".into());
        self.is_stormy = false;
        self.plan.net.delay = self.plan.net.delay.min(100);
        self.plan.net.cut = 0;
        self.plan.net.lag = 0;
        self.plan.manners.read_pause = 0;
        for at in 0..self.links.len() {
            let link = &mut self.links[at];
            link.up.unstall(self.now);
            link.down.unstall(self.now);
            if link.phase == LinkPhase::Connecting {
                self.at(self.now, Event::Connected(at));
            }
            self.at(self.now, Event::Arrive(at));
            self.at(self.now, Event::Deliver(at));
            if let Peer::Server(conn) = self.links[at].peer
                && self.conns[conn].is_broken()
            {
                self.at(self.now, Event::Lost(at, 2));
            }
        }
    }

    /// Ejected servers come back.
    fn let_servers_return(&mut self) {
        let longest = self
            .plan
            .config
            .pools
            .iter()
            .map(|pool| pool.server_retry_timeout.0)
            .max();
        let until = self.now + 2 * longest.unwrap_or(0) + 1_000_000;
        self.at(until, Event::Nothing);
        self.go(|world| world.now >= until);
    }
}
