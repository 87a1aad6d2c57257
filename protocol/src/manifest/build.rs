//! Writes the manifests that we publish, by the templates of SPEC section 5.4.
//!
//! If one image fits every slot:
//!
//! ```text
//! components [['app']]
//! shared     20 {1: vendor, 2: class, 3: digest, 14: size}, 1 15, 2 15
//! install    20 {21: uri, 25: descriptor}, 21 2, 3 15
//! validate   3 15          invoke  23 2          set-version [1, 4, 2]
//! ```
//!
//! If there are patches, the running image is a second component, and one patch after the other is tried
//! before the full payload:
//!
//! ```text
//! components [['app'], ['app','run']]
//! shared     12 0, 20 {1: vendor, 2: class, 3: digest, 14: size}, 1 15, 2 15
//! install    12 0, 15 [ <<12 1, 20 {3: base digest, 14: base size}, 3 5,
//!                         12 0, 20 {21: uri, 25: descriptor}, 21 2, 3 15>>, ...
//!                       <<12 0, 20 {21: uri, 25: descriptor}, 21 2, 3 15>> ]
//! validate   12 0, 3 15    invoke  12 0, 23 2    set-version [1, 4, 2]
//! ```
//!
//! Images that are bound to a slot (code that runs in place) take the draft's A/B template. A try-each in the
//! shared sequence chooses the slot and sets digest and size; another one in install sets URI and descriptor.
//! The text is always severed, so that a service can remove it before it publishes.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use super::{
    Codec, Command, ComponentId, ComponentIndex, Condition, Content, ImageId, Manifest, ManifestError,
    Parameter, ReportPolicy, Sequence, Severable, Text, TransferDescriptor,
};
use crate::ids::{ClassId, Digest, VendorId};
use crate::limits::PATCHES_MAX;

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
    /// The address of its payload: [`TransferDescriptor::uri`], if there is no reason for another one.
    pub uri: String,
    /// How its payload is transferred.
    pub transfer: TransferDescriptor,
    /// Patches that make the image, in the order in which devices try them: at most [`PATCHES_MAX`].
    pub patches: Vec<PatchSource>,
}

/// A payload that makes an image of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchSource {
    /// The image that it starts from, which has to run.
    pub base: ImageId,
    /// Its address: [`TransferDescriptor::uri`], if there is no reason for another one.
    pub uri: String,
    /// How it is transferred: [`TransferDescriptor::patch`] with [`RUNNING_COMPONENT`] as its base component.
    pub transfer: TransferDescriptor,
}

/// Index of the component that a patch of ours starts from.
pub const RUNNING_COMPONENT: u8 = 1;
/// Index of the component that is installed.
const APP_COMPONENT: u64 = 0;

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
    /// More patches than a device tries.
    #[error("{got} patches, {limit} are allowed")]
    Patches {
        /// Patches given.
        got: usize,
        /// Most patches.
        limit: usize,
    },
    /// One of the patches is no patch, or the full payload is a patch.
    #[error("codec {} in the place of a {}", .got.name(), if *.patch { "patch" } else { "full payload" })]
    Codec {
        /// The codec found.
        got: Codec,
        /// Whether it stands among the patches.
        patch: bool,
    },
    /// There are patches for images that are bound to a slot. The running image is always bound to the other
    /// slot, so that no patch would fit.
    #[error("images that are bound to a slot can't have patches")]
    PatchPerSlot,
    /// A value is outside its range, or a device would refuse the result.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Image {
    /// An image whose payload is found by its content address.
    #[must_use]
    pub fn new(digest: Digest, size: u64, transfer: TransferDescriptor) -> Self {
        Self { digest, size, uri: transfer.uri(), transfer, patches: Vec::new() }
    }

    fn check(&self) -> Result<(), ReleaseError> {
        if self.patches.len() > PATCHES_MAX {
            return Err(ReleaseError::Patches { got: self.patches.len(), limit: PATCHES_MAX });
        }
        let ways = self.patches.iter().map(|patch| (patch.transfer.codec, true));
        for (got, patch) in ways.chain([(self.transfer.codec, false)]) {
            if (got == Codec::Patch) != patch {
                return Err(ReleaseError::Codec { got, patch });
            }
        }
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

    /// `15 [<<a patch>>, ..., <<the full payload>>]`.
    fn ways(&self) -> Command {
        let mut branches: Vec<Sequence> = self.patches.iter().map(PatchSource::way).collect();
        branches.push(Sequence(way(self.source()).into()));
        Command::TryEach { branches, or_nothing: false }
    }
}

impl PatchSource {
    /// A patch that is found by its content address.
    #[must_use]
    pub fn new(base: ImageId, transfer: TransferDescriptor) -> Self {
        Self { base, uri: transfer.uri(), transfer }
    }

    /// `12 1, 20 {3: digest, 14: size}, 3 5`, then the patch. That another image runs is an ordinary case, so
    /// no failure is recorded.
    fn way(&self) -> Sequence {
        let base = [Parameter::ImageDigest(self.base.digest), Parameter::ImageSize(self.base.size)];
        let mut commands = Vec::from([
            select(u64::from(RUNNING_COMPONENT)),
            Command::OverrideParameters(base.into()),
            Command::Condition(Condition::ImageMatch, ReportPolicy::ON_SUCCESS),
        ]);
        let source = [Parameter::Uri(self.uri.clone()), Parameter::FetchArguments(self.transfer)];
        commands.extend(way(source));
        Sequence(commands)
    }
}

impl ReleaseManifest {
    /// Writes the manifest and checks it as a device will.
    ///
    /// # Errors
    /// [`ReleaseError`] if a value is outside its range.
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
        let mut validate = Vec::from([condition(Condition::ImageMatch)]);
        let mut invoke = Vec::from([Command::Invoke(ReportPolicy::ON_FAILURE)]);
        let mut components = Vec::from([ComponentId::app()]);
        match &self.images {
            Images::Any(image) if !image.patches.is_empty() => {
                image.check()?;
                if let Some(Command::OverrideParameters(parameters)) = shared.first_mut() {
                    parameters.extend(image.identity());
                }
                install.push(image.ways());
                components.push(ComponentId::app_running());
                for sequence in [&mut shared, &mut install, &mut validate, &mut invoke] {
                    sequence.insert(0, select(APP_COMPONENT));
                }
            }
            Images::Any(image) => {
                image.check()?;
                if let Some(Command::OverrideParameters(parameters)) = shared.first_mut() {
                    parameters.extend(image.identity());
                }
                install.push(Command::OverrideParameters(image.source().into()));
                install.extend([Command::Fetch(ReportPolicy::ON_FAILURE), condition(Condition::ImageMatch)]);
            }
            Images::PerSlot([(slot, one), (other_slot, other)]) => {
                if slot == other_slot {
                    return Err(ReleaseError::SameSlot { slot: *slot });
                }
                if !one.patches.is_empty() || !other.patches.is_empty() {
                    return Err(ReleaseError::PatchPerSlot);
                }
                one.check()?;
                other.check()?;
                shared.push(per_slot([(*slot, one.identity()), (*other_slot, other.identity())]));
                install.push(per_slot([(*slot, one.source()), (*other_slot, other.source())]));
                install.extend([Command::Fetch(ReportPolicy::ON_FAILURE), condition(Condition::ImageMatch)]);
            }
        }
        let manifest = Manifest::new(Content {
            sequence_number: self.sequence,
            components,
            shared: Sequence(shared),
            reference_uri: None,
            set_version: Some(self.version.clone()),
            validate: Some(Sequence(validate)),
            load: None,
            invoke: Some(Sequence(invoke)),
            payload_fetch: None,
            install: Some(Severable::Inline(Sequence(install))),
            text: self.text.clone().map(Severable::<Text>::sever),
        })?;
        manifest.walk()?;
        Ok(manifest)
    }
}

fn condition(condition: Condition) -> Command {
    Command::Condition(condition, ReportPolicy::ALL)
}

fn select(component: u64) -> Command {
    Command::SetComponentIndex(ComponentIndex::One(component))
}

/// `12 0, 20 {21: uri, 25: descriptor}, 21 2, 3 15`.
fn way(source: [Parameter; 2]) -> [Command; 4] {
    [
        select(APP_COMPONENT),
        Command::OverrideParameters(source.into()),
        Command::Fetch(ReportPolicy::ON_FAILURE),
        condition(Condition::ImageMatch),
    ]
}

/// `15 [<<20 {5: slot}, 5 5, 20 {...}>>, <<20 {5: other}, 5 5, 20 {...}>>]`: chooses by the slot that will be
/// written. That a branch is for the other slot is an ordinary case, so no failure is recorded.
fn per_slot(choices: [(u64, [Parameter; 2]); 2]) -> Command {
    let branches = choices.map(|(slot, parameters)| {
        Sequence(Vec::from([
            Command::OverrideParameters(Vec::from([Parameter::ComponentSlot(slot)])),
            Command::Condition(Condition::ComponentSlot, ReportPolicy::ON_SUCCESS),
            Command::OverrideParameters(parameters.into()),
        ]))
    });
    Command::TryEach { branches: branches.into(), or_nothing: false }
}
