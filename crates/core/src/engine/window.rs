//! How many requests of one client may be in flight: at least one, so that it always goes on, and never more
//! than [`CLIENT_IN_FLIGHT_MAX`].
//!
//! All that is remembered is one guess, of two bytes, which a client keeps while it rests.

use crate::limits::{CLIENT_IN_FLIGHT_MAX, LARGE_IN_FLIGHT_LEN, LARGE_RESPONSE_LEN};

/// Many requests may be in flight as long as the responses are small; but large ones make everybody else's
/// wait that share a server connection. How large they will be is guessed from the last ones.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Window {
    /// Of a response to come, in units; 0 unless they are large.
    response_units: u16,
}

/// A sixteenth of the least large response: 1 KiB.
const UNIT: u64 = LARGE_RESPONSE_LEN / 16;

impl Window {
    /// A response of `len` bytes has come.
    #[inline]
    pub(crate) fn note(&mut self, len: u64) {
        if len >= LARGE_RESPONSE_LEN || *self != Self::default() {
            self.note_large(len);
        }
    }

    /// The guess follows at once to a larger response, and by halves to smaller ones.
    #[cold]
    fn note_large(&mut self, len: u64) {
        let guess = len.max(self.response_len() / 2);
        self.response_units = if guess >= LARGE_RESPONSE_LEN {
            u16::try_from(guess / UNIT).unwrap_or(u16::MAX)
        } else {
            0
        };
    }

    /// So many small responses have come.
    #[inline]
    pub(crate) fn note_small(&mut self, count: u32) {
        if *self != Self::default() {
            for _ in 0..count.min(u16::BITS) {
                self.note(0);
            }
        }
    }

    fn response_len(self) -> u64 {
        u64::from(self.response_units) * UNIT
    }

    /// As many as may be in flight now.
    #[inline]
    pub(crate) fn in_flight_max(self) -> u32 {
        if self == Self::default() {
            return CLIENT_IN_FLIGHT_MAX;
        }
        let count = LARGE_IN_FLIGHT_LEN / self.response_len();
        u32::try_from(count)
            .unwrap_or(u32::MAX)
            .clamp(1, CLIENT_IN_FLIGHT_MAX)
    }
}
