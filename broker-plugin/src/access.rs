//! What the front door asks about devices: passwords, and who is in which group.
//!
//! Asked on the door's network threads for every login and subscription, so that it is answered from memory.

use alloc::sync::Arc;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use whimbrel_protocol::ids::{DeviceId, GroupName};

use crate::front::{Access, Login, Refusal};
use crate::passwords::PasswordFile;
use crate::store::Device;

/// Which groups each accepted device is in. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    groups: Arc<RwLock<HashMap<DeviceId, Vec<GroupName>>>>,
}

impl Membership {
    /// Enters a device as it is now.
    pub fn enter(&self, device: &Device) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if device.is_accepted() {
            groups.insert(device.id.clone(), device.groups().to_vec());
        } else {
            groups.remove(&device.id);
        }
    }

    /// Whether the device is accepted and in this group.
    #[must_use]
    pub fn is_member(&self, device: &DeviceId, group: &GroupName) -> bool {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(device).is_some_and(|groups| groups.contains(group))
    }

    /// Whether the device is accepted.
    #[must_use]
    pub fn is_accepted(&self, device: &DeviceId) -> bool {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).contains_key(device)
    }
}

/// The rules for devices at the front door of the embedded broker.
#[derive(Debug)]
pub struct FleetAccess {
    /// Who is in which group.
    pub membership: Membership,
    /// The devices' passwords. A device that is named there needs its password.
    pub passwords: Option<Arc<PasswordFile>>,
    /// Whether a device without a password in that file may connect. Then anybody may take its place, and identity is
    /// proved by enrolment and signatures alone.
    pub open: bool,
}

impl Access for FleetAccess {
    fn login(&self, login: &Login<'_>) -> Result<(), Refusal> {
        let accepted = self.passwords.as_ref().and_then(|file| file.accepts(login.device, login.password));
        if accepted.unwrap_or(self.open) { Ok(()) } else { Err(Refusal::BadPassword) }
    }

    fn is_slow(&self, login: &Login<'_>) -> bool {
        let password = login.password.unwrap_or_default();
        self.passwords.as_ref().is_some_and(|file| file.is_slow(login.device, password))
    }

    fn is_known(&self, device: &DeviceId) -> bool {
        self.membership.is_accepted(device) || self.passwords.as_ref().is_some_and(|file| file.names(device))
    }

    fn in_group(&self, device: &DeviceId, group: &GroupName) -> bool {
        self.membership.is_member(device, group)
    }
}
