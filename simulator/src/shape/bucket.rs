//! A token bucket that fires seldom and does not lose what a late timer owes.
//!
//! Credit grows with time. When it is used up while more waits, nothing passes until a quantum is there, so that a
//! device at work wakes about twenty times a second and not for every byte. Two caps keep it honest: while nothing
//! waits, credit stops at one quantum, so that an idle link has nothing saved for a burst; while it fills up for
//! somebody who waits, it may grow to a second's worth, because then the only reason for unused credit is that this
//! machine woke the device late.

use core::time::Duration;

use crate::clock::Moment;

/// One direction of one link.
#[derive(Debug)]
pub struct Bucket {
    rate_bytes_s: u64,
    quantum_us: u64,
    /// In bytes times microseconds per second, so that no fraction of a byte is lost between two refills.
    credit: u64,
    refilled: Moment,
    /// Whether the credit was used up while more waited, and nothing passes before a quantum is there.
    filling: bool,
}

impl Bucket {
    /// An empty bucket of at least one byte per virtual second.
    #[must_use]
    pub fn new(rate_bytes_s: u64, quantum: Duration, now: Moment) -> Self {
        let quantum_us = u64::try_from(quantum.as_micros()).unwrap_or(u64::MAX).clamp(1, QUANTUM_US_MAX);
        Self { rate_bytes_s: rate_bytes_s.max(1), quantum_us, credit: 0, refilled: now, filling: false }
    }

    /// Bytes that may pass now.
    pub fn available(&mut self, now: Moment) -> usize {
        let elapsed_us = now.micros().saturating_sub(self.refilled.micros());
        let cap = if self.filling {
            self.worth(self.quantum_us.saturating_mul(LATE_QUANTA_MAX)).max(BYTE)
        } else {
            self.quantum().max(self.credit)
        };
        self.credit = self.credit.saturating_add(self.worth(elapsed_us)).min(cap);
        self.refilled = self.refilled.max(now);
        self.filling &= self.credit < self.quantum();
        if self.filling { 0 } else { usize::try_from(self.credit / BYTE).unwrap_or(usize::MAX) }
    }

    /// So many bytes passed, of those that were available; `more` where as many passed as were let.
    pub fn spend(&mut self, bytes: usize, more: bool) {
        self.credit = self.credit.saturating_sub((bytes as u64).saturating_mul(BYTE));
        if !more {
            self.filling = false;
            self.credit = self.credit.min(self.quantum());
        } else if self.credit < BYTE {
            self.filling = true;
        }
    }

    /// When a quantum is there to be spent, or a byte where a quantum is less.
    #[must_use]
    pub fn filled_at(&self, now: Moment) -> Moment {
        let missing = self.quantum().saturating_sub(self.credit);
        let filled = self.refilled + Duration::from_micros(missing.div_ceil(self.rate_bytes_s));
        filled.max(now)
    }

    fn quantum(&self) -> u64 {
        self.worth(self.quantum_us).max(BYTE)
    }

    /// Credit that so much time is worth.
    const fn worth(&self, time_us: u64) -> u64 {
        time_us.saturating_mul(self.rate_bytes_s)
    }
}

/// Credit for one byte.
const BYTE: u64 = 1_000_000;
/// Quanta that a late timer may find saved: one second where the quantum is 50 ms.
const LATE_QUANTA_MAX: u64 = 20;
const QUANTUM_US_MAX: u64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> Bucket {
        Bucket::new(1000, Duration::from_millis(50), Moment::START)
    }

    fn at(ms: u64) -> Moment {
        Moment::from_micros(ms * 1000)
    }

    #[test]
    fn an_idle_link_saves_one_quantum_and_no_more() {
        let mut bucket = bucket();
        assert_eq!(bucket.available(at(10)), 10);
        assert_eq!(bucket.available(at(100_000)), 50);
    }

    #[test]
    fn a_late_wake_gets_what_was_missed_up_to_a_second() {
        for (wake_ms, granted) in [(100, 50), (400, 350), (10_000, 1000)] {
            let mut bucket = bucket();
            let first = bucket.available(at(50));
            bucket.spend(first, true);
            assert_eq!((first, bucket.filled_at(at(50))), (50, at(100)));
            assert_eq!(bucket.available(at(wake_ms)), granted);
        }
    }

    #[test]
    fn what_a_late_wake_may_take_can_be_taken_in_parts() {
        let mut bucket = bucket();
        bucket.spend(0, true);
        assert_eq!(bucket.available(at(800)), 800);
        for left in (0..8).rev() {
            bucket.spend(100, true);
            assert_eq!(bucket.available(at(800)), left * 100);
        }
    }

    #[test]
    fn a_link_that_is_used_up_lets_nothing_through_before_a_quantum_is_there() {
        let mut bucket = bucket();
        assert_eq!(bucket.available(at(30)), 30);
        bucket.spend(30, true);
        assert_eq!((bucket.available(at(79)), bucket.available(at(80))), (0, 50));
    }

    #[test]
    fn what_a_late_wake_does_not_need_is_not_kept() {
        let mut bucket = bucket();
        bucket.spend(0, true);
        assert_eq!(bucket.available(at(800)), 800);
        bucket.spend(20, false);
        assert_eq!(bucket.available(at(800)), 50);
    }

    #[test]
    fn fractions_of_a_byte_are_not_lost_between_refills() {
        let mut bucket = Bucket::new(3, Duration::from_secs(10), Moment::START);
        let mut passed = 0;
        for ms in 1..=100_000 {
            let bytes = bucket.available(at(ms));
            bucket.spend(bytes, true);
            passed += bytes;
        }
        assert_eq!(passed, 300);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let mut bucket = bucket();
        assert_eq!(bucket.available(at(20)), 20);
        bucket.spend(20, true);
        assert_eq!(bucket.available(at(20)), 0);
        assert_eq!(bucket.available(at(5)), 0);
        assert_eq!(bucket.available(at(69)), 0);
        assert_eq!(bucket.available(at(70)), 50);
    }
}
