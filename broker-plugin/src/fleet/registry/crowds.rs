//! Who is in which group, and which images run there, kept as devices change.
//!
//! What operators are told of a campaign is made of these, so that no view walks over all devices.

use alloc::collections::{BTreeMap, BTreeSet};

use whimbrel_protocol::ids::{ClassId, DeviceId, GroupName, ShortDigest};

use crate::store::{Device, Facts};

/// An image as devices name it in what they say, and how many of them do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its digest, shortened; zero for those that did not say.
    pub image: ShortDigest,
    /// The sequence number that they say with it.
    pub sequence: u64,
    /// How many.
    pub devices: u64,
}

/// The accepted devices, by class and group.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    groups: BTreeMap<(ClassId, GroupName), Crowd>,
    classes: BTreeMap<ClassId, Images>,
}

/// The devices of one class in one group.
#[derive(Debug, Default)]
struct Crowd {
    members: BTreeSet<DeviceId>,
    images: Images,
}

/// What devices run, and how many of them.
#[derive(Debug, Default)]
struct Images(BTreeMap<(ShortDigest, u64), u64>);

impl Crowds {
    /// Enters a device. One that is not accepted is in no crowd.
    pub(super) fn enter(&mut self, device: &Device) {
        if !device.is_accepted() {
            return;
        }
        self.classes.entry(device.class).or_default().add(device.facts);
        for group in device.groups() {
            let crowd = self.groups.entry((device.class, group.clone())).or_default();
            if crowd.members.insert(device.id.clone()) {
                crowd.images.add(device.facts);
            }
        }
    }

    /// Takes out a device that was entered as it is here.
    pub(super) fn take_out(&mut self, device: &Device) {
        if !device.is_accepted() {
            return;
        }
        if let Some(images) = self.classes.get_mut(&device.class) {
            images.remove(device.facts);
            if images.0.is_empty() {
                self.classes.remove(&device.class);
            }
        }
        for group in device.groups() {
            let name = (device.class, group.clone());
            let Some(crowd) = self.groups.get_mut(&name) else { continue };
            if crowd.members.remove(&device.id) {
                crowd.images.remove(device.facts);
            }
            if crowd.members.is_empty() {
                self.groups.remove(&name);
            }
        }
    }

    /// How many devices of a class are in a group.
    pub(super) fn len(&self, class: ClassId, group: &GroupName) -> usize {
        self.groups.get(&(class, group.clone())).map_or(0, |crowd| crowd.members.len())
    }

    /// The devices of a class in a group in the order of their ids, from the first one after `after`.
    pub(super) fn members_after<'s>(
        &'s self,
        class: ClassId,
        group: &GroupName,
        after: Option<&DeviceId>,
    ) -> impl Iterator<Item = &'s DeviceId> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let crowd = self.groups.get(&(class, group.clone()));
        crowd.into_iter().flat_map(move |crowd| crowd.members.range::<DeviceId, _>((from, Unbounded)))
    }

    /// What the devices of a class run: those of one group, or all.
    pub(super) fn running(&self, class: ClassId, group: Option<&GroupName>) -> impl Iterator<Item = Running> {
        let images = match group {
            Some(group) => self.groups.get(&(class, group.clone())).map(|crowd| &crowd.images),
            None => self.classes.get(&class),
        };
        let counted = images.into_iter().flat_map(|images| &images.0);
        counted.map(|(&(image, sequence), &devices)| Running { image, sequence, devices })
    }
}

impl Images {
    fn add(&mut self, facts: Facts) {
        *self.0.entry((facts.running, facts.sequence)).or_default() += 1;
    }

    fn remove(&mut self, facts: Facts) {
        let name = (facts.running, facts.sequence);
        let Some(devices) = self.0.get_mut(&name) else { return };
        *devices -= 1;
        if *devices == 0 {
            self.0.remove(&name);
        }
    }
}
