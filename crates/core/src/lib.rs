//! The whole proxy of one worker as a deterministic state machine: bytes, events and time go in,
//! bytes, actions and the next deadline come out.
//!
//! This crate never opens a socket, reads a clock, starts a thread or writes a log line; the shell
//! (`crates/proxy`) does all of that and decides nothing. [`engine::Engine`] is the contract
//! between the two.
//!
//! | module | knows |
//! |---|---|
//! | [`time`] | moments and spans |
//! | [`limits`] | every bound of the proxy, each with its outcome |
//! | [`ids`], [`table`] | names of things, and what is kept by them |
//! | [`buf`] | where bytes wait |
//! | [`proto`] | what bytes mean: redis and memcached requests and responses |
//! | [`topology`] | which server owns a key |
//! | [`config`] | what the engine must be told: resolved, without addresses |
//! | [`counters`] | the statistics table |
//! | [`owner`] | which servers are well, decided once for all engines |
//! | [`engine`] | everything that happens between a client and its servers |
//!
//! Each depends only on those above it in that list (`tests/layers.rs`), and on the tools of the crate,
//! which know none of them but ids.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod buf;
#[cfg(not(canary))]
mod canary;
#[cfg(canary)]
pub mod canary;
pub mod config;
pub mod counters;
pub mod engine;
pub mod ids;
pub mod limits;
mod num;
pub mod owner;
pub mod proto;
mod slab;
pub mod table;
pub mod time;
pub mod topology;
mod words;
