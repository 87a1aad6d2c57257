//! What operators want changed and what they ask, and how they are answered.
//!
//! A command changes something, and is an input of the fleet's machine. A question changes nothing: it is answered by
//! [`Fleet::answer`](super::Fleet::answer), which cannot change the fleet. Each carries where its own kind of answer
//! goes.

use alloc::sync::Arc;
use core::fmt;

use thiserror::Error;
use whimbrel_api as api;
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest, GroupName};

use super::campaign::{self, CommandError, NewCampaign, PlanError};
use super::catalog::{CatalogError, Release};
use super::registry::{ImportError, ImportLine, RegistryError};
use super::views::CampaignView;
use crate::clock_guard::ClockDoubt;
use crate::store::{PayloadRow, PayloadSpec, StoreError};
use crate::store_guard::StoreDoubt;

/// Where an answer goes. The fleet does not call it: what it puts out is an [`Answer`] for whoever hosts it to deliver.
pub struct Reply<T>(Box<dyn FnOnce(Result<T, Denied>) + Send>);

/// An answer with where it goes.
pub struct Answer(Box<dyn FnOnce() + Send>);

/// What operators want changed.
#[derive(Debug)]
pub enum Command {
    /// A release was uploaded.
    AddRelease {
        /// The release.
        release: Box<Release>,
        /// Where the answer goes.
        reply: Reply<api::Release>,
    },
    /// A payload was uploaded, and is kept.
    AddPayload {
        /// The payload.
        row: PayloadRow,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// A new campaign.
    NewCampaign {
        /// The first digits of the release's digest.
        release: String,
        /// Everything else.
        new: Box<NewCampaign>,
        /// A random id. If it is taken, the campaign gets the next one that is not.
        id: CampaignId,
        /// Where the answer goes.
        reply: Reply<CampaignView>,
    },
    /// A campaign is called off, or lets devices try again.
    ToCampaign {
        /// The first digits of its id.
        prefix: String,
        /// Which of both.
        command: campaign::Command,
        /// Where the answer goes.
        reply: Reply<CampaignView>,
    },
    /// A pending device is accepted, or an accepted one gets other groups.
    Accept {
        /// Which.
        id: DeviceId,
        /// Of the key that the operator expects.
        fingerprint: Fingerprint,
        /// Its groups; `None` for those that it has, or the usual one.
        groups: Option<Vec<GroupName>>,
        /// Where the answer goes.
        reply: Reply<api::Device>,
    },
    /// An accepted device gets other groups.
    SetGroups {
        /// Which.
        id: DeviceId,
        /// Its groups.
        groups: Vec<GroupName>,
        /// Where the answer goes.
        reply: Reply<api::Device>,
    },
    /// A device's key is forgotten.
    Reset {
        /// Which.
        id: DeviceId,
        /// Where the answer goes.
        reply: Reply<api::Device>,
    },
    /// Devices are accepted before they have connected.
    Import {
        /// The list.
        lines: Vec<ImportLine>,
        /// Where the answer goes.
        reply: Reply<api::Imported>,
    },
}

/// What operators ask.
#[derive(Debug)]
pub enum Question {
    /// All releases.
    Releases(Reply<Vec<api::Release>>),
    /// One release.
    Release {
        /// The first digits of its digest.
        prefix: String,
        /// Where the answer goes.
        reply: Reply<api::Release>,
    },
    /// Which patches of a release would be worth making.
    Bases {
        /// The first digits of its digest.
        prefix: String,
        /// Of the devices of this group; `None` for all.
        group: Option<GroupName>,
        /// Where the answer goes.
        reply: Reply<api::Bases>,
    },
    /// What the releases say about a payload that is to be uploaded.
    PayloadSpec {
        /// The digest of its index.
        index: Digest,
        /// Where the answer goes.
        reply: Reply<PayloadSpec>,
    },
    /// All campaigns.
    Campaigns(Reply<Vec<CampaignView>>),
    /// One campaign.
    Campaign {
        /// The first digits of its id.
        prefix: String,
        /// With these of its devices.
        devices: Option<DevicesPage>,
        /// Where the answer goes.
        reply: Reply<CampaignView>,
    },
    /// Whether the lines of a list could be imported.
    Import {
        /// The lines.
        lines: Vec<ImportLine>,
        /// Where the answer goes: what the import would do.
        reply: Reply<api::Imported>,
    },
    /// Some devices.
    Devices {
        /// Those in this state; `None` for all.
        state: Option<Listed>,
        /// Which of them.
        page: DevicesPage,
        /// Where the answer goes.
        reply: Reply<api::Devices>,
    },
    /// One device.
    Device {
        /// Which.
        id: DeviceId,
        /// Where the answer goes.
        reply: Reply<api::Device>,
    },
}

/// Which devices of a long list.
#[derive(Clone, Debug)]
pub struct DevicesPage {
    /// Those that come after this one.
    pub after: Option<DeviceId>,
    /// At most so many.
    pub limit: usize,
}

/// Which devices are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Those that wait to be accepted.
    Pending,
    /// Those that are accepted.
    Accepted,
    /// Those of them that bring another key.
    Rekeyed,
}

/// Why an operator does not get what was asked for.
#[derive(Debug, Error)]
pub enum Denied {
    /// Nothing, or more than one thing, has that name; or there is no room for a release.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A payload that no release names.
    #[error("no release names a payload with index digest {index}: publish its release first")]
    NoSuchPayload {
        /// Which.
        index: Digest,
    },
    /// A campaign of a release whose payloads are not all there.
    #[error(
        "release {release} is not complete, {missing} of its payloads have to be uploaded first: `whimbrel release publish` does"
    )]
    Incomplete {
        /// Which.
        release: Digest,
        /// Payloads that are missing.
        missing: usize,
    },
    /// A campaign that every device would refuse.
    #[error(
        "all {devices} devices of the release's class in group {group} reported sequence numbers up to {highest} and would \
         refuse {sequence}: to go back on purpose, build the older image again with --sequence {} or higher",
        .highest.saturating_add(1)
    )]
    Downgrade {
        /// The group.
        group: GroupName,
        /// Devices in it that the release is for.
        devices: u64,
        /// The release's sequence number.
        sequence: u64,
        /// The highest that a device reported.
        highest: u64,
    },
    /// A number of a new campaign is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A campaign cannot do that any more.
    #[error("campaign {id}: {source}")]
    Command {
        /// Which.
        id: CampaignId,
        /// Why.
        source: CommandError,
    },
    /// A beacon names so many groups.
    #[error("{limit} groups have campaigns, no beacon can name more")]
    TooManyGroups {
        /// How many.
        limit: usize,
    },
    /// So many campaigns are remembered.
    #[error("{limit} campaigns are remembered, more are not possible")]
    TooManyCampaigns {
        /// How many.
        limit: usize,
    },
    /// A device is not accepted, reset or moved.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A list is not imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// The calendar cannot be believed, so that nothing is signed.
    #[error("{doubt}")]
    Clock {
        /// Why.
        doubt: ClockDoubt,
    },
    /// The database cannot be believed, so that nothing is signed.
    #[error("{doubt}")]
    Database {
        /// Why.
        doubt: StoreDoubt,
    },
    /// The system has no randomness.
    #[error("the service cannot draw a random number: {reason}")]
    Random {
        /// What it says.
        reason: String,
    },
    /// The service stops.
    #[error("the service is stopping, try again when it is back")]
    Stopping,
}

impl<T: Send + 'static> Reply<T> {
    /// A reply that `send` takes on its way.
    #[must_use]
    pub fn new(send: impl FnOnce(Result<T, Denied>) + Send + 'static) -> Self {
        Self(Box::new(send))
    }

    /// The same, with `change` made to an answer that is no refusal.
    pub(super) fn with_change(self, change: impl FnOnce(&mut T) + Send + 'static) -> Self {
        Self::new(move |answer| {
            (self.0)(answer.map(|mut answer| {
                change(&mut answer);
                answer
            }));
        })
    }

    /// The answer, addressed.
    pub(super) fn with(self, answer: Result<T, Denied>) -> Answer {
        Answer(Box::new(move || (self.0)(answer)))
    }
}

impl Answer {
    /// Hands the answer to whoever asked.
    pub fn deliver(self) {
        (self.0)();
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}
