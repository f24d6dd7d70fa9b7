//! `nutcracker`: a drop-in for twemproxy.
#![deny(unsafe_code)]

#[allow(dead_code, reason = "skeleton")]
mod cli;
#[allow(dead_code, reason = "skeleton")]
mod config;

fn main() {}
