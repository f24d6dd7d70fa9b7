//! Reference model, transcripts, simulator and server harness.
#![warn(missing_docs)]

pub mod hand;
