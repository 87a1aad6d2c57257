//! By which payloads images come, in words.

use serde::Deserialize;

use super::table::short;
use crate::units::grouped;

/// A payload, as the service shows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Payload {
    kind: String,
    #[serde(default)]
    base: Option<String>,
    #[serde(default)]
    base_version: Option<String>,
}

/// A payload with its share of a campaign, as the service shows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Share {
    #[serde(flatten)]
    payload: Payload,
    devices: u64,
    bytes_received: u64,
}

/// Devices whose image has no patch, as the service shows them.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WithoutPatch {
    devices: u64,
    images: u64,
    #[serde(default)]
    total_saved_bytes: Option<u64>,
    #[serde(default)]
    estimated: bool,
}

impl Payload {
    /// `full`, `patch 1.4.1`, or `patch 9f1c02aa7d3e` where nobody knows a version.
    fn words(&self) -> String {
        let base = self.base_version.clone().or_else(|| self.base.as_deref().map(short));
        match base {
            Some(base) => format!("{} {base}", self.kind),
            None => self.kind.clone(),
        }
    }
}

/// The cell of one device: the payload that it got, and the one that it could not use.
pub(super) fn cell(payload: Option<&Payload>, given_up: Option<&Payload>) -> String {
    match (payload, given_up) {
        (None, _) => "-".into(),
        (Some(payload), None) => payload.words(),
        (Some(payload), Some(given_up)) => format!("{}, not {}", payload.words(), given_up.words()),
    }
}

/// The payloads that any device got; `None` where no device got any.
pub(super) fn shares(shares: &[Share]) -> Option<String> {
    let used = shares.iter().filter(|share| share.devices > 0);
    let words: Vec<String> = used
        .map(|share| {
            let (devices, bytes) = (grouped(share.devices), grouped(share.bytes_received));
            format!("{devices} by {}: {bytes} bytes", share.payload.words())
        })
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

impl WithoutPatch {
    /// What is to be said of them to whoever builds the next envelope of `release`.
    pub(super) fn words(&self, release: &str) -> String {
        let devices = match self.devices {
            1 => "1 device runs".to_owned(),
            devices => format!("{} devices run", grouped(devices)),
        };
        let images = match self.images {
            1 => "an image".to_owned(),
            images => format!("{} images", grouped(images)),
        };
        let saved = self.total_saved_bytes.map_or(String::new(), |bytes| {
            format!("; patches would save {} bytes", approximate(bytes, self.estimated))
        });
        let release = short(release);
        format!("{devices} {images} that no patch starts from{saved} (whimbrel release bases {release})")
    }
}

/// A number of bytes, marked where it is an estimate.
pub(super) fn approximate(bytes: u64, estimated: bool) -> String {
    format!("{}{}", if estimated { "~" } else { "" }, grouped(bytes))
}
