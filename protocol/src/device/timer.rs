//! The deadlines of a session, in one list.
//!
//! No deadline is kept apart from the state that it belongs to: each owner computes its own when it is asked, so that
//! none outlives its state. A download that is called off, for example, takes its pause with it.

use crate::time::Instant;

/// What a session waits for. Deadlines that come at once are served in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Documents: the last beacon expires, after which somebody may be holding news back. That is told once.
    BeaconExpiry,
    /// Link: the last hello did not bring the device up to date, or something is missing since. Says hello again.
    Hello,
    /// Link: a day ago a message was found to be too large for the broker. Tries again.
    Larger,
    /// Work: an installation takes long. Subscribes to the topics that bring news.
    News,
    /// Saving: the last attempt to save the record failed. Tries again.
    SaveRetry,
    /// Fetch: nothing came for so long that what was asked for counts as lost. Asks for it again.
    Silence,
    /// Work: an order was put off until now. Looks again which order rules.
    Deferral,
    /// Release: the manifest was asked for and did not come. Asks again.
    Manifest,
    /// Fetch: the pause is over that the service asked for, or that follows what was wrong. Asks for chunks again.
    Pause,
    /// Fetch: chunks were written and no checkpoint claims them. Saves one, so that a power cut costs little.
    Flush,
    /// Trial: the new image is to be checked, for the first time or because a check asked for more time.
    Health,
    /// Trial: the new image was connected for too long without an answer from the service. Goes back to the old one.
    Reach,
}

/// Deadlines from this one on are those of the work, which goes on only when the record is durable.
const FIRST_OF_WORK: usize = Timer::Silence as usize;
const COUNT: usize = Timer::Reach as usize + 1;

/// When each deadline comes; `None` for those that nobody waits for.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; COUNT]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        if let Some(entry) = self.0.get_mut(timer as usize) {
            *entry = at;
        }
    }

    pub(super) fn is_due(&self, timer: Timer, now: Instant) -> bool {
        self.0.get(timer as usize).is_some_and(|at| at.is_some_and(|at| at <= now))
    }

    /// When the host has to wake the session.
    ///
    /// Work whose time has come goes on when the record is durable. Until then its deadlines wake nobody: the session
    /// could do nothing, and would have its host turn in a circle.
    pub(super) fn next(&self, now: Instant, is_durable: bool) -> Option<Instant> {
        let (others, work) = self.0.split_at(FIRST_OF_WORK);
        let work = work.iter().flatten().min().filter(|at| is_durable || **at > now);
        others.iter().flatten().chain(work).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_whose_time_has_come_wakes_nobody_before_the_record_is_durable() {
        let at = Instant::from_millis;
        let mut timers = Timers::default();
        assert_eq!(timers.next(at(5), true), None);
        timers.set(Timer::Pause, Some(at(5)));
        timers.set(Timer::Hello, Some(at(90)));
        assert!(timers.is_due(Timer::Pause, at(5)) && !timers.is_due(Timer::Pause, at(4)));
        assert_eq!((timers.next(at(5), true), timers.next(at(5), false)), (Some(at(5)), Some(at(90))));
        assert_eq!(timers.next(at(4), false), Some(at(5)), "its time has not come yet");
        timers.set(Timer::Pause, None);
        assert_eq!(timers.next(at(4), true), Some(at(90)));
    }
}
