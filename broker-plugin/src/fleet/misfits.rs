//! Accepted devices whose hellos do not fit what is known of them: of another class, or with another root.
//!
//! A hello is not signed. It changes nothing; operators are told, and look at the device.

use whimbrel_api::{Warning, WarningKind};
use whimbrel_protocol::ids::{ClassTag, DeviceId};

use super::{Event, Fleet};
use crate::store::Device;

/// What does not fit of an accepted device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The class that it says it is of, shortened, if it is another one than the registry has.
    class: Option<ClassTag>,
    /// Hellos in a row that asked for the assignment, which each of them was sent.
    untaken: u8,
}

/// After so many hellos without its assignment a device does not believe what it is sent. Fewer may be lost messages.
const UNTAKEN_HELLOS: u8 = 3;

impl Fleet {
    /// Compares what a hello says with what is known of the device.
    pub(super) fn compare_hello(&mut self, id: &DeviceId, class: ClassTag, assignment: u64) {
        let Some(known) = self.registry.device(id).filter(|known| known.is_accepted()) else { return };
        let before = self.misfits.get(id).copied().unwrap_or_default();
        let untaken =
            if assignment < known.assignment_version { before.untaken.saturating_add(1) } else { 0 };
        let misfit = Misfit { class: (known.class.tag() != class).then_some(class), untaken };
        if misfit == Misfit::default() {
            self.misfits.remove(id);
        } else {
            self.misfits.insert(id.clone(), misfit);
        }
        if let Some(class) = misfit.class.filter(|_| misfit.class != before.class) {
            self.tell(Event::OtherClass { device: id.clone(), class });
        }
        if before.untaken < UNTAKEN_HELLOS && untaken == UNTAKEN_HELLOS {
            self.tell(Event::OtherRoot { device: id.clone() });
        }
    }

    /// What is to be said of a device wherever it is shown.
    pub(super) fn warnings_of_device(&self, device: &Device) -> Vec<Warning> {
        let misfit = self.misfits.get(&device.id).filter(|_| device.is_accepted());
        let Some(Misfit { class, untaken }) = misfit.copied() else { return Vec::new() };
        let id = &device.id;
        let class = class.filter(|class| device.class.tag() != *class).map(|class| Warning {
            kind: WarningKind::OtherClass,
            devices: 1,
            text: format!(
                "device {id} says that its class begins with {class}, and is registered with {}: correct its \
                 configuration, or `whimbrel device reset {id}` and accept it again",
                device.class.to_hex(),
            ),
        });
        let root = (untaken >= UNTAKEN_HELLOS).then(|| Warning {
            kind: WarningKind::OtherRoot,
            devices: 1,
            text: format!(
                "device {id} has asked {untaken} times for its assignment and does not take what it is sent: its \
                 root.cbor is probably not that of this service; compare the files, and copy the right one to the device"
            ),
        });
        class.into_iter().chain(root).collect()
    }
}
