//! Devices whose hellos name newer documents than there are here: the database is probably an old copy.
//!
//! A hello is not signed. It stops nothing; operators are told how many devices say so.

use alloc::collections::BTreeSet;

use whimbrel_protocol::ids::DeviceId;
use whimbrel_protocol::time::Instant;

use super::{Event, Fleet};

/// Which devices said so in their last hello.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    devices: BTreeSet<DeviceId>,
    /// The device that said so last, until that is told.
    untold: Option<DeviceId>,
    /// When it may be told again.
    tell_at: Instant,
}

impl Ahead {
    /// When there is something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.untold.is_some().then_some(self.tell_at)
    }
}

/// The time from one line to the next.
const TELL_EVERY_MS: u64 = 60_000;

impl Fleet {
    /// How many accepted devices said in their last hello that they hold newer documents than there are here.
    #[must_use]
    pub fn devices_ahead(&self) -> usize {
        self.ahead.devices.len()
    }

    /// Compares what a device says that it holds with what there is. Versions of campaign documents are counted for all
    /// campaigns together: none is higher than the highest.
    pub(super) fn compare_versions(&mut self, id: &DeviceId, assignment: u64, campaign: u64) {
        let Some(known) = self.registry.device(id).filter(|known| known.is_accepted()) else { return };
        if assignment > known.assignment_version || campaign > self.campaigns.version() {
            self.ahead.devices.insert(id.clone());
            self.ahead.untold = Some(id.clone());
            self.tell_ahead();
        } else {
            self.ahead.devices.remove(id);
        }
    }

    /// Tells how many there are, unless that was told less than a minute ago.
    pub(super) fn tell_ahead(&mut self) {
        if self.now < self.ahead.tell_at {
            return;
        }
        let Some(device) = self.ahead.untold.take() else { return };
        self.ahead.tell_at = self.now.plus_millis(TELL_EVERY_MS);
        self.tell(Event::Ahead { device, devices: self.ahead.devices.len() });
    }
}
