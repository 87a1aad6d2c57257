//! The simplest device there is: asks for messages, hashes them chunk by chunk as every device does, counts them.
//!
//! The hashing keeps both sides of the comparison at the same pace: a broker whose devices are slower has more
//! to do for each message, because fewer of them wait to be handled together.

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use whimbrel_protocol::ids::{DeviceId, Prefix};
use whimbrel_protocol::topic::Channel;

use crate::clock::Moment;
use crate::mqtt::Delivery;
use crate::swarm::{Input, Machine, Output};

/// Asks for as many messages as its window holds, and for more when half of them are here.
#[derive(Debug)]
pub(super) struct Puller {
    id: DeviceId,
    wanted: u64,
    window: u64,
    asked: u64,
    received: u64,
    heard: Moment,
    /// So that the hashing is not left out.
    hashed: u8,
    outputs: VecDeque<Output>,
}

/// What is asked for and does not come for this long is asked for again: brokers may drop messages.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 4096;

/// A request for some messages of the image, as long as a real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Number of the first message.
    pub(super) first: u64,
    /// How many.
    pub(super) count: u8,
}

impl Wanted {
    const BYTES: usize = 11;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.count;
        bytes[1..9].copy_from_slice(&self.first.to_be_bytes());
        bytes
    }

    /// What a request says; `None` where it is none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let first = bytes.get(1..9)?.try_into().ok()?;
        Some(Self { first: u64::from_be_bytes(first), count: *bytes.first()? })
    }
}

impl Puller {
    pub(super) fn new(id: DeviceId, wanted: u64, window: u64) -> Self {
        Self {
            id,
            wanted,
            window: window.max(2),
            asked: 0,
            received: 0,
            heard: Moment::START,
            hashed: 0,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    fn ask(&mut self) {
        let under_way = self.asked - self.received;
        let left = self.wanted - self.asked;
        let count = (self.window - under_way.min(self.window)).min(left);
        if under_way > self.window / 2 || count == 0 {
            return;
        }
        let wanted = Wanted { first: self.asked, count: u8::try_from(count).unwrap_or(u8::MAX) };
        self.asked += count;
        self.outputs.push_back(Output::Publish {
            topic: Channel::Requests.topic(&Prefix::default(), &self.id),
            payload: Bytes::copy_from_slice(&wanted.to_bytes()),
            delivery: Delivery::AtMostOnce,
        });
    }
}

impl Machine for Puller {
    fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        match input {
            Input::Connected => {
                let topic = Channel::Answers.topic(&Prefix::default(), &self.id);
                self.outputs.push_back(Output::Subscribe(vec![(topic, Delivery::AtMostOnce)]));
                self.heard = now;
                self.ask();
            }
            Input::Message { payload, .. } => {
                for chunk in payload.chunks(CHUNK_BYTES) {
                    self.hashed ^= Sha256::digest(chunk).first().copied().unwrap_or_default();
                }
                self.heard = now;
                self.received += 1;
                if self.received == self.wanted {
                    self.outputs.push_back(Output::Finished);
                } else {
                    self.ask();
                }
            }
            Input::Timeout if now.since(self.heard) >= PATIENCE => {
                self.heard = now;
                self.asked = self.received;
                self.ask();
            }
            Input::Activity | Input::Timeout => {}
            Input::Disconnected => self.asked = self.received,
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Moment> {
        (self.received < self.wanted).then(|| self.heard + PATIENCE)
    }

    fn reconnect_after(&mut self) -> Duration {
        Duration::from_millis(200)
    }
}
