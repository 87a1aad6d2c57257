//! Says how far a deployment is (SPEC section 7.7). A status is not signed and may get lost, so it is for
//! people who watch, and nothing may be decided by it.

use alloc::vec::Vec;

use super::MessageKind;
use super::report::FailureCode;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::CampaignId;
use crate::limits::{CHUNKS_MAX, MESSAGE_BYTES_MAX};

/// What a device is doing about updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing to do.
    Idle = 0,
    /// A campaign names this device and its manifest is being fetched.
    Offered = 1,
    /// Waiting; the reason says for what.
    Deferred = 2,
    /// Fetching chunks.
    Downloading = 3,
    /// All chunks are held.
    Downloaded = 4,
    /// Writing and checking the image.
    Installing = 5,
    /// The image is armed and the device is about to start it.
    Rebooting = 6,
    /// The new image runs and proves its health.
    Testing = 7,
    /// The new image is kept.
    Confirmed = 8,
    /// The device went back to the image it had.
    Reverted = 9,
    /// It did not work; the reason says why.
    Failed = 10,
    /// The deployment was called off.
    Cancelled = 11,
}

impl State {
    /// Every state, in the order in which a device goes through them.
    pub const ALL: [Self; 12] = [
        Self::Idle,
        Self::Offered,
        Self::Deferred,
        Self::Downloading,
        Self::Downloaded,
        Self::Installing,
        Self::Rebooting,
        Self::Testing,
        Self::Confirmed,
        Self::Reverted,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Offered => "offered",
            Self::Deferred => "deferred",
            Self::Downloading => "downloading",
            Self::Downloaded => "downloaded",
            Self::Installing => "installing",
            Self::Rebooting => "rebooting",
            Self::Testing => "testing",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u64 == number)
    }

    /// Whether the deployment has ended.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Reverted | Self::Failed | Self::Cancelled)
    }
}

/// What a deferred deployment waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeferReason {
    /// Its start time, or a maintenance window.
    Window = 1,
    /// The byte budget.
    Budget = 2,
    /// The battery.
    Battery = 3,
    /// Somebody's confirmation.
    Confirmation = 4,
    /// A link that is not metered.
    Metered = 5,
    /// A trusted clock.
    Clock = 6,
    /// The next wake-up.
    Wake = 7,
    /// The service, which is busy.
    Busy = 8,
    /// The next attempt after something failed for now.
    Retry = 9,
    /// Room on the medium.
    Room = 10,
    /// The release's envelope, as it was signed: the one that came has bad or missing signatures, or lacks a part.
    BadEnvelope = 11,
}

impl DeferReason {
    const ALL: [Self; 11] = [
        Self::Window,
        Self::Budget,
        Self::Battery,
        Self::Confirmation,
        Self::Metered,
        Self::Clock,
        Self::Wake,
        Self::Busy,
        Self::Retry,
        Self::Room,
        Self::BadEnvelope,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Budget => "budget",
            Self::Battery => "battery",
            Self::Confirmation => "confirmation",
            Self::Metered => "metered",
            Self::Clock => "clock",
            Self::Wake => "wake",
            Self::Busy => "busy",
            Self::Retry => "retry",
            Self::Room => "room",
            Self::BadEnvelope => "bad-envelope",
        }
    }

    /// The reason with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u64 == number)
    }
}

/// How far a device is with one deployment.
///
/// ```cddl
/// status = head(5) .cat [ campaign: bstr .size 8, attempt: uint, state: 0..11, reason: uint,
///     chunks-held: uint, chunks: uint, bytes-received: uint, bytes-twice: uint ]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which campaign.
    pub campaign: CampaignId,
    /// Which attempt of it.
    pub attempt: u64,
    /// What the device does.
    pub state: State,
    /// What the device waits for, while it is deferred.
    pub deferred: Option<DeferReason>,
    /// Why the deployment failed, after a failure.
    pub failure: Option<FailureCode>,
    /// Chunks held.
    pub chunks_held: u32,
    /// Chunks of the payload; 0 if not known yet.
    pub chunks: u32,
    /// Payload bytes received; bytes that were received twice count twice.
    pub bytes_received: u64,
    /// Of these, the bytes of what had come before (SPEC section 4.8).
    pub bytes_twice: u64,
}

impl Status {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let reason = match (self.state, self.deferred, self.failure) {
            (State::Deferred, Some(reason), _) => reason as u64,
            (State::Deferred, None, _) | (_, _, None) => 0,
            (_, _, Some(code)) => code as u64,
        };
        let mut writer = Writer::after(&[MessageKind::Status.head()]);
        writer.array(8).bytes(&self.campaign.0).uint(self.attempt).uint(self.state as u64).uint(reason);
        writer.uint(u64::from(self.chunks_held)).uint(u64::from(self.chunks));
        writer.uint(self.bytes_received).uint(self.bytes_twice);
        writer.into_bytes()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("status", body, MESSAGE_BYTES_MAX)?;
        reader.array_of("status", 8)?;
        let campaign = CampaignId(reader.byte_array("campaign")?);
        let attempt = reader.uint("attempt")?;
        let state = State::from_number(reader.uint("state")?).ok_or(DecodeError::value("state"))?;
        let reason = reader.uint("reason")?;
        let mut chunks =
            |what| reader.uint_max(what, u64::from(CHUNKS_MAX)).map(|n| u32::try_from(n).unwrap_or(0));
        let chunks_held = chunks("chunks held")?;
        let chunks = chunks("chunks")?;
        let deferred = (state == State::Deferred).then(|| DeferReason::from_number(reason)).flatten();
        let failure = (state != State::Deferred).then(|| FailureCode::from_number(reason)).flatten();
        let status = Self {
            campaign,
            attempt,
            state,
            deferred,
            failure,
            chunks_held,
            chunks,
            bytes_received: reader.uint("bytes received")?,
            bytes_twice: reader.uint("bytes received twice")?,
        };
        reader.finish()?;
        Ok(status)
    }
}
