//! Command sequences: what a manifest tells a device to do.
//!
//! Decoding takes every well-formed sequence, also with commands that nobody knows; the static walk judges
//! them. Sizes and nesting are bounded here, before anything is kept.

use alloc::vec::Vec;

use super::ManifestError;
use super::consts::command::{
    ABORT, CLASS_IDENTIFIER, COMPONENT_SLOT, FETCH, IMAGE_MATCH, INVOKE, OVERRIDE_PARAMETERS, RUN_SEQUENCE,
    SET_COMPONENT_INDEX, TRY_EACH, VENDOR_IDENTIFIER,
};
use super::consts::update_management::IMAGE_NOT_MATCH;
use super::parameter::{Parameter, read_parameters, write_parameters};
use crate::codec::{DecodeError, Item, Reader, Writer};
use crate::limits::{COMPONENTS_MAX, ENVELOPE_BYTES_MAX, SECTION_COMMANDS_MAX, SEQUENCE_DEPTH_MAX};

/// A test. If it fails, it ends its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The device is of the vendor.
    VendorIdentifier,
    /// The device is of the class.
    ClassIdentifier,
    /// The component holds the image.
    ImageMatch,
    /// The slot that will be written is the one named.
    ComponentSlot,
    /// Never holds.
    Abort,
    /// The component does not hold the image.
    ImageNotMatch,
}

impl Condition {
    /// Its label.
    #[must_use]
    pub const fn label(self) -> i64 {
        match self {
            Self::VendorIdentifier => VENDOR_IDENTIFIER,
            Self::ClassIdentifier => CLASS_IDENTIFIER,
            Self::ImageMatch => IMAGE_MATCH,
            Self::ComponentSlot => COMPONENT_SLOT,
            Self::Abort => ABORT,
            Self::ImageNotMatch => IMAGE_NOT_MATCH,
        }
    }

    const fn from_label(label: i64) -> Option<Self> {
        Some(match label {
            VENDOR_IDENTIFIER => Self::VendorIdentifier,
            CLASS_IDENTIFIER => Self::ClassIdentifier,
            IMAGE_MATCH => Self::ImageMatch,
            COMPONENT_SLOT => Self::ComponentSlot,
            ABORT => Self::Abort,
            IMAGE_NOT_MATCH => Self::ImageNotMatch,
            _ => return None,
        })
    }
}

/// When to record a command in a report: bits 0 to 3 (draft-ietf-suit-manifest-37 section 8.4.7). A hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPolicy(u8);

impl ReportPolicy {
    /// Record everything.
    pub const ALL: Self = Self(15);
    /// Record a success, with system information.
    pub const ON_SUCCESS: Self = Self(5);
    /// Record a failure.
    pub const ON_FAILURE: Self = Self(2);

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The policy with these bits, of which there are four.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits <= 15 { Some(Self(bits)) } else { None }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let value = reader.uint_max("reporting policy", 15)?;
        u8::try_from(value).map(Self).map_err(|_| DecodeError::value("reporting policy"))
    }
}

/// Which components the following commands act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentIndex {
    /// One.
    One(u64),
    /// Every one.
    All,
    /// Several.
    List(Vec<u64>),
}

/// One command with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A test.
    Condition(Condition, ReportPolicy),
    /// Directive 12.
    SetComponentIndex(ComponentIndex),
    /// Directive 15: the first branch that succeeds, or nothing if that is allowed.
    TryEach {
        /// At least two.
        branches: Vec<Sequence>,
        /// Whether the try-each succeeds if no branch does.
        or_nothing: bool,
    },
    /// Directive 20: at least one parameter, each once.
    OverrideParameters(Vec<Parameter>),
    /// Directive 21.
    Fetch(ReportPolicy),
    /// Directive 23.
    Invoke(ReportPolicy),
    /// Directive 32.
    RunSequence(Sequence),
    /// Anything else, to be judged by the static walk: label and encoded argument.
    Other(i64, Vec<u8>),
}

impl Command {
    /// Its label.
    #[must_use]
    pub const fn label(&self) -> i64 {
        match self {
            Self::Condition(condition, _) => condition.label(),
            Self::SetComponentIndex(_) => SET_COMPONENT_INDEX,
            Self::TryEach { .. } => TRY_EACH,
            Self::OverrideParameters(_) => OVERRIDE_PARAMETERS,
            Self::Fetch(_) => FETCH,
            Self::Invoke(_) => INVOKE,
            Self::RunSequence(_) => RUN_SEQUENCE,
            Self::Other(label, _) => *label,
        }
    }

    fn encode(&self, writer: &mut Writer) {
        writer.int(self.label());
        match self {
            Self::Condition(_, policy) | Self::Fetch(policy) | Self::Invoke(policy) => {
                writer.uint(u64::from(policy.bits()))
            }
            Self::SetComponentIndex(ComponentIndex::One(index)) => writer.uint(*index),
            Self::SetComponentIndex(ComponentIndex::All) => writer.bool(true),
            Self::SetComponentIndex(ComponentIndex::List(list)) => {
                list.iter().fold(writer.array(list.len()), |writer, index| writer.uint(*index))
            }
            Self::TryEach { branches, or_nothing } => {
                let writer = writer.array(branches.len() + usize::from(*or_nothing));
                let writer = branches.iter().fold(writer, |writer, branch| writer.bytes(&branch.encode()));
                if *or_nothing { writer.null() } else { writer }
            }
            Self::OverrideParameters(parameters) => write_parameters(writer, parameters),
            Self::RunSequence(sequence) => writer.bytes(&sequence.encode()),
            Self::Other(_, argument) => writer.raw(argument),
        };
    }
}

/// Commands in the order in which they run: 1 to 64, with everything nested in them.
///
/// ```cddl
/// sequence = [+ (label: int, argument: any)]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence(pub Vec<Command>);

impl Sequence {
    /// Reads a section's sequence that fills `bytes`.
    ///
    /// # Errors
    /// [`ManifestError::Malformed`], also for too many commands and too deep nesting;
    /// [`ManifestError::DigestAlgorithm`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::decode_nested(bytes, SEQUENCE_DEPTH_MAX, &mut SECTION_COMMANDS_MAX.clone())
    }

    /// `depth` is how many more levels may follow, `budget` how many more commands. Recursion ends with depth.
    fn decode_nested(bytes: &[u8], depth: usize, budget: &mut usize) -> Result<Self, ManifestError> {
        let mut reader = Reader::new("command sequence", bytes, ENVELOPE_BYTES_MAX)?;
        let items = reader.array("command sequence", 2 * SECTION_COMMANDS_MAX)?;
        if items == 0 || items % 2 == 1 {
            return Err(DecodeError::value("length of a command sequence").into());
        }
        let mut commands = Vec::new();
        for _ in 0..items / 2 {
            let limit = SECTION_COMMANDS_MAX as u64;
            *budget =
                budget.checked_sub(1).ok_or(DecodeError::too_long("section's commands", limit + 1, limit))?;
            let label = reader.int("command")?;
            commands.push(read_command(label, &mut reader, depth, budget)?);
        }
        reader.finish()?;
        Ok(Self(commands))
    }

    /// What its commands set, with those nested in it, in the order in which they stand.
    #[must_use]
    pub fn parameter_lists(&self) -> Vec<&[Parameter]> {
        let mut lists = Vec::new();
        self.collect_parameter_lists(&mut lists);
        lists
    }

    /// Recursion ends after [`SEQUENCE_DEPTH_MAX`] levels, because decoding refuses deeper nesting.
    fn collect_parameter_lists<'s>(&'s self, lists: &mut Vec<&'s [Parameter]>) {
        for command in &self.0 {
            match command {
                Command::OverrideParameters(parameters) => lists.push(parameters),
                Command::TryEach { branches, .. } => {
                    branches.iter().for_each(|branch| branch.collect_parameter_lists(lists));
                }
                Command::RunSequence(sequence) => sequence.collect_parameter_lists(lists),
                _ => {}
            }
        }
    }

    /// The bytes of the sequence.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(2 * self.0.len());
        self.0.iter().for_each(|command| command.encode(&mut writer));
        writer.into_bytes()
    }
}

fn read_command(
    label: i64,
    reader: &mut Reader<'_>,
    depth: usize,
    budget: &mut usize,
) -> Result<Command, ManifestError> {
    if let Some(condition) = Condition::from_label(label) {
        return Ok(Command::Condition(condition, ReportPolicy::decode(reader)?));
    }
    Ok(match label {
        SET_COMPONENT_INDEX => Command::SetComponentIndex(read_index(reader)?),
        TRY_EACH => read_try_each(reader, depth, budget)?,
        OVERRIDE_PARAMETERS => Command::OverrideParameters(read_parameters(reader)?),
        FETCH => Command::Fetch(ReportPolicy::decode(reader)?),
        INVOKE => Command::Invoke(ReportPolicy::decode(reader)?),
        RUN_SEQUENCE => Command::RunSequence(read_nested(reader, depth, budget)?),
        other => Command::Other(other, reader.item()?.to_vec()),
    })
}

fn read_index(reader: &mut Reader<'_>) -> Result<ComponentIndex, DecodeError> {
    match reader.peek()? {
        Item::Bool => match reader.bool("component index")? {
            true => Ok(ComponentIndex::All),
            false => Err(DecodeError::value("component index")),
        },
        Item::Array => {
            let list =
                reader.list("component indices", COMPONENTS_MAX, |reader| reader.uint("component index"))?;
            if list.is_empty() {
                return Err(DecodeError::value("component indices"));
            }
            Ok(ComponentIndex::List(list))
        }
        _ => reader.uint("component index").map(ComponentIndex::One),
    }
}

/// At least two branches, then perhaps `null`.
fn read_try_each(
    reader: &mut Reader<'_>,
    depth: usize,
    budget: &mut usize,
) -> Result<Command, ManifestError> {
    let items = reader.array("try each", SECTION_COMMANDS_MAX)?;
    let mut branches = Vec::new();
    let mut or_nothing = false;
    for left in (0..items).rev() {
        if left == 0 && reader.is_null()? {
            or_nothing = true;
        } else {
            branches.push(read_nested(reader, depth, budget)?);
        }
    }
    if branches.len() < 2 {
        return Err(DecodeError::value("branches of a try each").into());
    }
    Ok(Command::TryEach { branches, or_nothing })
}

fn read_nested(reader: &mut Reader<'_>, depth: usize, budget: &mut usize) -> Result<Sequence, ManifestError> {
    let at = reader.position();
    let bytes = reader.bytes("command sequence", ENVELOPE_BYTES_MAX)?;
    let depth = depth.checked_sub(1).ok_or(DecodeError::depth(at, SEQUENCE_DEPTH_MAX))?;
    Sequence::decode_nested(bytes, depth, budget)
}
