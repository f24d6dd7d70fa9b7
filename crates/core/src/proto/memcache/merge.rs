//! One response out of several.

use alloc::vec::Vec;

use crate::proto::{FragmentResponse, Merge};

/// See [`crate::proto::merge`].
pub fn merge(how: Merge, order: &[u16], fragments: &mut [FragmentResponse], out: &mut Vec<u8>) {
    let _ = (how, order, fragments, out);
}
