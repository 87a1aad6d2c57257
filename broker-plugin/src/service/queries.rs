//! What operators ask: answered from memory.

use std::collections::HashMap;

use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, DeviceId};
use whimbrel_protocol::time::UnixTime;

use super::decision::tell;
use super::payloads::Payloads;
use super::views::{self, CampaignView};
use super::{Attached, Command, Core, Denied, DevicesPage, Listed};
use crate::attach::BrokerLink;
use crate::campaign::{Campaign, Tally};
use crate::metrics::Counters;
use crate::registry::RegistryError;
use crate::store::{Device, Standing};

/// A device that was heard this recently is probably connected.
const ONLINE_S: u64 = 600;

impl<L: BrokerLink> Core<L> {
    /// Answers a question. What is no question comes back.
    pub(super) fn answer(&self, command: Command) -> Option<Command> {
        match command {
            Command::Status(reply) => tell(reply, Ok(self.status())),
            Command::Releases(reply) => {
                let releases = self.catalog.releases();
                tell(reply, Ok(releases.map(|release| views::release(release, &self.catalog)).collect()));
            }
            Command::Release { prefix, reply } => {
                let found = self.catalog.find(&prefix);
                let view = found.map(|release| views::release(release, &self.catalog));
                tell(reply, view.map_err(Denied::Catalog));
            }
            Command::Bases { prefix, group, reply } => {
                let found = self.catalog.find(&prefix).map_err(Denied::Catalog);
                tell(reply, found.map(|release| self.view_bases(release, group.as_ref())));
            }
            Command::PayloadSpec { index, reply } => {
                let spec = self.catalog.spec(&index).cloned();
                tell(reply, spec.ok_or(Denied::NoSuchPayload { index }));
            }
            Command::Campaigns(reply) => {
                let all = self.campaigns.oldest_first();
                tell(reply, Ok(all.into_iter().map(|campaign| self.view_campaign(campaign)).collect()));
            }
            Command::Campaign { prefix, devices, reply } => {
                let found = self.campaigns.find(&prefix).map_err(Denied::Catalog);
                tell(reply, found.map(|campaign| self.view_campaign_devices(campaign, devices.as_ref())));
            }
            Command::Device { id, reply } => {
                let known = self.registry.device(&id).filter(|known| known.standing != Standing::Forgotten);
                let view = known.map(|known| self.device_entry(known, &mut HashMap::new()));
                tell(reply, view.ok_or(Denied::Registry(RegistryError::Unknown { id })));
            }
            Command::Devices { state, page, reply } => tell(reply, Ok(self.devices(state, &page))),
            change => return Some(change),
        }
        None
    }

    fn status(&self) -> api::Status {
        Counters::set(&self.counters.under_way, self.under_way());
        Counters::set(&self.counters.sessions, self.sessions.len());
        Counters::set(&self.counters.sessions_dropped, self.sessions.dropped());
        let mut counters = self.counters.snapshot();
        let (attached, broker) = match &self.attached {
            Attached::Embedded(broker) => (api::Attachment::Embedded, serde_json::to_value(&**broker)),
            Attached::Client(broker) => (api::Attachment::Client, serde_json::to_value(&**broker)),
        };
        if let Ok(serde_json::Value::Object(broker)) = broker {
            let numbers = broker.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?)));
            counters.extend(numbers.map(|(name, value)| (format!("broker_{name}"), value)));
        }
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            prefix: self.settings.prefix.to_string(),
            attached,
            broker_up: self.outbox.up,
            devices: api::DeviceCounts {
                accepted: self.registry.accepted() as u64,
                pending: self.registry.pending() as u64,
            },
            releases: self.catalog.releases().len() as u64,
            campaigns: self.campaigns.len() as u64,
            counters,
        }
    }

    /// What was begun and has not ended.
    fn under_way(&self) -> usize {
        let chunks = self.reads.len() + self.ready.len();
        let documents = self.desk.under_way() + self.announcements.under_way();
        chunks + documents + self.reports_on_the_way.len() + self.outbox.queued
    }

    /// The devices that a campaign is for.
    pub(super) fn members<'s>(&'s self, campaign: &'s Campaign) -> impl Iterator<Item = &'s Device> {
        let document = campaign.document();
        self.registry.devices_after(None).filter(move |device| is_member(device, document))
    }

    pub(super) fn view_campaign(&self, campaign: &Campaign) -> CampaignView {
        if campaign.phase() == crate::store::Phase::Replaced {
            return CampaignView::of(campaign, &self.catalog, &Tally::default());
        }
        let members = self.members(campaign).map(|device| &device.id);
        CampaignView::of(campaign, &self.catalog, &Tally::of(campaign, members))
    }

    fn view_campaign_devices(&self, campaign: &Campaign, page: Option<&DevicesPage>) -> CampaignView {
        let mut view = self.view_campaign(campaign);
        view.shown.without_patch = self.view_without_patch(campaign);
        let Some(page) = page else { return view };
        let document = campaign.document();
        let of_campaign =
            |device: &&Device| is_member(device, document) || campaign.progress(&device.id).is_some();
        let devices = self.registry.devices_after(page.after.as_ref()).filter(of_campaign);
        let entries = devices.take(page.limit).map(|device| match campaign.progress(&device.id) {
            Some(progress) => {
                let (deployment, fetched) = (&progress.deployment, progress.fetched_percent);
                view.device(&device.id, deployment, fetched)
            }
            None => views::waiting(&device.id, self.seen(device)),
        });
        let entries = entries.collect();
        view.shown.device_list = Some(entries);
        view
    }

    fn devices(&self, listed: Option<Listed>, page: &DevicesPage) -> api::Devices {
        let wanted = |device: &&Device| match listed {
            None => true,
            Some(Listed::Pending) => device.is_pending(),
            Some(Listed::Accepted) => device.is_accepted(),
        };
        let mut devices = self.registry.devices_after(page.after.as_ref()).filter(wanted);
        let mut names = HashMap::new();
        let listed = devices.by_ref().take(page.limit);
        let entries: Vec<api::Device> = listed.map(|device| self.device_entry(device, &mut names)).collect();
        let more = devices.next().is_some();
        let next = entries.last().filter(|_| more).map(|entry| entry.id.clone());
        api::Devices { devices: entries, next }
    }

    pub(super) fn view_device(&self, id: &DeviceId) -> Option<api::Device> {
        self.registry.device(id).map(|device| self.device_entry(device, &mut HashMap::new()))
    }

    /// A device; `names` are those of the payloads of campaigns that other devices of the list had.
    fn device_entry(&self, device: &Device, names: &mut HashMap<CampaignId, Payloads>) -> api::Device {
        let seen = self.seen(device);
        let online = seen.is_some_and(|seen| seen.plus_secs(ONLINE_S) >= self.today);
        let ruling = self.campaigns.ruling(device.groups(), device.class);
        let deployment = ruling.and_then(|campaign| {
            let progress = campaign.progress(&device.id)?;
            let names = names.entry(campaign.id()).or_insert_with(|| {
                let release = self.catalog.release(&campaign.document().order.release);
                release.map_or_else(Payloads::default, |release| Payloads::of(release, &self.catalog))
            });
            Some(views::deployment(campaign.id(), &progress.deployment, names))
        });
        views::device(device, seen, online, deployment)
    }

    /// When a device was last heard; `None` for never.
    fn seen(&self, device: &Device) -> Option<UnixTime> {
        let stored = Some(device.facts.seen).filter(|seen| *seen > UnixTime::default());
        let heard = self.heard_at(&device.id);
        heard.max(stored)
    }

    fn heard_at(&self, device: &DeviceId) -> Option<UnixTime> {
        let silent_s = self.now.millis_since(self.sessions.heard(device)?) / 1000;
        Some(UnixTime::from_secs(self.today.as_secs().saturating_sub(silent_s)))
    }
}

/// Whether a campaign is for a device: for its class, and for one of its groups.
pub(super) fn is_member(device: &Device, campaign: &whimbrel_protocol::message::Campaign) -> bool {
    device.class == campaign.order.class && device.groups().contains(&campaign.group)
}
