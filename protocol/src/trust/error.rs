//! Why a root is not trusted.

use super::Role;
use crate::codec::DecodeError;
use crate::cose::SignatureError;
use crate::errors::refusals;
use crate::ids::KeyId;

refusals! {
    /// Why `root.cbor` is refused.
    pub enum TrustError {
        /// The bytes are not a root.
        ("root is malformed: {0}")
        Malformed(#[source] DecodeError),
        /// Its signatures do not count.
        ("root is not authentic: {0}")
        Unauthentic(#[source] SignatureError),
        /// A key stands in two roles, or twice in one.
        ("key {key} stands in more than one place")
        KeyTwice = key_twice {
            /// Its id.
            key: KeyId,
        },
        /// A role names a key that the root does not list.
        ("role {role:?} names key {key}, which the root does not list")
        KeyMissing = key_missing {
            /// Which role.
            role: Role,
            /// The id.
            key: KeyId,
        },
        /// A key is listed and has no role.
        ("key {key} has no role")
        KeyIdle = key_idle {
            /// Its id.
            key: KeyId,
        },
        /// A role's threshold is 0, above its number of keys, or not 1 for an online role.
        ("role {role:?} has threshold {threshold} with {keys} keys")
        Threshold = threshold {
            /// Which role.
            role: Role,
            /// The threshold.
            threshold: u64,
            /// The role's keys.
            keys: usize,
        },
    }
}

impl From<DecodeError> for TrustError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<SignatureError> for TrustError {
    fn from(error: SignatureError) -> Self {
        Self::Unauthentic(error)
    }
}
