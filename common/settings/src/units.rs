//! Reads and writes durations and sizes as people write them: `30s`, `15m`, `4h`, `32KiB`, `2MiB`.

use core::time::Duration;

const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// What would be right, for anything else and beyond 64 bits of milliseconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    read(text, &DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(|| "must be a whole number and a unit: 500ms, 30s, 15m, 4h or 30d".to_owned())
}

/// Reads a size in bytes: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`.
///
/// # Errors
/// What would be right, for anything else and beyond 64 bits.
pub fn size(text: &str) -> Result<u64, String> {
    read(text, &SIZES)
        .ok_or_else(|| "must be a whole number and a unit: 512B, 32KiB, 2MiB or 4GiB".to_owned())
}

/// Writes a duration in the largest unit that divides it, so that [`duration`] reads it back.
#[must_use]
pub fn show_duration(value: Duration) -> String {
    write(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), &DURATIONS, "s")
}

/// Writes a size in the largest unit that divides it, so that [`size`] reads it back.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    write(bytes, &SIZES, "B")
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn write(value: u64, units: &[(&str, u64)], of_zero: &str) -> String {
    match units.iter().find(|(_, scale)| value > 0 && value.is_multiple_of(*scale)) {
        Some((name, scale)) => format!("{}{name}", value / scale),
        None => format!("0{of_zero}"),
    }
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

    #[test]
    fn what_is_written_reads_back() {
        for text in ["0s", "1ms", "90s", "18h", "30d", "1500ms"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "4097B", "64KiB", "3MiB", "16TiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
        assert_eq!(show_duration(Duration::from_secs(120)), "2m");
    }
}
