//! What became of the updates of all devices, as the devices see it.

use alloc::collections::BTreeMap;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Shared by all devices of a run.
#[derive(Debug, Default)]
pub struct Tally {
    seen: Mutex<Seen>,
    ended: Notify,
}

/// What devices saw so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How long each hello waited for its answer, in microseconds.
    pub hello_us: Vec<u64>,
    /// How long each update took, in microseconds.
    pub update_us: Vec<u64>,
    /// Deployments that ended in a confirmed image, and whose reports were acknowledged.
    pub confirmed: u64,
    /// Deployments that ended otherwise.
    pub failed: u64,
    /// Refusals, by their code.
    pub refusals: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// A hello was answered.
    pub fn answered(&self, after: Duration) {
        self.seen().hello_us.push(micros(after));
    }

    /// A request was refused.
    pub fn refused(&self, code: &'static str) {
        *self.seen().refusals.entry(code).or_default() += 1;
    }

    /// A deployment ended.
    pub fn ended(&self, confirmed: bool, took: Duration) {
        {
            let mut seen = self.seen();
            if confirmed {
                seen.confirmed += 1;
                seen.update_us.push(micros(took));
            } else {
                seen.failed += 1;
            }
        }
        self.ended.notify_one();
    }

    /// Waits until so many deployments have ended. One caller at a time.
    pub async fn until_ended(&self, many: u64) {
        while self.endings() < many {
            self.ended.notified().await;
        }
    }

    /// Deployments that have ended.
    #[must_use]
    pub fn endings(&self) -> u64 {
        let seen = self.seen();
        seen.confirmed + seen.failed
    }

    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> Seen {
        self.seen().clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value that `percent` of a hundred do not exceed; 0 of none. Sorts them.
#[must_use]
pub fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    let place = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(place).copied().unwrap_or(0)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let mut values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&mut values, percent)), [100, 198, 200]);
        assert_eq!(percentile(&mut [7], 50), 7);
        assert_eq!(percentile(&mut [], 99), 0);
    }

    #[tokio::test]
    async fn only_confirmed_updates_have_a_time_but_all_endings_count() {
        let tally = Tally::default();
        tally.ended(true, Duration::from_millis(2));
        tally.ended(false, Duration::from_millis(9));
        tally.until_ended(2).await;
        let seen = tally.so_far();
        assert_eq!((seen.confirmed, seen.failed, seen.update_us), (1, 1, vec![2000]));
    }
}
