//! The static walk: every command of every section is judged before the first one runs.
//!
//! An unknown command inside a try-each would otherwise quietly become "next alternative"; the drafts say that
//! it excludes the manifest. Three passes, so that the first complaint is the plainest: what is asked for at
//! all, where it stands, and whether every command has its input on every way that leads to it.
//!
//! The walk recurses into nested sequences, whose depth decoding has bounded.

use super::consts::command::{CHECK_CONTENT, COPY, DEVICE_IDENTIFIER, SWAP, WRITE};
use super::consts::parameter::{
    CLASS_ID, COMPONENT_SLOT, CONTENT, DEVICE_ID, FETCH_ARGUMENTS, IMAGE_DIGEST, IMAGE_SIZE,
    INVOKE_ARGUMENTS, SOURCE_COMPONENT, STRICT_ORDER, URI, VENDOR_ID,
};
use super::consts::{CUSTOM_BELOW, PARAMETER_ENCRYPTION_INFO, trust_domains, update_management};
use super::{
    Codec, Command, Condition, Feature, Index, Manifest, ManifestError, Parameter, Section, Sequence,
};

impl Manifest {
    /// Judges the whole manifest, with those severed members that are here.
    ///
    /// The authoring tool calls it before signing, the interpreter before running.
    ///
    /// # Errors
    /// [`ManifestError::Unknown`], [`ManifestError::NotExecuted`], [`ManifestError::NotInProfile`];
    /// [`ManifestError::Misplaced`], [`ManifestError::SoftFailureOutside`], [`ManifestError::IndexRange`];
    /// [`ManifestError::ParameterUnset`], [`ManifestError::SharedLacks`], [`ManifestError::NotValidated`].
    pub fn walk(&self) -> Result<(), ManifestError> {
        let content = self.content();
        // A severed section that was dropped can't run, so that there is nothing to judge.
        let sections = || {
            Section::ALL.into_iter().filter_map(|section| Some((section, content.section(section).ok()??)))
        };

        // 1. Everything asked for is known, in the profile, and executed.
        for (_, sequence) in sections() {
            check_features(sequence)?;
        }

        // 2. Everything stands where it may stand.
        let components = content.components.len();
        if components > 1 {
            return Err(ManifestError::NotExecuted { feature: Feature::Components(components) });
        }
        for (section, present) in [
            (Section::PayloadFetch, content.payload_fetch.is_some()),
            (Section::Load, content.load.is_some()),
        ] {
            if present {
                return Err(ManifestError::NotExecuted { feature: Feature::Member(section.key()) });
            }
        }
        for (section, sequence) in sections() {
            check_places(section, sequence, components, Enclosed::No)?;
        }

        // 3. Every command has its input on every way to it, and nothing can be installed unchecked.
        let mut shared = Facts::default();
        for (section, sequence) in sections() {
            let before = if section == Section::Shared { Facts::default() } else { shared };
            let after = follow(section, sequence, before)?.facts.unwrap_or_default();
            match section {
                Section::Shared => {
                    for condition in [Condition::VendorIdentifier, Condition::ClassIdentifier] {
                        if !after.has(Facts::checked(condition)) {
                            return Err(ManifestError::SharedLacks { command: condition.label() });
                        }
                    }
                    shared = after;
                }
                Section::Validate if !after.has(Facts::checked(Condition::ImageMatch)) => {
                    return Err(ManifestError::NotValidated);
                }
                _ => {}
            }
        }
        if content.validate.is_none() { Err(ManifestError::NotValidated) } else { Ok(()) }
    }
}

/// Pass 1.
fn check_features(sequence: &Sequence) -> Result<(), ManifestError> {
    for command in &sequence.0 {
        match command {
            Command::Condition(..) | Command::Fetch(_) | Command::Invoke(_) => {}
            Command::SetComponentIndex(Index::List(_)) => {
                return Err(ManifestError::NotInProfile { feature: Feature::IndexList });
            }
            Command::SetComponentIndex(Index::One(_) | Index::All) => {}
            Command::TryEach { branches, .. } => branches.iter().try_for_each(check_features)?,
            Command::RunSequence(nested) => check_features(nested)?,
            Command::OverrideParameters(parameters) => parameters.iter().try_for_each(check_parameter)?,
            Command::Other(label, _) => return Err(judge_command(*label)),
        }
    }
    Ok(())
}

fn check_parameter(parameter: &Parameter) -> Result<(), ManifestError> {
    match parameter {
        Parameter::FetchArguments(transfer) if transfer.codec == Codec::Patch => {
            Err(ManifestError::NotExecuted { feature: Feature::PatchCodec })
        }
        Parameter::Uri(uri) if uri.starts_with('#') => {
            Err(ManifestError::NotExecuted { feature: Feature::IntegratedPayload })
        }
        Parameter::Other(label, _) => Err(judge_parameter(*label)),
        _ => Ok(()),
    }
}

/// Why a command that has no variant of its own is refused.
fn judge_command(label: i64) -> ManifestError {
    let feature = Feature::Command(label);
    match label {
        CHECK_CONTENT
        | WRITE
        | COPY
        | DEVICE_IDENTIFIER
        | update_management::USE_BEFORE
        | update_management::MINIMUM_BATTERY
        | update_management::UPDATE_AUTHORIZED
        | update_management::VERSION
        | update_management::WAIT => ManifestError::NotExecuted { feature },
        SWAP
        | trust_domains::DEPENDENCY_INTEGRITY
        | trust_domains::IS_DEPENDENCY
        | trust_domains::PROCESS_DEPENDENCY
        | trust_domains::SET_PARAMETERS
        | trust_domains::UNLINK
        | update_management::OVERRIDE_MULTIPLE
        | update_management::COPY_PARAMETERS => ManifestError::NotInProfile { feature },
        custom if custom < CUSTOM_BELOW => ManifestError::NotInProfile { feature },
        _ => ManifestError::Unknown { feature },
    }
}

/// Why a parameter that has no variant of its own is refused.
fn judge_parameter(label: i64) -> ManifestError {
    let feature = Feature::Parameter(label);
    match label {
        STRICT_ORDER
        | CONTENT
        | PARAMETER_ENCRYPTION_INFO
        | SOURCE_COMPONENT
        | DEVICE_ID
        | update_management::PARAMETER_USE_BEFORE
        | update_management::PARAMETER_MINIMUM_BATTERY
        | update_management::PARAMETER_UPDATE_PRIORITY
        | update_management::PARAMETER_VERSION
        | update_management::PARAMETER_WAIT_INFO => ManifestError::NotExecuted { feature },
        // A vendor id that is a private enterprise number and not a UUID.
        VENDOR_ID | INVOKE_ARGUMENTS | update_management::PARAMETER_COMPONENT_METADATA => {
            ManifestError::NotInProfile { feature }
        }
        custom if custom < CUSTOM_BELOW => ManifestError::NotInProfile { feature },
        _ => ManifestError::Unknown { feature },
    }
}

/// Whether a sequence is an argument of try-each or run-sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enclosed {
    No,
    Yes,
}

/// Pass 2.
fn check_places(
    section: Section,
    sequence: &Sequence,
    components: usize,
    enclosed: Enclosed,
) -> Result<(), ManifestError> {
    for command in &sequence.0 {
        let home = match command {
            Command::Fetch(_) => Some(Section::Install),
            Command::Invoke(_) => Some(Section::Invoke),
            _ => None,
        };
        if home.is_some_and(|home| home != section) {
            return Err(ManifestError::Misplaced { section, command: command.label() });
        }
        match command {
            Command::SetComponentIndex(Index::One(index)) if *index >= components as u64 => {
                return Err(ManifestError::IndexRange { index: *index, components });
            }
            Command::OverrideParameters(parameters)
                if enclosed == Enclosed::No
                    && parameters.iter().any(|parameter| matches!(parameter, Parameter::SoftFailure(_))) =>
            {
                return Err(ManifestError::SoftFailureOutside { section });
            }
            Command::TryEach { branches, .. } => {
                for branch in branches {
                    check_places(section, branch, components, Enclosed::Yes)?;
                }
            }
            Command::RunSequence(nested) => check_places(section, nested, components, Enclosed::Yes)?,
            _ => {}
        }
    }
    Ok(())
}

/// What holds on every way to a point: parameters that are set, conditions that were checked. Only grows.
#[derive(Clone, Copy, Default)]
struct Facts(u64);

impl Facts {
    /// Parameter labels are below 32 for everything that pass 1 let through.
    const fn set(parameter: i64) -> u64 {
        1 << (parameter & 31)
    }

    const fn checked(condition: Condition) -> u64 {
        match condition {
            Condition::VendorIdentifier => 1 << 32,
            Condition::ClassIdentifier => 1 << 33,
            Condition::ImageMatch => 1 << 34,
            Condition::ComponentSlot | Condition::Abort | Condition::ImageNotMatch => 0,
        }
    }

    const fn has(self, fact: u64) -> bool {
        self.0 & fact == fact
    }

    fn add(&mut self, fact: u64) {
        self.0 |= fact;
    }
}

/// What is known where a sequence has succeeded.
struct Followed {
    /// `None` where it never succeeds.
    facts: Option<Facts>,
    /// Whether a failed condition may end it early and still count as success of a run-sequence.
    soft: bool,
}

/// Pass 3: follows every way through a sequence.
///
/// Failed branches take nothing back, so that what held before a branch still holds after it.
fn follow(section: Section, sequence: &Sequence, before: Facts) -> Result<Followed, ManifestError> {
    let mut facts = before;
    let mut soft = false;
    for command in &sequence.0 {
        for parameter in inputs(command) {
            if !facts.has(Facts::set(*parameter)) {
                return Err(ManifestError::ParameterUnset {
                    section,
                    command: command.label(),
                    parameter: *parameter,
                });
            }
        }
        match command {
            Command::Condition(Condition::Abort, _) => return Ok(Followed { facts: None, soft }),
            Command::Condition(condition, _) => facts.add(Facts::checked(*condition)),
            Command::OverrideParameters(parameters) => {
                for parameter in parameters {
                    facts.add(Facts::set(parameter.label()));
                    soft |= matches!(parameter, Parameter::SoftFailure(true));
                }
            }
            Command::TryEach { branches, or_nothing } => {
                let mut joined = or_nothing.then_some(facts);
                for branch in branches {
                    let branch = follow(section, branch, facts)?.facts;
                    joined = match (joined, branch) {
                        (Some(one), Some(other)) => Some(Facts(one.0 & other.0)),
                        (one, other) => one.or(other),
                    };
                }
                match joined {
                    Some(joined) => facts = joined,
                    None => return Ok(Followed { facts: None, soft }),
                }
            }
            Command::RunSequence(nested) => {
                let nested = follow(section, nested, facts)?;
                match nested.facts {
                    _ if nested.soft => {}
                    Some(after) => facts = after,
                    None => return Ok(Followed { facts: None, soft }),
                }
            }
            Command::SetComponentIndex(_) | Command::Fetch(_) | Command::Invoke(_) | Command::Other(..) => {}
        }
    }
    Ok(Followed { facts: Some(facts), soft })
}

/// The parameters that a command takes.
const fn inputs(command: &Command) -> &'static [i64] {
    match command {
        Command::Condition(Condition::VendorIdentifier, _) => &[VENDOR_ID],
        Command::Condition(Condition::ClassIdentifier, _) => &[CLASS_ID],
        Command::Condition(Condition::ImageMatch | Condition::ImageNotMatch, _) => {
            &[IMAGE_DIGEST, IMAGE_SIZE]
        }
        Command::Condition(Condition::ComponentSlot, _) => &[COMPONENT_SLOT],
        Command::Fetch(_) => &[IMAGE_DIGEST, IMAGE_SIZE, URI, FETCH_ARGUMENTS],
        _ => &[],
    }
}
