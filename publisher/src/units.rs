//! Reads and writes sizes, durations and points in time as people do.

use thiserror::Error;
use whimbrel_protocol::time::UnixTime;

/// Why a text is not the size, duration or time that it should be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not {what}")]
pub struct UnitError {
    /// What was written.
    pub text: String,
    /// What would be right.
    pub what: &'static str,
}

/// Reads a size in bytes: `4096`, `4KiB`, `1MiB`, `2GiB`.
///
/// # Errors
/// [`UnitError`] for anything else, and beyond 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1), ("", 1)];
    parse(text, &units, "a size such as 4096, 4KiB or 1MiB")
}

/// Reads an address in hexadecimal, with `0x` before it or without: `0x08000000`.
///
/// # Errors
/// [`UnitError`] for anything else, and beyond 64 bits.
pub fn parse_address(text: &str) -> Result<u64, UnitError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let number = if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        u64::from_str_radix(digits, 16).ok()
    } else {
        None
    };
    number
        .ok_or_else(|| UnitError { text: text.into(), what: "an address in hexadecimal such as 0x08000000" })
}

/// Reads a duration in seconds: `30s`, `10m`, `2h`, `30d`. Only 0 needs no unit, because whoever writes `2` may mean
/// seconds as well as hours.
///
/// # Errors
/// [`UnitError`] for anything else, and beyond 64 bits.
pub fn parse_duration_s(text: &str) -> Result<u64, UnitError> {
    if text == "0" {
        return Ok(0);
    }
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", DAY_S)];
    parse(text, &units, "a duration with its unit, such as 30s, 10m, 2h or 30d")
}

fn parse(text: &str, units: &[(&str, u64)], what: &'static str) -> Result<u64, UnitError> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or_default().trim_start();
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let number = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
    number
        .zip(factor)
        .and_then(|(number, factor): (u64, u64)| number.checked_mul(factor))
        .ok_or_else(|| UnitError { text: text.into(), what })
}

/// Writes a number with separated thousands: `1,048,576`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a size for people: in the largest unit that divides it, else in bytes.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0 => "0 bytes".into(),
        1 => "1 byte".into(),
        _ => match [(30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|(log2, _)| bytes.is_multiple_of(1 << log2))
        {
            Some((log2, unit)) => format!("{} {unit}", grouped(bytes >> log2)),
            None => format!("{} bytes", grouped(bytes)),
        },
    }
}

/// Writes a duration for people, in the largest unit that divides it.
#[must_use]
pub fn duration(seconds: u64) -> String {
    match [(DAY_S, "d"), (3600, "h"), (60, "m")]
        .into_iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

const DAY_S: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAY: u64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// 9999-12-31 23:59:59.
const LATEST_S: u64 = 253_402_300_799;

/// Writes a point in time as in RFC 3339, `2026-11-22T10:00:00Z`; beyond the year 9999 as `@` and seconds.
#[must_use]
pub fn time(time: UnixTime) -> String {
    let seconds = time.as_secs();
    if seconds > LATEST_S {
        return format!("@{seconds}");
    }
    let (days, of_day) = (seconds / DAY_S + EPOCH_DAY, seconds % DAY_S);
    // Years begin on 1 March here, so that the leap day is their last (civil_from_days, H. Hinnant).
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a point in time as in RFC 3339: `2026-12-01T02:00:00Z`, or with an offset as `2026-12-01T03:00:00+01:00`;
/// `2026-12-01` (midnight UTC); or seconds since 1970.
///
/// # Errors
/// [`UnitError`] for anything else, and for days that no calendar has.
pub fn parse_time(text: &str) -> Result<UnixTime, UnitError> {
    let wrong = || UnitError {
        text: text.into(),
        what: "a time such as 2026-12-01T02:00:00Z, 2026-12-01T03:00:00+01:00, 2026-12-01 (midnight UTC) or seconds \
            since 1970",
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(UnixTime::from_secs).map_err(|_| wrong());
    }
    let (date, of_day, ahead_s) = match text.split_once('T') {
        Some((date, clock)) => {
            let (of_day, ahead_s) = split_offset(clock).ok_or_else(wrong)?;
            (date, of_day, ahead_s)
        }
        None => (text, "00:00:00", 0),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or_else(wrong)?;
    let [hour, minute, second] = numbers(of_day, ':', [2, 2, 2]).ok_or_else(wrong)?;
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || hour > 23 || minute > 59 || second > 59 {
        return Err(wrong());
    }
    let year_from_march = year - u64::from(month <= 2);
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * ERA_DAYS + day_of_era - EPOCH_DAY;
    let parsed = UnixTime::from_secs(days * DAY_S + hour * 3600 + minute * 60 + second);
    // A day that does not exist reads back as another one: 31 April has become 1 May.
    if !time(parsed).starts_with(date) {
        return Err(wrong());
    }
    parsed.as_secs().checked_add_signed(-ahead_s).map(UnixTime::from_secs).ok_or_else(wrong)
}

/// Splits the time of a day from its offset, and says by how many seconds the clock there is ahead of UTC.
fn split_offset(clock: &str) -> Option<(&str, i64)> {
    if let Some(of_day) = clock.strip_suffix('Z') {
        return Some((of_day, 0));
    }
    let at = clock.rfind(['+', '-'])?;
    let (of_day, offset) = clock.split_at_checked(at)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    // The seconds stand there only for the reader of three numbers.
    let [hours, minutes, _] = numbers(&format!("{offset}:00"), ':', [2, 2, 2])?;
    let ahead_s = i64::try_from(hours * 3600 + minutes * 60).ok()?;
    let possible = hours <= 23 && minutes <= 59;
    possible.then_some((of_day, if sign == "-" { -ahead_s } else { ahead_s }))
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == width)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4KiB"), Ok(4096));
        assert_eq!(parse_size("1 MiB"), Ok(1 << 20));
        assert_eq!(parse_duration_s("90s"), Ok(90));
        assert_eq!(parse_duration_s("0"), Ok(0));
        assert_eq!(parse_duration_s("0s"), Ok(0));
        assert_eq!(parse_duration_s("30d"), Ok(2_592_000));
        for bad in ["", "KiB", "4kb", "-1", "1.5MiB", "0x10", "1e3", "18446744073709551615KiB", "١KiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_address("0x08000000"), Ok(0x0800_0000));
        assert_eq!(parse_address("ffffffff81000000"), Ok(0xffff_ffff_8100_0000));
        for bad in ["", "0x", "0X10", "+10", "-10", "0x1_0", "0x1ffffffffffffffff", "main"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
        for bad in ["", "s", "2", "30 days", "-1s", "1h30m"] {
            assert!(parse_duration_s(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(3 << 30), "3 GiB");
        assert_eq!(size(4097), "4,097 bytes");
        assert_eq!(size(1), "1 byte");
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(90), "90s");
        assert_eq!(duration(2_592_000), "30d");
    }

    #[test]
    fn times_read_back_as_they_are_written() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_790_000_000, "2026-09-21T14:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LATEST_S, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(time(UnixTime::from_secs(seconds)), text);
            assert_eq!(parse_time(text), Ok(UnixTime::from_secs(seconds)));
        }
        for day in 0..200_000 {
            let midnight = UnixTime::from_secs(day * DAY_S);
            assert_eq!(parse_time(&time(midnight)), Ok(midnight));
        }
        assert_eq!(parse_time("2026-12-01"), Ok(UnixTime::from_secs(1_796_083_200)));
        assert_eq!(parse_time("1796083200"), Ok(UnixTime::from_secs(1_796_083_200)));
        assert_eq!(time(UnixTime::from_secs(LATEST_S + 1)), "@253402300800");
    }

    #[test]
    fn a_time_with_an_offset_is_the_same_moment_in_utc() {
        for (text, same) in [
            ("2026-12-01T03:00:00+01:00", "2026-12-01T02:00:00Z"),
            ("2026-11-30T21:30:00-04:30", "2026-12-01T02:00:00Z"),
            ("2026-12-01T02:00:00-00:00", "2026-12-01T02:00:00Z"),
            ("1970-01-01T23:59:00+23:59", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_time(text).map(time).as_deref(), Ok(same), "{text}");
        }
        for bad in [
            "1970-01-01T00:00:00+00:01",
            "2026-12-01T02:00:00+24:00",
            "2026-12-01T02:00:00+01:60",
            "2026-12-01T02:00:00+1:00",
            "2026-12-01T02:00:00+0100",
            "2026-12-01T02:00:00+",
            "2026-12-01T+01:00",
            "2026-02-29T02:00:00+01:00",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_that_no_calendar_has_are_refused() {
        for bad in [
            "2026-02-29",
            "2026-04-31",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "1969-12-31",
            "2026-12-01T24:00:00Z",
            "2026-12-01T02:00:00",
            "2026-12-01T02:00Z",
            "tomorrow",
            "2026-1-1",
            "+026-01-01",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
