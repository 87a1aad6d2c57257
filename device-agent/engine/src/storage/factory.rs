//! What the factory says of the image that it put into the slot which runs.

use thiserror::Error;
use whimbrel_protocol::disk::{Disk, DiskError};
use whimbrel_protocol::ids::Digest;

use super::{Storage, of_slot};
use crate::boot::BootControl;
use crate::image::hash_medium;
use crate::slot::SlotFacts;

/// Why the running slot is not said to hold a release.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProvisionError {
    /// It holds something else.
    #[error("the slot that runs does not hold the image of the release")]
    Content {
        /// SHA-256 of as many bytes as the image has; `None` if the slot has fewer.
        found: Option<Digest>,
    },
    /// The medium did not do it.
    #[error("the medium does not do what it should")]
    Disk(#[from] DiskError),
}

impl<D: Disk, B: BootControl> Storage<D, B> {
    /// Keeps `envelope` with the slot that runs, as an update does with the slot that it writes: from then on the device
    /// knows release, version and sequence number of what it runs. `facts` is what the verified envelope says of that
    /// slot. The slot is read from the medium first, and has to hold the image.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub fn provision(&mut self, envelope: &[u8], facts: SlotFacts) -> Result<(), ProvisionError> {
        let slot = self.running;
        let found = hash_medium(&mut self.disk, slot.area(), facts.image_size)?;
        if found != Some(facts.image) {
            return Err(ProvisionError::Content { found });
        }
        let Some(held) = of_slot(&mut self.slots, slot) else {
            return Ok(());
        };
        held.envelope.write_both(&mut self.disk, envelope)?;
        held.facts = Some(facts);
        Ok(())
    }
}
