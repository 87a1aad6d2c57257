//! Patches: what the running slot holds, and how a device takes another payload where a patch fails
//! (SPEC section 8.10).

use alloc::vec::Vec;

use super::io::{Event, InstallFailure, PatchFailure};
use super::record::{Deployment, GivenUp};
use super::release::Run;
use super::work::Work;
use super::{Boxed, DeviceSession};
use crate::ids::PayloadTag;
use crate::limits::PATCHES_MAX;
use crate::manifest::{Codec, FetchPlan, ImageId};

/// What the running slot was found to hold. It is only read, so that this stays true as long as the session lives.
#[derive(Debug, Default)]
pub(super) struct Bases {
    verdicts: Vec<(ImageId, bool)>,
}

/// Verdicts that are kept; the oldest makes room.
const VERDICTS_MAX: usize = 2 * PATCHES_MAX;
/// Times in a row that the medium may fail while a patch is applied.
const MEDIUM_FAILURES_MAX: u32 = 3;

impl Bases {
    /// Whether the running slot holds `image`, as far as that is known.
    fn verdict(&self, image: ImageId) -> Option<bool> {
        let known = self.verdicts.iter().find(|(known, _)| *known == image).map(|(_, holds)| *holds);
        // It holds another image of the same size.
        let other = self.verdicts.iter().any(|(known, holds)| *holds && known.size == image.size);
        known.or(other.then_some(false))
    }

    fn note(&mut self, image: ImageId, holds: bool) {
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.remove(0);
        }
        self.verdicts.push((image, holds));
    }
}

impl DeviceSession {
    /// Whether the running slot holds `image`, where that is known without reading it. What the verified envelope
    /// of the running slot says is enough to leave a patch out, and never enough to use one.
    pub(super) fn runs(&self, image: ImageId) -> Option<bool> {
        let another = self.boot.running.image.is_some_and(|running| running != image.digest);
        self.bases.verdict(image).or(another.then_some(false))
    }

    /// The running slot was read and compared.
    pub(super) fn base_read(&mut self, image: ImageId, holds: bool) {
        self.bases.note(image, holds);
    }

    /// Whether a patch is left out before anything of it is fetched. A device that could not say so at once would
    /// fetch what it cannot use.
    pub(super) fn leaves_out(&mut self, plan: &FetchPlan) -> bool {
        if plan.transfer.codec != Codec::Patch {
            return false;
        }
        let payload = plan.transfer.tag();
        if self.record.deployment.as_ref().is_some_and(|deployment| deployment.has_given_up(payload)) {
            return true;
        }
        let need_bytes = plan.transfer.decoder.map_or(0, |decoder| u64::from(decoder.memory_bytes));
        let limit_bytes = self.config.memory_max_kib.saturating_mul(1024);
        let fits = need_bytes <= limit_bytes;
        if !fits {
            self.tell(Event::PatchFailed { payload, why: PatchFailure::Memory { need_bytes, limit_bytes } });
        }
        !fits
    }

    /// Whether a failed installation of what `run` has fetched means that another payload is to be taken.
    pub(super) fn patch_failure(&mut self, run: &Run, failure: InstallFailure) -> Option<PatchFailure> {
        if !run.fetches_patch() {
            return None;
        }
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

    /// A patch did not become the image. The manifest goes on when it is durable that it is not tried again.
    pub(super) fn give_up(&mut self, run: Boxed<Run>, why: PatchFailure) {
        let Some(payload) = run.plan.as_ref().map(|plan| plan.transfer.tag()) else {
            return;
        };
        self.medium_failures = 0;
        self.tell(Event::PatchFailed { payload, why });
        self.change(|record| {
            if let Some(deployment) = &mut record.deployment {
                deployment.give_up(payload);
            }
        });
        self.work = Work::GivingUp(run);
    }

    /// It is durable that the patch is given up: its fetch counts as done, and the digest decides.
    pub(super) fn gave_up(&mut self) -> bool {
        match core::mem::replace(&mut self.work, Work::Idle) {
            Work::GivingUp(mut run) => {
                run.fetched(true);
                self.step(run);
                true
            }
            other => {
                self.work = other;
                false
            }
        }
    }
}

impl Deployment {
    fn has_given_up(&self, payload: PayloadTag) -> bool {
        // A manifest with more patches than ours have would otherwise be an endless one.
        self.given_up.len() >= PATCHES_MAX || self.given_up.iter().any(|patch| patch.payload == payload)
    }

    /// Notes a patch with what is in the ledger beyond the patches before it.
    fn give_up(&mut self, payload: PayloadTag) {
        let (received, twice) = self.spent();
        if self.given_up.len() < PATCHES_MAX {
            self.given_up.push(GivenUp {
                payload,
                bytes_received: self.bytes_received.saturating_sub(received),
                bytes_twice: self.bytes_twice.saturating_sub(twice),
            });
        }
    }
}
