//! The signed documents that the service publishes and keeps retained (SPEC sections 4.4 to 4.6).
//!
//! Each says inside the signature for whom it is (prefix, and device or group) and which version it is. So a
//! broker can neither give it to somebody else nor replace it by an older one.

use alloc::vec::Vec;

use super::hello::{read_device, read_group};
use super::order::Order;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{DeviceId, Digest, GroupName, Prefix, ShortDigest};
use crate::limits::{BEACON_GROUPS_MAX, GROUPS_MAX, PREFIX_MAX, SIGNED_BYTES_MAX};
use crate::time::UnixTime;

/// Version and life time of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Rises with every change; from 1.
    pub version: u64,
    /// When it was signed.
    pub issued: UnixTime,
    /// When it expires. After that nothing may begin because of it.
    pub expires: UnixTime,
}

const PREFIX: i64 = 1;
const SCOPE: i64 = 2;
const VERSION: i64 = 3;
const ISSUED: i64 = 4;
const EXPIRES: i64 = 5;
const BODY: i64 = 6;
const ROOT: i64 = 7;
const ORDER: i64 = 8;

type Map<'b> = crate::codec::MapReader<'b>;

fn write_prefix(writer: &mut Writer, prefix: &Prefix) {
    writer.int(PREFIX).text(prefix.as_str());
}

fn read_prefix<'b>(map: &mut Map<'b>, reader: &mut Reader<'b>) -> Result<Prefix, DecodeError> {
    map.expect(reader, PREFIX)?;
    Prefix::new(reader.text("prefix", PREFIX_MAX)?).map_err(|_| DecodeError::value("prefix"))
}

fn write_validity(writer: &mut Writer, validity: &Validity) {
    writer.int(VERSION).uint(validity.version).int(ISSUED).uint(validity.issued.as_secs());
    writer.int(EXPIRES).uint(validity.expires.as_secs());
}

fn read_validity<'b>(map: &mut Map<'b>, reader: &mut Reader<'b>) -> Result<Validity, DecodeError> {
    map.expect(reader, VERSION)?;
    let version = reader.uint("version")?;
    map.expect(reader, ISSUED)?;
    let issued = UnixTime::from_secs(reader.uint("issued")?);
    map.expect(reader, EXPIRES)?;
    let expires = UnixTime::from_secs(reader.uint("expires")?);
    if version == 0 {
        return Err(DecodeError::value("version"));
    }
    Ok(Validity { version, issued, expires })
}

/// A release for a group: the payload of a COSE_Sign1 by a campaign key.
///
/// ```cddl
/// campaign = { 1: prefix: tstr, 2: group: tstr, 3: version: uint, 4: issued: uint, 5: expires: uint,
///     6: order }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// The prefix of the topics it is for.
    pub prefix: Prefix,
    /// The group it is for.
    pub group: GroupName,
    /// Version and life time.
    pub validity: Validity,
    /// What it orders.
    pub order: Order,
}

impl Campaign {
    /// The payload to sign.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(6);
        write_prefix(&mut writer, &self.prefix);
        writer.int(SCOPE).text(self.group.as_str());
        write_validity(&mut writer, &self.validity);
        writer.int(BODY);
        self.order.write(&mut writer);
        writer.into_bytes()
    }

    /// Reads a payload whose signature was verified.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new("campaign", payload, SIGNED_BYTES_MAX)?;
        let map = &mut reader.map("campaign", 6)?;
        let prefix = read_prefix(map, reader)?;
        map.expect(reader, SCOPE)?;
        let group = read_group(reader)?;
        let validity = read_validity(map, reader)?;
        map.expect(reader, BODY)?;
        let order = Order::read(reader)?;
        map.finish(reader)?;
        reader.finish()?;
        Ok(Self { prefix, group, validity, order })
    }
}

/// The groups of one device, and perhaps a release for it alone: the payload of a COSE_Sign1 by a campaign
/// key.
///
/// ```cddl
/// assignment = { 1: prefix: tstr, 2: device: tstr, 3: version: uint, 4: issued: uint, 5: expires: uint,
///     6: groups: [*8 tstr], 7: root: uint, ? 8: order }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The prefix of the topics it is for.
    pub prefix: Prefix,
    /// The device it is for.
    pub device: DeviceId,
    /// Version and life time.
    pub validity: Validity,
    /// The device's groups, each once.
    pub groups: Vec<GroupName>,
    /// Version of the root that is current.
    pub root: u64,
    /// A release for this device alone, which beats those of its groups.
    pub order: Option<Order>,
}

impl Assignment {
    /// The payload to sign.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(7 + usize::from(self.order.is_some()));
        write_prefix(&mut writer, &self.prefix);
        writer.int(SCOPE).text(self.device.as_str());
        write_validity(&mut writer, &self.validity);
        writer.int(BODY).array(self.groups.len());
        self.groups.iter().for_each(|group| {
            writer.text(group.as_str());
        });
        writer.int(ROOT).uint(self.root);
        if let Some(order) = &self.order {
            writer.int(ORDER);
            order.write(&mut writer);
        }
        writer.into_bytes()
    }

    /// Reads a payload whose signature was verified.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new("assignment", payload, SIGNED_BYTES_MAX)?;
        let map = &mut reader.map("assignment", 8)?;
        let prefix = read_prefix(map, reader)?;
        map.expect(reader, SCOPE)?;
        let device = read_device(reader)?;
        let validity = read_validity(map, reader)?;
        map.expect(reader, BODY)?;
        let count = reader.array("groups", GROUPS_MAX)?;
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            let group = read_group(reader)?;
            if groups.contains(&group) {
                return Err(DecodeError::value("groups"));
            }
            groups.push(group);
        }
        map.expect(reader, ROOT)?;
        let root = reader.uint("root version")?;
        let order = if map.optional(reader, ORDER)? { Some(Order::read(reader)?) } else { None };
        map.finish(reader)?;
        reader.finish()?;
        Ok(Self { prefix, device, validity, groups, root, order })
    }
}

/// Says what is current, for everybody: the payload of a COSE_Sign1 by a beacon key.
///
/// ```cddl
/// beacon = { 1: prefix: tstr, 3: version: uint, 4: issued: uint, 5: expires: uint,
///     6: groups: [*256 [group: bstr .size 8, version: uint]], 7: root: uint }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The prefix of the topics it is for.
    pub prefix: Prefix,
    /// Version and life time; issued is the service's clock.
    pub validity: Validity,
    /// Hash of each group's name ([`group_hash`]) and the version of its campaign.
    pub groups: Vec<(ShortDigest, u64)>,
    /// Version of the root that is current.
    pub root: u64,
}

/// The name of a group in a beacon: the first 8 bytes of the SHA-256 of its name.
#[must_use]
pub fn group_hash(group: &GroupName) -> ShortDigest {
    Digest::of(group.as_str().as_bytes()).short()
}

impl Beacon {
    /// The payload to sign.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(6);
        write_prefix(&mut writer, &self.prefix);
        write_validity(&mut writer, &self.validity);
        writer.int(BODY).array(self.groups.len());
        for (group, version) in &self.groups {
            writer.array(2).bytes(&group.0).uint(*version);
        }
        writer.int(ROOT).uint(self.root);
        writer.into_bytes()
    }

    /// Reads a payload whose signature was verified.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new("beacon", payload, SIGNED_BYTES_MAX)?;
        let map = &mut reader.map("beacon", 6)?;
        let prefix = read_prefix(map, reader)?;
        let validity = read_validity(map, reader)?;
        map.expect(reader, BODY)?;
        let count = reader.array("groups", BEACON_GROUPS_MAX)?;
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            reader.array_of("group version", 2)?;
            groups.push((ShortDigest(reader.byte_array("group hash")?), reader.uint("group version")?));
        }
        map.expect(reader, ROOT)?;
        let root = reader.uint("root version")?;
        map.finish(reader)?;
        reader.finish()?;
        Ok(Self { prefix, validity, groups, root })
    }
}
