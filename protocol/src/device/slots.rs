//! What is known of the two slots: the image that runs, what the boot control says, and which images the running slot
//! was found to hold.

use alloc::vec::Vec;

use super::config::{BootView, SessionConfig, Trial};
use super::event::PatchFailure;
use super::io::InstallFailure;
use crate::limits::PATCHES_MAX;
use crate::manifest::{Identity, ImageId};

/// The slots of a device, as far as its session knows.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) boot: BootView,
    /// Whether the running slot was found to hold these images. It is only read, so that this stays true as long as
    /// the session lives.
    verdicts: Vec<(ImageId, bool)>,
    /// Times in a row that the medium failed while a patch was applied.
    medium_failures: u32,
}

/// Verdicts that are kept; the oldest makes room.
const VERDICTS_MAX: usize = 2 * PATCHES_MAX;
/// Times in a row that the medium may fail while a patch is applied.
const MEDIUM_FAILURES_MAX: u32 = 3;

impl Slots {
    pub(super) const fn new(boot: BootView) -> Self {
        Self { boot, verdicts: Vec::new(), medium_failures: 0 }
    }

    /// What a manifest is executed for.
    pub(super) fn identity(&self, config: &SessionConfig) -> Identity {
        Identity { vendor: config.vendor, class: config.class, target_slot: self.boot.target_slot }
    }

    /// Whether the running slot holds `image`, if that is known without reading it. What the verified envelope
    /// of the running slot says is enough to leave a patch out, and never enough to use one.
    pub(super) fn runs(&self, image: ImageId) -> Option<bool> {
        let another = self.boot.running.image.is_some_and(|running| running != image.digest);
        self.verdict(image).or(another.then_some(false))
    }

    fn verdict(&self, image: ImageId) -> Option<bool> {
        let known = self.verdicts.iter().find(|(known, _)| *known == image).map(|(_, holds)| *holds);
        // It holds another image of the same size.
        let other = self.verdicts.iter().any(|(known, holds)| *holds && known.size == image.size);
        known.or(other.then_some(false))
    }

    /// The running slot was read and compared with `image`.
    pub(super) fn running_slot_read(&mut self, image: ImageId, holds: bool) {
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.remove(0);
        }
        self.verdicts.push((image, holds));
    }

    /// Whether a failed installation of a patch means that another payload is to be taken.
    pub(super) fn patch_failure(&mut self, failure: InstallFailure) -> Option<PatchFailure> {
        match failure {
            InstallFailure::Decode => Some(PatchFailure::Decode),
            InstallFailure::Mismatch => Some(PatchFailure::Mismatch),
            InstallFailure::NoRoom => Some(PatchFailure::NoRoom),
            InstallFailure::Failed => {
                self.medium_failures += 1;
                (self.medium_failures >= MEDIUM_FAILURES_MAX).then_some(PatchFailure::Medium)
            }
            _ => None,
        }
    }

    /// The patch that failed is given up; failures of the medium count for the next one anew.
    pub(super) const fn patch_given_up(&mut self) {
        self.medium_failures = 0;
    }

    /// The new image is permanent: its sequence number is the floor from now on, and the other slot the next target.
    pub(super) fn confirmed(&mut self, sequence: Option<u64>) {
        self.boot.trial = Trial::None;
        self.boot.target_slot = 1 - self.boot.target_slot.min(1);
        self.boot.running.sequence = self.boot.running.sequence.max(sequence.unwrap_or(0));
    }
}
