//! A blocking raw client: send exactly these bytes, expect exactly those, within a deadline.
//!
//! No client library's reading of a protocol stands between a test and the wire. While sending, it
//! keeps what arrives, so that a peer whose replies wait for a reader cannot lock both sides up.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::model::{self, Measure};

/// How long a test waits for anything unless it says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    received: Vec<u8>,
    deadline: Duration,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Wire {
    /// Connects to a unix socket.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub fn unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(|stream| Self::over(Stream::Unix(stream)))
    }

    /// Connects to a TCP address.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Stream::Tcp(stream)))
    }

    const fn over(stream: Stream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// The same connection with another patience.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("sending {}: {error}", escape(bytes)));
    }

    /// Sends `bytes` as far as the peer takes them; a peer that has closed is no failure.
    pub fn send_what_it_takes(&mut self, bytes: &[u8]) {
        // The connection's fate is what the caller asserts next.
        let _ = self.try_send(bytes);
    }

    /// Sends `bytes` one at a time, each with a system call of its own.
    #[track_caller]
    pub fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(std::slice::from_ref(byte));
        }
    }

    fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let until = Instant::now() + self.deadline;
        let mut rest = bytes;
        self.stream.set_write_timeout(PARK)?;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => rest = &rest[taken..],
                Err(error) if is_timeout(&error) => {
                    while self.fill(Duration::ZERO)? {}
                    if Instant::now() > until {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing more will be sent, and goes on reading.
    #[track_caller]
    pub fn half_close(&mut self) {
        let done = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
        done.expect("the connection is open");
    }

    /// The next bytes must be `expected`; what comes after them is kept.
    #[track_caller]
    pub fn expect(&mut self, expected: &[u8]) {
        let until = Instant::now() + self.deadline;
        loop {
            let seen = self.received.len().min(expected.len());
            if self.received[..seen] != expected[..seen] {
                panic!("{}", difference(expected, &self.received));
            }
            if seen == expected.len() {
                self.received.drain(..seen);
                return;
            }
            if let Err(end) = self.more(until) {
                panic!("{end}; {}", difference(expected, &self.received));
            }
        }
    }

    /// Sends and expects.
    #[track_caller]
    pub fn roundtrip(&mut self, request: &[u8], expected: &[u8]) {
        self.send(request);
        self.expect(expected);
    }

    /// The peer must close now, without another byte. A reset counts as a close.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let until = Instant::now() + self.deadline;
        loop {
            assert!(
                self.received.is_empty(),
                "a close was expected, got {}",
                escape(&self.received)
            );
            match self.more(until) {
                Ok(()) => {}
                Err(End::Deadline) => panic!("a close was expected, the connection stays open"),
                Err(End::Closed | End::Failed(_)) => return,
            }
        }
    }

    /// Everything up to the peer's close.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let until = Instant::now() + self.deadline;
        loop {
            match self.more(until) {
                Ok(()) => {}
                Err(End::Deadline) => {
                    panic!(
                        "no close within the deadline; got {}",
                        escape(&self.received)
                    )
                }
                Err(End::Closed | End::Failed(_)) => return std::mem::take(&mut self.received),
            }
        }
    }

    /// One redis reply, whole.
    #[track_caller]
    pub fn read_redis(&mut self) -> Vec<u8> {
        self.read_measured(model::redis::measure_reply)
    }

    /// One redis reply, whole; `None` if the peer closes before it is.
    #[track_caller]
    pub fn try_read_redis(&mut self) -> Option<Vec<u8>> {
        let until = Instant::now() + self.deadline;
        loop {
            match model::redis::measure_reply(&self.received) {
                Measure::Done(len) => return Some(self.received.drain(..len).collect()),
                Measure::Broken => panic!("not a response: {}", escape(&self.received)),
                Measure::More => {}
            }
            match self.more(until) {
                Ok(()) => {}
                Err(End::Deadline) => panic!("deadline passed; got {}", escape(&self.received)),
                Err(End::Closed | End::Failed(_)) => return None,
            }
        }
    }

    /// One memcached response, whole.
    #[track_caller]
    pub fn read_memcache(&mut self) -> Vec<u8> {
        self.read_measured(model::memcache::measure_response)
    }

    /// One message as `measure` sees it.
    #[track_caller]
    fn read_measured(&mut self, measure: fn(&[u8]) -> Measure) -> Vec<u8> {
        let until = Instant::now() + self.deadline;
        loop {
            match measure(&self.received) {
                Measure::Done(len) => return self.received.drain(..len).collect(),
                Measure::Broken => panic!("not a response: {}", escape(&self.received)),
                Measure::More => {}
            }
            if let Err(end) = self.more(until) {
                panic!("{end} in the middle of {}", escape(&self.received));
            }
        }
    }

    /// Waits for at least one further byte.
    fn more(&mut self, until: Instant) -> Result<(), End> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::Deadline);
            }
            match self.fill(left) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(End::Closed);
                }
                Err(error) => return Err(End::Failed(error)),
            }
        }
    }

    /// Reads once; whether anything came. The peer's close is `UnexpectedEof`.
    fn fill(&mut self, patience: Duration) -> io::Result<bool> {
        let mut space = vec![0; 64 * 1024];
        self.stream.set_read_timeout(patience)?;
        match self.stream.read(&mut space) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.received.extend_from_slice(&space[..len]);
                Ok(true)
            }
            Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// How long one system call waits before the clock is looked at again.
const PARK: Duration = Duration::from_millis(5);

/// Why no more bytes came.
enum End {
    Deadline,
    Closed,
    Failed(io::Error),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deadline => f.write_str("deadline passed"),
            Self::Closed => f.write_str("peer closed"),
            Self::Failed(error) => write!(f, "connection failed ({error})"),
        }
    }
}

impl Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(space),
            Self::Tcp(stream) => stream.read(space),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn set_read_timeout(&self, patience: Duration) -> io::Result<()> {
        // Zero would mean for ever.
        let patience = Some(patience.max(Duration::from_millis(1)));
        match self {
            Self::Unix(stream) => stream.set_read_timeout(patience),
            Self::Tcp(stream) => stream.set_read_timeout(patience),
        }
    }

    fn set_write_timeout(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(Some(patience)),
            Self::Tcp(stream) => stream.set_write_timeout(Some(patience)),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Bytes as readable text, at most a screenful.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    const SHOWN: usize = 400;
    let mut text = String::from("\"");
    for byte in bytes.iter().take(SHOWN) {
        write!(text, "{}", std::ascii::escape_default(*byte)).expect("a string takes everything");
    }
    text.push('"');
    if bytes.len() > SHOWN {
        write!(text, "... ({} bytes)", bytes.len()).expect("a string takes everything");
    }
    text
}

/// Where `actual` leaves `expected`, with the neighbourhood of that place on both sides.
#[must_use]
pub fn difference(expected: &[u8], actual: &[u8]) -> String {
    const BEFORE: usize = 24;
    let common = expected
        .iter()
        .zip(actual)
        .take_while(|(a, b)| a == b)
        .count();
    let from = common.saturating_sub(BEFORE);
    format!(
        "first difference at byte {common} (shown from byte {from})\n  expected ({} bytes): {}\n  actual   ({} bytes): {}",
        expected.len(),
        escape(&expected[from..]),
        actual.len(),
        escape(&actual[from..]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = Wire::over(Stream::Unix(ours)).with_deadline(Duration::from_millis(200));
        (wire, theirs)
    }

    #[test]
    fn replies_are_cut_where_they_end() {
        let (mut wire, mut peer) = pair();
        peer.write_all(b"$3\r\nabc\r\n:1\r\nVALUE a 0 2\r\n\r\n\r\nEND\r\nrest")
            .unwrap();
        assert_eq!(wire.read_redis(), b"$3\r\nabc\r\n");
        wire.expect(b":1\r\n");
        assert_eq!(wire.read_memcache(), b"VALUE a 0 2\r\n\r\n\r\nEND\r\n");
        wire.expect(b"rest");
        drop(peer);
        wire.expect_close();
    }

    #[test]
    fn sending_more_than_fits_keeps_what_arrives() {
        let (wire, mut peer) = pair();
        let mut wire = wire.with_deadline(DEADLINE);
        let wire_end = std::thread::spawn(move || {
            let big = vec![7; 1 << 20];
            wire.send(&big);
            wire.expect(&big);
        });
        let mut chunk = vec![0; 4096];
        let mut left = 1 << 20;
        while left > 0 {
            let len = peer.read(&mut chunk).unwrap();
            peer.write_all(&chunk[..len]).unwrap();
            left -= len;
        }
        wire_end.join().unwrap();
    }

    #[test]
    #[should_panic(expected = "first difference at byte 1")]
    fn a_wrong_byte_is_pointed_at() {
        let (mut wire, mut peer) = pair();
        peer.write_all(b"-OK\r\n+OX").unwrap();
        wire.expect(b"-OK\r\n");
        wire.expect(b"+XK");
    }

    #[test]
    #[should_panic(expected = "stays open")]
    fn an_open_connection_is_no_close() {
        let (mut wire, _peer) = pair();
        wire.expect_close();
    }
}
