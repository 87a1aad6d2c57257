//! One virtual device: the device engine on a disk in memory.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::convert::Infallible;
use core::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::slot::Slot;
use whimbrel_engine::storage::{Storage, StorageOptions};
use whimbrel_engine::{Device, Input as DeviceInput, Output as DeviceOutput, StartError, Verdict};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::SessionConfig;
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{ClassId, DeviceId, Prefix, VendorId};
use whimbrel_protocol::limits::CHUNK_HEADER_BYTES_MAX;
use whimbrel_protocol::message::State;
use whimbrel_protocol::retry::Backoff;
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::{self, Channel};
use whimbrel_protocol::trust::Root;

use super::seen::{PayloadFacts, Seen};
use super::start::{Start, Starting};
use crate::clock::Moment;
use crate::disk::{Originals, SharedDisk};
use crate::fleet::DeviceState;
use crate::mqtt::Delivery;
use crate::report::PayloadKind;
use crate::seed::Seed;
use crate::swarm::{Input, Machine, Output};

/// What all devices of a fleet have in common.
#[derive(Clone, Debug)]
pub struct FleetFacts {
    /// Whom they trust.
    pub root: Root,
    /// The same, as it was signed.
    pub root_bytes: Vec<u8>,
    /// Their maker.
    pub vendor: VendorId,
    /// Their hardware.
    pub class: ClassId,
    /// First level of all topics.
    pub prefix: Prefix,
    /// What their disks are expected to hold in the end.
    pub originals: Originals,
    /// What they run at first; nothing where nothing is said.
    pub starting: Option<Starting>,
    /// The payloads of the release, as the ledger tells them apart.
    pub payloads: Vec<PayloadFacts>,
    /// How long their links usually hold, in seconds.
    pub mean_time_between_losses_s: u64,
    /// Largest message and window, in bytes of chunks, where the agent's defaults do not count.
    pub message_bytes: Option<(u64, u64)>,
    /// Everything is drawn from this.
    pub seed: Seed,
}

/// The id of a device by its number.
///
/// # Panics
/// Never: the digits are allowed in an id.
#[must_use]
pub fn device_id(number: u32) -> DeviceId {
    DeviceId::new(&format!("dev-{number:05}")).expect("letters and digits")
}

/// The key of a device: for simulations only, because whoever knows the seed knows it.
#[must_use]
pub fn device_key(seed: Seed, number: u32) -> SigningKey {
    SigningKey::ed25519(&secret(b"device key", seed, number, 0))
}

fn secret(purpose: &[u8], seed: Seed, number: u32, life: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(purpose);
    hash.update(seed.0.to_be_bytes());
    hash.update(number.to_be_bytes());
    hash.update(life.to_be_bytes());
    hash.finalize().into()
}

/// A device that takes part in a swarm.
#[derive(Debug)]
pub struct UpdatingDevice {
    facts: Arc<FleetFacts>,
    number: u32,
    id: DeviceId,
    /// Sessions that it had: one more after each reboot.
    lives: u32,
    device: Device<SharedDisk>,
    outputs: VecDeque<Output>,
    reconnect: Backoff,
    seen: Seen,
    shown: DeviceState,
    now: Moment,
    /// When the last thing happened that could be the last of all.
    settled: Option<Moment>,
    /// Deployments that ended and were reported.
    endings: u32,
    finished: bool,
}

/// How long a device stays connected after its report was acknowledged: it subscribes to what is retained then,
/// and gets it, which belongs to what an update costs. In virtual time.
const LINGER: Duration = Duration::from_secs(3);
/// Reconnecting, as an agent does it: the first wait, and the longest.
const RECONNECT_BASE_MS: u64 = 1_000;
const RECONNECT_CAP_MS: u64 = 900_000;

impl UpdatingDevice {
    /// A device as it leaves the factory: an empty slot runs, or the image that the fleet begins with; nothing is
    /// known but the root.
    ///
    /// # Errors
    /// [`StartError`] if the disk in memory does not do what it should.
    pub fn new(facts: Arc<FleetFacts>, number: u32) -> Result<Self, StartError<Infallible>> {
        let disk = match &facts.starting {
            None => SharedDisk::new(&facts.originals),
            Some(starting) => {
                let (start, originals) = starting.of(number, &facts.originals);
                let mut disk = SharedDisk::new(&originals);
                if start == Start::Flipped {
                    disk.flip(Area::SlotA, originals.factory.len() as u64 / 2 * 8 + 5);
                }
                disk
            }
        };
        let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default())?;
        storage.boot()?;
        let config = session_config(&facts, number, 0);
        let device = Device::start(
            storage,
            config,
            anchor(&facts),
            Instant::from_millis(Moment::START.millis()),
            UnixTime::default(),
        )?;
        let id = device_id(number);
        let key_seed = u64::from_be_bytes(first_8(secret(b"reconnect", facts.seed, number, 0)));
        let seen = Seen::nothing(&facts.payloads);
        let mut updating = Self {
            facts,
            number,
            id,
            lives: 1,
            device,
            outputs: VecDeque::new(),
            reconnect: Backoff::new(key_seed, RECONNECT_BASE_MS, RECONNECT_CAP_MS),
            seen,
            shown: DeviceState::Idle,
            now: Moment::START,
            settled: None,
            endings: 0,
            finished: false,
        };
        updating.drain(); // What the device wants before anything has happened.
        Ok(updating)
    }

    /// By which payload its image came: the one of which it got chunks last. `None` where it got none.
    #[must_use]
    pub fn came_by(&self) -> Option<PayloadKind> {
        self.seen.last()
    }

    /// Bytes of chunks of one kind of payload that reached it, each chunk counted once.
    #[must_use]
    pub fn fetched(&self, kind: PayloadKind) -> u64 {
        self.seen.bytes(kind)
    }

    /// Deployments that ended on it and whose reports the service has acknowledged.
    #[must_use]
    pub fn endings(&self) -> u32 {
        self.endings
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        self.shown
    }

    /// The slot that it runs.
    #[must_use]
    pub fn running(&self) -> Slot {
        self.device.storage().running()
    }

    /// The disk, to look at or to spoil.
    pub fn disk_mut(&mut self) -> &mut SharedDisk {
        self.device.storage_mut().disk_mut()
    }

    /// SHA-256 of the first `size` bytes of the slot that runs, read back from the medium.
    ///
    /// # Errors
    /// [`DiskError`] where the slot is shorter.
    pub fn hash_running(&mut self, size: u64) -> Result<[u8; 32], DiskError> {
        let area = self.running().area();
        let disk = self.disk_mut();
        disk.drop_cache(area)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut at = 0;
        while at < size {
            let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..len).unwrap_or_default();
            disk.read(area, at, piece)?;
            hash.update(&*piece);
            at += len as u64;
        }
        Ok(hash.finalize().into())
    }

    fn instant(&self) -> Instant {
        Instant::from_millis(self.now.millis())
    }

    /// Tells the device, then does everything that it wants.
    fn feed(&mut self, input: DeviceInput<'_>) {
        let now = self.instant();
        self.device.handle_input(now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut reboot = false;
        while let Some(output) = self.device.poll_output() {
            let topic = |channel: &Channel| channel.topic(&self.facts.prefix, &self.id);
            match output {
                DeviceOutput::Subscribe(channels) => {
                    let of = |channel: Channel| {
                        let qos = if channel == Channel::Answers {
                            Delivery::AtMostOnce
                        } else {
                            Delivery::AtLeastOnce
                        };
                        (topic(&channel), qos)
                    };
                    self.outputs.push_back(Output::Subscribe(channels.into_iter().map(of).collect()));
                }
                DeviceOutput::Publish(publish) => {
                    let delivery =
                        if publish.at_least_once { Delivery::AtLeastOnce } else { Delivery::AtMostOnce };
                    let topic = topic(&publish.channel);
                    let payload = Bytes::from(publish.payload);
                    self.outputs.push_back(Output::Publish { topic, payload, delivery });
                }
                // The new image of a simulation is healthy when it runs at all.
                DeviceOutput::Ask(op, _) => {
                    let good = DeviceInput::Verdict { op, verdict: Verdict::Good };
                    self.device.handle_input(self.instant(), good);
                }
                // When everything before it is done.
                DeviceOutput::Reboot(_) => reboot = true,
                DeviceOutput::Disconnect => self.outputs.push_back(Output::HangUp),
                DeviceOutput::Event(_) => {}
            }
        }
        if reboot {
            self.reboot();
        }
        self.look();
    }

    /// Starts what the boot control chooses, with a new session and a new connection.
    fn reboot(&mut self) {
        let config = session_config(&self.facts, self.number, self.lives);
        let anchor = anchor(&self.facts);
        let started = self.device.restart(config, anchor, self.instant(), UnixTime::default());
        self.lives += 1;
        self.outputs.push_back(Output::HangUp);
        match started {
            Ok(()) => self.drain(),
            // A disk in memory does not fail; a device that cannot start says nothing any more.
            Err(_) => self.finish(DeviceState::Failed),
        }
    }

    /// Tells of the state, and notices the end.
    fn look(&mut self) {
        let state = state_of(self.device.session().state());
        if state != self.shown {
            self.shown = state;
            self.outputs.push_back(Output::State(state));
        }
        let over =
            self.device.session().state().is_final() && self.device.session().record().reports.is_empty();
        match (over, self.settled) {
            (true, None) => {
                self.settled = Some(self.now);
                self.endings = self.endings.saturating_add(1);
            }
            (false, Some(_)) => self.settled = None,
            _ => {}
        }
    }

    fn finish(&mut self, state: DeviceState) {
        if !self.finished {
            self.finished = true;
            self.outputs.push_back(Output::State(state));
            self.outputs.push_back(Output::Finished);
        }
    }

    /// For the ledger: what of a data message is new to this device.
    fn count(&mut self, payload: &[u8]) {
        self.outputs.extend(self.seen.answer(payload));
    }
}

impl Machine for UpdatingDevice {
    fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Connected => self.feed(DeviceInput::Connected),
            Input::Disconnected => self.feed(DeviceInput::Disconnected),
            Input::Message { topic, payload } => {
                if let Some(address) = topic::parse(&self.facts.prefix, topic) {
                    if address.channel == Channel::Answers {
                        self.count(payload);
                    }
                    // A message is proof that the connection is good for something.
                    self.reconnect.reset();
                    self.feed(DeviceInput::Message { channel: address.channel, payload });
                }
            }
            Input::Activity => self.feed(DeviceInput::Activity),
            Input::Timeout => self.feed(DeviceInput::Timeout),
        }
        if self.settled.is_some_and(|settled| now.since(settled) >= LINGER) {
            self.finish(self.shown);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Moment> {
        let session =
            self.device.poll_timeout().map(|at| Moment::START + Duration::from_millis(at.as_millis()));
        let linger = self.settled.filter(|_| !self.finished).map(|settled| settled + LINGER);
        session.into_iter().chain(linger).min()
    }

    fn reconnect_after(&mut self) -> Duration {
        Duration::from_millis(self.reconnect.next_wait_ms())
    }
}

/// What a session of a device is told about it.
fn session_config(facts: &FleetFacts, number: u32, life: u32) -> SessionConfig {
    let key = device_key(facts.seed, number);
    let seed = secret(b"session", facts.seed, number, life);
    let mut config = SessionConfig {
        prefix: facts.prefix.clone(),
        mean_time_between_losses_s: facts.mean_time_between_losses_s,
        sees_activity: true,
        ..SessionConfig::new(device_id(number), facts.vendor, facts.class, key, seed)
    };
    if let Some((message, window)) = facts.message_bytes {
        let message = usize::try_from(message).unwrap_or(usize::MAX);
        config.message_bytes_max = message.saturating_add(CHUNK_HEADER_BYTES_MAX);
        config.window_bytes_max = window;
    }
    config
}

/// All devices trust the root of their fleet.
fn anchor(facts: &FleetFacts) -> impl FnOnce(&[u8]) -> Result<(Root, Vec<u8>), Infallible> + use<> {
    let anchor = (facts.root.clone(), facts.root_bytes.clone());
    move |_| Ok(anchor)
}

fn first_8(bytes: [u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = bytes;
    [a, b, c, d, e, f, g, h]
}

fn state_of(state: State) -> DeviceState {
    match state {
        State::Idle => DeviceState::Idle,
        State::Offered => DeviceState::Offered,
        State::Deferred => DeviceState::Deferred,
        State::Downloading => DeviceState::Downloading,
        State::Downloaded => DeviceState::Downloaded,
        State::Installing => DeviceState::Installing,
        State::Rebooting => DeviceState::Rebooting,
        State::Testing => DeviceState::Testing,
        State::Confirmed => DeviceState::Confirmed,
        State::Reverted => DeviceState::Reverted,
        State::Failed => DeviceState::Failed,
        State::Cancelled => DeviceState::Cancelled,
    }
}
