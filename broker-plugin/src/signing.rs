//! The keys that the service signs with, and the root that says they are the right ones.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;
use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::cose::{Kind, SigningKey, sign_attached};
use whimbrel_protocol::ids::KeyId;
use whimbrel_protocol::limits::ROOT_BYTES_MAX;
use whimbrel_protocol::message::{Assignment, Beacon, Campaign, HelloAnswer};
use whimbrel_protocol::trust::{Role, Root, TrustError};

use crate::fleet::Document;

/// The root and the two online keys.
#[derive(Debug)]
pub struct Authority {
    root: Root,
    campaign: Signer,
    beacon: Signer,
}

#[derive(Debug)]
struct Signer {
    key: SigningKey,
    /// Said if the role has several keys, so that devices need not try them all.
    id: Option<KeyId>,
}

/// Where root and keys are.
#[derive(Clone, Debug)]
pub struct AuthorityFiles {
    /// `root.cbor`.
    pub root: PathBuf,
    /// The campaign key, a COSE_Key file.
    pub campaign_key: PathBuf,
    /// The beacon key, a COSE_Key file.
    pub beacon_key: PathBuf,
}

/// Why the service can't sign. It does not start.
#[derive(Debug, Error)]
pub enum SigningError {
    /// A file can't be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The root is not one.
    #[error("{path} is no root of trust: {source}; `whimbrel init` makes one", path = .path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: TrustError,
    },
    /// The key file is not one.
    #[error("{path} is no private key: {source}; `whimbrel key new` makes one", path = .path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// The root does not give the key this role.
    #[error("{path} holds key {key}, and {root} does not name it as a {role} key: devices would refuse all it signs", path = .path.display(), root = .root.display())]
    Role {
        /// Which file.
        path: PathBuf,
        /// Id of the key.
        key: KeyId,
        /// The role.
        role: &'static str,
        /// The root's file.
        root: PathBuf,
    },
}

/// Most bytes of a key file that are looked at.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 1024;

impl Authority {
    /// Reads root and keys, and checks that the root gives each key its role.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn load(files: &AuthorityFiles) -> Result<Self, SigningError> {
        let path = &files.root;
        let root = Root::verify(&read(path, ROOT_BYTES_MAX as u64 + 1)?)
            .map_err(|source| SigningError::Root { path: path.clone(), source })?;
        Ok(Self {
            campaign: Signer::load(&files.campaign_key, Role::Campaign, &root, path)?,
            beacon: Signer::load(&files.beacon_key, Role::Beacon, &root, path)?,
            root,
        })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Signs what the fleet wants signed.
    #[must_use]
    pub fn sign(&self, document: &Document) -> Bytes {
        match document {
            Document::Campaign(campaign) => self.campaign(campaign),
            Document::Assignment(assignment) => self.assignment(assignment),
            Document::Beacon(beacon) => self.beacon(beacon),
        }
    }

    /// Signs the campaign of a group.
    #[must_use]
    pub fn campaign(&self, campaign: &Campaign) -> Bytes {
        self.campaign.sign(Kind::Campaign, &campaign.encode())
    }

    /// Signs the assignment of a device.
    #[must_use]
    pub fn assignment(&self, assignment: &Assignment) -> Bytes {
        self.campaign.sign(Kind::Assignment, &assignment.encode())
    }

    /// Signs a beacon.
    #[must_use]
    pub fn beacon(&self, beacon: &Beacon) -> Bytes {
        self.beacon.sign(Kind::Beacon, &beacon.encode())
    }

    /// Signs the answer to a hello.
    #[must_use]
    pub fn answer(&self, answer: &HelloAnswer) -> Bytes {
        self.beacon.sign(Kind::Answer, &answer.encode())
    }
}

impl Signer {
    fn load(path: &Path, role: Role, root: &Root, root_path: &Path) -> Result<Self, SigningError> {
        let key = SigningKey::decode_file(&read(path, KEY_FILE_BYTES_MAX)?)
            .map_err(|source| SigningError::Key { path: path.to_owned(), source })?;
        let public = key.public();
        let keys = &root.role(role).keys;
        if !keys.contains(&public) {
            return Err(SigningError::Role {
                path: path.to_owned(),
                key: public.id(),
                role: role.name(),
                root: root_path.to_owned(),
            });
        }
        warn_if_open(path);
        Ok(Self { id: (keys.len() > 1).then(|| public.id()), key })
    }

    fn sign(&self, kind: Kind, payload: &[u8]) -> Bytes {
        Bytes::from(sign_attached(&self.key, kind, self.id, payload))
    }
}

/// Says so if others than the owner may read a secret.
pub(crate) fn warn_if_open(path: &Path) {
    let open = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
    if open {
        warn_that_open(path);
    }
}

/// Says that others than the owner may read a secret.
pub(crate) fn warn_that_open(path: &Path) {
    tracing::warn!(path = %path.display(), "secret readable by others than its owner");
}

pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, SigningError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(SigningError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
