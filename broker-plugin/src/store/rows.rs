//! What is stored, as plain rows. The same types are what the service keeps in memory.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::cose::PublicKey;
use whimbrel_protocol::ids::{CampaignId, ClassId, DeviceId, Digest, GroupName, ShortDigest};
use whimbrel_protocol::message::{DeferReason, FailureCode, State};
use whimbrel_protocol::time::UnixTime;

/// A release: the signed envelope, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRow {
    /// Digest of the manifest: the release's name.
    pub digest: Digest,
    /// The envelope as it is sent.
    pub envelope: Bytes,
    /// When it came.
    pub added: UnixTime,
}

/// A payload that is complete in the payload folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadRow {
    /// Digest of its index: the payload's name.
    pub index: Digest,
    /// Digest of the image that it becomes; salts the index.
    pub image: Digest,
    /// How it is cut.
    pub layout: Layout,
    /// When it came.
    pub added: UnixTime,
}

/// A device that the service knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its identity, as the broker proves it.
    pub id: DeviceId,
    /// Its hardware.
    pub class: ClassId,
    /// Whether it is served.
    pub standing: Standing,
    /// Version of the last assignment that was signed for it; 0 for none. Never falls, because the device
    /// refuses what is older than what it has.
    pub assignment_version: u64,
    /// What it last said about itself.
    pub facts: Facts,
    /// What the report with the highest number said, of those signed with its key.
    pub reported: Reported,
    /// The other key that it introduced itself with last, if it is accepted and did so.
    pub rekeyed: Option<Box<Rekeyed>>,
}

/// Another key than the one that is accepted: the device lost its data folder, got another board, or shares its id with
/// another device. It is served, and what this key signs does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekeyed {
    /// The key that it brought.
    pub key: PublicKey,
    /// Its hardware, as it said then.
    pub class: ClassId,
    /// When it brought it last.
    pub seen: UnixTime,
}

/// Whether a device is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was reset: its next enrolment is pending again.
    Forgotten,
    /// It waits to be accepted.
    Pending {
        /// The key that it brought.
        key: PublicKey,
        /// Rises with each enrolment.
        order: u64,
        /// The groups that it was in before it was reset, and gets into if nothing else is said; none for a new one.
        groups: Vec<GroupName>,
    },
    /// It is served.
    Accepted {
        /// The key that its reports are signed with.
        key: PublicKey,
        /// Its groups.
        groups: Vec<GroupName>,
        /// Its signed assignment.
        assignment: Bytes,
    },
}

impl Device {
    /// Its key, unless it is forgotten.
    #[must_use]
    pub fn key(&self) -> Option<&PublicKey> {
        match &self.standing {
            Standing::Forgotten => None,
            Standing::Pending { key, .. } | Standing::Accepted { key, .. } => Some(key),
        }
    }

    /// Its groups; none unless it is accepted.
    #[must_use]
    pub fn groups(&self) -> &[GroupName] {
        match &self.standing {
            Standing::Accepted { groups, .. } => groups,
            Standing::Forgotten | Standing::Pending { .. } => &[],
        }
    }

    /// Whether it is served.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self.standing, Standing::Accepted { .. })
    }

    /// The assignment that is in force for it, signed, if it is accepted.
    #[must_use]
    pub const fn assignment(&self) -> Option<&Bytes> {
        match &self.standing {
            Standing::Accepted { assignment, .. } => Some(assignment),
            _ => None,
        }
    }

    /// Whether it waits to be accepted.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self.standing, Standing::Pending { .. })
    }
}

/// What a device last said about itself. Unsigned unless a report said it: for people who watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Digest of the running image, shortened; zero if unknown.
    pub running: ShortDigest,
    /// Sequence number of the running release; 0 if unknown.
    pub sequence: u64,
    /// When the device was last heard; the epoch for never.
    pub seen: UnixTime,
}

/// What the report of a device with the highest number said, of those that are signed with its present key. It falls
/// to the default where the device gets another key, because that key's reports are counted anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The number after the report's; 0 if there was none.
    pub next: u64,
    /// Digest of the image that ran then, shortened; zero if unknown.
    pub running: ShortDigest,
    /// Sequence number of the release that ran then; 0 if unknown.
    pub sequence: u64,
}

/// Whether a campaign runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Devices update.
    Active,
    /// The operator called it off.
    Aborted,
    /// Another campaign of its group took its place.
    Replaced,
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Aborted => "aborted",
            Self::Replaced => "replaced",
        }
    }
}

/// A campaign: the signed document says everything but these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignRow {
    /// Its id; the same as in the document.
    pub id: CampaignId,
    /// Whether it runs.
    pub phase: Phase,
    /// When it was made.
    pub created: UnixTime,
    /// The operator set this, and no document says it.
    pub terms: Terms,
    /// The signed document.
    pub document: Bytes,
}

/// What an operator says about a campaign and its documents do not say: it is for the service alone. Stored as JSON; a
/// field that comes later needs a default for the campaigns that are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How long each of its documents is good for, in seconds.
    pub life_s: u64,
}

impl Terms {
    /// Nothing but how long each document is good for, in seconds.
    #[must_use]
    pub const fn lasting(life_s: u64) -> Self {
        Self { life_s }
    }
}

/// How far one device is with one campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Which attempt.
    pub attempt: u64,
    /// Number of the signed report that says so, from 1; 0 if it is only a hint.
    pub report: u64,
    /// The state.
    pub state: State,
    /// Why, if the state has a reason.
    pub reason: Why,
    /// Payload bytes received, with everything received twice.
    pub bytes_received: u64,
    /// Payload bytes received more than once.
    pub bytes_twice: u64,
    /// By which payloads the image comes, as far as the service served them.
    pub came_by: CameBy,
    /// When this was learnt.
    pub updated: UnixTime,
}

/// The payloads of which chunks were served to a device in one attempt. Payloads are named by the first bytes of
/// their index digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameBy {
    /// The last one; `None` if nothing was served, or nothing is known of it.
    pub payload: Option<ShortDigest>,
    /// The one before it, if the device gave that up: a patch that did not apply.
    pub given_up: Option<ShortDigest>,
}

impl CameBy {
    /// With chunks of `payload` served after all this.
    #[must_use]
    pub fn then(self, payload: ShortDigest) -> Self {
        match self.payload {
            Some(last) if last != payload => Self { payload: Some(payload), given_up: Some(last) },
            _ => Self { payload: Some(payload), ..self },
        }
    }
}

impl Deployment {
    /// Whether this says more than `known`: a later attempt, a later report of the same attempt, or a hint if
    /// nothing but hints is known.
    #[must_use]
    pub fn is_news_to(&self, known: &Self) -> bool {
        match self.attempt.cmp(&known.attempt) {
            core::cmp::Ordering::Greater => true,
            core::cmp::Ordering::Less => false,
            core::cmp::Ordering::Equal => self.report > known.report || known.report == 0,
        }
    }
}

/// Why a deployment is in its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Why {
    /// Nothing was said.
    #[default]
    Unsaid,
    /// What a deferred one waits for.
    Waits(DeferReason),
    /// Why it did not end in a confirmed image.
    Failed(FailureCode),
}

impl Why {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Waits(reason) => Some(reason.name()),
            Self::Failed(code) => Some(code.name()),
        }
    }

    /// The number that goes with a state.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Unsaid => 0,
            Self::Waits(reason) => reason as u64,
            Self::Failed(code) => code as u64,
        }
    }

    /// Reads a number that goes with `state`.
    pub(super) fn from_number(state: State, number: u64) -> Self {
        if state == State::Deferred {
            DeferReason::from_number(number).map_or(Self::Unsaid, Self::Waits)
        } else {
            FailureCode::from_number(number).map_or(Self::Unsaid, Self::Failed)
        }
    }
}

/// A deployment with its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRow {
    /// Which campaign.
    pub campaign: CampaignId,
    /// Which device.
    pub device: DeviceId,
    /// How far it is.
    pub deployment: Deployment,
}

/// A verified report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    /// Who reports.
    pub device: DeviceId,
    /// Digest of its payload.
    pub digest: ShortDigest,
    /// When it came.
    pub received: UnixTime,
    /// The report as signed.
    pub signed: Bytes,
    /// What it says about its device. Counts, for [`Facts`] too, only if no report with this number or a higher one is
    /// known.
    pub reported: Reported,
    /// What it says about a campaign of ours; `None` if it names none.
    pub says: Option<DeploymentRow>,
}
