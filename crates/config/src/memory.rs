//! How much memory the machine has, for the default of `memory_limit`.

/// Bytes of physical memory; [`u64::MAX`] if the system does not say, which limits nothing.
pub fn physical_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total(&text).unwrap_or(u64::MAX)
}

/// The value of the line `MemTotal:       16314052 kB`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_bytes() {
        let meminfo = "MemTotal:       16314052 kB\nMemFree:         1 kB\n";
        assert_eq!(total(meminfo), Some(16_314_052 * 1024));
    }

    #[test]
    fn what_cannot_be_read_is_no_total() {
        for text in [
            "",
            "MemFree: 1 kB\n",
            "MemTotal: 12\n",
            "MemTotal: x kB\n",
            "MemTotal: 18446744073709551615 kB\n",
        ] {
            assert_eq!(total(text), None, "{text:?}");
        }
    }
}
