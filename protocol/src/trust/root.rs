//! `root.cbor`: the keys and their roles.

use alloc::vec::Vec;

use super::TrustError;
use crate::codec::{DecodeError, Reader, Writer};
use crate::cose::{Kind, PublicKey, Sign1, SignatureError, Signatures, SignaturesWriter, SigningKey};
use crate::ids::KeyId;
use crate::limits::{ROLE_KEYS_MAX, ROOT_BYTES_MAX, ROOT_KEYS_MAX};
use crate::time::UnixTime;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The root itself; offline.
    Root = 1,
    /// SUIT envelopes; offline or in an HSM.
    Release = 2,
    /// Campaigns and assignments; online.
    Campaign = 3,
    /// Beacons and hello answers; online.
    Beacon = 4,
}

impl Role {
    /// Every role, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Root, Self::Release, Self::Campaign, Self::Beacon];

    /// The role's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Release => "release",
            Self::Campaign => "campaign",
            Self::Beacon => "beacon",
        }
    }

    /// Whether one signature of this role has to be enough, because its objects have room for only one.
    #[must_use]
    pub const fn is_online(self) -> bool {
        matches!(self, Self::Campaign | Self::Beacon)
    }
}

/// The keys of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleKeys {
    /// Distinct keys that must sign, at least 1.
    pub threshold: usize,
    /// Rises when the role's keys are replaced after a compromise. Then versions that were signed before do
    /// not count any more.
    pub epoch: u64,
    /// The keys.
    pub keys: Vec<PublicKey>,
}

/// The trust anchor: which keys may sign what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Version of this root, from 1.
    pub version: u64,
    /// When it was made.
    pub issued: UnixTime,
    /// When a new root should have been made. An expired root is reported, but still verifies releases.
    pub expires: UnixTime,
    /// The keys of each role, in the order of [`Role::ALL`].
    pub roles: [RoleKeys; 4],
}

const VERSION: i64 = 1;
const ISSUED: i64 = 2;
const EXPIRES: i64 = 3;
const KEYS: i64 = 4;
const ROLES: i64 = 5;

impl Root {
    /// The keys of `role`.
    #[must_use]
    pub fn role(&self, role: Role) -> &RoleKeys {
        let [root, release, campaign, beacon] = &self.roles;
        match role {
            Role::Root => root,
            Role::Release => release,
            Role::Campaign => campaign,
            Role::Beacon => beacon,
        }
    }

    /// Reads a root and checks that its own root keys signed it by their threshold.
    ///
    /// This is for bytes that were provisioned, or pinned before. It is not the check that lets a new version
    /// replace an old one.
    ///
    /// # Errors
    /// [`TrustError`] says what is wrong; nothing of a refused root is kept.
    pub fn verify(bytes: &[u8]) -> Result<Self, TrustError> {
        let signed = Signatures::decode(bytes)?;
        let root = Self::decode(signed.unverified_payload())?;
        let keys = root.role(Role::Root);
        let got = signed.count(Kind::Root, keys.keys.iter())?;
        if got < keys.threshold {
            return Err(SignatureError::threshold(got, keys.threshold).into());
        }
        Ok(root)
    }

    /// Encodes the root and signs it with `signers`.
    #[must_use]
    pub fn sign(&self, signers: &[&SigningKey]) -> Vec<u8> {
        let writer = SignaturesWriter::new(Kind::Root, self.encode());
        signers.iter().fold(writer, |writer, key| writer.sign(key)).into_bytes()
    }

    /// Verifies an object of ours that one key of `role` signed, and returns its payload.
    ///
    /// # Errors
    /// [`SignatureError`]; [`SignatureError::UnknownKey`] if no key of the role matches.
    pub fn verify_object<'b>(
        &self,
        role: Role,
        kind: Kind,
        object: &Sign1<'b>,
    ) -> Result<&'b [u8], SignatureError> {
        let hint = object.key_id();
        let candidates = self.role(role).keys.iter().filter(|key| hint.is_none_or(|id| id == key.id().0));
        let mut result = Err(SignatureError::UnknownKey);
        for key in candidates {
            result = object.verify_attached(kind, key);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// The payload of `root.cbor` (SPEC section 4.3).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let keys = || self.roles.iter().flat_map(|role| &role.keys);
        let mut writer = Writer::new();
        writer.map(5).int(VERSION).uint(self.version);
        writer.int(ISSUED).uint(self.issued.as_secs()).int(EXPIRES).uint(self.expires.as_secs());
        writer.int(KEYS).array(keys().count());
        keys().for_each(|key| key.encode(&mut writer));
        writer.int(ROLES).map(Role::ALL.len());
        for role in Role::ALL {
            let of_role = self.role(role);
            writer.uint(role as u64).array(3).uint(of_role.threshold as u64).uint(of_role.epoch);
            writer.array(of_role.keys.len());
            of_role.keys.iter().for_each(|key| {
                writer.bytes(&key.id().0);
            });
        }
        writer.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, TrustError> {
        let mut reader = Reader::new("root", bytes, ROOT_BYTES_MAX)?;
        let mut map = reader.map("root", 5)?;
        map.expect(&mut reader, VERSION)?;
        let version = reader.uint("root version")?;
        map.expect(&mut reader, ISSUED)?;
        let issued = UnixTime::from_secs(reader.uint("root issued")?);
        map.expect(&mut reader, EXPIRES)?;
        let expires = UnixTime::from_secs(reader.uint("root expires")?);
        map.expect(&mut reader, KEYS)?;
        let keys = read_keys(&mut reader)?;
        map.expect(&mut reader, ROLES)?;
        let roles = read_roles(&mut reader)?;
        map.finish(&mut reader)?;
        reader.finish()?;
        if version == 0 {
            return Err(DecodeError::value("root version").into());
        }
        Ok(Self { version, issued, expires, roles: bind(keys, roles)? })
    }
}

/// A role as the root's bytes have it: with key ids instead of keys.
struct NamedRole {
    threshold: u64,
    epoch: u64,
    ids: Vec<KeyId>,
}

fn read_keys(reader: &mut Reader<'_>) -> Result<Vec<PublicKey>, DecodeError> {
    reader.list("root keys", ROOT_KEYS_MAX, PublicKey::decode)
}

fn read_roles<'b>(reader: &mut Reader<'b>) -> Result<[NamedRole; 4], DecodeError> {
    let mut map = reader.map("roles", Role::ALL.len())?;
    let mut read = |reader: &mut Reader<'b>, role: Role| {
        map.expect(reader, role as i64)?;
        reader.array_of("role", 3)?;
        let threshold = reader.uint("threshold")?;
        let epoch = reader.uint("epoch")?;
        let ids = reader.list("role keys", ROLE_KEYS_MAX, |reader| reader.byte_array("key id").map(KeyId))?;
        Ok(NamedRole { threshold, epoch, ids })
    };
    Ok([
        read(reader, Role::Root)?,
        read(reader, Role::Release)?,
        read(reader, Role::Campaign)?,
        read(reader, Role::Beacon)?,
    ])
}

/// Binds each key to its one role.
fn bind(keys: Vec<PublicKey>, named: [NamedRole; 4]) -> Result<[RoleKeys; 4], TrustError> {
    let mut free: Vec<(KeyId, Option<PublicKey>)> = Vec::new();
    for key in keys {
        let id = key.id();
        if free.iter().any(|(other, _)| *other == id) {
            return Err(TrustError::key_twice(id));
        }
        free.push((id, Some(key)));
    }
    let mut take = |role: Role, named: &NamedRole| {
        let mut keys = Vec::new();
        for id in &named.ids {
            let (_, slot) =
                free.iter_mut().find(|(other, _)| other == id).ok_or(TrustError::key_missing(role, *id))?;
            keys.push(slot.take().ok_or(TrustError::key_twice(*id))?);
        }
        let most = if role.is_online() { 1 } else { keys.len() };
        match usize::try_from(named.threshold) {
            Ok(threshold) if (1..=most).contains(&threshold) && threshold <= keys.len() => {
                Ok(RoleKeys { threshold, epoch: named.epoch, keys })
            }
            _ => Err(TrustError::threshold(role, named.threshold, keys.len())),
        }
    };
    let [root, release, campaign, beacon] = &named;
    let roles = [
        take(Role::Root, root)?,
        take(Role::Release, release)?,
        take(Role::Campaign, campaign)?,
        take(Role::Beacon, beacon)?,
    ];
    match free.iter().find(|(_, key)| key.is_some()) {
        Some((id, _)) => Err(TrustError::key_idle(*id)),
        None => Ok(roles),
    }
}
