//! The server side of a run: canned servers that answer from the key alone and check what they are sent.

use std::collections::VecDeque;

use crate::failure::{During, Failure, Outcome};
use crate::net::{
    Addr, Inbox, Listener, Outbox, Poller, Portion, Received, Stream, Token, token_index,
};
use crate::num;
use crate::protocol::{Protocol, Served, Shapes, serve};

#[derive(Debug)]
struct Conn {
    stream: Stream,
    inbox: Inbox,
    outbox: Outbox,
    /// Whether this connection is on the list of those with something to send.
    is_dirty: bool,
    /// Whether it is on the list of those that were left with something to read.
    is_unread: bool,
}

/// All canned servers of a run, with the connections that the proxy opened.
#[derive(Debug)]
pub(crate) struct Servers {
    protocol: Protocol,
    shapes: Shapes,
    listeners: Vec<Listener>,
    /// Closed connections leave a hole, so that tokens stay valid.
    conns: Vec<Option<Conn>>,
    dirty: Vec<u32>,
    /// Connections that still have something to send after their turn.
    again: Vec<u32>,
    unread: VecDeque<u32>,
    portion: Portion,
    words: Vec<(usize, usize)>,
    /// Requests answered so far; fragments count one each.
    pub(crate) requests: u64,
}

impl Servers {
    /// Binds and watches a server at each address.
    pub(crate) fn listen(
        addrs: &[Addr],
        protocol: Protocol,
        shapes: Shapes,
        portion: Portion,
        poller: &Poller,
    ) -> Outcome<Self> {
        let mut listeners = Vec::with_capacity(addrs.len());
        for (index, addr) in addrs.iter().enumerate() {
            let listener = Listener::bind(addr)?;
            poller.add(&listener, Token::Listener(token_index(index)))?;
            listeners.push(listener);
        }
        Ok(Self {
            protocol,
            shapes,
            listeners,
            conns: Vec::new(),
            dirty: Vec::new(),
            again: Vec::new(),
            unread: VecDeque::new(),
            portion,
            words: Vec::new(),
            requests: 0,
        })
    }

    /// Where the servers listen, ports resolved.
    pub(crate) fn addrs(&self) -> Outcome<Vec<Addr>> {
        self.listeners.iter().map(Listener::addr).collect()
    }

    /// Takes in the connections that wait at a server.
    pub(crate) fn handle_acceptable(&mut self, index: u32, poller: &Poller) -> Outcome<()> {
        let listener = &self.listeners[num::index(u64::from(index))];
        while let Some(stream) = listener
            .accept()
            .during(|| format!("server {index}: accepting"))?
        {
            let token = token_index(self.conns.len());
            poller.add(&stream, Token::ServerConn(token))?;
            self.conns.push(Some(Conn {
                stream,
                inbox: Inbox::default(),
                outbox: Outbox::default(),
                is_dirty: false,
                is_unread: false,
            }));
        }
        Ok(())
    }

    /// Answers what the proxy sent, by portions.
    pub(crate) fn handle_readable(&mut self, index: u32, block: &mut [u8]) -> Outcome<()> {
        match &self.conns[num::index(u64::from(index))] {
            Some(conn) if !conn.is_unread => self.answer(index, block),
            _ => Ok(()),
        }
    }

    /// Goes on with one of the connections that were left with something to read.
    pub(crate) fn read_on(&mut self, block: &mut [u8]) -> Outcome<()> {
        match self.unread.pop_front() {
            Some(index) => self.answer(index, block),
            None => Ok(()),
        }
    }

    fn answer(&mut self, index: u32, block: &mut [u8]) -> Outcome<()> {
        let slot = &mut self.conns[num::index(u64::from(index))];
        let Some(conn) = slot else { return Ok(()) };
        conn.is_unread = false;
        loop {
            let outbox = &mut conn.outbox;
            let words = &mut self.words;
            let (protocol, shapes) = (self.protocol, self.shapes);
            let requests = &mut self.requests;
            let received = conn.inbox.recv(&mut conn.stream, block, |input| {
                let mut used = 0;
                while used < input.len() {
                    match serve(protocol, shapes, words, &input[used..], outbox) {
                        Served::Request(len) => used += len,
                        Served::Incomplete => break,
                        Served::Violation(what) => return Err(violation(what, &input[used..])),
                    }
                    *requests += 1;
                }
                Ok(used)
            });
            if !conn.outbox.is_empty() && !conn.is_dirty {
                conn.is_dirty = true;
                self.dirty.push(index);
            }
            match received {
                Ok(Ok(Received::More)) if self.portion == Portion::All => {}
                Ok(Ok(Received::More)) => {
                    conn.is_unread = true;
                    self.unread.push_back(index);
                    return Ok(());
                }
                Ok(Ok(Received::Drained)) => return Ok(()),
                Ok(Err(failure)) => return Err(failure),
                // The proxy may close; whether that was right shows in the replies.
                Ok(Ok(Received::End)) | Err(_) => {
                    *slot = None;
                    return Ok(());
                }
            }
        }
    }

    /// Goes on where the kernel took nothing more.
    pub(crate) fn handle_writable(&mut self, index: u32) {
        if let Some(conn) = &mut self.conns[num::index(u64::from(index))]
            && !conn.outbox.is_empty()
            && !conn.is_dirty
        {
            conn.is_dirty = true;
            self.dirty.push(index);
        }
    }

    /// Sends the answers, a portion of each connection's: the end of a tick. Says when each is done.
    pub(crate) fn flush(&mut self, mut sent: impl FnMut()) {
        for index in self.dirty.drain(..) {
            let slot = &mut self.conns[num::index(u64::from(index))];
            let Some(conn) = slot else { continue };
            conn.is_dirty = false;
            match conn.outbox.flush(&mut conn.stream, self.portion) {
                Ok(true) => {
                    conn.is_dirty = true;
                    self.again.push(index);
                }
                Ok(false) => {}
                // The proxy may close; whether that was right shows in the replies.
                Err(_) => *slot = None,
            }
            sent();
        }
        std::mem::swap(&mut self.dirty, &mut self.again);
    }
}

fn violation(what: &str, input: &[u8]) -> Failure {
    let shown = &input[..input.len().min(80)];
    Failure::new(format!(
        "the proxy forwarded {what}: \"{}\"",
        shown.escape_ascii()
    ))
}
