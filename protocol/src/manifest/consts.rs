//! The numbers of the SUIT documents, each group with its source.
//!
//! They are separated by document, because those of update management are not registered yet and may change.
//! Old numbers (install was 17, process-dependency 18) are left out, so that nobody uses them by accident.

/// The envelope's tag (draft-ietf-suit-manifest-37 section 8.2).
pub const TAG_ENVELOPE: u64 = 107;

/// Keys of the envelope (section 8.2). Those of severed members equal their keys in the manifest.
pub mod envelope {
    /// The digest of the manifest and what authenticates it.
    pub const AUTHENTICATION: i64 = 2;
    /// The manifest.
    pub const MANIFEST: i64 = 3;
}

/// Keys of the manifest (section 8.4).
pub mod manifest {
    /// Version of the encoding.
    pub const VERSION: i64 = 1;
    /// Sequence number.
    pub const SEQUENCE_NUMBER: i64 = 2;
    /// What all sections share.
    pub const COMMON: i64 = 3;
    /// The URI of the full manifest.
    pub const REFERENCE_URI: i64 = 4;
    /// Commands that check the installed image.
    pub const VALIDATE: i64 = 7;
    /// Commands that load it.
    pub const LOAD: i64 = 8;
    /// Commands that start it.
    pub const INVOKE: i64 = 9;
    /// Commands that fetch payloads.
    pub const PAYLOAD_FETCH: i64 = 16;
    /// Commands that install.
    pub const INSTALL: i64 = 20;
    /// Text for people.
    pub const TEXT: i64 = 23;
}

/// Keys of the common part (section 8.4.5).
pub mod common {
    /// The components.
    pub const COMPONENTS: i64 = 2;
    /// The commands that run before every section.
    pub const SHARED_SEQUENCE: i64 = 4;
}

/// Commands (section 8.4.9 and 8.4.10).
pub mod command {
    /// Condition: vendor identifier.
    pub const VENDOR_IDENTIFIER: i64 = 1;
    /// Condition: class identifier.
    pub const CLASS_IDENTIFIER: i64 = 2;
    /// Condition: image match.
    pub const IMAGE_MATCH: i64 = 3;
    /// Condition: component slot.
    pub const COMPONENT_SLOT: i64 = 5;
    /// Condition: check content.
    pub const CHECK_CONTENT: i64 = 6;
    /// Directive: set component index.
    pub const SET_COMPONENT_INDEX: i64 = 12;
    /// Condition: abort.
    pub const ABORT: i64 = 14;
    /// Directive: try each.
    pub const TRY_EACH: i64 = 15;
    /// Directive: write.
    pub const WRITE: i64 = 18;
    /// Directive: override parameters.
    pub const OVERRIDE_PARAMETERS: i64 = 20;
    /// Directive: fetch.
    pub const FETCH: i64 = 21;
    /// Directive: copy.
    pub const COPY: i64 = 22;
    /// Directive: invoke.
    pub const INVOKE: i64 = 23;
    /// Condition: device identifier.
    pub const DEVICE_IDENTIFIER: i64 = 24;
    /// Directive: swap.
    pub const SWAP: i64 = 31;
    /// Directive: run sequence.
    pub const RUN_SEQUENCE: i64 = 32;
}

/// Parameters (section 8.4.8).
pub mod parameter {
    /// Vendor id.
    pub const VENDOR_ID: i64 = 1;
    /// Class id.
    pub const CLASS_ID: i64 = 2;
    /// Image digest.
    pub const IMAGE_DIGEST: i64 = 3;
    /// Component slot.
    pub const COMPONENT_SLOT: i64 = 5;
    /// Strict order.
    pub const STRICT_ORDER: i64 = 12;
    /// Soft failure.
    pub const SOFT_FAILURE: i64 = 13;
    /// Image size.
    pub const IMAGE_SIZE: i64 = 14;
    /// Content.
    pub const CONTENT: i64 = 18;
    /// URI.
    pub const URI: i64 = 21;
    /// Source component.
    pub const SOURCE_COMPONENT: i64 = 22;
    /// Invoke arguments.
    pub const INVOKE_ARGUMENTS: i64 = 23;
    /// Device id.
    pub const DEVICE_ID: i64 = 24;
    /// Fetch arguments; in the CDDL of -37, missing in its IANA table.
    pub const FETCH_ARGUMENTS: i64 = 25;
}

/// Labels below this are custom commands and custom parameters (section 11; the prose and the tables
/// differ by one, so that -256 itself is not used).
pub const CUSTOM_BELOW: i64 = -256;

/// Digest algorithms (section 10, IANA "COSE Algorithms").
pub mod digest {
    /// SHA-256, the only one taken here.
    pub const SHA_256: i64 = -16;
    /// SHAKE128.
    pub const SHAKE_128: i64 = -18;
    /// SHA-384.
    pub const SHA_384: i64 = -43;
    /// SHA-512.
    pub const SHA_512: i64 = -44;
    /// SHAKE256.
    pub const SHAKE_256: i64 = -45;
}

/// Keys of the text (section 8.4.4).
pub mod text {
    /// Highest key of the texts about the manifest.
    pub const MANIFEST_MAX: i64 = 4;
    /// Description of the manifest.
    pub const MANIFEST_DESCRIPTION: i64 = 1;
    /// Description of the update.
    pub const UPDATE_DESCRIPTION: i64 = 2;
    /// Highest key of the texts about a component; 7 and 8 are update management's.
    pub const COMPONENT_MAX: i64 = 8;
    /// The vendor's domain, of which the vendor id was made.
    pub const VENDOR_DOMAIN: i64 = 3;
    /// The class's name, of which the class id was made.
    pub const MODEL_INFO: i64 = 4;
    /// Version of the component, for people.
    pub const COMPONENT_VERSION: i64 = 6;
}

/// Numbers of draft-ietf-suit-trust-domains-12 (registered). All are outside our profile.
pub mod trust_domains {
    /// Manifest key: id of the manifest as a component.
    pub const MANIFEST_COMPONENT_ID: i64 = 5;
    /// Manifest key: commands that find dependencies.
    pub const DEPENDENCY_RESOLUTION: i64 = 15;
    /// Manifest key: commands that verify a candidate.
    pub const CANDIDATE_VERIFICATION: i64 = 18;
    /// Manifest key: commands that uninstall.
    pub const UNINSTALL: i64 = 24;
    /// Common key: dependencies.
    pub const DEPENDENCIES: i64 = 1;
    /// Condition: dependency integrity.
    pub const DEPENDENCY_INTEGRITY: i64 = 7;
    /// Condition: is dependency.
    pub const IS_DEPENDENCY: i64 = 8;
    /// Directive: process dependency.
    pub const PROCESS_DEPENDENCY: i64 = 11;
    /// Directive: set parameters.
    pub const SET_PARAMETERS: i64 = 19;
    /// Directive: unlink.
    pub const UNLINK: i64 = 33;
}

/// Numbers of draft-ietf-suit-update-management-14 (not registered yet).
pub mod update_management {
    /// Manifest key: set version.
    pub const SET_VERSION: i64 = 6;
    /// Manifest key: concise software identity.
    pub const COSWID: i64 = 14;
    /// Condition: use before.
    pub const USE_BEFORE: i64 = 4;
    /// Condition: image not match.
    pub const IMAGE_NOT_MATCH: i64 = 25;
    /// Condition: minimum battery.
    pub const MINIMUM_BATTERY: i64 = 26;
    /// Condition: update authorized.
    pub const UPDATE_AUTHORIZED: i64 = 27;
    /// Condition: version.
    pub const VERSION: i64 = 28;
    /// Directive: wait.
    pub const WAIT: i64 = 29;
    /// Directive: override multiple.
    pub const OVERRIDE_MULTIPLE: i64 = 34;
    /// Directive: copy parameters.
    pub const COPY_PARAMETERS: i64 = 35;
    /// Parameter: use before.
    pub const PARAMETER_USE_BEFORE: i64 = 4;
    /// Parameter: minimum battery.
    pub const PARAMETER_MINIMUM_BATTERY: i64 = 26;
    /// Parameter: update priority.
    pub const PARAMETER_UPDATE_PRIORITY: i64 = 27;
    /// Parameter: version.
    pub const PARAMETER_VERSION: i64 = 28;
    /// Parameter: wait info.
    pub const PARAMETER_WAIT_INFO: i64 = 29;
    /// Parameter: component metadata.
    pub const PARAMETER_COMPONENT_METADATA: i64 = 30;
    /// Smallest integer of a version: -3 alpha, -2 beta, -1 release candidate.
    pub const VERSION_PART_MIN: i64 = -3;
}

/// Parameter 19 of draft-ietf-suit-firmware-encryption-26: encryption info.
pub const PARAMETER_ENCRYPTION_INFO: i64 = 19;

/// What a command does, in the drafts' words; `custom` or `unknown` if there is none.
#[must_use]
pub const fn command_name(label: i64) -> &'static str {
    match label {
        command::VENDOR_IDENTIFIER => "vendor identifier",
        command::CLASS_IDENTIFIER => "class identifier",
        command::IMAGE_MATCH => "image match",
        command::COMPONENT_SLOT => "component slot",
        command::CHECK_CONTENT => "check content",
        command::SET_COMPONENT_INDEX => "set component index",
        command::ABORT => "abort",
        command::TRY_EACH => "try each",
        command::WRITE => "write",
        command::OVERRIDE_PARAMETERS => "override parameters",
        command::FETCH => "fetch",
        command::COPY => "copy",
        command::INVOKE => "invoke",
        command::DEVICE_IDENTIFIER => "device identifier",
        command::SWAP => "swap",
        command::RUN_SEQUENCE => "run sequence",
        trust_domains::DEPENDENCY_INTEGRITY => "dependency integrity",
        trust_domains::IS_DEPENDENCY => "is dependency",
        trust_domains::PROCESS_DEPENDENCY => "process dependency",
        trust_domains::SET_PARAMETERS => "set parameters",
        trust_domains::UNLINK => "unlink",
        update_management::USE_BEFORE => "use before",
        update_management::IMAGE_NOT_MATCH => "image not match",
        update_management::MINIMUM_BATTERY => "minimum battery",
        update_management::UPDATE_AUTHORIZED => "update authorized",
        update_management::VERSION => "version",
        update_management::WAIT => "wait",
        update_management::OVERRIDE_MULTIPLE => "override multiple",
        update_management::COPY_PARAMETERS => "copy parameters",
        custom if custom < CUSTOM_BELOW => "custom",
        _ => "unknown",
    }
}

/// What a parameter is, in the drafts' words; `custom` or `unknown` if there is none.
#[must_use]
pub const fn parameter_name(label: i64) -> &'static str {
    match label {
        parameter::VENDOR_ID => "vendor id",
        parameter::CLASS_ID => "class id",
        parameter::IMAGE_DIGEST => "image digest",
        parameter::COMPONENT_SLOT => "component slot",
        parameter::STRICT_ORDER => "strict order",
        parameter::SOFT_FAILURE => "soft failure",
        parameter::IMAGE_SIZE => "image size",
        parameter::CONTENT => "content",
        PARAMETER_ENCRYPTION_INFO => "encryption info",
        parameter::URI => "URI",
        parameter::SOURCE_COMPONENT => "source component",
        parameter::INVOKE_ARGUMENTS => "invoke arguments",
        parameter::DEVICE_ID => "device id",
        parameter::FETCH_ARGUMENTS => "fetch arguments",
        update_management::PARAMETER_USE_BEFORE => "use before",
        update_management::PARAMETER_MINIMUM_BATTERY => "minimum battery",
        update_management::PARAMETER_UPDATE_PRIORITY => "update priority",
        update_management::PARAMETER_VERSION => "version",
        update_management::PARAMETER_WAIT_INFO => "wait info",
        update_management::PARAMETER_COMPONENT_METADATA => "component metadata",
        custom if custom < CUSTOM_BELOW => "custom",
        _ => "unknown",
    }
}

/// The name of a digest algorithm, for the refusal of all but one.
#[must_use]
pub const fn digest_name(alg: i64) -> &'static str {
    match alg {
        digest::SHA_256 => "SHA-256",
        digest::SHAKE_128 => "SHAKE128",
        digest::SHA_384 => "SHA-384",
        digest::SHA_512 => "SHA-512",
        digest::SHAKE_256 => "SHAKE256",
        _ => "unknown",
    }
}
