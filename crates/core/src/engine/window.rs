//! How many requests of one client may be in flight: at least one, so that it always goes on, and never more
//! than [`CLIENT_IN_FLIGHT_MAX`].
//!
//! All that is remembered is a guess of how large the next response will be, and how far the window has opened: four
//! bytes, which a client keeps while it rests.

use crate::limits::{
    CLIENT_IN_FLIGHT_FIRST, CLIENT_IN_FLIGHT_MAX, LARGE_IN_FLIGHT_LEN, LARGE_RESPONSE_LEN,
};

/// Many requests may be in flight as long as the responses are small; but large ones make everybody else's
/// wait that share a server connection. How large they will be is guessed from the last ones, so a client without
/// any begins with a small window, which doubles as long as it is used and the responses are small.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Window {
    /// Of a response to come, in units; 0 unless they are large.
    response_units: u16,
    /// How often the first window has doubled.
    doublings: u8,
    /// The window has been full, and no large response has come since.
    is_used: bool,
}

/// A sixteenth of the least large response: 1 KiB.
const UNIT: u64 = LARGE_RESPONSE_LEN / 16;

impl Window {
    /// A response of `len` bytes has come.
    #[inline]
    pub(crate) fn note(&mut self, len: u64) {
        if len >= LARGE_RESPONSE_LEN || self.response_units != 0 {
            self.note_large(len);
        }
    }

    /// The guess follows at once to a larger response, and by halves to smaller ones.
    #[cold]
    fn note_large(&mut self, len: u64) {
        let guess = len.max(self.response_len() / 2);
        *self = Self::default();
        self.response_units = if guess >= LARGE_RESPONSE_LEN {
            u16::try_from(guess / UNIT).unwrap_or(u16::MAX)
        } else {
            0
        };
    }

    /// So many small responses have come.
    #[inline]
    pub(crate) fn note_small(&mut self, count: u32) {
        if self.response_units != 0 {
            for _ in 0..count.min(u16::BITS) {
                self.note(0);
            }
        }
    }

    /// Notes that `count` requests are in flight and the client has more.
    pub(crate) fn note_in_flight(&mut self, count: u32) {
        self.is_used = self.response_units == 0 && count >= self.in_flight_max();
    }

    /// Enough of them are answered for the client to go on.
    pub(crate) fn note_drained(&mut self) {
        let may_grow = self.is_used && self.in_flight_max() < CLIENT_IN_FLIGHT_MAX;
        self.doublings += u8::from(may_grow);
        self.is_used = false;
    }

    fn response_len(self) -> u64 {
        u64::from(self.response_units) * UNIT
    }

    /// As many as may be in flight now.
    #[inline]
    pub(crate) fn in_flight_max(self) -> u32 {
        if self.response_units == 0 {
            return (CLIENT_IN_FLIGHT_FIRST << self.doublings).min(CLIENT_IN_FLIGHT_MAX);
        }
        let count = LARGE_IN_FLIGHT_LEN / self.response_len();
        u32::try_from(count)
            .unwrap_or(u32::MAX)
            .clamp(1, CLIENT_IN_FLIGHT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_as_long_as_it_is_used_and_the_responses_are_small() {
        let mut window = Window::default();
        let mut expected = CLIENT_IN_FLIGHT_FIRST;
        for _ in 0..40 {
            assert_eq!(window.in_flight_max(), expected);
            window.note_in_flight(expected - 1);
            window.note_drained();
            assert_eq!(window.in_flight_max(), expected);
            window.note_in_flight(expected);
            window.note(LARGE_RESPONSE_LEN - 1);
            window.note_drained();
            expected = (2 * expected).min(CLIENT_IN_FLIGHT_MAX);
        }
        assert_eq!(expected, CLIENT_IN_FLIGHT_MAX);
        window.note_in_flight(expected);
        window.note(LARGE_RESPONSE_LEN);
        window.note_small(1);
        window.note_drained();
        assert_eq!(window.in_flight_max(), CLIENT_IN_FLIGHT_FIRST);
    }
}
