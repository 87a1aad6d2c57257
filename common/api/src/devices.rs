//! Devices.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::words::words;
use crate::{DeviceState, Payload, Warning};

/// Which devices are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DevicesQuery {
    /// `pending`, `accepted` or `rekeyed` for those only, where `accepted` has the rekeyed ones too; all if it is absent.
    pub state: Option<String>,
    /// Only devices whose id comes after this one; from the first if it is absent.
    pub after: Option<String>,
    /// At most so many; 100 if it is absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u64>,
}

impl DevicesQuery {
    pub(crate) fn pairs(&self) -> [(&'static str, Option<String>); 3] {
        let limit = self.limit.map(|limit| limit.to_string());
        [("limit", limit), ("state", self.state.clone()), ("after", self.after.clone())]
    }
}

/// What is to be done with a list of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// `1` to look whether every line could be taken, and to take none; `0` or absent to take them.
    pub check: Option<String>,
}

impl ImportQuery {
    pub(crate) fn pairs(&self) -> [(&'static str, Option<String>); 1] {
        [("check", self.check.clone())]
    }
}

/// Devices, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Devices {
    /// As many as were asked for.
    pub devices: Vec<Device>,
    /// The id to ask for the next ones with, as `after`; `null` if there are no more.
    #[schema(required)]
    pub next: Option<String>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Whether it takes part.
    pub state: Standing,
    /// Fingerprint of its key, in four groups of four digits; `null` if it has none after a reset.
    #[schema(required)]
    pub fingerprint: Option<String>,
    /// The other key that it brings; `null` unless it is `rekeyed`.
    #[schema(required)]
    pub rekeyed: Option<Rekeyed>,
    /// Its class, a UUID without hyphens: 32 hexadecimal digits.
    pub class: String,
    /// The groups that it is in; none before it is accepted.
    pub groups: Vec<String>,
    /// The first 8 bytes of the digest of the image that it runs; `null` if it did not say.
    #[schema(required)]
    pub running: Option<String>,
    /// The version of what it runs, by the releases that are stored; `null` if none of them has this image.
    #[schema(required)]
    pub version: Option<String>,
    /// The sequence number of the release that it runs; 0 if it did not say.
    pub sequence: u64,
    /// When it was last heard; `null` for never.
    #[schema(required)]
    pub seen: Option<u64>,
    /// Whether it was heard within the last ten minutes, so that it is probably connected.
    pub online_hint: bool,
    /// How far it is with the campaign that rules it; `null` if it has not begun.
    #[schema(required)]
    pub deployment: Option<DeviceDeployment>,
    /// What is probably not meant; absent if there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

words! {
    /// Whether a device takes part in campaigns.
    Standing {
        /// It was reset: its next enrolment waits to be accepted.
        Forgotten = "forgotten",
        /// It has enrolled and waits to be accepted.
        Pending = "pending",
        /// It takes part.
        Accepted = "accepted",
        /// It takes part and brings another key than the accepted one, so that its reports do not count.
        Rekeyed = "rekeyed",
    }
}

/// The other key of a device that lost its data folder, got another board, or shares its id with another one. A reset lets
/// this key wait to be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rekeyed {
    /// Fingerprint of the key that it brings.
    pub fingerprint: String,
    /// The class that it named with it.
    pub class: String,
    /// When it brought that key last.
    pub seen: u64,
}

/// How far a device is with the campaign that rules it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceDeployment {
    /// The campaign's id.
    pub campaign: String,
    /// How far it is.
    pub state: DeviceState,
    /// Why, if the state has a reason: the last one that the device gave.
    #[schema(required)]
    pub reason: Option<String>,
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
}

/// What `POST /v1/devices/{id}/accept` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The fingerprint that somebody has compared with the device's own: four groups of four digits.
    pub fingerprint: String,
    /// The groups that the device gets into. Absent or `null` for those that it is in; for the group `all` if it was not
    /// accepted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
}

/// What `PUT /v1/devices/{id}/groups` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// All groups that the device is in from now on.
    pub groups: Vec<String>,
}

/// What became of a list of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Devices that are accepted now and were not before, or got other groups.
    pub imported: u64,
    /// Devices that were accepted just so before.
    pub unchanged: u64,
}
