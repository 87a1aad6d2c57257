//! Whether the calendar can be believed.
//!
//! What is signed says when it was issued and until when it counts, and devices refuse whatever is older than what they
//! have. A clock that is years ahead for a minute therefore does harm that nobody can undo. The guard compares the
//! calendar with the monotonic clock, and at the start with the latest time that was signed:
//!
//! | when | the calendar is doubted if it is |
//! |---|---|
//! | at the start | more than [`START_LIMIT_S`] later than what was signed last |
//! | later | more than [`JUMP_LIMIT_S`] later than the monotonic clock says since it was believed first |
//!
//! While it is doubted, nothing is signed. It is believed again if it is set right, or if an operator accepts it.

use whimbrel_protocol::time::{Instant, UnixTime};

/// Largest step ahead between the last signature and the start: 30 days.
pub(crate) const START_LIMIT_S: u64 = 30 * 24 * 3600;
/// Largest sum of steps ahead while the service runs: an hour.
pub(crate) const JUMP_LIMIT_S: u64 = 3600;

/// Why the calendar is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockDoubt {
    /// What the calendar shows.
    pub shown: UnixTime,
    /// What it would show if no more time had passed than is known of.
    pub expected: UnixTime,
    /// Whether it was so when the service started; else the calendar jumped while the service ran.
    pub at_start: bool,
}

/// Compares the calendar with the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockGuard {
    /// When the calendar was believed, and what it showed.
    since: Instant,
    showed: UnixTime,
    /// Whether it has been believed since the start.
    believed: bool,
    doubt: Option<ClockDoubt>,
}

impl ClockGuard {
    /// A guard that knows only the latest time that was signed; the epoch if nothing was.
    pub(crate) const fn new(signed: UnixTime) -> Self {
        Self { since: Instant::ZERO, showed: signed, believed: false, doubt: None }
    }

    /// Looks at both clocks. Returns the time of day by all that is believed.
    pub(crate) fn look(&mut self, now: Instant, shown: UnixTime) -> UnixTime {
        let expected = self.showed.plus_secs(now.millis_since(self.since) / 1000);
        let nothing_signed = !self.believed && self.showed == UnixTime::default();
        let limit_s = if self.believed { JUMP_LIMIT_S } else { START_LIMIT_S };
        if !nothing_signed && shown > expected.plus_secs(limit_s) {
            self.doubt = Some(ClockDoubt { shown, expected, at_start: !self.believed });
            return expected;
        }
        self.doubt = None;
        if !self.believed {
            let signed = self.showed;
            self.believe(now, shown.max(signed));
        }
        shown
    }

    /// Why the calendar was not believed when it was looked at last.
    pub(crate) const fn doubt(&self) -> Option<ClockDoubt> {
        self.doubt
    }

    /// An operator says that the calendar is right. Returns the doubt that this ends.
    pub(crate) fn accept(&mut self, now: Instant, shown: UnixTime) -> Option<ClockDoubt> {
        let doubt = self.doubt.take()?;
        self.believe(now, shown);
        Some(doubt)
    }

    fn believe(&mut self, now: Instant, shown: UnixTime) {
        (self.since, self.showed, self.believed) = (now, shown, true);
    }
}

impl ClockDoubt {
    /// By how much the calendar is ahead, in seconds.
    #[must_use]
    pub const fn ahead_s(&self) -> u64 {
        self.shown.as_secs().saturating_sub(self.expected.as_secs())
    }
}

impl core::fmt::Display for ClockDoubt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (days, hours) = (self.ahead_s() / 86_400, self.ahead_s() / 3600 % 24);
        let than = if self.at_start { "the last signature" } else { "the monotonic clock" };
        write!(
            f,
            "the clock of the service is {days} days and {hours} h ahead of {than}, so that nothing is signed: set it \
             right, or run `whimbreld clock accept` on its machine if it is right"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: UnixTime = UnixTime::from_secs(1_800_000_000);
    const DAY_S: u64 = 86_400;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn a_clock_that_jumps_ahead_of_monotonic_time_by_more_than_an_hour_is_doubted_until_it_is_set_right() {
        let mut guard = ClockGuard::new(SIGNED);
        assert_eq!(guard.look(at(0), SIGNED.plus_secs(5)), SIGNED.plus_secs(5));
        assert_eq!(
            guard.look(at(10), SIGNED.plus_secs(15 + JUMP_LIMIT_S)),
            SIGNED.plus_secs(15 + JUMP_LIMIT_S)
        );
        assert_eq!(guard.doubt(), None, "an hour is not more than an hour");
        // What was known goes on.
        assert_eq!(guard.look(at(20), SIGNED.plus_secs(26 + JUMP_LIMIT_S)), SIGNED.plus_secs(25));
        let doubt = guard.doubt().unwrap();
        assert_eq!((doubt.ahead_s(), doubt.at_start), (JUMP_LIMIT_S + 1, false));
        assert_eq!(guard.look(at(30), SIGNED.plus_secs(35)), SIGNED.plus_secs(35));
        assert_eq!(guard.doubt(), None);
        // Time that passes is no jump.
        guard.look(at(400 * DAY_S), SIGNED.plus_secs(400 * DAY_S));
        assert_eq!(guard.doubt(), None);
    }

    #[test]
    fn many_small_jumps_are_one_large_one() {
        let mut guard = ClockGuard::new(SIGNED);
        guard.look(at(0), SIGNED);
        guard.look(at(1), SIGNED.plus_secs(1 + JUMP_LIMIT_S - 100));
        assert_eq!(guard.doubt(), None);
        guard.look(at(2), SIGNED.plus_secs(2 + JUMP_LIMIT_S + 100));
        assert!(guard.doubt().is_some());
    }

    #[test]
    fn a_start_more_than_30_days_beyond_the_last_signed_mark_is_doubted() {
        let limit = SIGNED.plus_secs(30 * DAY_S);
        let mut guard = ClockGuard::new(SIGNED);
        assert_eq!(guard.look(at(0), limit), limit);
        assert_eq!(guard.doubt(), None, "30 days are not more than 30 days");
        let mut guard = ClockGuard::new(SIGNED);
        assert_eq!(guard.look(at(0), limit.plus_secs(1)), SIGNED);
        let doubt = guard.doubt().unwrap();
        assert_eq!((doubt.at_start, doubt.expected), (true, SIGNED));
        assert!(doubt.to_string().contains("30 days and 0 h ahead of the last signature"), "{doubt}");
        // It stays so, however long it runs.
        guard.look(at(3 * DAY_S), limit.plus_secs(4 * DAY_S));
        assert!(guard.doubt().is_some());
    }

    #[test]
    fn a_service_that_never_signed_believes_its_clock() {
        let mut guard = ClockGuard::new(UnixTime::default());
        assert_eq!(guard.look(at(0), SIGNED), SIGNED);
        assert_eq!(guard.doubt(), None);
        guard.look(at(1), SIGNED.plus_secs(2 * JUMP_LIMIT_S));
        assert!(guard.doubt().is_some(), "from then on it can jump");
    }

    #[test]
    fn a_clock_that_an_operator_accepts_is_believed_and_may_jump_no_further() {
        let mut guard = ClockGuard::new(SIGNED);
        let later = SIGNED.plus_secs(300 * DAY_S);
        guard.look(at(0), later);
        assert_eq!(guard.accept(at(1), later.plus_secs(1)).unwrap().expected, SIGNED);
        assert_eq!(guard.look(at(2), later.plus_secs(2)), later.plus_secs(2));
        assert_eq!((guard.doubt(), guard.accept(at(2), later)), (None, None));
        guard.look(at(3), later.plus_secs(3 + JUMP_LIMIT_S + 10));
        assert!(guard.doubt().is_some_and(|doubt| !doubt.at_start));
    }

    #[test]
    fn a_clock_that_is_set_back_and_right_again_has_not_jumped() {
        let mut guard = ClockGuard::new(SIGNED);
        guard.look(at(0), SIGNED.plus_secs(DAY_S));
        guard.look(at(10), SIGNED);
        guard.look(at(20), SIGNED.plus_secs(DAY_S + 20));
        assert_eq!(guard.doubt(), None);
    }
}
