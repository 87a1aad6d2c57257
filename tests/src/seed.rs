//! Where the random points of a test come from.

use core::hash::{BuildHasher as _, Hasher as _};

use whimbrel_protocol::retry::Jitter;

/// Set in the environment where a test is to draw the same points again.
const SEED: &str = "E2E_SEED";

/// A source of random numbers from a seed that is printed, so that a failure can be repeated.
///
/// # Panics
/// Where `E2E_SEED` is set and no number.
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

/// `count` points, one at random in the first `within` of each `stride`.
pub fn points(jitter: &mut Jitter, count: u64, stride: u64, within: u64) -> Vec<u64> {
    (0..count).map(|at| at * stride + jitter.below(within)).collect()
}
