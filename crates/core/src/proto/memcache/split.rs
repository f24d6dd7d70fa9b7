//! Keys of multi-key requests, and the fragments they become.

use alloc::vec::Vec;

use crate::proto::{Part, Request};

/// See [`crate::proto::parts`].
pub fn parts(frame: &[u8], request: &Request, out: &mut Vec<Part>) {
    let _ = (frame, request, out);
}

/// See [`crate::proto::fragment_head`].
pub fn fragment_head(frame: &[u8], request: &Request, out: &mut Vec<u8>) {
    let _ = (frame, request, out);
}
