//! Topic strings and the channels they stand for (SPEC section 2).

use alloc::string::String;

use crate::ids::{DeviceId, GroupName, Prefix};

/// The way that a message travels, seen from one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// `ota/d/{d}/q`: hello, requests and status of the device, QoS 0.
    Requests,
    /// `ota/d/{d}/c`: what the service answers this device, QoS 0.
    Answers,
    /// `ota/d/{d}/r`: the device's reports and enrolment, QoS 1.
    Reports,
    /// `ota/d/{d}/s`: the assignment of this device, QoS 1, retained.
    Assignment,
    /// `ota/g/{group}`: the campaign of a group, QoS 1, retained.
    Group(GroupName),
    /// `ota/t`: the beacon, QoS 1, retained.
    Beacon,
}

impl Channel {
    /// The topic of this channel for one device.
    #[must_use]
    pub fn topic(&self, prefix: &Prefix, device: &DeviceId) -> String {
        let (level, name, leaf) = match self {
            Self::Requests => ("/d/", device.as_str(), "/q"),
            Self::Answers => ("/d/", device.as_str(), "/c"),
            Self::Reports => ("/d/", device.as_str(), "/r"),
            Self::Assignment => ("/d/", device.as_str(), "/s"),
            Self::Group(group) => ("/g/", group.as_str(), ""),
            Self::Beacon => ("/t", "", ""),
        };
        // Without the formatting machinery, of which a device needs nothing else.
        [prefix.as_str(), level, name, leaf].concat()
    }
}

/// The content of a topic: the channel, and the device for the channels that belong to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The channel of the message.
    pub channel: Channel,
    /// Whose channel it is; `None` for groups and the beacon.
    pub device: Option<DeviceId>,
}

/// Reads a topic; `None` if it is not one of ours.
#[must_use]
pub fn parse(prefix: &Prefix, topic: &str) -> Option<Address> {
    let rest = topic.strip_prefix(prefix.as_str())?.strip_prefix('/')?;
    if rest == "t" {
        return Some(Address { channel: Channel::Beacon, device: None });
    }
    if let Some(group) = rest.strip_prefix("g/") {
        return Some(Address { channel: Channel::Group(GroupName::new(group).ok()?), device: None });
    }
    let (device, leaf) = rest.strip_prefix("d/")?.split_once('/')?;
    let channel = match leaf {
        "q" => Channel::Requests,
        "c" => Channel::Answers,
        "r" => Channel::Reports,
        "s" => Channel::Assignment,
        _ => return None,
    };
    Some(Address { channel, device: Some(DeviceId::new(device).ok()?) })
}

/// The filter that selects every device's requests.
#[must_use]
pub fn all_requests(prefix: &Prefix) -> String {
    alloc::format!("{prefix}/d/+/q")
}

/// The filter that selects what every device is answered.
#[must_use]
pub fn all_answers(prefix: &Prefix) -> String {
    alloc::format!("{prefix}/d/+/c")
}

/// The filter that selects every device's assignment.
#[must_use]
pub fn all_assignments(prefix: &Prefix) -> String {
    alloc::format!("{prefix}/d/+/s")
}

/// Whether a topic that [`all_requests`] or [`all_reports`] selected is one of requests.
#[must_use]
pub fn is_of_requests(topic: &[u8]) -> bool {
    topic.ends_with(b"/q")
}

/// The filter that selects every device's reports.
#[must_use]
pub fn all_reports(prefix: &Prefix) -> String {
    alloc::format!("{prefix}/d/+/r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_reads_back_from_its_topic() {
        let prefix = Prefix::default();
        let device = DeviceId::new("meter-1").unwrap();
        let group = Channel::Group(GroupName::new("all").unwrap());
        for (channel, topic) in [
            (Channel::Requests, "ota/d/meter-1/q"),
            (Channel::Answers, "ota/d/meter-1/c"),
            (Channel::Reports, "ota/d/meter-1/r"),
            (Channel::Assignment, "ota/d/meter-1/s"),
            (group, "ota/g/all"),
            (Channel::Beacon, "ota/t"),
        ] {
            assert_eq!(channel.topic(&prefix, &device), topic);
            let address = parse(&prefix, topic).unwrap();
            assert_eq!(address.channel, channel);
            assert_eq!(address.device.is_some(), topic.starts_with("ota/d/"));
            assert_eq!(is_of_requests(topic.as_bytes()), channel == Channel::Requests);
        }
    }

    #[test]
    fn topics_that_are_not_ours_are_none() {
        for topic in [
            "",
            "ota",
            "ota/",
            "ota/d/meter-1",
            "ota/d/meter-1/x",
            "ota/d//q",
            "ota/g/",
            "ota/g/a/b",
            "ota/d/+/q",
            "ota/t/x",
            "otb/t",
            "ota/d/meter-1/q/x",
            "ota/d/a/q",
            "/ota/t",
        ] {
            assert_eq!(parse(&Prefix::default(), topic), None, "{topic}");
        }
    }
}
