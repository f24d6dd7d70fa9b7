//! Servers that take a connection and refuse to serve it, as one with too many clients does.
//!
//! Such a server says one error, to whatever it was asked or before it was asked anything, and closes.
//! That is a failure like a refused attempt to connect, although bytes have come; the close of an idle
//! connection is none.

use core::mem;

use super::server::{Backoff, ServerConn};
use crate::time::{Micros, Span};

/// An error that was the first response on its connection. If the server closes next, it was a refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    at: Micros,
    /// Offset of the stream up to which responses had come with it.
    answered: u64,
}

impl ServerConn {
    /// Requests may flow: the attempts to connect that failed before are forgotten, unless the server
    /// turns out to refuse.
    pub(crate) fn serves(&mut self, backoff: &mut Backoff) {
        self.failed_before = mem::take(&mut backoff.failures);
    }

    /// The server refused after all: the attempt failed like those before it.
    pub(crate) const fn refused(&self, backoff: &mut Backoff) {
        backoff.failures = self.failed_before;
    }

    /// Notes that the response which has just come, the first one, is an error.
    pub(crate) fn note_refusal(&mut self, now: Micros) {
        self.refusal = Some(Refusal {
            at: now,
            answered: self.answered,
        });
    }

    /// Whether the server, which ends the connection now, refused to serve: all it ever said is one
    /// error, no longer than `patience` ago.
    pub(crate) fn is_refused(&self, now: Micros, patience: Span) -> bool {
        self.refusal.is_some_and(|refusal| {
            refusal.answered == self.answered
                && self.response_len == 0
                && self.recv.is_empty()
                && now <= refusal.at + patience
        })
    }

    /// Whether the server, which ends the connection now, has never let a request through although
    /// some wait, and the attempt to connect began no longer than `patience` ago.
    pub(crate) fn is_shut_out(&self, now: Micros, patience: Span) -> bool {
        self.sent == 0 && !self.pipeline.is_empty() && now <= self.opened_at + patience
    }
}
