//! Why a root is not trusted.

use thiserror::Error;

use super::Role;
use crate::codec::DecodeError;
use crate::cose::SignatureError;
use crate::ids::KeyId;

/// Why `root.cbor` is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TrustError {
    /// The bytes are not a root.
    #[error("root is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// Its signatures do not count.
    #[error("root is not authentic: {0}")]
    Unauthentic(#[from] SignatureError),
    /// A key stands in two roles, or twice in one.
    #[error("key {key} stands in more than one place")]
    KeyTwice {
        /// Its id.
        key: KeyId,
    },
    /// A role names a key that the root does not list.
    #[error("role {role:?} names key {key}, which the root does not list")]
    KeyMissing {
        /// Which role.
        role: Role,
        /// The id.
        key: KeyId,
    },
    /// A key is listed and has no role.
    #[error("key {key} has no role")]
    KeyIdle {
        /// Its id.
        key: KeyId,
    },
    /// A role's threshold is 0, above its number of keys, or not 1 for an online role.
    #[error("role {role:?} has threshold {threshold} with {keys} keys")]
    Threshold {
        /// Which role.
        role: Role,
        /// The threshold.
        threshold: u64,
        /// The role's keys.
        keys: usize,
    },
}
