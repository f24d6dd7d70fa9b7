//! Differences of later memcached servers from 1.6.18, whose words the proxy speaks.

use crate::wire::Wire;

/// The patch number of the first 1.6 that words errors otherwise.
const LATER: u32 = 40;

/// Lines with too few words: the first word, all words counted, and what 1.6.18 says to them.
const TOO_SHORT: [(&str, usize, &[u8]); 14] = [
    ("", 0, b"ERROR\r\n"),
    ("get", 1, b"ERROR\r\n"),
    ("gets", 1, b"ERROR\r\n"),
    ("gat", 1, b"ERROR\r\n"),
    ("gats", 1, b"ERROR\r\n"),
    ("touch", 1, b"ERROR\r\n"),
    ("touch", 2, b"ERROR\r\n"),
    ("incr", 1, b"ERROR\r\n"),
    ("incr", 2, b"ERROR\r\n"),
    ("decr", 1, b"ERROR\r\n"),
    ("decr", 2, b"ERROR\r\n"),
    ("delete", 1, b"ERROR\r\n"),
    ("set", 4, b"ERROR\r\n"),
    ("verbosity", 1, b"ERROR\r\n"),
];
/// The one answer of later servers to all of these.
const LATER_SAYS: &[u8] = b"CLIENT_ERROR bad command line format\r\n";

/// The manner of one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// The words of 1.6.18, or no memcached.
    Reference,
    /// The words of 1.6.45.
    Later,
}

impl Manner {
    /// Asks a memcached for its version. One that is newer than all that are known here is taken for
    /// the latest known.
    #[track_caller]
    pub fn of(server: &mut Wire) -> Self {
        server.send(b"version\r\n");
        let said = String::from_utf8(server.read_memcache()).expect("a version is text");
        let numbers: Vec<u32> = said
            .trim_end()
            .trim_start_matches("VERSION ")
            .split('.')
            .map(|number| number.parse().expect("a version is numbers and dots"))
            .collect();
        if numbers[..] < [1, 6, LATER][..] {
            Self::Reference
        } else {
            Self::Later
        }
    }

    /// Whether the server takes `line` for what 1.6.18 takes it for: the later ones refuse lines with a leading
    /// blank, take words behind a whole `touch` or `delete` for nothing, and refuse a `gat` without keys.
    #[must_use]
    pub fn reads_alike(self, line: &str) -> bool {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        self == Self::Reference
            || match words[..] {
                ["gat" | "gats", _] => false,
                ["delete", _, more] => matches!(more, "0" | "noreply"),
                ["touch", _, _, more, ..] => more == "noreply",
                _ => !line.starts_with(' '),
            }
    }

    /// The answer of 1.6.18 to `line` where this server said `said`.
    #[must_use]
    pub fn in_words_of_reference(self, line: &str, said: Vec<u8>) -> Vec<u8> {
        let mut words = line.split_ascii_whitespace();
        let count = words.clone().count();
        let first = words.next().unwrap_or("");
        let known = TOO_SHORT
            .iter()
            .find(|(name, len, _)| (*name, *len) == (first, count));
        match known {
            Some((_, _, reference)) if self == Self::Later && said == LATER_SAYS => {
                reference.to_vec()
            }
            _ => said,
        }
    }
}
