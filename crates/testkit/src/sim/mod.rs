//! Deterministic simulation: the real engine in a made-up world.
//!
//! One *seed* decides everything: the configuration, who the clients are, what they ask, how bytes
//! travel, what goes wrong and when. Time is virtual and jumps from event to event. So a failure
//! found once is found again by its seed, as often as it takes to understand it.
//!
//! | module | is |
//! |---|---|
//! | `dice` | the randomness of one world |
//! | `plan` | what a seed decides beforehand (swarm testing: every kind of fault is off in half of all worlds) |
//! | `pipe` | bytes under way in one direction |
//! | `world` | time, events, and the shell's part |
//! | `crowd`, `client` | who asks, and what must come back |
//! | `server` | who answers: correct stores that may be slow, sick, silent or lie |
//! | `words` | tagged keys and values |
//! | `oracle` | what must be true at each step and at the end |
//!
//! The life of a world: a *storm* with faults; then they stop, and everything in flight must be
//! answered; then everybody asks once more and must be served without any error; then everybody goes,
//! and nothing may be left.

mod client;
mod crowd;
mod dice;
mod drafts;
mod mischief;
mod oracle;
mod pipe;
mod plan;
mod reply;
mod server;
mod shell;
mod words;
mod worker;
mod world;

use std::env;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// What one world was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Replies that clients got and judged.
    pub answered: u64,
    /// Events that happened.
    pub steps: u64,
}

/// An oracle spoke up.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that brings it back.
    pub seed: u64,
    /// What was wrong.
    pub message: String,
    /// The event at which it showed.
    pub step: u64,
    /// The configuration and the faults.
    plan: String,
    /// The last lines of what happened.
    story: Vec<String>,
}

/// The worlds a test looks at: the one of `SIM_SEED`, or the first `SIM_SEEDS`, or the first
/// `default_count`.
#[must_use]
pub fn seeds(default_count: u64) -> Range<u64> {
    let number = |name| {
        let text = env::var(name).ok()?;
        let number: u64 = text.parse().expect("a number");
        Some(number)
    };
    number("SIM_SEED").map_or_else(
        || 0..number("SIM_SEEDS").unwrap_or(default_count),
        |seed| seed..seed + 1,
    )
}

/// Lives through the world of `seed`.
///
/// # Errors
/// What an oracle found.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    live(seed, false).or_else(|failure| {
        // The second life is the same, but somebody takes notes.
        live(seed, true)?;
        Err(failure)
    })
}

fn live(seed: u64, with_story: bool) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, with_story);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    match result {
        Ok(()) => Ok(Report {
            answered: world.answered,
            steps: world.step,
        }),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            Err(Box::new(Failure {
                seed,
                message: text.unwrap_or("a panic without words").to_owned(),
                step: world.step,
                plan: format!("{:?}", world.plan),
                story: world.story.take().unwrap_or_default(),
            }))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plan)?;
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        writeln!(
            f,
            "seed {} fails at step {}: {}",
            self.seed, self.step, self.message
        )?;
        write!(
            f,
            "replay: SIM_SEED={} cargo test -p twemproxy-core --test sim",
            self.seed
        )
    }
}
