//! Writes the manifests that we publish: the templates of SPEC section 5.4.
//!
//! One image fits every slot:
//!
//! ```text
//! components [['app']]
//! shared     20 {1: vendor, 2: class, 3: digest, 14: size}, 1 15, 2 15
//! install    20 {21: uri, 25: descriptor}, 21 2, 3 15
//! validate   3 15          invoke  23 2          set-version [1, 4, 2]
//! ```
//!
//! Images that are bound to a slot (code that runs in place) take the draft's A/B template: the slot is chosen
//! by a try-each in the shared sequence, which sets digest and size, and once more in install, which sets URI
//! and descriptor. The text is always severed, so that a service can drop it before it publishes.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use super::{
    Command, ComponentId, Condition, Content, Manifest, ManifestError, Parameter, Policy, Sequence,
    Severable, Text, TransferDescriptor,
};
use crate::ids::{ClassId, Digest, VendorId};

/// A release to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseManifest {
    /// Maker of the devices that it is for.
    pub vendor: VendorId,
    /// Class of the devices that it is for.
    pub class: ClassId,
    /// Version, most significant part first: 1 to 6 integers; -3 alpha, -2 beta, -1 release candidate.
    pub version: Vec<i64>,
    /// Anti-rollback counter of the class.
    pub sequence: u64,
    /// What it installs.
    pub images: Images,
    /// For people.
    pub text: Option<Text>,
}

/// What a release installs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Images {
    /// The same image whatever the slot.
    Any(Image),
    /// An image for each of two slots, with the slots' numbers, which differ.
    PerSlot([(u64, Image); 2]),
}

/// An image and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// SHA-256 of the image.
    pub digest: Digest,
    /// Bytes of the image, at least 1.
    pub size: u64,
    /// Where its payload is; [`TransferDescriptor::uri`] unless there is a reason for another.
    pub uri: String,
    /// How its payload is transferred.
    pub transfer: TransferDescriptor,
}

/// Why no manifest can be made of a release.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReleaseError {
    /// A raw payload is not as long as its image.
    #[error("raw payload has {transfer_size} bytes, its image {image_size}")]
    TransferSize {
        /// Bytes of the payload.
        transfer_size: u64,
        /// Bytes of the image.
        image_size: u64,
    },
    /// Both images are for one slot.
    #[error("both images are for slot {slot}")]
    SameSlot {
        /// The slot.
        slot: u64,
    },
    /// A value is outside its range, or a device would refuse the result.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Image {
    /// An image whose payload is found by its content address.
    #[must_use]
    pub fn new(digest: Digest, size: u64, transfer: TransferDescriptor) -> Self {
        Self { digest, size, uri: transfer.uri(), transfer }
    }

    fn check(&self) -> Result<(), ReleaseError> {
        if self.transfer.fits(self.size) {
            return Ok(());
        }
        let transfer_size = self.transfer.layout.transfer_size();
        Err(ReleaseError::TransferSize { transfer_size, image_size: self.size })
    }

    fn identity(&self) -> [Parameter; 2] {
        [Parameter::ImageDigest(self.digest), Parameter::ImageSize(self.size)]
    }

    fn source(&self) -> [Parameter; 2] {
        [Parameter::Uri(self.uri.clone()), Parameter::FetchArguments(self.transfer)]
    }
}

impl ReleaseManifest {
    /// Writes the manifest and judges it as a device will.
    ///
    /// # Errors
    /// [`ReleaseError`] where a value is outside its range.
    pub fn build(&self) -> Result<Manifest, ReleaseError> {
        let mut shared = Vec::from([
            Command::OverrideParameters(Vec::from([
                Parameter::VendorId(self.vendor),
                Parameter::ClassId(self.class),
            ])),
            condition(Condition::VendorIdentifier),
            condition(Condition::ClassIdentifier),
        ]);
        let mut install = Vec::new();
        match &self.images {
            Images::Any(image) => {
                image.check()?;
                if let Some(Command::OverrideParameters(parameters)) = shared.first_mut() {
                    parameters.extend(image.identity());
                }
                install.push(Command::OverrideParameters(image.source().into()));
            }
            Images::PerSlot([(slot, one), (other_slot, other)]) => {
                if slot == other_slot {
                    return Err(ReleaseError::SameSlot { slot: *slot });
                }
                one.check()?;
                other.check()?;
                shared.push(per_slot([(*slot, one.identity()), (*other_slot, other.identity())]));
                install.push(per_slot([(*slot, one.source()), (*other_slot, other.source())]));
            }
        }
        install.extend([Command::Fetch(Policy::ON_FAILURE), condition(Condition::ImageMatch)]);
        let manifest = Manifest::new(Content {
            sequence_number: self.sequence,
            components: Vec::from([ComponentId::app()]),
            shared: Sequence(shared),
            reference_uri: None,
            set_version: Some(self.version.clone()),
            validate: Some(Sequence(Vec::from([condition(Condition::ImageMatch)]))),
            load: None,
            invoke: Some(Sequence(Vec::from([Command::Invoke(Policy::ON_FAILURE)]))),
            payload_fetch: None,
            install: Some(Severable::Inline(Sequence(install))),
            text: self.text.clone().map(Severable::<Text>::sever),
        })?;
        manifest.walk()?;
        Ok(manifest)
    }
}

fn condition(condition: Condition) -> Command {
    Command::Condition(condition, Policy::ALL)
}

/// `15 [<<20 {5: slot}, 5 5, 20 {...}>>, <<20 {5: other}, 5 5, 20 {...}>>]`: what goes with the slot that will
/// be written. A slot that is not the one is no failure worth a record.
fn per_slot(choices: [(u64, [Parameter; 2]); 2]) -> Command {
    let branches = choices.map(|(slot, parameters)| {
        Sequence(Vec::from([
            Command::OverrideParameters(Vec::from([Parameter::ComponentSlot(slot)])),
            Command::Condition(Condition::ComponentSlot, Policy::ON_SUCCESS),
            Command::OverrideParameters(parameters.into()),
        ]))
    });
    Command::TryEach { branches: branches.into(), or_nothing: false }
}
