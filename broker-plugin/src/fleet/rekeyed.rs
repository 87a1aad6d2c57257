//! Devices that bring another key than the accepted one: what people are told of them, and when.
//!
//! Such a device lost its data folder, got another board, or shares its id with another device. It is served as before,
//! because nothing that it says is believed; but its reports do not count, so that its campaign would never end. Anybody
//! who may connect under its id can bring it about, so that it is told once a minute at most, and changes nothing.

use whimbrel_api as api;
use whimbrel_protocol::ids::DeviceId;

use super::campaign::Campaign;
use super::devices::is_member;
use super::{Event, Fleet, Output};
use crate::store::Phase;

/// From one word about such devices to the next.
const TELL_EVERY_MS: u64 = 60_000;
/// Devices of a campaign that are named.
const NAMED_MAX: usize = 16;

impl Fleet {
    /// A device brought another key.
    pub(super) fn is_rekeyed(&mut self, id: DeviceId) {
        if self.registry.device(&id).is_some_and(|device| device.rekeyed.is_some()) {
            self.unsaved_keys.insert(id.clone());
            self.save_soon();
            self.outputs.push_back(Output::Changed(id.clone()));
            self.rekeyed = Some(id);
            self.tell_rekeyed();
        }
    }

    /// The accepted key of a device has signed something.
    pub(super) fn has_its_key(&mut self, id: &DeviceId) {
        if self.registry.has_its_key(id) {
            self.unsaved_keys.insert(id.clone());
            self.save_soon();
        }
    }

    /// Tells of the last device that brought another key, unless another one was told of less than a minute ago.
    pub(super) fn tell_rekeyed(&mut self) {
        if self.now < self.tell_rekeyed_at {
            return;
        }
        let Some(device) = self.rekeyed.take().and_then(|id| self.registry.device(&id)) else { return };
        let (Some(accepted), Some(rekeyed)) = (device.key(), &device.rekeyed) else { return };
        let event = Event::Rekeyed {
            device: device.id.clone(),
            accepted: accepted.fingerprint(),
            brought: rekeyed.key.fingerprint(),
            devices: self.registry.rekeyed().count(),
        };
        self.tell_rekeyed_at = self.now.plus_millis(TELL_EVERY_MS);
        self.tell(event);
    }

    /// The devices of a campaign that bring another key; `None` if there are none.
    pub(super) fn view_rekeyed(&self, campaign: &Campaign) -> Option<api::RekeyedDevices> {
        if campaign.phase() == Phase::Replaced {
            return None;
        }
        let members = || self.registry.rekeyed().filter(|device| is_member(device, campaign));
        let devices = members().count() as u64;
        let ids = members().take(NAMED_MAX).map(|device| device.id.to_string());
        (devices > 0).then(|| api::RekeyedDevices { devices, ids: ids.collect() })
    }
}
