//! The only reader of clocks in this crate.

use std::time::Instant;

/// The monotonic clock.
#[allow(clippy::disallowed_methods, reason = "this is the file that may")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The monotonic clock, for timers of the async runtime.
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::from_std(now())
}
