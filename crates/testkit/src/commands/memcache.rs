//! memcached commands of every kind.
//!
//! The keys of a client begin with its number. Two things are not drawn, because there a lone
//! memcached is no example: it reads the data of a refused storage command as further commands, and
//! an over-long key in a `get` makes it forget the answers to earlier requests of the pipeline.
//! And whether `incr` and `decr` write into the item, with blanks behind a number that is shorter than
//! what stood there, depends on who reads it just then, so counters have keys that are never read.

use super::{Command, Law};
use crate::rng::Rng;
use crate::transcripts::{boundary_sizes, filler};

/// One client's endless stream.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: Rng,
    client: usize,
}

const KEYS: usize = 24;

/// Commands without data, by law. `<k>` is a key, `<c>` a counter's, `@<k>` one to nine, `<n>` a small number, `<e>`
/// an expiry time that does not come.
///
/// No counter reaches 2^63: memcached looks for a `-` in a number that large, beyond the item's end in its memory, so
/// that what it answers depends on what lies there.
const LINES: [(&str, Law); 33] = [
    ("get <k>", Law::Exact),
    ("get @<k>", Law::Values),
    ("get @<k>", Law::Values),
    ("gets <k>", Law::ValuesButCas),
    ("gets @<k>", Law::ValuesButCas),
    ("gat <e> <k>", Law::Exact),
    ("gat <e> @<k>", Law::Values),
    ("gats <e> @<k>", Law::ValuesButCas),
    ("touch <k> <e>", Law::Exact),
    ("touch <k> nonsense", Law::Exact),
    ("touch <k>", Law::Exact),
    ("decr <c> <n>", Law::Exact),
    ("incr <c> <n>", Law::Exact),
    ("incr <k> -1", Law::Exact),
    ("incr <k>", Law::Exact),
    ("delete <k>", Law::Exact),
    ("delete <k> 0", Law::Exact),
    ("delete <k> 5", Law::Exact),
    ("version", Law::Exact),
    ("verbosity 0", Law::Exact),
    ("get", Law::Exact),
    ("", Law::Exact),
    ("nosuch <k>", Law::Exact),
    ("GET <k>", Law::Exact),
    ("delete <long>", Law::Exact),
    ("incr <long> 1", Law::Exact),
    ("  get   <k>  ", Law::Exact),
    ("set <k> 0 0", Law::Exact),
    ("touch <k> <e> extra words", Law::Exact),
    ("incr <k> 18446744073709551616", Law::Exact),
    ("incr <c> 1000000000000", Law::Exact),
    ("decr <c> 99999", Law::Exact),
    ("gat nonsense <k>", Law::Exact),
];

impl Stream {
    /// The stream of `client` in the run of `seed`.
    #[must_use]
    pub fn new(seed: u64, client: usize) -> Self {
        let salt = u64::try_from(client).expect("few clients") << 32;
        Self {
            rng: Rng::new(seed ^ salt),
            client,
        }
    }

    /// One of the client's keys.
    pub fn key(&mut self) -> String {
        format!("c{}-{}", self.client, self.rng.below(KEYS))
    }

    fn counter(&mut self) -> String {
        format!("c{}-count{}", self.client, self.rng.below(4))
    }

    fn start_counter(&mut self) -> Command {
        let line = format!("set {} 0 0 6", self.counter());
        let bytes = format!("{line}\r\n{}\r\n", 100_000 + self.rng.below(900_000)).into_bytes();
        Command {
            text: line,
            bytes,
            law: Some(Law::Exact),
        }
    }

    fn storage(&mut self) -> Command {
        const NAMES: [&str; 8] = [
            "set", "set", "set", "add", "replace", "append", "prepend", "cas",
        ];
        let name = NAMES[self.rng.below(NAMES.len())];
        let data = self.data();
        // No server ever handed this number out.
        let cas = if name == "cas" { " 999999999999" } else { "" };
        let (noreply, law) = self.maybe_noreply(Law::Exact);
        let flags = self.rng.below(70_000);
        let expiry = self.expiry();
        let key = self.key();
        let line = format!("{name} {key} {flags} {expiry} {}{cas}{noreply}", data.len());
        let mut bytes = format!("{line}\r\n").into_bytes();
        bytes.extend_from_slice(&data);
        bytes.extend_from_slice(b"\r\n");
        Command {
            text: line,
            bytes,
            law,
        }
    }

    fn line(&mut self) -> Command {
        let (template, law) = LINES[self.rng.below(LINES.len())];
        let mut words = Vec::new();
        for word in template.split(' ') {
            match word {
                "<k>" => words.push(self.key()),
                "<c>" => words.push(self.counter()),
                "@<k>" => {
                    for _ in 0..1 + self.rng.below(9) {
                        words.push(self.key());
                    }
                }
                "<n>" => words.push(self.rng.below(100).to_string()),
                "<e>" => words.push(self.expiry().to_owned()),
                "<long>" => words.push("k".repeat(251)),
                other => words.push(other.to_owned()),
            }
        }
        let silent = [
            "touch <k> <e>",
            "incr <c> <n>",
            "decr <c> <n>",
            "delete <k>",
        ];
        let (noreply, law) = if silent.contains(&template) {
            self.maybe_noreply(law)
        } else {
            ("", Some(law))
        };
        let text = words.join(" ") + noreply;
        let end = if self.rng.below(8) == 0 { "\n" } else { "\r\n" };
        Command {
            bytes: format!("{text}{end}").into_bytes(),
            text,
            law,
        }
    }

    fn maybe_noreply(&mut self, law: Law) -> (&'static str, Option<Law>) {
        if self.rng.below(6) == 0 {
            (" noreply", None)
        } else {
            ("", Some(law))
        }
    }

    fn expiry(&mut self) -> &'static str {
        ["0", "0", "5000", "2147483000", "-1"][self.rng.below(5)]
    }

    fn data(&mut self) -> Vec<u8> {
        match self.rng.below(8) {
            0 => Vec::new(),
            1..=3 => self.rng.below(1000).to_string().into_bytes(),
            4 => {
                let sizes = boundary_sizes();
                filler(sizes[self.rng.below(sizes.len())])
            }
            _ => {
                let len = 1 + self.rng.below(40);
                self.rng.bytes(len)
            }
        }
    }
}

impl Iterator for Stream {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        Some(match self.rng.below(12) {
            0 => self.start_counter(),
            1..=4 => self.storage(),
            _ => self.line(),
        })
    }
}
