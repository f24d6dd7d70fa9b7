//! Sockets and readiness: the only place where bytes meet the kernel.

pub(crate) mod errno;
pub(crate) mod listener;
pub(crate) mod poller;
pub(crate) mod stream;
