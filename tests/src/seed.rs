//! Random points for tests, from a seed.

use core::hash::{BuildHasher as _, Hasher as _};

use whimbrel_protocol::retry::Jitter;

/// The variable that has the seed, to make a test draw the same points again.
const SEED: &str = "E2E_SEED";

/// A source of random numbers from a seed that is printed, so that a failure can be repeated.
///
/// # Panics
/// If `E2E_SEED` is set and is no number.
#[must_use]
pub fn from_printed_seed() -> Jitter {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().expect("E2E_SEED is a number"),
        // The standard library seeds its hashers from the system.
        Err(_) => std::hash::RandomState::new().build_hasher().finish(),
    };
    println!("{SEED}={seed} repeats this run's random points");
    Jitter::new(seed)
}

/// `count` points: in each `stride` one, which lies at random in the first `within` of it.
pub fn points(jitter: &mut Jitter, count: u64, stride: u64, within: u64) -> Vec<u64> {
    (0..count).map(|at| at * stride + jitter.below(within)).collect()
}
