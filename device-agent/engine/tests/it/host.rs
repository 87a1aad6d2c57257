//! A host of the engine and a service in memory, without delays or losses between them.

use alloc::collections::VecDeque;

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{Storage, StorageOptions};
use whimbrel_engine::{Device, Effect, Gate, Input, Job, MemoryDisk, Output, Verdict, trust_anchor};
use whimbrel_protocol::device::{Event, SessionConfig};
use whimbrel_protocol::disk::{Area, Disk as _};
use whimbrel_protocol::ids::OpId;
use whimbrel_protocol::message::{ChunkMessage, PageMessage, PageNumber, State};
use whimbrel_protocol::server::{
    DeviceView, Document, GroupDocument, Input as ServerInput, Live, LivePayload, Output as ServerOutput,
    ServerSession, Standing,
};
use whimbrel_protocol::testing::{Fixture, OrderOptions, Release};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;
use whimbrel_protocol::trust::{Root, TrustError};

/// A device that runs from a disk in memory, and the service that has one release for it.
pub(crate) struct Host {
    pub(crate) fixture: Fixture,
    pub(crate) release: Release,
    pub(crate) device: Device<MemoryDisk>,
    pub(crate) now: Instant,
    /// What the host says at each gate.
    pub(crate) says: fn(Gate) -> Verdict,
    /// Gates that the device came to.
    pub(crate) asked: Vec<Gate>,
    pub(crate) events: Vec<Event>,
    /// Everything that the device wanted, in one word each.
    pub(crate) wanted: Vec<&'static str>,
    /// The device asked for a reboot.
    pub(crate) rebooting: Option<OpId>,
    /// Operations whose medium takes its time: they are not done.
    pub(crate) slow: fn(&Job) -> bool,
    pub(crate) undone: VecDeque<Job>,
    /// The report of an ended deployment reached the service.
    pub(crate) reported: bool,
    server: ServerSession,
    down: VecDeque<(Channel, Vec<u8>)>,
}

pub(crate) fn config(fixture: &Fixture) -> SessionConfig {
    let key = fixture.device_key.clone();
    SessionConfig::new(fixture.device.clone(), fixture.vendor, fixture.class, key, [7; 32])
}

/// Trusts the root of `fixture`.
pub(crate) fn anchor(fixture: &Fixture) -> impl FnOnce(&[u8]) -> Result<(Root, Vec<u8>), TrustError> {
    let bytes = fixture.root_bytes();
    move |pinned| trust_anchor(pinned, &bytes)
}

impl Host {
    pub(crate) fn new() -> Self {
        let fixture = Fixture::new();
        let release = fixture.release(vec![7; 20_000], 1, 10);
        let mut disk = MemoryDisk::new();
        disk.reserve(Area::SlotA, 100).unwrap();
        let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
        storage.boot().unwrap();
        let now = Instant::ZERO;
        let device =
            Device::start(storage, config(&fixture), anchor(&fixture), now, UnixTime::default()).unwrap();
        Self {
            server: ServerSession::new(fixture.device.clone(), now),
            fixture,
            release,
            device,
            now,
            says: |_| Verdict::Good,
            asked: Vec::new(),
            events: Vec::new(),
            wanted: Vec::new(),
            rebooting: None,
            slow: |_| false,
            undone: VecDeque::new(),
            reported: false,
            down: VecDeque::new(),
        }
    }

    /// Connects, and goes on until nothing happens any more within `limit_ms`, or until a reboot is wanted.
    pub(crate) fn run(&mut self, limit_ms: u64) {
        let end = self.now.plus_millis(limit_ms);
        while self.rebooting.is_none() {
            if let Some((channel, payload)) = self.down.pop_front() {
                self.feed(Input::Message { channel, payload: &payload });
                continue;
            }
            match self.device.poll_timeout().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.feed(Input::Timeout);
                }
                None => break,
            }
        }
    }

    /// Restarts the device as its boot control wants it, and connects it again.
    pub(crate) fn reboot(&mut self) {
        self.rebooting = None;
        self.down.clear();
        let (config, anchor) = (config(&self.fixture), anchor(&self.fixture));
        self.device.restart(config, anchor, self.now, UnixTime::default()).unwrap();
        self.drain();
        self.feed(Input::Connected);
    }

    pub(crate) fn feed(&mut self, input: Input<'_>) {
        self.device.handle_input(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.device.poll_effect() {
            match effect {
                Effect::Work(job) if (self.slow)(&job) => self.undone.push_back(job),
                Effect::Work(job) => drop(self.device.carry_out(job)),
                Effect::Host(output) => self.carry_out(output),
            }
        }
    }

    /// Does what the medium was slow with.
    pub(crate) fn catch_up(&mut self) {
        self.slow = |_| false;
        while let Some(job) = self.undone.pop_front() {
            drop(self.device.carry_out(job));
        }
        self.drain();
    }

    fn carry_out(&mut self, output: Output) {
        self.wanted.push(match &output {
            Output::Subscribe(_) => "subscribe",
            Output::Publish(_) => "publish",
            Output::Disconnect => "disconnect",
            Output::Ask(..) => "ask",
            Output::Reboot(_) => "reboot",
            Output::Event(_) => "event",
        });
        match output {
            Output::Subscribe(channels) => {
                for channel in channels {
                    match channel {
                        Channel::Assignment => self.down.push_back((channel, self.assignment())),
                        Channel::Group(_) => self.down.push_back((channel, self.campaign())),
                        _ => {}
                    }
                }
            }
            Output::Publish(publish) => self.serve(publish.channel, &publish.payload),
            Output::Ask(op, gate) => {
                self.asked.push(gate);
                let verdict = (self.says)(gate);
                self.device.handle_input(self.now, Input::Verdict { op, verdict });
            }
            Output::Reboot(op) => self.rebooting = Some(op),
            Output::Event(event) => self.events.push(event),
            Output::Disconnect => {}
        }
    }

    fn assignment(&self) -> Vec<u8> {
        self.fixture.assignment(1, core::slice::from_ref(&self.fixture.group), None)
    }

    fn campaign(&self) -> Vec<u8> {
        self.fixture.campaign(&self.release, OrderOptions { version: 1, ..OrderOptions::default() })
    }

    fn serve(&mut self, channel: Channel, payload: &[u8]) {
        self.feed_server(ServerInput::Message { channel, payload });
        while let Some(output) = self.server.poll_output() {
            let answer = match output {
                ServerOutput::Answer(answer) => self.fixture.answer(&answer),
                ServerOutput::Assignment => self.assignment(),
                ServerOutput::Campaign(_) => self.campaign(),
                ServerOutput::Manifest(_) => self.release.envelope.clone(),
                ServerOutput::Refuse(refusal) => refusal.encode(),
                ServerOutput::Page { payload, page } => {
                    let bytes = match page {
                        PageNumber::List => &self.release.index.list[..],
                        PageNumber::Page(number) => self.release.index.page(number),
                    };
                    PageMessage::encode(payload, page, bytes)
                }
                ServerOutput::Chunks { payload, runs, .. } => {
                    for (first, count) in runs {
                        let range = self.release.layout.bytes_of(first, count);
                        let bytes = &self.release.payload[range.start as usize..range.end as usize];
                        self.down.push_back((Channel::Answers, ChunkMessage::encode(payload, first, bytes)));
                    }
                    continue;
                }
                ServerOutput::Event(whimbrel_protocol::server::Event::Reported { digest, .. }) => {
                    self.reported = true;
                    self.feed_server(ServerInput::ReportStored { report: digest });
                    continue;
                }
                ServerOutput::Event(_) => continue,
            };
            self.down.push_back((Channel::Answers, answer));
        }
    }

    fn feed_server(&mut self, input: ServerInput<'_>) {
        let key = self.fixture.device_key.public();
        let campaigns =
            [GroupDocument { group: self.fixture.group.clone(), document: Document { version: 1 } }];
        let payloads: Vec<LivePayload> = self
            .release
            .parts()
            .into_iter()
            .map(|part| LivePayload { tag: part.tag(), layout: part.layout })
            .collect();
        let view = DeviceView {
            standing: Standing::Accepted { key: &key },
            root_version: 1,
            assignment: Some(Document { version: 1 }),
            campaigns: &campaigns,
            live: Some(Live { release: self.release.digest, payloads: &payloads }),
        };
        let today = self.fixture.issued.plus_secs(60 + self.now.as_millis() / 1000);
        self.server.handle_input(self.now, today, &view, input);
    }

    pub(crate) fn state(&self) -> State {
        self.device.session().state()
    }
}
