//! Token buckets. They bound everything that a device, a campaign or the whole fleet can cost.

use crate::time::Instant;

/// A token bucket: holds up to `burst` tokens and gains a fixed number of them over time.
///
/// Levels are counted in small fractions of a token, so that slow rates stay exact over months.
#[derive(Clone, Debug)]
pub struct Bucket {
    level: u128,
    burst: u128,
    /// Gained every millisecond.
    gain: u128,
    at: Instant,
}

/// Fractions of a token.
const TOKEN: u128 = 1000 << 48;

impl Bucket {
    /// A full bucket of `burst` tokens that gains `milli_rate` thousandths of a token every `per_ms`.
    #[must_use]
    pub fn new(burst: u64, milli_rate: u64, per_ms: u64, now: Instant) -> Self {
        let burst = u128::from(burst) * TOKEN;
        let gain = u128::from(milli_rate) * (TOKEN / 1000) / u128::from(per_ms.max(1));
        Self { level: burst, burst, gain: gain.max(1), at: now }
    }

    /// A bucket for `bytes_per_s` with room for `burst` bytes.
    #[must_use]
    pub fn bytes(bytes_per_s: u64, burst: u64, now: Instant) -> Self {
        Self::new(burst, bytes_per_s, 1, now)
    }

    fn fill(&mut self, now: Instant) {
        let gained = u128::from(now.millis_since(self.at)).saturating_mul(self.gain);
        self.level = self.level.saturating_add(gained).min(self.burst);
        self.at = self.at.max(now);
    }

    /// Takes `count` tokens if they are there. If `count` is above the burst, a full bucket is enough.
    pub fn take(&mut self, now: Instant, count: u64) -> bool {
        let enough = self.wait_ms(now, count) == 0;
        if enough {
            self.level = self.level.saturating_sub(u128::from(count) * TOKEN);
        }
        enough
    }

    /// Milliseconds until `count` tokens will be there; 0 if they are there already.
    pub fn wait_ms(&mut self, now: Instant, count: u64) -> u64 {
        self.fill(now);
        let missing = (u128::from(count) * TOKEN).min(self.burst).saturating_sub(self.level);
        u64::try_from(missing.div_ceil(self.gain)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::bytes(1000, 5000, at(0));
        assert!(bucket.take(at(0), 5000));
        assert!(!bucket.take(at(0), 1));
        assert_eq!(bucket.wait_ms(at(0), 500), 500);
        assert!(bucket.take(at(500), 500));
        let given: u64 = (0..100u64).map(|i| u64::from(bucket.take(at(500 + i * 100), 100)) * 100).sum();
        assert!((9_800..=10_000).contains(&given), "{given}");
    }

    #[test]
    fn slow_rates_are_exact_over_long_times() {
        let mut bucket = Bucket::new(1, 1000, 3_600_000, at(0));
        assert!(bucket.take(at(0), 1));
        assert!(!bucket.take(at(3_599_000), 1));
        assert!(bucket.take(at(3_600_001), 1));
    }

    #[test]
    fn a_demand_above_the_burst_waits_for_a_full_bucket_and_not_for_ever() {
        let mut bucket = Bucket::bytes(1000, 100, at(0));
        assert!(bucket.take(at(0), 1_000_000));
        assert!(!bucket.take(at(50), 1_000_000));
        assert!(bucket.take(at(100), 1_000_000));
    }
}
