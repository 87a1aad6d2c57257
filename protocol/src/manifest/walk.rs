//! The static walk checks every command of every section before the first one runs.
//!
//! Otherwise an unknown command inside a try-each would only make the next branch run, without a word. The drafts say
//! that a manifest with such a command must be refused. The walk makes three passes, so that the simplest error is
//! reported first: which commands there are, where they stand, and whether every command has its input on every way
//! that leads to it.
//!
//! The walk recurses into nested sequences. Decoding has bounded their depth.

use super::consts::command::{CHECK_CONTENT, COPY, DEVICE_IDENTIFIER, SWAP, WRITE};
use super::consts::parameter::{
    CLASS_ID, COMPONENT_SLOT, CONTENT, DEVICE_ID, FETCH_ARGUMENTS, IMAGE_DIGEST, IMAGE_SIZE,
    INVOKE_ARGUMENTS, SOURCE_COMPONENT, STRICT_ORDER, URI, VENDOR_ID,
};
use super::consts::{CUSTOM_BELOW, PARAMETER_ENCRYPTION_INFO, trust_domains, update_management};
use super::{
    Codec, Command, ComponentId, ComponentIndex, Condition, Content, Feature, Manifest, ManifestError,
    Parameter, RUNNING_COMPONENT, Section, Sequence,
};

impl Manifest {
    /// Checks the whole manifest, with those severed members that are present.
    ///
    /// The authoring tool calls it before signing, the interpreter before running.
    ///
    /// # Errors
    /// [`ManifestError::Unknown`], [`ManifestError::NotExecuted`], [`ManifestError::NotInProfile`];
    /// [`ManifestError::Misplaced`], [`ManifestError::SoftFailureOutside`], [`ManifestError::IndexRange`],
    /// [`ManifestError::PatchBase`]; [`ManifestError::IndexUnset`], [`ManifestError::OnlyRead`],
    /// [`ManifestError::BaseUnmatched`], [`ManifestError::ParameterUnset`], [`ManifestError::SharedLacks`],
    /// [`ManifestError::NotValidated`].
    pub fn walk(&self) -> Result<(), ManifestError> {
        let content = self.content();
        // A severed section that was removed can't run, so that there is nothing to check.
        let sections = || {
            Section::ALL.into_iter().filter_map(|section| Some((section, content.section(section).ok()??)))
        };

        // 1. Everything asked for is known, in the profile, and executed.
        for (_, sequence) in sections() {
            check_features(sequence)?;
        }

        // 2. Everything stands where it may stand.
        let components = content.components.len();
        if components > 1 && !has_running_image(content) {
            return Err(ManifestError::not_executed(Feature::Components(components)));
        }
        for (section, present) in [
            (Section::PayloadFetch, content.payload_fetch.is_some()),
            (Section::Load, content.load.is_some()),
        ] {
            if present {
                return Err(ManifestError::not_executed(Feature::Member(section.key())));
            }
        }
        for (section, sequence) in sections() {
            check_places(section, sequence, components, Enclosed::No)?;
        }

        // 3. Every command has its input on every way to it, and nothing can be installed unchecked.
        let mut shared = Known::at_the_start(components);
        for (section, sequence) in sections() {
            let after = follow(section, sequence, shared.in_a_section())?.known;
            let known = after.unwrap_or(Known::at_the_start(components));
            let after = known.facts;
            match section {
                Section::Shared => {
                    for condition in [Condition::VendorIdentifier, Condition::ClassIdentifier] {
                        if !after.has(Facts::checked(condition)) {
                            return Err(ManifestError::shared_lacks(condition.label()));
                        }
                    }
                    shared = known;
                }
                Section::Validate if !after.has(Facts::matched(0)) => {
                    return Err(ManifestError::NotValidated);
                }
                _ => {}
            }
        }
        if content.validate.is_none() { Err(ManifestError::NotValidated) } else { Ok(()) }
    }
}

/// Whether the second of two components is the running image of the first one.
fn has_running_image(content: &Content) -> bool {
    content.components == [ComponentId::app(), ComponentId::app_running()]
}

/// Pass 1.
fn check_features(sequence: &Sequence) -> Result<(), ManifestError> {
    for command in &sequence.0 {
        match command {
            Command::Condition(..) | Command::Fetch(_) | Command::Invoke(_) => {}
            Command::SetComponentIndex(ComponentIndex::List(_)) => {
                return Err(ManifestError::not_in_profile(Feature::IndexList));
            }
            Command::SetComponentIndex(ComponentIndex::One(_) | ComponentIndex::All) => {}
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
        Parameter::Uri(uri) if uri.starts_with('#') => {
            Err(ManifestError::not_executed(Feature::IntegratedPayload))
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
        | update_management::WAIT => ManifestError::not_executed(feature),
        SWAP
        | trust_domains::DEPENDENCY_INTEGRITY
        | trust_domains::IS_DEPENDENCY
        | trust_domains::PROCESS_DEPENDENCY
        | trust_domains::SET_PARAMETERS
        | trust_domains::UNLINK
        | update_management::OVERRIDE_MULTIPLE
        | update_management::COPY_PARAMETERS => ManifestError::not_in_profile(feature),
        custom if custom < CUSTOM_BELOW => ManifestError::not_in_profile(feature),
        _ => ManifestError::unknown(feature),
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
        | update_management::PARAMETER_WAIT_INFO => ManifestError::not_executed(feature),
        // A vendor id that is a private enterprise number and not a UUID.
        VENDOR_ID | INVOKE_ARGUMENTS | update_management::PARAMETER_COMPONENT_METADATA => {
            ManifestError::not_in_profile(feature)
        }
        custom if custom < CUSTOM_BELOW => ManifestError::not_in_profile(feature),
        _ => ManifestError::unknown(feature),
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
            return Err(ManifestError::misplaced(section, command.label()));
        }
        match command {
            Command::SetComponentIndex(ComponentIndex::One(index)) if *index >= components as u64 => {
                return Err(ManifestError::index_range(*index, components));
            }
            Command::SetComponentIndex(ComponentIndex::All) if components > 1 => {
                return Err(ManifestError::not_executed(Feature::IndexAll));
            }
            Command::OverrideParameters(parameters)
                if enclosed == Enclosed::No
                    && parameters.iter().any(|parameter| matches!(parameter, Parameter::SoftFailure(_))) =>
            {
                return Err(ManifestError::soft_failure_outside(section));
            }
            Command::OverrideParameters(parameters) => check_bases(parameters, components)?,
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

/// A patch starts from the image that runs.
fn check_bases(parameters: &[Parameter], components: usize) -> Result<(), ManifestError> {
    for parameter in parameters {
        if let Parameter::FetchArguments(transfer) = parameter
            && let Some(component) = transfer.base
            && (component != RUNNING_COMPONENT || components < 2)
        {
            return Err(ManifestError::patch_base(component));
        }
    }
    Ok(())
}

/// What holds on every way to a point: parameters that are set, conditions that were checked. Only grows.
#[derive(Clone, Copy, Default)]
struct Facts(u128);

impl Facts {
    /// Parameter labels are below 32 for everything that pass 1 let through, and there are two components at most.
    const fn set(component: usize, parameter: i64) -> u128 {
        1 << ((component & 1) * 32 + (parameter & 31) as usize)
    }

    const fn matched(component: usize) -> u128 {
        1 << (64 + (component & 1))
    }

    const fn checked(condition: Condition) -> u128 {
        match condition {
            Condition::VendorIdentifier => 1 << 66,
            Condition::ClassIdentifier => 1 << 67,
            Condition::ImageMatch
            | Condition::ImageNotMatch
            | Condition::ComponentSlot
            | Condition::Abort => 0,
        }
    }

    const fn has(self, fact: u128) -> bool {
        self.0 & fact == fact
    }

    fn add(&mut self, fact: u128) {
        self.0 |= fact;
    }
}

/// What is known at a point, whichever way led to it.
#[derive(Clone, Copy)]
struct Known {
    facts: Facts,
    /// The component that commands act on; `None` if it differs between the ways to here, or if none was chosen.
    component: Option<usize>,
    /// With one component it is always that one.
    only_one: bool,
    /// The components whose described payload may be a patch.
    may_be_patch: Components,
}

/// A set of components: bit 0 is the first one.
#[derive(Clone, Copy, Default)]
struct Components(u8);

impl Components {
    const fn has(self, component: usize) -> bool {
        self.0 & 1 << (component & 1) != 0
    }

    fn set(&mut self, component: usize, within: bool) {
        let bit = 1 << (component & 1);
        self.0 = if within { self.0 | bit } else { self.0 & !bit };
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Known {
    fn at_the_start(components: usize) -> Self {
        let only_one = components < 2;
        let may_be_patch = Components::default();
        Self { facts: Facts::default(), component: only_one.then_some(0), only_one, may_be_patch }
    }

    /// Every section and every nested sequence chooses its component anew, as does what follows such a sequence.
    fn in_a_section(self) -> Self {
        Self { component: self.only_one.then_some(0), ..self }
    }

    /// Merges what is known on two ways that meet.
    fn or(self, other: Self) -> Self {
        Self {
            facts: Facts(self.facts.0 & other.facts.0),
            component: self.component.filter(|component| other.component == Some(*component)),
            may_be_patch: self.may_be_patch.or(other.may_be_patch),
            ..self
        }
    }

    /// The component that `command` acts on.
    fn component_of(self, section: Section, command: &Command) -> Result<usize, ManifestError> {
        self.component.ok_or(ManifestError::index_unset(section, command.label()))
    }
}

/// What is known after a sequence has succeeded.
struct Followed {
    /// `None` if it never succeeds.
    known: Option<Known>,
    /// Whether a failed condition may end it early and still count as success of a run-sequence.
    soft: bool,
    /// The components for which the sequence describes a patch anywhere, even if another payload replaces it later.
    /// Whoever leaves the sequence early may leave that patch behind.
    patches: Components,
}

/// Pass 3: follows every way through a sequence.
///
/// Failed branches take nothing back, so that what held before a branch still holds after it; a payload that
/// one of them has described may still be described behind it.
fn follow(section: Section, sequence: &Sequence, before: Known) -> Result<Followed, ManifestError> {
    let mut known = before;
    let mut soft = false;
    let mut patches = Components::default();
    for command in &sequence.0 {
        check_inputs(section, command, known)?;
        match command {
            Command::Condition(Condition::Abort, _) => return Ok(Followed { known: None, soft, patches }),
            Command::Condition(Condition::ImageMatch, _) => {
                known.facts.add(Facts::matched(known.component_of(section, command)?));
            }
            Command::Condition(condition, _) => known.facts.add(Facts::checked(*condition)),
            Command::SetComponentIndex(ComponentIndex::One(index)) => {
                known.component = usize::try_from(*index).ok();
            }
            Command::OverrideParameters(parameters) => {
                for parameter in parameters {
                    match parameter {
                        Parameter::SoftFailure(value) => soft |= value,
                        Parameter::FetchArguments(transfer) => {
                            let component = known.component_of(section, command)?;
                            let is_patch = transfer.codec == Codec::Patch;
                            known.may_be_patch.set(component, is_patch);
                            if is_patch {
                                patches.set(component, true);
                            }
                        }
                        _ => {}
                    }
                    if !matches!(parameter, Parameter::SoftFailure(_)) {
                        let component = known.component_of(section, command)?;
                        known.facts.add(Facts::set(component, parameter.label()));
                    }
                }
            }
            Command::TryEach { branches, or_nothing } => {
                let mut start = known.in_a_section();
                let mut joined: Option<Known> = None;
                for branch in branches {
                    let inner = follow(section, branch, start)?;
                    if let Some(after) = inner.known {
                        joined = Some(joined.map_or(after, |other| other.or(after)));
                    }
                    start.may_be_patch = start.may_be_patch.or(inner.patches);
                    patches = patches.or(inner.patches);
                }
                if *or_nothing {
                    joined = Some(joined.map_or(start, |other| other.or(start)));
                }
                match joined {
                    Some(joined) => known = joined.in_a_section(),
                    None => return Ok(Followed { known: None, soft, patches }),
                }
            }
            Command::RunSequence(nested) => {
                let inner = follow(section, nested, known.in_a_section())?;
                patches = patches.or(inner.patches);
                match inner.known {
                    _ if inner.soft => {
                        known.may_be_patch = known.may_be_patch.or(inner.patches);
                        known = known.in_a_section();
                    }
                    Some(after) => known = after.in_a_section(),
                    None => return Ok(Followed { known: None, soft, patches }),
                }
            }
            Command::Fetch(_) if known.may_be_patch.has(known.component_of(section, command)?) => {
                if !known.facts.has(Facts::matched(usize::from(RUNNING_COMPONENT))) {
                    return Err(ManifestError::base_unmatched(section));
                }
            }
            Command::SetComponentIndex(_) | Command::Fetch(_) | Command::Invoke(_) | Command::Other(..) => {}
        }
    }
    Ok(Followed { known: Some(known), soft, patches })
}

/// The command's component is chosen, it may act on that one, and what it takes is set there.
fn check_inputs(section: Section, command: &Command, known: Known) -> Result<(), ManifestError> {
    let label = command.label();
    let writes = matches!(
        command,
        Command::Fetch(_) | Command::Invoke(_) | Command::Condition(Condition::ComponentSlot, _)
    );
    let inputs = inputs(command);
    if !writes && inputs.is_empty() {
        return Ok(());
    }
    let component = known.component_of(section, command)?;
    if writes && component != 0 {
        return Err(ManifestError::only_read(section, label, component));
    }
    match inputs.iter().find(|parameter| !known.facts.has(Facts::set(component, **parameter))) {
        Some(parameter) => Err(ManifestError::parameter_unset(section, label, *parameter)),
        None => Ok(()),
    }
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
