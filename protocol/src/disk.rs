//! The medium that a device keeps its update on, as its storage code sees it.
//!
//! The same code runs on files and partitions in production and on `testing::SimDisk` in the power-cut
//! tests, which counts these calls and cuts the power at every one that changes something. Nothing is durable
//! before [`Disk::flush`] of its area has returned, except what [`Disk::reserve`] has made.

use crate::errors::refusals;

/// A region of the medium with its own address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// The first slot.
    SlotA,
    /// The second slot.
    SlotB,
    /// Transferred bytes that are decoded later.
    Staging,
    /// Index pages of the download.
    Index,
    /// The download's journal.
    Journal,
    /// How far a patch is applied, in two copies, with the decoder's state where that is kept.
    Progress,
    /// The device's record, in two copies.
    Record,
    /// The envelopes of what is in each slot.
    Manifests,
    /// The boot environment, in two copies.
    BootEnvironment,
    /// What the boot loader starts when the environment is lost.
    BootDefault,
}

impl Area {
    /// Every area.
    pub const ALL: [Self; 10] = [
        Self::SlotA,
        Self::SlotB,
        Self::Staging,
        Self::Index,
        Self::Journal,
        Self::Progress,
        Self::Record,
        Self::Manifests,
        Self::BootEnvironment,
        Self::BootDefault,
    ];
}

refusals! {
    /// Why the medium did not do it.
    pub enum DiskError {
        /// There is no room.
        ("no room in {area:?}")
        Full = full {
            /// Where.
            area: Area,
        },
        /// Beyond the end of the area.
        ("{area:?} has {len} bytes, {end} were addressed")
        Range = range {
            /// Where.
            area: Area,
            /// Bytes of the area.
            len: u64,
            /// End of the bytes addressed.
            end: u64,
        },
        /// The medium failed.
        ("{area:?} failed")
        Failed = failed {
            /// Where.
            area: Area,
        },
    }
}

/// Random access to the areas of one medium.
///
/// After an error of [`Disk::flush`] nothing written since the last good one may be trusted.
pub trait Disk {
    /// Bytes of `area`; 0 where it does not exist yet.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn len(&mut self, area: Area) -> Result<u64, DiskError>;

    /// Makes `area` at least `len` bytes long, with room for all of them, durably. What is new reads as zero.
    ///
    /// # Errors
    /// [`DiskError::Full`] where there is no room; the area then has the length it had. [`DiskError::Failed`].
    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError>;

    /// Gives back the room of `area` beyond `len`: the undoing of a reservation that came to nothing. An area
    /// of no bytes does not exist. Does nothing where the area is no longer than that; survives a power cut
    /// or not.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// [`DiskError::Range`], [`DiskError::Failed`].
    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;

    /// Writes `bytes` at `offset`, inside the area. Not durable yet.
    ///
    /// # Errors
    /// [`DiskError::Range`], [`DiskError::Full`], [`DiskError::Failed`].
    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes everything written to `area` durable.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn flush(&mut self, area: Area) -> Result<(), DiskError>;

    /// Forgets what is cached of `area`, so that the next read comes from the medium itself.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError>;
}

/// So that a loader's step can borrow the disk that an agent will own.
impl<D: Disk + ?Sized> Disk for &mut D {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        (**self).len(area)
    }

    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        (**self).reserve(area, len)
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        (**self).release(area, len)
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        (**self).read(area, offset, into)
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        (**self).write(area, offset, bytes)
    }

    fn flush(&mut self, area: Area) -> Result<(), DiskError> {
        (**self).flush(area)
    }

    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        (**self).drop_cache(area)
    }
}
