//! Checks everything of a release that a device will check, as far as the files are here:
//!
//! 1. enough release keys of the root signed the envelope, and devices take its manifest;
//! 2. each payload's index is the one that was signed;
//! 3. each payload becomes the image that was signed; this is checked for a full payload, and for a patch if
//!    its base is at hand.

use std::io::{self, Write};
use std::path::Path;

use whimbrel_protocol::chunk::{ChunkSalt, Index};
use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::ids::KeyId;
use whimbrel_protocol::manifest::{Codec, ImageId, LzmaHeader, Manifest, Payload};
use whimbrel_protocol::patch::{Header, PatchError};
use whimbrel_protocol::trust::{Role, Root};

use super::apply::{Pages, Trouble, decode};
use super::codec::decompress;
use super::folder::images_of;
use super::sign::has_signed;
use super::sink::{Counting, Hashing};
use super::{Progress, ReleaseError, ReleaseFolder, StoredImage};
use crate::files::{self, FileError};

/// The result of a verification without faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// What was signed.
    pub manifest: Manifest,
    /// The release keys that signed.
    pub signed_by: Vec<KeyId>,
    /// Release keys that must sign.
    pub threshold: usize,
    /// The payloads, in the manifest's order.
    pub images: Vec<CheckedImage>,
}

/// A payload and the image that it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedImage {
    /// The image.
    pub image: ImageId,
    /// Its payload.
    pub payload: Payload,
    /// Whether the payload was decoded and gave the image. It is `false` for a patch whose base was not at
    /// hand.
    pub became: bool,
}

/// Verifies `release` against the release keys of `root`. A patch is applied to its base if `bases` has it.
///
/// `progress` counts every byte of every image that a payload became.
///
/// # Errors
/// [`ReleaseError`]: the first check that fails.
pub fn verify(
    release: &ReleaseFolder,
    root: &Root,
    bases: &[StoredImage],
    progress: Progress<'_>,
) -> Result<Verification, ReleaseError> {
    let wrong = |source| ReleaseError::Envelope { path: release.path.clone(), source };
    let verified = release.envelope.clone().verify(root, Accept::STRICT).map_err(wrong)?;
    let manifest = verified.manifest().clone();
    manifest.languages().map_err(|source| wrong(source.into()))?;
    manifest.walk().map_err(|source| ReleaseError::Refused { path: release.path.clone(), source })?;
    let role = root.role(Role::Release);
    let signers = role.keys.iter().filter(|key| has_signed(&release.envelope, key));
    let signed_by = signers.map(|key| key.id()).collect();
    let mut images = Vec::new();
    for (image, payload) in images_of(&manifest) {
        let path = release.payload_path(&payload.transfer.index_digest);
        let base = bases.iter().find(|base| Some(base.id()) == payload.base);
        let became = check_payload(&path, image, &payload, base, progress)?;
        images.push(CheckedImage { image, payload, became });
    }
    Ok(Verification { manifest, signed_by, threshold: role.threshold, images })
}

/// Checks the payload in the file `path`: its size, its index, and the image that it becomes. Returns whether
/// it was decoded and gave the image: a patch is not applied without its `base`.
///
/// # Errors
/// [`ReleaseError::File`], [`ReleaseError::PayloadSize`], [`ReleaseError::PayloadIndex`], [`ReleaseError::PayloadHead`],
/// [`ReleaseError::Decompress`], [`ReleaseError::Patch`], [`ReleaseError::Image`], and those of [`StoredImage::file`].
pub fn check_payload(
    path: &Path,
    image: ImageId,
    payload: &Payload,
    base: Option<&StoredImage>,
    progress: Progress<'_>,
) -> Result<bool, ReleaseError> {
    let sink = Counting { sink: io::sink(), progress };
    if payload.transfer.codec != Codec::Patch {
        return unpack(path, image, payload, sink).map(|()| true);
    }
    let bytes = read_payload(path, image, payload)?;
    let wrong = || ReleaseError::PayloadHead { path: path.into() };
    let (header, header_bytes) = Header::decode(&bytes).map_err(|_| wrong())?;
    let (asked, signed) = (header.decoder(), payload.transfer.decoder.ok_or_else(wrong)?);
    let fits = asked.memory_bytes <= signed.memory_bytes && asked.dictionary_bytes <= signed.dictionary_bytes;
    if !fits || header.image != image || Some(header.base) != payload.base {
        return Err(wrong());
    }
    let Some(base) = base else { return Ok(false) };
    let mut sink = Hashing::new(sink);
    let stream = bytes.get(header_bytes..).unwrap_or_default();
    decode(header, Vec::new(), stream, &mut Pages::new(base.file()?), &mut sink).map_err(|trouble| {
        match trouble {
            Trouble::Base(source) => ReleaseError::Base { name: base.name().into(), source },
            Trouble::Patch(source) => ReleaseError::Patch { path: path.into(), source },
            // Reading and writing memory cannot fail.
            Trouble::Read(_) | Trouble::Write(_) => {
                ReleaseError::Patch { path: path.into(), source: PatchError::Truncated { produced: 0 } }
            }
        }
    })?;
    let got = sink.digest();
    if got == image.digest {
        Ok(true)
    } else {
        Err(ReleaseError::Image { path: path.into(), got, want: image.digest })
    }
}

/// Checks the full payload in the file `path` and writes the image that it becomes into `sink`. If this
/// returns an error, what `sink` has got is worth nothing.
pub(super) fn unpack(
    path: &Path,
    image: ImageId,
    payload: &Payload,
    sink: impl Write,
) -> Result<(), ReleaseError> {
    let bytes = read_payload(path, image, payload)?;
    let mut sink = Hashing::new(sink);
    let wrong = |source| ReleaseError::Decompress { path: path.into(), source };
    match (payload.transfer.codec, payload.transfer.decoder) {
        (Codec::Lzma, Some(signed)) => {
            let wrong_head = || ReleaseError::PayloadHead { path: path.into() };
            let (head, stream) = bytes.split_first_chunk::<{ LzmaHeader::BYTES }>().ok_or_else(wrong_head)?;
            let header = LzmaHeader::decode(head).map_err(|_| wrong_head())?;
            if !header.fits(&signed, image.size) {
                return Err(wrong_head());
            }
            decompress(stream, &header, &mut sink).map_err(wrong)?;
        }
        (Codec::Raw, None) => sink.write_all(&bytes).map_err(wrong)?,
        // There are no other codecs: decoding a descriptor refuses them. A patch is not a full payload.
        _ => return Err(ReleaseError::PayloadHead { path: path.into() }),
    }
    let got = sink.digest();
    if got != image.digest {
        return Err(ReleaseError::Image { path: path.into(), got, want: image.digest });
    }
    Ok(())
}

/// Reads a payload and compares size and index with what was signed.
pub(crate) fn read_payload(path: &Path, image: ImageId, payload: &Payload) -> Result<Vec<u8>, ReleaseError> {
    let layout = payload.transfer.layout;
    let want = layout.transfer_size();
    let got =
        path.metadata().map_err(|source| FileError::Io { action: "read", path: path.into(), source })?.len();
    if got != want {
        return Err(ReleaseError::PayloadSize { path: path.into(), got, want });
    }
    let bytes = files::read(path, "this payload", want)?;
    if bytes.len() as u64 != want {
        return Err(ReleaseError::PayloadSize { path: path.into(), got: bytes.len() as u64, want });
    }
    let index = Index::build(ChunkSalt { image: image.digest, transfer_size: want }, layout, &bytes);
    let want = payload.transfer.index_digest;
    if index.digest != want {
        return Err(ReleaseError::PayloadIndex { path: path.into(), got: index.digest, want });
    }
    Ok(bytes)
}
