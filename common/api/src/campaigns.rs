//! Campaigns.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::words::words;
use crate::{DeviceState, DevicesByState, Payload, PayloadShare, Warning, WithoutPatch};

/// What `POST /v1/campaigns` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CampaignOrder {
    /// The release: the first digits of its digest, as many as tell it apart, at least 4.
    pub release: String,
    /// The group of the devices.
    pub group: String,
    /// Over how many seconds the devices begin, each at a moment of its own; 0 for all at once.
    #[serde(default)]
    pub spread_s: u64,
    /// When the first device may begin; absent or `null` for at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// After how many seconds no device begins any more; absent or `null` for 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// How devices treat their own conditions: `soft` holds to them, `forced` overrides them, `download-only` does not
    /// install. Absent or `null` for `soft`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Among the campaigns of a device's groups the higher one wins.
    #[serde(default)]
    pub priority: u64,
    /// Every release of the class with a lower sequence number is withdrawn; 0 withdraws none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_sequence: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What of a campaign is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CampaignQuery {
    /// `1` to list devices, by their ids, at most 1000; `0` or absent for none.
    pub devices: Option<String>,
    /// Only devices whose id comes after this one; from the first if it is absent.
    pub after: Option<String>,
}

impl CampaignQuery {
    pub(crate) fn pairs(&self) -> [(&'static str, Option<String>); 2] {
        [("devices", self.devices.clone()), ("after", self.after.clone())]
    }
}

/// A campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Campaign {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// The group of its devices.
    pub group: String,
    /// The release that they get: digest of its manifest.
    pub release: String,
    /// The version of that release, for people; empty if the release is not stored.
    pub version: String,
    /// The sequence number of that release.
    pub sequence: u64,
    /// Whether it runs.
    pub state: CampaignState,
    /// Which attempt this is, from 1; `POST /v1/campaigns/{id}/retry` begins the next.
    pub attempt: u64,
    /// Version of its signed document, which rises with every change.
    pub document_version: u64,
    /// When it was ordered.
    pub created: u64,
    /// Over how many seconds its devices begin.
    pub spread_s: u64,
    /// Its devices by state.
    pub devices: DevicesByState,
    /// How much of it is done: the mean over its devices. One that ended without a confirmed image counts 0, so that 100
    /// says that every device has confirmed.
    #[schema(maximum = 100)]
    pub percent: u8,
    /// Payload bytes that its devices received, with everything received twice.
    pub bytes_received: u64,
    /// Payload bytes that they received more than once.
    pub bytes_twice: u64,
    /// Why deployments did not end in a confirmed image, and how many devices each; `unsaid` if a device gave no
    /// reason.
    pub failures: BTreeMap<String, u64>,
    /// By which payloads the images of its devices come, in the order in which devices try them.
    pub payloads: Vec<PayloadShare>,
    /// Devices that run an image that no patch starts from. Absent in lists, and if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub without_patch: Option<WithoutPatch>,
    /// Devices that bring another key than the accepted one, so that their reports do not count and the campaign does not
    /// end. Absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rekeyed: Option<RekeyedDevices>,
    /// Devices of the campaign, in the order of their ids. Absent if they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device_list: Option<Vec<CampaignDevice>>,
    /// What is probably not meant. Only in the answer to the request that orders the campaign, and absent if there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

words! {
    /// Whether a campaign runs.
    CampaignState {
        /// Devices update.
        Active = "active",
        /// The operator called it off.
        Aborted = "aborted",
        /// Another campaign of its group took its place.
        Replaced = "replaced",
    }
}

/// Devices of a campaign that bring another key than the accepted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RekeyedDevices {
    /// How many.
    pub devices: u64,
    /// The ids of the first ones, at most 16.
    pub ids: Vec<String>,
}

/// One device of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CampaignDevice {
    /// Its id.
    pub id: String,
    /// How far it is.
    pub state: DeviceState,
    /// Why it is deferred or did not end in a confirmed image; `null` if nothing was said.
    #[schema(required)]
    pub reason: Option<String>,
    /// How much of the update is done: 100 once it has confirmed, 0 if it ended in any other way.
    #[schema(maximum = 100)]
    pub percent: u8,
    /// Payload bytes that it received, with everything received twice.
    pub bytes_received: u64,
    /// Payload bytes that it received more than once.
    pub bytes_twice: u64,
    /// The payload of which chunks were served last; `null` if none were.
    #[schema(required)]
    pub payload: Option<Payload>,
    /// The payload before that one, which the device could not use; `null` if there was none.
    #[schema(required)]
    pub given_up: Option<Payload>,
    /// When this was learnt; for a device that waits, when it was last heard; `null` for never.
    #[schema(required)]
    pub seen: Option<u64>,
}
