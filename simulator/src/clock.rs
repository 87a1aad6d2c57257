//! The only reader of clocks in this crate, and the place where time runs faster.
//!
//! Everything else sees virtual time: [`Moment`]s since the run began. With `--time-scale S` one real second is S
//! virtual ones. Rates, round trips, cuts and the session's timers are all kept in virtual time and need not know:
//! the link runs S times faster, its round trip is S times shorter, and a cut of 5 s takes 5/S s. What does not
//! scale is what is real: the service's answer and the broker take S times as long in virtual time.

use core::num::NonZeroU32;
use core::ops::Add;
use core::time::Duration;

/// A point in virtual time, in microseconds since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// When the run began.
    pub const START: Self = Self(0);

    /// The moment this many microseconds after the run began.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the run began.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the run began, the unit of the protocol's sessions.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1000
    }

    /// The time from `earlier` to here, or zero where that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Virtual time of one run; clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    began: tokio::time::Instant,
    scale: NonZeroU32,
}

impl Clock {
    /// Starts a run in which `scale` virtual seconds pass in a real one.
    #[must_use]
    pub fn start(scale: NonZeroU32) -> Self {
        Self { began: tokio::time::Instant::now(), scale }
    }

    /// Virtual seconds in a real one.
    #[must_use]
    pub const fn scale(&self) -> NonZeroU32 {
        self.scale
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Moment {
        let real = self.real_elapsed();
        Moment::START + real.saturating_mul(self.scale.get())
    }

    /// Real time since the run began.
    #[must_use]
    pub fn real_elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The virtual time that this much real time takes.
    #[must_use]
    pub const fn virtual_time(&self, real: Duration) -> Duration {
        real.saturating_mul(self.scale.get())
    }

    /// A timer that fires at `moment`, never before it.
    pub fn sleep_until(&self, moment: Moment) -> tokio::time::Sleep {
        tokio::time::sleep_until(self.real_instant(moment))
    }

    /// Sets a timer of [`Clock::sleep_until`] anew.
    pub fn reset(&self, timer: core::pin::Pin<&mut tokio::time::Sleep>, moment: Moment) {
        timer.reset(self.real_instant(moment));
    }

    /// The real instant at which it is `moment`, rounded up, so that a timer never fires early.
    fn real_instant(&self, moment: Moment) -> tokio::time::Instant {
        let micros = moment.0.div_ceil(u64::from(self.scale.get())).min(FAR_FUTURE_MICROS);
        self.began + Duration::from_micros(micros)
    }
}

/// Ten years: far enough never to come, near enough for every timer.
const FAR_FUTURE_MICROS: u64 = 10 * 365 * 24 * 3600 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(scale: u32) -> Clock {
        Clock::start(NonZeroU32::new(scale).unwrap())
    }

    #[tokio::test]
    async fn a_timer_does_not_fire_before_its_moment() {
        let clock = clock(50);
        for wait_ms in [0, 1, 40, 333] {
            let moment = clock.now() + Duration::from_millis(wait_ms);
            clock.sleep_until(moment).await;
            assert!(clock.now() >= moment, "{wait_ms}");
        }
    }

    #[tokio::test]
    async fn virtual_time_runs_at_the_scale() {
        let clock = clock(20);
        clock.sleep_until(Moment::from_micros(400_000)).await;
        let (real, now) = (clock.real_elapsed(), clock.now());
        assert!(now.micros() >= 20 * u64::try_from(real.as_micros()).unwrap());
        assert!(real >= Duration::from_millis(20), "{real:?}");
        assert_eq!(clock.virtual_time(Duration::from_millis(50)), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_moment_beyond_every_clock_is_a_timer_that_never_fires() {
        let clock = clock(1);
        let timer = clock.sleep_until(Moment::from_micros(u64::MAX));
        assert!(!timer.is_elapsed());
        assert_eq!(Moment::from_micros(u64::MAX) + Duration::MAX, Moment::from_micros(u64::MAX));
    }

    #[test]
    fn time_since_a_later_moment_is_zero() {
        let early = Moment::from_micros(5);
        assert_eq!(early.since(Moment::from_micros(7_005)), Duration::ZERO);
        assert_eq!(Moment::from_micros(7_005).since(early).as_millis(), 7);
        assert_eq!(Moment::from_micros(7_005).millis(), 7);
    }
}
