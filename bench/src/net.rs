//! Sockets, readiness and the queue of bytes to send; nothing here knows a protocol.
//!
//! Every socket is registered once, for both directions, edge-triggered: a short read means drained, a short
//! write means that readiness will be told.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, mem};

use rustix::event::{Timespec, epoll};

use crate::failure::{During, Failure, Outcome};
use crate::num;
use crate::protocol::FILLER;

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addr {
    Tcp(String),
    Unix(PathBuf),
}

impl Addr {
    /// `/path` is a unix socket, everything else `host:port`.
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        if text.starts_with('/') {
            Ok(Self::Unix(PathBuf::from(text)))
        } else if text.contains(':') {
            Ok(Self::Tcp(text.to_owned()))
        } else {
            Err(Failure::new(format!(
                "'{text}' is neither host:port nor /path"
            )))
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => f.write_str(addr),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects and makes the socket non-blocking.
    pub(crate) fn connect(addr: &Addr) -> io::Result<Self> {
        let stream = match addr {
            Addr::Tcp(addr) => {
                let stream = TcpStream::connect(addr)?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
            Addr::Unix(path) => Self::Unix(UnixStream::connect(path)?),
        };
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    pub(crate) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(on),
            Self::Unix(stream) => stream.set_nonblocking(on),
        }
    }

    /// `None` when nothing is there yet; `Some(0)` is the end.
    pub(crate) fn recv(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        would_block(match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        })
    }

    /// `None` when the kernel takes nothing more for now.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        would_block(match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        })
    }

    fn send_slices(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        would_block(match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(crate) fn bind(addr: &Addr) -> Outcome<Self> {
        let doing = || format!("listening on {addr}");
        let listener = match addr {
            Addr::Tcp(addr) => Self::Tcp(TcpListener::bind(addr).during(doing)?),
            Addr::Unix(path) => Self::Unix(UnixListener::bind(path).during(doing)?, path.clone()),
        };
        match &listener {
            Self::Tcp(tcp) => tcp.set_nonblocking(true),
            Self::Unix(unix, _) => unix.set_nonblocking(true),
        }
        .during(doing)?;
        Ok(listener)
    }

    /// The address in use: port 0 has become a real one.
    pub(crate) fn addr(&self) -> Outcome<Addr> {
        match self {
            Self::Tcp(tcp) => {
                let addr = tcp
                    .local_addr()
                    .during(|| "asking for the port".to_owned())?;
                Ok(Addr::Tcp(addr.to_string()))
            }
            Self::Unix(_, path) => Ok(Addr::Unix(path.clone())),
        }
    }

    /// `None` when nobody waits.
    pub(crate) fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match self {
            Self::Tcp(tcp) => tcp.accept().and_then(|(stream, _)| {
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }),
            Self::Unix(unix, _) => unix.accept().map(|(stream, _)| Stream::Unix(stream)),
        };
        match accepted {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Some(stream))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix, _) => unix.as_fd(),
        }
    }
}

/// Whose socket an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Client(u32),
    /// A client of the group beside the measured one.
    Beside(u32),
    ServerConn(u32),
    Listener(u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, index) = match self {
            Self::Client(index) => (0_u64, index),
            Self::ServerConn(index) => (1, index),
            Self::Listener(index) => (2, index),
            Self::Beside(index) => (3, index),
        };
        kind << 32 | u64::from(index)
    }

    fn unpack(packed: u64) -> Self {
        let index = u32::try_from(packed & u64::from(u32::MAX)).expect("masked to 32 bits");
        match packed >> 32 {
            0 => Self::Client(index),
            1 => Self::ServerConn(index),
            2 => Self::Listener(index),
            _ => Self::Beside(index),
        }
    }
}

/// What happened to a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: Token,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// How much is done for one socket, and for how many, before the tool looks at its clock again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Portion {
    /// Whatever is there: least work per byte, for a closed loop.
    All,
    /// One block: an open loop has requests to send in time, and must know that a pause of its own was not work.
    Block,
}

impl Portion {
    /// Sockets that one look at them gives.
    const fn events(self) -> usize {
        match self {
            Self::All => 1024,
            Self::Block => 32,
        }
    }

    /// Bytes read at once.
    pub(crate) const fn recv_block(self) -> usize {
        match self {
            // More than a socket buffer usually holds.
            Self::All => 256 * 1024,
            // About 800 small requests, or as many replies: less than 0.1 ms of work.
            Self::Block => 32 * 1024,
        }
    }

    /// Bytes of one connection given to the kernel in one turn; the filler of a value is not divided further.
    const fn send_max(self) -> usize {
        match self {
            Self::All => usize::MAX,
            Self::Block => 32 * 1024,
        }
    }
}

/// Readiness of all sockets of the tool.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new(portion: Portion) -> Outcome<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .during(|| "creating the epoll instance".to_owned())?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(portion.events()),
        })
    }

    pub(crate) fn add(&self, socket: impl AsFd, token: Token) -> Outcome<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(token.pack()),
            flags,
        )
        .during(|| "watching a socket".to_owned())
    }

    /// Waits at most `timeout` and gives what happened.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Outcome<impl Iterator<Item = Event> + '_> {
        let timeout = Timespec::try_from(timeout).during(|| "a time-out".to_owned())?;
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::new(format!("waiting for sockets: {error}"))),
        }
        Ok(self.events.iter().map(|event| {
            let flags = event.flags;
            Event {
                token: Token::unpack(event.data.u64()),
                readable: flags.intersects(
                    epoll::EventFlags::IN
                        | epoll::EventFlags::RDHUP
                        | epoll::EventFlags::HUP
                        | epoll::EventFlags::ERR,
                ),
                writable: flags.contains(epoll::EventFlags::OUT),
            }
        }))
    }
}

/// Bytes waiting to be sent. A long filler is not copied into the queue but sent from one static block.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// (index into `bytes` before which the filler goes, bytes of filler left), in order.
    fillers: VecDeque<(usize, usize)>,
}

impl Outbox {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn push_number(&mut self, n: usize) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut left = n;
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(left % 10).expect("a decimal digit");
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    pub(crate) fn push_filler(&mut self, len: usize) {
        if len < COPIED_FILLER_MAX {
            self.bytes.resize(self.bytes.len() + len, FILLER);
            return;
        }
        let mut left = len;
        while left > 0 {
            let part = left.min(FILLER_BLOCK.len());
            self.fillers.push_back((self.bytes.len(), part));
            left -= part;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.fillers.is_empty()
    }

    /// Sends a portion, or less if the kernel takes no more; whether it is to be called again.
    pub(crate) fn flush(&mut self, stream: &mut Stream, portion: Portion) -> io::Result<bool> {
        let mut may_send = portion.send_max();
        while !self.is_empty() {
            if may_send == 0 {
                return Ok(true);
            }
            let sent = if self.fillers.is_empty() {
                let bytes = &self.bytes[self.sent..];
                stream.send(&bytes[..bytes.len().min(may_send)])?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let used = self.slices(&mut slices, may_send);
                stream.send_slices(&slices[..used])?
            };
            let Some(n) = sent else { break };
            self.advance(n);
            may_send = may_send.saturating_sub(n);
        }
        Ok(false)
    }

    /// At least one slice, and about so many bytes at most.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX], most: usize) -> usize {
        let mut used = 0;
        let mut at = self.sent;
        let mut bytes = 0;
        for (before, len) in &self.fillers {
            if used + 3 > SLICES_MAX || bytes >= most {
                return used;
            }
            bytes += before.saturating_sub(at) + len;
            if *before > at {
                slices[used] = IoSlice::new(&self.bytes[at..*before]);
                used += 1;
                at = *before;
            }
            slices[used] = IoSlice::new(&FILLER_BLOCK[..*len]);
            used += 1;
        }
        if at < self.bytes.len() {
            slices[used] = IoSlice::new(&self.bytes[at..]);
            used += 1;
        }
        used
    }

    fn advance(&mut self, sent: usize) {
        let mut left = sent;
        while left > 0 {
            match self.fillers.front_mut() {
                Some((before, len)) if *before == self.sent => {
                    let part = left.min(*len);
                    *len -= part;
                    left -= part;
                    if *len == 0 {
                        self.fillers.pop_front();
                    }
                }
                next => {
                    let end = next.map_or(self.bytes.len(), |(before, _)| *before);
                    let part = left.min(end - self.sent);
                    assert!(part > 0, "the kernel takes no more than it is given");
                    self.sent += part;
                    left -= part;
                }
            }
        }
        if self.sent == self.bytes.len() && self.fillers.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// All that waits, in one piece.
    #[cfg(test)]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = self.sent;
        for (before, len) in &self.fillers {
            out.extend_from_slice(&self.bytes[at..*before]);
            out.extend_from_slice(&FILLER_BLOCK[..*len]);
            at = *before;
        }
        out.extend_from_slice(&self.bytes[at..]);
        out
    }
}

/// Input of a connection that is parsed in place: whole frames straight from the shared block, an unfinished
/// frame in a tail of its own, which later reads extend.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    tail: Vec<u8>,
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The socket may hold more.
    More,
    /// The socket is empty.
    Drained,
    /// The other side closed.
    End,
}

impl Inbox {
    /// Reads once and hands all unparsed bytes to `parse`, which returns how many of them it used.
    pub(crate) fn recv<E>(
        &mut self,
        stream: &mut Stream,
        block: &mut [u8],
        mut parse: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> io::Result<Result<Received, E>> {
        let mut tail = mem::take(&mut self.tail);
        let (got, room) = if tail.is_empty() {
            (stream.recv(block)?, block.len())
        } else {
            let filled = tail.len();
            // Doubling keeps the number of times that a long frame is looked at logarithmic.
            tail.resize(filled + filled.max(TAIL_ROOM_MIN), 0);
            let room = tail.len() - filled;
            let got = stream.recv(&mut tail[filled..])?;
            tail.truncate(filled + got.unwrap_or(0));
            (got, room)
        };
        let Some(got) = got else {
            self.tail = tail;
            return Ok(Ok(Received::Drained));
        };
        if got == 0 {
            self.tail = tail;
            return Ok(Ok(Received::End));
        }
        let input = if tail.is_empty() {
            &block[..got]
        } else {
            &tail[..]
        };
        match parse(input) {
            Ok(used) if tail.is_empty() => self.tail.extend_from_slice(&input[used..]),
            Ok(used) => {
                tail.drain(..used);
                self.tail = tail;
            }
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(if got < room {
            Received::Drained
        } else {
            Received::More
        }))
    }
}

const TAIL_ROOM_MIN: usize = 16 * 1024;

/// Below this a copy is cheaper than one more slice for the kernel to walk.
const COPIED_FILLER_MAX: usize = 4096;

const SLICES_MAX: usize = 64;

static FILLER_BLOCK: [u8; 64 * 1024] = [FILLER; 64 * 1024];

const _: () = assert!(
    COPIED_FILLER_MAX <= FILLER_BLOCK.len(),
    "one block holds what is not copied"
);

/// A TCP port of the loopback that nobody uses at this moment.
pub(crate) fn free_port() -> Outcome<u16> {
    let listener =
        TcpListener::bind("127.0.0.1:0").during(|| "looking for a free port".to_owned())?;
    Ok(listener
        .local_addr()
        .during(|| "looking for a free port".to_owned())?
        .port())
}

/// Index of a connection as a token carries it.
pub(crate) fn token_index(index: usize) -> u32 {
    u32::try_from(num::wide(index)).expect("the command line bounds the number of sockets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for token in [
            Token::Client(7),
            Token::Beside(8),
            Token::ServerConn(u32::MAX),
            Token::Listener(0),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }

    #[test]
    fn outbox_keeps_fillers_in_place_whatever_the_kernel_takes() {
        let fill = |out: &mut Outbox| {
            for len in [5, 5000, 70_000, 0] {
                out.push(b"<");
                out.push_number(len);
                out.push_filler(len);
                out.push(b">");
            }
        };
        let mut whole = Outbox::default();
        fill(&mut whole);
        let expected = whole.to_bytes();
        for step in [1, 7, 4096, 65_537, expected.len()] {
            let mut out = Outbox::default();
            fill(&mut out);
            let mut left = expected.len();
            while left > 0 {
                assert_eq!(out.to_bytes(), expected[expected.len() - left..]);
                let part = step.min(left);
                out.advance(part);
                left -= part;
                if step < 4096 && left < expected.len() - 100 {
                    break;
                }
            }
            assert_eq!(out.is_empty(), left == 0);
        }
    }

    #[test]
    fn inbox_hands_over_whole_frames_however_they_arrive() {
        let (mut near, far) = UnixStream::pair().expect("a socket pair");
        let mut far = Stream::Unix(far);
        far.set_nonblocking(true).expect("non-blocking");
        let mut inbox = Inbox::default();
        let mut block = [0_u8; 64];
        let mut frames = Vec::new();
        for part in [&b"one."[..], b"tw", b"o.thr", b"ee.", b""] {
            near.write_all(part).expect("room in the socket");
            let received = inbox.recv(&mut far, &mut block, |input| {
                let used = input
                    .iter()
                    .rposition(|byte| *byte == b'.')
                    .map_or(0, |at| at + 1);
                frames.extend_from_slice(&input[..used]);
                Ok::<usize, ()>(used)
            });
            assert_eq!(received.expect("no error"), Ok(Received::Drained));
        }
        assert_eq!(frames, b"one.two.three.");
    }
}
