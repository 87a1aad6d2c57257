//! A device: the real session and a medium in memory, on a real socket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::{DeviceSession, Event, HostOp, Input, Output, Record, SessionConfig};
use whimbrel_protocol::ids::{DeviceId, OpId, Prefix};
use whimbrel_protocol::message::State;
use whimbrel_protocol::testing::{Fixture, RamMedium, Stored};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::{self, Channel};

use crate::front_support::{Client, PATIENCE, Packet};

/// One device. It lives only while [`Device::run_until`] runs.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    fixture: Fixture,
    key: SigningKey,
    pub(crate) session: DeviceSession,
    pub(crate) medium: RamMedium,
    pub(crate) events: Vec<Event>,
    /// What came on which channel.
    pub(crate) received: Vec<(Channel, Vec<u8>)>,
    broker: SocketAddr,
    line: Option<Line>,
    epoch: std::time::Instant,
    rebooting: bool,
    hang_up: bool,
    lives: u8,
}

/// A connection: what is sent, and what a thread reads.
struct Line {
    client: Client,
    packets: mpsc::Receiver<Packet>,
}

enum Answer {
    Stored(Stored),
    Installed(Result<(), whimbrel_protocol::device::InstallFailure>),
}

impl Device {
    pub(crate) fn new(id: &str, key: SigningKey, fixture: &Fixture, broker: SocketAddr) -> Self {
        Self::running(id, key, fixture, broker, b"the image that the factory put there")
    }

    /// A device that runs this image.
    pub(crate) fn running(
        id: &str,
        key: SigningKey,
        fixture: &Fixture,
        broker: SocketAddr,
        image: &[u8],
    ) -> Self {
        let id = DeviceId::new(id).unwrap();
        let medium = RamMedium::running(image);
        let session = start(&id, &key, fixture, &medium, Instant::ZERO, 1);
        #[allow(clippy::disallowed_methods, reason = "a device has a clock of its own")]
        let epoch = std::time::Instant::now();
        Self {
            id,
            fixture: fixture.clone(),
            key,
            session,
            medium,
            events: Vec::new(),
            received: Vec::new(),
            broker,
            line: None,
            epoch,
            rebooting: false,
            hang_up: false,
            lives: 1,
        }
    }

    /// The broker is somewhere else now; the connection is gone.
    pub(crate) fn move_to(&mut self, broker: SocketAddr) {
        self.broker = broker;
        self.lose_connection();
    }

    /// The connection breaks.
    pub(crate) fn lose_connection(&mut self) {
        if let Some(line) = self.line.take() {
            line.client.vanish();
            self.feed(Input::Disconnected);
        }
    }

    fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.epoch.elapsed().as_millis()).unwrap())
    }

    /// Runs the device until something is so.
    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = self.epoch.elapsed() + PATIENCE;
        self.drain();
        while !done(self) {
            let last = self.events.len().saturating_sub(12);
            let late = || format!("{}: never {what}: {:#?}", self.id, &self.events[last..]);
            assert!(self.epoch.elapsed() < deadline, "{}", late());
            if self.line.is_none() {
                self.connect();
                continue;
            }
            let until = self.session.poll_timeout().map_or(Duration::from_secs(1), |at| self.now().until(at));
            let line = self.line.as_ref().unwrap();
            match line.packets.recv_timeout(until.min(Duration::from_secs(1))) {
                Ok(packet) => self.packet(&packet),
                Err(mpsc::RecvTimeoutError::Timeout) => self.feed(Input::Timeout),
                Err(mpsc::RecvTimeoutError::Disconnected) => self.lose_connection(),
            }
        }
    }

    pub(crate) fn run_until_state(&mut self, state: State) {
        self.run_until(state.name(), |device| device.session.state() == state);
    }

    /// Runs the device until it has told of something.
    pub(crate) fn run_until_event(&mut self, what: &str, is: impl Fn(&Event) -> bool) {
        self.run_until(what, |device| device.events.iter().any(&is));
    }

    fn connect(&mut self) {
        let hello = crate::front_support::Hello {
            client_id: self.id.as_str(),
            keep_alive: 60,
            ..crate::front_support::Hello::default()
        };
        let Ok(probe) = std::net::TcpStream::connect(self.broker) else {
            std::thread::yield_now();
            return;
        };
        drop(probe);
        let (client, code) = Client::knock(self.broker, 4, &hello);
        assert_eq!(code, Some(0));
        let mut reader = Client { stream: client.stream.try_clone().unwrap(), level: 4 };
        reader.stream.set_read_timeout(None).unwrap();
        let (tell, packets) = mpsc::channel();
        std::thread::spawn(move || {
            while let Some(packet) = reader.receive() {
                if tell.send(packet).is_err() {
                    return;
                }
            }
        });
        self.line = Some(Line { client, packets });
        self.feed(Input::Connected);
    }

    fn packet(&mut self, packet: &Packet) {
        if packet.first >> 4 != 3 {
            return; // SUBACK, PUBACK
        }
        let line = self.line.as_mut().unwrap();
        let published = line.client.published(packet);
        if published.qos == 1 {
            line.client.ack(published.pkid);
        }
        let address = topic::parse(&Prefix::default(), &published.topic).unwrap();
        self.received.push((address.channel.clone(), published.payload.clone()));
        self.feed(Input::Message { channel: address.channel, payload: &published.payload });
    }

    pub(crate) fn feed(&mut self, input: Input<'_>) {
        self.session.handle_input(self.now(), input);
        self.drain();
    }

    /// Carries out what the session wants, and feeds it what its medium answers, until it wants nothing.
    fn drain(&mut self) {
        let mut answers = VecDeque::new();
        loop {
            while let Some(output) = self.session.poll_output() {
                answers.extend(self.carry_out(output));
            }
            let now = self.now();
            match answers.pop_front() {
                Some((op, Answer::Stored(Stored::Done(result)))) => {
                    self.session.handle_input(now, Input::Stored { op, result });
                }
                Some((op, Answer::Stored(Stored::Opened(result)))) => {
                    self.session.handle_input(now, Input::Opened { op, result });
                }
                Some((op, Answer::Stored(Stored::Loaded(bytes)))) => {
                    self.session.handle_input(now, Input::Loaded { op, bytes: bytes.as_deref() });
                }
                Some((op, Answer::Installed(result))) => {
                    self.session.handle_input(now, Input::Installed { op, result });
                }
                None => break,
            }
        }
        if core::mem::take(&mut self.rebooting) {
            self.medium.boot();
            self.restart();
        }
        if core::mem::take(&mut self.hang_up) {
            self.lose_connection();
        }
    }

    /// The agent starts again: what was saved is there, the session and the connection are new.
    pub(crate) fn restart(&mut self) {
        if let Some(line) = self.line.take() {
            line.client.vanish();
        }
        self.lives += 1;
        self.session = start(&self.id, &self.key, &self.fixture, &self.medium, self.now(), self.lives);
        self.drain();
    }

    fn carry_out(&mut self, output: Output) -> Option<(OpId, Answer)> {
        let prefix = Prefix::default();
        match output {
            Output::Subscribe(channels) => {
                let topics: Vec<(String, u8)> = channels
                    .iter()
                    .map(|channel| (channel.topic(&prefix, &self.id), u8::from(*channel != Channel::Answers)))
                    .collect();
                let filters: Vec<(&str, u8)> =
                    topics.iter().map(|(topic, qos)| (topic.as_str(), *qos)).collect();
                self.send(&crate::front_support::subscribe(4, 7, &filters));
            }
            Output::Publish(publish) => {
                let topic = publish.channel.topic(&prefix, &self.id);
                let qos = u8::from(publish.at_least_once);
                self.send(&crate::front_support::publish(4, topic.as_bytes(), &publish.payload, qos, false));
            }
            Output::Disconnect => self.hang_up = true,
            Output::Event(event) => self.events.push(event),
            Output::Store(op, what) => return Some((op, Answer::Stored(self.medium.store(what)))),
            Output::Host(_, HostOp::Reboot) => self.rebooting = true,
            Output::Host(op, HostOp::CheckHealth) => {
                return Some((op, Answer::Installed(self.medium.check_health())));
            }
            Output::Install(op, what) => return Some((op, Answer::Installed(self.medium.install(what)))),
        }
        None
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(line) = &mut self.line {
            line.client.try_send(bytes);
        }
    }
}

fn start(
    id: &DeviceId,
    key: &SigningKey,
    fixture: &Fixture,
    medium: &RamMedium,
    now: Instant,
    seed: u8,
) -> DeviceSession {
    let mut config = SessionConfig::new(id.clone(), fixture.vendor, fixture.class, key.clone(), [seed; 32]);
    // On loopback a message is there at once or never.
    config.sees_activity = true;
    let record = medium.record.as_deref().map(|bytes| Record::decode(bytes).unwrap()).unwrap_or_default();
    DeviceSession::new(
        config,
        fixture.root(),
        medium.boot_view(),
        record,
        medium.kept_envelope(),
        now,
        UnixTime::default(),
    )
}
