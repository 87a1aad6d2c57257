//! A boot control whose loader says which slot it started.

use whimbrel_protocol::disk::{Area, Disk, DiskError};

use super::{BootControl, BootState, NewTrial};
use crate::slot::Slot;

/// Any boot control, together with the slot that the loader says it started: for hosts that read that from the kernel's
/// command line, the device tree or a register. What it says counts, whatever the boot control has on its medium.
#[derive(Clone, Debug)]
pub struct Told<B> {
    control: B,
    running: Slot,
}

impl<B> Told<B> {
    /// `control`, on a device that runs from `running`.
    #[must_use]
    pub const fn new(control: B, running: Slot) -> Self {
        Self { control, running }
    }
}

impl<B: BootControl> BootControl for Told<B> {
    fn running(&self) -> Option<Slot> {
        Some(self.running)
    }

    fn areas(&self) -> &[Area] {
        self.control.areas()
    }

    fn prepare(&mut self, disk: &mut dyn Disk, first: Slot) -> Result<(), DiskError> {
        self.control.prepare(disk, first)
    }

    fn read(&mut self, disk: &mut dyn Disk) -> Result<Option<BootState>, DiskError> {
        self.control.read(disk)
    }

    fn fallback(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        self.control.fallback(disk)
    }

    /// The loader's next step, after which the one that runs is told anew.
    fn select(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        let slot = self.control.select(disk)?;
        self.running = slot.unwrap_or(self.running);
        Ok(slot)
    }

    fn protect(&mut self, disk: &mut dyn Disk, confirmed: Slot, target: Slot) -> Result<(), DiskError> {
        self.control.protect(disk, confirmed, target)
    }

    fn arm(&mut self, disk: &mut dyn Disk, confirmed: Slot, trial: &NewTrial) -> Result<(), DiskError> {
        self.control.arm(disk, confirmed, trial)
    }

    fn confirm(&mut self, disk: &mut dyn Disk, confirmed: Slot, running: Slot) -> Result<(), DiskError> {
        self.control.confirm(disk, confirmed, running)
    }

    fn revert(&mut self, disk: &mut dyn Disk, confirmed: Slot) -> Result<(), DiskError> {
        self.control.revert(disk, confirmed)
    }

    fn forget_failure(&mut self, disk: &mut dyn Disk) -> Result<(), DiskError> {
        self.control.forget_failure(disk)
    }
}
