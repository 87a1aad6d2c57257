//! What a device keeps on its medium, and how it comes back after a power cut (SPEC sections 8.6 to 8.8).
//!
//! [`Storage`] carries out what a [`DeviceSession`](whimbrel_protocol::device::DeviceSession) wants done, on any
//! [`Disk`] and with any [`BootControl`]. It knows no keys: session and host decide what a release is and whether it is
//! signed.
//!
//! Two rules make every instant a good one for a power cut. Before the engine overwrites a slot, it makes sure, durably,
//! that nobody starts it ([`BootControl::protect`]). And nothing on the medium is believed that was not hashed there:
//! chunks against the signed index, images against the signed digest.
//!
//! `download` goes from room for a payload to its last chunk, `apply` makes an image from a patch, `trial` goes from the
//! complete payload to the confirmed image. `factory` says what a new device starts from. `journal`, `pages` and `progress` are what a resumption starts from.

#[cfg_attr(not(feature = "patch"), path = "no_patch.rs")]
mod apply;
mod download;
mod factory;
mod job;
mod journal;
mod pages;
mod patch_options;
#[cfg_attr(not(feature = "patch"), allow(dead_code))]
mod progress;
mod trial;

pub use factory::ProvisionError;
pub use job::{Done, Job};
pub use patch_options::{PatchMode, PatchOptions};

use alloc::boxed::Box;
use alloc::vec::Vec;

use thiserror::Error;
use whimbrel_protocol::device::{
    BootView, Checkpoint, Found, Input, InstallFailure, InstallOp, Record, Running, StoreFailure, StoreOp,
    Trial,
};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{Digest, OpId};
use whimbrel_protocol::limits::{ENVELOPE_BYTES_MAX, RECORD_BYTES_MAX};

use apply::Apply;
use download::Download;
use journal::{JOURNAL_BYTES, Journal};
use pages::Pages;

use crate::boot::{BootControl, BootState, EnvironmentBoot, TrialState};
use crate::slot::{Slot, SlotFacts};
use crate::two_copies::{Format, TwoCopies};

/// How a [`Storage`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct StorageOptions {
    /// Starts that a new image gets before the loader gives it up: 1 to 255, 3 by default.
    pub tries: u8,
    /// How patches are applied.
    pub patch: PatchOptions,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self { tries: 3, patch: PatchOptions::default() }
    }
}

/// Carries out what a session wants of its medium.
#[derive(Debug)]
pub struct Storage<D, B = EnvironmentBoot> {
    disk: D,
    tries: u8,
    patch: PatchOptions,
    boot: B,
    record: TwoCopies,
    /// One for each slot.
    slots: Vec<Held>,
    journal: Journal,
    pages: Pages,
    /// The slot that runs.
    running: Slot,
    /// The slot that is started when nothing else is said.
    confirmed: Slot,
    download: Option<Download>,
    /// What the payload needs that was opened last and had no room.
    lacks: Vec<(Area, u64)>,
    /// The patch that is being downloaded or applied.
    apply: Option<Apply>,
    /// What the target slot holds, if that was read from the medium since it was last written to.
    verified: Option<Verified>,
}

/// What is kept about the image in a slot.
#[derive(Debug)]
struct Held {
    slot: Slot,
    /// Its signed envelope. Both copies hold the same.
    envelope: TwoCopies,
    /// What the envelope says, once that is known.
    facts: Option<SlotFacts>,
}

/// What is kept about `slot`.
fn of_slot(slots: &mut [Held], slot: Slot) -> Option<&mut Held> {
    slots.iter_mut().find(|held| held.slot == slot)
}

/// An image that was found where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified {
    slot: Slot,
    image: Digest,
    size: u64,
}

/// Why a medium cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StorageError {
    /// The medium did not do it.
    #[error("the medium does not do what it should")]
    Disk(#[from] DiskError),
    /// Nothing that the boot control knows names a slot.
    #[error(
        "nothing on the medium names a slot to start: start the agent once, it makes the boot environment"
    )]
    NoSlot,
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
    fn as_input(&self, op: OpId) -> Input<'_> {
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

/// Areas whose content is trusted without hashing them again, besides those of the boot control. They are flushed and
/// read back at start, so that the engine never acts on data that exists only in the cache.
const TRUSTED_AS_READ: [Area; 4] = [Area::Record, Area::Manifests, Area::Journal, Area::Progress];

/// From one copy of a record or an envelope to the next.
const RECORD_STRIDE: u64 = 36 * 1024;
const ENVELOPE_STRIDE: u64 = 8 * 1024;

impl<D: Disk, B: BootControl> Storage<D, B> {
    /// Makes the medium ready: small things get their room, a lost boot environment is made again.
    ///
    /// # Errors
    /// [`StorageError::Disk`] if the medium does not do it.
    pub fn start(mut disk: D, mut boot: B, options: StorageOptions) -> Result<Self, StorageError> {
        // What a process wrote that was killed since may be in the cache only, and what a failed flush left
        // there will never be on the medium.
        for area in boot.areas().iter().copied().chain(TRUSTED_AS_READ) {
            if disk.len(area)? > 0 {
                disk.flush(area)?;
                disk.drop_cache(area)?;
            }
        }
        // Whoever knows what was started is believed before what is written down.
        let told = boot.running();
        boot.prepare(&mut disk, told.unwrap_or(Slot::A))?;
        let format = Format { magic: *b"WR", version: 1, content_max: RECORD_BYTES_MAX };
        let record = TwoCopies::new(format, Area::Record, 0, RECORD_STRIDE);
        record.reserve(&mut disk)?;
        let slots: Vec<Held> = Slot::ALL.into_iter().map(Held::new).collect();
        if let Some(last) = slots.last() {
            last.envelope.reserve(&mut disk)?;
        }
        disk.reserve(Area::Journal, JOURNAL_BYTES)?;
        let state = boot.read(&mut disk)?.ok_or(DiskError::failed(Area::BootEnvironment))?;
        Ok(Self {
            disk,
            tries: options.tries.max(1),
            patch: options.patch,
            boot,
            record,
            slots,
            journal: Journal::default(),
            pages: Pages::default(),
            running: told.unwrap_or_else(|| running_according_to(&state)),
            confirmed: state.confirmed,
            download: None,
            lacks: Vec::new(),
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
    /// [`StorageError::Disk`] if the medium can't be read; [`StorageError::NoSlot`] if nothing on it
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

    /// The signed envelope kept with `slot`, not verified; `None` if there is none that is whole.
    pub fn load_envelope(&mut self, slot: Slot) -> Option<Vec<u8>> {
        self.read_envelope(slot).ok().flatten()
    }

    /// The same, or why the medium does not say.
    pub(crate) fn read_envelope(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, DiskError> {
        match of_slot(&mut self.slots, slot) {
            Some(held) => held.envelope.read(&mut self.disk),
            None => Ok(None),
        }
    }

    /// The index digest of the payload that was on its way last, if that is still known.
    pub fn last_payload(&mut self) -> Option<Digest> {
        Pages::owner(&mut self.disk)
    }

    /// The newest checkpoint of the payload with this index digest: what a download of it goes on with. Nothing of it is
    /// verified before it does.
    pub fn checkpoint_of(&mut self, index: &Digest) -> Option<Checkpoint> {
        self.journal.load(&mut self.disk, index)
    }

    /// Tells what the verified envelope of `slot` says of the image in it. To be called for both slots after
    /// [`Storage::start`] and before [`Storage::boot_view`]; downloads of this run are known already.
    pub fn learn(&mut self, slot: Slot, facts: SlotFacts) {
        if let Some(held) = of_slot(&mut self.slots, slot) {
            held.facts = Some(facts);
        }
    }

    /// What is known of the image in `slot`.
    #[must_use]
    pub fn facts(&self, slot: Slot) -> Option<&SlotFacts> {
        self.slots.iter().find(|held| held.slot == slot)?.facts.as_ref()
    }

    /// What the boot control says at the start of a session.
    ///
    /// The sequence number is that of the confirmed release also while a trial runs: it rises with
    /// confirmation and not before.
    pub fn boot_view(&mut self) -> BootView {
        let state = self.boot.read(&mut self.disk).ok().flatten();
        let trial = match state.map(|state| state.trial) {
            Some(TrialState::Armed(slot) | TrialState::Started(slot)) if slot != self.running => Trial::Armed,
            Some(TrialState::Armed(_) | TrialState::Started(_)) => Trial::Running,
            // The boot control lost what it knew while a trial ran: nobody has confirmed it.
            _ if self.running != self.confirmed => Trial::Running,
            Some(TrialState::Failed) => Trial::Failed,
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
    /// [`StorageError::Disk`] if the medium cannot be read.
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
                self.lacks.clear();
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
            InstallOp::Revert => {
                self.boot.revert(&mut self.disk, self.confirmed).map_err(|_| InstallFailure::Boot)
            }
        }
    }

    fn save_record(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        if bytes.len() > RECORD_BYTES_MAX {
            let end = bytes.len() as u64;
            return Err(DiskError::range(Area::Record, RECORD_BYTES_MAX as u64, end));
        }
        self.record.write(&mut self.disk, bytes)
    }

    /// The confirmed slot as the medium has it; the one known before if it cannot say.
    fn find_confirmed(&mut self) -> Slot {
        match self.boot.read(&mut self.disk) {
            Ok(Some(state)) => state.confirmed,
            _ => self.boot.fallback(&mut self.disk).ok().flatten().unwrap_or(self.confirmed),
        }
    }
}

impl Held {
    fn new(slot: Slot) -> Self {
        let format = Format { magic: *b"WM", version: 1, content_max: ENVELOPE_BYTES_MAX };
        let base = u64::from(slot.number()) * 2 * ENVELOPE_STRIDE;
        Self { slot, envelope: TwoCopies::new(format, Area::Manifests, base, ENVELOPE_STRIDE), facts: None }
    }
}

/// The slot that runs, as far as what is written down can tell: the trial once it was started.
fn running_according_to(state: &BootState) -> Slot {
    match state.trial {
        TrialState::Started(slot) => slot,
        TrialState::None | TrialState::Armed(_) | TrialState::Failed => state.confirmed,
    }
}

fn failure_of(error: DiskError) -> StoreFailure {
    match error {
        DiskError::Full { .. } => StoreFailure::NoRoom,
        DiskError::Range { .. } | DiskError::Failed { .. } => StoreFailure::Failed,
    }
}
