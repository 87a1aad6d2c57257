//! One device: the engine on a disk in memory, and its connection.

use sha2::{Digest as _, Sha256};
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{Storage, StorageOptions};
use whimbrel_engine::{Device, Input, MemoryDisk, Output, Verdict};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::{Publish, SessionConfig};
use whimbrel_protocol::disk::{Area, Disk as _};
use whimbrel_protocol::ids::DeviceId;
use whimbrel_protocol::limits::CHUNK_HEADER_BYTES_MAX;
use whimbrel_protocol::retry::Backoff;
use whimbrel_protocol::testing::Fixture;
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;
use whimbrel_protocol::trust::{Root, TrustError};

/// A device with its connection.
pub(super) struct Member {
    pub(super) id: DeviceId,
    pub(super) device: Device<MemoryDisk>,
    /// Which of its connections this is, or would be the next one.
    pub(super) connection: u32,
    pub(super) connected: bool,
    pub(super) reconnect: Backoff,
    /// How often it was started.
    pub(super) starts: u32,
    fixture: Fixture,
    key: SigningKey,
    seed: u64,
}

/// What a device wants of its link, in order.
pub(super) enum Wanted {
    Subscribe(Vec<Channel>),
    Publish(Publish),
    /// It has closed its connection, and is to get another one.
    Reconnect,
}

/// Payload bytes of a message, and of all that a device asks for at once: so few that a download takes many messages.
const MESSAGE_BYTES: usize = 4096;
const WINDOW_BYTES: u64 = 12 << 10;

fn secret(purpose: &str, seed: u64, id: &DeviceId, start: u32) -> [u8; 32] {
    Sha256::digest(format!("{purpose} {seed} {id} {start}")).into()
}

impl Member {
    /// A device that runs `image`.
    pub(super) fn new(fixture: &Fixture, id: DeviceId, image: &[u8], seed: u64) -> Self {
        let mut disk = MemoryDisk::new();
        disk.reserve(Area::SlotA, image.len() as u64).unwrap();
        disk.write(Area::SlotA, 0, image).unwrap();
        let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
        storage.boot().unwrap();
        let key = SigningKey::ed25519(&secret("key", 0, &id, 0));
        let config = config(fixture, &id, &key, seed, 1);
        let device =
            Device::start(storage, config, anchor(fixture), Instant::ZERO, UnixTime::default()).unwrap();
        let waits = u64::from_be_bytes(secret("reconnect", seed, &id, 0)[..8].try_into().unwrap());
        let reconnect = Backoff::new(waits, 1000, 900_000);
        let fixture = fixture.clone();
        Self { id, device, connection: 0, connected: false, reconnect, starts: 1, fixture, key, seed }
    }

    /// Its key, as the service knows it.
    pub(super) fn key(&self) -> whimbrel_protocol::cose::PublicKey {
        self.key.public()
    }

    /// Tells the device what happened; gives what it wants of its link.
    pub(super) fn feed(&mut self, now: Instant, input: Input<'_>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        self.device.handle_input(now, input);
        self.drain(now, &mut wanted);
        wanted
    }

    fn drain(&mut self, now: Instant, wanted: &mut Vec<Wanted>) {
        let mut reboot = false;
        while let Some(output) = self.device.poll_output() {
            match output {
                Output::Subscribe(channels) => wanted.push(Wanted::Subscribe(channels)),
                Output::Publish(publish) => wanted.push(Wanted::Publish(publish)),
                Output::Ask(op, _) => {
                    self.device.handle_input(now, Input::Verdict { op, verdict: Verdict::Good });
                }
                Output::Disconnect => {
                    self.device.handle_input(now, Input::Disconnected);
                    wanted.push(Wanted::Reconnect);
                }
                // When everything before it is done.
                Output::Reboot(_) => reboot = true,
                Output::Event(_) => {}
            }
        }
        if reboot {
            self.starts += 1;
            let config = config(&self.fixture, &self.id, &self.key, self.seed, self.starts);
            self.device.restart(config, anchor(&self.fixture), now, UnixTime::default()).unwrap();
            wanted.push(Wanted::Reconnect);
            self.drain(now, wanted);
        }
    }

    /// The first `len` bytes of the image that runs, read back from the disk.
    pub(super) fn running_image(&mut self, len: usize) -> Vec<u8> {
        let area = self.device.storage().running().area();
        let mut image = vec![0; len];
        self.device.storage_mut().disk_mut().read(area, 0, &mut image).unwrap();
        image
    }
}

fn config(fixture: &Fixture, id: &DeviceId, key: &SigningKey, seed: u64, start: u32) -> SessionConfig {
    let seed = secret("session", seed, id, start);
    SessionConfig {
        message_bytes_max: MESSAGE_BYTES + CHUNK_HEADER_BYTES_MAX,
        window_bytes_max: WINDOW_BYTES,
        ..SessionConfig::new(id.clone(), fixture.vendor, fixture.class, key.clone(), seed)
    }
}

/// All devices trust the root of `fixture`.
fn anchor(fixture: &Fixture) -> impl FnOnce(&[u8]) -> Result<(Root, Vec<u8>), TrustError> + use<> {
    let bytes = fixture.root_bytes();
    move |_| Ok((Root::verify(&bytes)?, bytes))
}
