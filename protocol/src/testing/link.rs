//! A simulated link in virtual time. It has delay, rate, duplicates, reordering across topics, corruption and
//! cuts.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::retry::Jitter;
use crate::time::Instant;
use crate::topic::Channel;

/// Which way a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the service.
    Down,
    /// From the device.
    Up,
}

/// A message under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Which way.
    pub direction: Direction,
    /// On which channel.
    pub channel: Channel,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// How bad the link is. Probabilities are in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Shortest and longest delay of a packet, in milliseconds.
    pub delay_ms: (u64, u64),
    /// Bytes per second downwards; 0 for no limit.
    pub rate: u64,
    /// Delivered twice.
    pub duplicate: u64,
    /// One bit flipped.
    pub corrupt: u64,
    /// Lost, as brokers may do with QoS 0.
    pub lose: u64,
    /// Packets of different channels may overtake each other.
    pub reorder: bool,
}

/// Packets under way, in the order of their arrival.
#[derive(Debug)]
pub struct SeededLink {
    faults: Faults,
    jitter: Jitter,
    under_way: BTreeMap<(Instant, u64), Packet>,
    count: u64,
    /// The time at which the last packet of each direction (and channel, if channels reorder) arrives.
    last: Vec<(Direction, Option<Channel>, Instant)>,
    /// The time at which the downlink is free again.
    free_at: Instant,
}

impl SeededLink {
    /// An empty link.
    #[must_use]
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            jitter: Jitter::new(seed),
            under_way: BTreeMap::new(),
            count: 0,
            last: Vec::new(),
            free_at: Instant::ZERO,
        }
    }

    /// Changes how bad it is from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    fn hits(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.jitter.below(1000) < thousandths
    }

    /// Sends a packet.
    pub fn send(&mut self, now: Instant, packet: Packet) {
        if self.hits(self.faults.lose) {
            return;
        }
        let twice = self.hits(self.faults.duplicate);
        let mut packet = packet;
        if self.hits(self.faults.corrupt) {
            let bits = packet.payload.len() as u64 * 8;
            let bit = usize::try_from(self.jitter.below(bits)).unwrap_or(0);
            if let Some(byte) = packet.payload.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        for _ in 0..=u64::from(twice) {
            let at = self.arrival(now, &packet);
            self.count += 1;
            self.under_way.insert((at, self.count), packet.clone());
        }
    }

    fn arrival(&mut self, now: Instant, packet: &Packet) -> Instant {
        let (shortest, longest) = self.faults.delay_ms;
        let mut at = now.plus_millis(shortest + self.jitter.below(longest.saturating_sub(shortest) + 1));
        if self.faults.rate > 0 && packet.direction == Direction::Down {
            let bytes = packet.payload.len() as u64 + 30;
            self.free_at = self.free_at.max(now).plus_millis(bytes * 1000 / self.faults.rate);
            at = at.max(self.free_at);
        }
        // MQTT keeps the order within a topic, and most brokers over all topics of a connection.
        let lane = self.faults.reorder.then(|| packet.channel.clone());
        let known =
            self.last.iter_mut().find(|(way, channel, _)| *way == packet.direction && *channel == lane);
        match known {
            Some((_, _, last)) => {
                at = at.max(*last);
                *last = at;
            }
            None => self.last.push((packet.direction, lane, at)),
        }
        at
    }

    /// The time at which the next packet arrives.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    /// Takes the packet that arrives at or before `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Packet> {
        let first = self.under_way.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(first.remove())
    }

    /// The connection breaks: what was on its way to the device is lost, and what the device sent may be.
    pub fn cut(&mut self) {
        let under_way = core::mem::take(&mut self.under_way);
        for (key, packet) in under_way {
            if packet.direction == Direction::Up && self.jitter.below(2) == 0 {
                self.under_way.insert(key, packet);
            }
        }
        self.last.clear();
        self.free_at = Instant::ZERO;
    }
}
