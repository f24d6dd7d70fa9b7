//! Fuzz targets: fuzzers call them with any bytes, normal tests with the corpus that fuzzers kept.
//!
//! A function returns if all is well and panics if not: a parser panicked, took more than it was
//! given, saw something else in other pieces, or disagreed with the model; the engine panicked, lost
//! an invariant, or kept memory when all was over; a configuration was accepted that means something else
//! when written out, or refused without a place.

mod configuration;
mod engine;

pub use configuration::configuration;
pub use engine::operations;
use twemproxy_core::proto::Protocol;

use crate::rng::Rng;
use crate::{agree, feed, transcripts};

/// A fuzz target: its name, the function, and inputs to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the binary in `fuzz/` and of the folder in `fuzz/corpus/`.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// Inputs that are known to be worth something.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "redis_requests",
        run: redis_requests,
        seeds: || requests_of(transcripts::redis::requests()),
    },
    Target {
        name: "redis_responses",
        run: redis_responses,
        seeds: || responses_of(transcripts::redis::responses()),
    },
    Target {
        name: "memcache_requests",
        run: memcache_requests,
        seeds: || requests_of(transcripts::memcache::requests()),
    },
    Target {
        name: "memcache_responses",
        run: memcache_responses,
        seeds: || responses_of(transcripts::memcache::responses()),
    },
    Target {
        name: "engine",
        run: operations,
        seeds: engine::seeds,
    },
    Target {
        name: "configuration",
        run: configuration,
        seeds: configuration::seeds,
    },
];

/// The file in the corpus that holds an input which was not found by a fuzzer (FNV-1a of its bytes).
#[must_use]
pub fn seed_name(seed: &[u8]) -> String {
    format!("seed-{:016x}", fnv1a(seed))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Larger seeds would teach a fuzzer nothing but length.
const SEED_LEN_MAX: usize = 1024;

fn requests_of(transcripts: Vec<transcripts::Requests>) -> Vec<Vec<u8>> {
    small(transcripts.into_iter().map(|transcript| transcript.bytes))
}

fn responses_of(transcripts: Vec<transcripts::Responses>) -> Vec<Vec<u8>> {
    small(transcripts.into_iter().map(|transcript| transcript.bytes))
}

fn small(inputs: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    inputs.filter(|bytes| bytes.len() <= SEED_LEN_MAX).collect()
}

/// Bytes that a redis client may send.
pub fn redis_requests(bytes: &[u8]) {
    requests(Protocol::Redis, bytes);
    agree::redis_requests(bytes);
}

/// Bytes that a memcached client may send.
pub fn memcache_requests(bytes: &[u8]) {
    requests(Protocol::Memcache, bytes);
    agree::memcache_requests(bytes);
}

/// Bytes that a redis server may send.
pub fn redis_responses(bytes: &[u8]) {
    responses(Protocol::Redis, bytes);
}

/// Bytes that a memcached server may send.
pub fn memcache_responses(bytes: &[u8]) {
    responses(Protocol::Memcache, bytes);
}

fn requests(protocol: Protocol, bytes: &[u8]) {
    let tight = twemproxy_core::proto::RequestLimits {
        frame_len_max: 128,
        unauthenticated: true,
        allow_flush: false,
    };
    for limits in [feed::roomy_limits(), tight] {
        let whole = feed::requests(protocol, &limits, bytes, []);
        assert_eq!(feed::requests(protocol, &limits, bytes, cuts(bytes)), whole);
    }
}

fn responses(protocol: Protocol, bytes: &[u8]) {
    let whole = feed::responses(protocol, bytes, []);
    assert_eq!(feed::responses(protocol, bytes, cuts(bytes)), whole);
    agree::responses(protocol, bytes, cuts(bytes)[0]);
}

/// Places at which the bytes are cut: any, but always the same for the same bytes.
fn cuts(bytes: &[u8]) -> [usize; 3] {
    let mut rng = Rng::new(fnv1a(bytes));
    let mut cuts = [0; 3].map(|_: usize| rng.below(bytes.len() + 1));
    cuts.sort_unstable();
    cuts
}
