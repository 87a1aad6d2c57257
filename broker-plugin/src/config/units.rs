//! Durations and sizes as people write them: `30s`, `15m`, `4h`, `32KiB`, `2MiB`, `4GiB`.

use core::time::Duration;

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 5] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    read(text, &DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(|| "must be a whole number and a unit: 500ms, 30s, 15m, 4h or 30d".to_owned())
}

/// Reads a size in bytes: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    read(text, &SIZES)
        .ok_or_else(|| "must be a whole number and a unit: 512B, 32KiB, 2MiB or 4GiB".to_owned())
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_written() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("4h"), Ok(Duration::from_secs(14_400)));
        assert_eq!(size("4 KiB"), Ok(4096));
        assert_eq!(size("4GiB"), Ok(4 << 30));
    }

    #[test]
    fn numbers_without_unit_and_units_without_number_are_refused() {
        for bad in ["", "30", "s", "-1s", "1.5h", "30 sec", "99999999999999999999s", "999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "4", "4kb", "4 Ki B", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
