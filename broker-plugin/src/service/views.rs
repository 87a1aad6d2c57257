//! What operators are told, as it stands in the admin API.

use alloc::collections::BTreeMap;

use serde::Serialize;
use whimbrel_protocol::ids::{CampaignId, DeviceId};
use whimbrel_protocol::message::State;
use whimbrel_protocol::time::UnixTime;

use super::bases::WithoutPatchView;
use super::payloads::{PayloadShareView, PayloadView, Payloads};
use crate::campaign::{Campaign, Tally, percent_of};
use crate::catalog::{Catalog, Release};
use crate::store::{Deployment, Device, Phase, Standing};

/// `GET /v1/status`.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    pub(crate) version: &'static str,
    pub(crate) prefix: String,
    pub(crate) attached: &'static str,
    pub(crate) broker_up: bool,
    pub(crate) devices: DeviceCounts,
    pub(crate) releases: usize,
    pub(crate) campaigns: usize,
    pub(crate) counters: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DeviceCounts {
    pub(crate) accepted: usize,
    pub(crate) pending: usize,
}

/// A release.
#[derive(Debug, Serialize)]
pub(crate) struct ReleaseView {
    pub(crate) release: String,
    pub(crate) sequence: u64,
    pub(crate) version: String,
    pub(crate) vendor: String,
    pub(crate) class: String,
    pub(crate) image_size: u64,
    pub(crate) state: &'static str,
    pub(crate) missing: Vec<MissingView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct MissingView {
    pub(crate) index_digest: String,
    pub(crate) transfer_size: u64,
}

impl ReleaseView {
    pub(crate) fn of(release: &Release, catalog: &Catalog) -> Self {
        let missing: Vec<MissingView> = catalog
            .missing(release)
            .into_iter()
            .map(|spec| MissingView {
                index_digest: spec.index.to_hex(),
                transfer_size: spec.layout.transfer_size(),
            })
            .collect();
        Self {
            release: release.digest.to_hex(),
            sequence: release.sequence,
            version: release.version.clone(),
            vendor: release.vendor.to_hex(),
            class: release.class.to_hex(),
            image_size: release.image_size,
            state: if missing.is_empty() { "complete" } else { "incomplete" },
            missing,
        }
    }
}

/// A campaign.
#[derive(Debug, Serialize)]
pub(crate) struct CampaignView {
    pub(crate) id: String,
    pub(crate) group: String,
    pub(crate) release: String,
    pub(crate) version: String,
    pub(crate) sequence: u64,
    pub(crate) state: &'static str,
    pub(crate) attempt: u64,
    pub(crate) document_version: u64,
    pub(crate) created: u64,
    pub(crate) spread_s: u64,
    pub(crate) devices: CampaignCounts,
    pub(crate) percent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_twice: u64,
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// By which payloads the images of its devices come.
    pub(crate) payloads: Vec<PayloadShareView>,
    /// Where some run an image that no patch starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) without_patch: Option<WithoutPatchView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_list: Option<Vec<CampaignDeviceView>>,
    /// Where the campaign was replaced: its devices are counted in the store.
    #[serde(skip)]
    pub(crate) replaced: Option<CampaignId>,
    /// How its release's payloads are called.
    #[serde(skip)]
    pub(crate) names: Payloads,
}

/// Devices of a campaign by state.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CampaignCounts {
    pub(crate) total: u64,
    pub(crate) waiting: u64,
    pub(crate) offered: u64,
    pub(crate) deferred: u64,
    pub(crate) downloading: u64,
    pub(crate) downloaded: u64,
    pub(crate) installing: u64,
    pub(crate) rebooting: u64,
    pub(crate) testing: u64,
    pub(crate) confirmed: u64,
    pub(crate) reverted: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
}

/// One device of a campaign.
#[derive(Debug, Serialize)]
pub(crate) struct CampaignDeviceView {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) percent: u8,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_twice: u64,
    /// The payload of which chunks were served last; `null` where none were.
    pub(crate) payload: Option<PayloadView>,
    /// The one before it, which the device could not use.
    pub(crate) given_up: Option<PayloadView>,
    pub(crate) seen: Option<u64>,
}

impl CampaignView {
    pub(crate) fn of(campaign: &Campaign, catalog: &Catalog, tally: &Tally) -> Self {
        let document = campaign.document();
        let order = &document.order;
        let release = catalog.release(&order.release);
        let mut view = Self {
            id: campaign.id().to_hex(),
            group: document.group.to_string(),
            release: order.release.to_hex(),
            version: release.map_or(String::new(), |release| release.version.clone()),
            sequence: order.sequence,
            state: campaign.phase().name(),
            attempt: order.attempt,
            document_version: document.validity.version,
            created: campaign.created().as_secs(),
            spread_s: order.spread_s,
            devices: CampaignCounts::default(),
            percent: 0,
            bytes_received: 0,
            bytes_twice: 0,
            failures: BTreeMap::new(),
            payloads: Vec::new(),
            without_patch: None,
            device_list: None,
            replaced: (campaign.phase() == Phase::Replaced).then(|| campaign.id()),
            names: release.map_or_else(Payloads::default, |release| Payloads::of(release, catalog)),
        };
        view.count(tally);
        view
    }

    /// Enters counted devices.
    pub(crate) fn count(&mut self, tally: &Tally) {
        self.devices = CampaignCounts {
            total: tally.total,
            waiting: tally.waiting,
            offered: tally.in_state(State::Offered),
            deferred: tally.in_state(State::Deferred),
            downloading: tally.in_state(State::Downloading),
            downloaded: tally.in_state(State::Downloaded),
            installing: tally.in_state(State::Installing),
            rebooting: tally.in_state(State::Rebooting),
            testing: tally.in_state(State::Testing),
            confirmed: tally.in_state(State::Confirmed),
            reverted: tally.in_state(State::Reverted),
            failed: tally.in_state(State::Failed),
            cancelled: tally.in_state(State::Cancelled),
        };
        self.percent = tally.percent();
        self.bytes_received = tally.bytes_received;
        self.bytes_twice = tally.bytes_twice;
        self.failures.clone_from(&tally.failures);
        self.payloads = self.names.shares(tally);
    }
}

impl CampaignDeviceView {
    /// A device that has begun.
    pub(crate) fn of(id: &DeviceId, deployment: &Deployment, fetched_percent: u8, names: &Payloads) -> Self {
        let [payload, given_up] = names.name(deployment.came_by);
        Self {
            id: id.to_string(),
            state: deployment.state.name(),
            reason: deployment.reason.name(),
            percent: percent_of(deployment, fetched_percent),
            bytes_received: deployment.bytes_received,
            bytes_twice: deployment.bytes_twice,
            payload,
            given_up,
            seen: Some(deployment.updated.as_secs()),
        }
    }

    /// A device that has not begun.
    pub(crate) fn waiting(id: &DeviceId, seen: Option<UnixTime>) -> Self {
        Self {
            id: id.to_string(),
            state: "waiting",
            reason: None,
            percent: 0,
            bytes_received: 0,
            bytes_twice: 0,
            payload: None,
            given_up: None,
            seen: seen.map(UnixTime::as_secs),
        }
    }
}

/// `GET /v1/devices`.
#[derive(Debug, Serialize)]
pub(crate) struct DevicesView {
    pub(crate) devices: Vec<DeviceEntry>,
    pub(crate) next: Option<String>,
}

/// A device.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceEntry {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) fingerprint: Option<String>,
    pub(crate) class: String,
    pub(crate) groups: Vec<String>,
    pub(crate) running: Option<String>,
    pub(crate) sequence: u64,
    pub(crate) seen: Option<u64>,
    pub(crate) online_hint: bool,
    /// How far it is with the campaign that rules it; `null` where it has not begun.
    pub(crate) deployment: Option<DeviceDeploymentView>,
}

/// How far a device is with the campaign that rules it.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceDeploymentView {
    campaign: String,
    state: &'static str,
    bytes_received: u64,
    bytes_twice: u64,
    payload: Option<PayloadView>,
    given_up: Option<PayloadView>,
}

impl DeviceDeploymentView {
    pub(crate) fn of(campaign: CampaignId, deployment: &Deployment, names: &Payloads) -> Self {
        let [payload, given_up] = names.name(deployment.came_by);
        Self {
            campaign: campaign.to_hex(),
            state: deployment.state.name(),
            bytes_received: deployment.bytes_received,
            bytes_twice: deployment.bytes_twice,
            payload,
            given_up,
        }
    }
}

impl DeviceEntry {
    pub(crate) fn of(
        device: &Device,
        seen: Option<UnixTime>,
        online_hint: bool,
        deployment: Option<DeviceDeploymentView>,
    ) -> Self {
        let running = device.facts.running;
        Self {
            id: device.id.to_string(),
            state: match device.standing {
                Standing::Forgotten => "forgotten",
                Standing::Pending { .. } => "pending",
                Standing::Accepted { .. } => "accepted",
            },
            fingerprint: device.key().map(|key| key.fingerprint().to_string()),
            class: device.class.to_hex(),
            groups: device.groups().iter().map(ToString::to_string).collect(),
            running: (running.0 != [0; 8]).then(|| running.to_hex()),
            sequence: device.facts.sequence,
            seen: seen.map(UnixTime::as_secs),
            online_hint,
            deployment,
        }
    }
}

/// `POST /v1/devices/import`.
#[derive(Debug, Serialize)]
pub(crate) struct ImportView {
    pub(crate) imported: usize,
    pub(crate) unchanged: usize,
}
