//! Payloads, and which of them brought devices their images.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::words;

/// A payload of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Payload {
    /// The first 8 bytes of its index digest: 16 hexadecimal digits.
    pub payload: String,
    /// What it holds.
    pub kind: PayloadKind,
    /// Digest of the image that a patch starts from, 64 hexadecimal digits; `null` for the full payload.
    #[schema(required)]
    pub base: Option<String>,
    /// The version of that image; `null` if no release of it is stored.
    #[schema(required)]
    pub base_version: Option<String>,
    /// Its bytes.
    pub transfer_size: u64,
}

words! {
    /// What a payload holds.
    PayloadKind {
        /// What differs from an earlier image.
        Patch = "patch",
        /// The whole image.
        Full = "full",
    }
}

/// A payload of a release, and what it is to a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PayloadShare {
    /// The payload.
    #[serde(flatten)]
    pub payload: Payload,
    /// Devices whose image comes by it.
    pub devices: u64,
    /// Payload bytes that these devices received, those of payloads that they gave up included.
    pub bytes_received: u64,
}
