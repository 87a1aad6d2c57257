//! Makes what operators are told out of releases, campaigns and devices. What it looks like is the API's.

use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, DeviceId};
use whimbrel_protocol::time::UnixTime;

use super::campaign::{Campaign, Tally, percent_of};
use super::catalog::{Catalog, Release};
use super::payload_names::PayloadNames;
use crate::store::{Deployment, Device, Phase, Standing};

pub(super) fn release(release: &Release, catalog: &Catalog) -> api::Release {
    let missing = catalog.missing(release).into_iter().map(|spec| api::MissingPayload {
        index_digest: spec.index.to_hex(),
        transfer_size: spec.layout.transfer_size(),
    });
    let missing: Vec<api::MissingPayload> = missing.collect();
    api::Release {
        release: release.digest.to_hex(),
        sequence: release.sequence,
        version: release.version.clone(),
        vendor: release.vendor.to_hex(),
        class: release.class.to_hex(),
        image_size: release.image_size,
        state: match missing.as_slice() {
            [] => api::ReleaseState::Complete,
            _ => api::ReleaseState::Incomplete,
        },
        missing,
        warnings: Vec::new(),
    }
}

/// A campaign as it is shown, with what it takes to count its devices again.
#[derive(Debug)]
pub struct CampaignView {
    /// What operators are told.
    pub shown: api::Campaign,
    /// If the campaign was replaced: its devices are counted in the store.
    pub replaced: Option<CampaignId>,
    /// How its release's payloads are called.
    names: PayloadNames,
}

impl CampaignView {
    pub(super) fn of(campaign: &Campaign, catalog: &Catalog, tally: &Tally) -> Self {
        let document = campaign.document();
        let order = &document.order;
        let release = catalog.release(&order.release);
        let names = release.map_or_else(PayloadNames::default, |release| PayloadNames::of(release, catalog));
        let shown = api::Campaign {
            id: campaign.id().to_hex(),
            group: document.group.to_string(),
            release: order.release.to_hex(),
            version: release.map_or(String::new(), |release| release.version.clone()),
            sequence: order.sequence,
            state: match campaign.phase() {
                Phase::Active => api::CampaignState::Active,
                Phase::Aborted => api::CampaignState::Aborted,
                Phase::Replaced => api::CampaignState::Replaced,
            },
            attempt: order.attempt,
            document_version: document.validity.version,
            created: campaign.created().as_secs(),
            spread_s: order.spread_s,
            devices: by_state(tally),
            percent: tally.percent(),
            bytes_received: tally.bytes_received,
            bytes_twice: tally.bytes_twice,
            failures: failures(tally),
            payloads: names.shares(tally),
            without_patch: None,
            rekeyed: None,
            device_list: None,
            warnings: Vec::new(),
        };
        let replaced = (campaign.phase() == Phase::Replaced).then(|| campaign.id());
        Self { shown, replaced, names }
    }

    /// Enters devices that were counted elsewhere.
    pub fn count(&mut self, tally: &Tally) {
        self.shown.devices = by_state(tally);
        self.shown.percent = tally.percent();
        self.shown.bytes_received = tally.bytes_received;
        self.shown.bytes_twice = tally.bytes_twice;
        self.shown.failures = failures(tally);
        self.shown.payloads = self.names.shares(tally);
    }

    /// A device of the campaign that has begun.
    #[must_use]
    pub fn device(&self, id: &DeviceId, deployment: &Deployment, fetched_percent: u8) -> api::CampaignDevice {
        let [payload, given_up] = self.names.name(deployment.came_by);
        api::CampaignDevice {
            id: id.to_string(),
            state: deployment.state.into(),
            reason: deployment.reason.name().map(Into::into),
            percent: percent_of(deployment, fetched_percent),
            bytes_received: deployment.bytes_received,
            bytes_twice: deployment.bytes_twice,
            payload,
            given_up,
            seen: Some(deployment.updated.as_secs()),
        }
    }
}

fn by_state(tally: &Tally) -> api::DevicesByState {
    api::DevicesByState::new(tally.total, |state| match state {
        api::DeviceState::Waiting => tally.waiting,
        api::DeviceState::Begun(state) => tally.in_state(state),
    })
}

fn failures(tally: &Tally) -> alloc::collections::BTreeMap<String, u64> {
    tally.failures.iter().map(|(reason, devices)| ((*reason).to_owned(), *devices)).collect()
}

/// A device of a campaign that has not begun.
pub(super) fn waiting(id: &DeviceId, seen: Option<UnixTime>) -> api::CampaignDevice {
    api::CampaignDevice {
        id: id.to_string(),
        state: api::DeviceState::Waiting,
        reason: None,
        percent: 0,
        bytes_received: 0,
        bytes_twice: 0,
        payload: None,
        given_up: None,
        seen: seen.map(UnixTime::as_secs),
    }
}

/// How far a device is with the campaign that rules it.
pub(super) fn deployment(
    campaign: CampaignId,
    deployment: &Deployment,
    names: &PayloadNames,
) -> api::DeviceDeployment {
    let [payload, given_up] = names.name(deployment.came_by);
    api::DeviceDeployment {
        campaign: campaign.to_hex(),
        state: deployment.state.into(),
        reason: deployment.reason.name().map(Into::into),
        bytes_received: deployment.bytes_received,
        bytes_twice: deployment.bytes_twice,
        payload,
        given_up,
    }
}

pub(super) fn device(
    device: &Device,
    version: Option<String>,
    seen: Option<UnixTime>,
    online_hint: bool,
    deployment: Option<api::DeviceDeployment>,
) -> api::Device {
    let running = device.facts.running;
    api::Device {
        id: device.id.to_string(),
        state: match device.standing {
            _ if device.rekeyed.is_some() => api::Standing::Rekeyed,
            Standing::Forgotten => api::Standing::Forgotten,
            Standing::Pending { .. } => api::Standing::Pending,
            Standing::Accepted { .. } => api::Standing::Accepted,
        },
        fingerprint: device.key().map(|key| key.fingerprint().to_string()),
        rekeyed: device.rekeyed.as_deref().map(|rekeyed| api::Rekeyed {
            fingerprint: rekeyed.key.fingerprint().to_string(),
            class: rekeyed.class.to_hex(),
            seen: rekeyed.seen.as_secs(),
        }),
        class: device.class.to_hex(),
        groups: device.groups().iter().map(ToString::to_string).collect(),
        running: (running.0 != [0; 8]).then(|| running.to_hex()),
        version,
        sequence: device.facts.sequence,
        seen: seen.map(UnixTime::as_secs),
        online_hint,
        deployment,
        warnings: Vec::new(),
    }
}
