//! What stays with the broker for devices that come later: assignments, campaigns, the beacon.
//!
//! All of it only saves a round trip; the answer to a hello brings the same. A broker that has just come up may know
//! nothing, so that everything is published again, a part at a time. The embedded broker is given the assignments
//! otherwise ([`device_is`](crate::attach::BrokerLink::device_is)): of it only campaigns and the beacon are published.

use alloc::collections::VecDeque;

use whimbrel_protocol::ids::{DeviceId, GroupName};
use whimbrel_protocol::topic::Channel;

use super::Serving;
use crate::fleet::{Fleet, Publication};
use crate::metrics::Counters;
use crate::store::Device;

/// What is to be published.
#[derive(Debug, Default)]
pub(super) struct Retained {
    queue: VecDeque<Publication>,
    /// All campaigns are to be published.
    campaigns: bool,
    /// All assignments are to be published: those after this device.
    assignments: Option<Option<DeviceId>>,
}

/// Documents published at each turn.
const BATCH: usize = 128;

impl Retained {
    /// Everything is to be published again, assignments only if they may be forgotten.
    pub(super) fn all(&mut self, assignments: bool) {
        self.queue.clear();
        self.queue.push_back(Publication::Beacon);
        self.campaigns = true;
        self.assignments = assignments.then_some(None);
    }

    pub(super) fn add(&mut self, publication: Publication) {
        self.queue.push_back(publication);
    }

    /// How many are still to be published; all those of many devices count as one.
    pub(super) fn under_way(&self) -> usize {
        self.queue.len() + usize::from(self.campaigns) + usize::from(self.assignments.is_some())
    }

    /// Whether there is something to publish and somebody to publish it to.
    pub(super) fn is_due(&self, up: bool) -> bool {
        up && self.under_way() > 0
    }
}

impl Serving {
    /// Publishes some of what is to be published.
    pub(super) fn publish_retained(&mut self, fleet: &Fleet) {
        if !self.up {
            // When the link comes up all is published.
            self.retained = Retained::default();
            return;
        }
        if !self.has_room() {
            return; // The broker is behind.
        }
        for _ in 0..BATCH {
            match self.retained.queue.pop_front() {
                Some(publication) => self.publish_document(fleet, &publication),
                None => break,
            }
        }
        if core::mem::take(&mut self.retained.campaigns) {
            let groups: Vec<GroupName> = fleet.campaigns().groups().map(|(group, _)| group.clone()).collect();
            self.retained.queue.extend(groups.into_iter().map(Publication::Campaign));
        }
        if let Some(after) = self.retained.assignments.take() {
            self.publish_assignments_after(fleet, after);
        }
    }

    fn publish_assignments_after(&mut self, fleet: &Fleet, after: Option<DeviceId>) {
        let devices: Vec<&Device> = fleet.registry().devices_after(after.as_ref()).take(BATCH).collect();
        self.retained.assignments = devices.last().map(|device| Some(device.id.clone()));
        for device in devices {
            if device.is_accepted() {
                self.publish_document(fleet, &Publication::Assignment(device.id.clone()));
            }
        }
    }

    fn publish_document(&mut self, fleet: &Fleet, publication: &Publication) {
        match publication {
            Publication::Assignment(device) => {
                let topic = Channel::Assignment.topic(&self.prefix, device);
                let known = fleet.registry().device(device);
                let assignment = known.and_then(|known| known.assignment()).cloned();
                self.retain(topic, assignment.unwrap_or_default());
            }
            Publication::Campaign(group) => {
                if let Some(campaign) = fleet.campaigns().of_group(group) {
                    self.retain(format!("{}/g/{group}", self.prefix), campaign.signed().clone());
                }
            }
            Publication::Beacon => {
                if let Some(beacon) = fleet.beacon() {
                    Counters::count(&self.counters.beacons);
                    self.retain(format!("{}/t", self.prefix), beacon.clone());
                }
            }
        }
    }
}
