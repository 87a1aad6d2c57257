//! Which slot starts, and what is remembered of it across a restart.
//!
//! [`BootControl`] is what the engine asks of a boot loader. [`EnvironmentBoot`] is the one of Linux devices whose own
//! boot loader step reads a boot environment on the medium. A device with another loader brings its own
//! implementation. [`Told`] adds to any of them the slot that the loader says it started.

mod environment;
mod told;

use alloc::boxed::Box;

use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;

pub use environment::EnvironmentBoot;
pub use told::Told;

use crate::slot::Slot;

/// What the boot control knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootState {
    /// The slot that is started when nothing else is said.
    pub confirmed: Slot,
    /// What becomes of a new image.
    pub trial: TrialState,
}

/// What the boot control knows of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialState {
    /// None is armed, and the loader gave none up since the last one was confirmed or reverted.
    None,
    /// The slot is tried at the next start.
    Armed(Slot),
    /// The slot was started at least once and is not confirmed.
    Started(Slot),
    /// The loader gave the last trial up.
    Failed,
}

/// A trial to be armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTrial {
    /// Where the new image is.
    pub slot: Slot,
    /// How often it may be started without being confirmed; at least 1.
    pub tries: u8,
    /// SHA-256 of the image.
    pub image: Digest,
}

/// What the engine needs of a boot loader.
///
/// Two rules hold for every implementation. *What returns `Ok` is durable*: a power cut afterwards does not undo it.
/// *A power cut in between leaves the state before or the state after*, and in both of them whatever starts is a whole
/// image: that is why a slot is protected before the engine writes to it. The power-cut tests of the agent run with any
/// implementation; a new one is added to their list.
///
/// An implementation may keep its data in areas of the medium, which each call gets, or elsewhere (in variables of the
/// firmware, in a partition that it opens by itself).
pub trait BootControl {
    /// The slot that runs, from whoever knows it better than what is remembered on the medium: the loader itself, which
    /// says what it started in the kernel's command line, the device tree or a register. A loader may go back to the
    /// other slot by itself and write that down nowhere; then this says so, and [`BootControl::read`] does not.
    ///
    /// `None` if nobody knows better: the slots are files and the loader's step is [`BootControl::select`], so that what
    /// it wrote down is what was started.
    fn running(&self) -> Option<Slot>;

    /// The areas of the medium whose content is trusted without hashing it. The engine flushes them and reads them back
    /// before it acts on them.
    fn areas(&self) -> &[Area];

    /// Makes the medium ready: what is missing is made from what is there. `first` is the slot that is confirmed if
    /// nothing is there.
    ///
    /// # Errors
    /// [`DiskError`] if the medium does not do it.
    fn prepare(&mut self, disk: &mut dyn Disk, first: Slot) -> Result<(), DiskError>;

    /// What is known; `None` if it is lost.
    ///
    /// # Errors
    /// [`DiskError`] if it cannot be read.
    fn read(&mut self, disk: &mut dyn Disk) -> Result<Option<BootState>, DiskError>;

    /// The slot that the loader falls back to if what [`BootControl::read`] gives is lost; `None` if that is not known
    /// either.
    ///
    /// # Errors
    /// [`DiskError`] if it cannot be read.
    fn fallback(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError>;

    /// The boot loader's step, for hosts that take it themselves: chooses the slot to start. A start of a trial is
    /// counted durably before it is chosen; one that cannot be counted does not happen. `None` if nothing names a slot.
    ///
    /// # Errors
    /// [`DiskError`] if nothing can be read.
    fn select(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError>;

    /// Makes `target` something that nobody starts, because it is about to be overwritten. A trial that was armed, or
    /// that failed, is over with it.
    ///
    /// # Errors
    /// [`DiskError`]; `target` is then not written to.
    fn protect(&mut self, disk: &mut dyn Disk, confirmed: Slot, target: Slot) -> Result<(), DiskError>;

    /// Arms a trial.
    ///
    /// # Errors
    /// [`DiskError`]; the trial does not start then.
    fn arm(&mut self, disk: &mut dyn Disk, confirmed: Slot, trial: &NewTrial) -> Result<(), DiskError>;

    /// Keeps `running`, which is on trial while `confirmed` is the slot to fall back to.
    ///
    /// # Errors
    /// [`DiskError`]; the engine reverts then.
    fn confirm(&mut self, disk: &mut dyn Disk, confirmed: Slot, running: Slot) -> Result<(), DiskError>;

    /// Gives the trial up, whether it runs or is only armed: `confirmed` is started next.
    ///
    /// # Errors
    /// [`DiskError`].
    fn revert(&mut self, disk: &mut dyn Disk, confirmed: Slot) -> Result<(), DiskError>;

    /// Forgets that the last trial was given up.
    ///
    /// # Errors
    /// [`DiskError`].
    fn forget_failure(&mut self, disk: &mut dyn Disk) -> Result<(), DiskError>;
}

/// So that a host can choose its boot control at start.
impl<B: BootControl + ?Sized> BootControl for Box<B> {
    fn running(&self) -> Option<Slot> {
        (**self).running()
    }

    fn areas(&self) -> &[Area] {
        (**self).areas()
    }

    fn prepare(&mut self, disk: &mut dyn Disk, first: Slot) -> Result<(), DiskError> {
        (**self).prepare(disk, first)
    }

    fn read(&mut self, disk: &mut dyn Disk) -> Result<Option<BootState>, DiskError> {
        (**self).read(disk)
    }

    fn fallback(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        (**self).fallback(disk)
    }

    fn select(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        (**self).select(disk)
    }

    fn protect(&mut self, disk: &mut dyn Disk, confirmed: Slot, target: Slot) -> Result<(), DiskError> {
        (**self).protect(disk, confirmed, target)
    }

    fn arm(&mut self, disk: &mut dyn Disk, confirmed: Slot, trial: &NewTrial) -> Result<(), DiskError> {
        (**self).arm(disk, confirmed, trial)
    }

    fn confirm(&mut self, disk: &mut dyn Disk, confirmed: Slot, running: Slot) -> Result<(), DiskError> {
        (**self).confirm(disk, confirmed, running)
    }

    fn revert(&mut self, disk: &mut dyn Disk, confirmed: Slot) -> Result<(), DiskError> {
        (**self).revert(disk, confirmed)
    }

    fn forget_failure(&mut self, disk: &mut dyn Disk) -> Result<(), DiskError> {
        (**self).forget_failure(disk)
    }
}
