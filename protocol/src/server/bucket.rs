//! Token buckets: what bounds everything that a device, a campaign or the whole fleet can cost.

use crate::time::Instant;

/// A token bucket: holds up to `burst` tokens and gains `rate` tokens every `per_ms` milliseconds.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Thousandths of tokens.
    level: u64,
    burst: u64,
    /// Thousandths of tokens per millisecond, times [`SCALE`] to keep slow rates exact.
    gain: u128,
    at: Instant,
}

const SCALE: u128 = 1 << 32;

impl Bucket {
    /// A full bucket of `burst` tokens that gains `milli_rate` thousandths of a token every `per_ms`.
    #[must_use]
    pub fn new(burst: u64, milli_rate: u64, per_ms: u64, now: Instant) -> Self {
        let burst = burst.saturating_mul(1000);
        Self {
            level: burst,
            burst,
            gain: u128::from(milli_rate) * SCALE / u128::from(per_ms.max(1)),
            at: now,
        }
    }

    /// A bucket for `bytes_per_s` with room for `burst` bytes.
    #[must_use]
    pub fn bytes(bytes_per_s: u64, burst: u64, now: Instant) -> Self {
        Self::new(burst, bytes_per_s, 1, now)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = u128::from(now.millis_since(self.at));
        let gained = u64::try_from(elapsed * self.gain / SCALE).unwrap_or(u64::MAX);
        if gained > 0 {
            self.level = self.level.saturating_add(gained).min(self.burst);
            self.at = now;
        }
    }

    /// Takes `count` tokens if they are there. A demand above the burst is met by a full bucket.
    pub fn take(&mut self, now: Instant, count: u64) -> bool {
        let enough = self.wait_ms(now, count) == 0;
        if enough {
            self.level = self.level.saturating_sub(count.saturating_mul(1000));
        }
        enough
    }

    /// Milliseconds until `count` tokens will be there; 0 where they are.
    pub fn wait_ms(&mut self, now: Instant, count: u64) -> u64 {
        self.fill(now);
        let missing = count.saturating_mul(1000).min(self.burst).saturating_sub(self.level);
        let wait = (u128::from(missing) * SCALE).div_ceil(self.gain.max(1));
        u64::try_from(wait).unwrap_or(u64::MAX)
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
