//! Images on the medium: hashing them, and making them from payloads.

mod hash;
#[cfg(feature = "lzma")]
mod lzma;
#[cfg(feature = "patch")]
mod patch;

use whimbrel_protocol::disk::{Area, DiskError};
use whimbrel_protocol::manifest::{Codec, Codecs, DecoderMemory, ImageId};

pub(crate) use hash::hash_medium;
#[cfg(feature = "lzma")]
pub(crate) use lzma::decode;
#[cfg(feature = "patch")]
pub(crate) use patch::Applier;

/// What is decoded into what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoding {
    /// Bytes of the payload in [`Area::Staging`].
    pub(crate) transfer_size: u64,
    /// Where the image goes.
    pub(crate) slot: Area,
    /// Bytes of the image.
    pub(crate) image_size: u64,
    /// What the manifest says that the decoder needs.
    pub(crate) memory: DecoderMemory,
}

/// The base, and the image that is made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applying {
    /// Where the base is. Only read.
    pub(crate) base: Area,
    /// The base, as the manifest matched it.
    pub(crate) base_image: ImageId,
    /// Where the image goes.
    pub(crate) slot: Area,
    /// The image that was signed.
    pub(crate) image: ImageId,
    /// What the manifest says that the decoder needs.
    pub(crate) memory: DecoderMemory,
}

/// Why a payload did not become an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadFailure {
    /// The medium failed.
    Disk(DiskError),
    /// The payload is wrong, or the image that it starts from.
    Malformed,
}

impl From<DiskError> for PayloadFailure {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// The codecs that this build can decode.
pub(crate) const fn codecs() -> Codecs {
    let mut codecs = Codecs::RAW;
    if cfg!(feature = "lzma") {
        codecs = codecs.with(Codec::Lzma);
    }
    if cfg!(feature = "patch") {
        codecs = codecs.with(Codec::Patch);
    }
    codecs
}

/// Without the feature `lzma` nothing is opened that would have to be decompressed.
#[cfg(not(feature = "lzma"))]
pub(crate) fn decode(
    _: &mut impl whimbrel_protocol::disk::Disk,
    _: &Decoding,
) -> Result<whimbrel_protocol::ids::Digest, PayloadFailure> {
    Err(PayloadFailure::Malformed)
}
