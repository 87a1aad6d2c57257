//! From a complete payload to a confirmed image, or back.

use whimbrel_protocol::device::{InstallFailure, Place};
use whimbrel_protocol::disk::{Disk, DiskError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::Codec;

use super::apply::Apply;
use super::download::Download;
use super::pages::Pages;
use super::{Storage, Verified};
use crate::boot::{BootControl, NewTrial};
use crate::image::{Decoding, PayloadFailure, decode, hash_medium};

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// The image, seen on the medium.
    Right,
    /// Something else came out, or nothing.
    Wrong(InstallFailure),
    /// The image came out, and something else is on the medium.
    Lost,
    /// The medium did not do it.
    Failed(DiskError),
}

impl Made {
    const fn is_wrong(self) -> bool {
        matches!(self, Self::Wrong(_) | Self::Lost)
    }
}

impl<D: Disk, B: BootControl> Storage<D, B> {
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
        // A new trial is on its way: that an earlier one was given up was reported, and is over.
        self.boot.forget_failure(&mut self.disk).map_err(failure_of)
    }

    /// Turns the complete payload into the image, and reads it back from the medium.
    pub(super) fn install_image(&mut self) -> Result<(), InstallFailure> {
        let download = self.download.take().ok_or(InstallFailure::Failed)?;
        let result = self.make_image(&download);
        self.download = Some(download);
        result
    }

    fn make_image(&mut self, download: &Download) -> Result<(), InstallFailure> {
        let mut made = self.make(download);
        if made.is_wrong() && self.apply.as_ref().is_some_and(|apply| apply.is_restored() && apply.is_whole())
        {
            // Going over the patch from its start costs no byte of the link.
            self.apply_again().map_err(failure_of)?;
            made = self.make(download);
        }
        match made {
            Made::Right => {
                let (image, size) = (download.opening.image, download.opening.image_size);
                self.verified = Some(Verified { slot: download.slot, image, size });
                Ok(())
            }
            Made::Wrong(verdict) => Err(self.blame(download, verdict)),
            // The decoder gave the right bytes, the slot has others.
            Made::Lost => Err(self.lost()),
            Made::Failed(error) => Err(failure_of(error)),
        }
    }

    fn make(&mut self, download: &Download) -> Made {
        let (slot, image, size) = (download.slot, download.opening.image, download.opening.image_size);
        let decoded = match download.opening.transfer.codec {
            Codec::Raw => None,
            Codec::Lzma => Some(self.decode(download)),
            Codec::Patch => Some(self.apply_patch()),
        };
        match decoded {
            None => {}
            Some(Ok(decoded)) if decoded == image => {}
            Some(Ok(_)) => return Made::Wrong(InstallFailure::Mismatch),
            Some(Err(PayloadFailure::Malformed)) => return Made::Wrong(InstallFailure::Decode),
            Some(Err(PayloadFailure::Disk(error))) => return Made::Failed(error),
        }
        match hash_medium(&mut self.disk, slot.area(), size) {
            Ok(found) if found == Some(image) => Made::Right,
            Ok(_) if decoded.is_none() => Made::Wrong(InstallFailure::Mismatch),
            Ok(_) => Made::Lost,
            Err(error) => Made::Failed(error),
        }
    }

    fn apply_patch(&mut self) -> Result<Digest, PayloadFailure> {
        let apply = self.apply.as_mut().ok_or(PayloadFailure::Malformed)?;
        if !apply.is_streaming() {
            apply.resume(&mut self.disk)?;
        }
        apply.finish(&mut self.disk)
    }

    fn apply_again(&mut self) -> Result<(), DiskError> {
        self.apply.as_mut().map_or(Ok(()), |apply| apply.start_again(&mut self.disk))
    }

    fn decode(&mut self, download: &Download) -> Result<Digest, PayloadFailure> {
        let transfer = &download.opening.transfer;
        let memory = transfer.decoder.ok_or(PayloadFailure::Malformed)?;
        let what = Decoding {
            transfer_size: transfer.layout.transfer_size(),
            slot: download.slot.area(),
            image_size: download.opening.image_size,
            memory,
        };
        decode(&mut self.disk, &what)
    }

    /// What came out is wrong. If a chunk on the medium is not what it was when it was verified, the medium is to
    /// blame: what is right stays. If all are right, or those of a patch that was not stored are gone, `verdict` holds,
    /// and nothing of the payload is kept.
    fn blame(&mut self, download: &Download, verdict: InstallFailure) -> InstallFailure {
        let keeps_chunks = self.apply.as_ref().is_none_or(Apply::is_whole);
        let right = self.apply_again().and_then(|()| self.disk.drop_cache(download.area)).and_then(|()| {
            if keeps_chunks {
                self.rehash(download, |_| true).map(|right| right.is_complete())
            } else {
                Ok(true)
            }
        });
        match right
            .and_then(|right| if right { Pages::forget(&mut self.disk).map(|()| right) } else { Ok(right) })
        {
            Ok(true) => verdict,
            Ok(false) => InstallFailure::Failed,
            Err(error) => failure_of(error),
        }
    }

    /// The medium lost what was written. It is written again when all of the payload is there to begin with; a patch
    /// that was not stored is given up.
    fn lost(&mut self) -> InstallFailure {
        let keeps_chunks = self.apply.as_ref().is_none_or(Apply::is_whole);
        let forgotten = self.apply_again();
        match forgotten.and_then(|()| if keeps_chunks { Ok(()) } else { Pages::forget(&mut self.disk) }) {
            Ok(()) if keeps_chunks => InstallFailure::Failed,
            Ok(()) => InstallFailure::Mismatch,
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
        let trial = NewTrial { slot, tries: self.tries, image };
        self.boot.arm(&mut self.disk, self.confirmed, &trial).map_err(|_| InstallFailure::Boot)
    }

    /// Keeps what runs.
    pub(super) fn confirm(&mut self) -> Result<(), DiskError> {
        self.boot.confirm(&mut self.disk, self.confirmed, self.running)?;
        self.confirmed = self.running;
        Ok(())
    }
}

fn failure_of(error: DiskError) -> InstallFailure {
    match error {
        DiskError::Full { .. } => InstallFailure::NoRoom,
        DiskError::Range { .. } | DiskError::Failed { .. } => InstallFailure::Failed,
    }
}
