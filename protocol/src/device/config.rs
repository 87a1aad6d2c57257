//! What a session is told about its device.

use super::carry::MessageLimit;
use crate::cose::SigningKey;
use crate::ids::{ClassId, DeviceId, Digest, Prefix, VendorId};
use crate::limits::{CHUNK_MESSAGE_BYTES_MAX, WINDOW_BYTES_MAX};
use crate::manifest::Codecs;

/// What does not change while a session lives.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// First level of all topics.
    pub prefix: Prefix,
    /// Who this is, as the broker proves it.
    pub device: DeviceId,
    /// The maker.
    pub vendor: VendorId,
    /// The hardware.
    pub class: ClassId,
    /// Signs enrolment and reports.
    pub key: SigningKey,
    /// Fresh randomness from the host: the source of nonces and jitter.
    pub seed: [u8; 32],
    /// Largest message to ask for, in bytes, header included. 4 KiB to 64 KiB.
    pub message_bytes_max: usize,
    /// What an earlier session found out about the broker that it was connected to, if it is the same.
    pub message_limit: Option<MessageLimit>,
    /// Largest window, in bytes; smaller ones let commands through sooner.
    pub window_bytes_max: u64,
    /// How long the link usually holds, in seconds: with the rate it makes the message size.
    pub mean_time_between_losses_s: u64,
    /// Whether [`Input::Activity`](super::Input::Activity) will be fed. If the client library hides bytes,
    /// the session waits longer before it takes silence for a loss.
    pub sees_activity: bool,
    /// What the device can decode. Payloads of other codecs are not fetched.
    pub codecs: Codecs,
    /// Most memory for decoding, in KiB.
    pub memory_max_kib: u64,
    /// How long the health checks of a new image may ask for more time, in seconds.
    pub health_limit_s: u64,
    /// How long a new image may be connected without an answer from the service, in seconds.
    pub reach_limit_s: u64,
    /// Whether ES256 signatures on releases are taken, for releases that old tools signed.
    pub accept_es256: bool,
    /// Start times are spread by device; `false` starts at once (tests, people at the device).
    pub obey_spread: bool,
}

impl SessionConfig {
    /// A device with the usual limits: 32 KiB messages, 64 KiB window, losses once an hour.
    #[must_use]
    pub fn new(device: DeviceId, vendor: VendorId, class: ClassId, key: SigningKey, seed: [u8; 32]) -> Self {
        Self {
            prefix: Prefix::default(),
            device,
            vendor,
            class,
            key,
            seed,
            message_bytes_max: (32 * 1024 + 64).min(CHUNK_MESSAGE_BYTES_MAX),
            message_limit: None,
            window_bytes_max: WINDOW_BYTES_MAX,
            mean_time_between_losses_s: 3600,
            sees_activity: false,
            codecs: Codecs::ALL,
            memory_max_kib: 2048,
            health_limit_s: 600,
            reach_limit_s: 24 * 3600,
            accept_es256: false,
            obey_spread: true,
        }
    }
}

/// What the boot control says at the start of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootView {
    /// The image that runs.
    pub running: Running,
    /// The slot that an update would write: 0 or 1.
    pub target_slot: u64,
    /// What became of the last trial.
    pub trial: Trial,
}

/// The image that runs, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// SHA-256 of the image; `None` for an image that no release of ours put there.
    pub image: Option<Digest>,
    /// The release: digest of its manifest; `None` if unknown.
    pub release: Option<Digest>,
    /// The sequence number of the confirmed release: never lowered. 0 if unknown.
    pub sequence: u64,
}

/// What the boot control knows of a trial boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// None is armed, and none failed since the last confirmation.
    None,
    /// Armed and not started yet: the old image runs.
    Armed,
    /// The new image runs and is not confirmed.
    Running,
    /// The boot loader gave the new image up: the old image runs.
    Failed,
}
