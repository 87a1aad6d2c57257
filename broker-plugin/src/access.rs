//! What the front door asks about devices: passwords, and who is in which group.
//!
//! Asked on the door's network threads for every login and subscription, so that it is answered from memory.

use alloc::sync::Arc;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use whimbrel_protocol::ids::{DeviceId, Digest, GroupName};

use crate::front::{Access, Login, Refusal};
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
}

/// The passwords of devices: SHA-256 digests by device.
///
/// A device's password is a random key that nobody types, so that a plain digest is as good as a slow one.
#[derive(Clone, Default)]
pub struct Passwords {
    digests: HashMap<DeviceId, Digest>,
}

impl core::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Passwords of {} devices", self.digests.len())
    }
}

impl Passwords {
    /// Reads lines `device:SHA-256 of the password in hexadecimal`; empty lines and lines that start with # are
    /// left out.
    ///
    /// # Errors
    /// The number of the first line that is wrong, from 1, and what would be right.
    pub fn read(text: &str) -> Result<Self, (usize, String)> {
        let mut digests = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || (number, "expected device:SHA-256 of the password in hexadecimal".to_owned());
            let (id, digest) = line.split_once(':').ok_or_else(wrong)?;
            let id = DeviceId::new(id).map_err(|error| (number, error.to_string()))?;
            let mut bytes = [0; 32];
            hex::decode_to_slice(digest.trim(), &mut bytes).map_err(|_| wrong())?;
            if digests.insert(id.clone(), Digest(bytes)).is_some() {
                return Err((number, format!("device {id} stands twice")));
            }
        }
        Ok(Self { digests })
    }

    /// Digests are compared, so that the time it takes says nothing about the password.
    fn accepts(&self, device: &DeviceId, password: &str) -> bool {
        self.digests.get(device) == Some(&Digest::of(password.as_bytes()))
    }
}

/// The rules for devices at the front door of the embedded broker.
#[derive(Debug)]
pub struct FleetAccess {
    /// Who is in which group.
    pub membership: Membership,
    /// If there are none, anybody may connect as any device that is not connected: identity is then proved
    /// by enrolment and signatures alone.
    pub passwords: Option<Passwords>,
}

impl Access for FleetAccess {
    fn login(&self, login: &Login<'_>) -> Result<(), Refusal> {
        match (&self.passwords, login.password) {
            (None, _) => Ok(()),
            (Some(passwords), Some(password)) if passwords.accepts(login.device, password) => Ok(()),
            (Some(_), _) => Err(Refusal::BadPassword),
        }
    }

    fn in_group(&self, device: &DeviceId, group: &GroupName) -> bool {
        self.membership.is_member(device, group)
    }
}
