//! The only place in this crate that reads clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use whimbrel_protocol::time::UnixTime;

/// The calendar clock. If it stands before 1970, this gives 1970.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the file that may")]
pub fn now() -> UnixTime {
    UnixTime::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the file that may")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since it was started.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
