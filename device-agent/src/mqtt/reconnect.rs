//! When to connect again.

use core::time::Duration;

use whimbrel_protocol::retry::Backoff;

/// The waits between connections: random from the first one on, since what cut this device off cut off its
/// neighbours too. A refused login waits like a lost link.
#[derive(Debug)]
pub(super) struct Reconnect {
    backoff: Backoff,
}

/// A connection that held for this long shows that there is nothing to back off from any more.
const STABLE: Duration = Duration::from_secs(300);

impl Reconnect {
    pub(super) fn new(seed: u64, base: Duration, cap: Duration) -> Self {
        Self { backoff: Backoff::new(seed, millis(base), millis(cap)) }
    }

    /// How long to wait before the next attempt, the first included.
    pub(super) fn next_wait(&mut self) -> Duration {
        Duration::from_millis(self.backoff.next_wait_ms())
    }

    /// A connection ended that the broker had accepted `held` ago.
    pub(super) fn ended_after(&mut self, held: Duration) {
        if held >= STABLE {
            self.backoff.reset();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest_wait(attempts: usize, held: Duration) -> Duration {
        let wait = |seed| {
            let mut reconnect = Reconnect::new(seed, Duration::from_secs(2), Duration::from_secs(900));
            for _ in 0..attempts {
                let _ = reconnect.next_wait();
                reconnect.ended_after(held);
            }
            reconnect.next_wait()
        };
        (0..300).map(wait).max().unwrap()
    }

    #[test]
    fn the_first_attempt_waits_a_random_time_too() {
        let longest = longest_wait(0, Duration::ZERO);
        assert!(longest > Duration::from_millis(1800) && longest <= Duration::from_secs(2), "{longest:?}");
    }

    #[test]
    fn only_a_connection_that_held_five_minutes_starts_the_waits_anew() {
        assert!(longest_wait(10, STABLE - Duration::from_secs(1)) > Duration::from_secs(600));
        assert!(longest_wait(10, Duration::ZERO) <= Duration::from_secs(900));
        assert!(longest_wait(10, STABLE) <= Duration::from_secs(2));
    }
}
