//! When the service takes in messages again.
//!
//! A turn takes in all that has come, and answers with one flush. Below saturation each message would have a turn of
//! its own: a wake-up here, one in the broker, and one for each socket. So a turn that took in all there was is
//! followed by a short rest for messages, within which others gather. A message that comes alone is taken in at once.

use whimbrel_protocol::time::Instant;

/// When the next messages are taken in.
#[derive(Debug, Default)]
pub(super) struct Pace {
    not_before: Instant,
}

/// From the begin of one turn to the next. It is short beside the round trip of any link, and it bounds what one device
/// gets to a window of 64 KiB each time, which is 13 MB a second.
const REST_MS: u64 = 5;

impl Pace {
    /// A turn began at `began`; `all`: it took in everything that had come.
    pub(super) fn turned(&mut self, began: Instant, all: bool) {
        // Who is behind does not rest.
        self.not_before = if all { began.plus_millis(REST_MS) } else { began };
    }

    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns that are taken for messages that come at these times, of which a turn takes in `most`, and the longest that
    /// one waits.
    fn turns(arrivals: impl IntoIterator<Item = u64>, most: usize) -> (usize, u64) {
        let (mut pace, mut turns, mut longest) = (Pace::default(), 0, 0);
        let mut arrivals = arrivals.into_iter().peekable();
        while let Some(first) = arrivals.peek().copied() {
            let now = Instant::from_millis(first).max(pace.not_before());
            longest = longest.max(now.as_millis() - first);
            let mut taken = 0;
            while taken < most && arrivals.next_if(|at| *at <= now.as_millis()).is_some() {
                taken += 1;
            }
            turns += 1;
            pace.turned(now, taken < most);
        }
        (turns, longest)
    }

    #[test]
    fn messages_that_come_within_the_same_milliseconds_are_one_turn() {
        // 4,500 in a second.
        let (turns, longest) = turns((0..4_500).map(|number| number * 2 / 9), 64);
        assert!(turns <= 201 && longest <= REST_MS, "{turns} turns, {longest} ms");
    }

    #[test]
    fn a_message_that_comes_alone_is_taken_in_at_once() {
        assert_eq!(turns((0..100).map(|number| number * 10), 64), (100, 0));
    }

    #[test]
    fn who_is_behind_does_not_rest() {
        assert_eq!(turns(core::iter::repeat_n(0, 6_400), 64), (100, 0));
    }
}
