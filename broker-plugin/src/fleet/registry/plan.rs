//! What an operator wants of devices, planned: checked against what is known, and what to sign and store for it. Nothing
//! here changes a device.

use bytes::Bytes;
use whimbrel_protocol::cose::{Fingerprint, PublicKey};
use whimbrel_protocol::ids::{ClassId, DeviceId, GroupName};
use whimbrel_protocol::limits::GROUPS_MAX;

use super::{ACCEPTED_MAX, ImportError, ImportLine, PENDING_MAX, Registry, RegistryError};
use crate::store::{Device, Facts, Reported, Standing};

/// A device that is to be accepted, or to have other groups: what to sign for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAssignment {
    /// Which device.
    pub device: DeviceId,
    /// Its hardware.
    pub class: ClassId,
    /// Its key.
    pub key: PublicKey,
    /// Its groups.
    pub groups: Vec<GroupName>,
    /// Version of the assignment to be signed.
    pub version: u64,
}

/// What an import would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportPlan {
    /// Devices to accept.
    pub assignments: Vec<NewAssignment>,
    /// Lines that say what is already so.
    pub unchanged: usize,
}

impl ImportPlan {
    /// The same in numbers.
    #[must_use]
    pub fn counts(&self) -> whimbrel_api::Imported {
        whimbrel_api::Imported { imported: self.assignments.len() as u64, unchanged: self.unchanged as u64 }
    }
}

impl NewAssignment {
    /// The device once its assignment is signed.
    #[must_use]
    pub fn into_device(self, assignment: Bytes) -> Device {
        Device {
            id: self.device,
            class: self.class,
            standing: Standing::Accepted { key: self.key, groups: self.groups, assignment },
            assignment_version: self.version,
            facts: Facts::default(),
            reported: Reported::default(),
            rekeyed: None,
        }
    }
}

impl Registry {
    /// Plans to accept a pending device whose key has `fingerprint`. `None` if it is accepted with these groups
    /// already.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn plan_accept(
        &self,
        id: &DeviceId,
        fingerprint: Fingerprint,
        groups: Option<Vec<GroupName>>,
    ) -> Result<Option<NewAssignment>, RegistryError> {
        let device = self.known(id)?;
        let key = device.key().ok_or_else(|| RegistryError::Unknown { id: id.clone() })?;
        if key.fingerprint() != fingerprint {
            let brought = key.fingerprint();
            return Err(RegistryError::Fingerprint { id: id.clone(), brought, given: fingerprint });
        }
        let groups = match (groups, &device.standing) {
            (Some(groups), _) => groups,
            (None, Standing::Accepted { groups, .. }) => groups.clone(),
            (None, Standing::Pending { groups, .. }) if !groups.is_empty() => groups.clone(),
            (None, Standing::Pending { .. } | Standing::Forgotten) => default_groups(),
        };
        check_groups(&groups)?;
        if device.is_accepted() && device.groups() == groups {
            return Ok(None);
        }
        self.check_room(usize::from(device.is_pending()))?;
        Ok(Some(self.assignment(device, key.clone(), groups)))
    }

    /// Plans to give an accepted device other groups. `None` if it has them already.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn plan_groups(
        &self,
        id: &DeviceId,
        groups: Vec<GroupName>,
    ) -> Result<Option<NewAssignment>, RegistryError> {
        let device = self.known(id)?;
        let Standing::Accepted { key, groups: before, .. } = &device.standing else {
            return Err(RegistryError::NotAccepted { id: id.clone() });
        };
        check_groups(&groups)?;
        Ok((*before != groups).then(|| self.assignment(device, key.clone(), groups)))
    }

    /// Plans to forget a device's key. If the device brought another one, that one waits to be accepted from then on.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn plan_reset(&mut self, id: &DeviceId) -> Result<Device, RegistryError> {
        let device = self.known(id)?;
        let Some(rekeyed) = device.rekeyed.as_deref().filter(|_| self.pending.len() < PENDING_MAX) else {
            return Ok(forgotten(device));
        };
        let (key, groups) = (rekeyed.key.clone(), device.groups().to_vec());
        let standing = Standing::Pending { key, order: self.next_order, groups };
        let planned = Device { standing, class: rekeyed.class, ..forgotten(device) };
        self.next_order += 1; // It is taken, whoever enrols before the reset is stored.
        Ok(planned)
    }

    /// Plans to accept all devices of an import.
    ///
    /// # Errors
    /// [`ImportError`] names the first line that cannot be.
    pub fn plan_import(&self, lines: Vec<ImportLine>) -> Result<ImportPlan, ImportError> {
        let mut plan = ImportPlan::default();
        let mut new = 0;
        for line in lines {
            let number = line.number;
            let known = self.devices.get(&line.device);
            // Whoever may connect can enrol under any id: a key that only waits does not stand in an operator's way.
            let accepted = known.filter(|device| device.is_accepted());
            if accepted.is_some_and(|device| device.key() != Some(&line.key)) {
                return Err(ImportError::OtherKey { line: number, id: line.device });
            }
            let same = known.is_some_and(|device| {
                device.is_accepted() && device.class == line.class && device.groups() == line.groups
            });
            if same {
                plan.unchanged += 1;
                continue;
            }
            new += usize::from(!known.is_some_and(Device::is_accepted));
            plan.assignments.push(NewAssignment {
                version: self.version_after(known.map_or(0, |device| device.assignment_version)),
                device: line.device,
                class: line.class,
                key: line.key,
                groups: line.groups,
            });
        }
        self.check_room(new).map_err(|_| ImportError::Full { limit: ACCEPTED_MAX })?;
        Ok(plan)
    }

    fn assignment(&self, device: &Device, key: PublicKey, groups: Vec<GroupName>) -> NewAssignment {
        let (device, class, version) =
            (device.id.clone(), device.class, self.version_after(device.assignment_version));
        NewAssignment { device, class, key, groups, version }
    }

    fn known(&self, id: &DeviceId) -> Result<&Device, RegistryError> {
        let device = self.devices.get(id).filter(|device| device.standing != Standing::Forgotten);
        device.ok_or_else(|| RegistryError::Unknown { id: id.clone() })
    }

    fn check_room(&self, more: usize) -> Result<(), RegistryError> {
        let enough = self.accepted + more <= ACCEPTED_MAX;
        if enough { Ok(()) } else { Err(RegistryError::Full { limit: ACCEPTED_MAX }) }
    }
}

/// A device whose key is forgotten, with everything that belonged to that key.
pub(super) fn forgotten(device: &Device) -> Device {
    let (standing, reported) = (Standing::Forgotten, Reported::default());
    Device { standing, reported, rekeyed: None, ..device.clone() }
}

/// The group of a device when nothing else is said.
pub(super) fn default_groups() -> Vec<GroupName> {
    Vec::from([GroupName::new("all").expect("three letters")])
}

/// Checks that groups are few and each stands once.
pub(super) fn check_groups(groups: &[GroupName]) -> Result<(), RegistryError> {
    if groups.len() > GROUPS_MAX {
        return Err(RegistryError::TooManyGroups { got: groups.len(), limit: GROUPS_MAX });
    }
    let twice =
        groups.iter().enumerate().find(|(at, group)| groups.iter().take(*at).any(|other| other == *group));
    match twice {
        Some((_, group)) => Err(RegistryError::GroupTwice { group: group.clone() }),
        None => Ok(()),
    }
}
