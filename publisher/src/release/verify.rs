//! Checks everything of a release that a device will check, with the files that are here.
//!
//! 1. enough release keys of the root signed the envelope, and devices take its manifest;
//! 2. each payload's index is the one that was signed;
//! 3. each payload becomes the image that was signed.

use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use whimbrel_protocol::chunk::{ChunkSalt, Index};
use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::ids::{Digest, KeyId};
use whimbrel_protocol::manifest::{Codec, ImageId, LzmaHeader, Manifest, Payload};
use whimbrel_protocol::trust::{Role, Root};

use super::codec::decompress;
use super::folder::images_of;
use super::sign::has_signed;
use super::{Progress, ReleaseError, ReleaseFolder};
use crate::files::{self, FileError};

/// What was found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// What was signed.
    pub manifest: Manifest,
    /// The release keys that signed.
    pub signed_by: Vec<KeyId>,
    /// Release keys that must sign.
    pub threshold: usize,
    /// The images that the payloads become.
    pub images: Vec<CheckedImage>,
}

/// A payload and the image that it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedImage {
    /// The image.
    pub image: ImageId,
    /// Its payload.
    pub payload: Payload,
}

/// Verifies `release` against the release keys of `root`.
///
/// `progress` is told of every byte of every image.
///
/// # Errors
/// [`ReleaseError`]: the first check that fails.
pub fn verify(
    release: &ReleaseFolder,
    root: &Root,
    progress: Progress<'_>,
) -> Result<Verification, ReleaseError> {
    let verified = release
        .envelope
        .clone()
        .verify(root, Accept::STRICT)
        .map_err(|source| ReleaseError::Envelope { path: release.path.clone(), source })?;
    let manifest = verified.manifest().clone();
    manifest.walk().map_err(|source| ReleaseError::Refused { path: release.path.clone(), source })?;
    let role = root.role(Role::Release);
    let signers = role.keys.iter().filter(|key| has_signed(&release.envelope, key));
    let signed_by = signers.map(|key| key.id()).collect();
    let mut images = Vec::new();
    for (image, payload) in images_of(&manifest) {
        let path = release.payload_path(&payload.transfer.index_digest);
        check_payload(&path, image, &payload, progress)?;
        images.push(CheckedImage { image, payload });
    }
    Ok(Verification { manifest, signed_by, threshold: role.threshold, images })
}

/// Checks the payload in the file `path`: its size, its index, and the image that it becomes.
///
/// # Errors
/// Those of [`unpack`].
pub fn check_payload(
    path: &Path,
    image: ImageId,
    payload: &Payload,
    progress: Progress<'_>,
) -> Result<(), ReleaseError> {
    let mut counting = Counting { sink: io::sink(), progress };
    unpack(path, image, payload, &mut counting)
}

/// Checks the payload in the file `path` and writes the image that it becomes into `sink`, where it is worth
/// nothing unless this returns without an error.
///
/// # Errors
/// [`ReleaseError::File`], [`ReleaseError::PayloadSize`], [`ReleaseError::PayloadIndex`],
/// [`ReleaseError::PayloadHead`], [`ReleaseError::Decompress`], [`ReleaseError::Image`].
pub(crate) fn unpack(
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
        // The walk refuses patches; nothing else is left.
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

/// Hashes what goes through it.
pub(crate) struct Hashing<W> {
    sink: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink, hash: Sha256::new() }
    }

    pub(crate) fn digest(self) -> Digest {
        Digest(self.hash.finalize().into())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Tells how much goes through it.
pub(crate) struct Counting<'p, W> {
    pub(crate) sink: W,
    pub(crate) progress: Progress<'p>,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        (self.progress)(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
