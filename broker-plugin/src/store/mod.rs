//! What the service must not lose: releases, devices, campaigns, reports in a database, payloads in a folder.
//!
//! The service decides on what it holds in memory and hands [`Change`]s to the store; nothing is acknowledged,
//! published or answered on account of a change before [`Store::apply`] has returned, and that returns when the
//! change is durable. A process that is killed at any instant therefore loses nothing that anybody was told of.
//!
//! [`Store`] is the database and [`Payloads`] is where payloads are kept; each is a trait with one implementation
//! for production. One suite of tests, `tests/it/store_rules.rs`, holds for every implementation.
//!
//! | file | what |
//! |---|---|
//! | `rows` | what is stored, as plain types |
//! | `sqlite`, `sqlite_rows`, `sqlite_writes` | the database as a file |
//! | `worker` | one task that owns a database and commits in batches |
//! | `watch` | whether the database is still where it was opened |
//! | `mark` | what the database has handed out, beside the payload folder: whether a database is an old one |
//! | `payloads`, `upload` | what is read of a payload is checked; a new one is indexed as it comes |
//! | `folder` | payloads as files |
//! | `memory` | both in memory, for tests (feature `testing`) |

mod error;
mod folder;
mod mark;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod payloads;
mod rows;
mod sqlite;
mod sqlite_rows;
mod sqlite_writes;
mod upload;
mod watch;
mod worker;

use core::future::Future;

use whimbrel_protocol::ids::{CampaignId, DeviceId, ShortDigest};
use whimbrel_protocol::message::State;
use whimbrel_protocol::time::UnixTime;

pub use error::StoreError;
pub use folder::{DataLock, PayloadFolder};
pub use mark::SignedMark;
#[cfg(any(test, feature = "testing"))]
pub use memory::{MemoryPayloads, MemoryStore};
pub use payloads::{PayloadPart, PayloadWriter, Payloads};
pub use rows::{
    CameBy, CampaignRow, Deployment, DeploymentRow, Device, Facts, PayloadRow, Phase, Rekeyed, ReleaseRow,
    ReportRow, Reported, Standing, Terms, Why,
};
pub use sqlite::SqliteStore;
pub use upload::{PayloadSpec, Upload, UploadError};
pub use watch::DatabaseFile;
pub use worker::{Applied, StoreHandle};

/// One change. Each is whole: none needs another to make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A release came.
    Release(ReleaseRow),
    /// A payload is complete.
    Payload(PayloadRow),
    /// A device is as this says, but for its facts.
    Device(Device),
    /// A device has enrolled. Does nothing if it is accepted: an enrolment may come while an acceptance is being stored, and
    /// nobody but an operator undoes that.
    Enrolled(Device),
    /// A pending device makes room. Does nothing if it has been accepted; a version of an assignment stays.
    DropPending(DeviceId),
    /// What a device last said. Does nothing if the device is not known.
    Facts(DeviceId, Facts),
    /// A device brought another key than the accepted one, or no longer does. Does nothing if the device is not known.
    Rekeyed(DeviceId, Option<Box<Rekeyed>>),
    /// The reports of a device are counted anew in the campaigns that were not replaced: what they said stays known,
    /// and any report counts more.
    ReportsAnew(DeviceId),
    /// A campaign is as this says.
    Campaign(CampaignRow),
    /// A beacon of this version is about to be published.
    Beacon {
        /// Its version.
        version: u64,
        /// When it was issued.
        issued: UnixTime,
    },
    /// An operator accepted the database: every version that is handed out from now on is higher than this.
    VersionsAbove(u64),
    /// A device is this far. Does nothing if more is known.
    Deployment(DeploymentRow),
    /// A report came. Does nothing if it is here already.
    Report(ReportRow),
}

/// Everything that the service holds in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All releases.
    pub releases: Vec<ReleaseRow>,
    /// All payloads.
    pub payloads: Vec<PayloadRow>,
    /// All devices.
    pub devices: Vec<Device>,
    /// All campaigns.
    pub campaigns: Vec<CampaignRow>,
    /// The deployments of campaigns that were not replaced.
    pub deployments: Vec<DeploymentRow>,
    /// Version of the last beacon; 0 for none.
    pub beacon_version: u64,
    /// When it was issued: the calendar was not before that.
    pub beacon_issued: UnixTime,
    /// What was handed out.
    pub handed_out: Versions,
    /// Versions of assignments that are signed from now on are higher than this; 0 if no operator had to say so.
    pub versions_above: u64,
}

/// Devices of one campaign that are in one state for one reason, by one payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallyRow {
    /// Which campaign.
    pub campaign: CampaignId,
    /// The state.
    pub state: State,
    /// Why.
    pub reason: Why,
    /// How many devices.
    pub devices: u64,
    /// Payload bytes that they received.
    pub bytes_received: u64,
    /// Payload bytes that they received more than once.
    pub bytes_twice: u64,
    /// The payload by which their image comes, as in [`CameBy`].
    pub payload: Option<ShortDigest>,
}

/// Documents whose versions are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The beacons.
    Beacon,
    /// The documents of all campaigns: if a device is in two groups, the newest document wins, and no two may be
    /// equally new.
    Campaign,
    /// The times that assignments were signed, one or many: their own versions are counted for each device.
    Assignments,
}

/// The last version that was handed out of each series; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of [`Series::Beacon`].
    pub beacon: u64,
    /// Of [`Series::Campaign`].
    pub campaign: u64,
    /// Of [`Series::Assignments`].
    pub assignments: u64,
}

impl Versions {
    /// The higher one of each series.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            beacon: self.beacon.max(other.beacon),
            campaign: self.campaign.max(other.campaign),
            assignments: self.assignments.max(other.assignments),
        }
    }

    /// These, with another version of one series.
    #[must_use]
    pub const fn with(mut self, series: Series, version: u64) -> Self {
        match series {
            Series::Beacon => self.beacon = version,
            Series::Campaign => self.campaign = version,
            Series::Assignments => self.assignments = version,
        }
        self
    }

    /// The highest of all.
    #[must_use]
    pub fn highest(self) -> u64 {
        self.beacon.max(self.campaign).max(self.assignments)
    }
}

/// A database.
pub trait Store: Send + 'static {
    /// Reads what the service holds in memory.
    fn load(&mut self) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Makes all of `changes` durable, or none. Says for each whether it changed anything.
    fn apply(&mut self, changes: &[Change]) -> impl Future<Output = Result<Vec<bool>, StoreError>> + Send;

    /// Hands out the next version of each series, in this order. A version is handed out once, also if the database is
    /// closed in between, and is higher than every version of the series that is stored.
    fn next_versions(&mut self, of: &[Series]) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send;

    /// Counts the deployments of the campaigns that were replaced, which are not in memory.
    fn tally_replaced(&mut self) -> impl Future<Output = Result<Vec<TallyRow>, StoreError>> + Send;

    /// The deployments of a campaign in the order of their devices: at most `limit` that come after `after`.
    fn deployments(
        &mut self,
        campaign: CampaignId,
        after: Option<DeviceId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<DeploymentRow>, StoreError>> + Send;

    /// Closes the database; what was applied is durable whether or not this is called.
    fn close(self) -> impl Future<Output = ()> + Send;
}
