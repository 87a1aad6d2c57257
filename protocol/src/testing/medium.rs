//! A medium in memory that carries out what a session wants. After a power cut, what was not flushed is gone.
//!
//! Chunks of an image go straight into the target slot; those of a patch are kept apart until it is applied. The boot
//! control is a few fields. This medium is for tests of the sessions. The real one, with sectors, is in the agent,
//! where tests cut the power at every operation.

mod apply;

use alloc::boxed::Box;
use alloc::vec::Vec;

use apply::apply;

use crate::chunk::{ChunkSet, PageList};
use crate::device::{
    BootView, Checkpoint, Found, InstallFailure, InstallOp, Opening, Place, Running, StoreFailure, StoreOp,
    Trial,
};
use crate::ids::{ChunkIndex, Digest};
use crate::manifest::Codec;
use crate::message::PageNumber;

/// Two slots, a journal, a record.
#[derive(Clone, Debug, Default)]
pub struct RamMedium {
    slots: [Slot; 2],
    active: usize,
    trial: Option<TrialBoot>,
    failed: bool,
    booted: usize,
    /// The saved record.
    pub record: Option<Vec<u8>>,
    download: Option<Box<Open>>,
    /// Every write fails with this while it is set.
    pub fault: Option<StoreFailure>,
    /// Health checks answer this.
    pub health: Option<InstallFailure>,
    /// Flushes are left out, so that a test can show that this is noticed.
    pub without_flush: bool,
    /// Number of times that a record was saved.
    pub saves: u64,
    /// Checkpoints that were saved.
    pub checkpoints: u64,
    /// Patches find no room, as if only the slots had room.
    pub without_staging: bool,
    /// Writing the image fails with this while it is set.
    pub install_fault: Option<InstallFailure>,
    /// Applying a patch fails with this while it is set.
    pub apply_fault: Option<InstallFailure>,
    /// Reading this slot fails.
    pub unreadable: Option<Place>,
    /// Number of times that the running slot was hashed.
    pub running_hashed: u64,
    /// Number of patches that were applied, with or without success.
    pub applied: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    bytes: Vec<u8>,
    image: Option<Digest>,
    release: Option<Digest>,
    sequence: u64,
    envelope: Option<Vec<u8>>,
    bootable: bool,
}

#[derive(Clone, Copy, Debug)]
struct TrialBoot {
    slot: usize,
    tries: u32,
}

#[derive(Clone, Debug)]
struct Open {
    opening: Opening,
    /// The chunks of a patch; `None` if chunks go straight into the slot.
    staging: Option<Vec<u8>>,
    pages: Vec<(PageNumber, Vec<u8>)>,
    /// Chunks that were written and may be lost in a power cut.
    unflushed: Vec<(ChunkIndex, Vec<u8>)>,
    checkpoint: Option<Checkpoint>,
    asked: ChunkIndex,
}

/// The result of carrying out a [`StoreOp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// For most operations.
    Done(Result<(), StoreFailure>),
    /// For [`StoreOp::Open`].
    Opened(Result<Found, StoreFailure>),
    /// For [`StoreOp::LoadPage`].
    Loaded(Option<Vec<u8>>),
}

const TRIES: u32 = 3;

impl RamMedium {
    /// A device that runs `image` from slot 0.
    #[must_use]
    pub fn running(image: &[u8]) -> Self {
        let mut medium = Self::default();
        let slot =
            Slot { bytes: image.to_vec(), image: Some(Digest::of(image)), bootable: true, ..Slot::default() };
        medium.slots = [slot, Slot::default()];
        medium
    }

    /// The same with an image that no release put there.
    #[must_use]
    pub fn running_unknown(image: &[u8]) -> Self {
        let mut medium = Self::running(image);
        medium.slot(0).image = None;
        medium
    }

    /// What the boot control says.
    #[must_use]
    pub fn boot_view(&self) -> BootView {
        let [first, second] = &self.slots;
        let of = |slot: usize| if slot == 0 { first } else { second };
        let running = of(self.booted);
        let trial = match self.trial {
            Some(trial) if trial.slot == self.booted => Trial::Running,
            Some(_) => Trial::Armed,
            None if self.failed => Trial::Failed,
            None => Trial::None,
        };
        BootView {
            running: Running {
                image: running.image,
                release: running.release,
                sequence: of(self.active).sequence,
            },
            target_slot: self.target() as u64,
            trial,
        }
    }

    fn target(&self) -> usize {
        1 - self.active
    }

    fn slot(&mut self, slot: usize) -> &mut Slot {
        let [first, second] = &mut self.slots;
        if slot == 0 { first } else { second }
    }

    /// The image that runs.
    #[must_use]
    pub fn running_image(&self) -> &[u8] {
        let [first, second] = &self.slots;
        if self.booted == 0 { &first.bytes } else { &second.bytes }
    }

    /// The envelope kept with the target slot.
    #[must_use]
    pub fn kept_envelope(&self) -> Option<Vec<u8>> {
        let [first, second] = &self.slots;
        if self.target() == 0 { first.envelope.clone() } else { second.envelope.clone() }
    }

    /// What the boot loader does.
    pub fn boot(&mut self) {
        self.booted = match &mut self.trial {
            Some(trial) if trial.tries > 0 => {
                trial.tries -= 1;
                trial.slot
            }
            Some(_) => {
                self.trial = None;
                self.failed = true;
                self.active
            }
            None => self.active,
        };
    }

    /// Cuts the power: what was not flushed is lost.
    pub fn power_cut(&mut self) {
        let target = self.target();
        let [first, second] = &mut self.slots;
        let slot = if target == 0 { first } else { second };
        let Some(download) = &mut self.download else {
            return;
        };
        let lost = core::mem::take(&mut download.unflushed);
        let layout = download.opening.transfer.layout;
        let place = download.staging.as_mut().unwrap_or(&mut slot.bytes);
        for (first, bytes) in lost {
            let start = usize::try_from(layout.byte_range(first).start).unwrap_or(usize::MAX);
            place.iter_mut().skip(start).take(bytes.len()).for_each(|byte| *byte = 0xff);
        }
    }

    /// Flips one bit of the running slot's `byte`th byte.
    pub fn corrupt_running(&mut self, byte: usize) {
        let running = self.booted;
        if let Some(byte) = self.slot(running).bytes.get_mut(byte) {
            *byte ^= 1;
        }
    }

    /// Flips one bit of the target slot's `byte`th byte, as bit rot would.
    pub fn corrupt_target(&mut self, byte: usize) {
        let target = self.target();
        if let Some(byte) = self.slot(target).bytes.get_mut(byte) {
            *byte ^= 1;
        }
    }

    /// Carries out a [`StoreOp`].
    pub fn store(&mut self, op: StoreOp) -> Stored {
        if let StoreOp::LoadPage(page) = op {
            let pages = self.download.iter().flat_map(|download| &download.pages);
            return Stored::Loaded(
                pages.clone().find(|(number, _)| *number == page).map(|(_, bytes)| bytes.clone()),
            );
        }
        if let Some(fault) = self.fault {
            return match op {
                StoreOp::Open(_) => Stored::Opened(Err(fault)),
                _ => Stored::Done(Err(fault)),
            };
        }
        match op {
            StoreOp::Open(opening) if self.without_staging && opening.base.is_some() => {
                return Stored::Opened(Err(StoreFailure::NoRoom));
            }
            StoreOp::Open(opening) => return Stored::Opened(Ok(self.open(*opening))),
            StoreOp::SaveRecord(bytes) => {
                self.saves += 1;
                self.record = Some(bytes);
            }
            StoreOp::WritePage { page, bytes } => {
                if let Some(download) = &mut self.download {
                    download.pages.push((page, bytes));
                }
            }
            StoreOp::WriteChunks { first, bytes } => self.write(first, bytes),
            StoreOp::NoteAsked(chunk) => {
                if let Some(download) = &mut self.download {
                    download.asked = chunk;
                }
            }
            StoreOp::SaveCheckpoint(checkpoint) => {
                self.checkpoints += 1;
                if let Some(download) = &mut self.download {
                    if !self.without_flush {
                        download.unflushed.clear();
                    }
                    download.checkpoint = Some(checkpoint);
                }
            }
            StoreOp::Close => self.download = None,
            StoreOp::LoadPage(_) => {}
        }
        Stored::Done(Ok(()))
    }

    fn open(&mut self, opening: Opening) -> Found {
        let target = self.target();
        let same = self
            .download
            .as_ref()
            .is_some_and(|open| open.opening.transfer.index_digest == opening.transfer.index_digest);
        let size = usize::try_from(opening.image_size).unwrap_or(0);
        let staging = (opening.transfer.codec == Codec::Patch).then(|| {
            let size = usize::try_from(opening.transfer.layout.transfer_size()).unwrap_or(0);
            alloc::vec![0xee; size]
        });
        let slot = self.slot(target);
        slot.bootable = false;
        slot.envelope = Some(opening.envelope.clone());
        if !same {
            slot.bytes = alloc::vec![0xee; size];
            self.download = Some(Box::new(Open {
                opening: opening.clone(),
                staging,
                pages: Vec::new(),
                unflushed: Vec::new(),
                checkpoint: None,
                asked: ChunkIndex(0),
            }));
        }
        self.found(&opening)
    }

    /// Hashes again what the checkpoint claims.
    fn found(&mut self, opening: &Opening) -> Found {
        let layout = opening.transfer.layout;
        let count = layout.chunk_count();
        let empty = Found {
            held: ChunkSet::empty(count),
            asked: ChunkIndex(0),
            reach: count,
            bytes_received: 0,
            bytes_twice: 0,
        };
        let Some(download) = &self.download else {
            return empty;
        };
        let Some(checkpoint) = &download.checkpoint else {
            return Found { asked: download.asked, ..empty };
        };
        let claims = checkpoint.claims(count);
        let salt = crate::chunk::ChunkSalt { image: opening.image, transfer_size: layout.transfer_size() };
        let page =
            |number| download.pages.iter().find(|(page, _)| *page == number).map(|(_, bytes)| &bytes[..]);
        let index = &opening.transfer.index_digest;
        let list = match page(PageNumber::List) {
            Some(list) => PageList::verify(salt, layout, index, list),
            None => {
                page(PageNumber::Page(0)).and_then(|page| PageList::of_single_page(salt, layout, index, page))
            }
        };
        let [first, second] = &self.slots;
        let slot = if self.target() == 0 { &first.bytes } else { &second.bytes };
        let bytes = download.staging.as_ref().unwrap_or(slot);
        let mut held = ChunkSet::empty(count);
        for number in 0..layout.page_count() {
            let verified = page(PageNumber::Page(number))
                .and_then(|bytes| list.as_ref().and_then(|list| list.verify_page(number, bytes)));
            let Some(verified) = verified else {
                continue;
            };
            for chunk in layout.page_chunks(number).map(ChunkIndex).filter(|chunk| claims.contains(*chunk)) {
                let range = layout.byte_range(chunk);
                let range =
                    usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
                let content = bytes.get(range).unwrap_or_default();
                if verified.chunk_digest(chunk).is_some_and(|want| want == salt.chunk_digest(chunk, content))
                {
                    held.insert(chunk);
                }
            }
        }
        Found {
            held,
            asked: download.asked.max(checkpoint.asked),
            reach: count,
            bytes_received: checkpoint.bytes_received,
            bytes_twice: checkpoint.bytes_twice,
        }
    }

    fn write(&mut self, first: ChunkIndex, bytes: Vec<u8>) {
        let target = self.target();
        let Some(download) = &mut self.download else {
            return;
        };
        let start = download.opening.transfer.layout.byte_range(first).start;
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        download.unflushed.push((first, bytes.clone()));
        let [one, other] = &mut self.slots;
        let slot = if target == 0 { one } else { other };
        let place = download.staging.as_mut().unwrap_or(&mut slot.bytes);
        place.iter_mut().skip(start).zip(bytes).for_each(|(to, from)| *to = from);
    }

    /// Runs the health checks of the image.
    ///
    /// # Errors
    /// What [`RamMedium::health`] says.
    pub fn check_health(&self) -> Result<(), InstallFailure> {
        self.health.map_or(Ok(()), Err)
    }

    /// Carries out an [`InstallOp`].
    ///
    /// # Errors
    /// As the operation says.
    pub fn install(&mut self, op: InstallOp) -> Result<(), InstallFailure> {
        let target = self.target();
        match op {
            InstallOp::Match { place, image, size } => {
                if self.unreadable == Some(place) {
                    return Err(InstallFailure::Failed);
                }
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let slot = match place {
                    Place::Target => target,
                    Place::Running => {
                        self.running_hashed += 1;
                        self.booted
                    }
                };
                let slot = self.slot(slot);
                let same = slot.bytes.get(..size).is_some_and(|bytes| Digest::of(bytes) == image);
                if same { Ok(()) } else { Err(InstallFailure::Mismatch) }
            }
            InstallOp::Install => {
                self.install_fault.map_or(Ok(()), Err)?;
                let opening = self.download.as_ref().map(|download| download.opening.clone());
                let opening = opening.ok_or(InstallFailure::Failed)?;
                if let (Some(download), false) = (&mut self.download, self.without_flush) {
                    download.unflushed.clear();
                }
                if let Some(patch) = self.download.as_ref().and_then(|download| download.staging.clone()) {
                    self.applied += 1;
                    if let Some(fault) = self.apply_fault {
                        return Err(fault);
                    }
                    let image = apply(&patch, &opening, &mut self.running_image())?;
                    self.slot(target).bytes = image;
                }
                let slot = self.slot(target);
                if Digest::of(&slot.bytes) != opening.image {
                    return Err(InstallFailure::Mismatch);
                }
                slot.image = Some(opening.image);
                slot.release = Some(opening.release);
                slot.sequence = opening.sequence;
                slot.bootable = true;
                Ok(())
            }
            InstallOp::Activate => {
                let slot = self.slot(target);
                if !slot.bootable || slot.image != Some(Digest::of(&slot.bytes)) {
                    return Err(InstallFailure::Mismatch);
                }
                self.trial = Some(TrialBoot { slot: target, tries: TRIES });
                self.failed = false;
                Ok(())
            }
            InstallOp::Confirm => {
                self.active = self.trial.take().map_or(self.active, |trial| trial.slot);
                self.download = None;
                Ok(())
            }
            InstallOp::Revert => {
                self.trial = None;
                Ok(())
            }
        }
    }
}
