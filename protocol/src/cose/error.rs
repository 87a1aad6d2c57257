//! Why a signature does not count.

use crate::codec::DecodeError;
use crate::errors::refusals;

refusals! {
    /// Why a signed object is not authentic.
    pub enum SignatureError {
        /// The bytes are not a COSE object of our profile.
        ("signed object is malformed: {0}")
        Malformed(#[source] DecodeError),
        /// The algorithm is not one that is accepted here, or not the key's.
        ("signature algorithm {alg} is not accepted here")
        Algorithm = algorithm {
            /// COSE algorithm number.
            alg: i64,
        },
        /// The object is of another kind than the one expected here.
        ("signed object is of kind {got:?}, {want} is required")
        Kind = kind {
            /// Version and kind found; none if the object does not say.
            got: Option<u8>,
            /// Version and kind required; 0 for an object that is none of ours.
            want: u8,
        },
        /// The payload is detached although it must be attached, or the other way round.
        ("signed object must have its payload {}", if *.attached { "attached" } else { "detached" })
        Payload = payload_attached {
            /// Whether it must be attached.
            attached: bool,
        },
        /// The unprotected header of what a device signs has something in it.
        ("unprotected header of what a device signs must be empty")
        Unprotected,
        /// No key that may sign this matches.
        ("signed by a key that may not sign this")
        UnknownKey,
        /// The signature does not match the bytes.
        ("signature does not match")
        Mismatch,
        /// Fewer distinct keys signed than the role requires.
        ("{got} of {want} required keys signed")
        Threshold = threshold {
            /// Distinct keys with a valid signature.
            got: usize,
            /// Keys required.
            want: usize,
        },
    }
}

impl From<DecodeError> for SignatureError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}
