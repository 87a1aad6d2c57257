//! The only reader of clocks in this crate.
//!
//! Everything else is told what time it is, so that it can be tested without waiting.

use core::time::Duration;

use whimbrel_protocol::time::{Instant, UnixTime};

/// A monotonic clock that starts at 0, and the calendar.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: std::time::Instant,
}

/// The calendar is never believed to be before this: a device without a battery-backed clock starts in 1970,
/// and this code did not exist before. 2026-11-01 00:00 UTC.
const EARLIEST: UnixTime = UnixTime::from_secs(1_793_491_200);

impl Clock {
    /// Starts the monotonic clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn start() -> Self {
        Self { epoch: std::time::Instant::now() }
    }

    /// Milliseconds since [`Clock::start`].
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The calendar, as a lower bound.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn today(&self) -> UnixTime {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_1970.map_or(EARLIEST, |time| UnixTime::from_secs(time.as_secs()).max(EARLIEST))
    }

    /// Waits until `at`; for ever where there is nothing to wait for.
    pub async fn sleep_until(&self, at: Option<Instant>) {
        match at {
            Some(at) => tokio::time::sleep(self.now().until(at)).await,
            None => core::future::pending().await,
        }
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
