//! The only reader of clocks in this crate.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use whimbrel_protocol::time::{self as protocol_time, UnixTime};

use crate::clock_guard::{ClockDoubt, ClockGuard};

/// The monotonic clock.
#[allow(clippy::disallowed_methods, reason = "this is the file that may")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The monotonic clock, for timers of the async runtime.
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::from_std(now())
}

/// The clocks as the protocol's machines count them. Clones are one clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    /// The calendar is not believed to be before this: what was signed later must not be denied.
    floor: UnixTime,
    guard: Arc<Mutex<ClockGuard>>,
}

impl Clock {
    /// Starts the monotonic clock. `floor` is the latest time that was signed before.
    pub(crate) fn start(floor: UnixTime) -> Self {
        Self { epoch: now(), floor, guard: Arc::new(Mutex::new(ClockGuard::new(floor))) }
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> protocol_time::Instant {
        let elapsed = now().saturating_duration_since(self.epoch).as_millis();
        protocol_time::Instant::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// The time of day, as far as it is believed.
    pub(crate) fn today(&self) -> UnixTime {
        self.guard().look(self.now(), self.shown()).max(self.floor)
    }

    /// Why the calendar was not believed when [`Clock::today`] was asked last.
    pub(crate) fn doubt(&self) -> Option<ClockDoubt> {
        self.guard().doubt()
    }

    /// An operator says that the calendar is right. Returns the doubt that this ends.
    pub(crate) fn accept(&self) -> Option<ClockDoubt> {
        self.guard().accept(self.now(), self.shown())
    }

    fn guard(&self) -> MutexGuard<'_, ClockGuard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the calendar shows.
    #[allow(clippy::disallowed_methods, reason = "this is the file that may")]
    fn shown(&self) -> UnixTime {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.map_or(self.floor, |time| UnixTime::from_secs(time.as_secs()))
    }

    /// A point of this clock, for timers of the async runtime.
    pub(crate) fn timer(&self, at: protocol_time::Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.epoch + Duration::from_millis(at.as_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_never_before_what_was_signed_last() {
        let signed = UnixTime::from_secs(1 << 40);
        assert_eq!(Clock::start(signed).today(), signed);
        let real = Clock::start(UnixTime::default()).today();
        assert!(real > UnixTime::from_secs(1_700_000_000) && real < signed);
    }

    #[test]
    fn a_point_of_the_clock_is_as_far_from_its_start_as_it_says() {
        let clock = Clock::start(UnixTime::default());
        let start = tokio::time::Instant::from_std(clock.epoch);
        let timer = clock.timer(protocol_time::Instant::from_millis(1500));
        assert_eq!(timer - start, Duration::from_millis(1500));
        let before = clock.now();
        assert!(before <= clock.now());
    }
}
