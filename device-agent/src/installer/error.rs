//! Why a payload did not become an image.

use whimbrel_protocol::disk::DiskError;

/// Why a payload was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadFailure {
    /// The medium's fault.
    Disk(DiskError),
    /// The payload's fault, or that of the image that it starts from.
    Malformed,
}

impl From<DiskError> for PayloadFailure {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}
