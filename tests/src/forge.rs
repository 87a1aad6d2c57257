//! Publishes what a thief of online keys, or a broker with old messages, could publish.

use core::net::SocketAddr;
use core::ops::Range;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use whimbrel_protocol::cose::{Kind, Sign1, SigningKey, sign_attached};
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::{DeviceId, Digest};
use whimbrel_protocol::message::{Assignment, Beacon, Campaign, Report};

use crate::bundle::{Bundle, Release};
use crate::clock::PATIENCE;
use crate::frames;
use crate::proxy::Proxy;

/// Publishes documents signed with the keys of a bundle, at a broker without access rules.
#[derive(Debug)]
pub struct Forger {
    broker: SocketAddr,
    campaign: SigningKey,
    beacon: SigningKey,
}

impl Forger {
    /// Reads the bundle's online keys.
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

    /// Signs a campaign with the key for beacons.
    #[must_use]
    pub fn campaign_by_beacon_key(&self, campaign: &Campaign) -> Vec<u8> {
        sign_attached(&self.beacon, Kind::Campaign, None, &campaign.encode())
    }

    /// Publishes retained, and returns when the broker has it.
    ///
    /// # Panics
    /// If the broker does not take it.
    pub fn retain(&self, topic: &str, payload: &[u8]) {
        self.publish(topic, payload, true).expect("the broker lets everybody publish");
    }

    /// Publishes without retaining, to clients that are subscribed now, and returns when the broker has it.
    ///
    /// # Panics
    /// If the broker does not take it.
    pub fn send(&self, topic: &str, payload: &[u8]) {
        self.publish(topic, payload, false).expect("the broker lets everybody publish");
    }

    /// Publishes on the topic on which the service answers a device, because a device always listens there.
    pub fn tell(&self, device: &str, payload: &[u8]) {
        self.send(&format!("ota/d/{device}/c"), payload);
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

/// The last document of `kind` that `device` was sent: as signed, and the payload that was signed.
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
/// If it was sent none.
#[must_use]
pub fn last_campaign(proxy: &Proxy, device: &str) -> (Campaign, Vec<u8>) {
    let (payload, signed) = last_document(proxy, device, Kind::Campaign).expect("it was sent a campaign");
    (Campaign::decode(&payload).expect("the service makes good ones"), signed)
}

/// The last assignment that `device` was sent, and its signed bytes.
///
/// # Panics
/// If it was sent none.
#[must_use]
pub fn last_assignment(proxy: &Proxy, device: &str) -> (Assignment, Vec<u8>) {
    let (payload, signed) = last_document(proxy, device, Kind::Assignment).expect("it was sent one");
    (Assignment::decode(&payload).expect("the service makes good ones"), signed)
}

/// A device's name as a [`DeviceId`].
///
/// # Panics
/// If `text` is no device id.
#[must_use]
pub fn device_id(text: &str) -> DeviceId {
    DeviceId::new(text).expect("a device's name")
}

/// The last report that `device` sent.
#[must_use]
pub fn last_report(proxy: &Proxy, device: &str) -> Option<Report> {
    let messages = proxy.messages(device);
    messages.iter().rev().filter(|message| message.up).find_map(|message| {
        let object = Sign1::decode(&message.payload).ok()?;
        let payload = object.unverified_payload().filter(|_| object.claimed_kind() == Some(Kind::Report))?;
        Report::decode(payload).ok()
    })
}

/// A release's envelope as a service sends it: without its text.
///
/// # Panics
/// If the release was not signed.
#[must_use]
pub fn envelope_of(release: &Release) -> Vec<u8> {
    let bytes = std::fs::read(release.folder.join("release.suit")).expect("it was signed");
    let mut envelope = Envelope::decode(&bytes).expect("whimbrel makes good ones");
    envelope.strip_text();
    envelope.bytes().to_vec()
}

/// An envelope with one byte of its manifest changed and the digest made right again, and that digest.
/// Somebody without a release key can do no more than this.
///
/// # Panics
/// If `envelope` has no manifest.
#[must_use]
pub fn with_one_byte_changed(envelope: &[u8]) -> (Vec<u8>, Digest) {
    let digest = Envelope::decode(envelope).expect("a good one").claimed_digest();
    // The manifest is the byte string that has the signed digest.
    let end_of = |start: usize| match *envelope.get(start..)? {
        [0x58, length, ..] => Some(start + 2 + usize::from(length)),
        [0x59, high, low, ..] => Some(start + 3 + usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    };
    let mut ranges = (0..envelope.len()).filter_map(|start| Some(start..end_of(start)?));
    let is_manifest = |range: &Range<usize>| envelope.get(range.clone()).map(Digest::of) == Some(digest);
    let manifest = ranges.find(is_manifest).expect("it has a manifest");
    let mut changed = envelope.to_vec();
    changed[manifest.end - 40] ^= 1;
    let new = Digest::of(&changed[manifest]);
    let at = changed.windows(32).position(|window| *window == digest.0).expect("it names the digest");
    changed[at..at + 32].copy_from_slice(&new.0);
    (changed, new)
}
