//! `GET /v1/status`.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::words;
use crate::{ClockDoubt, StoreDoubt};

/// What the service holds, and what it has counted since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the service.
    pub version: String,
    /// First level of every topic that the service uses.
    pub prefix: String,
    /// How the service meets its broker.
    pub attached: Attachment,
    /// Whether the broker can be reached now.
    pub broker_up: bool,
    /// Devices that are registered.
    pub devices: DeviceCounts,
    /// Releases that are stored, complete or not.
    pub releases: u64,
    /// Campaigns that are remembered, those that ended included.
    pub campaigns: u64,
    /// Why nothing is signed because of the clock; absent if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub clock: Option<ClockDoubt>,
    /// Why nothing is signed because of the database; absent if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub store: Option<StoreDoubt>,
    /// What was counted since the start, by name. Names come and go with versions of the service.
    pub counters: BTreeMap<String, u64>,
}

words! {
    /// How the service meets its broker.
    Attachment {
        /// The broker runs inside of the service.
        Embedded = "embedded",
        /// The service is a client of a broker elsewhere.
        Client = "client",
    }
}

/// Devices that are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceCounts {
    /// Devices that take part in campaigns.
    pub accepted: u64,
    /// Devices that wait to be accepted.
    pub pending: u64,
}
