//! Patches, each tried by the decoder that devices have before it is used.

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::limits::DECODER_MEMORY_BYTES_MAX;
use whimbrel_protocol::manifest::ImageId;
use whimbrel_protocol::patch::{Decoder, Header};

use super::codec::check_dictionary;
use super::full::{Cutting, FullPayload};
use super::parallel::parallel;
use super::{CodecChoice, Progress, ReleaseError, StoredImage};
use crate::patch::{Patch, PatchOptions, diff};

/// A patch beside what the full payload would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The patch.
    pub patch: Patch,
    /// Bytes of the full payload.
    pub full_bytes: u64,
}

/// Makes the patch from `old` to `new` with `options`, and the full payload of `new` with a dictionary of at most
/// `dictionary_bytes`, both at once where the options allow two threads.
///
/// `progress` is told of every byte of `new` twice.
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
    enum Made {
        Patch(Patch),
        Full(u64),
    }
    let dictionary = check_dictionary(dictionary_bytes)?;
    let work = |patch: &bool, progress: Progress<'_>| {
        if *patch {
            return make_patch(old, new, options, progress).map(Made::Patch);
        }
        let cutting = Cutting { fixed_log2: None };
        let full = FullPayload::make(new, CodecChoice::Auto, dictionary, cutting, progress)?;
        Ok(Made::Full(full.size(new.len() as u64)))
    };
    let mut made = parallel(options.jobs, &[true, false], work, progress).into_iter();
    match (made.next().transpose()?, made.next().transpose()?) {
        (Some(Made::Patch(patch)), Some(Made::Full(full_bytes))) => Ok(Comparison { patch, full_bytes }),
        _ => unreachable!("two tasks have two results, in their order"),
    }
}

/// The memory of a decoder that a patch may ask for, where decoders can have it.
///
/// # Errors
/// [`ReleaseError::Option`].
pub fn check_patch_memory(bytes: u64) -> Result<u32, ReleaseError> {
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (PATCH_MEMORY_BYTES_MIN..=DECODER_MEMORY_BYTES_MAX).contains(bytes))
        .ok_or_else(|| ReleaseError::Option {
            what: "patch memory",
            got: bytes.to_string(),
            want: "16KiB to 16MiB",
        })
}

/// Least memory of a decoder.
const PATCH_MEMORY_BYTES_MIN: u32 = 16 * 1024;

/// Makes the patch from `old` to `new`, and decodes it again.
///
/// `progress` is told of every byte of `new` once it is coded.
///
/// # Errors
/// Those of [`StoredImage::read`]; [`ReleaseError::DecoderMemory`], [`ReleaseError::UnsoundPatch`].
pub fn make_patch(
    old: &StoredImage,
    new: &[u8],
    options: &PatchOptions,
    progress: Progress<'_>,
) -> Result<Patch, ReleaseError> {
    let bytes = old.read()?;
    let patch = diff(&bytes, new, options, progress);
    let (got, limit) = (patch.header.memory_bytes(), options.memory_bytes);
    if got > limit {
        return Err(ReleaseError::DecoderMemory { got: got.into(), limit: limit.into() });
    }
    let image = ImageId { digest: Digest::of(new), size: new.len() as u64 };
    if patch.header.base != old.id() || patch.header.image != image || !gives(&patch.bytes, &bytes, new) {
        return Err(ReleaseError::UnsoundPatch { name: old.name().into() });
    }
    Ok(patch)
}

/// Bytes that are decoded at once.
const STEP_BYTES: usize = 64 * 1024;

/// Whether a device makes `new` of `patch` and `old`.
fn gives(patch: &[u8], mut old: &[u8], new: &[u8]) -> bool {
    let Ok((header, header_bytes)) = Header::decode(patch) else { return false };
    let mut input = patch.get(header_bytes..).unwrap_or_default();
    let mut left = new;
    let mut decoder = Decoder::new(header);
    let mut out = vec![0; STEP_BYTES];
    while !decoder.is_complete() {
        let Ok((used, filled)) = decoder.decode(input, true, &mut old, &mut out) else { return false };
        let Some(rest) = out.get(..filled).and_then(|bytes| left.strip_prefix(bytes)) else { return false };
        if used == 0 && filled == 0 && !decoder.is_complete() {
            return false;
        }
        left = rest;
        input = input.get(used..).unwrap_or_default();
    }
    left.is_empty() && decoder.finish(input.len() as u64).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_gives_something_else_is_found() {
        let old: Vec<u8> = (0..3000_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        let new: Vec<u8> = [&old[..1000], b"something else", &old[900..]].concat();
        let patch = diff(&old, &new, &PatchOptions::default(), &mut |_| {});
        assert!(gives(&patch.bytes, &old, &new));
        let mut other = new.clone();
        other[2000] ^= 1;
        assert!(!gives(&patch.bytes, &old, &other));
        assert!(!gives(&patch.bytes, &old, &new[..new.len() - 1]));
        assert!(!gives(&patch.bytes[..patch.bytes.len() - 1], &old, &new));
        assert!(!gives(&[&patch.bytes[..], &[0]].concat(), &old, &new));
        assert!(!gives(&[], &old, &new));
    }
}
