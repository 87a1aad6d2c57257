//! What operators ask of the service, and what they are told.

use alloc::sync::Arc;

use thiserror::Error;
use tokio::sync::oneshot;
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest, GroupName};

use super::bases::BasesView;
use super::views::{CampaignView, DeviceEntry, DevicesView, ImportView, ReleaseView, StatusView};
use crate::campaign::{CommandError, NewCampaign, PlanError};
use crate::catalog::{CatalogError, Release};
use crate::registry::{ImportError, ImportLine, RegistryError};
use crate::store::{PayloadRow, PayloadSpec, StoreError};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Denied>>;

/// What operators ask for. Each carries where its answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    Status(Reply<StatusView>),
    Releases(Reply<Vec<ReleaseView>>),
    Release {
        prefix: String,
        reply: Reply<ReleaseView>,
    },
    Bases {
        prefix: String,
        group: Option<GroupName>,
        reply: Reply<BasesView>,
    },
    AddRelease {
        release: Box<Release>,
        reply: Reply<ReleaseView>,
    },
    PayloadSpec {
        index: Digest,
        reply: Reply<PayloadSpec>,
    },
    AddPayload {
        row: PayloadRow,
        reply: Reply<()>,
    },
    Campaigns(Reply<Vec<CampaignView>>),
    Campaign {
        prefix: String,
        devices: Option<DevicesPage>,
        reply: Reply<CampaignView>,
    },
    NewCampaign {
        release: String,
        wish: Box<NewCampaign>,
        reply: Reply<CampaignView>,
    },
    ToCampaign {
        prefix: String,
        command: crate::campaign::Command,
        reply: Reply<CampaignView>,
    },
    Devices {
        state: Option<DeviceState>,
        page: DevicesPage,
        reply: Reply<DevicesView>,
    },
    Device {
        id: DeviceId,
        reply: Reply<DeviceEntry>,
    },
    Accept {
        id: DeviceId,
        fingerprint: Fingerprint,
        groups: Option<Vec<GroupName>>,
        reply: Reply<DeviceEntry>,
    },
    SetGroups {
        id: DeviceId,
        groups: Vec<GroupName>,
        reply: Reply<DeviceEntry>,
    },
    Reset {
        id: DeviceId,
        reply: Reply<DeviceEntry>,
    },
    Import {
        lines: Vec<ImportLine>,
        reply: Reply<ImportView>,
    },
}

/// Which devices of a long list.
#[derive(Clone, Debug)]
pub(crate) struct DevicesPage {
    /// Those that come after this one.
    pub(crate) after: Option<DeviceId>,
    /// At most so many.
    pub(crate) limit: usize,
}

/// Which devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceState {
    Pending,
    Accepted,
}

/// Why an operator does not get what was asked for.
#[derive(Debug, Error)]
pub(crate) enum Denied {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("no release names a payload with index digest {index}: publish its release first")]
    NoSuchPayload { index: Digest },
    #[error("release {release} is not complete, {missing} of its payloads have to be uploaded first")]
    Incomplete { release: Digest, missing: usize },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("campaign {id}: {source}")]
    Command { id: CampaignId, source: CommandError },
    #[error("{limit} groups have campaigns, no beacon can name more")]
    TooManyGroups { limit: usize },
    #[error("{limit} campaigns are remembered, more are not possible")]
    TooManyCampaigns { limit: usize },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    #[error("the service cannot draw a random number: {reason}")]
    Random { reason: String },
    #[error("the service is stopping, try again when it is back")]
    Stopping,
}
