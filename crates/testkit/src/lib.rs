//! What tests compare the proxy with, and what they run it against. Never shipped.
//!
//! | module | is |
//! |---|---|
//! | [`model`] | parsers and stores so plain that they are right by reading them |
//! | [`transcripts`] | named byte strings with their meaning |
//! | [`feed`] | the core's parsers, driven by the engine's rules over bytes in pieces |
//! | [`hand`] | an engine whose shell, clients and servers are played by the test |
//! | [`wire`] | a blocking raw client: these bytes out, those bytes in, a deadline |
//! | [`harness`] | real redis and memcached servers and the proxy's binary on private sockets |
//! | [`rng`] | reproducible random numbers |
//! | [`hand`] | an engine driven by hand, in virtual time |
//! | [`sim`] | an engine in a simulated world full of faults, and the oracles that watch it |
//!
//! The model and the wire use no parser of the core crate: its agreement with itself would prove
//! nothing. Everything here panics when something is wrong, because that is how a test fails.
#![warn(missing_docs)]

pub mod feed;
pub mod hand;
pub mod harness;
pub mod model;
pub mod rng;
pub mod sim;
pub mod transcripts;
pub mod wire;
