//! The paths of the API. Each has a constant, with the name of a parameter in braces, and a function that
//! fills the parameter in.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt::{Display, Write as _};

use whimbrel_protocol::ids::DeviceId;

use crate::{BasesQuery, CampaignQuery, DevicesQuery, ImportQuery};

/// What there is, and what was counted.
pub const STATUS: &str = "/v1/status";
/// Says that the clock of the service is right.
pub const CLOCK_ACCEPT: &str = "/v1/clock/accept";
/// Says that the service has no newer database.
pub const STORE_ACCEPT: &str = "/v1/store/accept";
/// Releases.
pub const RELEASES: &str = "/v1/releases";
/// One release, by the first digits of its digest.
pub const RELEASE: &str = "/v1/releases/{hex}";
/// Images that devices run and that a release has no patch for.
pub const BASES: &str = "/v1/releases/{hex}/bases";
/// One payload, by its index digest.
pub const PAYLOAD: &str = "/v1/payloads/{hex}";
/// Campaigns.
pub const CAMPAIGNS: &str = "/v1/campaigns";
/// One campaign, by the first digits of its id.
pub const CAMPAIGN: &str = "/v1/campaigns/{id}";
/// Calls a campaign off.
pub const CAMPAIGN_ABORT: &str = "/v1/campaigns/{id}/abort";
/// Begins a campaign's next attempt.
pub const CAMPAIGN_RETRY: &str = "/v1/campaigns/{id}/retry";
/// Devices.
pub const DEVICES: &str = "/v1/devices";
/// Takes a list of devices.
pub const DEVICES_IMPORT: &str = "/v1/devices/import";
/// One device.
pub const DEVICE: &str = "/v1/devices/{id}";
/// Accepts a device.
pub const DEVICE_ACCEPT: &str = "/v1/devices/{id}/accept";
/// Forgets a device's key.
pub const DEVICE_RESET: &str = "/v1/devices/{id}/reset";
/// The groups of a device.
pub const DEVICE_GROUPS: &str = "/v1/devices/{id}/groups";

/// Every path.
pub const ALL: [&str; 17] = [
    STATUS,
    CLOCK_ACCEPT,
    STORE_ACCEPT,
    RELEASES,
    RELEASE,
    BASES,
    PAYLOAD,
    CAMPAIGNS,
    CAMPAIGN,
    CAMPAIGN_ABORT,
    CAMPAIGN_RETRY,
    DEVICES,
    DEVICES_IMPORT,
    DEVICE,
    DEVICE_ACCEPT,
    DEVICE_RESET,
    DEVICE_GROUPS,
];

/// [`RELEASE`] of a release that `digits` begin the digest of.
#[must_use]
pub fn release(digits: &str) -> String {
    fill(RELEASE, digits)
}

/// [`BASES`] of a release that `digits` begin the digest of.
#[must_use]
pub fn bases(digits: &str, query: &BasesQuery) -> String {
    ask(fill(BASES, digits), query.pairs())
}

/// [`PAYLOAD`] with this index digest.
#[must_use]
pub fn payload(index_digest: &str) -> String {
    fill(PAYLOAD, index_digest)
}

/// [`CAMPAIGN`] of a campaign that `digits` begin the id of.
#[must_use]
pub fn campaign(digits: &str, query: &CampaignQuery) -> String {
    ask(fill(CAMPAIGN, digits), query.pairs())
}

/// [`CAMPAIGN_ABORT`] of a campaign that `digits` begin the id of.
#[must_use]
pub fn campaign_abort(digits: &str) -> String {
    fill(CAMPAIGN_ABORT, digits)
}

/// [`CAMPAIGN_RETRY`] of a campaign that `digits` begin the id of.
#[must_use]
pub fn campaign_retry(digits: &str) -> String {
    fill(CAMPAIGN_RETRY, digits)
}

/// [`DEVICES`] that `query` asks for.
#[must_use]
pub fn devices(query: &DevicesQuery) -> String {
    ask(DEVICES.to_string(), query.pairs())
}

/// [`DEVICES_IMPORT`] with this query.
#[must_use]
pub fn devices_import(query: &ImportQuery) -> String {
    ask(DEVICES_IMPORT.to_string(), query.pairs())
}

/// [`DEVICE`] with this id.
#[must_use]
pub fn device(id: &DeviceId) -> String {
    fill(DEVICE, id)
}

/// [`DEVICE_ACCEPT`] of the device with this id.
#[must_use]
pub fn device_accept(id: &DeviceId) -> String {
    fill(DEVICE_ACCEPT, id)
}

/// [`DEVICE_RESET`] of the device with this id.
#[must_use]
pub fn device_reset(id: &DeviceId) -> String {
    fill(DEVICE_RESET, id)
}

/// [`DEVICE_GROUPS`] of the device with this id.
#[must_use]
pub fn device_groups(id: &DeviceId) -> String {
    fill(DEVICE_GROUPS, id)
}

/// The path with `value` in place of what stands in braces.
fn fill(path: &str, value: impl Display) -> String {
    let value = encoded(&value.to_string());
    match (path.split_once('{'), path.split_once('}')) {
        (Some((before, _)), Some((_, after))) => format!("{before}{value}{after}"),
        _ => path.to_string(),
    }
}

/// The path with those parameters that are given.
fn ask<const N: usize>(mut path: String, parameters: [(&str, Option<String>); N]) -> String {
    let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
    for (at, (name, value)) in given.enumerate() {
        let before = if at == 0 { '?' } else { '&' };
        path.push_str(&format!("{before}{name}={}", encoded(&value)));
    }
    path
}

/// The text with every byte in percent notation that could mean something in a path or a query (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_in_place_of_the_braces() {
        assert_eq!(release("4f3a"), "/v1/releases/4f3a");
        assert_eq!(campaign_abort("3b9c"), "/v1/campaigns/3b9c/abort");
        let id = DeviceId::new("meter-17").unwrap();
        assert_eq!(device_groups(&id), "/v1/devices/meter-17/groups");
    }

    #[test]
    fn parameters_that_are_not_given_are_not_asked_for() {
        assert_eq!(devices(&DevicesQuery::default()), DEVICES);
        let query = CampaignQuery { devices: Some("1".into()), after: Some("m1".into()) };
        assert_eq!(campaign("3b9c", &query), "/v1/campaigns/3b9c?devices=1&after=m1");
        let query = CampaignQuery { after: Some("m1".into()), ..CampaignQuery::default() };
        assert_eq!(campaign("3b9c", &query), "/v1/campaigns/3b9c?after=m1");
    }

    #[test]
    fn no_value_leaves_its_place() {
        assert_eq!(payload("../x?y=1#z"), "/v1/payloads/..%2Fx%3Fy%3D1%23z");
        let query = BasesQuery { group: Some("a&b=é".into()) };
        assert_eq!(bases("00", &query), "/v1/releases/00/bases?group=a%26b%3D%C3%A9");
    }
}
