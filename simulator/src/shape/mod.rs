//! What a link lets through and when: rates, the round trip, the cut. No sockets, no clock.
//!
//! The downlink is a [`Bucket`] in front of the socket: what it does not let through stays in the kernel and, when
//! that is full, with the service, as it would wait in a base station. So what was read from the socket is what
//! reached the device, and what a cut leaves unread is lost. The uplink is a bucket and then a [`DelayLine`] that
//! holds the whole round trip: which half of it a byte waits in makes no difference to who asks and waits for the
//! answer, and a delay on the uplink costs nothing, because that is where the few bytes are.

mod bucket;
mod delay;

use core::time::Duration;

use crate::clock::Moment;
use crate::profile::Rates;

pub use bucket::Bucket;
pub use delay::{DELAY_LINE_BYTES_MAX, DelayLine};

/// When a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// When this many bytes have reached the device in this connection, in the middle of a message or not.
    AfterBytes(u64),
    /// At this moment, whatever is under way.
    At(Moment),
}

/// What one connection of a device is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Rates both ways; `None` is as fast as the machine goes.
    pub rates: Option<Rates>,
    /// The round trip of this connection.
    pub round_trip: Duration,
    /// When it is cut, if it is.
    pub cut: Option<Cut>,
    /// How much a link at work may let through at once, in virtual time: 50 ms of a real second mean 20 wakes.
    pub quantum: Duration,
}

/// Whether the device may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Not before this moment.
    Wait(Moment),
    /// Never again: the connection is cut.
    Cut,
}

/// The state of one shaped connection.
#[derive(Debug)]
pub struct Shaper {
    down: Option<Bucket>,
    up: Option<Bucket>,
    line: DelayLine,
    cut: Option<Cut>,
    received: u64,
}

impl Shaper {
    /// A connection that begins `now`.
    #[must_use]
    pub fn new(path: &Path, now: Moment) -> Self {
        let bucket =
            |rate: fn(&Rates) -> u64| path.rates.as_ref().map(|r| Bucket::new(rate(r), path.quantum, now));
        Self {
            down: bucket(|rates| rates.down_bytes_s),
            up: bucket(|rates| rates.up_bytes_s),
            line: DelayLine::new(path.round_trip),
            cut: path.cut,
            received: 0,
        }
    }

    /// Bytes that reached the device so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether the device may read, and how much.
    pub fn may_read(&mut self, now: Moment) -> Grant {
        let before_cut = match self.cut {
            Some(Cut::AfterBytes(bytes)) => bytes.saturating_sub(self.received),
            Some(Cut::At(moment)) if moment <= now => 0,
            Some(Cut::At(_)) | None => u64::MAX,
        };
        if before_cut == 0 {
            return Grant::Cut;
        }
        let allowed = self.down.as_mut().map_or(usize::MAX, |bucket| bucket.available(now));
        match &self.down {
            Some(bucket) if allowed == 0 => Grant::Wait(bucket.filled_at(now)),
            _ => Grant::Bytes(allowed.min(usize::try_from(before_cut).unwrap_or(usize::MAX))),
        }
    }

    /// The device read `bytes` of the `granted` ones; 0 where none were there.
    pub fn was_read(&mut self, granted: usize, bytes: usize) {
        self.received += bytes as u64;
        if let Some(bucket) = &mut self.down {
            bucket.spend(bytes, bytes >= granted);
        }
    }

    /// Takes as many bytes from the device as the uplink lets through; 0 means not before [`Shaper::may_write_at`].
    pub fn write(&mut self, now: Moment, bytes: &[u8]) -> usize {
        let room = bytes.len().min(self.line.room());
        let accepted = match &mut self.up {
            Some(bucket) => {
                let accepted = room.min(bucket.available(now));
                bucket.spend(accepted, accepted < bytes.len());
                accepted
            }
            None => room,
        };
        self.line.push(now, bytes.get(..accepted).expect("accepted at most bytes.len()"));
        accepted
    }

    /// When the uplink takes bytes again; `None` where that depends on the socket, which must take what is due first.
    #[must_use]
    pub fn may_write_at(&self, now: Moment) -> Option<Moment> {
        let by_rate = self.up.as_ref().map_or(now, |bucket| bucket.filled_at(now));
        if self.line.room() > 0 {
            return Some(by_rate);
        }
        self.line.next_due().filter(|due| *due > now).map(|due| due.max(by_rate))
    }

    /// The bytes from the device that are due at the service.
    pub fn due(&mut self, now: Moment) -> &[u8] {
        self.line.due(now)
    }

    /// The first `bytes` of those that were due were handed over.
    pub fn handed_over(&mut self, bytes: usize) {
        self.line.remove(bytes);
    }

    /// When something happens here by itself after `now`: bytes become due at the service, or the cut comes.
    #[must_use]
    pub fn next_event(&self, now: Moment) -> Option<Moment> {
        let cut = match self.cut {
            Some(Cut::At(moment)) => Some(moment),
            Some(Cut::AfterBytes(_)) | None => None,
        };
        [self.line.next_due(), cut].into_iter().flatten().filter(|moment| *moment > now).min()
    }

    /// Whether nothing from the device is still on its way.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ltem() -> Path {
        Path {
            rates: Some(Rates { down_bytes_s: 37_500, up_bytes_s: 37_500 }),
            round_trip: 120 * MS,
            cut: None,
            quantum: 50 * MS,
        }
    }

    /// Lets a reader with an endless sender run for `time` and counts bytes and wakes.
    fn read_for(shaper: &mut Shaper, time: Duration) -> (u64, u32) {
        let mut now = Moment::START;
        let mut wakes = 0;
        while now < Moment::START + time {
            match shaper.may_read(now) {
                Grant::Bytes(bytes) => shaper.was_read(bytes, bytes),
                Grant::Wait(moment) => {
                    assert!(moment > now, "a wait makes progress");
                    now = moment;
                    wakes += 1;
                }
                Grant::Cut => break,
            }
        }
        (shaper.received(), wakes)
    }

    #[test]
    fn a_device_reads_at_its_rate_and_wakes_twenty_times_a_second() {
        let mut shaper = Shaper::new(&ltem(), Moment::START);
        let (bytes, wakes) = read_for(&mut shaper, Duration::from_secs(60));
        assert!(bytes.abs_diff(60 * 37_500) <= 37_500 / 20, "{bytes}");
        assert!((1190..=1201).contains(&wakes), "{wakes}");
    }

    #[test]
    fn the_slowest_link_still_delivers_its_bytes_one_by_one() {
        let path = Path { rates: Some(Rates { down_bytes_s: 3, up_bytes_s: 1 }), ..ltem() };
        let (bytes, wakes) = read_for(&mut Shaper::new(&path, Moment::START), Duration::from_secs(100));
        assert!((299..=300).contains(&bytes), "{bytes}");
        assert!(wakes <= 301, "{wakes}");
    }

    #[test]
    fn a_cut_after_bytes_comes_at_exactly_that_byte() {
        let path = Path { cut: Some(Cut::AfterBytes(100_001)), ..ltem() };
        let mut shaper = Shaper::new(&path, Moment::START);
        let (bytes, _) = read_for(&mut shaper, Duration::from_secs(60));
        assert_eq!(bytes, 100_001);
        assert_eq!(shaper.may_read(Moment::from_micros(1)), Grant::Cut, "and it stays cut");
    }

    #[test]
    fn a_cut_at_a_moment_comes_when_nothing_is_read() {
        let at = Moment::START + 700 * MS;
        let mut shaper = Shaper::new(&Path { cut: Some(Cut::At(at)), ..ltem() }, Moment::START);
        assert_eq!(shaper.next_event(Moment::START), Some(at));
        assert!(matches!(shaper.may_read(Moment::START + 699 * MS), Grant::Bytes(_)));
        assert_eq!(shaper.may_read(at), Grant::Cut);
    }

    #[test]
    fn what_the_device_writes_arrives_one_round_trip_later() {
        let mut shaper = Shaper::new(&ltem(), Moment::START);
        let written = Moment::START + 50 * MS;
        assert_eq!(shaper.write(written, b"request"), 7);
        assert_eq!(shaper.next_event(Moment::START), Some(written + 120 * MS));
        assert_eq!(shaper.due(written + 119 * MS), b"");
        assert!(!shaper.is_flushed());
        assert_eq!(shaper.due(written + 120 * MS), b"request");
        shaper.handed_over(3);
        assert_eq!(shaper.due(written + 120 * MS), b"uest");
        shaper.handed_over(4);
        assert!(shaper.is_flushed());
        assert_eq!(shaper.next_event(Moment::START), None);
    }

    #[test]
    fn a_device_writes_at_its_rate() {
        let mut shaper = Shaper::new(&ltem(), Moment::START);
        let (mut now, mut written, mut arrived) = (Moment::START, 0, 0);
        while now < Moment::START + Duration::from_secs(20) {
            written += shaper.write(now, &[7; 4096]);
            let due = shaper.due(now).len();
            shaper.handed_over(due);
            arrived += due;
            now = shaper.may_write_at(now).unwrap();
        }
        assert!(written.abs_diff(20 * 37_500) <= 37_500 / 20, "{written}");
        assert!((written - arrived).abs_diff(37_500 * 120 / 1000) <= 37_500 / 10, "{written} {arrived}");
    }

    #[test]
    fn an_unshaped_link_grants_everything_at_once() {
        let path = Path { rates: None, round_trip: Duration::ZERO, cut: None, quantum: 50 * MS };
        let mut shaper = Shaper::new(&path, Moment::START);
        assert_eq!(shaper.may_read(Moment::START), Grant::Bytes(usize::MAX));
        assert_eq!(shaper.write(Moment::START, &[1; 1000]), 1000);
        assert_eq!(shaper.due(Moment::START).len(), 1000);
    }

    #[test]
    fn a_full_delay_line_takes_no_more_until_it_drains() {
        let path = Path { rates: None, ..ltem() };
        let mut shaper = Shaper::new(&path, Moment::START);
        let too_much = vec![0; DELAY_LINE_BYTES_MAX + 1];
        assert_eq!(shaper.write(Moment::START, &too_much), DELAY_LINE_BYTES_MAX);
        assert_eq!(shaper.write(Moment::START, b"x"), 0);
        let again = shaper.may_write_at(Moment::START).unwrap();
        assert_eq!(again, Moment::START + 120 * MS);
        assert_eq!(shaper.due(again).len(), DELAY_LINE_BYTES_MAX);
        assert_eq!(shaper.may_write_at(again), None, "now it is up to the socket");
        shaper.handed_over(10);
        assert_eq!(shaper.write(again, b"x"), 1);
    }
}
