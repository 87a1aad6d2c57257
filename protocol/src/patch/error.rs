//! Why a patch is not applied.

use thiserror::Error;

use crate::codec::DecodeError;

/// What is wrong with a patch. It is always the patch's fault, never the host's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PatchError {
    /// The header is not one.
    #[error("no patch begins like this")]
    Header(#[from] DecodeError),
    /// The decoder would need more memory than it may have.
    #[error("decoder needs {got} bytes of memory, {limit} are allowed")]
    Memory {
        /// Bytes that it needs.
        got: u64,
        /// Most bytes that it may have.
        limit: u64,
    },
    /// The patch ends before the image is complete.
    #[error("patch ends at byte {produced} of the image")]
    Truncated {
        /// Bytes of the image that there are.
        produced: u64,
    },
    /// The image is complete, but the patch does not end there: more bytes follow, or it is spoilt.
    #[error("the patch does not end where its image does")]
    Trailing,
    /// A copy goes beyond the old image, or output beyond the image.
    #[error("{what} is out of range at byte {produced} of the image")]
    Range {
        /// What is out of range.
        what: &'static str,
        /// Bytes of the image that there are.
        produced: u64,
    },
    /// A saved state is not one of this patch.
    #[error("saved state does not belong to this patch")]
    State,
}

/// Why decoding stopped: the patch is wrong, or the host could not read the old image.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeFailure<E> {
    /// The patch is wrong.
    #[error(transparent)]
    Patch(PatchError),
    /// The old image could not be read.
    #[error("old image: {0}")]
    Base(E),
}

impl<E> From<PatchError> for DecodeFailure<E> {
    fn from(error: PatchError) -> Self {
        Self::Patch(error)
    }
}
