//! The reason that a SUIT report has for an error. Only errors with details can give it.

use super::{Feature, ManifestError, RunError};
use crate::codec::DecodeError;
use crate::cose::SignatureError;
use crate::envelope::VerifyError;

/// The reason in a SUIT report (draft-ietf-suit-report-22 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportReason {
    /// All went well.
    Ok = 0,
    /// The CBOR could not be parsed.
    CborParse = 1,
    /// A COSE structure or header is not supported.
    CoseUnsupported = 2,
    /// An algorithm is not supported.
    AlgorithmUnsupported = 3,
    /// Not signed by who may sign it.
    Unauthorised = 4,
    /// A command is not supported.
    CommandUnsupported = 5,
    /// A component is not supported.
    ComponentUnsupported = 6,
    /// The signer may not touch the component.
    ComponentUnauthorised = 7,
    /// A parameter is not supported.
    ParameterUnsupported = 8,
    /// Severing is not supported, or a severed member does not fit.
    SeveringUnsupported = 9,
    /// A condition did not hold.
    ConditionFailed = 10,
    /// A directive failed.
    OperationFailed = 11,
    /// Waiting to be invoked.
    InvokePending = 12,
}

impl From<DecodeError> for ReportReason {
    fn from(_: DecodeError) -> Self {
        Self::CborParse
    }
}

impl From<ManifestError> for ReportReason {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Malformed(error) => error.into(),
            ManifestError::Version { .. } => Self::CborParse,
            ManifestError::DigestAlgorithm { .. } => Self::AlgorithmUnsupported,
            ManifestError::Unknown { feature }
            | ManifestError::NotExecuted { feature }
            | ManifestError::NotInProfile { feature } => feature.into(),
            ManifestError::Misplaced { .. }
            | ManifestError::SharedLacks { .. }
            | ManifestError::NotValidated => Self::CommandUnsupported,
            ManifestError::IndexRange { .. }
            | ManifestError::IndexUnset { .. }
            | ManifestError::PatchBase { .. } => Self::ComponentUnsupported,
            ManifestError::OnlyRead { .. } => Self::ComponentUnauthorised,
            ManifestError::BaseUnmatched { .. } => Self::CommandUnsupported,
            ManifestError::SoftFailureOutside { .. } | ManifestError::ParameterUnset { .. } => {
                Self::ParameterUnsupported
            }
            ManifestError::MemberUnlisted { .. }
            | ManifestError::MemberMismatch { .. }
            | ManifestError::SectionMissing { .. } => Self::SeveringUnsupported,
        }
    }
}

impl From<Feature> for ReportReason {
    fn from(feature: Feature) -> Self {
        match feature {
            Feature::Command(_) | Feature::IntegratedPayload => Self::CommandUnsupported,
            Feature::Parameter(_) => Self::ParameterUnsupported,
            Feature::Member(_) => Self::CommandUnsupported,
            Feature::Components(_) | Feature::IndexAll | Feature::IndexList | Feature::Dependencies => {
                Self::ComponentUnsupported
            }
        }
    }
}

impl From<RunError> for ReportReason {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Condition { .. } => Self::ConditionFailed,
            RunError::Fetch { .. } | RunError::TransferSize { .. } => Self::OperationFailed,
            RunError::ParameterUnset { .. } => Self::ParameterUnsupported,
            RunError::NotExecuted { .. } | RunError::BaseUnmatched => Self::CommandUnsupported,
        }
    }
}

impl From<VerifyError> for ReportReason {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Malformed(_) | VerifyError::Full { .. } => Self::CborParse,
            VerifyError::Digest | VerifyError::Unsigned => Self::Unauthorised,
            VerifyError::Unauthentic(error) => match error {
                SignatureError::Malformed(_)
                | SignatureError::Payload { .. }
                | SignatureError::Unprotected => Self::CoseUnsupported,
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
