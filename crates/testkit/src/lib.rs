//! Reference model, transcripts, simulator and server harness.
