//! Says in words by which payloads devices got their images.

use whimbrel_api::{Payload, PayloadShare, WithoutPatch};

use super::table::short;
use crate::units::grouped;

/// Names a payload: `full`, `patch 1.4.1`, or `patch 9f1c02aa7d3e` if nobody knows a version of the base.
fn words(payload: &Payload) -> String {
    let base = payload.base_version.clone().or_else(|| payload.base.as_deref().map(short));
    match base {
        Some(base) => format!("{} {base}", payload.kind),
        None => payload.kind.to_string(),
    }
}

/// The cell of one device in a table: the payload that it got, and the one that it could not use.
pub(super) fn cell(payload: Option<&Payload>, given_up: Option<&Payload>) -> String {
    match (payload, given_up) {
        (None, _) => "-".into(),
        (Some(payload), None) => words(payload),
        (Some(payload), Some(given_up)) => format!("{}, not {}", words(payload), words(given_up)),
    }
}

/// The payloads that any device got; `None` if no device got any.
pub(super) fn shares(shares: &[PayloadShare]) -> Option<String> {
    let used = shares.iter().filter(|share| share.devices > 0);
    let words: Vec<String> = used
        .map(|share| {
            let (devices, bytes) = (grouped(share.devices), grouped(share.bytes_received));
            format!("{devices} by {}: {bytes} bytes", words(&share.payload))
        })
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// The line about devices whose image has no patch, for whoever builds the next envelope of `release`.
pub(super) fn without_patch(without: &WithoutPatch, release: &str) -> String {
    let devices = match without.devices {
        1 => "1 device runs".to_owned(),
        devices => format!("{} devices run", grouped(devices)),
    };
    let images = match without.images {
        1 => "an image".to_owned(),
        images => format!("{} images", grouped(images)),
    };
    let saved = without.total_saved_bytes.map_or(String::new(), |bytes| {
        format!("; patches would save {} bytes", approximate(bytes, without.estimated))
    });
    let release = short(release);
    format!("{devices} {images} that no patch starts from{saved} (whimbrel release bases {release})")
}

/// A number of bytes, marked if it is an estimate.
pub(super) fn approximate(bytes: u64, estimated: bool) -> String {
    format!("{}{}", if estimated { "~" } else { "" }, grouped(bytes))
}
