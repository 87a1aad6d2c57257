//! What a device keeps on its medium, and how it comes back after a power cut (SPEC sections 8.6 to 8.8).
//!
//! [`Storage`] carries out what a [`DeviceSession`](whimbrel_protocol::device::DeviceSession) wants done, on
//! any [`Disk`]: files ([`FileDisk`]), memory ([`MemoryDisk`]), or the disk of the power-cut tests. It knows no
//! keys: what a release is and whether it is signed, the session and the host decide.
//!
//! Two rules make every instant a good one for a power cut. What is about to be overwritten is first, durably,
//! made something that nobody starts (`BootControl::protect`); and nothing is believed of the medium that was
//! not hashed there: chunks against the signed index, images against the signed digest.
//!
//! Where things are: `download` from room to the last chunk, `apply` what becomes of a patch, `trial` from the complete
//! payload to the confirmed image, `twin` small things in two copies, `journal`, `pages` and `progress` what is left for
//! a resumption.

mod apply;
mod download;
mod error;
mod file;
mod journal;
mod memory;
mod pages;
mod progress;
mod trial;
mod twin;

pub use apply::{PatchMode, PatchOptions};
pub use error::{FileError, StorageError};
pub use file::FileDisk;
pub use memory::MemoryDisk;

pub(crate) use file::sync_names;
pub(crate) use twin::{Twin, TwinKind};

use whimbrel_protocol::device::{
    BootView, Found, Input, InstallFailure, InstallOp, Record, Running, StoreFailure, StoreOp, Trial,
};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{Digest, OpId};
use whimbrel_protocol::limits::{ENVELOPE_BYTES_MAX, RECORD_BYTES_MAX};

use crate::installer::{BootControl, BootEnvironment, Slot, SlotFacts};
use apply::Apply;
use download::Download;
use journal::{JOURNAL_BYTES, Journal};
use pages::Pages;

/// How a [`Storage`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct StorageOptions {
    /// Starts that a new image gets before the loader gives it up: 1 to 255, 3 by default.
    pub tries: u8,
    /// The slot that runs, where the host knows it (from the kernel's command line, from
    /// [`Storage::boot`]). `None` believes the boot environment.
    pub running: Option<Slot>,
    /// How patches are applied.
    pub patch: PatchOptions,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self { tries: 3, running: None, patch: PatchOptions::default() }
    }
}

/// Carries out what a session wants of its medium.
#[derive(Debug)]
pub struct Storage<D> {
    disk: D,
    tries: u8,
    patch: PatchOptions,
    boot: BootControl,
    record: Twin,
    /// The envelopes of slot A and slot B. Both copies of one hold the same.
    envelopes: [Twin; 2],
    journal: Journal,
    pages: Pages,
    facts: [Option<SlotFacts>; 2],
    /// The slot that runs.
    running: Slot,
    /// The slot that is started when nothing else is said.
    confirmed: Slot,
    download: Option<Download>,
    /// The patch that is being downloaded or applied.
    apply: Option<Apply>,
    /// What the target slot holds, where that was read from the medium since it was last written to.
    verified: Option<Verified>,
}

/// An image that was found where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified {
    slot: Slot,
    image: Digest,
    size: u64,
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
    /// Something was saved, and no copy of it is valid: the versions seen before are not known any more.
    Damaged,
}

/// What an agent goes on from as it is read.
const GONE_ON_FROM: [Area; 6] =
    [Area::BootDefault, Area::BootEnvironment, Area::Record, Area::Manifests, Area::Journal, Area::Progress];

/// From one copy of a record or an envelope to the next.
const RECORD_STRIDE: u64 = 36 * 1024;
const ENVELOPE_STRIDE: u64 = 8 * 1024;

impl<D: Disk> Storage<D> {
    /// Makes the medium ready: small things get their room, a lost boot environment is made again.
    ///
    /// # Errors
    /// [`StorageError::Disk`] where the medium does not do it.
    pub fn start(mut disk: D, options: StorageOptions) -> Result<Self, StorageError> {
        let record = TwinKind { magic: *b"WR", format: 1, content_max: RECORD_BYTES_MAX };
        let envelope = TwinKind { magic: *b"WM", format: 1, content_max: ENVELOPE_BYTES_MAX };
        let envelopes = Slot::ALL.map(|slot| {
            let base = u64::from(slot.number()) * 2 * ENVELOPE_STRIDE;
            Twin::new(envelope, Area::Manifests, base, ENVELOPE_STRIDE)
        });
        // What a process wrote that was killed since may be in the cache only, and what a failed flush left
        // there will never be on the medium. Nothing is gone on from before it is durable.
        for area in GONE_ON_FROM {
            if disk.len(area)? > 0 {
                disk.flush(area)?;
                disk.drop_cache(area)?;
            }
        }
        let mut boot = BootControl::new();
        boot.prepare(&mut disk, options.running.unwrap_or(Slot::A))?;
        let record = Twin::new(record, Area::Record, 0, RECORD_STRIDE);
        record.reserve(&mut disk)?;
        let [_, last] = &envelopes;
        last.reserve(&mut disk)?;
        disk.reserve(Area::Journal, JOURNAL_BYTES)?;
        let environment = boot.read(&mut disk)?.ok_or(DiskError::Failed { area: Area::BootEnvironment })?;
        let running = options.running.unwrap_or_else(|| running_according_to(&environment));
        Ok(Self {
            disk,
            tries: options.tries.max(1),
            patch: options.patch,
            boot,
            record,
            envelopes,
            journal: Journal::default(),
            pages: Pages::default(),
            facts: [None, None],
            running,
            confirmed: environment.confirmed,
            download: None,
            apply: None,
            verified: None,
        })
    }

    /// The medium.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Gives the medium back.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// The boot loader's step: chooses the slot to start. The start of a trial is counted durably before it is
    /// chosen. Everything that an agent keeps in memory is forgotten, as a restart does.
    ///
    /// # Errors
    /// [`StorageError::Disk`] where the medium can't be read; [`StorageError::NoSlot`] where nothing on it
    /// names a slot.
    pub fn boot(&mut self) -> Result<Slot, StorageError> {
        let slot = self.boot.select(&mut self.disk)?.ok_or(StorageError::NoSlot)?;
        self.running = slot;
        self.confirmed = self.find_confirmed();
        self.download = None;
        self.apply = None;
        self.verified = None;
        Ok(slot)
    }

    /// The slot that runs.
    #[must_use]
    pub fn running(&self) -> Slot {
        self.running
    }

    /// The slot that an update is written to: the one that is not confirmed.
    #[must_use]
    pub fn target(&self) -> Slot {
        self.confirmed.other()
    }

    /// The signed envelope kept with `slot`, not verified; `None` where there is none that is whole.
    pub fn load_envelope(&mut self, slot: Slot) -> Option<Vec<u8>> {
        let [a, b] = &mut self.envelopes;
        let twin = if slot == Slot::A { a } else { b };
        twin.read(&mut self.disk).ok().flatten()
    }

    /// The index digest of the payload that was on its way last, where that is still known.
    pub fn last_payload(&mut self) -> Option<Digest> {
        Pages::owner(&mut self.disk)
    }

    /// Tells what the verified envelope of `slot` says of the image in it. To be called for both slots after
    /// [`Storage::start`] and before [`Storage::boot_view`]; downloads of this run are known already.
    pub fn learn(&mut self, slot: Slot, facts: SlotFacts) {
        let [a, b] = &mut self.facts;
        *(if slot == Slot::A { a } else { b }) = Some(facts);
    }

    /// What is known of the image in `slot`.
    #[must_use]
    pub fn facts(&self, slot: Slot) -> Option<&SlotFacts> {
        let [a, b] = &self.facts;
        if slot == Slot::A { a.as_ref() } else { b.as_ref() }
    }

    /// What the boot control says at the start of a session.
    ///
    /// The sequence number is that of the confirmed release also while a trial runs: it rises with
    /// confirmation and not before.
    pub fn boot_view(&mut self) -> BootView {
        let environment = self.boot.read(&mut self.disk).ok().flatten();
        let trial = match environment {
            Some(BootEnvironment { trial: Some(trial), .. }) if trial.slot != self.running => Trial::Armed,
            Some(BootEnvironment { trial: Some(_), .. }) => Trial::Running,
            // The environment was lost while a trial ran: nobody has confirmed it.
            _ if self.running != self.confirmed => Trial::Running,
            Some(BootEnvironment { failed: true, .. }) => Trial::Failed,
            _ => Trial::None,
        };
        let running = self.facts(self.running);
        BootView {
            running: Running {
                image: running.map(|facts| facts.image),
                release: running.map(|facts| facts.release),
                sequence: self.facts(self.confirmed).map_or(0, |facts| facts.sequence),
            },
            target_slot: u64::from(self.target().number()),
            trial,
        }
    }

    /// The device's record as it was saved last.
    ///
    /// # Errors
    /// [`StorageError::Disk`] where the medium cannot be read.
    pub fn load_record(&mut self) -> Result<LoadedRecord, StorageError> {
        let content = self.record.read(&mut self.disk)?;
        match content.map(|bytes| Record::decode(&bytes)) {
            Some(Ok(record)) => Ok(LoadedRecord::Found(Box::new(record))),
            Some(Err(_)) => Ok(LoadedRecord::Damaged),
            None if self.record.was_written(&mut self.disk)? => Ok(LoadedRecord::Damaged),
            None => Ok(LoadedRecord::Fresh),
        }
    }

    /// Carries out one operation.
    pub fn carry_out(&mut self, op: StoreOp) -> StoreAnswer {
        let result = match op {
            StoreOp::Open(opening) => return StoreAnswer::Opened(self.open(*opening).map_err(failure_of)),
            StoreOp::LoadPage(page) => return StoreAnswer::Loaded(self.load_page(page)),
            StoreOp::SaveRecord(bytes) => self.save_record(&bytes),
            StoreOp::WritePage { page, bytes } => self.write_page(page, &bytes),
            StoreOp::WriteChunks { first, bytes } => self.write_chunks(first, &bytes),
            StoreOp::NoteAsked(asked) => self.note_asked(asked),
            StoreOp::SaveCheckpoint(checkpoint) => self.save_checkpoint(checkpoint),
            StoreOp::Close => {
                self.download = None;
                self.apply = None;
                Ok(())
            }
        };
        StoreAnswer::Stored(result.map_err(failure_of))
    }

    /// Carries out an operation on images or the boot control.
    ///
    /// # Errors
    /// As the operation says.
    pub fn install(&mut self, op: InstallOp) -> Result<(), InstallFailure> {
        match op {
            InstallOp::Match { place, image, size } => self.match_image(place, image, size),
            InstallOp::Install => self.install_image(),
            InstallOp::Activate => self.activate(),
            InstallOp::Confirm => self.confirm().map_err(|_| InstallFailure::Boot),
            InstallOp::Revert => self.revert().map_err(|_| InstallFailure::Boot),
        }
    }

    fn save_record(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        if bytes.len() > RECORD_BYTES_MAX {
            let end = bytes.len() as u64;
            return Err(DiskError::Range { area: Area::Record, len: RECORD_BYTES_MAX as u64, end });
        }
        self.record.write(&mut self.disk, bytes)
    }

    /// The confirmed slot as the medium has it; the one known before where it cannot say.
    fn find_confirmed(&mut self) -> Slot {
        match self.boot.read(&mut self.disk) {
            Ok(Some(environment)) => environment.confirmed,
            _ => self.boot.read_default(&mut self.disk).ok().flatten().unwrap_or(self.confirmed),
        }
    }
}

/// The slot that runs, where only the boot environment can tell: the trial once it was started.
fn running_according_to(environment: &BootEnvironment) -> Slot {
    match environment.trial {
        Some(trial) if trial.tries_left < trial.tries => trial.slot,
        _ => environment.confirmed,
    }
}

fn failure_of(error: DiskError) -> StoreFailure {
    match error {
        DiskError::Full { .. } => StoreFailure::NoRoom,
        DiskError::Range { .. } | DiskError::Failed { .. } => StoreFailure::Failed,
    }
}
