//! Who may come in, and what they may read and write.
//!
//! The identity rule and the topic rules are fixed here, so that no implementation of [`Access`] can forget
//! them; what depends on the fleet (is the password right, is the device in the group) is asked through the trait.

use core::net::SocketAddr;

use whimbrel_protocol::ids::{DeviceId, GroupName, Prefix};
use whimbrel_protocol::topic::{self, Channel};

use super::error::FrontError;

/// Decides about devices. Called on the door's network threads: answer from memory, never wait.
pub trait Access: Send + Sync + 'static {
    /// May this client connect as the device that it says it is?
    ///
    /// # Errors
    /// The refusal becomes the return code of CONNACK.
    fn login(&self, login: &Login<'_>) -> Result<(), Refusal>;

    /// May [`Access::login`] take tens of milliseconds for this client? Then it is called on a thread that may wait, for
    /// one client after the other.
    fn is_slow(&self, _login: &Login<'_>) -> bool {
        false
    }

    /// Does the operator know this device? Others share a small pool of places.
    fn is_known(&self, device: &DeviceId) -> bool;

    /// May this device read the campaign of this group? Asked at each SUBSCRIBE, and
    /// for what it has subscribed to whenever the service says that the device has changed.
    fn in_group(&self, device: &DeviceId, group: &GroupName) -> bool;
}

/// What a client says about itself.
#[derive(Debug)]
pub struct Login<'a> {
    /// Who it says it is: the user name if there is one, else the client id.
    pub device: &'a DeviceId,
    /// The user name; `None` where the client gave none, so that only the client id names the device.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a str>,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name or the password is wrong.
    BadPassword,
    /// The device may not connect at all.
    NotAuthorized,
    /// It can't be decided now; the client may try again later.
    Busy,
}

/// Which of the two clients that a device may have: its own, or the update agent beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Client id `{d}`.
    Device,
    /// Client id `{d}-ota`.
    Agent,
}

impl Role {
    /// The id of the client's link on the router. Not the client id: device `m1-ota` and the agent of `m1` may both call
    /// themselves `m1-ota`, and two links with one id kill the router.
    pub(crate) fn link_id(self, device: &DeviceId) -> String {
        match self {
            Self::Device => device.to_string(),
            Self::Agent => format!("{device}.agent"),
        }
    }
}

/// Finds the device that a client id and a user name stand for (DESIGN: the identity that the broker proves).
///
/// The client id must be `{d}` or `{d}-ota`. Ids of the service's own links contain a full stop and can't be
/// taken here.
pub(crate) fn identify(client_id: &str, user_name: Option<&str>) -> Option<(DeviceId, Role)> {
    let device = DeviceId::new(user_name.unwrap_or(client_id)).ok()?;
    let role = match client_id.strip_prefix(device.as_str())? {
        "" => Role::Device,
        "-ota" => Role::Agent,
        _ => return None,
    };
    Some((device, role))
}

/// What a filter gives to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A topic of the update service: one of the device's own, the beacon, or a group's, which only its members may
    /// read.
    Ours(Channel),
    /// A topic of the application that the configuration allows.
    Application,
    /// Anything else.
    Refused,
}

/// Where a message of a device goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publishing {
    /// To the update service.
    Ours,
    /// To a topic of the application that the configuration allows.
    Application,
    /// Nowhere.
    Refused,
}

/// The topics that devices may use.
#[derive(Debug)]
pub(crate) struct TopicRules {
    prefix: Prefix,
    application_publish: Vec<Template>,
    application_subscribe: Vec<Template>,
}

impl TopicRules {
    /// Rules for `prefix`, and for topics of the application in which `%d` stands for the device.
    pub(crate) fn new(
        prefix: Prefix,
        application_publish: &[String],
        application_subscribe: &[String],
    ) -> Result<Self, FrontError> {
        let templates = |setting, list: &[String]| {
            list.iter().map(|text| Template::new(setting, text, &prefix)).collect::<Result<Vec<_>, _>>()
        };
        let application_publish = templates("application_publish", application_publish)?;
        let application_subscribe = templates("application_subscribe", application_subscribe)?;
        Ok(Self { prefix, application_publish, application_subscribe })
    }

    /// Where does what the device publishes here go (never retained)? The same holds for its will.
    pub(crate) fn publishing(&self, device: &DeviceId, topic: &[u8]) -> Publishing {
        let Ok(topic) = core::str::from_utf8(topic) else { return Publishing::Refused };
        let own = topic::parse(&self.prefix, topic).is_some_and(|address| {
            matches!(address.channel, Channel::Requests | Channel::Reports)
                && address.device.as_ref() == Some(device)
        });
        if own {
            return Publishing::Ours;
        }
        let application = self.application_publish.iter().any(|template| template.matches(device, topic));
        if application { Publishing::Application } else { Publishing::Refused }
    }

    /// What does this filter give the device to read? Exact topics only.
    pub(crate) fn reading(&self, device: &DeviceId, filter: &str) -> Reading {
        match topic::parse(&self.prefix, filter) {
            Some(address) => match address.channel {
                channel @ (Channel::Answers | Channel::Assignment)
                    if address.device.as_ref() == Some(device) =>
                {
                    Reading::Ours(channel)
                }
                channel @ (Channel::Beacon | Channel::Group(_)) => Reading::Ours(channel),
                _ => Reading::Refused,
            },
            None if self.application_subscribe.iter().any(|template| template.matches(device, filter)) => {
                Reading::Application
            }
            None => Reading::Refused,
        }
    }
}

/// A topic in which `%d` stands for the device. Exact: the router keeps state for every topic it sees, so a
/// device must not be able to invent them.
#[derive(Debug)]
struct Template {
    before: Box<str>,
    after: Option<Box<str>>,
}

impl Template {
    fn new(setting: &'static str, text: &str, prefix: &Prefix) -> Result<Self, FrontError> {
        let wrong = |expected: &str| {
            Err(FrontError::Setting { setting, got: format!("{text:?}"), expected: expected.to_owned() })
        };
        // The router slices the first byte off each topic: it must be a character of its own.
        if text.is_empty() || text.len() > 256 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("1 to 256 printable ASCII characters without spaces");
        }
        if text.starts_with('$') || text.contains(['+', '#']) {
            return wrong("a topic without wildcards that does not start with $");
        }
        if text.split('/').next() == Some(prefix.as_str()) {
            return wrong("a topic outside the update service's own prefix");
        }
        let (before, after) = match text.split_once("%d") {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        if before.is_empty() || after.is_some_and(|after| after.contains("%d")) {
            return wrong("at most one %d, and not at the start");
        }
        Ok(Self { before: before.into(), after: after.map(Into::into) })
    }

    fn matches(&self, device: &DeviceId, topic: &str) -> bool {
        let Some(rest) = topic.strip_prefix(&*self.before) else { return false };
        match &self.after {
            Some(after) => rest.strip_prefix(device.as_str()) == Some(after),
            None => rest.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    #[test]
    fn the_device_is_the_user_name_else_the_client_id() {
        assert_eq!(identify("m1", None), Some((device("m1"), Role::Device)));
        assert_eq!(identify("m1", Some("m1")), Some((device("m1"), Role::Device)));
        assert_eq!(identify("m1-ota", Some("m1")), Some((device("m1"), Role::Agent)));
        // Without a user name nothing but the client id names the device.
        assert_eq!(identify("m1-ota", None), Some((device("m1-ota"), Role::Device)));
    }

    #[test]
    fn a_client_id_of_another_device_is_no_identity() {
        for (client_id, user_name) in [
            ("m2", Some("m1")),
            ("m1-otb", Some("m1")),
            ("m1-ota-ota", Some("m1")),
            ("", None),
            ("", Some("m1")),
            ("m", None),
            ("m1", Some("m 1")),
            (".service-00", None),
            ("m1/x", None),
            ("m+", None),
            ("m1", Some("")),
        ] {
            assert_eq!(identify(client_id, user_name), None, "{client_id:?} {user_name:?}");
        }
        let long = "x".repeat(65);
        assert_eq!(identify(&long, None), None);
    }

    #[test]
    fn a_topic_of_the_application_is_exact_and_the_devices_own() {
        let rules = TopicRules::new(
            Prefix::default(),
            &["tele/%d/state".to_owned()],
            &["cmd/%d".to_owned(), "cmd/all".to_owned()],
        )
        .unwrap();
        let m1 = device("m1");
        assert_eq!(rules.publishing(&m1, b"tele/m1/state"), Publishing::Application);
        assert_eq!(rules.publishing(&m1, b"ota/d/m1/q"), Publishing::Ours);
        for topic in ["tele/m2/state", "tele/m1/state/x", "tele/m1", "tele//state", "cmd/m1"] {
            assert_eq!(rules.publishing(&m1, topic.as_bytes()), Publishing::Refused, "{topic}");
        }
        assert_eq!(rules.reading(&m1, "cmd/m1"), Reading::Application);
        assert_eq!(rules.reading(&m1, "cmd/all"), Reading::Application);
        for filter in ["cmd/m11", "cmd/+", "cmd/m2", "cmd/#", "cmd/allx"] {
            assert_eq!(rules.reading(&m1, filter), Reading::Refused, "{filter}");
        }
    }

    #[test]
    fn topics_of_the_application_that_would_open_the_door_are_refused() {
        for text in ["ota/d/%d/c", "ota", "#", "a/+/b", "$SYS/x", "%d/up", "a/%d/%d", "", "a b", "é/x"] {
            let list = [text.to_owned()];
            assert!(TopicRules::new(Prefix::default(), &list, &[]).is_err(), "{text}");
        }
    }
}
