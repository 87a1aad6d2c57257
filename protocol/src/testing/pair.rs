//! A device and its service, joined by a link with faults, in virtual time. `host` is what the device's
//! session runs on, `service` what the service's session runs on.

mod host;
mod service;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::fixture::{Fixture, OrderOptions, Release};
use super::link::{Direction, Faults, Packet, SeededLink};
use super::medium::RamMedium;
use super::recording::Recorder;
use crate::device::{DeviceSession, Event, Input, Output, Record, SessionConfig};
use crate::ids::PayloadTag;
use crate::manifest::Codecs;
use crate::message::State;
use crate::retry::Jitter;
use crate::server::{Document, Event as ServerEvent, GroupDocument, Input as ServerInput, ServerSession};
use crate::time::{Instant, UnixTime};
use crate::topic::Channel;

pub use service::ServiceData;

/// A function that sees every packet of the link and returns the packets that go on instead of it.
pub type Tap = Box<dyn FnMut(Instant, Packet) -> Vec<Packet>>;

/// What a [`Pair`] starts with.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// Seed of the run. The same seed gives the same run.
    pub seed: u64,
    /// How bad the link is.
    pub faults: Faults,
    /// Mean time between cuts of the connection, in milliseconds; 0 for none.
    pub cut_every_ms: u64,
    /// Mean time between power cuts of the device, in milliseconds; 0 for none.
    pub power_cut_every_ms: u64,
    /// Whether the device is accepted from the start.
    pub accepted: bool,
    /// Refuses chunk requests as busy: one in this many; 0 for none.
    pub busy_one_in: u64,
    /// Most memory for decoding, in KiB; `None` for the usual.
    pub memory_max_kib: Option<u64>,
    /// What the device can decode.
    pub codecs: Codecs,
}

impl Default for PairOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            faults: Faults { delay_ms: (20, 60), rate: 20_000, ..Faults::default() },
            cut_every_ms: 0,
            power_cut_every_ms: 0,
            accepted: true,
            busy_one_in: 0,
            memory_max_kib: None,
            codecs: Codecs::ALL,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was waited for came true.
    Done,
    /// Virtual time ran out.
    TimeUp,
}

/// A session of a device and one of a service, with the link between them and the hosts below them.
pub struct Pair {
    /// Keys and names.
    pub fixture: Fixture,
    /// What the service has.
    pub service: ServiceData,
    /// The device's medium.
    pub medium: RamMedium,
    /// The device's session.
    pub device: DeviceSession,
    /// Every event of the device, with its time.
    pub events: Vec<(Instant, Event)>,
    /// Every event of the service.
    pub server_events: Vec<ServerEvent>,
    /// Payload bytes that the service sent.
    pub served_bytes: u64,
    /// Payload bytes that the service sent, by payload.
    pub served: BTreeMap<PayloadTag, u64>,
    /// Link cuts and power cuts that happened.
    pub cuts: (u64, u64),
    /// The virtual clock.
    pub now: Instant,
    /// Sees and may change every packet.
    pub tap: Option<Tap>,
    /// Everything that was fed to the device, if recording is on.
    pub recorder: Option<Recorder>,
    /// Every output of the device, with its time, if a test wants them to be kept.
    pub wanted: Option<Vec<(Instant, Output)>>,
    /// Number of times that the device was woken at its own request.
    pub wakes: u64,
    /// Whether the device gets an answer to an operation that it never asked for, before each answer that it
    /// did ask for.
    pub stray_answers: bool,
    /// Whether the medium never ends an installation.
    pub hangs: bool,
    pub(super) options: PairOptions,
    pub(super) server: ServerSession,
    link: SeededLink,
    pub(super) jitter: Jitter,
    /// Since when the device was woken at least once a millisecond, and how often since then.
    circle: (Instant, u64),
    connected: bool,
    connect_at: Instant,
    cut_at: Option<Instant>,
    power_cut_at: Option<Instant>,
    subscribed: Vec<Channel>,
    lives: u64,
    rebooting: bool,
}

impl core::fmt::Debug for Pair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pair")
            .field("now", &self.now)
            .field("state", &self.device.state())
            .finish_non_exhaustive()
    }
}

impl Pair {
    /// A device that runs an image of zeros, and a service that has nothing yet.
    #[must_use]
    pub fn new(options: PairOptions) -> Self {
        Self::on(options, RamMedium::running(&[0; 100]))
    }

    /// A device with this medium, and a service that has nothing yet.
    #[must_use]
    pub fn on(options: PairOptions, mut medium: RamMedium) -> Self {
        let fixture = Fixture::new();
        medium.boot();
        let mut jitter = Jitter::new(options.seed);
        let config = Self::config(&fixture, &options, 0);
        let root = fixture.root();
        let boot = medium.boot_view();
        let now = Instant::ZERO;
        let device =
            DeviceSession::new(config, root, boot, Record::default(), None, now, UnixTime::default());
        let server = ServerSession::new(fixture.device.clone(), now);
        let link = SeededLink::new(options.faults, jitter.next_u64());
        let mut pair = Self {
            fixture,
            service: ServiceData {
                root_version: 1,
                releases: Vec::new(),
                assignment: None,
                campaigns: Vec::new(),
                live: None,
                reports: Vec::new(),
            },
            medium,
            device,
            events: Vec::new(),
            server_events: Vec::new(),
            served_bytes: 0,
            served: BTreeMap::new(),
            cuts: (0, 0),
            now,
            tap: None,
            recorder: None,
            wanted: None,
            wakes: 0,
            stray_answers: false,
            hangs: false,
            server,
            link,
            jitter,
            circle: (now, 0),
            connected: false,
            connect_at: now,
            cut_at: None,
            power_cut_at: None,
            subscribed: Vec::new(),
            lives: 0,
            rebooting: false,
            options,
        };
        if pair.options.accepted {
            let bytes = pair.fixture.assignment(1, core::slice::from_ref(&pair.fixture.group), None);
            pair.service.assignment = Some((1, bytes));
        }
        pair.power_cut_at = pair.after(pair.options.power_cut_every_ms);
        pair
    }

    /// A pair whose service rolls out `image` to the device's group.
    #[must_use]
    pub fn with_release(options: PairOptions, image: Vec<u8>, chunk_size_log2: u64) -> Self {
        let mut pair = Self::new(options);
        let release = pair.fixture.release(image, 1, chunk_size_log2);
        pair.roll_out(release, OrderOptions::default());
        pair
    }

    /// Rolls out `release` to the device's group.
    pub fn roll_out(&mut self, release: Release, options: OrderOptions) {
        let document = self.fixture.campaign(&release, options);
        self.service.releases.push(release);
        self.service.live = Some(self.service.releases.len() - 1);
        self.put_campaign(options.version, document);
    }

    /// Publishes a campaign document of the device's group.
    pub fn put_campaign(&mut self, version: u64, document: Vec<u8>) {
        let group = self.fixture.group.clone();
        self.service.campaigns.retain(|(known, _)| known.group != group);
        let head = GroupDocument { group: group.clone(), document: Document { version } };
        self.service.campaigns.push((head, document.clone()));
        self.publish_retained(Channel::Group(group), document);
    }

    /// Publishes a new assignment of the device.
    pub fn put_assignment(&mut self, version: u64, document: Vec<u8>) {
        self.service.assignment = Some((version, document.clone()));
        self.publish_retained(Channel::Assignment, document);
    }

    fn publish_retained(&mut self, channel: Channel, document: Vec<u8>) {
        if self.connected && self.subscribed.contains(&channel) {
            self.send(Packet { direction: Direction::Down, channel, payload: document });
        }
    }

    /// Delivers something to the device as if the broker had made it up.
    pub fn inject(&mut self, channel: Channel, payload: Vec<u8>) {
        self.feed(Input::Message { channel, payload: &payload });
    }

    fn config(fixture: &Fixture, options: &PairOptions, lives: u64) -> SessionConfig {
        let mut seed = [0; 32];
        let number = options.seed.wrapping_mul(1_000_003).wrapping_add(lives).to_le_bytes();
        seed.iter_mut().zip(number).for_each(|(to, from)| *to = from);
        let key = fixture.device_key.clone();
        let usual = SessionConfig::new(fixture.device.clone(), fixture.vendor, fixture.class, key, seed);
        let memory_max_kib = options.memory_max_kib.unwrap_or(usual.memory_max_kib);
        SessionConfig { memory_max_kib, codecs: options.codecs, ..usual }
    }

    fn after(&mut self, mean_ms: u64) -> Option<Instant> {
        (mean_ms > 0).then(|| self.now.plus_millis(1 + self.jitter.below(2 * mean_ms)))
    }

    /// Runs until `done` or until `limit_ms` of virtual time have passed.
    pub fn run(&mut self, limit_ms: u64, mut done: impl FnMut(&Self) -> bool) -> Verdict {
        let end = self.now.plus_millis(limit_ms);
        self.drain();
        while !done(self) {
            let wake = [
                self.link.next_arrival(),
                self.device.poll_timeout(),
                self.server.poll_timeout(),
                (!self.connected).then_some(self.connect_at),
                self.cut_at,
                self.power_cut_at,
            ];
            let Some(next) = wake.into_iter().flatten().min().filter(|at| *at <= end) else {
                self.now = end;
                return Verdict::TimeUp;
            };
            self.now = self.now.max(next);
            self.turn();
        }
        Verdict::Done
    }

    /// Runs until the service has the report of a deployment that ended in `state`.
    pub fn run_until(&mut self, state: State, limit_ms: u64) -> Verdict {
        self.run(limit_ms, |pair| {
            pair.device.state() == state
                && pair.device.record().reports.is_empty()
                && !pair.service.reports.is_empty()
        })
    }

    /// Handles the next event of the world: a packet, a timeout or a cut.
    fn turn(&mut self) {
        if self.power_cut_at.is_some_and(|at| at <= self.now) {
            self.power_cut_at = self.after(self.options.power_cut_every_ms);
            return self.power_cut();
        }
        if self.cut_at.is_some_and(|at| at <= self.now) {
            return self.cut();
        }
        if !self.connected && self.connect_at <= self.now {
            self.connected = true;
            self.subscribed.clear();
            self.cut_at = self.after(self.options.cut_every_ms);
            return self.feed(Input::Connected);
        }
        if let Some(packet) = self.link.receive(self.now) {
            return match packet.direction {
                Direction::Down if self.connected => {
                    self.feed(Input::Message { channel: packet.channel, payload: &packet.payload });
                }
                Direction::Down => {}
                Direction::Up => {
                    let Packet { channel, payload, .. } = packet;
                    self.serve(ServerInput::message(&channel, &payload));
                }
            };
        }
        if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
            return self.serve(ServerInput::Timeout);
        }
        self.wake();
    }

    /// Breaks the connection; the device comes back some seconds later.
    pub fn cut(&mut self) {
        self.cut_at = None;
        if !self.connected {
            return;
        }
        self.connected = false;
        self.cuts.0 += 1;
        self.connect_at = self.now.plus_millis(500 + self.jitter.below(5000));
        self.link.cut();
        self.feed(Input::Disconnected);
    }

    /// Cuts the device's power and switches it on again.
    pub fn power_cut(&mut self) {
        self.cuts.1 += 1;
        self.medium.power_cut();
        self.start_again();
    }

    /// Kills the agent's process and starts it again: what was written is there, but the session is new.
    pub fn kill(&mut self) {
        self.new_session();
    }

    fn start_again(&mut self) {
        self.medium.boot();
        self.new_session();
    }

    fn new_session(&mut self) {
        self.lives += 1;
        self.connected = false;
        self.cut_at = None;
        self.link.cut();
        self.connect_at = self.now.plus_millis(1000);
        let record = self.medium.record.as_deref().map(|bytes| Record::decode(bytes).expect("saved by us"));
        self.device = DeviceSession::new(
            Self::config(&self.fixture, &self.options, self.lives),
            self.fixture.root(),
            self.medium.boot_view(),
            record.unwrap_or_default(),
            self.medium.kept_envelope(),
            self.now,
            UnixTime::default(),
        );
        self.drain();
    }

    /// Restarts the service's process: what it counted is gone.
    pub fn restart_service(&mut self) {
        self.server = ServerSession::new(self.fixture.device.clone(), self.now);
    }

    /// Changes how bad the link is from now on.
    pub fn heal(&mut self, faults: Faults) {
        self.options.cut_every_ms = 0;
        self.options.power_cut_every_ms = 0;
        self.options.busy_one_in = 0;
        self.cut_at = None;
        self.power_cut_at = None;
        self.link.set_faults(faults);
    }

    /// Accepts the device with its group.
    pub fn accept(&mut self) {
        self.options.accepted = true;
        let document = self.fixture.assignment(1, core::slice::from_ref(&self.fixture.group), None);
        self.put_assignment(1, document);
    }
}
