//! The SUIT manifest: what a release is, for whom, and the commands that install it (SPEC section 5).
//!
//! [`Manifest`] decodes and encodes. [`Manifest::walk`] checks every command before anything runs. [`Interpreter`] runs
//! a manifest that passed this check. [`ReleaseManifest`] writes the manifests that we publish. The envelope verifies
//! signatures: an interpreter takes a manifest only from a verified envelope.
//!
//! The format is draft-ietf-suit-manifest-37 in a closed profile. A command that is in the profile but not executed yet
//! is refused by name, never skipped.

mod build;
mod component;
pub mod consts;
mod content;
mod descriptor;
mod digest;
mod error;
mod lzma;
mod parameter;
#[cfg(feature = "details")]
mod reason;
mod run;
mod sequence;
mod text;
mod version;
mod walk;

pub use build::{Image, Images, PatchSource, RUNNING_COMPONENT, ReleaseError, ReleaseManifest};
pub use component::ComponentId;
pub use content::{Content, Section, Severable};
pub use descriptor::{Codec, Codecs, DecoderMemory, TransferDescriptor};
pub use error::{Feature, ManifestError, RunError};
pub use lzma::{Filter, LzmaHeader, LzmaProperties};
pub use parameter::Parameter;
#[cfg(feature = "details")]
pub use reason::ReportReason;
pub use run::{FetchPlan, Identity, Interpreter, Procedure, Step};
pub use sequence::{Command, ComponentIndex, Condition, ReportPolicy, Sequence};
pub use text::{LanguageText, Summary, Text};
pub use version::{VersionError, parse_version, version_text};

pub(crate) use digest::{digest_bytes, digest_of_wrapped, read_digest, read_wrapped_digest, write_digest};

use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::{ClassId, Digest, VendorId};
use consts::manifest::{INSTALL, PAYLOAD_FETCH, TEXT};
use parameter::Values;

/// A manifest with its exact bytes.
///
/// Decoding it and encoding it again gives the same bytes. Severed members are there as soon as the envelope
/// that carries them has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    content: Content,
}

/// One payload that a manifest may fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its address.
    pub uri: String,
    /// How it is transferred.
    pub transfer: TransferDescriptor,
    /// For a patch, the image that it starts from: the one that the commands before it described last.
    pub base: Option<ImageId>,
}

/// One image that a manifest can install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageId {
    /// SHA-256 of the image.
    pub digest: Digest,
    /// Bytes of the image.
    pub size: u64,
}

impl Manifest {
    /// Makes a manifest of `content`, with those severed members that it carries.
    ///
    /// # Errors
    /// [`ManifestError`] if `content` goes beyond what [`Manifest::decode`] takes.
    pub fn new(content: Content) -> Result<Self, ManifestError> {
        let mut manifest = Self::decode(&content.encode())?;
        for (key, member) in content.members() {
            manifest.attach_member(key, &member)?;
        }
        Ok(manifest)
    }

    /// Reads a manifest that fills `bytes`.
    ///
    /// # Errors
    /// [`ManifestError::Malformed`], [`ManifestError::Version`], [`ManifestError::DigestAlgorithm`], and
    /// [`ManifestError::NotInProfile`] for members that no version of ours will have.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(Self { bytes: bytes.to_vec(), content: Content::decode(bytes)? })
    }

    /// The exact bytes, without the byte string head that wraps them in an envelope.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The manifest's digest: the name of the release.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest_of_wrapped(&self.bytes)
    }

    /// The anti-rollback counter of the class.
    #[must_use]
    pub fn sequence_number(&self) -> u64 {
        self.content.sequence_number
    }

    /// The version that the release sets, most significant part first; negative parts are pre-releases
    /// (-3 alpha, -2 beta, -1 release candidate).
    #[must_use]
    pub fn version(&self) -> Option<&[i64]> {
        self.content.set_version.as_deref()
    }

    /// The vendor that the shared sequence names first.
    #[must_use]
    pub fn vendor(&self) -> Option<VendorId> {
        self.shared_values().find_map(|values| values.vendor_id)
    }

    /// The class that the shared sequence names first.
    #[must_use]
    pub fn class(&self) -> Option<ClassId> {
        self.shared_values().find_map(|values| values.class_id)
    }

    /// The images that the shared sequence describes: one, or one for each slot.
    #[must_use]
    pub fn images(&self) -> Vec<ImageId> {
        self.shared_values().filter_map(|values| values.image()).collect()
    }

    /// The payloads that the manifest may fetch, in the order of their commands.
    #[must_use]
    pub fn payloads(&self) -> Vec<Payload> {
        let (mut payloads, mut described) = (Vec::new(), None);
        for section in [&self.content.payload_fetch, &self.content.install] {
            let Some(sequence) = section.as_ref().and_then(Severable::get) else { continue };
            for parameters in sequence.parameter_lists() {
                let values = Values::of(parameters);
                described = values.image().or(described);
                if let (Some(uri), Some(transfer)) = (values.uri, values.fetch_arguments) {
                    let base = described.filter(|_| transfer.codec == Codec::Patch);
                    payloads.push(Payload { uri, transfer, base });
                }
            }
        }
        payloads
    }

    /// What people are told about the release, if the text is here. Devices never ask.
    ///
    /// # Errors
    /// [`ManifestError::Malformed`].
    pub fn languages(&self) -> Result<Vec<LanguageText>, ManifestError> {
        match self.content.text.as_ref().and_then(Severable::get) {
            Some(text) => Ok(text.languages()?),
            None => Ok(Vec::new()),
        }
    }

    fn shared_values(&self) -> impl Iterator<Item = Values> {
        self.content.shared.parameter_lists().into_iter().map(Values::of)
    }

    /// Adds a member that was severed: `content` of the envelope's byte string under `key`.
    ///
    /// # Errors
    /// [`ManifestError::MemberUnlisted`] if the manifest severs nothing under `key`,
    /// [`ManifestError::MemberMismatch`] if the digest differs, [`ManifestError::Malformed`].
    pub(crate) fn attach_member(&mut self, key: i64, content: &[u8]) -> Result<(), ManifestError> {
        let digest = digest_of_wrapped(content);
        match key {
            PAYLOAD_FETCH => {
                attach(&mut self.content.payload_fetch, key, &digest, || Sequence::decode(content))
            }
            INSTALL => attach(&mut self.content.install, key, &digest, || Sequence::decode(content)),
            TEXT => attach(&mut self.content.text, key, &digest, || Ok(Text::from_bytes(content))),
            key => Err(ManifestError::member_unlisted(key)),
        }
    }

    /// Removes the text, if it was severed.
    pub(crate) fn drop_text(&mut self) {
        if let Some(Severable::Severed { member, .. }) = &mut self.content.text {
            *member = None;
        }
    }
}

fn attach<T>(
    place: &mut Option<Severable<T>>,
    key: i64,
    digest: &Digest,
    decode: impl FnOnce() -> Result<T, ManifestError>,
) -> Result<(), ManifestError> {
    match place {
        Some(Severable::Severed { digest: want, member }) if want == digest => {
            *member = Some(decode()?);
            Ok(())
        }
        Some(Severable::Severed { .. }) => Err(ManifestError::member_mismatch(key)),
        Some(Severable::Inline(_)) | None => Err(ManifestError::member_unlisted(key)),
    }
}
