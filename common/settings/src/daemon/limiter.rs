//! What others can bring about as often as they like is logged once a minute, with how often it happened.

use alloc::collections::BTreeMap;

/// What was logged lately, and how often it has happened since. Time is in milliseconds of any clock that does not go
/// back. `W` says what happened: words of the program's own, so that there are few.
#[derive(Debug)]
pub struct Limiter<W>(BTreeMap<W, Tally>);

/// How often something happened since it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    since_ms: u64,
    /// How often.
    pub times: u64,
    /// Bytes of the messages that it happened with.
    pub bytes: u64,
}

impl<W> Default for Limiter<W> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// From one line about something to the next.
const EVERY_MS: u64 = 60_000;

impl<W: Ord + Clone> Limiter<W> {
    /// Something happened, with a message of so many bytes if it was one. `true`: it is to be logged now. Otherwise it is
    /// counted for the line that [`Limiter::due`] gives.
    pub fn is_news(&mut self, now_ms: u64, what: W, bytes: u64) -> bool {
        let Some(tally) = self.0.get_mut(&what) else {
            self.0.insert(what, Tally { since_ms: now_ms, times: 0, bytes: 0 });
            return true;
        };
        tally.times += 1;
        tally.bytes = tally.bytes.saturating_add(bytes);
        false
    }

    /// What is to be logged now: all that was counted for a minute. What has not happened for a minute is news again.
    pub fn due(&mut self, now_ms: u64) -> Vec<(W, Tally)> {
        let mut due = Vec::new();
        self.0.retain(|what, tally| {
            if tally.since_ms.saturating_add(EVERY_MS) > now_ms {
                return true;
            }
            let ended = core::mem::replace(tally, Tally { since_ms: now_ms, times: 0, bytes: 0 });
            if ended.times > 0 {
                due.push((what.clone(), ended));
            }
            ended.times > 0
        });
        due
    }

    /// When something is due.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.0.values().map(|tally| tally.since_ms.saturating_add(EVERY_MS)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type What = [&'static str; 3];

    const REJECTED: What = ["message rejected", "answers", "malformed"];
    const REFUSED: What = ["service refused", "", "busy"];

    fn due(limiter: &mut Limiter<What>, ms: u64) -> Vec<(What, u64, u64)> {
        limiter.due(ms).into_iter().map(|(what, tally)| (what, tally.times, tally.bytes)).collect()
    }

    #[test]
    fn a_million_messages_are_two_lines_and_then_one_a_minute() {
        let mut limiter = Limiter::default();
        let mut lines = 0;
        for message in 0..1_000_000 {
            let now = message * 60 / 1000;
            lines += u32::from(limiter.is_news(now, REJECTED, 20));
            lines += u32::try_from(limiter.due(now).len()).unwrap();
        }
        assert_eq!(lines, 1);
        assert_eq!(due(&mut limiter, 60_000), [(REJECTED, 999_999, 20 * 999_999)]);
        assert!(!limiter.is_news(60_001, REJECTED, 7));
        assert_eq!(due(&mut limiter, 120_000), [(REJECTED, 1, 7)]);
    }

    #[test]
    fn each_reason_has_its_own_minute_and_is_news_again_after_a_quiet_one() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.next(), None);
        assert!(limiter.is_news(0, REJECTED, 20));
        assert!(limiter.is_news(5_000, REFUSED, 0));
        assert!(!limiter.is_news(6_000, REFUSED, 0));
        assert_eq!(limiter.next(), Some(60_000));
        assert_eq!(due(&mut limiter, 64_999), []);
        assert!(limiter.is_news(64_999, REJECTED, 20), "it has not happened for a minute");
        assert_eq!(due(&mut limiter, 65_000), [(REFUSED, 1, 0)]);
        assert_eq!(due(&mut limiter, 200_000), []);
        assert_eq!(limiter.next(), None);
    }
}
