//! Does to messages what a hostile or broken broker could do.

use whimbrel_protocol::message::{Refusal, RefusalCode};
use whimbrel_protocol::retry::Jitter;

use super::Shared;
use super::memory::Message;
use super::traffic::{is_chunk, leaf_of};
use crate::frames::{self, Frame};

/// What the proxy does to messages, apart from passing them on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// Nothing.
    #[default]
    Pass,
    /// Flips one bit, anywhere in its payload, of one chunk message in this many.
    Flip {
        /// One in this many.
        one_in: u64,
    },
    /// Delivers once more, in both directions, the messages that passed before this verb was set.
    ReplayOld,
    /// Delivers to each device what another one gets, and to the service, as if it came from that device,
    /// what another one sends.
    CrossDeliver,
    /// Drops one message to a device in this many.
    Withhold {
        /// One in this many; 1 drops all.
        one_in: u64,
    },
    /// Delivers empty messages on the retained topics of a device with every answer.
    EmptyRetain,
    /// Puts a forged refusal before one message in this many, with each code in turn.
    ForgeRefusal {
        /// One in this many.
        one_in: u64,
    },
    /// Delivers this many copies of each chunk message behind it.
    Flood {
        /// How many.
        count: u32,
    },
    /// Flips one bit of every envelope, always the same one.
    Spoil {
        /// Which, counted from the lowest one of its first byte.
        bit: usize,
    },
}

/// Chooses one message at random of every so many: the number is exact, but which one it is cannot be
/// predicted.
#[derive(Debug, Default)]
pub(super) struct Lot {
    seen: u64,
    drawn: u64,
    hits: usize,
}

impl Lot {
    fn draw(&mut self, one_in: u64, jitter: &mut Jitter) -> bool {
        let at = self.seen % one_in.max(1);
        if at == 0 {
            self.drawn = jitter.below(one_in);
        }
        self.seen += 1;
        let hit = one_in > 0 && at == self.drawn;
        self.hits += usize::from(hit);
        hit
    }
}

/// The first bytes of an envelope: CBOR tag 107.
const ENVELOPE: [u8; 2] = [0xd8, 0x6b];

const REFUSALS: [RefusalCode; 8] = [
    RefusalCode::Unknown,
    RefusalCode::NotYours,
    RefusalCode::Busy,
    RefusalCode::Version,
    RefusalCode::Pending,
    RefusalCode::NotFound,
    RefusalCode::OverQuota,
    RefusalCode::Malformed,
];

impl Shared {
    /// What the broker gets for a packet of a device.
    pub(super) fn up(&mut self, device: &str, frame: Frame) -> Vec<Frame> {
        self.count_up(device, &frame);
        let Some(message) = message_of(device, true, &frame) else { return vec![frame] };
        let leaf = leaf_of(&message.topic).to_owned();
        let more = match self.verb {
            Verb::ReplayOld => self.take_old(device, Some(&message.topic)),
            Verb::CrossDeliver => self.of_another(device, true, &leaf),
            _ => None,
        };
        let more = more.map(|more| {
            self.of(device).tampered += 1;
            frames::publish(&message.topic, &more.payload, false)
        });
        self.memory.keep(message);
        core::iter::once(frame).chain(more).collect()
    }

    /// What a device gets for a packet of the broker.
    pub(super) fn down(&mut self, device: &str, frame: Frame) -> Vec<Frame> {
        self.count_served(device, &frame);
        let Some(message) = message_of(device, false, &frame) else { return vec![frame] };
        if self.ignore_retain && frame.publish().is_some_and(|publish| publish.retain) {
            return Vec::new();
        }
        let verb = self.verb.clone();
        let out = self.apply(&verb, device, frame, &message);
        self.memory.keep(message);
        out
    }

    fn apply(&mut self, verb: &Verb, device: &str, mut frame: Frame, message: &Message) -> Vec<Frame> {
        let before = |more: Frame, frame: Frame| vec![more, frame];
        let topic = &message.topic;
        match *verb {
            Verb::Pass => vec![frame],
            Verb::Flip { one_in } => {
                if is_chunk(&message.payload) && self.lot.draw(one_in, &mut self.jitter) {
                    let bits = message.payload.len() as u64 * 8;
                    frame.flip(usize::try_from(self.jitter.below(bits)).unwrap_or(0));
                    self.of(device).tampered += 1;
                }
                vec![frame]
            }
            Verb::ReplayOld => match self.take_old(device, None) {
                Some(old) => {
                    self.of(device).tampered += 1;
                    before(frames::publish(&old.topic, &old.payload, false), frame)
                }
                None => vec![frame],
            },
            Verb::CrossDeliver => match self.of_another(device, false, leaf_of(topic)) {
                Some(other) => {
                    self.of(device).tampered += 1;
                    before(frames::publish(topic, &other.payload, false), frame)
                }
                None => vec![frame],
            },
            Verb::Withhold { one_in } => {
                if !self.lot.draw(one_in, &mut self.jitter) {
                    return vec![frame];
                }
                self.of(device).tampered += 1;
                Vec::new()
            }
            Verb::EmptyRetain => {
                let Some((prefix, _)) = topic.split_once("/d/") else { return vec![frame] };
                let topics =
                    [format!("{prefix}/d/{device}/s"), format!("{prefix}/g/all"), format!("{prefix}/t")];
                self.of(device).tampered += 3;
                let empty = topics.iter().map(|topic| frames::publish(topic, &[], true));
                empty.chain([frame]).collect()
            }
            Verb::ForgeRefusal { one_in } => {
                if leaf_of(topic) != "c" || !self.lot.draw(one_in, &mut self.jitter) {
                    return vec![frame];
                }
                self.of(device).tampered += 1;
                let code = REFUSALS.into_iter().cycle().nth(self.lot.hits - 1).unwrap_or(RefusalCode::Busy);
                let refusal = Refusal { code, retry_after_s: Some(1), payload: None };
                before(frames::publish(topic, &refusal.encode(), false), frame)
            }
            Verb::Flood { count } => {
                if !is_chunk(&message.payload) {
                    return vec![frame];
                }
                self.of(device).tampered += u64::from(count);
                let flood = (0..count).map(|_| frames::publish(topic, &message.payload, false));
                core::iter::once(frame.clone()).chain(flood).collect()
            }
            Verb::Spoil { bit } => {
                if message.payload.starts_with(&ENVELOPE) {
                    frame.flip(bit);
                    self.of(device).tampered += 1;
                }
                vec![frame]
            }
        }
    }

    /// The next old message to the device, or the next that it sent on topic `up`.
    fn take_old(&mut self, device: &str, up: Option<&str>) -> Option<Message> {
        let at = self.old.iter().position(|old| {
            old.device == device && old.up == up.is_some() && up.is_none_or(|topic| topic == old.topic)
        })?;
        Some(self.old.remove(at))
    }

    /// A message that passed on the same kind of topic of another device, a different one each time.
    fn of_another(&mut self, device: &str, up: bool, leaf: &str) -> Option<Message> {
        let mut others = self.memory.messages();
        others.retain(|other| other.device != device && other.up == up && leaf_of(&other.topic) == leaf);
        let pick = self.jitter.below(others.len() as u64);
        others.into_iter().nth(usize::try_from(pick).unwrap_or(0))
    }
}

/// The message that a packet carries, if its topic is ours.
fn message_of(device: &str, up: bool, frame: &Frame) -> Option<Message> {
    let publish = frame.publish()?;
    let (topic, payload) = (publish.topic.to_owned(), publish.payload.to_vec());
    Some(Message { device: device.to_owned(), up, topic, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_of_every_hundred_is_drawn_and_not_always_the_same() {
        let (mut lot, mut jitter) = (Lot::default(), Jitter::new(7));
        let mut places = Vec::new();
        for _ in 0..50 {
            let hits: Vec<u64> = (0..100).filter(|_| lot.draw(100, &mut jitter)).collect();
            assert_eq!(hits.len(), 1);
            places.extend(hits);
        }
        places.sort_unstable();
        places.dedup();
        assert!(places.len() > 10, "{places:?}");
        assert!((0..100).all(|_| Lot::default().draw(1, &mut jitter)));
    }
}
