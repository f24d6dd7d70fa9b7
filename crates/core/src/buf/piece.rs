//! Copying short pieces.

use alloc::vec::Vec;
use core::ops::Range;

/// A copy of a fixed length is a few instructions, and most keys and values are short.
const BLOCK_LEN: usize = 128;

/// Appends `from[piece]`. If it is short, and something follows it in `from`, so much is copied that the
/// length is fixed, and what is too much is cut off again.
#[inline(always)]
pub(crate) fn append_piece(out: &mut Vec<u8>, from: &[u8], piece: Range<usize>) {
    let block = from
        .get(piece.start..)
        .and_then(|rest| rest.first_chunk::<BLOCK_LEN>());
    match block {
        Some(block) if piece.len() <= BLOCK_LEN => {
            let len = out.len() + piece.len();
            out.extend_from_slice(block);
            out.truncate(len);
        }
        _ => out.extend_from_slice(&from[piece]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_piece_is_appended_whatever_its_length_and_place() {
        let from: Vec<u8> = (0..200).collect();
        for start in 0..=from.len() {
            for end in start..=from.len() {
                let mut out = vec![7];
                append_piece(&mut out, &from, start..end);
                assert_eq!(out[..1], [7]);
                assert_eq!(out[1..], from[start..end], "{start}..{end}");
            }
        }
    }
}
