//! Number conversions for a tool that reports ratios.

use std::time::Duration;

/// A count as a float, for a ratio that is printed with three digits.
#[allow(clippy::as_conversions, reason = "loses precision only above 2^53")]
pub(crate) const fn float(n: u64) -> f64 {
    n as f64
}

/// A length as a counter value.
#[allow(
    clippy::as_conversions,
    reason = "usize is at most 64 bits wide on every Rust platform"
)]
pub(crate) const fn wide(n: usize) -> u64 {
    n as u64
}

/// A counter value as an index; the caller has bounded it by a length in memory.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).expect("the caller bounds it by a length in memory")
}

/// A duration in the tool's own unit of time.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `part / whole`, 0 when there is no whole.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        float(part) / float(whole)
    }
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = if sorted.len().is_multiple_of(2) {
        sorted[sorted.len() / 2 - 1]
    } else {
        upper
    };
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_takes_the_middle_or_the_mean_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratio_of_nothing_is_zero() {
        assert!(ratio(5, 0).abs() < f64::EPSILON);
        assert!((ratio(1, 4) - 0.25).abs() < f64::EPSILON);
    }
}
