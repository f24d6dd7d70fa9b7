//! The world around the engines: virtual time, events, connections, and the way the world ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use twemproxy_core::engine::Closed;
use twemproxy_core::ids::ConnId;
use twemproxy_core::owner::HealthOwner;
use twemproxy_core::time::Micros;

use super::client::Client;
use super::dice::Dice;
use super::oracle::PoolView;
use super::pipe::Pipe;
use super::plan::Plan;
use super::server::{ServerConn, ServerState};
use super::words::Fingerprints;
use super::worker::Worker;

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
    /// A worker's report reaches the owner of the servers' health.
    Report(usize),
    /// Mail of the owner reaches a worker.
    Mail(usize),
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
    /// Whose it is.
    pub(super) worker: usize,
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
    /// When bytes last left it.
    pub(super) last_departure: u64,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) workers: Vec<Worker>,
    /// The owner of the servers' health.
    pub(super) owner: HealthOwner,
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
    /// The last questions are being asked.
    pub(super) is_last: bool,
    /// Fingerprints of the writes that servers executed.
    pub(super) executed: Fingerprints,
    /// What happened, for a failure; `None` if nobody will ask.
    pub(super) story: Option<Vec<String>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_order: u64,
    /// Server connections that are to be closed before the tick ends, and why.
    pub(super) condemned: Vec<(usize, &'static str)>,
    /// A worker is busy.
    pub(super) is_unsettled: bool,
    /// Work saved up for looking the engines over.
    look: usize,
}

impl World {
    pub(super) fn new(seed: u64, with_story: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let config = Arc::new(plan.config.clone());
        let pools: Vec<_> = PoolView::all(&config);
        let servers = ServerState::all(&plan);
        let owner = HealthOwner::new(&config);
        Self {
            workers: Worker::all(plan.engines, &config, &owner, &mut dice),
            owner,
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
            is_last: false,
            executed: Fingerprints::default(),
            story: with_story.then(Vec::new),
            events: BinaryHeap::new(),
            next_order: 0,
            condemned: Vec::new(),
            is_unsettled: true,
            look: 0,
            dice,
            plan,
        }
    }

    /// The whole life of this world.
    pub(super) fn run(&mut self) {
        for worker in &mut self.workers {
            worker.engine.start(Micros(self.now));
        }
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
            if self.is_unsettled && !self.shell_goes_on() {
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
        let alarm = self.next_alarm();
        let alarm_at = alarm.map(|(at, _)| at);
        let Some(at) = event_at.into_iter().chain(alarm_at).min() else {
            return false;
        };
        if at > self.now {
            if self.is_unsettled {
                self.settle();
                return true;
            }
            self.now = at;
            if self.dice.chance(self.plan.net.lag) {
                self.now += self.dice.micros(3_000);
            }
        }
        self.step += 1;
        let due = alarm.filter(|(at, _)| *at <= self.now);
        let is_event_due = event_at.is_some_and(|at| at <= self.now);
        if let Some((_, who)) = due
            && (!is_event_due || self.dice.chance(500))
        {
            self.ring(who);
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
            Event::Report(worker) => self.read_report(worker),
            Event::Mail(worker) => self.read_mail(worker),
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

    /// The end of a tick of all workers that have been told something.
    pub(super) fn settle(&mut self) {
        self.look += LOOK_PER_TICK;
        // Who takes notes wants to know the very tick.
        let looks = self.look >= self.owed || self.story.is_some();
        if looks {
            self.look = 0;
        }
        for at in 0..self.workers.len() {
            if !std::mem::take(&mut self.workers[at].is_busy) {
                continue;
            }
            self.finish_tick(at);
            self.post_reports(at);
            if looks {
                self.workers[at].engine.check_invariants();
            }
        }
        self.is_unsettled = false;
        for (link, why) in self.condemned.drain(..) {
            assert_eq!(self.links[link].phase, LinkPhase::Closed, "{why}");
        }
        self.check_gauges();
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
