//! Readiness, behind an API small enough to be served by something else than mio.
//!
//! Every source is registered once, for reading and writing, edge-triggered, and never again: no
//! system call per event beside the read or write itself. Dropping a socket deregisters it.

use std::io;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Token};

const _: () = assert!(
    usize::BITS == 64,
    "a connection id fills the poller's token of one machine word"
);

/// Waits for readiness. Owned by one thread.
#[derive(Debug)]
pub(crate) struct Poller(mio::Poll);

/// Room for what one wait returns.
#[derive(Debug)]
pub(crate) struct Events(mio::Events);

/// Wakes the poller of another thread.
#[derive(Debug)]
pub(crate) struct Waker(mio::Waker);

/// What became of one source since the last wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    /// The token of its registration.
    pub(crate) token: u64,
    /// There are bytes, an end of input or an error to read.
    pub(crate) readable: bool,
    /// There is room to write.
    pub(crate) writable: bool,
    /// The peer will send no more: read on until the end of input shows.
    pub(crate) hangup: bool,
    /// The socket has an error.
    pub(crate) error: bool,
    /// An urgent byte is in the kernel's buffer: each read ends before it, however much is behind it.
    pub(crate) urgent: bool,
}

/// Token of the [`Waker`]. Beyond any connection's: nobody holds 2^32 of them.
pub(crate) const WAKER_TOKEN: u64 = u64::MAX;

/// Events awaited of a connection. An urgent byte is told of on Linux alone.
#[cfg(target_os = "linux")]
const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);
#[cfg(not(target_os = "linux"))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl Poller {
    /// A poller without sources.
    pub(crate) fn new() -> io::Result<Self> {
        mio::Poll::new().map(Self)
    }

    /// A handle with which other threads end this poller's wait; it yields [`WAKER_TOKEN`].
    pub(crate) fn waker(&self) -> io::Result<Waker> {
        mio::Waker::new(self.0.registry(), token(WAKER_TOKEN)).map(Waker)
    }

    /// Registers `source` for good.
    pub(crate) fn add(&self, source: &mut impl Source, as_token: u64) -> io::Result<()> {
        self.0
            .registry()
            .register(source, token(as_token), INTEREST)
    }

    /// Registers `source`, of which only connections to accept are awaited, for good.
    pub(crate) fn add_listener(&self, source: &mut impl Source, as_token: u64) -> io::Result<()> {
        self.0
            .registry()
            .register(source, token(as_token), Interest::READABLE)
    }

    /// Sleeps until something happens, `timeout` has passed or a signal came.
    pub(crate) fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) {
        match self.0.poll(&mut events.0, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.0.clear(),
            // Only a bad descriptor or pointer is left, and both are ours.
            Err(error) => panic!("waiting for events failed: {error}"),
        }
    }
}

impl Events {
    /// Room for `capacity` events.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(mio::Events::with_capacity(capacity))
    }

    /// Whether the last wait returned nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the last wait returned.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Event> {
        self.0.iter().map(|event| Event {
            token: from_token(event.token()),
            readable: event.is_readable(),
            writable: event.is_writable(),
            hangup: event.is_read_closed(),
            error: event.is_error(),
            urgent: event.is_priority(),
        })
    }
}

impl Waker {
    /// Ends the poller's wait, now or the next one. Idempotent until the poller has woken.
    pub(crate) fn wake(&self) {
        self.0
            .wake()
            .expect("an event descriptor takes a write as long as it is open");
    }
}

#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits, asserted above"
)]
const fn token(token: u64) -> Token {
    Token(token as usize)
}

#[allow(clippy::as_conversions, reason = "usize has 64 bits, asserted above")]
const fn from_token(token: Token) -> u64 {
    token.0 as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const DEADLINE: Option<Duration> = Some(Duration::from_secs(10));

    #[test]
    fn a_waker_ends_the_wait_of_another_thread() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker().unwrap();
        // A waker that is dropped takes its wake-up with it.
        let thread = std::thread::spawn(move || {
            waker.wake();
            waker
        });
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, DEADLINE);
        let tokens: Vec<u64> = events.iter().map(|event| event.token).collect();
        assert_eq!(tokens, [WAKER_TOKEN]);
        drop(thread.join().unwrap());
    }

    #[test]
    fn data_followed_by_the_end_of_input_is_one_edge_with_hangup() {
        let mut poller = Poller::new().unwrap();
        let (ours, mut peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        peer.write_all(b"x").unwrap();
        drop(peer);
        let mut source = mio::net::UnixStream::from_std(ours);
        poller.add(&mut source, 42).unwrap();
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, DEADLINE);
        let event = events.iter().next().unwrap();
        assert_eq!(
            (event.token, event.readable, event.hangup),
            (42, true, true)
        );

        poller.wait(&mut events, Some(Duration::ZERO));
        assert_eq!(events.iter().count(), 0, "edge-triggered");
    }
}
