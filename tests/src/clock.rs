//! The only reader of clocks: time-outs of tests, which guard against hanging and claim nothing.

use core::time::Duration;

/// How long anything may take before a test fails: generous, because machines are.
pub const PATIENCE: Duration = Duration::from_secs(120);

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
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn is_over(self) -> bool {
        std::time::Instant::now() >= self.0
    }
}

/// Asks again and again until `ready` gives something.
///
/// # Panics
/// With `what` when [`PATIENCE`] is over.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(PATIENCE);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(!deadline.is_over(), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
