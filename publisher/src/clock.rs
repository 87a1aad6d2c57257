//! The only reader of clocks in this crate.

use std::time::{SystemTime, UNIX_EPOCH};

use whimbrel_protocol::time::UnixTime;

/// The calendar clock; 1970 where it stands before that.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the file that may")]
pub fn now() -> UnixTime {
    UnixTime::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
