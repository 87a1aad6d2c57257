//! What the fleet knows of a device, as the device's session wants to see it.

use whimbrel_protocol::cose::PublicKey;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest};
use whimbrel_protocol::server::{DeviceView, Document, GroupDocument, Live, LivePayload, Standing};

use super::admission::Pools;
use crate::fleet::Fleet;
use crate::fleet::campaign::Campaigns;
use crate::fleet::catalog::{Catalog, PayloadNumber};
use crate::store::{self, Device};

/// What the fleet knows of a device.
#[derive(Debug, Default)]
pub(crate) struct View {
    key: Option<PublicKey>,
    pending: bool,
    root_version: u64,
    assignment: Option<Document>,
    campaigns: Vec<GroupDocument>,
    live: Option<LiveView>,
}

/// The release that a device should run.
#[derive(Debug)]
struct LiveView {
    campaign: CampaignId,
    release: Digest,
    payloads: Vec<LivePayload>,
    numbers: Vec<PayloadNumber>,
}

impl View {
    /// What the fleet knows of `device` now.
    pub(crate) fn of_device(fleet: &Fleet, device: &DeviceId) -> Self {
        let known = fleet.registry().device(device);
        Self::of(known, fleet.campaigns(), fleet.catalog(), fleet.root().version)
    }

    /// What is known of `device`, which may be nothing.
    pub(crate) fn of(
        device: Option<&Device>,
        campaigns: &Campaigns,
        catalog: &Catalog,
        root_version: u64,
    ) -> Self {
        let Some(device) = device else {
            return Self { root_version, ..Self::default() };
        };
        let store::Standing::Accepted { key, groups, .. } = &device.standing else {
            return Self { pending: device.is_pending(), root_version, ..Self::default() };
        };
        let documents = groups.iter().filter_map(|group| {
            let version = campaigns.of_group(group)?.document().validity.version;
            Some(GroupDocument { group: group.clone(), document: Document { version } })
        });
        let live = campaigns.ruling(groups, device.class).and_then(|campaign| {
            let release = catalog.release(&campaign.document().order.release)?;
            let (payloads, numbers) = catalog.live(release).into_iter().unzip();
            Some(LiveView { campaign: campaign.id(), release: release.digest, payloads, numbers })
        });
        Self {
            key: Some(key.clone()),
            pending: false,
            root_version,
            assignment: Some(Document { version: device.assignment_version }),
            campaigns: documents.collect(),
            live,
        }
    }

    /// As the machine wants it.
    pub(crate) fn borrow(&self) -> DeviceView<'_> {
        DeviceView {
            standing: match &self.key {
                Some(key) => Standing::Accepted { key },
                None if self.pending => Standing::Pending,
                None => Standing::Unknown,
            },
            root_version: self.root_version,
            assignment: self.assignment,
            campaigns: &self.campaigns,
            live: self.live.as_ref().map(|live| Live { release: live.release, payloads: &live.payloads }),
        }
    }

    /// The catalog's number of the live payload at `position`, as the session's outputs name it.
    pub(crate) fn number(&self, position: usize) -> Option<PayloadNumber> {
        self.live.as_ref()?.numbers.get(position).copied()
    }

    /// The campaign whose release the device should run.
    pub(crate) fn campaign(&self) -> Option<CampaignId> {
        self.live.as_ref().map(|live| live.campaign)
    }

    /// What the device's next request for chunks counts for.
    pub(crate) fn pools(&self) -> Option<Pools> {
        self.live.as_ref().map(|live| Pools { campaign: live.campaign, cell: None })
    }
}
