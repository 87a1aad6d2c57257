//! A release as a folder. It holds `release.suit`, and the payloads in files named after their index digests.

use std::path::{Path, PathBuf};

use whimbrel_protocol::envelope::{Envelope, Unverified};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::limits::ENVELOPE_BYTES_MAX;
use whimbrel_protocol::manifest::{ImageId, Manifest, Payload};

use super::ReleaseError;
use crate::files::{self, Existing, Secrecy};

/// The envelope's name.
pub const ENVELOPE_FILE: &str = "release.suit";
/// The summary's name. For people; nothing reads it.
pub const SUMMARY_FILE: &str = "release.json";

/// The name of the payload with this index digest.
#[must_use]
pub fn payload_file(index: &Digest) -> String {
    format!("{index}.payload")
}

/// An envelope with the path of its file. Nothing of it is verified.
#[derive(Clone, Debug)]
pub struct ReleaseFolder {
    /// The envelope's file.
    pub path: PathBuf,
    /// The envelope.
    pub envelope: Envelope<Unverified>,
}

impl ReleaseFolder {
    /// Reads the release in the folder `path`, or the envelope in the file `path`.
    ///
    /// # Errors
    /// [`ReleaseError::NoEnvelope`], [`ReleaseError::File`], [`ReleaseError::Envelope`].
    pub fn open(path: &Path) -> Result<Self, ReleaseError> {
        let is_folder = path.is_dir();
        let file = if is_folder { path.join(ENVELOPE_FILE) } else { path.to_path_buf() };
        if is_folder && !file.is_file() {
            return Err(ReleaseError::NoEnvelope { folder: path.into() });
        }
        let bytes = files::read(&file, "an envelope", ENVELOPE_BYTES_MAX as u64)?;
        match Envelope::decode(&bytes) {
            Ok(envelope) => Ok(Self { path: file, envelope }),
            Err(source) => Err(ReleaseError::Envelope { path: file, source }),
        }
    }

    /// The manifest. Its digest is right, its text can be read and devices take its commands, but nobody has checked
    /// who signed it.
    ///
    /// # Errors
    /// [`ReleaseError::Envelope`], [`ReleaseError::Refused`].
    pub fn manifest(&self) -> Result<Manifest, ReleaseError> {
        let wrong = |source| ReleaseError::Envelope { path: self.path.clone(), source };
        let manifest = self.envelope.unverified_manifest().map_err(wrong)?;
        if manifest.digest() != self.envelope.claimed_digest() {
            return Err(wrong(whimbrel_protocol::envelope::VerifyError::Digest));
        }
        manifest.languages().map_err(|source| wrong(source.into()))?;
        manifest.walk().map_err(|source| ReleaseError::Refused { path: self.path.clone(), source })?;
        Ok(manifest)
    }

    /// The path at which the payload with this index digest should be.
    #[must_use]
    pub fn payload_path(&self, index: &Digest) -> PathBuf {
        self.path.with_file_name(payload_file(index))
    }

    /// Writes the envelope back.
    ///
    /// # Errors
    /// [`ReleaseError::File`]; the old envelope is then as it was.
    pub fn save(&self) -> Result<(), ReleaseError> {
        Ok(files::write(&self.path, self.envelope.bytes(), Secrecy::Public, Existing::Replace)?)
    }
}

/// Each payload of `manifest` with the image that it becomes. The templates list both in the same order.
pub(crate) fn images_of(manifest: &Manifest) -> Vec<(ImageId, Payload)> {
    let images = manifest.images();
    let payloads = manifest.payloads();
    if images.len() == payloads.len() {
        return images.into_iter().zip(payloads).collect();
    }
    // The payloads are several ways to one image.
    let only = images.first().copied();
    payloads.into_iter().filter_map(|payload| Some((only?, payload))).collect()
}
