//! What stays with the broker for devices that come later: assignments, campaigns, the beacon.
//!
//! All of it only saves a round trip; the answer to a hello brings the same. A broker that has just come up knows
//! nothing, so that everything is published again, a part at each turn of the loop.

use alloc::collections::VecDeque;

use bytes::Bytes;
use whimbrel_protocol::ids::{DeviceId, GroupName};
use whimbrel_protocol::message::{Beacon, Validity, group_hash};
use whimbrel_protocol::topic::Channel;

use super::Core;
use crate::attach::BrokerLink;
use crate::metrics::Counters;
use crate::store::Standing;

/// What is to be published.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    queue: VecDeque<Announcement>,
    /// All assignments are to be published: those after this device.
    assignments: Option<Option<DeviceId>>,
}

#[derive(Debug)]
pub(super) enum Announcement {
    /// The assignment of a device, or nothing where it has none.
    Assignment(DeviceId),
    Campaign(GroupName),
    Beacon,
}

/// Documents published at each turn.
const BATCH: usize = 128;
/// When a beacon could not be made durable it is tried again after this long.
pub(super) const BEACON_RETRY_MS: u64 = 30_000;

impl Announcements {
    /// Everything is to be published again.
    pub(super) fn all(&mut self) {
        self.queue.clear();
        self.queue.push_back(Announcement::Beacon);
        self.assignments = Some(None);
    }

    pub(super) fn add(&mut self, announcement: Announcement) {
        self.queue.push_back(announcement);
    }

    /// How many are still to be published; all those of many devices count as one.
    pub(super) fn under_way(&self) -> usize {
        self.queue.len() + usize::from(self.assignments.is_some())
    }

    /// Whether there is something to publish and somebody to publish it to.
    pub(super) fn is_due(&self, up: bool) -> bool {
        up && (!self.queue.is_empty() || self.assignments.is_some())
    }
}

impl<L: BrokerLink> Core<L> {
    /// Publishes some of what is to be published.
    pub(super) fn announce(&mut self) {
        if !self.outbox.up {
            // When the link comes up all is published.
            self.announcements = Announcements::default();
            return;
        }
        if !self.outbox.has_room() {
            return; // The broker is behind.
        }
        for _ in 0..BATCH {
            match self.announcements.queue.pop_front() {
                Some(announcement) => self.publish(&announcement),
                None => break,
            }
        }
        if let Some(after) = self.announcements.assignments.take() {
            self.announce_everything_after(after);
        }
    }

    fn announce_everything_after(&mut self, after: Option<DeviceId>) {
        if after.is_none() {
            let groups: Vec<GroupName> = self.campaigns.groups().map(|(group, _)| group.clone()).collect();
            self.announcements.queue.extend(groups.into_iter().map(Announcement::Campaign));
        }
        let devices: Vec<DeviceId> =
            self.registry.devices_after(after.as_ref()).take(BATCH).map(|device| device.id.clone()).collect();
        self.announcements.assignments = devices.last().cloned().map(Some);
        for device in devices {
            if self.registry.device(&device).is_some_and(crate::store::Device::is_accepted) {
                self.publish(&Announcement::Assignment(device));
            }
        }
    }

    fn publish(&mut self, announcement: &Announcement) {
        let prefix = &self.settings.prefix;
        match announcement {
            Announcement::Assignment(device) => {
                let topic = Channel::Assignment.topic(prefix, device);
                let payload = match self.registry.device(device).map(|known| &known.standing) {
                    Some(Standing::Accepted { assignment, .. }) => assignment.clone(),
                    _ => Bytes::new(),
                };
                self.outbox.retain(topic, payload);
            }
            Announcement::Campaign(group) => {
                if let Some(campaign) = self.campaigns.of_group(group) {
                    self.outbox.retain(group_topic(prefix, group), campaign.signed().clone());
                }
            }
            Announcement::Beacon => {
                if let Some(beacon) = &self.beacon.current {
                    Counters::count(&self.counters.beacons);
                    self.outbox.retain(format!("{prefix}/t"), beacon.clone());
                }
            }
        }
    }

    /// The next beacon, to be signed; `also` is a campaign that will be in force with it.
    pub(super) fn next_beacon(&self, also: Option<(&GroupName, u64)>) -> Beacon {
        let in_force = self.campaigns.groups().filter_map(|(group, campaign)| {
            let version = campaign?.document().validity.version;
            also.is_none_or(|(other, _)| other != group).then_some((group, version))
        });
        Beacon {
            prefix: self.settings.prefix.clone(),
            validity: Validity {
                version: self.beacon.version + 1,
                issued: self.today,
                expires: self.today.plus_secs(self.settings.beacon_life_s),
            },
            groups: in_force.chain(also).map(|(group, version)| (group_hash(group), version)).collect(),
            root: self.authority.root().version,
        }
    }

    /// A beacon is stored: it is published, and the next one is due after the usual time.
    pub(super) fn beacon_in_force(&mut self, version: u64, signed: Bytes) {
        self.beacon.version = self.beacon.version.max(version);
        self.beacon.current = Some(signed);
        self.beacon.due = self.now.plus_millis(self.settings.beacon_every_ms);
        self.announcements.add(Announcement::Beacon);
    }
}

fn group_topic(prefix: &whimbrel_protocol::ids::Prefix, group: &GroupName) -> String {
    format!("{prefix}/g/{group}")
}
