//! The byte ledger: what every byte between a device and its broker was for.
//!
//! Bytes are counted where MQTT meets the socket (under TLS, where there is one), from CONNACK on, twice and by two
//! ways: as the stream carries them, and again when the message they belong to is known. Each byte is data or
//! control, so the two ways must meet: `mqtt_bytes_down + mqtt_bytes_up = data_bytes + control_bytes`.
//!
//! | sum | what is in it |
//! |---|---|
//! | `data_bytes` | whole PUBLISH packets, both ways, of chunk, page, manifest and request messages, also where a cut left only their beginning |
//! | `payload_bytes` | what those messages carried for the first time, without any header |
//! | `refetched_bytes` | what they carried that had reached the device before, or carried in a message cut before its end |
//! | `control_bytes` | everything else: CONNACK, subscriptions, hello, signed documents, reports, acknowledgements, pings, and a cut packet too short to tell |
//!
//! `data overhead = (data_bytes - refetched_bytes) / payload_bytes - 1`. CONNECT goes out before CONNACK and is kept
//! apart, as `login_bytes`: that is the only difference to what the kernel counts for a connection without cuts.

use core::ops::AddAssign;

use serde::Serialize;

use crate::control::{Control, ControlBytes};

/// What a message is for; the caller of the MQTT client says so by its topic and its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Part of the transfer of an image.
    Data {
        /// What it carries.
        part: Part,
        /// Bytes of the message before what it carries.
        header_bytes: u16,
    },
    /// Anything else.
    Control(Control),
}

/// What a data message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing: it asks for the others.
    Request,
    /// Consecutive chunks of the transfer.
    Chunks,
    /// A page of the index.
    Page,
    /// A manifest in its envelope.
    Manifest,
}

/// Tells the class of a message from its topic and as much of its payload as has arrived, which may be nothing.
pub type Classify = fn(topic: &str, payload: &[u8]) -> Class;

/// The sums of one device, or of a fleet; all in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// From the broker, from CONNACK on.
    pub mqtt_bytes_down: u64,
    /// To the broker, after CONNACK.
    pub mqtt_bytes_up: u64,
    /// Data messages to the device.
    pub data_bytes_down: u64,
    /// Data messages from the device.
    pub data_bytes_up: u64,
    /// All other bytes to the device.
    pub control_bytes_down: u64,
    /// All other bytes from the device.
    pub control_bytes_up: u64,
    /// All other bytes, both ways, by what they were for.
    pub control: ControlBytes,
    /// Transfer bytes that arrived for the first time.
    pub chunk_bytes: u64,
    /// Bytes of index pages that arrived for the first time.
    pub page_bytes: u64,
    /// Bytes of manifests that arrived for the first time.
    pub manifest_bytes: u64,
    /// What complete messages carried again.
    pub repeated_bytes: u64,
    /// What messages carried that were cut before their end.
    pub cut_short_bytes: u64,
    /// CONNECT packets, which precede CONNACK and are in no other sum.
    pub login_bytes: u64,
    /// Connections that got a CONNACK.
    pub connections: u64,
    /// Connections that the plan of the run cut.
    pub link_cuts: u64,
    /// Complete data messages to the device.
    pub data_messages: u64,
}

/// A sum that does not close: a mistake in this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the byte ledger does not close: {what}: {left} on one side, {right} on the other")]
pub struct LedgerError {
    /// Which equation.
    pub what: &'static str,
    /// Its left side.
    pub left: u64,
    /// Its right side.
    pub right: u64,
}

impl Ledger {
    /// Data messages, both ways.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        self.data_bytes_down + self.data_bytes_up
    }

    /// All other bytes, both ways.
    #[must_use]
    pub const fn control_bytes(&self) -> u64 {
        self.control_bytes_down + self.control_bytes_up
    }

    /// What data messages carried for the first time.
    #[must_use]
    pub const fn payload_bytes(&self) -> u64 {
        self.chunk_bytes + self.page_bytes + self.manifest_bytes
    }

    /// What data messages carried in vain.
    #[must_use]
    pub const fn refetched_bytes(&self) -> u64 {
        self.repeated_bytes + self.cut_short_bytes
    }

    /// Data bytes beyond the payload, in percent of it; `None` while there is no payload.
    #[must_use]
    pub fn data_overhead_percent(&self) -> Option<f64> {
        let useful = self.data_bytes().saturating_sub(self.refetched_bytes());
        let payload = self.payload_bytes();
        (payload > 0).then(|| (useful as f64 / payload as f64 - 1.0) * 100.0)
    }

    /// A connection got its CONNACK; `login_bytes` went up before.
    pub const fn connected(&mut self, login_bytes: u64) {
        self.connections += 1;
        self.login_bytes += login_bytes;
    }

    /// The plan of the run cut a connection.
    pub const fn cut(&mut self) {
        self.link_cuts += 1;
    }

    /// The stream brought bytes.
    pub const fn read(&mut self, bytes: u64) {
        self.mqtt_bytes_down += bytes;
    }

    /// The stream took bytes.
    pub const fn wrote(&mut self, bytes: u64) {
        self.mqtt_bytes_up += bytes;
    }

    /// Of the bytes that the stream took, so many belong to a message of this class.
    pub fn sent(&mut self, bytes: u64, class: Class) {
        match class {
            Class::Data { .. } => self.data_bytes_up += bytes,
            Class::Control(control) => {
                self.control_bytes_up += bytes;
                self.control.add(control, bytes);
            }
        }
    }

    /// Of the bytes that the stream brought, so many are a whole packet of this class.
    pub fn received(&mut self, bytes: u64, class: Class) {
        match class {
            Class::Data { .. } => {
                self.data_bytes_down += bytes;
                self.data_messages += 1;
            }
            Class::Control(control) => {
                self.control_bytes_down += bytes;
                self.control.add(control, bytes);
            }
        }
    }

    /// Of the bytes that the stream brought, so many are the beginning of a packet whose end will never come.
    ///
    /// `payload_bytes` of them are the message's, with its header but without MQTT's.
    pub fn received_cut_short(&mut self, bytes: u64, payload_bytes: u64, class: Class) {
        match class {
            Class::Data { header_bytes, .. } => {
                self.data_bytes_down += bytes;
                self.cut_short_bytes += payload_bytes.saturating_sub(header_bytes as u64);
            }
            Class::Control(control) => {
                self.control_bytes_down += bytes;
                self.control.add(control, bytes);
            }
        }
    }

    /// The device found in a data message that so much of what it carried is new, and so much is not.
    pub const fn carried(&mut self, part: Part, first_bytes: u64, repeated_bytes: u64) {
        match part {
            Part::Request => {}
            Part::Chunks => self.chunk_bytes += first_bytes,
            Part::Page => self.page_bytes += first_bytes,
            Part::Manifest => self.manifest_bytes += first_bytes,
        }
        self.repeated_bytes += repeated_bytes;
    }

    /// Checks that every byte has found its place. Right when no connection is open.
    ///
    /// # Errors
    /// [`LedgerError`] with the first equation that does not hold.
    pub fn check(&self) -> Result<(), LedgerError> {
        let down = self.data_bytes_down + self.control_bytes_down;
        let up = self.data_bytes_up + self.control_bytes_up;
        let carried = self.payload_bytes() + self.refetched_bytes();
        if self.mqtt_bytes_down != down {
            let what = "bytes down are data and control bytes down";
            Err(LedgerError { what, left: self.mqtt_bytes_down, right: down })
        } else if self.mqtt_bytes_up != up {
            let what = "bytes up are data and control bytes up";
            Err(LedgerError { what, left: self.mqtt_bytes_up, right: up })
        } else if self.control_bytes() != self.control.total() {
            let what = "control bytes are those of its kinds";
            Err(LedgerError { what, left: self.control_bytes(), right: self.control.total() })
        } else if carried > self.data_bytes_down {
            let what = "payload and refetched bytes are within data bytes down";
            Err(LedgerError { what, left: carried, right: self.data_bytes_down })
        } else {
            Ok(())
        }
    }
}

impl AddAssign<&Self> for Ledger {
    fn add_assign(&mut self, other: &Self) {
        // Named one by one, so that a sum that is added to the ledger cannot be forgotten here.
        let Self {
            mqtt_bytes_down,
            mqtt_bytes_up,
            data_bytes_down,
            data_bytes_up,
            control_bytes_down,
            control_bytes_up,
            control,
            chunk_bytes,
            page_bytes,
            manifest_bytes,
            repeated_bytes,
            cut_short_bytes,
            login_bytes,
            connections,
            link_cuts,
            data_messages,
        } = other;
        self.mqtt_bytes_down += mqtt_bytes_down;
        self.mqtt_bytes_up += mqtt_bytes_up;
        self.data_bytes_down += data_bytes_down;
        self.data_bytes_up += data_bytes_up;
        self.control_bytes_down += control_bytes_down;
        self.control_bytes_up += control_bytes_up;
        self.control += control;
        self.chunk_bytes += chunk_bytes;
        self.page_bytes += page_bytes;
        self.manifest_bytes += manifest_bytes;
        self.repeated_bytes += repeated_bytes;
        self.cut_short_bytes += cut_short_bytes;
        self.login_bytes += login_bytes;
        self.connections += connections;
        self.link_cuts += link_cuts;
        self.data_messages += data_messages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKS: Class = Class::Data { part: Part::Chunks, header_bytes: 4 };
    const REQUEST: Class = Class::Data { part: Part::Request, header_bytes: 0 };

    /// One chunk message of 1,000 bytes in 1,020, its request, a cut copy of it and some control.
    fn one_update() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.connected(32);
        ledger.read(4 + 1020 + 300);
        ledger.wrote(25 + 40);
        ledger.received(4, Class::Control(Control::Other));
        ledger.sent(40, Class::Control(Control::Other));
        ledger.sent(25, REQUEST);
        ledger.received(1020, CHUNKS);
        ledger.carried(Part::Chunks, 1000, 0);
        ledger.received_cut_short(300, 285, CHUNKS);
        ledger.cut();
        ledger
    }

    #[test]
    fn data_and_control_are_all_the_bytes_there_are() {
        let ledger = one_update();
        assert_eq!(ledger.check(), Ok(()));
        assert_eq!(
            ledger.data_bytes() + ledger.control_bytes(),
            ledger.mqtt_bytes_down + ledger.mqtt_bytes_up
        );
        assert_eq!((ledger.data_bytes(), ledger.control_bytes(), ledger.login_bytes), (1345, 44, 32));
    }

    #[test]
    fn refetched_bytes_are_what_a_cut_message_carried_without_its_header() {
        let ledger = one_update();
        assert_eq!((ledger.payload_bytes(), ledger.refetched_bytes()), (1000, 281));
        let overhead = ledger.data_overhead_percent().unwrap();
        assert!((overhead - (1345.0 - 281.0 - 1000.0) / 10.0).abs() < 1e-9, "{overhead}");
        let mut too_short_for_its_header = Ledger::default();
        too_short_for_its_header.received_cut_short(12, 3, CHUNKS);
        assert_eq!(too_short_for_its_header.refetched_bytes(), 0);
    }

    #[test]
    fn what_comes_again_is_refetched_and_not_payload() {
        let mut ledger = one_update();
        ledger.read(1020);
        ledger.received(1020, CHUNKS);
        ledger.carried(Part::Chunks, 0, 1000);
        assert_eq!((ledger.payload_bytes(), ledger.refetched_bytes()), (1000, 1281));
        assert_eq!(ledger.check(), Ok(()));
    }

    #[test]
    fn pages_and_manifests_are_payload_with_sums_of_their_own() {
        let mut ledger = Ledger::default();
        ledger.carried(Part::Page, 4096, 0);
        ledger.carried(Part::Manifest, 700, 70);
        assert_eq!((ledger.page_bytes, ledger.manifest_bytes, ledger.payload_bytes()), (4096, 700, 4796));
        assert_eq!(ledger.refetched_bytes(), 70);
    }

    #[test]
    fn a_byte_without_a_class_is_found() {
        let mut ledger = one_update();
        ledger.read(1);
        assert_eq!(ledger.check().unwrap_err().left, ledger.mqtt_bytes_down);
        let mut ledger = one_update();
        ledger.sent(1, Class::Control(Control::Other));
        assert_eq!(ledger.check().unwrap_err().left, ledger.mqtt_bytes_up);
        let mut ledger = one_update();
        ledger.carried(Part::Chunks, 20_000, 0);
        assert_eq!(ledger.check().unwrap_err().right, ledger.data_bytes_down);
    }

    #[test]
    fn a_fleet_is_the_sum_of_its_devices() {
        // Every sum is another number, so that none can be missing or stand for another.
        let mut control = ControlBytes::default();
        control.add(Control::Hello, 16);
        let one = Ledger {
            mqtt_bytes_down: 1,
            mqtt_bytes_up: 2,
            data_bytes_down: 3,
            data_bytes_up: 4,
            control_bytes_down: 5,
            control_bytes_up: 6,
            control,
            chunk_bytes: 7,
            page_bytes: 8,
            manifest_bytes: 9,
            repeated_bytes: 10,
            cut_short_bytes: 11,
            login_bytes: 12,
            connections: 13,
            link_cuts: 14,
            data_messages: 15,
        };
        let mut fleet = Ledger::default();
        for _ in 0..3 {
            fleet += &one;
        }
        let value = serde_json::to_value(fleet).unwrap();
        let one = serde_json::to_value(one).unwrap();
        assert_eq!(value["control"]["hello"], 48);
        for (name, sum) in value.as_object().unwrap() {
            assert_eq!(sum.as_u64(), one[name].as_u64().map(|bytes| bytes * 3), "{name}");
        }
    }

    #[test]
    fn each_kind_of_byte_is_booked_in_its_own_sum() {
        let mut ledger = Ledger::default();
        ledger.connected(30);
        ledger.connected(31);
        ledger.cut();
        ledger.received(100, CHUNKS);
        ledger.received(10, Class::Control(Control::Other));
        ledger.sent(20, REQUEST);
        ledger.sent(2, Class::Control(Control::Other));
        ledger.received_cut_short(7, 0, Class::Control(Control::Other));
        ledger.carried(Part::Request, 5, 1);
        let mut control = ControlBytes::default();
        control.add(Control::Other, 19);
        let want = Ledger {
            control,
            data_bytes_down: 100,
            data_bytes_up: 20,
            control_bytes_down: 17,
            control_bytes_up: 2,
            repeated_bytes: 1,
            login_bytes: 61,
            connections: 2,
            link_cuts: 1,
            data_messages: 1,
            ..Ledger::default()
        };
        assert_eq!(ledger, want);
    }

    #[test]
    fn without_payload_there_is_no_overhead_to_speak_of() {
        assert_eq!(Ledger::default().data_overhead_percent(), None);
    }
}
