//! A device of the load: the same engine as in a swarm, which stays connected after its update and is watched.

use alloc::sync::Arc;
use core::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use whimbrel_protocol::message::Answer;

use super::tally::Tally;
use crate::clock::Moment;
use crate::control::Control;
use crate::fleet::DeviceState;
use crate::meter::Class;
use crate::swarm::{Input, Machine, Output};
use crate::update::{UpdatingDevice, classify};

/// A device whose hellos and updates are timed.
#[derive(Debug)]
pub struct Watched {
    device: UpdatingDevice,
    tally: Arc<Tally>,
    now: Moment,
    /// When the hello that waits for an answer was first said.
    asked: Option<Moment>,
    /// When the update began that is under way.
    began: Option<Moment>,
    endings: u32,
    /// Where only so many update at once: until the first update has ended.
    turn: Option<OwnedSemaphorePermit>,
}

impl Watched {
    /// Watches a device, which gives its turn back when its first update has ended.
    #[must_use]
    pub fn new(device: UpdatingDevice, tally: Arc<Tally>, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { device, tally, now: Moment::START, asked: None, began: None, endings: 0, turn }
    }

    fn answer(&mut self, topic: &str, payload: &[u8]) {
        match classify(topic, payload) {
            Class::Control(Control::HelloAnswer) => {
                if let Some(asked) = self.asked.take() {
                    self.tally.answered(self.now.since(asked));
                }
            }
            Class::Control(Control::Refusal) => {
                if let Ok(Answer::Refusal(refusal)) = Answer::decode(payload) {
                    self.tally.refused(refusal.code.name());
                }
            }
            _ => {}
        }
    }

    fn look(&mut self) {
        let endings = self.device.endings();
        if endings > self.endings {
            self.endings = endings;
            let took = self.began.take().map_or(Duration::ZERO, |began| self.now.since(began));
            self.tally.ended(self.device.state() == DeviceState::Confirmed, took);
            self.turn = None;
        }
    }
}

impl Machine for Watched {
    fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Connected if self.endings == 0 => self.began = self.began.or(Some(now)),
            Input::Message { topic, payload } => self.answer(topic, payload),
            _ => {}
        }
        self.device.handle_input(now, input);
        self.look();
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            let output = self.device.poll_output()?;
            match &output {
                // A fleet stays connected: the run ends when all have ended, and takes the devices with it.
                Output::Finished => continue,
                Output::Publish { topic, payload, .. }
                    if classify(topic, payload) == Class::Control(Control::Hello) =>
                {
                    self.asked = self.asked.or(Some(self.now));
                }
                Output::State(DeviceState::Offered | DeviceState::Downloading) => {
                    self.began = self.began.or(Some(self.now));
                }
                _ => {}
            }
            return Some(output);
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.device.poll_timeout()
    }

    fn reconnect_after(&mut self) -> Duration {
        self.device.reconnect_after()
    }
}
