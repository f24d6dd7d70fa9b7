//! Measuring redis responses.

use crate::proto::ResponseStep;

/// Resumable position within one response.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseParser {}

impl ResponseParser {
    /// See [`crate::proto::ResponseParser::step`].
    pub fn step(&mut self, bytes: &[u8]) -> ResponseStep {
        let _ = bytes;
        ResponseStep::More(0)
    }
}

/// What an error reply says about the server that sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// An ordinary reply or error: the server is healthy.
    Healthy,
    /// `-OOM`, `-BUSY`, `-LOADING`, `-MASTERDOWN`: passed on, counted as a failure.
    Failing,
}

/// Judges a response by its first bytes (as many as there are, up to 16 are needed).
#[must_use]
pub fn verdict(head: &[u8]) -> Verdict {
    let _ = head;
    Verdict::Healthy
}
