//! What operators ask: answered from memory, changing nothing.

use std::collections::HashMap;

use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, ClassId, DeviceId, ShortDigest};
use whimbrel_protocol::time::{Instant, UnixTime};

use super::Fleet;
use super::campaign::{Campaign, Tally};
use super::command::{Answer, Denied, DevicesPage, Listed, Question, Reply};
use super::payload_names::PayloadNames;
use super::registry::RegistryError;
use super::views::{self, CampaignView};
use crate::store::{Device, Phase, Standing};

/// When those who serve devices last heard one; `None` for not at all.
pub type Heard<'a> = &'a dyn Fn(&DeviceId) -> Option<Instant>;

/// How many of everything there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Devices that are accepted.
    pub accepted: u64,
    /// Devices that wait to be accepted.
    pub pending: u64,
    /// Releases.
    pub releases: u64,
    /// Campaigns.
    pub campaigns: u64,
}

/// What time it is, and when devices were heard.
#[derive(Clone, Copy)]
struct Moment<'a> {
    now: Instant,
    today: UnixTime,
    heard: Heard<'a>,
}

/// What is found once for a list, because many of its devices have it in common.
#[derive(Default)]
struct Names {
    /// What the payloads of a campaign are called.
    payloads: HashMap<CampaignId, PayloadNames>,
    /// The version of an image; `None` if no release has it.
    versions: HashMap<(ClassId, ShortDigest), Option<String>>,
}

/// A device that was heard this recently is probably connected.
const ONLINE_S: u64 = 600;

impl Fleet {
    /// Answers a question.
    #[must_use = "the answer has to be delivered"]
    pub fn answer(&self, now: Instant, today: UnixTime, question: Question, heard: Heard<'_>) -> Answer {
        let moment = Moment { now, today, heard };
        match question {
            Question::Releases(reply) => {
                let releases = self.catalog.releases();
                reply.with(Ok(releases.map(|release| views::release(release, &self.catalog)).collect()))
            }
            Question::Release { prefix, reply } => {
                let found = self.catalog.find(&prefix).map_err(Denied::Catalog);
                reply.with(found.map(|release| views::release(release, &self.catalog)))
            }
            Question::Bases { prefix, group, reply } => {
                let found = self.catalog.find(&prefix).map_err(Denied::Catalog);
                reply.with(found.map(|release| self.view_bases(release, group.as_ref())))
            }
            Question::PayloadSpec { index, reply } => {
                let spec = self.catalog.spec(&index).cloned();
                reply.with(spec.ok_or(Denied::NoSuchPayload { index }))
            }
            Question::Campaigns(reply) => {
                let all = self.campaigns.oldest_first();
                reply.with(Ok(all.into_iter().map(|campaign| self.view_campaign(campaign)).collect()))
            }
            Question::Campaign { prefix, devices, reply } => {
                let found = self.campaigns.find(&prefix).map_err(Denied::Catalog);
                reply.with(found.map(|found| self.view_campaign_devices(found, devices.as_ref(), moment)))
            }
            Question::Device { id, reply } => {
                let known = self.registry.device(&id).filter(|known| known.standing != Standing::Forgotten);
                let shown = known.map(|known| self.device_entry(known, &mut Names::default(), moment));
                reply.with(shown.ok_or(Denied::Registry(RegistryError::Unknown { id })))
            }
            Question::Import { lines, reply } => {
                let planned = self.registry.plan_import(lines).map_err(Denied::Import);
                reply.with(planned.map(|plan| plan.counts()))
            }
            Question::Devices { state, page, reply } => reply.with(Ok(self.devices(state, &page, moment))),
        }
    }

    /// Shows a device after it was changed, as [`Output::ShowDevice`](super::Output::ShowDevice) asks for.
    #[must_use = "the answer has to be delivered"]
    pub fn show_device(
        &self,
        now: Instant,
        today: UnixTime,
        device: &DeviceId,
        reply: Reply<api::Device>,
        heard: Heard<'_>,
    ) -> Answer {
        let moment = Moment { now, today, heard };
        let known = self.registry.device(device);
        let shown = known.map(|known| self.device_entry(known, &mut Names::default(), moment));
        reply.with(shown.ok_or(Denied::Stopping))
    }

    /// How many of everything there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.registry.accepted() as u64,
            pending: self.registry.pending() as u64,
            releases: self.catalog.releases().len() as u64,
            campaigns: self.campaigns.len() as u64,
        }
    }

    pub(super) fn view_campaign(&self, campaign: &Campaign) -> CampaignView {
        if campaign.phase() == Phase::Replaced {
            return CampaignView::of(campaign, &self.catalog, &Tally::default());
        }
        let document = campaign.document();
        let members = self.registry.members(document.order.class, &document.group);
        let mut view = CampaignView::of(campaign, &self.catalog, &campaign.tally(members as u64));
        view.shown.rekeyed = self.view_rekeyed(campaign);
        view
    }

    fn view_campaign_devices(
        &self,
        campaign: &Campaign,
        page: Option<&DevicesPage>,
        moment: Moment<'_>,
    ) -> CampaignView {
        let mut view = self.view_campaign(campaign);
        view.shown.without_patch = self.view_without_patch(campaign);
        let Some(page) = page else { return view };
        let devices = self.devices_of(campaign, page.after.as_ref()).take(page.limit);
        let entries = devices.map(|device| match campaign.progress(&device.id) {
            Some(progress) => {
                let (deployment, fetched) = (&progress.deployment, progress.fetched_percent);
                view.device(&device.id, deployment, fetched)
            }
            None => views::waiting(&device.id, moment.seen(device)),
        });
        let entries = entries.collect();
        view.shown.device_list = Some(entries);
        view
    }

    /// The devices of a campaign in the order of their ids: those that it is for, and those that have begun and have left
    /// its group since.
    fn devices_of<'s>(
        &'s self,
        campaign: &'s Campaign,
        after: Option<&DeviceId>,
    ) -> impl Iterator<Item = &'s Device> {
        let document = campaign.document();
        let members = self.registry.members_after(document.order.class, &document.group, after);
        let gone = campaign.progress_after(after).filter(|(_, progress)| !progress.member);
        let gone = gone.filter_map(|(id, _)| self.registry.device(id));
        let (mut members, mut gone) = (members.peekable(), gone.peekable());
        core::iter::from_fn(move || match (members.peek(), gone.peek()) {
            (Some(member), Some(other)) if other.id < member.id => gone.next(),
            (Some(_), _) => members.next(),
            (None, _) => gone.next(),
        })
    }

    fn devices(&self, listed: Option<Listed>, page: &DevicesPage, moment: Moment<'_>) -> api::Devices {
        let after = page.after.as_ref();
        let (found, more) = match listed {
            None => first(self.registry.devices_after(after), page.limit),
            Some(Listed::Pending) => first(self.registry.pending_after(after).into_iter(), page.limit),
            // Passed over are those that are pending, of which there are few.
            Some(Listed::Accepted) => {
                first(self.registry.devices_after(after).filter(|device| device.is_accepted()), page.limit)
            }
            Some(Listed::Rekeyed) => {
                let behind = |device: &&Device| after.is_none_or(|after| device.id > *after);
                first(self.registry.rekeyed().filter(behind), page.limit)
            }
        };
        let mut names = Names::default();
        let entries = found.into_iter().map(|device| self.device_entry(device, &mut names, moment));
        let entries: Vec<api::Device> = entries.collect();
        let next = entries.last().filter(|_| more).map(|entry| entry.id.clone());
        api::Devices { devices: entries, next }
    }

    /// A device, with names that other devices of the list may have had, too.
    fn device_entry(&self, device: &Device, names: &mut Names, moment: Moment<'_>) -> api::Device {
        let seen = moment.seen(device);
        let online = seen.is_some_and(|seen| seen.plus_secs(ONLINE_S) >= moment.today);
        let ruling = self.campaigns.ruling(device.groups(), device.class);
        let deployment = ruling.and_then(|campaign| {
            let progress = campaign.progress(&device.id)?;
            let names = names.payloads.entry(campaign.id()).or_insert_with(|| {
                let release = self.catalog.release(&campaign.document().order.release);
                release.map_or_else(PayloadNames::default, |release| PayloadNames::of(release, &self.catalog))
            });
            Some(views::deployment(campaign.id(), &progress.deployment, names))
        });
        let (class, running) = (device.class, device.facts.running);
        let version = names.versions.entry((class, running)).or_insert_with(|| {
            let release = self.catalog.of_image(class, running);
            release.map(|release| release.version.clone())
        });
        api::Device {
            warnings: self.warnings_of_device(device),
            ..views::device(device, version.clone(), seen, online, deployment)
        }
    }
}

/// The first devices of many, and whether there are more.
fn first<'d>(mut devices: impl Iterator<Item = &'d Device>, limit: usize) -> (Vec<&'d Device>, bool) {
    let found = devices.by_ref().take(limit).collect();
    (found, devices.next().is_some())
}

impl Moment<'_> {
    /// When a device was last heard; `None` for never.
    fn seen(self, device: &Device) -> Option<UnixTime> {
        let stored = Some(device.facts.seen).filter(|seen| *seen > UnixTime::default());
        self.heard_at(&device.id).max(stored)
    }

    fn heard_at(self, device: &DeviceId) -> Option<UnixTime> {
        let silent_s = self.now.millis_since((self.heard)(device)?) / 1000;
        Some(UnixTime::from_secs(self.today.as_secs().saturating_sub(silent_s)))
    }
}
