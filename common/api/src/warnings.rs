//! What is carried out and is probably not meant.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::words;

/// Something that was carried out as asked and is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    /// What it is about. Later versions may have more of them.
    pub kind: WarningKind,
    /// How many devices it is about; 0 if it is about none in particular.
    pub devices: u64,
    /// One line for a person: what is so, and what to do if it is not meant.
    pub text: String,
}

words! {
    /// What a warning is about.
    WarningKind {
        /// Devices run a release with a higher sequence number, and will refuse this one.
        Downgrade = "downgrade",
        /// Nobody is in the group.
        EmptyGroup = "empty-group",
        /// Devices are of another class than the release.
        OtherClass = "other-class",
        /// The campaign that the group had does not run any more.
        ReplacesCampaign = "replaces-campaign",
        /// The device was taken out of a group.
        LeavesGroup = "leaves-group",
        /// Devices trust another root than the service's.
        OtherRoot = "other-root",
    }
}
