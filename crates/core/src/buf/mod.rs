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
//! memory, so that the steady state allocates nothing.

mod piece;
mod recv;
mod send;

pub(crate) use piece::append_piece;
pub use recv::RecvBuf;
pub use send::{ChunkPool, ChunkSize, Segment, SendQueue};
