//! The only place that reads clocks, for time-outs. These stop tests that hang, and are no part of what a
//! test claims.

use core::time::Duration;

/// The time after which a test fails. It is long, because some machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A point in time after which waiting is pointless.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(std::time::Instant);

impl Deadline {
    /// `patience` from now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn after(patience: Duration) -> Self {
        Self(std::time::Instant::now() + patience)
    }

    /// Whether it has passed.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// The time until it passes.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(std::time::Instant::now())
    }
}

/// Asks again and again until `ready` gives something.
///
/// # Panics
/// With `what`, if [`PATIENCE`] is over before.
#[track_caller]
pub fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    try_for(ready).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Asks again and again until `ready` gives something; `None` if [`PATIENCE`] is over before.
pub fn try_for<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if deadline.is_over() {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}
