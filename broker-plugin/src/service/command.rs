//! What operators ask of the service, and what they are told.

use alloc::sync::Arc;

use thiserror::Error;
use tokio::sync::oneshot;
use whimbrel_api as api;
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest, GroupName};

use super::views::CampaignView;
use crate::campaign::{CommandError, NewCampaign, PlanError};
use crate::catalog::{CatalogError, Release};
use crate::registry::{ImportError, ImportLine, RegistryError};
use crate::store::{PayloadRow, PayloadSpec, StoreError};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Denied>>;

/// What operators ask for. Each carries where its answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    Status(Reply<api::Status>),
    Releases(Reply<Vec<api::Release>>),
    Release {
        prefix: String,
        reply: Reply<api::Release>,
    },
    Bases {
        prefix: String,
        group: Option<GroupName>,
        reply: Reply<api::Bases>,
    },
    AddRelease {
        release: Box<Release>,
        reply: Reply<api::Release>,
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
        state: Option<Listed>,
        page: DevicesPage,
        reply: Reply<api::Devices>,
    },
    Device {
        id: DeviceId,
        reply: Reply<api::Device>,
    },
    Accept {
        id: DeviceId,
        fingerprint: Fingerprint,
        groups: Option<Vec<GroupName>>,
        reply: Reply<api::Device>,
    },
    SetGroups {
        id: DeviceId,
        groups: Vec<GroupName>,
        reply: Reply<api::Device>,
    },
    Reset {
        id: DeviceId,
        reply: Reply<api::Device>,
    },
    Import {
        lines: Vec<ImportLine>,
        reply: Reply<api::Imported>,
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

/// Which devices are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
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
