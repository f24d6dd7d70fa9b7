//! A bad network between two processes: bytes pass through threads that do them harm.
//!
//! A relay listens on a unix socket and connects each of its clients with the socket behind it. The
//! harm is set while it runs, and concerns both directions of all connections at once.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// The fate of bytes in the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// They pass.
    None,
    /// They pass later.
    Delay(Duration),
    /// They are swallowed, and so is all that follows on the same connection, which stays: no network
    /// delivers what comes behind a hole.
    Drop,
    /// The connection breaks.
    Reset,
    /// The first half of what was read passes, then the connection breaks.
    Truncate,
    /// Nothing is read any more, until the fault ends.
    Stall,
    /// One byte in so many that a server says becomes a question mark, which no length or type may
    /// hold. Requests pass unharmed: a key that is damaged on its way is another key, and two
    /// clients' damaged keys may be the same one.
    Corrupt(usize),
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    ToServer,
    ToClient,
}

/// A running relay; its connections end with it.
#[derive(Debug)]
pub struct Relay {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    closing: bool,
    streams: Vec<UnixStream>,
}

impl Relay {
    /// Listens on `dir/name.sock` and passes everything to the socket `behind`.
    #[must_use]
    pub fn start(dir: &Path, name: &str, behind: &Path) -> Self {
        let socket = dir.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).expect("the test's directory is writable");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                fault: Fault::None,
                closing: false,
                streams: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let (accepting, behind) = (Arc::clone(&shared), behind.to_path_buf());
        thread::spawn(move || accepting.accept(&listener, &behind));
        Self { socket, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on this happens to all bytes.
    pub fn set(&self, fault: Fault) {
        self.shared.lock().fault = fault;
        self.shared.changed.notify_all();
    }

    /// Breaks all connections; new ones are as good as the fault in force.
    pub fn break_all(&self) {
        for stream in self.shared.lock().streams.drain(..) {
            // Its threads may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        self.break_all();
        // Wakes the accepting thread, which sees that it is over.
        let _ = UnixStream::connect(&self.socket);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener, behind: &Path) {
        for client in listener.incoming() {
            if self.lock().closing {
                return;
            }
            // Whatever goes wrong, the peer sees a connection that ends.
            let _ = client.and_then(|client| self.join(client, behind));
        }
    }

    fn join(self: &Arc<Self>, client: UnixStream, behind: &Path) -> io::Result<()> {
        let server = UnixStream::connect(behind)?;
        for stream in [&client, &server] {
            let kept = stream.try_clone()?;
            self.lock().streams.push(kept);
        }
        let ways = [
            (Way::ToServer, client.try_clone()?, server.try_clone()?),
            (Way::ToClient, server, client),
        ];
        let has_hole = Arc::new(AtomicBool::new(false));
        for (way, from, to) in ways {
            let (shared, has_hole) = (Arc::clone(self), Arc::clone(&has_hole));
            thread::spawn(move || {
                // The end of either way is the end of the connection.
                let _ = shared.pass(way, &from, &to, &has_hole);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    fn pass(
        &self,
        way: Way,
        mut from: &UnixStream,
        mut to: &UnixStream,
        has_hole: &AtomicBool,
    ) -> io::Result<()> {
        let mut space = vec![0; 16 * 1024];
        let mut passed = 0;
        loop {
            self.while_stalled();
            let len = from.read(&mut space)?;
            let bytes = &mut space[..len];
            let fault = self.while_stalled();
            match fault {
                _ if bytes.is_empty() => return Ok(()),
                _ if has_hole.load(Ordering::Relaxed) => {}
                Fault::None | Fault::Stall => to.write_all(bytes)?,
                Fault::Corrupt(_) if way == Way::ToServer => to.write_all(bytes)?,
                Fault::Delay(pause) => {
                    self.pause(pause);
                    to.write_all(bytes)?;
                }
                Fault::Drop => has_hole.store(true, Ordering::Relaxed),
                Fault::Reset => return Ok(()),
                Fault::Truncate => return to.write_all(&bytes[..len / 2]),
                Fault::Corrupt(step) => {
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        // Without its end a status line goes on into the next reply, which nobody can
                        // tell from a longer status.
                        let is_line_end = matches!(byte, b'\r' | b'\n');
                        if (passed + at) % step == step - 1 && !is_line_end {
                            *byte = b'?';
                        }
                    }
                    to.write_all(bytes)?;
                }
            }
            passed += len;
        }
    }

    /// Returns the fault in force, once it is another one than [`Fault::Stall`].
    fn while_stalled(&self) -> Fault {
        let state = self.lock();
        let state = self
            .changed
            .wait_while(state, |state| state.fault == Fault::Stall && !state.closing)
            .expect("no thread panics with the lock");
        state.fault
    }

    /// Time passes, less if the fault changes.
    fn pause(&self, length: Duration) {
        let state = self.lock();
        let before = state.fault;
        let waited = self.changed.wait_timeout_while(state, length, |state| {
            state.fault == before && !state.closing
        });
        drop(waited.expect("no thread panics with the lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::private_dir;
    use crate::wire::Wire;

    #[test]
    fn bytes_suffer_what_is_set() {
        let dir = private_dir();
        let echo_socket = dir.path().join("echo.sock");
        let echo = UnixListener::bind(&echo_socket).unwrap();
        thread::spawn(move || {
            for stream in echo.incoming() {
                let stream = stream.unwrap();
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        let relay = Relay::start(dir.path(), "relay", &echo_socket);
        let mut wire = Wire::unix(relay.socket()).unwrap();
        wire.roundtrip(b"hello", b"hello");
        relay.set(Fault::Delay(Duration::from_millis(1)));
        wire.roundtrip(b"later", b"later");
        relay.set(Fault::Stall);
        wire.send(b"stalled");
        relay.set(Fault::None);
        wire.expect(b"stalled");
        relay.set(Fault::Corrupt(1));
        wire.roundtrip(b"abc", b"???");
        relay.set(Fault::Reset);
        wire.send(b"x");
        wire.expect_close();
        relay.set(Fault::Truncate);
        let mut wire = Wire::unix(relay.socket()).unwrap();
        wire.send(b"four");
        // Half of a half may have come back before the end.
        assert!(wire.read_to_close().len() < 2);
    }
}
