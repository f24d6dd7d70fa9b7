//! Measuring memcached responses.

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
