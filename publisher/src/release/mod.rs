//! Releases: from an image to a signed envelope and the payloads that it names.
//!
//! [`build`] compresses the image, cuts it into chunks, computes the index, and writes the manifest. It signs nothing
//! and reads no key, so that it can run anywhere. The same input gives the same bytes. [`ReleaseFolder`] reads a
//! release back, [`sign`] and [`attach`] add signatures, [`verify`] checks everything that a device will check. A
//! [`StoredImage`] is what patches are made from, a [`PatchFile`] is one.

mod apply;
mod build;
mod codec;
mod encoder_memory;
mod error;
mod folder;
mod full;
mod packed;
mod parallel;
mod patches;
mod sign;
mod signature;
mod sink;
mod stored;
mod verify;

pub use apply::PatchFile;
pub use build::{BuildOptions, BuiltImage, CodecChoice, ImageSet, UnsignedRelease, build};
pub use codec::{Compressed, compress, decompress};
pub use encoder_memory::EncoderWork;
pub use error::ReleaseError;
pub(crate) use folder::images_of;
pub use folder::{ENVELOPE_FILE, ReleaseFolder, SUMMARY_FILE, payload_file};
pub use packed::Packed;
pub use patches::{
    BuiltPatch, Comparison, DroppedPatch, FULL_IMAGE_BYTES_MAX, PATCH_PASSES, check_patch_memory, compare,
    make_patch,
};
pub use sign::{Signed, attach, check_signer, sign, sign_into};
pub use signature::{SignatureFormError, parse_signature};
pub use stored::StoredImage;
pub(crate) use verify::read_payload;
pub use verify::{CheckedImage, Verification, check_payload, verify};

/// Most bytes of an image: 65,535 chunks of 64 KiB, uncompressed.
pub const IMAGE_BYTES_MAX: u64 = (whimbrel_protocol::limits::CHUNKS_MAX as u64) << 16;

/// Called with the number of bytes that were processed since the last call, for a progress bar.
pub type Progress<'p> = &'p mut dyn FnMut(u64);
