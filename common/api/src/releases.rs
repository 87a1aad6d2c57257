//! Releases, and the payloads that they need.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Warning;
use crate::words::words;

/// A release that the service stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// Digest of its manifest, which names the release: 64 hexadecimal digits.
    pub release: String,
    /// Its sequence number. A device takes no release with a lower one than it has confirmed.
    pub sequence: u64,
    /// Its version, for people.
    pub version: String,
    /// The vendor id, a UUID without hyphens: 32 hexadecimal digits.
    pub vendor: String,
    /// The class of the devices that it is for, a UUID without hyphens: 32 hexadecimal digits.
    pub class: String,
    /// Bytes of the image once it is installed.
    pub image_size: u64,
    /// Whether it can be given to devices.
    pub state: ReleaseState,
    /// The payloads that have to be uploaded first; empty if the release is complete.
    pub missing: Vec<MissingPayload>,
    /// What is probably not meant. Only in the answer to the request that brings the release, and absent if there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

words! {
    /// Whether a release can be given to devices.
    ReleaseState {
        /// Every payload is stored.
        Complete = "complete",
        /// A payload is missing.
        Incomplete = "incomplete",
    }
}

/// A payload that the service lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingPayload {
    /// The digest of its index, which names it in `PUT /v1/payloads/{hex}`: 64 hexadecimal digits.
    pub index_digest: String,
    /// Its bytes.
    pub transfer_size: u64,
}

/// A payload that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredPayload {
    /// The digest of its index: 64 hexadecimal digits.
    pub index_digest: String,
    /// Its bytes.
    pub transfer_size: u64,
}
