//! Errors: why a manifest is not run, or did not run to its end, and the reason that a SUIT report has for
//! it.

use core::fmt;

use thiserror::Error;

use super::Section;
use super::consts::{command_name, digest_name, parameter_name};
use crate::codec::DecodeError;

/// Something that a manifest may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A command, by its label.
    Command(i64),
    /// A parameter, by its label.
    Parameter(i64),
    /// A member of the manifest, by its key.
    Member(i64),
    /// More than one component.
    Components(usize),
    /// A list of component indices.
    IndexList,
    /// Dependencies on other manifests.
    Dependencies,
    /// One command for every one of several components.
    IndexAll,
    /// A payload inside the envelope.
    IntegratedPayload,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Command(label) => write!(f, "command {label} ({})", command_name(label)),
            Self::Parameter(label) => write!(f, "parameter {label} ({})", parameter_name(label)),
            Self::Member(key) => write!(f, "manifest member {key}"),
            Self::Components(count) => write!(f, "{count} components"),
            Self::IndexList => f.write_str("a list of component indices"),
            Self::Dependencies => f.write_str("dependencies"),
            Self::IndexAll => f.write_str("a command for every component"),
            Self::IntegratedPayload => f.write_str("a payload inside the envelope"),
        }
    }
}

/// Why a manifest is refused before anything of it runs.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ManifestError {
    /// The bytes are not a manifest.
    #[error("manifest is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// Another version of the encoding.
    #[error("manifest has encoding version {got}, 1 is required")]
    Version {
        /// Version found.
        got: u64,
    },
    /// A digest of another algorithm.
    #[error("digest algorithm {alg} ({}) is not SHA-256", digest_name(*.alg))]
    DigestAlgorithm {
        /// COSE algorithm number.
        alg: i64,
    },
    /// The drafts do not have this.
    #[error("{feature} is unknown")]
    Unknown {
        /// What it is.
        feature: Feature,
    },
    /// It is in our profile, but this version does not execute it. It is never skipped.
    #[error("{feature} is not executed by this version")]
    NotExecuted {
        /// What it is.
        feature: Feature,
    },
    /// The drafts have this, but our profile does not.
    #[error("{feature} is not in the profile")]
    NotInProfile {
        /// What it is.
        feature: Feature,
    },
    /// A command in a section where it must not stand.
    #[error("command {command} ({}) must not stand in {section}", command_name(*.command))]
    Misplaced {
        /// Which section.
        section: Section,
        /// The command's label.
        command: i64,
    },
    /// Soft failure is set although no try-each or run-sequence encloses the command.
    #[error("soft failure is set outside of try each and run sequence in {section}")]
    SoftFailureOutside {
        /// Which section.
        section: Section,
    },
    /// A component index beyond the last component.
    #[error("component index {index} with {components} components")]
    IndexRange {
        /// The index.
        index: u64,
        /// How many components there are.
        components: usize,
    },
    /// There is a way to this command on which no component was chosen. This occurs only with more than one
    /// component.
    #[error("no component is chosen for command {command} ({}) in {section}", command_name(*.command))]
    IndexUnset {
        /// Which section.
        section: Section,
        /// The command's label.
        command: i64,
    },
    /// A command for a component that is only read.
    #[error("command {command} ({}) in {section} is for component {component}, which is only read", command_name(*.command))]
    OnlyRead {
        /// Which section.
        section: Section,
        /// The command's label.
        command: i64,
        /// Index of the component.
        component: usize,
    },
    /// A patch starts from something else than the running image.
    #[error("a patch starts from component {component}, which is not the image that runs")]
    PatchBase {
        /// Index of the component.
        component: u8,
    },
    /// A patch may be fetched although its base was not compared with the running image.
    #[error("a patch is fetched in {section} where its base is not always matched")]
    BaseUnmatched {
        /// Which section.
        section: Section,
    },
    /// A command's input is not set on every way to it.
    #[error(
        "command {command} ({}) in {section} lacks parameter {parameter} ({})",
        command_name(*.command),
        parameter_name(*.parameter)
    )]
    ParameterUnset {
        /// Which section.
        section: Section,
        /// The command's label.
        command: i64,
        /// The parameter's label.
        parameter: i64,
    },
    /// The shared sequence can succeed without this condition.
    #[error("shared sequence does not always check command {command} ({})", command_name(*.command))]
    SharedLacks {
        /// The condition's label.
        command: i64,
    },
    /// The validation can succeed without an image match.
    #[error("validation does not always match the image")]
    NotValidated,
    /// The envelope carries a member that the manifest does not sever.
    #[error("envelope member {key} is not named by the manifest")]
    MemberUnlisted {
        /// Its key.
        key: i64,
    },
    /// A severed member does not match its digest.
    #[error("envelope member {key} does not match its digest in the manifest")]
    MemberMismatch {
        /// Its key.
        key: i64,
    },
    /// A severed section is needed and was dropped.
    #[error("{section} is severed and not in the envelope")]
    SectionMissing {
        /// Which section.
        section: Section,
    },
}

/// Why a manifest's procedure ended early. The same inputs always give the same result.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RunError {
    /// A condition did not hold, and the failure was not soft. In a try-each this is the condition of the
    /// last branch.
    #[error("condition {command} ({}) in {section} does not hold", command_name(*.command))]
    Condition {
        /// Which section.
        section: Section,
        /// The condition's label.
        command: i64,
    },
    /// A payload could not be fetched.
    #[error("fetch in {section} failed")]
    Fetch {
        /// Which section.
        section: Section,
    },
    /// A raw payload is not as long as its image.
    #[error("raw payload has {transfer_size} bytes, its image {image_size}")]
    TransferSize {
        /// Bytes of the payload.
        transfer_size: u64,
        /// Bytes of the image.
        image_size: u64,
    },
    /// A command's input is not set. The static walk excludes it.
    #[error("command {command} ({}) lacks parameter {parameter} ({})", command_name(*.command), parameter_name(*.parameter))]
    ParameterUnset {
        /// The command's label.
        command: i64,
        /// The parameter's label.
        parameter: i64,
    },
    /// A patch whose base was not matched. The static walk excludes it.
    #[error("a patch without a base that was matched")]
    BaseUnmatched,
    /// A command that this version does not execute. The static walk excludes it.
    #[error("command {command} ({}) is not executed by this version", command_name(*.command))]
    NotExecuted {
        /// The command's label.
        command: i64,
    },
}

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

impl ManifestError {
    /// Whether the fault is in the signed bytes. Severed members are not among these: they can be spoilt on
    /// the way, and fetched again.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        !matches!(
            self,
            Self::MemberUnlisted { .. } | Self::MemberMismatch { .. } | Self::SectionMissing { .. }
        )
    }
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
