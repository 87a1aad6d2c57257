//! What others can bring about as often as they like is logged once a minute, with how often it happened.

use alloc::collections::BTreeMap;

use whimbrel_protocol::time::Instant;

/// What happened, of which kind, and why. All three are words of ours, so that there are few.
pub(crate) type What = [&'static str; 3];

/// What was logged lately, and how often it has happened since.
#[derive(Debug, Default)]
pub(crate) struct Limiter(BTreeMap<What, Tally>);

/// How often something happened since it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    since: Instant,
    pub(crate) times: u64,
    pub(crate) bytes: u64,
}

/// From one line about something to the next.
const EVERY_MS: u64 = 60_000;

impl Limiter {
    /// Something happened, with a message of so many bytes if it was one. `true`: it is to be logged now. Otherwise it is
    /// counted for the line that [`Limiter::due`] gives.
    pub(crate) fn is_news(&mut self, now: Instant, what: What, bytes: u64) -> bool {
        let Some(tally) = self.0.get_mut(&what) else {
            self.0.insert(what, Tally { since: now, times: 0, bytes: 0 });
            return true;
        };
        tally.times += 1;
        tally.bytes = tally.bytes.saturating_add(bytes);
        false
    }

    /// What is to be logged now: all that was counted for a minute. What has not happened for a minute is news again.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(What, Tally)> {
        let mut due = Vec::new();
        self.0.retain(|what, tally| {
            if tally.since.plus_millis(EVERY_MS) > now {
                return true;
            }
            let ended = core::mem::replace(tally, Tally { since: now, times: 0, bytes: 0 });
            if ended.times > 0 {
                due.push((*what, ended));
            }
            ended.times > 0
        });
        due
    }

    /// When something is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().map(|tally| tally.since.plus_millis(EVERY_MS)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REJECTED: What = ["message rejected", "answers", "malformed"];
    const REFUSED: What = ["service refused", "", "busy"];

    fn due(limiter: &mut Limiter, ms: u64) -> Vec<(What, u64, u64)> {
        let due = limiter.due(Instant::from_millis(ms));
        due.into_iter().map(|(what, tally)| (what, tally.times, tally.bytes)).collect()
    }

    #[test]
    fn a_million_messages_are_two_lines_and_then_one_a_minute() {
        let mut limiter = Limiter::default();
        let mut lines = 0;
        for message in 0..1_000_000 {
            let now = Instant::from_millis(message * 60 / 1000);
            lines += u32::from(limiter.is_news(now, REJECTED, 20));
            lines += u32::try_from(limiter.due(now).len()).unwrap();
        }
        assert_eq!(lines, 1);
        assert_eq!(due(&mut limiter, 60_000), [(REJECTED, 999_999, 20 * 999_999)]);
        assert!(!limiter.is_news(Instant::from_millis(60_001), REJECTED, 7));
        assert_eq!(due(&mut limiter, 120_000), [(REJECTED, 1, 7)]);
    }

    #[test]
    fn each_reason_has_its_own_minute_and_is_news_again_after_a_quiet_one() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.next(), None);
        assert!(limiter.is_news(Instant::from_millis(0), REJECTED, 20));
        assert!(limiter.is_news(Instant::from_millis(5_000), REFUSED, 0));
        assert!(!limiter.is_news(Instant::from_millis(6_000), REFUSED, 0));
        assert_eq!(limiter.next(), Some(Instant::from_millis(60_000)));
        assert_eq!(due(&mut limiter, 64_999), []);
        assert!(
            limiter.is_news(Instant::from_millis(64_999), REJECTED, 20),
            "it has not happened for a minute"
        );
        assert_eq!(due(&mut limiter, 65_000), [(REFUSED, 1, 0)]);
        assert_eq!(due(&mut limiter, 200_000), []);
        assert_eq!(limiter.next(), None);
    }
}
