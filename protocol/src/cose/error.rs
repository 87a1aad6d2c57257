//! Why a signature does not count.

use thiserror::Error;

use crate::codec::DecodeError;

/// Why a signed object is not authentic.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// The bytes are not a COSE object of our profile.
    #[error("signed object is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The algorithm is not one that is accepted here, or not the key's.
    #[error("signature algorithm {alg} is not accepted here")]
    Algorithm {
        /// COSE algorithm number.
        alg: i64,
    },
    /// The object is of another kind than the one expected here.
    #[error("signed object is of kind {got:?}, {want} is required")]
    Kind {
        /// Version and kind found; none if the object does not say.
        got: Option<u8>,
        /// Version and kind required; 0 for an object that is none of ours.
        want: u8,
    },
    /// The payload is detached although it must be attached, or the other way round.
    #[error("signed object must have its payload {}", if *.attached { "attached" } else { "detached" })]
    Payload {
        /// Whether it must be attached.
        attached: bool,
    },
    /// No key that may sign this matches.
    #[error("signed by a key that may not sign this")]
    UnknownKey,
    /// The signature does not match the bytes.
    #[error("signature does not match")]
    Mismatch,
    /// Fewer distinct keys signed than the role requires.
    #[error("{got} of {want} required keys signed")]
    Threshold {
        /// Distinct keys with a valid signature.
        got: usize,
        /// Keys required.
        want: usize,
    },
}
