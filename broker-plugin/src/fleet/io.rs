//! What goes into a [`Fleet`](super::Fleet) and what comes out.

use alloc::sync::Arc;

use bytes::Bytes;
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{CampaignId, ClassTag, DeviceId, Digest, GroupName, Prefix, ShortDigest};
use whimbrel_protocol::message::{self, Assignment, Beacon, Enrolment, Outcome, Report, Status};

use super::campaign::{Ask, Ignored};
use super::catalog::{PayloadNumber, ReleaseError};
use super::command::{Answer, Command, Reply};
use crate::clock_guard::ClockDoubt;
use crate::store::{Applied, Change, Facts, Phase, Series, StoreError};
use crate::store_guard::StoreDoubt;

/// What a fleet is told when it is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First level of all topics.
    pub prefix: Prefix,
    /// A beacon is published after this long if nothing changes, in milliseconds.
    pub beacon_every_ms: u64,
    /// A beacon counts for this long, in seconds.
    pub beacon_life_s: u64,
    /// Most releases.
    pub releases_max: usize,
}

/// Something happened outside. Feeding it never fails.
#[derive(Debug)]
pub enum Input {
    /// A device said hello.
    Hello {
        /// Which.
        device: DeviceId,
        /// Its hardware, as it says, shortened.
        class: ClassTag,
        /// What it runs, as it says, and when it said so.
        facts: Facts,
        /// Version of the assignment that it says it holds; 0 for none.
        assignment: u64,
        /// Highest version of the campaign documents that it says it holds; 0 for none.
        campaign: u64,
    },
    /// A device says how far it is. Unsigned.
    Progress {
        /// Which.
        device: DeviceId,
        /// The campaign whose release it is served.
        campaign: Option<CampaignId>,
        /// What it says.
        status: Status,
    },
    /// A device was served something of its release.
    Asked {
        /// Which.
        device: DeviceId,
        /// The campaign whose release it is served.
        campaign: CampaignId,
        /// What it asked for.
        ask: Ask,
    },
    /// A device introduced itself; its signature was verified with the key that it brings.
    Enrolled(Enrolment),
    /// A report whose signature was verified.
    Reported {
        /// Whose.
        device: DeviceId,
        /// What it says.
        report: Box<Report>,
        /// Digest of its payload.
        digest: ShortDigest,
        /// The report as signed.
        signed: Bytes,
    },
    /// What is kept of a payload is not what was signed.
    PayloadDamaged(PayloadNumber),
    /// An operator wants something changed.
    Command(Command),
    /// Answers [`Output::NextVersions`].
    Versions(Result<Vec<u64>, Arc<StoreError>>),
    /// Answers [`Output::Sign`]: the documents as signed, in the order given. With any other number of them the
    /// change is refused.
    Signed(Vec<Bytes>),
    /// Answers [`Output::Store`].
    Stored {
        /// Which job.
        job: Job,
        /// For each change whether it changed anything, or why all of them failed.
        applied: Applied,
    },
    /// Answers [`Output::Store`] if so many jobs wait that this one was not taken. Never for [`Job::Change`].
    NotTaken(Job),
    /// The calendar cannot be believed: nothing is signed from now on. `None`: it can again.
    Clock(Option<ClockDoubt>),
    /// The database cannot be believed: nothing is signed from now on.
    Store(StoreDoubt),
    /// An operator accepted the database, and that is stored.
    StoreAccepted {
        /// All versions are higher than this from now on.
        versions_above: u64,
    },
    /// The service stops: what is worth storing and not urgent is handed to the store now.
    Stop,
    /// The time of [`Fleet::poll_timeout`](super::Fleet::poll_timeout) has come.
    Timeout,
}

/// An effect to carry out, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Ask the store for the next version of each of these, and feed [`Input::Versions`].
    NextVersions(Vec<Series>),
    /// Sign these, and feed [`Input::Signed`]. Takes a while for many; devices are served meanwhile.
    Sign(Vec<Document>),
    /// Make all of these durable, or none, and feed [`Input::Stored`].
    Store {
        /// Comes back with the result.
        job: Job,
        /// What to store.
        changes: Vec<Change>,
    },
    /// Something about this device has changed: tell the front door and everything that serves.
    Changed(DeviceId),
    /// A retained document is another one now: tell everything that serves.
    Publish(Publication),
    /// A report is stored durably: tell everything that serves.
    ReportStored {
        /// Whose.
        device: DeviceId,
        /// Its digest.
        digest: ShortDigest,
    },
    /// Deliver this to an operator.
    Answer(Answer),
    /// A device was changed for an operator: show how it is now, with
    /// [`Fleet::show_device`](super::Fleet::show_device).
    ShowDevice {
        /// Which.
        device: DeviceId,
        /// Where the answer goes.
        reply: Reply<whimbrel_api::Device>,
    },
    /// Something to log or to count.
    Event(Event),
}

/// A document to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// With a campaign key.
    Campaign(Box<message::Campaign>),
    /// With a campaign key.
    Assignment(Assignment),
    /// With a beacon key.
    Beacon(Beacon),
}

/// A document that brokers keep for devices that come later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// The assignment of a device; nothing if it has none.
    Assignment(DeviceId),
    /// The campaign of a group.
    Campaign(GroupName),
    /// The beacon.
    Beacon,
}

/// Something for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// An operator's change, or a beacon. One at a time.
    Change,
    /// A report.
    Report {
        /// Whose.
        device: DeviceId,
        /// Its digest.
        digest: ShortDigest,
    },
    /// Something that nothing waits for.
    Note,
}

/// Something to log or to count.
#[derive(Debug)]
pub enum Event {
    /// A stored release is left out: it is not signed by the keys of the root.
    ReleaseLeftOut {
        /// Which.
        release: Digest,
        /// Why.
        error: ReleaseError,
    },
    /// A stored campaign is left out: its document is malformed.
    CampaignLeftOut {
        /// Which.
        campaign: CampaignId,
        /// Why.
        error: whimbrel_protocol::codec::DecodeError,
    },
    /// A device says that it is of another class than it enrolled with.
    OtherClass {
        /// Which.
        device: DeviceId,
        /// The class that it names, shortened.
        class: ClassTag,
    },
    /// A device was sent its assignment again and again and does not take it: it trusts another root, most likely.
    OtherRoot {
        /// Which.
        device: DeviceId,
    },
    /// A report was counted.
    Ended {
        /// Whose.
        device: DeviceId,
        /// Of which campaign.
        campaign: CampaignId,
        /// What it said.
        outcome: Outcome,
        /// Why, in a word; none if all is well.
        failure: Option<message::FailureCode>,
        /// The deployment ended because a health check or a hook said this; empty if none said anything.
        said: String,
    },
    /// A report, or an unsigned word, was not counted.
    Ignored {
        /// Whose.
        device: DeviceId,
        /// Of which campaign.
        campaign: CampaignId,
        /// Why.
        why: Ignored,
    },
    /// Devices bring other keys than the accepted ones. Told once a minute at most, of the last one.
    Rekeyed {
        /// Which.
        device: DeviceId,
        /// Of the key that is accepted.
        accepted: Fingerprint,
        /// Of the key that it brings.
        brought: Fingerprint,
        /// How many devices are like that now.
        devices: usize,
    },
    /// Devices say that they hold newer documents than there are here. Told once a minute at most.
    Ahead {
        /// The one that said so last.
        device: DeviceId,
        /// How many devices are like that now.
        devices: usize,
    },
    /// A device enrols with another key than it is known with.
    OtherKey {
        /// Which.
        device: DeviceId,
    },
    /// A device waits to be accepted.
    Pending {
        /// Which.
        device: DeviceId,
        /// Of its key.
        fingerprint: String,
    },
    /// A pending device made room for a newer one.
    PendingDropped {
        /// Which.
        device: DeviceId,
    },
    /// A report names no campaign that its device was ever part of, or an attempt that was never ordered.
    ReportOfNothing,
    /// A report was stored.
    ReportNew,
    /// A report was stored before.
    ReportAgain,
    /// The store refused a change. It has logged why.
    StoreFailed,
    /// A change was not handed to the store because too many waited.
    StoreOverrun,
    /// A release is in force.
    ReleaseStored {
        /// Which.
        release: Digest,
        /// The version, as people write it.
        version: String,
    },
    /// A payload is complete.
    PayloadStored {
        /// Which: the digest of its index.
        index: Digest,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A campaign's document is in force.
    CampaignInForce {
        /// Which.
        campaign: CampaignId,
        /// Its group.
        group: GroupName,
        /// The document's version.
        version: u64,
        /// Whether it runs.
        phase: Phase,
    },
    /// A device was accepted, or got other groups.
    DeviceAccepted {
        /// Which.
        device: DeviceId,
        /// The version of its assignment.
        version: u64,
    },
    /// A device's key was forgotten.
    DeviceReset {
        /// Which.
        device: DeviceId,
    },
}
