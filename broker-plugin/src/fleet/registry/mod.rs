//! Which devices there are: enrolment and everything that an operator does about devices (SPEC section 9.2).
//!
//! The rules, each with a test that bears its name:
//!
//! - a device introduces itself; it is *pending* until an operator accepts it by the fingerprint of its key;
//! - at most [`PENDING_MAX`] are pending, and the oldest makes room;
//! - an accepted device is never given another key unless it is reset; the same key again changes nothing;
//! - what is imported at once takes the place of a key that waits, whoever enrolled it;
//! - an import is taken a thousand lines at a time, each thousand whole or not at all.
//!
//! [`Registry`] holds every device in memory and decides. Changes that an operator asks for are only *planned*, in
//! `plan`; they take effect by [`Registry::enter`] once they are signed and stored.

mod crowds;
mod error;
mod import;
mod plan;

use alloc::collections::{BTreeMap, BTreeSet};
use core::sync::atomic::{AtomicU64, Ordering};

use whimbrel_protocol::ids::{ClassId, DeviceId, GroupName};
use whimbrel_protocol::message::Enrolment;
use whimbrel_protocol::time::UnixTime;

pub use crowds::Running;
pub use error::{ImportError, RegistryError};
pub use import::{IMPORT_LINE_BYTES_MAX, IMPORT_LINES_MAX, ImportLine, ImportReader, read_import};
pub use plan::{ImportPlan, NewAssignment};

use crate::store::{Device, Facts, Rekeyed, Reported, Standing};
use crowds::Crowds;
use plan::forgotten;

/// Most devices that wait to be accepted.
pub const PENDING_MAX: usize = 10_000;
/// Most devices that are accepted.
pub const ACCEPTED_MAX: usize = 1_000_000;

/// Every device that the service knows.
#[derive(Debug, Default)]
pub struct Registry {
    devices: BTreeMap<DeviceId, Device>,
    /// Pending devices by the order in which they came.
    pending: BTreeMap<u64, DeviceId>,
    accepted: usize,
    next_order: u64,
    crowds: Crowds,
    /// Devices, and images that devices run, which were looked at by all who walk over several.
    looked_at: AtomicU64,
    /// Accepted devices that bring another key.
    rekeyed: BTreeSet<DeviceId>,
    /// Assignments that are signed from now on have higher versions than this.
    versions_above: u64,
}

/// What became of an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// The device is pending now; another may have made room for it.
    Pending {
        /// The device, to be stored.
        device: Device,
        /// Who made room, to be stored too.
        dropped: Option<DeviceId>,
    },
    /// It was known with this key.
    Known,
    /// The id has another key, which stays. An accepted device is rekeyed from now on.
    OtherKey,
}

impl Registry {
    /// The registry with these devices.
    #[must_use]
    pub fn load(devices: Vec<Device>) -> Self {
        let mut registry = Self::default();
        for device in devices {
            registry.enter(device);
        }
        registry
    }

    /// Assignments that are signed from now on have higher versions than `versions_above`.
    pub fn number_above(&mut self, versions_above: u64) {
        self.versions_above = self.versions_above.max(versions_above);
    }

    fn version_after(&self, version: u64) -> u64 {
        version.max(self.versions_above) + 1
    }

    /// One device.
    #[must_use]
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.get(id)
    }

    /// Devices in the order of their ids, from the first one after `after`. Forgotten ones are left out.
    pub fn devices_after(&self, after: Option<&DeviceId>) -> impl Iterator<Item = &Device> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let range = self.devices.range::<DeviceId, _>((from, Unbounded));
        range.map(|(_, device)| self.look(device)).filter(|device| device.standing != Standing::Forgotten)
    }

    /// Those that wait to be accepted, in the order of their ids, from the first one after `after`.
    #[must_use]
    pub fn pending_after(&self, after: Option<&DeviceId>) -> Vec<&Device> {
        let wanted = |id: &&DeviceId| after.is_none_or(|after| *id > after);
        let found = self.pending.values().filter(wanted).filter_map(|id| self.devices.get(id));
        let mut found: Vec<&Device> = found.map(|device| self.look(device)).collect();
        found.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        found
    }

    /// How many accepted devices of a class are in a group. Kept as devices change.
    #[must_use]
    pub fn members(&self, class: ClassId, group: &GroupName) -> usize {
        self.crowds.len(class, group)
    }

    /// The accepted devices of a class in a group, in the order of their ids, from the first one after `after`.
    pub fn members_after(
        &self,
        class: ClassId,
        group: &GroupName,
        after: Option<&DeviceId>,
    ) -> impl Iterator<Item = &Device> {
        let members = self.crowds.members_after(class, group, after);
        members.filter_map(|id| self.devices.get(id)).map(|device| self.look(device))
    }

    /// Which images the accepted devices of a class run: those of one group, or all. Kept as devices change.
    pub fn running(&self, class: ClassId, group: Option<&GroupName>) -> impl Iterator<Item = Running> {
        self.crowds.running(class, group).inspect(|_| {
            self.look(&());
        })
    }

    /// How many devices, and images that devices run, were looked at by all who walk over several. A view that looks at
    /// every device makes all devices wait.
    #[must_use]
    pub fn looked_at(&self) -> u64 {
        self.looked_at.load(Ordering::Relaxed)
    }

    fn look<'t, T>(&self, at: &'t T) -> &'t T {
        self.looked_at.fetch_add(1, Ordering::Relaxed);
        at
    }

    /// How many are accepted.
    #[must_use]
    pub const fn accepted(&self) -> usize {
        self.accepted
    }

    /// How many wait to be accepted.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A device introduced itself; its signature was verified with the key that it brings.
    ///
    /// Takes effect at once: a pending device that is lost introduces itself again.
    pub fn enrol(&mut self, enrolment: Enrolment, today: UnixTime) -> Enrolled {
        if let Some(known) = self.devices.get_mut(&enrolment.device)
            && let Some(key) = known.key()
        {
            if *key == enrolment.key {
                return Enrolled::Known;
            }
            if known.is_accepted() {
                let Enrolment { device, key, class } = enrolment;
                known.rekeyed = Some(Box::new(Rekeyed { key, class, seen: today }));
                self.rekeyed.insert(device);
            }
            return Enrolled::OtherKey;
        }
        let oldest = if self.pending.len() >= PENDING_MAX { self.pending.first_key_value() } else { None };
        let dropped = oldest.map(|(_, id)| id.clone());
        if let Some(id) = &dropped {
            self.drop_pending(id);
        }
        let known = self.devices.get(&enrolment.device);
        let device = Device {
            class: enrolment.class,
            standing: Standing::Pending { key: enrolment.key, order: self.next_order, groups: Vec::new() },
            assignment_version: known.map_or(0, |device| device.assignment_version),
            facts: known.map_or_else(Facts::default, |device| device.facts),
            reported: Reported::default(),
            rekeyed: None,
            id: enrolment.device,
        };
        self.enter(device.clone());
        Enrolled::Pending { device, dropped }
    }

    /// A pending device makes room; the version of its assignment, if it ever had one, is kept.
    fn drop_pending(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get(id) else { return };
        if device.assignment_version > 0 {
            let forgotten = forgotten(device);
            self.enter(forgotten);
        } else {
            self.take_out(id);
        }
    }

    /// Enters a device as it is now, with what it last said about itself if that is known. Its reports go on where they
    /// were unless it has another key.
    pub fn enter(&mut self, device: Device) {
        let before = self.take_out(&device.id);
        match &device.standing {
            Standing::Accepted { .. } => self.accepted += 1,
            Standing::Pending { order, .. } => {
                self.next_order = self.next_order.max(order + 1);
                self.pending.insert(*order, device.id.clone());
            }
            Standing::Forgotten => {}
        }
        let facts = before.as_ref().map_or(device.facts, |before| before.facts);
        let before = before.filter(|before| before.key() == device.key());
        let (reported, rekeyed) =
            before.map_or((device.reported, device.rekeyed), |before| (before.reported, before.rekeyed));
        if rekeyed.is_some() {
            self.rekeyed.insert(device.id.clone());
        }
        let device = Device { facts, reported, rekeyed, ..device };
        self.crowds.enter(&device);
        self.devices.insert(device.id.clone(), device);
    }

    fn take_out(&mut self, id: &DeviceId) -> Option<Device> {
        let device = self.devices.remove(id)?;
        self.crowds.take_out(&device);
        self.rekeyed.remove(id);
        match device.standing {
            Standing::Accepted { .. } => self.accepted -= 1,
            Standing::Pending { order, .. } => drop(self.pending.remove(&order)),
            Standing::Forgotten => {}
        }
        Some(device)
    }

    /// Notes what a device said about itself. Says whether it is worth storing: something changed, or it was not
    /// heard for an hour.
    pub fn heard(&mut self, id: &DeviceId, facts: Facts) -> bool {
        const WORTH_STORING_S: u64 = 3600;
        let Some(device) = self.devices.get_mut(id) else { return false };
        let known = device.facts;
        let other = (facts.running, facts.sequence) != (known.running, known.sequence);
        if other {
            self.crowds.take_out(device);
        }
        device.facts = facts;
        if other {
            self.crowds.enter(device);
        }
        other || facts.seen.as_secs() >= known.seen.as_secs() + WORTH_STORING_S
    }

    /// Notes what a new report said. Says whether its number is higher than that of every report before it: only then it
    /// says anything about what the device runs now.
    pub fn reported(&mut self, id: &DeviceId, says: Reported) -> bool {
        let Some(device) = self.devices.get_mut(id) else { return false };
        let news = says.next > device.reported.next;
        if news {
            device.reported = says;
        }
        news
    }

    /// Accepted devices that bring another key, in the order of their ids.
    pub fn rekeyed(&self) -> impl Iterator<Item = &Device> {
        self.rekeyed.iter().filter_map(|id| self.devices.get(id))
    }

    /// The accepted key of a device has signed something new, so that it does not bring another one any more. Says
    /// whether it did before.
    pub fn has_its_key(&mut self, id: &DeviceId) -> bool {
        let known = self.devices.get_mut(id);
        self.rekeyed.remove(id) && known.is_some_and(|device| device.rekeyed.take().is_some())
    }
}

#[cfg(test)]
mod tests;
