//! Servers that keep what they are sent and answer with their own name.
//!
//! Which server a key went to can be read in the reply, and what the proxy made of a request in
//! what the server kept. Nothing here interprets more than that needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use twemproxy_testkit::model::{memcache, redis};

/// How a canned server answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// Redis, each value being the server's name.
    Redis,
    /// Memcached, each value being the server's name.
    Memcached,
    /// These bytes to each request.
    Says(&'static [u8]),
    /// Nothing.
    Hangs,
    /// Closes when something comes.
    Closes,
}

/// A canned server; it lives as long as the process.
#[derive(Clone, Debug)]
pub(super) struct Canned {
    /// Its address in the form of a configuration file, without weight and name.
    pub(super) place: String,
    pub(super) name: String,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Canned {
    /// A server on a unix socket in `dir`.
    pub(super) fn unix(dir: &Path, name: &str, manner: Manner) -> Self {
        let path: PathBuf = dir.join(format!("{name}.canned"));
        let listener = UnixListener::bind(&path).expect("the private directory is writable");
        let server = Self::new(path.display().to_string(), name);
        let at_work = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = at_work.clone();
                thread::spawn(move || server.attend(stream, manner));
            }
        });
        server
    }

    /// A server on a port of the loopback interface.
    pub(super) fn tcp(name: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface is up");
        let address: SocketAddr = listener.local_addr().expect("it is bound");
        let server = Self::new(address.to_string(), name);
        let at_work = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = at_work.clone();
                thread::spawn(move || server.attend(stream, manner));
            }
        });
        server
    }

    fn new(place: String, name: &str) -> Self {
        Self {
            place,
            name: name.to_owned(),
            kept: Arc::default(),
        }
    }

    /// Its line in a configuration file.
    pub(super) fn line(&self, weight: u32) -> String {
        format!("    - {}:{weight} {}\n", self.place, self.name)
    }

    /// Bytes received since the last call, over all connections.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.kept.lock().expect("no holder panics"))
    }

    fn attend(&self, mut stream: impl Read + Write, manner: Manner) {
        let mut unread = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = stream.read(&mut chunk) {
            self.kept
                .lock()
                .expect("no holder panics")
                .extend_from_slice(&chunk[..len]);
            unread.extend_from_slice(&chunk[..len]);
            let reply = match manner {
                Manner::Redis => drain(&mut unread, |bytes| self.redis(bytes)),
                Manner::Memcached => drain(&mut unread, |bytes| self.memcached(bytes)),
                Manner::Says(reply) => {
                    drain(&mut unread, |bytes| Some((reply.to_vec(), length(bytes)?)))
                }
                Manner::Hangs => Vec::new(),
                Manner::Closes => return,
            };
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    }

    /// The first request's reply and length.
    fn redis(&self, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let redis::Frame::Array { words, len } = redis::request(bytes) else {
            return None;
        };
        let keys = words.len() - 1;
        let value = redis::bulk(self.name.as_bytes());
        let reply = match words[0].to_ascii_lowercase().as_slice() {
            b"get" => value,
            b"mget" => [format!("*{keys}\r\n").into_bytes(), value.repeat(keys)].concat(),
            b"del" | b"unlink" | b"touch" | b"exists" => format!(":{keys}\r\n").into_bytes(),
            _ => b"+OK\r\n".to_vec(),
        };
        Some((reply, len))
    }

    fn memcached(&self, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let memcache::Frame::Request {
            words,
            keys,
            noreply,
            len,
            ..
        } = memcache::request(bytes)
        else {
            return None;
        };
        if noreply {
            return Some((Vec::new(), len));
        }
        let reply = match words[0].as_slice() {
            b"get" | b"gets" => {
                let cas = if words[0] == b"gets" { " 7" } else { "" };
                let mut reply = Vec::new();
                for key in &keys {
                    reply.extend_from_slice(b"VALUE ");
                    reply.extend_from_slice(key);
                    let rest = format!(" 0 {}{cas}\r\n{}\r\n", self.name.len(), self.name);
                    reply.extend_from_slice(rest.as_bytes());
                }
                [reply, b"END\r\n".to_vec()].concat()
            }
            b"version" => format!("VERSION {}\r\n", self.name).into_bytes(),
            b"delete" => b"DELETED\r\n".to_vec(),
            b"touch" => b"TOUCHED\r\n".to_vec(),
            b"incr" | b"decr" => b"5\r\n".to_vec(),
            _ => b"STORED\r\n".to_vec(),
        };
        Some((reply, len))
    }
}

/// The length of the first request of either protocol.
fn length(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'*') {
        match redis::request(bytes) {
            redis::Frame::Array { len, .. } => Some(len),
            _ => None,
        }
    } else {
        match memcache::request(bytes) {
            memcache::Frame::Request { len, .. } => Some(len),
            _ => None,
        }
    }
}

/// Answers every whole request at the front of `unread`.
fn drain(unread: &mut Vec<u8>, answer: impl Fn(&[u8]) -> Option<(Vec<u8>, usize)>) -> Vec<u8> {
    let mut replies = Vec::new();
    while let Some((reply, len)) = answer(unread) {
        replies.extend(reply);
        unread.drain(..len);
    }
    replies
}
