//! A change that is decided and signed: what of it is stored, and what it does once it is in force.

use bytes::Bytes;
use whimbrel_protocol::message;

use super::campaign::{self, Campaign};
use super::changes::Signed;
use super::{Event, Fleet, Output, Publication};
use crate::store::{CampaignRow, Change, Device, Phase};

impl Fleet {
    /// What to store for a change.
    pub(super) fn changes_of(&self, signed: &Signed) -> Vec<Change> {
        let beacon = |beacon: &message::Beacon| Change::Beacon {
            version: beacon.validity.version,
            issued: beacon.validity.issued,
        };
        match signed {
            Signed::Release(release) => Vec::from([Change::Release(release.row())]),
            Signed::Payload(row) => Vec::from([Change::Payload(*row)]),
            Signed::Campaign { document, row, beacon: (named, _) } => {
                let mut changes = Vec::from([Change::Campaign(row.clone()), beacon(named)]);
                // The campaign whose place a new one takes.
                let before = self.campaigns.of_group(&document.group).filter(|before| before.id() != row.id);
                let replaced = before.map(|before| before.row(Phase::Replaced, before.signed().clone()));
                changes.extend(replaced.map(Change::Campaign));
                changes
            }
            Signed::Devices(devices) => devices.iter().cloned().map(Change::Device).collect(),
            Signed::Reset(device) => {
                // Another key counts its reports from the beginning, and each must count more than those of this one.
                Vec::from([Change::Device((**device).clone()), Change::ReportsAnew(device.id.clone())])
            }
            Signed::Beacon(named, _) => Vec::from([beacon(named)]),
        }
    }

    /// What was stored counts from now on. `each` says whether each device of many is told of.
    pub(super) fn in_force(&mut self, signed: Signed, each: bool) {
        match signed {
            Signed::Release(release) => {
                let version = release.version.clone();
                self.tell(Event::ReleaseStored { release: release.digest, version });
                self.catalog.enter(*release);
                self.epoch += 1;
            }
            Signed::Payload(row) => {
                let bytes = row.layout.transfer_size();
                self.tell(Event::PayloadStored { index: row.index, bytes });
                self.catalog.enter_payload(row);
                self.epoch += 1;
            }
            Signed::Campaign { document, row, beacon: (_, beacon) } => {
                self.campaign_in_force(document, &row);
                self.beacon_in_force(beacon);
            }
            Signed::Devices(devices) => {
                for device in devices {
                    let version = device.assignment_version;
                    if each {
                        self.tell(Event::DeviceAccepted { device: device.id.clone(), version });
                    }
                    self.enter_device(device);
                }
            }
            Signed::Reset(device) => {
                self.tell(Event::DeviceReset { device: device.id.clone() });
                self.campaigns.reports_anew(&device.id);
                self.enter_device(*device);
            }
            Signed::Beacon(_, beacon) => self.beacon_in_force(beacon),
        }
    }

    fn enter_device(&mut self, device: Device) {
        let id = device.id.clone();
        self.enter_into_registry(device);
        self.outputs.push_back(Output::Changed(id.clone()));
        self.outputs.push_back(Output::Publish(Publication::Assignment(id)));
    }

    fn campaign_in_force(&mut self, document: Box<message::Campaign>, row: &CampaignRow) {
        let group = document.group.clone();
        let version = document.validity.version;
        let event =
            Event::CampaignInForce { campaign: row.id, group: group.clone(), version, phase: row.phase };
        self.tell(event);
        let before = self.campaigns.of_group(&group).map(Campaign::id).filter(|before| *before != row.id);
        if let Some(before) = before.and_then(|before| self.campaigns.campaign_mut(&before)) {
            before.handle_input(self.today, campaign::Input::Replaced);
        }
        if let Some(campaign) = self.campaigns.campaign_mut(&row.id) {
            let signed = row.document.clone();
            campaign.handle_input(self.today, campaign::Input::InForce { document, signed });
            self.campaigns.raise(version);
        } else {
            self.campaigns.enter(Campaign::new(*document, row));
        }
        self.epoch += 1;
        self.outputs.push_back(Output::Publish(Publication::Campaign(group)));
    }

    /// A beacon is stored: it is published, and the next one is due after the usual time.
    fn beacon_in_force(&mut self, signed: Bytes) {
        self.beacon = Some(signed);
        self.beacon_due = self.now.plus_millis(self.settings.beacon_every_ms);
        self.outputs.push_back(Output::Publish(Publication::Beacon));
    }
}
