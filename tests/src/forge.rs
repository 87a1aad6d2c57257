//! What a thief of online keys, or a broker with old messages, would publish.

use core::net::SocketAddr;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use whimbrel_protocol::cose::{Kind, Sign1, SigningKey, sign_attached};
use whimbrel_protocol::ids::DeviceId;
use whimbrel_protocol::message::{Assignment, Beacon, Campaign};

use crate::bundle::Bundle;
use crate::clock::PATIENCE;
use crate::frames;
use crate::proxy::Proxy;

/// Publishes at a broker that lets everybody, signed with the keys of a bundle.
#[derive(Debug)]
pub struct Forger {
    broker: SocketAddr,
    campaign: SigningKey,
    beacon: SigningKey,
}

impl Forger {
    /// Takes the bundle's online keys.
    #[must_use]
    pub fn new(bundle: &Bundle, broker: SocketAddr) -> Self {
        Self { broker, campaign: bundle.key("campaign"), beacon: bundle.key("beacon") }
    }

    /// Signs a campaign.
    #[must_use]
    pub fn campaign(&self, campaign: &Campaign) -> Vec<u8> {
        sign_attached(&self.campaign, Kind::Campaign, None, &campaign.encode())
    }

    /// Signs an assignment.
    #[must_use]
    pub fn assignment(&self, assignment: &Assignment) -> Vec<u8> {
        sign_attached(&self.campaign, Kind::Assignment, None, &assignment.encode())
    }

    /// Signs a beacon.
    #[must_use]
    pub fn beacon(&self, beacon: &Beacon) -> Vec<u8> {
        sign_attached(&self.beacon, Kind::Beacon, None, &beacon.encode())
    }

    /// Signs a campaign with the key of beacons.
    #[must_use]
    pub fn campaign_by_beacon_key(&self, campaign: &Campaign) -> Vec<u8> {
        sign_attached(&self.beacon, Kind::Campaign, None, &campaign.encode())
    }

    /// Publishes retained, and returns when the broker has it.
    ///
    /// # Panics
    /// Where the broker does not take it.
    pub fn retain(&self, topic: &str, payload: &[u8]) {
        self.publish(topic, payload, true).expect("the broker lets everybody publish");
    }

    /// Publishes to those who listen now, and returns when the broker has it.
    ///
    /// # Panics
    /// Where the broker does not take it.
    pub fn send(&self, topic: &str, payload: &[u8]) {
        self.publish(topic, payload, false).expect("the broker lets everybody publish");
    }

    fn publish(&self, topic: &str, payload: &[u8], retain: bool) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(self.broker)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&frames::connect("forger").bytes)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
        stream.write_all(&frames::publish_acknowledged(topic, payload, retain).bytes)?;
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, [0x40, 2, 0, 1], "PUBACK");
        stream.write_all(&frames::disconnect().bytes)
    }
}

/// The last document of `kind` that `device` was sent, as signed and what was signed.
fn last_document(proxy: &Proxy, device: &str, kind: Kind) -> Option<(Vec<u8>, Vec<u8>)> {
    let messages = proxy.messages(device);
    let mut down = messages.into_iter().rev().filter(|message| !message.up);
    down.find_map(|message| {
        let object = Sign1::decode(&message.payload).ok()?;
        let payload = object.unverified_payload().filter(|_| object.claimed_kind() == Some(kind))?;
        Some((payload.to_vec(), message.payload.clone()))
    })
}

/// The last campaign that `device` was sent, and its signed bytes.
///
/// # Panics
/// Where it was sent none.
#[must_use]
pub fn last_campaign(proxy: &Proxy, device: &str) -> (Campaign, Vec<u8>) {
    let (payload, signed) = last_document(proxy, device, Kind::Campaign).expect("it was sent a campaign");
    (Campaign::decode(&payload).expect("the service makes good ones"), signed)
}

/// The last assignment that `device` was sent, and its signed bytes.
///
/// # Panics
/// Where it was sent none.
#[must_use]
pub fn last_assignment(proxy: &Proxy, device: &str) -> (Assignment, Vec<u8>) {
    let (payload, signed) = last_document(proxy, device, Kind::Assignment).expect("it was sent one");
    (Assignment::decode(&payload).expect("the service makes good ones"), signed)
}

/// The last beacon that `device` was sent, and its signed bytes.
///
/// # Panics
/// Where it was sent none.
#[must_use]
pub fn last_beacon(proxy: &Proxy, device: &str) -> (Beacon, Vec<u8>) {
    let (payload, signed) = last_document(proxy, device, Kind::Beacon).expect("it was sent a beacon");
    (Beacon::decode(&payload).expect("the service makes good ones"), signed)
}

/// A device's name as the documents have it.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn device_id(text: &str) -> DeviceId {
    DeviceId::new(text).expect("a device's name")
}
