//! The clients of the statistics port, served side by side: none of them waits for a slow one.
//!
//! One thread does it, with sockets that never block. A visitor is sent its answer, then the end;
//! the socket is closed once the visitor has closed, too, because closing with unread input resets
//! the connection and may take the answer along.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::Socket;

use crate::limits::{
    ACCEPT_PAUSE, CLOSE_DISCARD_LEN, STATS_CLIENTS_MAX, STATS_CLOSE_WAIT, STATS_COMPLAINT_PAUSE,
    STATS_WRITE_WAIT,
};
use crate::log::{Level, log};
use crate::net::errno;

/// The listening socket, what it answers, and who is there.
pub(super) struct Door<'a> {
    listener: &'a Socket,
    render: &'a dyn Fn() -> String,
    visitors: Vec<Visitor>,
    /// Nobody is let in before, for want of descriptors.
    resting_until: Option<Instant>,
    complaints: Complaints,
}

/// One connection.
struct Visitor {
    socket: Socket,
    stage: Stage,
    /// When the present stage ends, whatever the visitor does.
    deadline: Instant,
    /// The last time that bytes moved.
    moved: Instant,
}

enum Stage {
    /// The answer, and how much of it was sent. Those who come together share one.
    Sending(Arc<[u8]>, usize),
    /// All is sent; so many bytes of input were dropped since.
    Leaving(usize),
}

/// The outcome of a step.
enum Step {
    /// The visitor has to wait for its peer.
    Stays,
    /// The connection is at its end.
    Gone,
    /// The answer could not be sent.
    Failed(io::Error),
}

impl<'a> Door<'a> {
    /// A door to a listener that does not block.
    pub(super) fn new(listener: &'a Socket, render: &'a dyn Fn() -> String) -> Self {
        Self {
            listener,
            render,
            visitors: Vec::new(),
            resting_until: None,
            complaints: Complaints::default(),
        }
    }

    /// Answers for ever.
    pub(super) fn run(mut self) {
        loop {
            self.wait();
            self.let_in(Instant::now());
            self.serve(Instant::now());
        }
    }

    /// Until a socket is ready or a time is over.
    fn wait(&self) {
        let now = Instant::now();
        let mut sockets = Vec::with_capacity(STATS_CLIENTS_MAX + 1);
        for visitor in &self.visitors {
            let ready = match visitor.stage {
                Stage::Sending(..) => PollFlags::OUT,
                Stage::Leaving(_) => PollFlags::IN,
            };
            sockets.push(PollFd::new(&visitor.socket, ready));
        }
        if self.resting_until.is_none() {
            sockets.push(PollFd::new(self.listener, PollFlags::IN));
        }
        let times = self.visitors.iter().map(|visitor| visitor.deadline);
        let timeout = times.chain(self.resting_until).min().map(|at| {
            let left = at.saturating_duration_since(now);
            // Rounded up, or the last millisecond is spent awake.
            Timespec::try_from(left + Duration::from_millis(1)).unwrap_or_default()
        });
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // The system has no memory for the moment.
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    }

    /// Takes those who wait at the door. One more than there is room for takes the place of the
    /// visitor that moves least.
    fn let_in(&mut self, now: Instant) {
        if self.resting_until.is_some_and(|until| now < until) {
            return;
        }
        self.resting_until = None;
        let mut answer = None;
        for _ in 0..STATS_CLIENTS_MAX {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.refuse(&error, now);
                    return;
                }
            };
            // A socket on which that fails could block everybody.
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            if self.visitors.len() >= STATS_CLIENTS_MAX {
                self.evict(now);
            }
            let answer = answer.get_or_insert_with(|| Arc::from((self.render)().into_bytes()));
            self.visitors.push(Visitor {
                socket,
                stage: Stage::Sending(Arc::clone(answer), 0),
                deadline: now + STATS_WRITE_WAIT,
                moved: now,
            });
        }
    }

    fn refuse(&mut self, error: &io::Error, now: Instant) {
        let (m, text) = (self.listener.as_raw_fd(), errno::text(error));
        self.complaints
            .make(now, &format!("accept on m {m} failed: {text}"));
        if errno::is_exhaustion(error) {
            self.resting_until = Some(now + ACCEPT_PAUSE);
        }
    }

    /// Those who have their answer go first.
    fn evict(&mut self, now: Instant) {
        let least = (0..self.visitors.len()).min_by_key(|&at| {
            let visitor = &self.visitors[at];
            (matches!(visitor.stage, Stage::Sending(..)), visitor.moved)
        });
        let Some(least) = least else { return };
        let visitor = self.visitors.swap_remove(least);
        if let Stage::Sending(..) = visitor.stage {
            let error = io::Error::other("too slow, and others came");
            self.complaints.of(visitor.socket.as_raw_fd(), &error, now);
        }
    }

    /// One step of each visitor.
    fn serve(&mut self, now: Instant) {
        let complaints = &mut self.complaints;
        self.visitors.retain_mut(|visitor| match visitor.step(now) {
            Step::Stays => true,
            Step::Gone => false,
            Step::Failed(error) => {
                complaints.of(visitor.socket.as_raw_fd(), &error, now);
                false
            }
        });
    }
}

impl Visitor {
    fn step(&mut self, now: Instant) -> Step {
        let step = match self.stage {
            Stage::Sending(..) => self.send(now),
            Stage::Leaving(_) => self.leave(),
        };
        match (step, &self.stage) {
            (Step::Stays, Stage::Sending(..)) if now >= self.deadline => {
                Step::Failed(io::ErrorKind::TimedOut.into())
            }
            (Step::Stays, Stage::Leaving(_)) if now >= self.deadline => Step::Gone,
            (step, _) => step,
        }
    }

    /// Writes once, so that a fast reader does not hold up the others.
    fn send(&mut self, now: Instant) -> Step {
        let Stage::Sending(answer, sent) = &mut self.stage else {
            return Step::Stays;
        };
        match (&self.socket).write(&answer[*sent..]) {
            Ok(len) => {
                *sent += len;
                self.moved = now;
            }
            Err(error) if waits(&error) => return Step::Stays,
            Err(error) => return Step::Failed(error),
        }
        if *sent < answer.len() {
            return Step::Stays;
        }
        if self.socket.shutdown(Shutdown::Write).is_err() {
            return Step::Gone;
        }
        self.stage = Stage::Leaving(0);
        self.deadline = now + STATS_CLOSE_WAIT;
        self.leave()
    }

    /// Drops what the visitor said until it says no more.
    fn leave(&mut self) -> Step {
        let Stage::Leaving(discarded) = &mut self.stage else {
            return Step::Stays;
        };
        let mut bin = [0; 4096];
        while *discarded < CLOSE_DISCARD_LEN {
            match (&self.socket).read(&mut bin) {
                Ok(0) => return Step::Gone,
                Ok(len) => *discarded += len,
                Err(error) if waits(&error) => return Step::Stays,
                Err(_) => return Step::Gone,
            }
        }
        Step::Gone
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Lines that anybody can cause: at most one per [`STATS_COMPLAINT_PAUSE`], which counts the others.
#[derive(Default)]
struct Complaints {
    next: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    fn of(&mut self, sd: RawFd, error: &io::Error, now: Instant) {
        let text = errno::text(error);
        self.make(now, &format!("send stats on sd {sd} failed: {text}"));
    }

    fn make(&mut self, now: Instant, words: &str) {
        if let Some(line) = self.word(now, words) {
            log!(Level::Error, "{line}");
        }
    }

    fn word(&mut self, now: Instant, words: &str) -> Option<String> {
        if self.next.is_some_and(|next| now < next) {
            self.unsaid += 1;
            return None;
        }
        self.next = Some(now + STATS_COMPLAINT_PAUSE);
        match std::mem::take(&mut self.unsaid) {
            0 => Some(words.to_owned()),
            unsaid => Some(format!("{words} ({unsaid} more not shown)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, SockAddr, Type};
    use std::net::{SocketAddr, TcpStream};

    /// More than the buffers of a connection take.
    const LARGE: usize = 16 << 20;

    /// A door that answers with `len` bytes, for as long as the test lives.
    fn open(len: usize) -> SocketAddr {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        listener.bind(&SockAddr::from(any)).unwrap();
        listener.listen(128).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        thread::spawn(move || Door::new(&listener, &|| "x".repeat(len)).run());
        address
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let client = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(30));
        client.set_read_timeout(patience).unwrap();
        client
    }

    fn read(client: &mut TcpStream) -> io::Result<usize> {
        client.read_to_end(&mut Vec::new())
    }

    /// `echo | nc`: a reset, of which nothing can be told apart, is an error of the last read.
    #[test]
    fn input_that_nobody_asked_for_costs_nobody_the_answer() {
        let address = open(2000);
        for round in 0..200 {
            let mut client = connect(address);
            client.write_all(&vec![b'\n'; 1 + 97 * round]).unwrap();
            if round % 2 == 0 {
                client.shutdown(Shutdown::Write).unwrap();
            }
            assert_eq!(read(&mut client).unwrap(), 2000, "round {round}");
        }
    }

    // D68
    #[test]
    fn readers_that_do_not_read_hold_up_nobody() {
        let address = open(LARGE);
        let began = Instant::now();
        let mut stuck: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
        assert_eq!(read(&mut connect(address)).unwrap(), LARGE);
        // None of them was thrown out for it.
        for client in &mut stuck {
            assert_eq!(read(client).unwrap(), LARGE);
        }
        assert!(began.elapsed() < STATS_WRITE_WAIT, "{:?}", began.elapsed());
    }

    #[test]
    fn the_slowest_makes_room_when_all_places_are_taken() {
        let address = open(LARGE);
        let mut stuck: Vec<TcpStream> = (0..STATS_CLIENTS_MAX).map(|_| connect(address)).collect();
        for client in &stuck {
            client.peek(&mut [0]).unwrap();
        }
        assert_eq!(read(&mut connect(address)).unwrap(), LARGE);
        let whole = |client: &mut TcpStream| read(client).is_ok_and(|len| len == LARGE);
        let served = stuck.iter_mut().map(whole).filter(|&whole| whole).count();
        assert_eq!(served, STATS_CLIENTS_MAX - 1);
    }

    fn visitor(len: usize) -> (Visitor, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = connect(listener.local_addr().unwrap());
        let socket = Socket::from(listener.accept().unwrap().0);
        socket.set_nonblocking(true).unwrap();
        let now = Instant::now();
        let visitor = Visitor {
            socket,
            stage: Stage::Sending(Arc::from(vec![b'x'; len]), 0),
            deadline: now + STATS_WRITE_WAIT,
            moved: now,
        };
        (visitor, client)
    }

    #[test]
    fn a_reader_that_takes_too_long_is_cut_off() {
        let (mut visitor, _client) = visitor(LARGE);
        let deadline = visitor.deadline;
        assert!(matches!(
            visitor.step(deadline - Duration::from_secs(1)),
            Step::Stays
        ));
        let Step::Failed(error) = visitor.step(deadline) else {
            panic!("it is too late");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_visitor_that_does_not_close_is_closed_after_a_while() {
        let (mut visitor, mut client) = visitor(5);
        let now = Instant::now();
        assert!(matches!(visitor.step(now), Step::Stays));
        assert_eq!(
            read(&mut client).unwrap(),
            5,
            "it has the answer and the end"
        );
        let over = now + STATS_CLOSE_WAIT;
        assert!(matches!(
            visitor.step(over - Duration::from_millis(1)),
            Step::Stays
        ));
        assert!(matches!(visitor.step(over), Step::Gone));
    }

    #[test]
    fn a_visitor_that_talks_without_end_is_closed_after_so_many_bytes() {
        let (mut visitor, mut client) = visitor(5);
        let now = Instant::now();
        assert!(matches!(visitor.step(now), Step::Stays));
        let mut said = 0;
        while matches!(visitor.step(now), Step::Stays) {
            client.write_all(&[b'x'; 4096]).unwrap();
            said += 4096;
            assert!(said < 4 * CLOSE_DISCARD_LEN, "it listens for ever");
        }
        assert!(said >= CLOSE_DISCARD_LEN);
    }

    #[test]
    fn complaints_are_made_once_a_while_and_counted() {
        let mut complaints = Complaints::default();
        let now = Instant::now();
        let later = now + STATS_COMPLAINT_PAUSE;
        assert_eq!(complaints.word(now, "why").as_deref(), Some("why"));
        assert_eq!(complaints.word(now, "why"), None);
        assert_eq!(complaints.word(now, "why"), None);
        let counted = complaints.word(later, "so");
        assert_eq!(counted.as_deref(), Some("so (2 more not shown)"));
        let next = complaints.word(later + STATS_COMPLAINT_PAUSE, "so");
        assert_eq!(next.as_deref(), Some("so"));
    }
}
