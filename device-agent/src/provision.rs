//! What the factory does: it says which release is in the slot that a new device starts from.
//!
//! Everything comes from the release's signed envelope, and the slot's bytes have to be those of its image. So nothing is
//! believed here that an update would not believe either: the sequence number below which the device installs nothing, and
//! the image that its first patch starts from, are what the release keys signed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;
use whimbrel_engine::Inventory;
use whimbrel_engine::slot::{Slot, SlotFacts};
use whimbrel_engine::storage::ProvisionError as SlotError;
use whimbrel_protocol::device::{Stage, Trial};
use whimbrel_protocol::disk::{Disk as _, DiskError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::version_text;

use crate::error::AgentError;
use crate::home::{Home, slot_name};
use crate::standalone::{InstallError, read_envelope};

/// What the factory says.
#[derive(Clone, Debug)]
pub struct Provision {
    /// The signed envelope of the release.
    pub envelope: PathBuf,
    /// The image, if it is to be written into the slot, which is then empty.
    pub image: Option<PathBuf>,
    /// Also on a device that has had updates or has heard from a service.
    pub force: bool,
}

/// What the device knows then, as `provision --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provisioned {
    /// The slot: `a` or `b`.
    pub slot: String,
    /// The file that is the slot.
    pub slot_file: String,
    /// The release.
    pub release: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Its sequence number: nothing below it is installed.
    pub sequence: u64,
    /// SHA-256 of the image.
    pub image: String,
    /// Bytes of the image.
    pub image_bytes: u64,
}

/// Why a device is not provisioned.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// It is no new device.
    #[error("this device is not new: {why}; --force does it all the same")]
    Life {
        /// What shows that.
        why: &'static str,
    },
    /// An update is on its way into a slot.
    #[error("an update is installed or on trial: commit it or roll it back first")]
    Busy,
    /// The release is for other devices.
    #[error("{path} is a release for other devices than device.vendor and device.class say, or starts no image", path = .path.display())]
    OtherDevices {
        /// The envelope.
        path: PathBuf,
    },
    /// The slot holds something else.
    #[error("{slot_file} does not hold the image of the release: its first {bytes} bytes should have SHA-256 {image}, {has}", slot_file = .slot_file.display())]
    Content {
        /// The slot.
        slot_file: PathBuf,
        /// Bytes of the image.
        bytes: u64,
        /// What they should be.
        image: Digest,
        /// What they are.
        has: String,
    },
    /// The slot is not empty.
    #[error("{slot_file} holds something already: without --image it is compared, not written", slot_file = .slot_file.display())]
    Occupied {
        /// The slot.
        slot_file: PathBuf,
    },
}

/// Bytes that are copied at once.
const PART_BYTES: usize = 64 * 1024;

/// Says that the running slot holds a release. Nothing is written before everything is found right, but for the image.
///
/// # Errors
/// [`AgentError::Provision`], [`AgentError::Install`] for an envelope that does not count, [`AgentError::Folder`].
pub fn provision(home: &mut Home, what: &Provision) -> Result<Provisioned, AgentError> {
    let inventory = home.inventory()?;
    let envelope = read_envelope(home, &inventory, &what.envelope)?;
    let slot = home.storage.running();
    check_life(&inventory, envelope.digest(), what.force)?;
    let device = &home.config.device;
    let facts = SlotFacts::of(&envelope, device.vendor, device.class, slot)
        .ok_or_else(|| ProvisionError::OtherDevices { path: what.envelope.clone() })?;
    if let Some(image) = &what.image {
        write_image(home, slot, image, &facts)?;
    }
    let slot_file = home.slot_file(slot);
    match home.storage.provision(envelope.bytes(), facts) {
        Ok(()) => {}
        Err(SlotError::Content { found }) => {
            if what.image.is_some() {
                // It was empty, and is again.
                let _ = home.storage.disk_mut().release(slot.area(), 0);
            }
            let has =
                found.map_or_else(|| "and there are fewer".to_owned(), |found| format!("and have {found}"));
            let (bytes, image) = (facts.image_size, facts.image);
            return Err(ProvisionError::Content { slot_file, bytes, image, has }.into());
        }
        Err(SlotError::Disk(_)) => return Err(failed(home)),
    }
    Ok(Provisioned {
        slot: slot_name(slot).to_owned(),
        slot_file: slot_file.display().to_string(),
        release: facts.release.to_hex(),
        version: envelope.manifest().version().map(version_text),
        sequence: facts.sequence,
        image: facts.image.to_hex(),
        image_bytes: facts.image_size,
    })
}

/// A device that has a life of its own is not told what it runs.
fn check_life(inventory: &Inventory, release: Digest, force: bool) -> Result<(), ProvisionError> {
    let record = &inventory.record;
    let is_installed = record.deployment.as_ref().is_some_and(|known| known.stage != Stage::Fetching);
    if is_installed || matches!(inventory.boot.trial, Trial::Armed | Trial::Running) {
        return Err(ProvisionError::Busy);
    }
    let why = match inventory.boot.running.release {
        Some(running) if running != release => "another release is known to be in the slot that runs",
        _ if record.deployment.is_some() || !record.outcomes.is_empty() => "it has had an update",
        _ if !record.scopes.is_empty() => "it has heard from a service",
        _ => return Ok(()),
    };
    if force { Ok(()) } else { Err(ProvisionError::Life { why }) }
}

/// Writes the image into the slot if that is empty. Nothing starts from an empty slot, so that a power cut in between
/// spoils nothing: it is done again.
fn write_image(home: &mut Home, slot: Slot, path: &Path, facts: &SlotFacts) -> Result<(), AgentError> {
    let slot_file = home.slot_file(slot);
    let unreadable = |error| InstallError::Read { path: path.to_owned(), error };
    let image = File::open(path).map_err(unreadable)?;
    if image.metadata().map_err(unreadable)?.len() != facts.image_size {
        let (bytes, image) = (facts.image_size, facts.image);
        let has = format!("and {} has another length", path.display());
        return Err(ProvisionError::Content { slot_file, bytes, image, has }.into());
    }
    let disk = home.storage.disk_mut();
    if disk.len(slot.area()).unwrap_or(0) > 0 {
        return Err(ProvisionError::Occupied { slot_file }.into());
    }
    let copied = copy(disk, slot, &image, facts.image_size);
    match copied {
        Ok(()) => Ok(()),
        Err(Copying::Image(error)) => {
            let _ = home.storage.disk_mut().release(slot.area(), 0);
            Err(unreadable(error).into())
        }
        Err(Copying::Disk) => {
            let error = failed(home);
            let _ = home.storage.disk_mut().release(slot.area(), 0);
            Err(error)
        }
    }
}

/// What of a copy failed.
enum Copying {
    Image(std::io::Error),
    Disk,
}

impl From<DiskError> for Copying {
    fn from(_: DiskError) -> Self {
        Self::Disk
    }
}

fn copy(disk: &mut crate::disk::FileDisk, slot: Slot, image: &File, bytes: u64) -> Result<(), Copying> {
    disk.reserve(slot.area(), bytes)?;
    let mut buffer = vec![0; PART_BYTES];
    let mut at = 0;
    while at < bytes {
        let len = usize::try_from(bytes - at).unwrap_or(PART_BYTES).min(PART_BYTES);
        let part = buffer.get_mut(..len).unwrap_or_default();
        image.read_exact_at(part, at).map_err(Copying::Image)?;
        disk.write(slot.area(), at, part)?;
        at += len as u64;
    }
    Ok(disk.flush(slot.area())?)
}

fn failed(home: &mut Home) -> AgentError {
    let path = home.config.storage.data.clone();
    home.failure(InstallError::Failed { what: "writing what is in the slot", path }.into())
}
