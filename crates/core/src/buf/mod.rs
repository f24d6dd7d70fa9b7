//! Where bytes wait.
//!
//! ```text
//!   socket ──▶ scratch of the worker ──▶ parser          (nothing is kept of whole frames)
//!                    │ unfinished frame
//!                    ▼
//!               RecvBuf of the connection ─── whole large frame ──▶ moved, not copied
//!                                                                        │
//!   small frames are copied together ──▶ SendQueue of the peer ◀─────────┘ ──▶ socket
//! ```
//!
//! Both buffers are empty while their connection is idle; [`ChunkPool`] recycles the send queues'
//! memory, so that the steady state allocates nothing. What they hold is counted in its [`Ledger`].

mod ledger;
mod piece;
mod pool;
mod recv;
mod send;

pub use ledger::Ledger;
pub(crate) use piece::append_piece;
pub use pool::{ChunkPool, ChunkSize};
pub use recv::RecvBuf;
pub use send::{Segment, SendQueue};
