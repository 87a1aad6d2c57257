//! How large messages may be on this way through a broker: smaller ones are asked for where larger ones do not arrive
//! (SPEC section 8.3).

use core::num::NonZeroU32;

use crate::time::Instant;

/// The largest message of chunks that is asked for, because larger ones did not arrive. It belongs to a broker: the
/// host keeps it by the broker's address, since only the host knows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimit {
    /// Bytes of the message, header included.
    pub bytes: NonZeroU32,
    /// For how long it has been so, in seconds. After a day twice as much is tried.
    pub age_s: u32,
    /// Whether a larger message was lost. If not, this is the size that is tried now, and nothing is known of larger
    /// ones.
    pub lost: bool,
}

/// What is known of the messages that arrive.
#[derive(Debug, Default)]
pub(super) struct Carry {
    limit: Option<Limit>,
    /// A message was waited for in vain in this connection.
    doubt: Option<Doubt>,
    /// The largest message of the download that arrived in this connection, in bytes.
    passed: u32,
}

/// Larger messages do not arrive.
#[derive(Clone, Copy, Debug)]
struct Limit {
    bytes: NonZeroU32,
    /// When twice as much is tried.
    double_at: Instant,
    /// A larger message was lost.
    lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// Bytes of the message that did not come.
    bytes: u32,
    /// When the first hello was said that was answered since.
    answered: Option<Instant>,
}

/// A message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// Its bytes, with a header of the length that [`Missed`] counts.
    pub(super) bytes: u32,
    /// It could have been asked for in parts.
    pub(super) in_parts: bool,
}

/// A message that was asked for and did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// Bytes of the longest of those that were under way, with the longest header that there is.
    pub(super) bytes: u32,
    /// Bytes of one that is half as long; `None` if it can't be asked for in parts.
    pub(super) half: Option<u32>,
    /// When the first request went out of those that were under way.
    pub(super) asked_at: Instant,
}

/// What a silence says of the size of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing: anything may have been lost.
    Nothing,
    /// Smaller messages are asked for from now on.
    Smaller,
    /// The message can't be made smaller, and does not arrive.
    Stuck,
}

/// How long a limit is believed before twice as much is tried.
const DAY_S: u32 = 24 * 3600;

impl Limit {
    /// Believed from now on.
    fn new(bytes: u32, now: Instant, lost: bool) -> Option<Self> {
        let double_at = now.plus_millis(u64::from(DAY_S) * 1000);
        NonZeroU32::new(bytes).map(|bytes| Self { bytes, double_at, lost })
    }
}

impl Carry {
    pub(super) fn new(known: Option<MessageLimit>, now: Instant) -> Self {
        let limit = |MessageLimit { bytes, age_s, lost }| {
            let left_s = u64::from(DAY_S.saturating_sub(age_s));
            Limit { bytes, double_at: now.plus_millis(left_s * 1000), lost }
        };
        Self { limit: known.map(limit), ..Self::default() }
    }

    /// Another connection begins, or none is left. What was seen on the one before proves nothing about it.
    pub(super) fn renew(self) -> Self {
        Self { limit: self.limit, ..Self::default() }
    }

    pub(super) fn limit(&self, now: Instant) -> Option<MessageLimit> {
        self.limit.map(|Limit { bytes, double_at, lost }| {
            let left_s = double_at.millis_since(now).div_ceil(1000);
            let age_s = DAY_S.saturating_sub(u32::try_from(left_s).unwrap_or(DAY_S));
            MessageLimit { bytes, age_s, lost }
        })
    }

    /// Bytes of the largest message to ask for.
    pub(super) fn bytes_max(&self) -> u32 {
        self.limit.map_or(u32::MAX, |limit| limit.bytes.get())
    }

    /// When twice as much is tried.
    pub(super) fn double_at(&self) -> Option<Instant> {
        self.limit.map(|limit| limit.double_at)
    }

    /// A day is over: tries messages twice as large, and none is too large from `most` bytes on.
    pub(super) fn double(&mut self, now: Instant, most: u32) {
        let twice = self.bytes_max().saturating_mul(2);
        self.limit = if twice < most { Limit::new(twice, now, false) } else { None };
    }

    /// A message of the download arrived. `true` if it is larger than what was thought to pass.
    pub(super) fn arrived(&mut self, now: Instant, message: Passed) -> bool {
        let Passed { bytes, in_parts } = message;
        self.passed = self.passed.max(bytes);
        // What is smaller than what was missed says nothing about that.
        self.doubt.take_if(|doubt| bytes >= doubt.bytes);
        let more = bytes > self.bytes_max();
        if more {
            // The smallest message there is was thought not to pass, and does: nothing is known of larger ones.
            self.limit = if in_parts { Limit::new(bytes, now, false) } else { None };
        }
        more
    }

    /// A hello that was said at `asked_at` was answered: the service was there, and the broker carries small messages.
    pub(super) fn answered(&mut self, asked_at: Instant) {
        if let Some(doubt) = &mut self.doubt {
            doubt.answered.get_or_insert(asked_at);
        }
    }

    /// Nothing came for too long, and `missed` was under way. Only the second time, with an answered hello in between,
    /// this says something about the size: before that the service may have been away, or the link. For the same
    /// reason, what was missed the second time must not have been asked for before that hello was said.
    pub(super) fn silent(&mut self, now: Instant, missed: Missed) -> Finding {
        let Missed { bytes, half, asked_at } = missed;
        let known = half.is_none() && bytes > self.bytes_max();
        let answered = self.doubt.and_then(|doubt| doubt.answered);
        let again = answered.is_some_and(|hello_at| asked_at >= hello_at);
        if bytes <= self.passed || !(again || known) {
            self.doubt = Some(Doubt { bytes, answered: None });
            return Finding::Nothing;
        }
        self.doubt = None;
        let most = half.unwrap_or(bytes.saturating_sub(1)).min(self.bytes_max());
        self.limit = Limit::new(most, now, true);
        if half.is_some() { Finding::Smaller } else { Finding::Stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSED: Missed = Missed { bytes: 8198, half: Some(4102), asked_at: Instant::ZERO };
    const ONE_CHUNK: Missed = Missed { bytes: 4102, half: None, asked_at: Instant::ZERO };
    const HELLO: Instant = Instant::ZERO;

    fn passed(bytes: u32) -> Passed {
        Passed { bytes, in_parts: bytes > 4102 }
    }

    fn limit(bytes: u32, age_s: u32) -> MessageLimit {
        MessageLimit { bytes: NonZeroU32::new(bytes).unwrap(), age_s, lost: true }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn messages_are_halved_after_two_silences_with_an_answered_hello_between_them_and_not_before() {
        let mut carry = Carry::default();
        assert_eq!(
            (carry.silent(at(0), MISSED), carry.silent(at(1), MISSED)),
            (Finding::Nothing, Finding::Nothing)
        );
        carry.answered(HELLO);
        assert_eq!(carry.limit(at(2)), None);
        assert_eq!(carry.silent(at(2), MISSED), Finding::Smaller);
        assert_eq!(carry.limit(at(2)), Some(limit(4102, 0)));
        // What was seen so far is used up.
        carry.answered(HELLO);
        assert_eq!(carry.silent(at(3), ONE_CHUNK), Finding::Nothing);
        carry.answered(HELLO);
        assert_eq!(carry.silent(at(4), ONE_CHUNK), Finding::Stuck);
        assert_eq!(carry.bytes_max(), 4101);
        // From now on one silence is enough.
        assert_eq!(carry.silent(at(5), ONE_CHUNK), Finding::Stuck);
    }

    #[test]
    fn silences_of_two_connections_say_nothing_about_the_size() {
        let mut carry = Carry::default();
        carry.silent(at(0), MISSED);
        carry.answered(HELLO);
        let mut carry = carry.renew();
        assert_eq!(carry.silent(at(1), MISSED), Finding::Nothing);
    }

    #[test]
    fn a_message_that_arrives_ends_the_doubt_about_those_that_are_no_larger() {
        for (arrives, then) in [(8198, Finding::Nothing), (4102, Finding::Smaller)] {
            let mut carry = Carry::default();
            carry.silent(at(0), MISSED);
            carry.answered(HELLO);
            assert!(!carry.arrived(at(1), passed(arrives)));
            assert_eq!(carry.silent(at(2), MISSED), then, "{arrives}");
        }
        // A size that has passed in this connection is not what is wrong.
        let mut carry = Carry::default();
        carry.arrived(at(0), passed(8198));
        for _ in 0..4 {
            assert_eq!(carry.silent(at(1), MISSED), Finding::Nothing);
            carry.answered(HELLO);
        }
    }

    #[test]
    fn after_a_day_twice_as_much_is_tried_until_nothing_is_too_large() {
        let mut carry = Carry::new(Some(limit(4102, DAY_S - 10)), at(500));
        assert_eq!(carry.double_at(), Some(at(10_500)));
        carry.double(at(10_500), 16_390);
        assert_eq!(carry.limit(at(10_500)), Some(MessageLimit { lost: false, ..limit(8204, 0) }));
        assert_eq!(carry.limit(at(3_610_500)).map(|limit| limit.age_s), Some(3600));
        carry.double(at(86_410_500), 16_390);
        assert_eq!((carry.limit(at(86_410_500)), carry.double_at()), (None, None));
    }

    #[test]
    fn a_larger_message_that_arrives_lifts_the_limit_to_its_size() {
        let mut carry = Carry::new(Some(limit(4102, 0)), at(0));
        assert!(!carry.arrived(at(1), passed(4102)));
        assert!(carry.arrived(at(2), passed(8198)));
        assert_eq!(carry.limit(at(2)), Some(MessageLimit { lost: false, ..limit(8198, 0) }));
    }

    #[test]
    fn a_silence_after_a_request_that_is_older_than_the_answered_hello_says_nothing_about_the_size() {
        let asked = |ms| Missed { asked_at: at(ms), ..MISSED };
        let mut carry = Carry::default();
        carry.silent(at(10), asked(0));
        carry.answered(at(20));
        assert_eq!(carry.silent(at(30), asked(19)), Finding::Nothing);
        carry.answered(at(30));
        // Another answer does not make what was asked for after the first any older.
        carry.answered(at(40));
        assert_eq!(carry.silent(at(50), asked(30)), Finding::Smaller);
    }

    #[test]
    fn the_smallest_message_that_was_thought_not_to_pass_takes_the_limit_away_if_it_arrives() {
        let mut carry = Carry::default();
        carry.silent(at(0), ONE_CHUNK);
        carry.answered(HELLO);
        assert_eq!(carry.silent(at(1), ONE_CHUNK), Finding::Stuck);
        assert!(carry.arrived(at(2), passed(4102)));
        assert_eq!((carry.bytes_max(), carry.limit(at(2))), (u32::MAX, None));
    }
}
