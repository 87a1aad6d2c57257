//! A delay line: bytes come out in order, a fixed time after they went in.

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::{Buf, BytesMut};

use crate::clock::Moment;

/// Bytes that a line holds at most; a sender waits for room. A device's requests and reports are a fraction of it.
pub const DELAY_LINE_BYTES_MAX: usize = 16 * 1024;

/// Bytes on their way, with the moments at which they arrive.
#[derive(Debug)]
pub struct DelayLine {
    delay: Duration,
    bytes: BytesMut,
    /// Arrival and length of each run of bytes, in order; their lengths add up to `bytes`.
    runs: VecDeque<(Moment, usize)>,
}

impl DelayLine {
    /// An empty line that delays by `delay`.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        Self { delay, bytes: BytesMut::new(), runs: VecDeque::new() }
    }

    /// Bytes that it takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        DELAY_LINE_BYTES_MAX.saturating_sub(self.bytes.len())
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends bytes off; at most [`DelayLine::room`] of them.
    pub fn push(&mut self, now: Moment, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room());
        if bytes.is_empty() {
            return;
        }
        let arrival = now + self.delay;
        match self.runs.back_mut() {
            // Never before what was sent earlier, and no more than a run for each millisecond.
            Some((last, length)) if arrival.millis() <= last.millis() => *length += bytes.len(),
            _ => self.runs.push_back((arrival, bytes.len())),
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes that have arrived.
    #[must_use]
    pub fn due(&self, now: Moment) -> &[u8] {
        let length =
            self.runs.iter().take_while(|(arrival, _)| *arrival <= now).map(|(_, length)| length).sum();
        self.bytes.get(..length).unwrap_or_default()
    }

    /// When the next byte arrives; `None` when none is on its way.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        self.runs.front().map(|(arrival, _)| *arrival)
    }

    /// Takes the first `count` bytes out.
    pub fn remove(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        self.bytes.advance(count);
        let mut left = count;
        while let Some((_, length)) = self.runs.front_mut() {
            if *length > left {
                *length -= left;
                break;
            }
            left -= *length;
            self.runs.pop_front();
        }
        if self.bytes.is_empty() {
            // An idle device keeps no buffer.
            *self = Self::new(self.delay);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_micros(ms * 1000)
    }

    #[test]
    fn bytes_arrive_in_order_each_after_its_own_delay() {
        let mut line = DelayLine::new(Duration::from_millis(100));
        line.push(at(0), b"a");
        line.push(at(30), b"bc");
        assert_eq!(line.next_due(), Some(at(100)));
        assert_eq!(line.due(at(99)), b"");
        assert_eq!(line.due(at(100)), b"a");
        assert_eq!(line.due(at(130)), b"abc");
        line.remove(2);
        assert_eq!(line.due(at(130)), b"c");
        assert_eq!(line.next_due(), Some(at(130)));
        line.remove(1);
        assert!(line.is_empty());
    }

    #[test]
    fn writes_within_a_millisecond_share_a_run() {
        let mut line = DelayLine::new(Duration::ZERO);
        for micros in 0..900 {
            line.push(Moment::from_micros(micros), b"x");
        }
        assert_eq!(line.runs.len(), 1);
        assert_eq!(line.due(Moment::START).len(), 900);
    }

    #[test]
    fn an_empty_line_holds_no_memory() {
        let mut line = DelayLine::new(Duration::ZERO);
        line.push(at(0), &[0; 5000]);
        line.remove(5000);
        assert_eq!((line.bytes.capacity(), line.runs.capacity()), (0, 0));
    }
}
