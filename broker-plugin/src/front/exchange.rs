//! The exchange: the update service's own topics, carried by device id and group beside the router.
//!
//! What devices send goes into the [`Inbox`]. What the service sends goes to the [`Outbox`] of each client that has
//! subscribed: of one device, of a group's members, of all. The exchange also keeps the retained documents, so that a
//! subscription costs a look at one map, however many devices are registered.
//!
//! Everything here has a bound: assignments of as many devices as may be known, campaigns of [`GROUPS_KEPT_MAX`]
//! groups, readers of as many groups as the settings allow, one outbox for each connection.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rumqttd::protocol::QoS;
use whimbrel_protocol::ids::{DeviceId, GroupName, Prefix};
use whimbrel_protocol::topic::Channel;

use super::access::{Access, Role};
use super::counters::Counters;
use super::inbox::Inbox;
use super::outbox::{Outbox, Pool};

/// Carries the service's own topics.
pub(crate) struct Exchange {
    prefix: Prefix,
    access: Arc<dyn Access>,
    counters: Arc<Counters>,
    pool: Arc<Pool>,
    devices_max: usize,
    groups_max: usize,
    inbox: Inbox,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// Number of the next connection.
    next: u64,
    devices: HashMap<DeviceId, Place>,
    /// Devices whose assignment is kept.
    assignments: usize,
    groups: HashMap<GroupName, Shelf>,
    /// Groups whose campaign is kept.
    campaigns: usize,
    /// Groups that somebody has subscribed to.
    groups_read: usize,
    beacon: Shelf,
}

/// What there is of a device: its retained assignment, and its clients.
#[derive(Default)]
struct Place {
    assignment: Option<Bytes>,
    clients: [Option<Arc<Outbox>>; 2],
}

/// A topic of many: its retained document, and who has subscribed.
#[derive(Default)]
struct Shelf {
    document: Option<Bytes>,
    readers: BTreeMap<u64, Arc<Outbox>>,
}

/// A message of the service.
#[derive(Clone, Debug)]
pub(crate) struct ToDevices {
    pub(crate) channel: Channel,
    /// Whose channel it is; `None` for groups and the beacon.
    pub(crate) device: Option<DeviceId>,
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
}

/// A connection's place in the exchange; dropping it gives everything back.
pub(crate) struct Client {
    exchange: Arc<Exchange>,
    outbox: Arc<Outbox>,
    device: DeviceId,
    role: Role,
}

impl Exchange {
    pub(crate) fn new(
        prefix: Prefix,
        access: Arc<dyn Access>,
        counters: Arc<Counters>,
        pool: Arc<Pool>,
        devices_max: usize,
        groups_max: usize,
    ) -> Arc<Self> {
        let inside = Mutex::default();
        Arc::new(Self {
            prefix,
            access,
            counters,
            pool,
            devices_max,
            groups_max,
            inbox: Inbox::new(),
            inside,
        })
    }

    pub(crate) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// What devices send to the service.
    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// A client has been let in.
    pub(crate) fn enter(self: &Arc<Self>, device: &DeviceId, role: Role) -> Client {
        let mut inside = self.inside();
        let outbox = Outbox::new(inside.next, Arc::clone(&self.pool));
        inside.next += 1;
        let clients = &mut inside.devices.entry(device.clone()).or_default().clients;
        *client_of(clients, role) = Some(Arc::clone(&outbox));
        Client { exchange: Arc::clone(self), outbox, device: device.clone(), role }
    }

    /// Delivers and keeps, in the order given.
    pub(crate) fn publish(&self, messages: impl IntoIterator<Item = ToDevices>) {
        let mut wake = Vec::new();
        let mut inside = self.inside();
        for message in messages {
            self.publish_one(&mut inside, &message, &mut wake);
        }
        drop(inside);
        wake.iter().for_each(|outbox| outbox.wake());
    }

    fn publish_one(&self, inside: &mut Inside, message: &ToDevices, wake: &mut Vec<Arc<Outbox>>) {
        let ToDevices { channel, device, topic, payload, retain } = message;
        let push = |outbox: &Arc<Outbox>| {
            let pushed = outbox.push(channel, topic, payload, false);
            Counters::add(&self.counters.messages_lost, pushed.lost);
            if pushed.wake {
                wake.push(Arc::clone(outbox));
            }
        };
        match channel {
            Channel::Answers | Channel::Assignment => {
                let Some(device) = device else { return };
                if let Some(place) = inside.devices.get(device) {
                    place.clients.iter().flatten().for_each(push);
                }
                if *retain && *channel == Channel::Assignment {
                    self.keep_assignment(inside, device, Some(payload));
                }
            }
            Channel::Group(group) => {
                if let Some(shelf) = inside.groups.get(group) {
                    shelf.readers.values().for_each(push);
                }
                if *retain {
                    self.keep_campaign(inside, group, payload);
                }
            }
            Channel::Beacon => {
                inside.beacon.readers.values().for_each(push);
                if *retain {
                    inside.beacon.document = kept(payload);
                }
            }
            Channel::Requests | Channel::Reports => {}
        }
    }

    /// A device is as it is now: keeps its assignment for it, without telling anybody, and ends its subscriptions to
    /// groups that it is no longer in.
    pub(crate) fn device_is(&self, device: &DeviceId, assignment: Option<&Bytes>) {
        let mut inside = self.inside();
        self.keep_assignment(&mut inside, device, assignment);
        let Some(place) = inside.devices.get(device) else { return };
        let clients: Vec<Arc<Outbox>> = place.clients.iter().flatten().cloned().collect();
        for outbox in clients {
            for group in outbox.groups() {
                if !self.access.in_group(device, &group) {
                    inside.unsubscribe(&outbox, &Channel::Group(group));
                    Counters::count(&self.counters.subscriptions_ended);
                }
            }
        }
    }

    fn keep_assignment(&self, inside: &mut Inside, device: &DeviceId, assignment: Option<&Bytes>) {
        let assignment = assignment.and_then(kept);
        if assignment.is_some() && inside.assignments >= self.devices_max {
            let known = inside.devices.get(device).is_some_and(|place| place.assignment.is_some());
            if !known {
                return Counters::count(&self.counters.documents_not_kept);
            }
        }
        let mut place = match inside.devices.entry(device.clone()) {
            Entry::Vacant(_) if assignment.is_none() => return,
            Entry::Vacant(vacant) => vacant.insert_entry(Place::default()),
            Entry::Occupied(occupied) => occupied,
        };
        inside.assignments += usize::from(assignment.is_some());
        inside.assignments -= usize::from(place.get().assignment.is_some());
        place.get_mut().assignment = assignment;
        if place.get().is_empty() {
            place.remove();
        }
    }

    fn keep_campaign(&self, inside: &mut Inside, group: &GroupName, document: &Bytes) {
        let document = kept(document);
        let known = inside.groups.get(group).is_some_and(|shelf| shelf.document.is_some());
        if document.is_some() && !known && inside.campaigns >= GROUPS_KEPT_MAX {
            return Counters::count(&self.counters.documents_not_kept);
        }
        inside.campaigns += usize::from(document.is_some());
        inside.campaigns -= usize::from(known);
        inside.groups.entry(group.clone()).or_default().document = document;
        inside.forget_if_empty(group);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Where its messages wait.
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Subscribes to one of the topics that the device may read; returns the QoS that is granted. What is kept there
    /// waits in the outbox when this returns. A topic that is subscribed already keeps its QoS.
    pub(crate) fn subscribe(&self, channel: &Channel, topic: &str, qos: QoS) -> Option<QoS> {
        let Exchange { access, counters, groups_max, .. } = &*self.exchange;
        // Under this lock also `device_is` asks who is in the group: no change comes in between.
        let mut inside = self.exchange.inside();
        if let Channel::Group(group) = channel
            && !access.in_group(&self.device, group)
        {
            return None;
        }
        if let Some(known) = self.outbox.granted(channel) {
            return Some(known);
        }
        let document = match channel {
            Channel::Group(group) => {
                let read = inside.groups.get(group).is_some_and(|shelf| !shelf.readers.is_empty());
                if !read && inside.groups_read >= *groups_max {
                    Counters::count(&counters.subscribe_refused_groups_max);
                    return None;
                }
                inside.groups_read += usize::from(!read);
                let shelf = inside.groups.entry(group.clone()).or_default();
                shelf.readers.insert(self.outbox.number(), Arc::clone(&self.outbox));
                shelf.document.clone()
            }
            Channel::Beacon => {
                inside.beacon.readers.insert(self.outbox.number(), Arc::clone(&self.outbox));
                inside.beacon.document.clone()
            }
            Channel::Assignment => {
                inside.devices.get(&self.device).and_then(|place| place.assignment.clone())
            }
            Channel::Answers => None,
            Channel::Requests | Channel::Reports => return None,
        };
        self.outbox.grant(channel, qos);
        if let Some(document) = document {
            let pushed =
                self.outbox.push(channel, &Bytes::copy_from_slice(topic.as_bytes()), &document, true);
            Counters::add(&counters.messages_lost, pushed.lost);
            self.outbox.wake();
        }
        Some(qos)
    }

    /// Ends a subscription; false where there is none.
    pub(crate) fn unsubscribe(&self, channel: &Channel) -> bool {
        self.exchange.inside().unsubscribe(&self.outbox, channel)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut inside = self.exchange.inside();
        for group in self.outbox.groups() {
            inside.unsubscribe(&self.outbox, &Channel::Group(group));
        }
        inside.unsubscribe(&self.outbox, &Channel::Beacon);
        let Entry::Occupied(mut place) = inside.devices.entry(self.device.clone()) else { return };
        let client = client_of(&mut place.get_mut().clients, self.role);
        // A newer connection of the same client may sit there already.
        if client.as_ref().is_some_and(|outbox| outbox.number() == self.outbox.number()) {
            *client = None;
        }
        if place.get().is_empty() {
            place.remove();
        }
    }
}

impl Inside {
    fn unsubscribe(&mut self, outbox: &Outbox, channel: &Channel) -> bool {
        match channel {
            Channel::Group(group) => {
                if let Some(shelf) = self.groups.get_mut(group)
                    && shelf.readers.remove(&outbox.number()).is_some()
                    && shelf.readers.is_empty()
                {
                    self.groups_read -= 1;
                }
                self.forget_if_empty(group);
            }
            Channel::Beacon => drop(self.beacon.readers.remove(&outbox.number())),
            _ => {}
        }
        outbox.revoke(channel)
    }

    fn forget_if_empty(&mut self, group: &GroupName) {
        if self.groups.get(group).is_some_and(|shelf| shelf.document.is_none() && shelf.readers.is_empty()) {
            self.groups.remove(group);
        }
    }
}

impl Place {
    fn is_empty(&self) -> bool {
        self.assignment.is_none() && self.clients.iter().all(Option::is_none)
    }
}

fn client_of(clients: &mut [Option<Arc<Outbox>>; 2], role: Role) -> &mut Option<Arc<Outbox>> {
    let [own, agent] = clients;
    match role {
        Role::Device => own,
        Role::Agent => agent,
    }
}

/// An empty document is forgotten.
fn kept(document: &Bytes) -> Option<Bytes> {
    (!document.is_empty()).then(|| document.clone())
}

/// Groups whose campaign is kept.
pub(crate) const GROUPS_KEPT_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
