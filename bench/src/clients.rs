//! The client side of a run: who may send when, what was sent, how long each reply took.
//!
//! Owns the connections to the pool. Invariants:
//! 1. `in_flight` of a client equals the requests in `waiting`;
//! 2. replies are checked in the order of the requests, each byte that says something;
//! 3. a latency counts from when the request was *meant* to be sent, so a late tool shows up in the result.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::failure::{During, Failure, Outcome};
use crate::net::{Addr, Poller, Portion, Stream, Token, token_index};
use crate::num;
use crate::script::{Cursor, Mismatch, Script, SetCursor};

/// Latencies in nanoseconds.
pub(crate) type Latencies = Histogram<u64>;

/// (due, how long it took), nanoseconds: what a histogram cannot be asked afterwards is *when*.
pub(crate) type Samples = Vec<(u64, u64)>;

/// An empty histogram from 1 ns to one minute, three digits.
pub(crate) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are fixed and valid")
}

/// How requests become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each client keeps this many requests in flight; a reply makes the next one due.
    Closed { depth: u32 },
    /// This many requests per second in total, whatever the replies do; so many at once from one client, then as many
    /// from the next.
    Open { rate: u64, burst: u64 },
}

#[derive(Debug)]
enum Check {
    Ordered(Cursor),
    Unordered(SetCursor),
}

impl Check {
    fn feed(&mut self, script: &Script, input: &[u8]) -> Result<usize, Mismatch> {
        match self {
            Self::Ordered(cursor) => cursor.feed(script, input),
            Self::Unordered(cursor) => cursor.feed(script, input),
        }
    }
}

#[derive(Debug)]
struct Client {
    stream: Stream,
    check: Check,
    /// The request that becomes due next.
    next: usize,
    /// Where in the script's bytes sending goes on, and how many of them are due.
    position: usize,
    unsent: usize,
    /// When those requests of an open loop were due that were not offered to the kernel yet.
    not_offered: Vec<u64>,
    in_flight: usize,
    /// There may be something to read.
    readable: bool,
    /// Bytes read so far.
    read: u64,
    /// Requests without reply, oldest first: (due at, how many).
    waiting: VecDeque<(u64, u64)>,
    /// Whether this client is on the list of those with something to send.
    is_dirty: bool,
}

/// Who sends together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) count: u32,
    pub(crate) pace: Pace,
    /// Bytes per second that each of them reads at most.
    pub(crate) read_rate: Option<u64>,
    /// How much of a client's replies is read before the other sockets have their turn.
    pub(crate) portion: Portion,
    /// The token of its n-th socket.
    pub(crate) token: fn(u32) -> Token,
}

/// All clients of a group.
#[derive(Debug)]
pub(crate) struct Clients {
    script: Script,
    clients: Vec<Client>,
    dirty: Vec<u32>,
    /// Clients that were left with something to read.
    unread: VecDeque<u32>,
    pace: Pace,
    read_rate: Option<u64>,
    portion: Portion,
    /// Replies so far.
    pub(crate) replies: u64,
    /// From due to reply, of the measured part of a closed loop.
    pub(crate) latency: Latencies,
    /// The same of an open loop, each by itself.
    pub(crate) latencies: Samples,
    /// From due to handed to the kernel: how late the tool itself was with each request of an open loop.
    pub(crate) lags: Samples,
    /// When the first request of an open loop is due, how many became due so far, and when the next does.
    first_due: u64,
    issued: u64,
    next_due: u64,
    is_open_for_more: bool,
}

impl Clients {
    /// Connects a group of clients and watches them.
    pub(crate) fn connect(
        addr: &Addr,
        group: &Group,
        script: Script,
        poller: &Poller,
    ) -> Outcome<Self> {
        let Group {
            count,
            pace,
            read_rate,
            portion,
            token,
        } = *group;
        let count = usize::try_from(count).during(|| "the number of clients".to_owned())?;
        let mut clients = Vec::with_capacity(count);
        for index in 0..count {
            let stream = Stream::connect(addr).during(|| format!("connecting to {addr}"))?;
            poller.add(&stream, token(token_index(index)))?;
            let start = script.start_of(index, count);
            clients.push(Client {
                stream,
                check: if script.traffic.is_unordered() {
                    Check::Unordered(SetCursor::new(&script, start))
                } else {
                    Check::Ordered(Cursor::new(start))
                },
                next: start,
                position: script.request(start).start,
                unsent: 0,
                not_offered: Vec::new(),
                in_flight: 0,
                readable: false,
                read: 0,
                waiting: VecDeque::new(),
                is_dirty: false,
            });
        }
        Ok(Self {
            script,
            clients,
            dirty: Vec::with_capacity(count),
            unread: VecDeque::new(),
            pace,
            read_rate,
            portion,
            replies: 0,
            latency: latencies(),
            latencies: Samples::new(),
            lags: Samples::new(),
            first_due: 0,
            issued: 0,
            next_due: 0,
            is_open_for_more: true,
        })
    }

    /// Makes the first requests of a closed loop due; an open loop owes nothing for the time before.
    pub(crate) fn start(&mut self, now: u64) {
        self.first_due = now;
        self.next_due = now;
        if let Pace::Closed { depth } = self.pace {
            for index in 0..self.clients.len() {
                self.queue(index, now, u64::from(depth));
            }
        }
    }

    /// Makes what an open loop owes by `now` due.
    pub(crate) fn keep_pace(&mut self, now: u64) {
        let Pace::Open { rate, burst } = self.pace else {
            return;
        };
        while self.next_due <= now && self.is_open_for_more {
            let burst_number = self.issued / burst;
            let client = num::index(burst_number % num::wide(self.clients.len()));
            self.queue(client, self.next_due, 1);
            self.issued += 1;
            self.next_due = self.first_due + due_at(self.issued / burst * burst, rate);
        }
    }

    /// No request becomes due any more; those in flight are still awaited, and nobody is slow any more.
    pub(crate) fn finish(&mut self) {
        self.is_open_for_more = false;
        if self.read_rate.take().is_some() {
            let unread = (0..self.clients.len()).filter(|index| self.clients[*index].readable);
            self.unread = unread.map(token_index).collect();
        }
    }

    /// The requests of an open loop that still wait have waited so long at least: an overload counts, it has no end.
    pub(crate) fn count_waiting(&mut self, now: u64) {
        for client in &self.clients {
            let waiting = client.waiting.iter();
            self.latencies
                .extend(waiting.map(|(due, _)| (*due, now.saturating_sub(*due))));
        }
    }

    /// Requests sent or due whose replies are missing.
    pub(crate) fn in_flight(&self) -> usize {
        self.clients.iter().map(|client| client.in_flight).sum()
    }

    /// Forgets the latencies so far: the measured part begins, in which about so many replies come.
    pub(crate) fn reset_latencies(&mut self, expected: usize) {
        self.latency.reset();
        for samples in [&mut self.latencies, &mut self.lags] {
            // Touched here, so that the kernel does not have to find memory while time is taken.
            samples.clear();
            samples.resize(expected, (0, 0));
            samples.clear();
        }
    }

    /// Reads and checks what the proxy sent to a client, by portions; a slow reader does when it is time.
    pub(crate) fn handle_readable(
        &mut self,
        index: u32,
        block: &mut [u8],
        now: u64,
    ) -> Outcome<()> {
        let at = num::index(u64::from(index));
        let was_readable = std::mem::replace(&mut self.clients[at].readable, true);
        if self.read_rate.is_some() || (was_readable && self.portion == Portion::Block) {
            return Ok(());
        }
        self.read_portion(index, block, now)
    }

    /// Goes on with one of the clients that were left with something to read.
    pub(crate) fn read_on(&mut self, block: &mut [u8], now: u64) -> Outcome<()> {
        match self.unread.pop_front() {
            Some(index) => self.read_portion(index, block, now),
            None => Ok(()),
        }
    }

    fn read_portion(&mut self, index: u32, block: &mut [u8], now: u64) -> Outcome<()> {
        let at = num::index(u64::from(index));
        while self.clients[at].readable {
            self.read_once(at, block, now)?;
            if self.portion == Portion::Block {
                if self.clients[at].readable {
                    self.unread.push_back(index);
                }
                break;
            }
        }
        Ok(())
    }

    /// Reads what slow readers may have read by `now`.
    pub(crate) fn read_slowly(&mut self, block: &mut [u8], now: u64) -> Outcome<()> {
        let Some(rate) = self.read_rate else {
            return Ok(());
        };
        for index in 0..self.clients.len() {
            while self.clients[index].readable {
                let may_read = allowance(rate, now).saturating_sub(self.clients[index].read);
                let room = block.len().min(num::index(may_read));
                if room < SLOW_READ_MIN {
                    break;
                }
                self.read_once(index, &mut block[..room], now)?;
            }
        }
        Ok(())
    }

    fn read_once(&mut self, index: usize, block: &mut [u8], now: u64) -> Outcome<()> {
        let client = &mut self.clients[index];
        let got = client
            .stream
            .recv(block)
            .during(|| format!("client {index}: reading"))?;
        let Some(got) = got else {
            client.readable = false;
            return Ok(());
        };
        if got == 0 {
            return Err(Failure::new(format!(
                "client {index}: the proxy closed the connection with {} requests in flight",
                client.in_flight
            )));
        }
        let completed = client
            .check
            .feed(&self.script, &block[..got])
            .map_err(|mismatch| {
                Failure::new(format!(
                    "client {index}: wrong reply: \"{}\" instead of \"{}\"",
                    mismatch.got.escape_ascii(),
                    mismatch.expected.escape_ascii()
                ))
            })?;
        client.read += num::wide(got);
        client.readable = got == block.len();
        self.take_replies(index, completed, now)
    }

    /// Goes on where the kernel took nothing more.
    pub(crate) fn handle_writable(&mut self, index: u32) {
        let client = &mut self.clients[num::index(u64::from(index))];
        if client.unsent > 0 && !client.is_dirty {
            client.is_dirty = true;
            self.dirty.push(index);
        }
    }

    /// Sends all that is due. `now` tells the time for the tool's own lag.
    pub(crate) fn flush(&mut self, now: impl Fn() -> u64) -> Outcome<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let client = &mut self.clients[num::index(u64::from(index))];
            client.is_dirty = false;
            while client.unsent > 0 {
                let end = (client.position + client.unsent).min(self.script.requests.len());
                let bytes = &self.script.requests[client.position..end];
                let sent = client
                    .stream
                    .send(bytes)
                    .during(|| format!("client {index}: writing"))?;
                let Some(sent) = sent else { break };
                client.unsent -= sent;
                client.position += sent;
                if client.position == self.script.requests.len() {
                    client.position = 0;
                }
            }
            if !client.not_offered.is_empty() {
                // What the kernel did not take now is no lag of ours: the proxy has not read what came before.
                let now = now();
                let lags = client.not_offered.drain(..);
                self.lags
                    .extend(lags.map(|due| (due, now.saturating_sub(due))));
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn take_replies(&mut self, index: usize, completed: usize, now: u64) -> Outcome<()> {
        let client = &mut self.clients[index];
        let mut left = num::wide(completed);
        while left > 0 {
            let Some((due, count)) = client.waiting.front_mut() else {
                return Err(Failure::new(format!(
                    "client {index}: more replies than requests"
                )));
            };
            let part = left.min(*count);
            let took = now.saturating_sub(*due).max(1);
            if matches!(self.pace, Pace::Open { .. }) {
                // One entry is one request there.
                self.latencies.push((*due, took));
            } else {
                self.latency.saturating_record_n(took, part);
            }
            *count -= part;
            left -= part;
            if *count == 0 {
                client.waiting.pop_front();
            }
        }
        client.in_flight -= completed;
        self.replies += num::wide(completed);
        if completed > 0 && self.is_open_for_more && matches!(self.pace, Pace::Closed { .. }) {
            self.queue(index, now, num::wide(completed));
        }
        Ok(())
    }

    fn queue(&mut self, index: usize, due: u64, count: u64) {
        let client = &mut self.clients[index];
        for _ in 0..count {
            client.unsent += self.script.request(client.next).len();
            client.next += 1;
            if client.next == self.script.len() {
                client.next = 0;
            }
        }
        client.in_flight += num::index(count);
        client.waiting.push_back((due, count));
        if matches!(self.pace, Pace::Open { .. }) {
            client.not_offered.push(due);
        }
        if !client.is_dirty {
            client.is_dirty = true;
            self.dirty.push(token_index(index));
        }
    }
}

/// Bytes that a slow reader may have read by `now`.
fn allowance(rate: u64, now: u64) -> u64 {
    // Split as in [`due_at`].
    now / 1_000_000_000 * rate + now % 1_000_000_000 * rate / 1_000_000_000
}

/// A slow reader reads so much at once: fewer system calls for the tool, which has others to serve.
const SLOW_READ_MIN: usize = 16 * 1024;

/// When request number `n` of an open loop is due, nanoseconds after its start.
fn due_at(n: u64, rate: u64) -> u64 {
    // Split so that the product stays within 64 bits for any run that ends.
    n / rate * 1_000_000_000 + n % rate * 1_000_000_000 / rate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_loop_requests_are_due_at_equal_distances() {
        assert_eq!(due_at(0, 1000), 0);
        assert_eq!(due_at(1, 1000), 1_000_000);
        assert_eq!(due_at(2500, 1000), 2_500_000_000);
        assert_eq!(due_at(3, 7), 428_571_428);
    }

    #[test]
    fn a_stall_of_the_tool_shows_in_the_lag_of_each_request_that_it_delayed_and_its_start_does_not()
    {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pool.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let traffic = crate::script::Traffic {
            protocol: crate::protocol::Protocol::Redis,
            op: crate::protocol::Op::Get,
            keys: 1,
            value_size: 32,
            key_lengths: crate::protocol::KeyLengths::Mixed,
        };
        let group = Group {
            count: 2,
            pace: Pace::Open {
                rate: 1000,
                burst: 1,
            },
            read_rate: None,
            portion: Portion::Block,
            token: Token::Client,
        };
        let script = Script::new(traffic, 0);
        let poller = Poller::new(Portion::Block).expect("an epoll instance");
        let mut clients = Clients::connect(&Addr::Unix(path), &group, script, &poller)
            .expect("room for two connections");
        let start = 5_000_000_000;
        clients.start(start);
        let told = |clients: &mut Clients, now: u64| {
            clients.keep_pace(now);
            clients.flush(|| now).expect("a connection");
            let mut lags: Vec<u64> = clients.lags.drain(..).map(|(_, lag)| lag).collect();
            lags.sort_unstable();
            lags
        };
        // Nothing was looked at for 8 ms, in which nine requests became due.
        let expected: Vec<u64> = (0..=8).map(|ms| ms * 1_000_000).collect();
        assert_eq!(told(&mut clients, start + 8_000_000), expected);
        // Nobody reads: what the socket has no room for is no lag of the tool's.
        while clients.clients.iter().all(|client| client.unsent == 0) {
            let now = clients.next_due;
            assert_eq!(told(&mut clients, now), [0]);
        }
        let now = clients.next_due + 1_000_000;
        assert_eq!(told(&mut clients, now), [0, 1_000_000]);
        drop(listener);
    }

    #[test]
    fn a_slow_reader_may_read_its_rate_and_no_more() {
        assert_eq!(allowance(1_000_000, 0), 0);
        assert_eq!(allowance(1_000_000, 16_384_000), 16_384);
        assert_eq!(allowance(1_000_000, 2_500_000_000), 2_500_000);
    }
}
