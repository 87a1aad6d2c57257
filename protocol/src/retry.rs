//! Computes waits before trying again: exponential back-off with full jitter from a seed (SPEC 8.5).

/// A small seeded generator of random numbers (splitmix64). It is for jitter, never for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Starts the sequence that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, uniform over all 64-bit values.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, uniform over `0..bound`, or 0 if `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        let wide = self.next_u64() as u128 * bound as u128;
        (wide >> 64) as u64
    }

    /// A wait of `ms` milliseconds and up to a quarter more, so that devices do not all come at the same
    /// time.
    pub const fn lengthened(&mut self, ms: u64) -> u64 {
        ms.saturating_add(self.below(ms / 4))
    }
}

/// Exponential back-off with full jitter: the n-th wait is uniform over `0..min(cap, base x 2^n)`.
///
/// The first wait has jitter too, because an outage that cut off this device often cut off all devices.
#[derive(Clone, Debug)]
pub struct Backoff {
    jitter: Jitter,
    base_ms: u64,
    cap_ms: u64,
    failures: u32,
}

impl Backoff {
    /// Waits of up to `base_ms` at first and up to `cap_ms` at most.
    #[must_use]
    pub const fn new(seed: u64, base_ms: u64, cap_ms: u64) -> Self {
        Self { jitter: Jitter::new(seed), base_ms, cap_ms, failures: 0 }
    }

    /// The next wait in milliseconds; each call doubles the range of the one after it, up to the cap.
    pub fn next_wait_ms(&mut self) -> u64 {
        let range = self.base_ms.saturating_mul(1 << self.failures.min(32)).min(self.cap_ms);
        self.failures = self.failures.saturating_add(1);
        self.jitter.below(range.saturating_add(1))
    }

    /// How many waits were taken since the last success.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts again from the base: what was tried has worked for long enough.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_shortened_and_gets_up_to_a_quarter_longer() {
        let mut jitter = Jitter::new(1);
        let waits: alloc::vec::Vec<u64> = (0..1000).map(|_| jitter.lengthened(4000)).collect();
        assert!(waits.iter().all(|wait| (4000..5000).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 4100) && waits.iter().any(|wait| *wait > 4900));
        assert_eq!([0, 3, u64::MAX].map(|ms| Jitter::new(1).lengthened(ms)), [0, 3, u64::MAX]);
    }

    #[test]
    fn waits_grow_up_to_the_cap_and_start_again_after_success() {
        let mut longest = [0; 12];
        for seed in 0..500 {
            let mut backoff = Backoff::new(seed, 1000, 60_000);
            for longest in &mut longest {
                *longest = backoff.next_wait_ms().max(*longest);
            }
            backoff.reset();
            assert!(backoff.next_wait_ms() <= 1000);
        }
        for (failures, longest) in longest.into_iter().enumerate() {
            let range = (1000u64 << failures).min(60_000);
            assert!(longest <= range && longest > range * 9 / 10, "{failures}: {longest} of {range}");
        }
    }

    #[test]
    fn the_same_seed_waits_the_same() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed, 1000, 60_000);
            core::array::from_fn::<u64, 8, _>(|_| backoff.next_wait_ms())
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}
