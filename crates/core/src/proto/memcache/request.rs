//! Framing and classification of memcached requests.

use crate::proto::{Parse, RequestLimits};

/// Resumable position within one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestParser {}

impl RequestParser {
    /// See [`crate::proto::RequestParser::parse`].
    pub fn parse(&mut self, bytes: &[u8], limits: &RequestLimits) -> Parse {
        let _ = limits;
        Parse::Incomplete {
            need: bytes.len() + 1,
        }
    }
}
