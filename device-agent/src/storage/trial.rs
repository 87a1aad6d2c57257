//! From a complete payload to a confirmed image, or back.

use whimbrel_protocol::device::{InstallFailure, Place};
use whimbrel_protocol::disk::{Disk, DiskError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::Codec;

use super::download::Download;
use super::pages::Pages;
use super::{Storage, Verified};
use crate::installer::{BootEnvironment, Decoding, LzmaError, TrialBoot, decode, hash_medium};

impl<D: Disk> Storage<D> {
    /// Whether a slot holds this image already. What runs is only ever read.
    pub(super) fn match_image(
        &mut self,
        place: Place,
        image: Digest,
        size: u64,
    ) -> Result<(), InstallFailure> {
        let slot = match place {
            Place::Target => self.target(),
            Place::Running => self.running,
        };
        let found = hash_medium(&mut self.disk, slot.area(), size).map_err(failure_of)?;
        if found != Some(image) {
            return Err(InstallFailure::Mismatch);
        }
        if place == Place::Running {
            return Ok(());
        }
        self.verified = Some(Verified { slot, image, size });
        // That an earlier trial was given up is told and done with when a new one is on its way.
        self.forget_failure().map_err(failure_of)
    }

    fn forget_failure(&mut self) -> Result<(), DiskError> {
        match self.boot.read(&mut self.disk)? {
            Some(environment) if environment.failed => {
                self.boot.write(&mut self.disk, &BootEnvironment { failed: false, ..environment })
            }
            _ => Ok(()),
        }
    }

    /// Turns the complete payload into the image, and reads it back from the medium.
    pub(super) fn install_image(&mut self) -> Result<(), InstallFailure> {
        let download = self.download.take().ok_or(InstallFailure::Failed)?;
        let result = self.make_image(&download);
        self.download = Some(download);
        result
    }

    fn make_image(&mut self, download: &Download) -> Result<(), InstallFailure> {
        let (slot, image, size) = (download.slot, download.opening.image, download.opening.image_size);
        let decoded = match download.opening.transfer.codec {
            Codec::Raw => Ok(image),
            Codec::Lzma => self.decode(download),
            Codec::Patch => return Err(InstallFailure::Decode),
        };
        match decoded {
            Ok(decoded) if decoded == image => {}
            Ok(_) => return Err(self.blame(download, InstallFailure::Mismatch)),
            Err(LzmaError::Malformed) => return Err(self.blame(download, InstallFailure::Decode)),
            Err(LzmaError::Disk(error)) => return Err(failure_of(error)),
        }
        let found = hash_medium(&mut self.disk, slot.area(), size).map_err(failure_of)?;
        if found == Some(image) {
            self.verified = Some(Verified { slot, image, size });
            return Ok(());
        }
        Err(match download.opening.transfer.codec {
            Codec::Raw => self.blame(download, InstallFailure::Mismatch),
            // The decoder gave the right bytes, the slot has others.
            Codec::Lzma | Codec::Patch => InstallFailure::Failed,
        })
    }

    fn decode(&mut self, download: &Download) -> Result<Digest, LzmaError> {
        let transfer = &download.opening.transfer;
        let memory = transfer.decoder.ok_or(LzmaError::Malformed)?;
        let what = Decoding {
            transfer_size: transfer.layout.transfer_size(),
            slot: download.slot.area(),
            image_size: download.opening.image_size,
            memory,
        };
        decode(&mut self.disk, &what)
    }

    /// What came out is wrong. Where a chunk on the medium is not what it was when it was verified, the medium
    /// is to blame: what is right stays. Where all are right, `verdict` holds, and nothing of it is kept.
    fn blame(&mut self, download: &Download, verdict: InstallFailure) -> InstallFailure {
        if let Err(error) = self.disk.drop_cache(download.area) {
            return failure_of(error);
        }
        match self.rehash(download, |_| true) {
            Ok(right) if right.is_complete() => match Pages::forget(&mut self.disk) {
                Ok(()) => verdict,
                Err(error) => failure_of(error),
            },
            Ok(_) => InstallFailure::Failed,
            Err(error) => failure_of(error),
        }
    }

    /// Arms the trial of the target slot, after it was read from the medium and found whole.
    pub(super) fn activate(&mut self) -> Result<(), InstallFailure> {
        let slot = self.target();
        let verified = self.verified.filter(|verified| verified.slot == slot);
        let image = match (verified, self.facts(slot).copied()) {
            (Some(verified), _) => verified.image,
            (None, Some(facts)) => {
                let found = hash_medium(&mut self.disk, slot.area(), facts.image_size).map_err(failure_of)?;
                if found != Some(facts.image) {
                    return Err(InstallFailure::Mismatch);
                }
                facts.image
            }
            (None, None) => return Err(InstallFailure::Mismatch),
        };
        let trial = TrialBoot { slot, tries_left: self.tries, tries: self.tries, image };
        self.arm(trial).map_err(|_| InstallFailure::Boot)
    }

    fn arm(&mut self, trial: TrialBoot) -> Result<(), DiskError> {
        self.boot.write_default(&mut self.disk, self.confirmed)?;
        let known = self.boot.read(&mut self.disk)?;
        let mut environment = known.unwrap_or(BootEnvironment::only(self.confirmed));
        environment.set_bootable(trial.slot, true);
        let armed = BootEnvironment { trial: Some(trial), failed: false, ..environment };
        let result = self.boot.write(&mut self.disk, &armed);
        if result.is_err() {
            // It may have become durable all the same, and what was not acknowledged must not start.
            let _ = self.revert();
        }
        result
    }

    /// Keeps what runs. The default goes first: from then on losing the environment keeps it too.
    pub(super) fn confirm(&mut self) -> Result<(), DiskError> {
        let slot = self.running;
        self.boot.write_default(&mut self.disk, slot)?;
        let known = self.boot.read(&mut self.disk)?.unwrap_or(BootEnvironment::only(self.confirmed));
        let mut environment = BootEnvironment { confirmed: slot, trial: None, failed: false, ..known };
        environment.set_bootable(slot, true);
        self.boot.settle(&mut self.disk, &environment)?;
        self.confirmed = slot;
        Ok(())
    }

    /// Gives the trial up, whether it runs or is only armed: what was confirmed before is started next.
    pub(super) fn revert(&mut self) -> Result<(), DiskError> {
        let (old, new) = (self.confirmed, self.confirmed.other());
        self.boot.write_default(&mut self.disk, old)?;
        let mut environment = self.boot.read(&mut self.disk)?.unwrap_or(BootEnvironment::only(old));
        environment.confirmed = old;
        environment.set_bootable(old, true);
        environment.set_bootable(new, false);
        environment.trial = None;
        environment.failed = false;
        self.boot.settle(&mut self.disk, &environment)
    }
}

fn failure_of(error: DiskError) -> InstallFailure {
    match error {
        DiskError::Full { .. } => InstallFailure::NoRoom,
        DiskError::Range { .. } | DiskError::Failed { .. } => InstallFailure::Failed,
    }
}
