//! A pool's listening socket.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use twemproxy_config::{Listen, PoolAddresses};

use super::errno;
use super::stream::Stream;

/// A non-blocking listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// IPv4 or IPv6.
    Tcp(TcpListener),
    /// A unix socket; its file goes when it is closed.
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "owned for its end")] SocketFile,
    ),
}

/// Why a listener cannot be opened, in the original's words.
#[derive(Debug, Error)]
#[error("{step} failed: {}", errno::text(.error))]
pub(crate) struct ListenError {
    step: String,
    error: io::Error,
}

/// The file of a unix socket that this process made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    /// Opens the listener of a pool.
    pub(crate) fn open(pool: &PoolAddresses) -> Result<Self, ListenError> {
        match &pool.listen {
            Listen::Tcp {
                host,
                port,
                address,
            } => open_tcp(*address, &format!("{host}:{port}"), pool),
            Listen::Unix { path, mode } => open_unix(path, *mode, pool),
        }
    }

    /// Takes one connection; the address is the peer's, for the log.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }

    /// Whether somebody waits to be accepted.
    pub(crate) fn has_waiting(&self) -> bool {
        let fd = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        };
        let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        // A question that fails is answered by the next accept.
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// The descriptor, for a log line.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(listener, _) => listener.as_raw_fd(),
        }
    }
}

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, for_: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, for_),
            Self::Unix(listener, _) => listener.register(registry, token, for_),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, for_: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.reregister(registry, token, for_),
            Self::Unix(listener, _) => listener.reregister(registry, token, for_),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.deregister(registry),
            Self::Unix(listener, _) => listener.deregister(registry),
        }
    }
}

impl SocketFile {
    /// Binds a socket to `path`, which makes the file. Nobody can connect before it listens.
    ///
    /// A socket that a process left behind is replaced. One on which somebody listens stays, and
    /// so does every other file: that is `EADDRINUSE`.
    pub(crate) fn bind(socket: &Socket, path: &Path) -> io::Result<Self> {
        let address = SockAddr::unix(path)?;
        remove_stale(path, &address)?;
        socket.bind(&address)?;
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Says who may connect.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
    }

    fn is_still_ours(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode))
    }
}

/// The file goes with its socket, if it is still the one that was made and not a successor's.
impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_still_ours() {
            // The process is about to end; a file that cannot be removed is stale, not wrong, and
            // the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open_tcp(
    address: SocketAddr,
    name: &str,
    pool: &PoolAddresses,
) -> Result<Listener, ListenError> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, None).map_err(step("socket"))?;
    let fd = socket.as_raw_fd();
    socket.set_reuse_address(true).map_err(step(format!(
        "reuse of addr '{name}' for listening on p {fd}"
    )))?;
    if pool.reuseport {
        socket.set_reuse_port(true).map_err(step(format!(
            "reuse of port '{name}' for listening on p {fd}"
        )))?;
    }
    socket
        .bind(&address.into())
        .map_err(step(format!("bind on p {fd} to addr '{name}'")))?;
    listen(&socket, name, pool.backlog)?;
    Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
}

fn open_unix(
    path: &Path,
    mode: Option<u32>,
    pool: &PoolAddresses,
) -> Result<Listener, ListenError> {
    let name = path.display().to_string();
    let (socket, file) = bind_unix(path, mode, &name)?;
    listen(&socket, &name, pool.backlog)?;
    Ok(Listener::Unix(UnixListener::from_std(socket.into()), file))
}

/// The socket with its mode, to which nobody can connect yet.
fn bind_unix(
    path: &Path,
    mode: Option<u32>,
    name: &str,
) -> Result<(Socket, SocketFile), ListenError> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::UNIX, kind, None).map_err(step("socket"))?;
    let fd = socket.as_raw_fd();
    let file = SocketFile::bind(&socket, path)
        .map_err(step(format!("bind on p {fd} to addr '{name}'")))?;
    if let Some(mode) = mode {
        file.set_mode(mode)
            .map_err(step(format!("chmod on p {fd} on addr '{name}'")))?;
    }
    Ok((socket, file))
}

/// Removes the socket file of a process that has ended. Whoever listens there is left alone.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        return Ok(());
    }
    // Not blocking: a listener that does not accept is one, too.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

fn listen(socket: &Socket, name: &str, backlog: u32) -> Result<(), ListenError> {
    let fd = socket.as_raw_fd();
    socket
        .listen(i32::try_from(backlog).unwrap_or(i32::MAX))
        .map_err(step(format!("listen on p {fd} on addr '{name}'")))
}

fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> ListenError {
    let step = step.into();
    move |error| ListenError { step, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pool(listen: Listen) -> PoolAddresses {
        PoolAddresses {
            listen,
            backlog: 16,
            tcpkeepalive: false,
            reuseport: false,
            servers: Vec::new(),
        }
    }

    fn unix(path: &Path, mode: Option<u32>) -> PoolAddresses {
        pool(Listen::Unix {
            path: path.to_owned(),
            mode,
        })
    }

    #[test]
    fn a_port_in_use_is_an_error_in_the_originals_words() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Listener::open(&pool(Listen::Tcp {
            host: "localhost".into(),
            port: address.port(),
            address,
        }))
        .unwrap_err()
        .to_string();
        let (before, after) = error.split_once(" to addr ").unwrap();
        assert!(before.starts_with("bind on p "), "{error}");
        let port = address.port();
        assert_eq!(
            after,
            format!("'localhost:{port}' failed: Address already in use")
        );
    }

    // C40
    #[test]
    fn a_stale_unix_socket_is_replaced_and_gets_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        let listener = Listener::open(&unix(&path, Some(0o600))).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();

        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_unix_socket_has_its_mode_before_anybody_can_connect() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (socket, file) = bind_unix(&path, Some(0o600), "s").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let early = UnixStream::connect(&path).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::ConnectionRefused);
        listen(&socket, "s", 16).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(file);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = Listener::open(&unix(&path, None)).unwrap_err();
        assert!(error.to_string().ends_with("Address already in use"));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    // D66
    #[test]
    fn a_socket_on_which_somebody_listens_is_not_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = Listener::open(&unix(&path, None)).unwrap();
        let refused = Listener::open(&unix(&path, Some(0o666))).unwrap_err();
        let words = refused.to_string();
        assert!(words.ends_with("failed: Address already in use"), "{words}");
        UnixStream::connect(&path).unwrap();
        drop(first);
        Listener::open(&unix(&path, None)).unwrap();
    }

    // D66
    #[test]
    fn a_listener_with_a_full_backlog_is_alive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let _file = SocketFile::bind(&socket, &path).unwrap();
        socket.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(Listener::open(&unix(&path, None)).is_err());
        socket.accept().unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_step_that_fails_takes_the_file_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, &path).unwrap();
        // A later step fails: whatever it was, the file goes with its owner.
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_file_of_a_successor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = Listener::open(&unix(&path, None)).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Listener::open(&unix(&path, None)).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
