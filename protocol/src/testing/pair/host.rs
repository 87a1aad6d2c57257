//! The device's host: carries out what its session wants, with the medium, and feeds the results to the
//! session.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Pair;
use crate::device::{Event, HostOp, Input, InstallFailure, InstallOp, Output, StoreFailure};
use crate::ids::OpId;
use crate::testing::link::{Direction, Packet};
use crate::testing::medium::Stored;
use crate::testing::recording::Recording;
use crate::time::Instant;
use crate::topic::Channel;

/// What the medium answered.
enum Answered {
    Stored(Stored),
    Installed(Result<(), InstallFailure>),
}

impl Pair {
    /// Feeds the device what a recording holds, with this pair's medium, and returns the events.
    pub fn replay(&mut self, recording: &Recording) -> Vec<(Instant, Event)> {
        self.drain();
        for (at, recorded) in &recording.inputs {
            self.now = self.now.max(*at);
            self.feed(recorded.as_input());
        }
        core::mem::take(&mut self.events)
    }

    /// Feeds the device one input, then carries out what it wants.
    pub fn feed(&mut self, input: Input<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(self.now, &input);
        }
        self.device.handle_input(self.now, input);
        self.drain();
    }

    /// Carries out what the device wants, and feeds it what its medium answers, until it wants nothing.
    pub(super) fn drain(&mut self) {
        let mut answers = VecDeque::new();
        loop {
            while let Some(output) = self.device.poll_output() {
                answers.extend(self.carry_out(output));
            }
            if self.stray_answers && !answers.is_empty() {
                self.answer_what_nobody_asked();
            }
            let input = match answers.pop_front() {
                Some((op, Answered::Stored(Stored::Done(result)))) => Input::Stored { op, result },
                Some((op, Answered::Stored(Stored::Opened(result)))) => Input::Opened { op, result },
                Some((op, Answered::Stored(Stored::Loaded(bytes)))) => {
                    self.device.handle_input(self.now, Input::Loaded { op, bytes: bytes.as_deref() });
                    continue;
                }
                Some((op, Answered::Installed(result))) => Input::Installed { op, result },
                None => break,
            };
            self.device.handle_input(self.now, input);
        }
        if core::mem::take(&mut self.rebooting) {
            self.start_again();
        }
    }

    /// # Panics
    /// If the device reacts to it.
    fn answer_what_nobody_asked(&mut self) {
        let op = OpId(u32::MAX);
        for stray in [
            Input::Installed { op, result: Ok(()) },
            Input::Installed { op, result: Err(InstallFailure::Mismatch) },
            Input::Stored { op, result: Ok(()) },
            Input::Opened { op, result: Err(StoreFailure::NoRoom) },
            Input::Loaded { op, bytes: Some(&[0; 64]) },
        ] {
            self.device.handle_input(self.now, stray.clone());
            let made = self.device.poll_output();
            assert!(made.is_none(), "{:?} makes {made:?} of {stray:?}", self.device.state());
        }
    }

    fn carry_out(&mut self, output: Output) -> Option<(OpId, Answered)> {
        if let Some(wanted) = &mut self.wanted {
            wanted.push((self.now, output.clone()));
        }
        match output {
            Output::Subscribe(channels) => self.subscribe(channels),
            Output::Publish(publish) if self.connected => {
                let (channel, payload) = (publish.channel, publish.payload);
                self.send(Packet { direction: Direction::Up, channel, payload });
            }
            Output::Publish(_) => {}
            Output::Disconnect => self.cut_at = Some(self.now),
            Output::Event(event) => self.events.push((self.now, event)),
            Output::Store(op, what) => return Some((op, Answered::Stored(self.medium.store(what)))),
            Output::Host(_, HostOp::Reboot) => self.rebooting = true,
            Output::Host(op, HostOp::CheckHealth) => {
                return Some((op, Answered::Installed(self.medium.check_health())));
            }
            Output::Install(_, InstallOp::Install) if self.hangs => {}
            Output::Install(op, what) => return Some((op, Answered::Installed(self.medium.install(what)))),
        }
        None
    }

    fn subscribe(&mut self, channels: Vec<Channel>) {
        for channel in channels {
            let retained = match &channel {
                Channel::Assignment => self.service.assignment.as_ref().map(|(_, bytes)| bytes.clone()),
                Channel::Group(group) => {
                    let found = self.service.campaigns.iter().find(|(head, _)| head.group == *group);
                    found.map(|(_, bytes)| bytes.clone())
                }
                _ => None,
            };
            self.subscribed.push(channel.clone());
            if let Some(payload) = retained {
                self.send(Packet { direction: Direction::Down, channel, payload });
            }
        }
    }

    pub(super) fn send(&mut self, packet: Packet) {
        let packets = match &mut self.tap {
            Some(tap) => tap(self.now, packet),
            None => Vec::from([packet]),
        };
        for packet in packets {
            self.link.send(self.now, packet);
        }
    }

    pub(in crate::testing) fn send_down(&mut self, payload: Vec<u8>) {
        if self.connected {
            self.send(Packet { direction: Direction::Down, channel: Channel::Answers, payload });
        }
    }

    /// # Panics
    /// If the device wants to be woken again and again although time hardly passes.
    pub(super) fn wake(&mut self) {
        let (since, times) = self.circle;
        let goes_on = self.now.millis_since(since) <= times;
        self.circle = if goes_on { (since, times + 1) } else { (self.now, 0) };
        assert!(self.circle.1 < 10_000, "the device turns its host in a circle: {:?}", self.device.state());
        self.wakes += 1;
        self.feed(Input::Timeout);
    }
}
