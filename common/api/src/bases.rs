//! The answer of `GET /v1/releases/{hex}/bases`, which says which patches would be worth making.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Whose images are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BasesQuery {
    /// Only devices of this group; those of every group if it is absent.
    pub group: Option<String>,
}

impl BasesQuery {
    pub(crate) fn pairs(&self) -> [(&'static str, Option<String>); 1] {
        [("group", self.group.clone())]
    }
}

/// What the devices of a release's class run, and what patches from those images would save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bases {
    /// The release: digest of its manifest.
    pub release: String,
    /// Its version, for people.
    pub version: String,
    /// Its sequence number.
    pub sequence: u64,
    /// The group that was asked for; `null` for all devices of the class.
    #[schema(required)]
    pub group: Option<String>,
    /// Bytes of the full payload.
    pub full_bytes: u64,
    /// Accepted devices of the class, in the group if one is named.
    pub devices: u64,
    /// Those of them that run the release.
    pub current: u64,
    /// Those that run a later one.
    pub later: u64,
    /// Those that did not say what they run.
    pub unknown: u64,
    /// The patches that the release has.
    pub patches: Vec<Patch>,
    /// Images that it has no patch for, the most useful first; at most 64.
    pub bases: Vec<Base>,
    /// Such images that are not listed.
    pub more_images: u64,
    /// Devices that run one of those.
    pub more_devices: u64,
    /// Bytes that patches from every image would save in all; `null` if nothing tells.
    #[schema(required)]
    pub total_saved_bytes: Option<u64>,
    /// Whether an estimate is among that sum.
    pub estimated: bool,
}

/// A patch that a release has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Patch {
    /// Digest of the image that it starts from.
    pub base: String,
    /// The version of that image; `null` if no release of it is stored.
    #[schema(required)]
    pub version: Option<String>,
    /// The sequence number of that image; `null` if no release of it is stored.
    #[schema(required)]
    pub sequence: Option<u64>,
    /// Bytes of the patch.
    pub patch_bytes: u64,
    /// Devices that run that image.
    pub devices: u64,
}

/// An image that a release has no patch for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Base {
    /// The first 8 bytes of the image's digest: 16 hexadecimal digits.
    pub image: String,
    /// The release with this image; `null` if none is stored.
    #[schema(required)]
    pub release: Option<String>,
    /// Its version; `null` if no release of it is stored.
    #[schema(required)]
    pub version: Option<String>,
    /// Its sequence number, as the release or the devices say.
    pub sequence: u64,
    /// Devices that run it.
    pub devices: u64,
    /// Bytes that a patch from it has or would have; `null` if nothing tells.
    #[schema(required)]
    pub patch_bytes: Option<u64>,
    /// Bytes that the patch would save each device; `null` if nothing tells.
    #[schema(required)]
    pub saved_bytes: Option<u64>,
    /// Bytes that it would save all of these devices; `null` if nothing tells.
    #[schema(required)]
    pub total_saved_bytes: Option<u64>,
    /// Whether these sizes are an estimate.
    pub estimated: bool,
    /// Where the sizes are known from, for people; `null` if nothing tells.
    #[schema(required)]
    pub from: Option<String>,
}

/// Devices of a campaign whose image its release has no patch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WithoutPatch {
    /// Devices.
    pub devices: u64,
    /// Images that they run.
    pub images: u64,
    /// Bytes that patches would save in all; `null` if nothing tells.
    #[schema(required)]
    pub total_saved_bytes: Option<u64>,
    /// Whether that is an estimate.
    pub estimated: bool,
}
