//! The traffic of a run, made before it starts: request bytes in one block, and what each reply must be.
//!
//! All clients send the same cyclic sequence, each from a place of its own, so no two wait for the same id at
//! the same time and the same run repeats bit by bit. Sending is a slice of the block; checking is a comparison.

use std::ops::Range;

use crate::protocol::{KeyLengths, Op, Protocol, ValueShape, memcache, redis};

/// What a run sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) protocol: Protocol,
    pub(crate) op: Op,
    /// Keys of one request; 1 unless `op` takes many.
    pub(crate) keys: u32,
    pub(crate) value_size: u32,
    pub(crate) key_lengths: KeyLengths,
}

impl Traffic {
    pub(crate) fn shape(&self) -> ValueShape {
        ValueShape::of_size(usize::try_from(self.value_size).unwrap_or(usize::MAX))
    }

    /// Whether the proxy may give the values of one reply in any order, as memcached itself may.
    pub(crate) const fn is_unordered(&self) -> bool {
        matches!((self.protocol, self.op), (Protocol::Memcache, Op::Mget))
    }
}

/// A part of a reply: these bytes, then filler that is counted and not looked at.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    end: usize,
    filler: usize,
}

/// The sequence of requests and their replies.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) traffic: Traffic,
    pub(crate) requests: Vec<u8>,
    /// The id that the first request asks for.
    base: u64,
    /// Where each request starts, and the end of the last.
    bounds: Vec<usize>,
    expected: Vec<u8>,
    pieces: Vec<Piece>,
    pieces_per_reply: usize,
}

impl Script {
    /// A sequence that asks for ids from `base` on.
    pub(crate) fn new(traffic: Traffic, base: u64) -> Self {
        let mut script = Self {
            traffic,
            requests: Vec::new(),
            base,
            bounds: vec![0],
            expected: Vec::new(),
            pieces: Vec::new(),
            pieces_per_reply: 0,
        };
        let shape = traffic.shape();
        let keys = u64::from(traffic.keys);
        let mut id = base;
        loop {
            let ids = id..id + keys;
            match traffic.protocol {
                Protocol::Redis => redis::push_exchange(&mut script, traffic.op, shape, ids),
                Protocol::Memcache => memcache::push_exchange(&mut script, traffic.op, shape, ids),
            }
            script.bounds.push(script.requests.len());
            id += keys;
            if script.len() == REQUESTS_MAX || (script.len() >= REQUESTS_MIN && script.is_large()) {
                break;
            }
        }
        script.pieces_per_reply = script.pieces.len() / script.len();
        assert!(
            script.pieces_per_reply * script.len() == script.pieces.len(),
            "all replies have the same number of pieces"
        );
        script
    }

    /// Adds a piece to the reply of the request being built.
    pub(crate) fn expect(&mut self, bytes: &[u8], filler: usize) {
        let start = self.expected.len();
        self.expected.extend_from_slice(bytes);
        self.pieces.push(Piece {
            start,
            end: self.expected.len(),
            filler,
        });
    }

    /// Requests in the sequence.
    pub(crate) fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Where the bytes of a request are.
    pub(crate) fn request(&self, index: usize) -> Range<usize> {
        self.bounds[index]..self.bounds[index + 1]
    }

    /// The first id that a request asks for; the others follow it.
    pub(crate) fn first_id(&self, index: usize) -> u64 {
        self.base + crate::num::wide(index) * u64::from(self.traffic.keys)
    }

    /// Bytes of a reply; the same for all where keys have one length.
    pub(crate) fn reply_len(&self) -> usize {
        let pieces = self.pieces.iter().take(self.pieces_per_reply);
        pieces
            .map(|piece| piece.end - piece.start + piece.filler)
            .sum()
    }

    /// Where the client of this number starts.
    pub(crate) fn start_of(&self, client: usize, clients: usize) -> usize {
        client * self.len() / clients % self.len()
    }

    fn is_large(&self) -> bool {
        self.requests.len() + self.expected.len() > BYTES_MAX
    }
}

/// Requests are at most this many, so that the block stays in the cache of the core that sends it ...
const REQUESTS_MAX: usize = 4096;
/// ... and at least this many, so that clients do not all ask for the same.
const REQUESTS_MIN: usize = 64;
const BYTES_MAX: usize = 1024 * 1024;

/// How far a client has come in checking the replies it receives.
#[derive(Debug)]
pub(crate) struct Cursor {
    request: usize,
    piece: usize,
    /// Bytes of the piece (with its filler) that were seen.
    offset: usize,
}

/// A reply that is not the expected one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) got: Vec<u8>,
    pub(crate) expected: Vec<u8>,
}

impl Cursor {
    pub(crate) const fn new(request: usize) -> Self {
        Self {
            request,
            piece: 0,
            offset: 0,
        }
    }

    /// Checks what arrived; gives the number of replies that it completed.
    pub(crate) fn feed(&mut self, script: &Script, input: &[u8]) -> Result<usize, Mismatch> {
        let mut completed = 0;
        let mut at = 0;
        while at < input.len() {
            let piece = script.pieces[self.request * script.pieces_per_reply + self.piece];
            let fixed = piece.end - piece.start;
            if self.offset < fixed {
                let expected = &script.expected[piece.start + self.offset..piece.end];
                let part = expected.len().min(input.len() - at);
                if input[at..at + part] != expected[..part] {
                    return Err(Mismatch {
                        got: input[at..input.len().min(at + MISMATCH_SHOWN)].to_vec(),
                        expected: expected.to_vec(),
                    });
                }
                at += part;
                self.offset += part;
            }
            if self.offset >= fixed {
                let part = (fixed + piece.filler - self.offset).min(input.len() - at);
                at += part;
                self.offset += part;
                if self.offset == fixed + piece.filler {
                    completed += self.next_piece(script);
                }
            }
        }
        Ok(completed)
    }

    /// 1 if that was the last piece of a reply.
    fn next_piece(&mut self, script: &Script) -> usize {
        self.offset = 0;
        self.piece += 1;
        if self.piece < script.pieces_per_reply {
            return 0;
        }
        self.piece = 0;
        self.request += 1;
        if self.request == script.len() {
            self.request = 0;
        }
        1
    }
}

/// Checks replies to a memcached `get` with many keys, whose values may come in any order.
#[derive(Debug)]
pub(crate) struct SetCursor {
    request: usize,
    seen: Vec<bool>,
    tail: Vec<u8>,
}

impl SetCursor {
    pub(crate) fn new(script: &Script, request: usize) -> Self {
        let keys = usize::try_from(script.traffic.keys).expect("the command line bounds it");
        Self {
            request,
            seen: vec![false; keys],
            tail: Vec::new(),
        }
    }

    /// See [`Cursor::feed`].
    pub(crate) fn feed(&mut self, script: &Script, input: &[u8]) -> Result<usize, Mismatch> {
        let mut joined = std::mem::take(&mut self.tail);
        joined.extend_from_slice(input);
        let mut completed = 0;
        let mut at = 0;
        loop {
            let rest = &joined[at..];
            let wrong = || {
                let ids = script.first_id(self.request);
                Mismatch {
                    got: rest[..rest.len().min(MISMATCH_SHOWN)].to_vec(),
                    expected: format!("values of ids {ids} and following, then END").into_bytes(),
                }
            };
            match memcache::item(script.traffic.shape(), rest) {
                memcache::Item::Value(id, len) => {
                    let key = id.checked_sub(script.first_id(self.request));
                    let seen = key
                        .and_then(|key| self.seen.get_mut(usize::try_from(key).ok()?))
                        .filter(|seen| !**seen)
                        .ok_or_else(wrong)?;
                    *seen = true;
                    at += len;
                }
                memcache::Item::End(len) => {
                    if self.seen.contains(&false) {
                        return Err(wrong());
                    }
                    self.seen.fill(false);
                    self.request = (self.request + 1) % script.len();
                    completed += 1;
                    at += len;
                }
                memcache::Item::Incomplete => break,
                memcache::Item::Wrong => return Err(wrong()),
            }
        }
        joined.drain(..at);
        self.tail = joined;
        Ok(completed)
    }
}

/// Bytes of a wrong reply that are worth printing.
const MISMATCH_SHOWN: usize = 80;

#[cfg(test)]
mod tests;
