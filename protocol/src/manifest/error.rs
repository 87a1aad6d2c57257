//! Errors: why a manifest is not run, or did not run to its end.

use core::fmt;

use super::Section;
use super::consts::{command_name, parameter_name};
use crate::codec::DecodeError;
use crate::errors::refusals;

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

refusals! {
    /// Why a manifest is refused before anything of it runs.
    pub enum ManifestError {
        /// The bytes are not a manifest.
        ("manifest is malformed: {0}")
        Malformed(#[source] DecodeError),
        /// Another version of the encoding.
        ("manifest has encoding version {got}, 1 is required")
        Version = version {
            /// Version found.
            got: u64,
        },
        /// A digest of another algorithm.
        ("digest algorithm {alg} ({}) is not SHA-256", super::consts::digest_name(*.alg))
        DigestAlgorithm = digest_algorithm {
            /// COSE algorithm number.
            alg: i64,
        },
        /// The drafts do not have this.
        ("{feature} is unknown")
        Unknown = unknown {
            /// What it is.
            feature: Feature,
        },
        /// It is in our profile, but this version does not execute it. It is never skipped.
        ("{feature} is not executed by this version")
        NotExecuted = not_executed {
            /// What it is.
            feature: Feature,
        },
        /// The drafts have this, but our profile does not.
        ("{feature} is not in the profile")
        NotInProfile = not_in_profile {
            /// What it is.
            feature: Feature,
        },
        /// A command in a section where it must not stand.
        ("command {command} ({}) must not stand in {section}", command_name(*.command))
        Misplaced = misplaced {
            /// Which section.
            section: Section,
            /// The command's label.
            command: i64,
        },
        /// Soft failure is set although no try-each or run-sequence encloses the command.
        ("soft failure is set outside of try each and run sequence in {section}")
        SoftFailureOutside = soft_failure_outside {
            /// Which section.
            section: Section,
        },
        /// A component index beyond the last component.
        ("component index {index} with {components} components")
        IndexRange = index_range {
            /// The index.
            index: u64,
            /// How many components there are.
            components: usize,
        },
        /// There is a way to this command on which no component was chosen. This occurs only with more than one
        /// component.
        ("no component is chosen for command {command} ({}) in {section}", command_name(*.command))
        IndexUnset = index_unset {
            /// Which section.
            section: Section,
            /// The command's label.
            command: i64,
        },
        /// A command for a component that is only read.
        ("command {command} ({}) in {section} is for component {component}, which is only read", command_name(*.command))
        OnlyRead = only_read {
            /// Which section.
            section: Section,
            /// The command's label.
            command: i64,
            /// Index of the component.
            component: usize,
        },
        /// A patch starts from something else than the running image.
        ("a patch starts from component {component}, which is not the image that runs")
        PatchBase = patch_base {
            /// Index of the component.
            component: u8,
        },
        /// A patch may be fetched although its base was not compared with the running image.
        ("a patch is fetched in {section} where its base is not always matched")
        BaseUnmatched = base_unmatched {
            /// Which section.
            section: Section,
        },
        /// A command's input is not set on every way to it.
        (
            "command {command} ({}) in {section} lacks parameter {parameter} ({})",
            command_name(*.command),
            parameter_name(*.parameter)
        )
        ParameterUnset = parameter_unset {
            /// Which section.
            section: Section,
            /// The command's label.
            command: i64,
            /// The parameter's label.
            parameter: i64,
        },
        /// The shared sequence can succeed without this condition.
        ("shared sequence does not always check command {command} ({})", command_name(*.command))
        SharedLacks = shared_lacks {
            /// The condition's label.
            command: i64,
        },
        /// The validation can succeed without an image match.
        ("validation does not always match the image")
        NotValidated,
        /// The envelope carries a member that the manifest does not sever.
        ("envelope member {key} is not named by the manifest")
        MemberUnlisted = member_unlisted {
            /// Its key.
            key: i64,
        },
        /// A severed member does not match its digest.
        ("envelope member {key} does not match its digest in the manifest")
        MemberMismatch = member_mismatch {
            /// Its key.
            key: i64,
        },
        /// A severed section is needed and was dropped.
        ("{section} is severed and not in the envelope")
        SectionMissing = section_missing {
            /// Which section.
            section: Section,
        },
    }
}

refusals! {
    /// Why a manifest's procedure ended early. The same inputs always give the same result.
    pub enum RunError {
        /// A condition did not hold, and the failure was not soft. In a try-each this is the condition of the
        /// last branch.
        ("condition {command} ({}) in {section} does not hold", command_name(*.command))
        Condition {
            /// Which section.
            section: Section,
            /// The condition's label.
            command: i64,
        },
        /// A payload could not be fetched.
        ("fetch in {section} failed")
        Fetch = fetch {
            /// Which section.
            section: Section,
        },
        /// A raw payload is not as long as its image.
        ("raw payload has {transfer_size} bytes, its image {image_size}")
        TransferSize = transfer_size {
            /// Bytes of the payload.
            transfer_size: u64,
            /// Bytes of the image.
            image_size: u64,
        },
        /// A command's input is not set. The static walk excludes it.
        ("command {command} ({}) lacks parameter {parameter} ({})", command_name(*.command), parameter_name(*.parameter))
        ParameterUnset = parameter_unset {
            /// The command's label.
            command: i64,
            /// The parameter's label.
            parameter: i64,
        },
        /// A patch whose base was not matched. The static walk excludes it.
        ("a patch without a base that was matched")
        BaseUnmatched,
        /// A command that this version does not execute. The static walk excludes it.
        ("command {command} ({}) is not executed by this version", command_name(*.command))
        NotExecuted = not_executed {
            /// The command's label.
            command: i64,
        },
    }
}

impl From<DecodeError> for ManifestError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
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
