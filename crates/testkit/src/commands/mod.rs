//! Random streams of commands that one lone server and the proxy must answer alike.
//!
//! A stream is drawn from a table of templates ([`redis`], [`memcache`]), so that adding a command
//! is adding a line. Each client of a run has keys of its own: whatever the others do, what it is
//! told depends on its own commands only, and a seed replays it. What must be equal about two
//! replies is the command's [`Law`].

mod duel;
mod law;
pub mod memcache;
pub mod redis;
mod redis_lines;
mod versions;

pub use duel::{Contest, seed};
pub use law::Law;
pub use versions::Manner;

/// One request and what its reply must obey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The words or the line, for people.
    pub text: String,
    /// The bytes on the wire.
    pub bytes: Vec<u8>,
    /// The law that holds between the two responses; `None` if there is no response.
    pub law: Option<Law>,
}
