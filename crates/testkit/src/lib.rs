//! Test support: models to compare the proxy with, servers and worlds to run it against. Never shipped.
//!
//! | module | is |
//! |---|---|
//! | [`model`] | parsers and stores so plain that they are right by reading them |
//! | [`transcripts`] | named byte strings with their meaning |
//! | [`feed`] | the core's parsers, driven by the engine's rules over bytes in pieces |
//! | [`agree`] | the core's parsers against the model's |
//! | [`fuzz`] | what fuzzers and the replay of their corpus call |
//! | [`commands`] | random commands that a lone server and the proxy must answer alike |
//! | [`hand`] | an engine whose shell, clients and servers are played by the test |
//! | [`wire`] | a blocking raw client: these bytes out, those bytes in, a deadline |
//! | [`harness`] | real redis and memcached servers and the proxy's binary on private sockets |
//! | [`relay`] | a bad network between two processes |
//! | [`rng`] | reproducible random numbers |
//! | [`hand`] | an engine driven by hand, in virtual time |
//! | [`sim`] | an engine in a simulated world full of faults, and the oracles that watch it |
//!
//! The model and the wire use no parser of the core crate: its agreement with itself would prove
//! nothing. Everything here panics when something is wrong, because that is how a test fails.
#![warn(missing_docs)]

pub mod agree;
pub mod commands;
pub mod feed;
pub mod fuzz;
pub mod hand;
pub mod harness;
pub mod model;
pub mod relay;
pub mod rng;
pub mod sim;
pub mod transcripts;
pub mod wire;
