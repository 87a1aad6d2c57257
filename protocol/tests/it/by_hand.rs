//! A device's session, fed by hand: its medium stores everything at once, and what it installs is left to the test.

use std::collections::VecDeque;

use whimbrel_protocol::device::{
    BootView, DeviceSession, Event, HostOp, Input, InstallOp, Output, Record, SessionConfig, StoreOp,
};
use whimbrel_protocol::ids::{Nonce, OpId};
use whimbrel_protocol::message::{Hello, HelloAnswer, Request};
use whimbrel_protocol::testing::{Fixture, RamMedium};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;

/// The session and what it wanted, in order.
pub(crate) struct ByHand {
    pub(crate) fixture: Fixture,
    pub(crate) session: DeviceSession,
    pub(crate) now: Instant,
    /// Since the last look.
    pub(crate) outputs: Vec<Output>,
    /// What was to be installed last.
    pub(crate) installing: Option<(OpId, Asked)>,
    /// Times that the download was to be forgotten.
    pub(crate) closed: usize,
    /// The record as saved last.
    pub(crate) saved: Option<Record>,
    /// What is stored waits until it is let go.
    pub(crate) held: Option<VecDeque<OpId>>,
}

/// The boot control of a device that runs an image which no release put there.
pub(crate) fn boot() -> BootView {
    RamMedium::running(&[0; 100]).boot_view()
}

impl ByHand {
    pub(crate) fn new(seed: u8, record: Record, boot: BootView) -> Self {
        Self::on(seed, record, boot, UnixTime::default(), false)
    }

    pub(crate) fn on(seed: u8, record: Record, boot: BootView, today: UnixTime, hold: bool) -> Self {
        let fixture = Fixture::new();
        let key = fixture.device_key.clone();
        let device = fixture.device.clone();
        let config = SessionConfig::new(device, fixture.vendor, fixture.class, key, [seed; 32]);
        let now = Instant::ZERO;
        let session = DeviceSession::new(config, fixture.root(), boot, record, None, now, today);
        let held = hold.then(VecDeque::new);
        let outputs = Vec::new();
        let mut by_hand =
            Self { fixture, session, now, outputs, installing: None, closed: 0, saved: None, held };
        by_hand.drain();
        by_hand
    }

    /// Takes what the session wants, and answers what it stores unless that is held back.
    fn drain(&mut self) {
        let mut stored = VecDeque::new();
        loop {
            while let Some(output) = self.session.poll_output() {
                if let Some(asked) = asked(&output) {
                    self.installing = Some(asked);
                }
                let Output::Store(op, what) = output else {
                    self.outputs.push(output);
                    continue;
                };
                match &what {
                    StoreOp::SaveRecord(bytes) => self.saved = Some(Record::decode(bytes).unwrap()),
                    StoreOp::Close => self.closed += 1,
                    _ => {}
                }
                self.held.as_mut().unwrap_or(&mut stored).push_back(op);
            }
            let Some(op) = stored.pop_front() else {
                return;
            };
            self.session.handle_input(self.now, Input::Stored { op, result: Ok(()) });
        }
    }

    /// What was held back is stored now, and everything later at once.
    pub(crate) fn let_go(&mut self) {
        for op in self.held.take().unwrap_or_default() {
            self.session.handle_input(self.now, Input::Stored { op, result: Ok(()) });
            self.drain();
        }
    }

    /// Feeds one input and returns what comes of it.
    pub(crate) fn feed(&mut self, input: Input<'_>) -> Vec<Output> {
        self.session.handle_input(self.now, input);
        self.drain();
        std::mem::take(&mut self.outputs)
    }

    pub(crate) fn message(&mut self, channel: Channel, payload: &[u8]) -> Vec<Output> {
        self.feed(Input::Message { channel, payload })
    }

    /// Lets time pass until the session wants to be woken; how many milliseconds that was, and what came of it.
    pub(crate) fn wake(&mut self) -> Option<(u64, Vec<Output>)> {
        let at = self.session.poll_timeout()?;
        let waited = at.millis_since(self.now);
        self.now = self.now.max(at);
        Some((waited, self.feed(Input::Timeout)))
    }

    /// Answers a hello as a service that has `answer` would.
    pub(crate) fn answer(&mut self, nonce: Nonce, change: impl FnOnce(&mut HelloAnswer)) -> Vec<Output> {
        let mut answer = HelloAnswer {
            echo: nonce.echo(&self.fixture.device),
            time: self.fixture.issued.plus_secs(60),
            root: 1,
            assignment: 0,
            groups: Vec::new(),
            report: None,
            key: self.fixture.device_key.public().id(),
        };
        change(&mut answer);
        self.message(Channel::Answers, &self.fixture.answer(&answer))
    }

    /// Connects, is answered that nothing is there, and takes `assignment` of this device to its group.
    pub(crate) fn in_step(seed: u8) -> Self {
        let mut by_hand = Self::new(seed, Record::default(), boot());
        let hello = the_hello(&by_hand.feed(Input::Connected));
        by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
        let groups = [by_hand.fixture.group.clone()];
        let assignment = by_hand.fixture.assignment(1, &groups, None);
        by_hand.message(Channel::Answers, &assignment);
        by_hand
    }
}

pub(crate) fn hellos(outputs: &[Output]) -> Vec<Hello> {
    let hello = |output: &Output| match output {
        Output::Publish(publish) if publish.channel == Channel::Requests => {
            match Request::decode(&publish.payload) {
                Ok(Request::Hello(hello)) => Some(hello),
                _ => None,
            }
        }
        _ => None,
    };
    outputs.iter().filter_map(hello).collect()
}

/// The one hello among `outputs`.
pub(crate) fn the_hello(outputs: &[Output]) -> Hello {
    let [hello] = &hellos(outputs)[..] else { panic!("{outputs:?}") };
    hello.clone()
}

pub(crate) fn events(outputs: &[Output]) -> Vec<Event> {
    let event = |output: &Output| match output {
        Output::Event(event) => Some(event.clone()),
        _ => None,
    };
    outputs.iter().filter_map(event).collect()
}

/// What is answered with [`Input::Installed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Install(InstallOp),
    Host(HostOp),
}

fn asked(output: &Output) -> Option<(OpId, Asked)> {
    match output {
        Output::Install(op, what) => Some((*op, Asked::Install(*what))),
        Output::Host(op, what) => Some((*op, Asked::Host(*what))),
        _ => None,
    }
}

pub(crate) fn installs(outputs: &[Output]) -> Vec<Asked> {
    outputs.iter().filter_map(asked).map(|(_, what)| what).collect()
}

pub(crate) fn subscriptions(outputs: &[Output]) -> Vec<Channel> {
    let subscribed = |output: &Output| match output {
        Output::Subscribe(channels) => channels.clone(),
        _ => Vec::new(),
    };
    outputs.iter().flat_map(subscribed).collect()
}
