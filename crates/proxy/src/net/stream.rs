//! A connection, whatever it runs over.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::limits::{
    CLOSE_DISCARD_LEN, SERVER_KEEPALIVE_IDLE, SERVER_KEEPALIVE_INTERVAL, SERVER_USER_TIMEOUT,
};

/// A non-blocking connected (or connecting) socket.
///
/// A write to a connection that is gone is an error and no signal: the Rust runtime ignores
/// `SIGPIPE` from the start.
#[derive(Debug)]
pub(crate) enum Stream {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Begins to connect. A writable edge tells the end, [`Self::take_error`] its outcome.
    pub(crate) fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(SERVER_KEEPALIVE_IDLE)
            .with_interval(SERVER_KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(SERVER_USER_TIMEOUT))?;
        Ok(Self::Tcp(stream))
    }

    /// Does the same for a unix socket.
    pub(crate) fn connect_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::Unix)
    }

    /// Sets the options of an accepted connection.
    pub(crate) fn set_client_options(&self, tcpkeepalive: bool) -> io::Result<()> {
        let Self::Tcp(stream) = self else {
            return Ok(());
        };
        stream.set_nodelay(true)?;
        if tcpkeepalive {
            // compat: on or off; the intervals are the system's.
            SockRef::from(stream).set_keepalive(true)?;
        }
        Ok(())
    }

    /// Reads once.
    #[inline]
    pub(crate) fn recv(&self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(space),
            Self::Unix(stream) => (&*stream).read(space),
        }
    }

    /// Writes once from one slice.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => (&*stream).write(bytes),
        }
    }

    /// Writes once from several slices.
    #[inline]
    pub(crate) fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write_vectored(slices),
            Self::Unix(stream) => (&*stream).write_vectored(slices),
        }
    }

    /// The pending error of the socket, which this clears.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    /// Closes after a last reply: input that nobody will read is dropped first, because the kernel
    /// answers unread input with a reset, which can overtake the reply.
    pub(crate) fn close_gently(self) {
        let shut = match &self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        if shut.is_err() {
            return;
        }
        let mut bin = [0; 4096];
        let mut left = CLOSE_DISCARD_LEN;
        while let Ok(len @ 1..) = self.recv(&mut bin) {
            left = left.saturating_sub(len);
            if left == 0 {
                return;
            }
        }
    }

    /// The address of the other side, for a log line.
    pub(crate) fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream
                .peer_addr()
                .map_or_else(|_| "-".to_owned(), |address| address.to_string()),
            Self::Unix(_) => "unix".to_owned(),
        }
    }

    /// The descriptor, for a log line.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, for_: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, for_),
            Self::Unix(stream) => stream.register(registry, token, for_),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, for_: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, for_),
            Self::Unix(stream) => stream.reregister(registry, token, for_),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn a_gentle_close_lets_the_last_reply_through_unread_input() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.write_all(&[b'x'; 1000]).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        // The input must have arrived, or there is nothing to drop.
        accepted.peek(&mut [0]).unwrap();
        accepted.set_nonblocking(true).unwrap();

        let stream = Stream::Tcp(TcpStream::from_std(accepted));
        assert_eq!(stream.send(b"last").unwrap(), 4);
        stream.close_gently();

        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"last");
    }

    // C133
    #[test]
    fn a_client_gets_nodelay_and_keepalive_only_on_request() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for tcpkeepalive in [false, true] {
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let accepted = listener.accept().unwrap().0;
            accepted.set_nonblocking(true).unwrap();
            let stream = Stream::Tcp(TcpStream::from_std(accepted));
            stream.set_client_options(tcpkeepalive).unwrap();
            let Stream::Tcp(tcp) = &stream else {
                unreachable!()
            };
            assert!(tcp.nodelay().unwrap());
            assert_eq!(SockRef::from(tcp).keepalive().unwrap(), tcpkeepalive);
        }
    }

    // C133
    #[test]
    fn a_server_connection_gets_nodelay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Stream::connect_tcp(listener.local_addr().unwrap()).unwrap();
        let Stream::Tcp(tcp) = &stream else {
            unreachable!()
        };
        assert!(SockRef::from(tcp).tcp_nodelay().unwrap());
    }
}
