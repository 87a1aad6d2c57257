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

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, SocketAddr};

    use whimbrel_api::passwords::Kept;

    use super::*;

    fn login(access: &FleetAccess, name: &str, password: Option<&str>) -> Result<(), Refusal> {
        let device = DeviceId::new(name).unwrap();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        access.login(&Login { device: &device, user_name: Some(name), password, peer })
    }

    /// A door whose file of passwords names `m1`, with `secret`.
    fn door(open: bool) -> FleetAccess {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.passwd");
        std::fs::write(&path, format!("m1:{}\n", Kept::of_random("secret", [1; 16]))).unwrap();
        let passwords = Some(Arc::new(PasswordFile::open(&path).unwrap()));
        FleetAccess { membership: Membership::default(), passwords, open }
    }

    #[test]
    fn with_a_list_of_passwords_only_its_devices_come_in_and_with_the_right_one() {
        let closed = door(false);
        assert_eq!(login(&closed, "m1", Some("secret")), Ok(()));
        for (name, password) in
            [("m1", Some("Secret")), ("m1", None), ("m2", Some("secret")), ("m2", None), ("m1", Some(""))]
        {
            assert_eq!(login(&closed, name, password), Err(Refusal::BadPassword), "{name} {password:?}");
        }
        let known = |name| closed.is_known(&DeviceId::new(name).unwrap());
        assert!(known("m1") && !known("m2"));
    }

    #[test]
    fn without_a_password_a_device_comes_in_only_if_the_broker_is_open_and_it_has_none() {
        let open = door(true);
        assert_eq!(login(&open, "m1", None), Err(Refusal::BadPassword), "nobody takes its place");
        assert_eq!(login(&open, "m1", Some("secret")), Ok(()));
        assert_eq!(login(&open, "m2", None), Ok(()));
        let none = |open| FleetAccess { membership: Membership::default(), passwords: None, open };
        assert_eq!(login(&none(true), "m2", None), Ok(()));
        assert_eq!(login(&none(false), "m2", None), Err(Refusal::BadPassword));
    }
}
