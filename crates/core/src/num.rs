//! Integer conversions that cannot lose anything on the platforms we build for.

const _: () = assert!(usize::BITS >= 32, "offsets are u32 and index memory");

/// Widens a wire length or index so that it can index memory.
#[inline(always)]
#[allow(
    clippy::as_conversions,
    reason = "widening: usize has at least 32 bits, asserted above"
)]
pub(crate) const fn to_usize(n: u32) -> usize {
    n as usize
}

/// Narrows an in-memory length that a limit keeps below 4 GiB.
#[inline(always)]
pub(crate) fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("limits keep every frame below 4 GiB")
}

/// Widens an in-memory length for a counter.
#[inline(always)]
#[allow(
    clippy::as_conversions,
    reason = "usize is at most 64 bits wide on every Rust platform"
)]
pub(crate) const fn to_u64(n: usize) -> u64 {
    n as u64
}
