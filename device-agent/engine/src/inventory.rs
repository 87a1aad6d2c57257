//! What a device finds on its medium when it starts: its record, its trust anchor, and what each slot holds.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;
use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::device::{BootView, Record, Stage, StoreOp, Trial};
use whimbrel_protocol::disk::Disk;
use whimbrel_protocol::envelope::{Envelope, VerifyError};
use whimbrel_protocol::ids::{ClassId, VendorId};
use whimbrel_protocol::manifest::{TransferDescriptor, version_text};
use whimbrel_protocol::trust::Root;

use crate::boot::BootControl;
use crate::slot::{Slot, SlotFacts};
use crate::storage::{LoadedRecord, Storage, StorageError, StoreAnswer};

/// Which releases are for this device.
#[derive(Clone, Copy, Debug)]
pub struct Accepts {
    /// The maker.
    pub vendor: VendorId,
    /// The hardware.
    pub class: ClassId,
    /// Which signatures on releases count.
    pub signatures: Accept,
}

/// What a session starts from.
#[derive(Debug)]
pub struct Inventory {
    /// The pinned root.
    pub root: Root,
    /// What was saved last.
    pub record: Record,
    /// What the boot control says.
    pub boot: BootView,
    /// The envelope kept with the target slot.
    pub envelope: Option<Vec<u8>>,
    /// The version of the running release, if it is known.
    pub version: Option<String>,
    /// The payload that was on its way last, if it is known.
    pub payload: Option<TransferDescriptor>,
    /// What people should hear of.
    pub findings: Vec<Finding>,
}

/// Something that was found and that people should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The record is damaged: versions seen before are forgotten.
    RecordDamaged,
    /// A trust anchor was pinned.
    RootPinned {
        /// Its version.
        version: u64,
    },
    /// The envelope of a slot cannot be read; the slot counts as one that holds nothing known.
    EnvelopeUnreadable {
        /// Which slot.
        slot: Slot,
    },
    /// What runs is not confirmed, and no update of this device is testing it: a person's trial, or a loader that went
    /// to this slot by itself. No update begins until somebody confirms it or gives it up.
    NotConfirmed {
        /// The slot that runs.
        slot: Slot,
    },
    /// The envelope of a slot does not count.
    EnvelopeRefused {
        /// Which slot.
        slot: Slot,
        /// Why.
        error: VerifyError,
    },
}

/// Why a device does not start. `E` is what its host says of the trust anchor.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StartError<E> {
    /// The medium cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no trust anchor that can be used.
    #[error("there is no trust anchor: {0}")]
    Anchor(E),
    /// The record, with the trust anchor pinned in it, cannot be saved.
    #[error("the record cannot be saved")]
    Record,
}

impl Inventory {
    /// Reads what a session starts from, verifies the envelopes of the slots, and pins the trust anchor if it is new.
    ///
    /// `anchor` gets the bytes of the pinned root, none at the first start, and gives the root that counts with its
    /// bytes.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn take<D: Disk, B: BootControl, E>(
        storage: &mut Storage<D, B>,
        accepts: &Accepts,
        anchor: impl FnOnce(&[u8]) -> Result<(Root, Vec<u8>), E>,
    ) -> Result<Self, StartError<E>> {
        let mut findings = Vec::new();
        let mut record = match storage.load_record()? {
            LoadedRecord::Fresh => Box::default(),
            LoadedRecord::Found(record) => record,
            LoadedRecord::Damaged => {
                findings.push(Finding::RecordDamaged);
                Box::default()
            }
        };
        let (root, bytes) = anchor(&record.root).map_err(StartError::Anchor)?;
        if record.root != bytes {
            findings.push(Finding::RootPinned { version: root.version });
            record.root = bytes;
            let saved = storage.carry_out(StoreOp::SaveRecord(record.encode()));
            if saved != StoreAnswer::Stored(Ok(())) {
                return Err(StartError::Record);
            }
        }
        let (mut version, mut payload, mut target_envelope) = (None, None, None);
        let last = storage.last_payload();
        let is_installed = record.deployment.as_ref().is_some_and(|update| update.stage != Stage::Fetching);
        for slot in Slot::ALL {
            let bytes = match storage.read_envelope(slot) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                // The slot may be the one on trial: a session that knew nothing of it would end the deployment, and
                // nobody would confirm or revert the image. The host starts again later.
                Err(error) if is_installed => return Err(StorageError::Disk(error).into()),
                Err(_) => {
                    findings.push(Finding::EnvelopeUnreadable { slot });
                    continue;
                }
            };
            let verified =
                Envelope::decode(&bytes).and_then(|envelope| envelope.verify(&root, accepts.signatures));
            if slot == storage.target() {
                target_envelope = Some(bytes);
            }
            let envelope = match verified {
                Ok(envelope) => envelope,
                Err(error) => {
                    findings.push(Finding::EnvelopeRefused { slot, error });
                    continue;
                }
            };
            if let Some(facts) = SlotFacts::of(&envelope, accepts.vendor, accepts.class, slot) {
                storage.learn(slot, facts);
            }
            let mut payloads = envelope.manifest().payloads().into_iter().map(|payload| payload.transfer);
            payload = payload.or(payloads.find(|transfer| Some(transfer.index_digest) == last));
            if slot == storage.running() {
                version = envelope.manifest().version().map(version_text);
            }
        }
        let boot = storage.boot_view();
        if boot.trial == Trial::Running && !is_installed {
            findings.push(Finding::NotConfirmed { slot: storage.running() });
        }
        Ok(Self { root, record: *record, boot, envelope: target_envelope, version, payload, findings })
    }
}
