//! Makes patches. Each is decoded with the decoder that devices have before it is used.

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::limits::{DECODER_MEMORY_BYTES_MAX, PATCHES_MAX};
use whimbrel_protocol::manifest::{ImageId, RUNNING_COMPONENT, TransferDescriptor};
use whimbrel_protocol::patch::Header;

use super::apply::decode;
use super::codec::check_dictionary;
use super::folder::payload_file;
use super::full::{Cutting, FullPayload, estimate};
use super::parallel::parallel;
use super::sink::{Counting, Expected};
use super::{CodecChoice, Progress, ReleaseError, StoredImage};
use crate::output::{Fields, Value};
use crate::patch::{MEMORY_BYTES_MIN, Patch, PatchOptions, diff};

/// Most bytes of an image that a patch is made from or makes. Its suffixes are numbered with 31 bits.
pub(super) const ENCODER_IMAGE_BYTES_MAX: u64 = i32::MAX as u64;

/// A patch that a release offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltPatch {
    /// What people call the base.
    pub name: String,
    /// The image that it starts from.
    pub base: ImageId,
    /// How it is transferred.
    pub transfer: TransferDescriptor,
    /// The bytes to transfer.
    pub payload: Vec<u8>,
}

/// A patch that was left out, because the full payload is not longer than it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPatch {
    /// What people call the base.
    pub name: String,
    /// The image that it starts from.
    pub base: ImageId,
    /// Bytes of the patch.
    pub patch_bytes: u64,
}

/// A patch, and the size of the full payload to compare it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The patch.
    pub patch: Patch,
    /// Bytes of the full payload.
    pub full_bytes: u64,
    /// Whether that is an estimate, from a sample of a large image.
    pub full_estimated: bool,
}

/// The full payload of a larger image is not made only to know its size.
pub const FULL_IMAGE_BYTES_MAX: u64 = 64 << 20;
/// How often `progress` counts a byte of the image for each patch: when it has been looked for, when it is coded, and
/// when the patch is checked.
pub const PATCH_PASSES: u64 = 3;

/// Makes the patch from `old` to `new` with `options`, and the full payload of `new` with a dictionary of at most
/// `dictionary_bytes`, to know its size. If the options allow two threads, it makes both at once. Of an image with
/// more than [`FULL_IMAGE_BYTES_MAX`] the payload's size is estimated.
///
/// `progress` counts every byte of `new` [`PATCH_PASSES`] times and once more.
///
/// # Errors
/// [`ReleaseError::Option`], and those of [`make_patch`].
pub fn compare(
    old: &StoredImage,
    new: &[u8],
    options: &PatchOptions,
    dictionary_bytes: u64,
    progress: Progress<'_>,
) -> Result<Comparison, ReleaseError> {
    let dictionary = check_dictionary(dictionary_bytes)?;
    let cutting = Cutting { fixed_log2: None };
    let size = new.len() as u64;
    if size > FULL_IMAGE_BYTES_MAX {
        let full_bytes = estimate(new, dictionary, progress);
        let patch = make_patch(old, new, options, progress)?;
        return Ok(Comparison { patch, full_bytes, full_estimated: true });
    }
    let make_full =
        |progress: Progress<'_>| FullPayload::make(new, CodecChoice::Auto, dictionary, cutting, progress);
    let (full, made) = payloads(new, make_full, core::slice::from_ref(old), options, progress)?;
    let patch = made.0.into_iter().next().map(|(_, patch)| patch).expect("one base has one patch");
    Ok(Comparison { patch, full_bytes: full.size(size), full_estimated: false })
}

/// Patches with the bases that they start from.
pub(super) struct MadePatches<'b>(Vec<(&'b StoredImage, Patch)>);

/// Makes the full payload and a patch from each of `bases`, as many at once as `options` say.
pub(super) fn payloads<'b>(
    new: &[u8],
    make_full: impl Fn(Progress<'_>) -> Result<FullPayload, ReleaseError> + Sync,
    bases: &'b [StoredImage],
    options: &PatchOptions,
    progress: Progress<'_>,
) -> Result<(FullPayload, MadePatches<'b>), ReleaseError> {
    enum Payload<'b> {
        Full(FullPayload),
        Patch(&'b StoredImage, Patch),
    }
    let tasks: Vec<Option<&StoredImage>> = bases.iter().map(Some).chain([None]).collect();
    // Threads that are left over when every task has one help to search for a patch.
    let jobs = options.jobs;
    let options = PatchOptions { jobs: jobs.div_ceil(tasks.len()), ..options.clone() };
    let work = |base: &Option<&'b StoredImage>, progress: Progress<'_>| match base {
        None => make_full(progress).map(Payload::Full),
        Some(base) => make_patch(base, new, &options, progress).map(|patch| Payload::Patch(base, patch)),
    };
    let (mut full, mut patches) = (None, Vec::new());
    for payload in parallel(jobs, &tasks, work, progress) {
        match payload? {
            Payload::Full(payload) => full = Some(payload),
            Payload::Patch(base, patch) => patches.push((base, patch)),
        }
    }
    Ok((full.expect("the last task makes it"), MadePatches(patches)))
}

impl MadePatches<'_> {
    /// Separates the patches that are shorter than `full_bytes` from the others. The shorter ones are cut
    /// into chunks and sorted, the shortest first.
    pub(super) fn choose(
        self,
        image: Digest,
        full_bytes: u64,
        cutting: Cutting,
    ) -> Result<(Vec<BuiltPatch>, Vec<DroppedPatch>), ReleaseError> {
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for (base, Patch { header, bytes, .. }) in self.0 {
            let (name, patch_bytes) = (base.name().to_owned(), bytes.len() as u64);
            if patch_bytes >= full_bytes {
                dropped.push(DroppedPatch { name, base: base.id(), patch_bytes });
                continue;
            }
            let (layout, index) = cutting.cut(image, &bytes)?;
            let transfer = TransferDescriptor::patch(layout, index, RUNNING_COMPONENT, header.decoder());
            kept.push(BuiltPatch { name, base: base.id(), transfer, payload: bytes });
        }
        // Sorting makes the result independent of the order in which bases are named.
        kept.sort_by_key(|patch| (patch.payload.len(), patch.base.digest.0));
        dropped.sort_by_key(|patch| (patch.patch_bytes, patch.base.digest.0));
        Ok((kept, dropped))
    }
}

/// Checks that there are not too many `bases`, that they differ, and that none is the image with this digest.
///
/// # Errors
/// [`ReleaseError::TooManyBases`], [`ReleaseError::SameBases`], [`ReleaseError::BaseIsImage`].
pub(super) fn check_bases(bases: &[StoredImage], image: &Digest) -> Result<(), ReleaseError> {
    if bases.len() > PATCHES_MAX {
        return Err(ReleaseError::TooManyBases { got: bases.len(), limit: PATCHES_MAX });
    }
    for (at, base) in bases.iter().enumerate() {
        if base.id().digest == *image {
            return Err(ReleaseError::BaseIsImage { name: base.name().into() });
        }
        if let Some(other) = bases.iter().take(at).find(|other| other.id() == base.id()) {
            return Err(ReleaseError::SameBases { one: other.name().into(), other: base.name().into() });
        }
    }
    Ok(())
}

impl BuiltPatch {
    pub(super) fn summary(&self) -> Fields {
        let layout = self.transfer.layout;
        let fields = Fields::new()
            .with("base", self.name.as_str())
            .with("base_digest", self.base.digest.to_hex())
            .with("base_size", Value::Bytes(self.base.size))
            .with("payload", payload_file(&self.transfer.index_digest))
            .with("transfer_size", Value::Bytes(layout.transfer_size()))
            .with("chunk_size", Value::Bytes(layout.chunk_size()))
            .with("chunks", layout.chunk_count());
        match self.transfer.decoder {
            Some(decoder) => fields.with("decoder_memory_bytes", Value::Bytes(decoder.memory_bytes.into())),
            None => fields,
        }
    }
}

impl DroppedPatch {
    pub(super) fn summary(&self) -> Fields {
        Fields::new()
            .with("base", self.name.as_str())
            .with("base_digest", self.base.digest.to_hex())
            .with("base_size", Value::Bytes(self.base.size))
            .with("patch_bytes", Value::Bytes(self.patch_bytes))
    }
}

/// Checks that decoders can have the memory that a patch may ask for, and returns it.
///
/// # Errors
/// [`ReleaseError::Option`].
pub fn check_patch_memory(bytes: u64) -> Result<u32, ReleaseError> {
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (MEMORY_BYTES_MIN..=DECODER_MEMORY_BYTES_MAX).contains(bytes))
        .ok_or_else(|| ReleaseError::Option {
            what: "patch memory",
            got: bytes.to_string(),
            want: "24KiB to 16MiB",
        })
}

/// Makes the patch from `old` to `new`, and decodes it again.
///
/// `progress` counts every byte of `new` [`PATCH_PASSES`] times.
///
/// # Errors
/// Those of [`StoredImage::read`]; [`ReleaseError::TooLargeForPatch`], [`ReleaseError::DecoderMemory`],
/// [`ReleaseError::UnsoundPatch`].
pub fn make_patch(
    old: &StoredImage,
    new: &[u8],
    options: &PatchOptions,
    progress: Progress<'_>,
) -> Result<Patch, ReleaseError> {
    for (name, got) in [(old.name(), old.id().size), ("the image", new.len() as u64)] {
        if got > ENCODER_IMAGE_BYTES_MAX {
            let (name, limit) = (name.into(), ENCODER_IMAGE_BYTES_MAX);
            return Err(ReleaseError::TooLargeForPatch { name, got, limit });
        }
    }
    let bytes = old.read()?;
    let patch = diff(&bytes, new, options, progress);
    let (got, limit) = (patch.header.memory_bytes(), options.memory_bytes);
    if got > limit {
        return Err(ReleaseError::DecoderMemory { got: got.into(), limit: limit.into() });
    }
    let image = ImageId { digest: Digest::of(new), size: new.len() as u64 };
    if patch.header.base != old.id()
        || patch.header.image != image
        || !gives(&patch.bytes, &bytes, new, progress)
    {
        return Err(ReleaseError::UnsoundPatch { name: old.name().into() });
    }
    Ok(patch)
}

/// Whether a device makes `new` of `patch` and `old`.
fn gives(patch: &[u8], mut old: &[u8], new: &[u8], progress: Progress<'_>) -> bool {
    let Ok((header, header_bytes)) = Header::decode(patch) else { return false };
    let stream = patch.get(header_bytes..).unwrap_or_default();
    let mut left = Counting { sink: Expected(new), progress };
    decode(header, Vec::new(), stream, &mut old, &mut left).is_ok() && left.sink.0.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_patch_that_is_shorter_than_the_full_payload_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        let old: Vec<u8> = (0..3000_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        std::fs::write(&path, &old).unwrap();
        let base = StoredImage::open(&path).unwrap();
        let patch = diff(&old, &old[1..], &PatchOptions::default(), &mut |_| {});
        let bytes = patch.bytes.len() as u64;
        for (full_bytes, kept) in [(bytes - 1, 0), (bytes, 0), (bytes + 1, 1)] {
            let made = MadePatches(vec![(&base, patch.clone())]);
            let digest = patch.header.image.digest;
            let (patches, dropped) = made.choose(digest, full_bytes, Cutting { fixed_log2: None }).unwrap();
            assert_eq!((patches.len(), dropped.len()), (kept, 1 - kept), "{bytes} beside {full_bytes}");
        }
    }

    fn sound(patch: &[u8], old: &[u8], new: &[u8]) -> bool {
        gives(patch, old, new, &mut |_| {})
    }

    #[test]
    fn a_patch_that_gives_something_else_is_found() {
        let old: Vec<u8> = (0..3000_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        let new: Vec<u8> = [&old[..1000], b"something else", &old[900..]].concat();
        let patch = diff(&old, &new, &PatchOptions::default(), &mut |_| {});
        assert!(sound(&patch.bytes, &old, &new));
        let mut other = new.clone();
        other[2000] ^= 1;
        assert!(!sound(&patch.bytes, &old, &other));
        assert!(!sound(&patch.bytes, &old, &new[..new.len() - 1]));
        assert!(!sound(&patch.bytes, &old, &[&new[..], b"x"].concat()));
        assert!(!sound(&patch.bytes[..patch.bytes.len() - 1], &old, &new));
        assert!(!sound(&[&patch.bytes[..], &[0]].concat(), &old, &new));
        assert!(!sound(&[], &old, &new));
    }
}
