//! One stream, two sides: a lone server and the proxy.

use super::{Command, Law, Manner};
use crate::rng::Rng;
use crate::wire::{Wire, escape};

/// The seed of a differential run: `DIFF_SEED`, or one of the clock's. It is printed, so that a
/// failure can be replayed.
#[must_use]
pub fn seed() -> u64 {
    let seed = std::env::var("DIFF_SEED").ok().map_or_else(
        || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(now.expect("the clock is set").subsec_nanos())
        },
        |text| text.parse().expect("DIFF_SEED is a number"),
    );
    eprintln!("replay with DIFF_SEED={seed}");
    seed
}

/// One client's two connections.
#[derive(Debug)]
pub struct Contest {
    direct: Wire,
    proxied: Wire,
    read: fn(&mut Wire) -> Vec<u8>,
    /// How the lone server words its errors.
    manner: Manner,
    rng: Rng,
    /// Names the client in a failure.
    who: String,
    /// All commands until now, for the failure's report.
    said: Vec<String>,
}

/// Commands of one pipeline.
const PIPELINE_MAX: usize = 60;
/// The latest commands that a failure shows, beside those about the same key.
const LATEST: usize = 8;

impl Contest {
    /// `read` reads one reply; `who` names the run, its seed and the client in failures.
    #[must_use]
    pub fn new(
        direct: Wire,
        proxied: Wire,
        read: fn(&mut Wire) -> Vec<u8>,
        seed: u64,
        who: String,
    ) -> Self {
        Self {
            direct,
            proxied,
            read,
            manner: Manner::Reference,
            rng: Rng::new(!seed),
            who,
            said: Vec::new(),
        }
    }

    /// The same with a lone server of another manner.
    #[must_use]
    pub fn with_manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// Sends `commands` to both sides in pipelines of random length, the proxy's in random pieces,
    /// and compares all replies.
    #[track_caller]
    pub fn run(&mut self, commands: impl IntoIterator<Item = Command>) {
        let commands: Vec<Command> = commands.into_iter().collect();
        let mut rest = &commands[..];
        while !rest.is_empty() {
            let len = (1 + self.rng.below(PIPELINE_MAX)).min(rest.len());
            let (pipeline, after) = rest.split_at(len);
            self.pipeline(pipeline);
            rest = after;
        }
    }

    fn pipeline(&mut self, commands: &[Command]) {
        let bytes: Vec<u8> = commands.iter().flat_map(|c| c.bytes.clone()).collect();
        self.direct.send(&bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = (1 + self.rng.below(2 * bytes.len())).min(rest.len());
            self.proxied.send(&rest[..len]);
            rest = &rest[len..];
        }
        for command in commands {
            self.said.push(command.text.clone());
            let Some(law) = command.law else { continue };
            let said = (self.read)(&mut self.direct);
            let expected = self.manner.in_words_of_reference(&command.text, said);
            let actual = (self.read)(&mut self.proxied);
            assert!(
                law.holds(&expected, &actual),
                "{}: {law:?} broken by the last of{}\n  lone server: {}\n  proxy:       {}",
                self.who,
                self.history(),
                escape(&expected),
                escape(&actual),
            );
        }
    }

    /// The latest commands, and earlier ones that name the key of the last.
    fn history(&self) -> String {
        let key = self.said.last().and_then(|text| text.split(' ').nth(1));
        let earlier = self.said.len().saturating_sub(LATEST);
        let told = self.said.iter().enumerate().filter(|(at, text)| {
            *at >= earlier || text.split(' ').skip(1).any(|word| Some(word) == key)
        });
        told.map(|(at, text)| format!("\n    {at}: {text}"))
            .collect()
    }

    /// One request to both sides; the replies are the caller's to judge.
    #[track_caller]
    pub fn ask(&mut self, direct: &[u8], proxied: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.direct.send(direct);
        self.proxied.send(proxied);
        (
            (self.read)(&mut self.direct),
            (self.read)(&mut self.proxied),
        )
    }

    /// One request to both sides that must be answered as `law` says; the lone server's reply.
    #[track_caller]
    pub fn agree(&mut self, request: &[u8], law: Law) -> Vec<u8> {
        let (expected, actual) = self.ask(request, request);
        assert!(
            law.holds(&expected, &actual),
            "{}: {law:?} broken by {}: {} and {}",
            self.who,
            escape(request),
            escape(&expected),
            escape(&actual)
        );
        expected
    }
}
