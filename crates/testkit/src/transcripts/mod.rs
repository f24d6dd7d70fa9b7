//! Named byte strings with their meaning: the corpus of the split law and of the fuzzers.

pub mod memcache;
pub mod redis;

/// A client's bytes and their meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requests {
    /// The reason it is here.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their meaning, frame by frame; nothing follows a close.
    pub meaning: Vec<Meaning>,
    /// The bytes end in the middle of a frame.
    pub unfinished: bool,
}

/// The meaning of one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// A request of this many bytes (an inline command: of its line) with these keys. Requests that
    /// are answered locally or go to a fixed server have none.
    Request {
        /// Bytes of the frame.
        len: usize,
        /// Keys in request order.
        keys: Vec<Vec<u8>>,
    },
    /// A refusal.
    Refused {
        /// The reply, where its words are given by the real server.
        reply: Option<Vec<u8>>,
        /// Whether the connection ends.
        closes: bool,
    },
}

/// A server's bytes and their meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Responses {
    /// The reason it is here.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Lengths of the whole responses.
    pub lens: Vec<usize>,
    /// The end behind them.
    pub end: crate::feed::ResponseEnd,
}

/// Sizes around every boundary that a buffer of ours or of the servers may have.
#[must_use]
pub fn boundary_sizes() -> Vec<usize> {
    [512, 4096, 8192, 16 * 1024, 64 * 1024]
        .into_iter()
        .flat_map(|size| size - 4..=size + 4)
        .collect()
}

/// `len` bytes in which any shift by less than 251 bytes shows.
#[must_use]
pub fn filler(len: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(len).collect()
}

impl Requests {
    fn new(name: &str, bytes: &[u8], meaning: Vec<Meaning>) -> Self {
        Self {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
            meaning,
            unfinished: false,
        }
    }

    fn unfinished(name: &str, bytes: &[u8]) -> Self {
        Self {
            unfinished: true,
            ..Self::new(name, bytes, Vec::new())
        }
    }

    /// One request that takes all bytes.
    fn one(name: &str, bytes: &[u8], keys: &[&[u8]]) -> Self {
        Self::new(name, bytes, vec![request(bytes.len(), keys)])
    }

    /// One refusal in these words.
    fn refused(name: &str, bytes: &[u8], reply: &str, closes: bool) -> Self {
        Self::new(name, bytes, vec![refusal(reply, closes)])
    }
}

fn request(len: usize, keys: &[&[u8]]) -> Meaning {
    let keys = keys.iter().map(|key| key.to_vec()).collect();
    Meaning::Request { len, keys }
}

fn refusal(reply: &str, closes: bool) -> Meaning {
    let reply = Some(reply.as_bytes().to_vec());
    Meaning::Refused { reply, closes }
}

impl Responses {
    fn new(name: &str, bytes: &[u8], lens: &[usize], end: crate::feed::ResponseEnd) -> Self {
        Self {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
            lens: lens.to_vec(),
            end,
        }
    }

    /// One response that takes all bytes.
    fn one(name: &str, bytes: &[u8]) -> Self {
        Self::new(name, bytes, &[bytes.len()], crate::feed::ResponseEnd::Clean)
    }
}
