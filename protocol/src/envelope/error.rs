//! Why an envelope is not trusted.

use crate::codec::DecodeError;
use crate::cose::SignatureError;
use crate::errors::refusals;
use crate::manifest::ManifestError;

refusals! {
    /// Why an envelope is refused. It is always the fault of its sender.
    pub enum VerifyError {
        /// The bytes are not an envelope.
        ("envelope is malformed: {0}")
        Malformed(DecodeError),
        /// The digest that was signed is not the manifest's.
        ("manifest does not match the digest in the authentication block")
        Digest,
        /// Nobody signed.
        ("envelope carries no signature")
        Unsigned,
        /// The signatures do not count.
        ("envelope is not authentic: {0}")
        Unauthentic(#[source] SignatureError),
        /// The manifest or a severed member is not as it must be, although it was signed.
        ("{0}")
        Manifest(ManifestError),
        /// The envelope carries a payload that the manifest does not name.
        ("envelope carries a payload that the manifest does not name")
        PayloadUnlisted,
        /// The envelope would have more signatures or more bytes than it may.
        ("envelope would have {what} {got}, at most {limit} is allowed")
        Full = full {
            /// Which maximum.
            what: &'static str,
            /// How many there would be.
            got: usize,
            /// Most that is allowed.
            limit: usize,
        },
    }
}

impl From<DecodeError> for VerifyError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<SignatureError> for VerifyError {
    fn from(error: SignatureError) -> Self {
        Self::Unauthentic(error)
    }
}

impl From<ManifestError> for VerifyError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}
