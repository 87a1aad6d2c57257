//! What control bytes were for, message by message: where an update's own cost can still be saved.

use core::ops::AddAssign;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// What a message of control is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// CONNACK and DISCONNECT. CONNECT goes out before CONNACK and is in no sum of control.
    Connection,
    /// SUBSCRIBE and SUBACK.
    Subscription,
    /// PUBACK, both ways.
    Acknowledgement,
    /// PINGREQ and PINGRESP.
    Ping,
    /// A hello.
    Hello,
    /// The signed answer to a hello.
    HelloAnswer,
    /// The signed assignment of the device.
    Assignment,
    /// The signed campaign of a group.
    Campaign,
    /// The signed beacon.
    Beacon,
    /// A report of the device, signed.
    Report,
    /// The enrolment of the device, signed by it.
    Enrolment,
    /// What the device does at the moment.
    Status,
    /// An unsigned refusal.
    Refusal,
    /// What a cut left too short to tell, and anything else.
    Other,
}

impl Control {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Connection, "connection"),
        (Self::Subscription, "subscription"),
        (Self::Acknowledgement, "acknowledgement"),
        (Self::Ping, "ping"),
        (Self::Hello, "hello"),
        (Self::HelloAnswer, "hello_answer"),
        (Self::Assignment, "assignment"),
        (Self::Campaign, "campaign"),
        (Self::Beacon, "beacon"),
        (Self::Report, "report"),
        (Self::Enrolment, "enrolment"),
        (Self::Status, "status"),
        (Self::Refusal, "refusal"),
        (Self::Other, "other"),
    ];
}

/// Control bytes, both ways, by what they were for. As JSON an object of those that are not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlBytes([u64; Control::ALL.len()]);

impl ControlBytes {
    /// Counts bytes of a message, or of a part of it.
    pub fn add(&mut self, control: Control, bytes: u64) {
        if let Some(sum) = self.0.get_mut(control as usize) {
            *sum += bytes;
        }
    }

    /// Names and bytes of those that are not 0.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Control::ALL
            .iter()
            .zip(self.0)
            .filter(|(_, bytes)| *bytes > 0)
            .map(|((_, name), bytes)| (*name, bytes))
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl AddAssign<&Self> for ControlBytes {
    fn add_assign(&mut self, other: &Self) {
        for (sum, bytes) in self.0.iter_mut().zip(other.0) {
            *sum += bytes;
        }
    }
}

impl Serialize for ControlBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, bytes) in self.each() {
            map.serialize_entry(name, &bytes)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_control_has_a_sum_and_a_name_of_its_own() {
        let mut bytes = ControlBytes::default();
        for (place, (control, _)) in Control::ALL.into_iter().enumerate() {
            assert_eq!(control as usize, place);
            bytes.add(control, 1 + place as u64);
        }
        let named: Vec<_> = bytes.each().collect();
        assert_eq!(named.len(), Control::ALL.len());
        assert_eq!((named[4], bytes.total()), (("hello", 5), 14 * 15 / 2));
        let mut twice = bytes;
        twice += &bytes;
        assert_eq!(twice.total(), 2 * bytes.total());
        let mut few = ControlBytes::default();
        few.add(Control::Report, 7);
        assert_eq!(serde_json::to_string(&few).unwrap(), r#"{"report":7}"#);
    }
}
