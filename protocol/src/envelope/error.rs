//! Why an envelope is not trusted.

use thiserror::Error;

use crate::codec::DecodeError;
use crate::cose::SignatureError;
use crate::manifest::{ManifestError, ReportReason};

/// Why an envelope is refused. It is always the fault of its sender.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum VerifyError {
    /// The bytes are not an envelope.
    #[error("envelope is malformed: {0}")]
    Malformed(DecodeError),
    /// The digest that was signed is not the manifest's.
    #[error("manifest does not match the digest in the authentication block")]
    Digest,
    /// Nobody signed.
    #[error("envelope carries no signature")]
    Unsigned,
    /// The signatures do not count.
    #[error("envelope is not authentic: {0}")]
    Unauthentic(#[from] SignatureError),
    /// The manifest or a severed member is not as it must be, although it was signed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The envelope carries a payload that the manifest does not name.
    #[error("envelope carries a payload that the manifest does not name")]
    PayloadUnlisted,
    /// The envelope would have more signatures or more bytes than it may.
    #[error("envelope would have {what} {got}, at most {limit} is allowed")]
    Full {
        /// Which maximum.
        what: &'static str,
        /// How many there would be.
        got: usize,
        /// Most that is allowed.
        limit: usize,
    },
}

impl From<DecodeError> for VerifyError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<VerifyError> for ReportReason {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Malformed(_) | VerifyError::Full { .. } => Self::CborParse,
            VerifyError::Digest | VerifyError::Unsigned => Self::Unauthorised,
            VerifyError::Unauthentic(error) => match error {
                SignatureError::Malformed(_) | SignatureError::Payload { .. } => Self::CoseUnsupported,
                SignatureError::Algorithm { .. } => Self::AlgorithmUnsupported,
                SignatureError::Kind { .. }
                | SignatureError::UnknownKey
                | SignatureError::Mismatch
                | SignatureError::Threshold { .. } => Self::Unauthorised,
            },
            VerifyError::Manifest(error) => error.into(),
            VerifyError::PayloadUnlisted => Self::SeveringUnsupported,
        }
    }
}
