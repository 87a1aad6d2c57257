//! The command interpreter: runs a verified manifest, step by step, for a host that does the work.
//!
//! It is a stack machine that owns the commands that are left and consumes them. So it ends after at most as
//! many commands as the manifest has, whatever the answers are. [`Interpreter::step`] runs until the host has
//! to do something, and [`Interpreter::answer`] says how that went. Nothing of it has to survive a power cut:
//! the manifest runs again from its start, and an image that is installed already is found by its digest.

use alloc::string::String;
use alloc::vec::{IntoIter, Vec};

use super::consts::command::{FETCH, IMAGE_MATCH, TRY_EACH};
use super::consts::parameter as label;
use super::parameter::Values;
use super::{
    Codec, Command, ComponentIndex, Condition, ImageId, ManifestError, Parameter, RUNNING_COMPONENT,
    RunError, Section, Sequence, TransferDescriptor,
};
use crate::envelope::{Envelope, Verified};
use crate::ids::{ClassId, Digest, VendorId};

/// The device's own identity, for the conditions that ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its maker.
    pub vendor: VendorId,
    /// Its class.
    pub class: ClassId,
    /// The slot that an update would be written to; for [`Procedure::Invoke`], the slot that would be
    /// started.
    pub target_slot: u64,
}

/// What a manifest is run for. The shared sequence runs before each section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Procedure {
    /// Payload fetch, install, validate.
    Update,
    /// Validate, load, invoke.
    Invoke,
}

impl Procedure {
    const fn sections(self) -> [Section; 3] {
        match self {
            Self::Update => [Section::PayloadFetch, Section::Install, Section::Validate],
            Self::Invoke => [Section::Validate, Section::Load, Section::Invoke],
        }
    }
}

/// What the interpreter needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch a payload into a component. Answer whether the component was written; `false` ends the
    /// procedure. If a patch cannot be used, answer `true`: the image match that follows then fails softly.
    Fetch(FetchPlan),
    /// Hash the first `size` bytes of a component. Answer whether the condition holds. It never holds for a
    /// component that can't be read.
    ImageMatch {
        /// Index of the component.
        component: usize,
        /// SHA-256 that the image should have.
        digest: Digest,
        /// Bytes of the image.
        size: u64,
        /// Whether the condition is that the component does *not* hold the image.
        negate: bool,
    },
    /// The procedure succeeded. Nothing is left to answer.
    Done {
        /// Whether the manifest wants the image to be started. The host records this and does not start the
        /// image at once.
        invoke: bool,
    },
}

/// A payload to fetch and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPlan {
    /// Index of the component that it is for.
    pub component: usize,
    /// SHA-256 of the image.
    pub image_digest: Digest,
    /// Bytes of the image.
    pub image_size: u64,
    /// The address of the payload.
    pub uri: String,
    /// How it is transferred and decoded.
    pub transfer: TransferDescriptor,
    /// For a patch, the image that it starts from: the one that the running slot was found to hold.
    pub base: Option<ImageId>,
}

/// Runs one procedure of one manifest.
#[derive(Clone, Debug)]
pub struct Interpreter {
    identity: Identity,
    /// Sections still to run.
    sections: IntoIter<(Section, Sequence)>,
    section: Section,
    /// Sequences that are running, the innermost last.
    frames: Vec<Frame>,
    /// Parameters of each component.
    values: Vec<Values>,
    component: usize,
    /// The image that the running component was found to hold.
    matched: Option<ImageId>,
    state: RunState,
}

#[derive(Clone, Debug)]
enum RunState {
    Running,
    /// Waits for the answer to this step.
    Asked(Step),
    Ended(Result<Step, RunError>),
}

/// A sequence that is running, with its own soft-failure parameter.
#[derive(Clone, Debug)]
struct Frame {
    commands: IntoIter<Command>,
    soft: bool,
    kind: FrameKind,
}

#[derive(Clone, Debug)]
enum FrameKind {
    Section,
    /// A branch of try-each, and what to try after it.
    Branch {
        rest: IntoIter<Sequence>,
        or_nothing: bool,
    },
    Run,
}

impl Interpreter {
    /// Judges the manifest of `envelope` and starts its procedure.
    ///
    /// # Errors
    /// Those of [`Manifest::walk`](super::Manifest::walk), and [`ManifestError::SectionMissing`] if a
    /// section of the procedure was severed and dropped.
    pub fn new(
        envelope: &Envelope<Verified>,
        identity: &Identity,
        procedure: Procedure,
    ) -> Result<Self, ManifestError> {
        let manifest = envelope.manifest();
        manifest.walk()?;
        let content = manifest.content();
        let mut sections = Vec::new();
        for section in procedure.sections() {
            if let Some(sequence) = content.section(section)? {
                sections.push((Section::Shared, content.shared.clone()));
                sections.push((section, sequence.clone()));
            }
        }
        Ok(Self {
            identity: *identity,
            sections: sections.into_iter(),
            section: Section::Shared,
            frames: Vec::new(),
            values: content.components.iter().map(|_| Values::default()).collect(),
            component: 0,
            matched: None,
            state: RunState::Running,
        })
    }

    /// Runs until something outside is needed or the procedure ends. Gives the same again until it is answered.
    ///
    /// # Errors
    /// [`RunError`] if the procedure has failed.
    pub fn step(&mut self) -> Result<Step, RunError> {
        loop {
            match &self.state {
                RunState::Running => self.advance(),
                RunState::Asked(step) => return Ok(step.clone()),
                RunState::Ended(result) => return result.clone(),
            }
        }
    }

    /// Says how the last [`Step::Fetch`] or [`Step::ImageMatch`] went. An answer to nothing is ignored.
    pub fn answer(&mut self, success: bool) {
        let RunState::Asked(step) = &self.state else {
            debug_assert!(false, "an answer without a question");
            return;
        };
        let fetched = matches!(step, Step::Fetch(_));
        match step {
            Step::ImageMatch { component, digest, size, negate: false }
                if success && *component == usize::from(RUNNING_COMPONENT) =>
            {
                self.matched = Some(ImageId { digest: *digest, size: *size });
            }
            _ => {}
        }
        self.state = RunState::Running;
        match (success, fetched) {
            (true, _) => {}
            (false, true) => self.end(Err(RunError::fetch(self.section))),
            (false, false) => self.fail(RunError::Condition { section: self.section, command: IMAGE_MATCH }),
        }
    }

    /// Runs one command, or leaves a sequence, or enters a section.
    fn advance(&mut self) {
        let Some(frame) = self.frames.last_mut() else {
            match self.sections.next() {
                Some((section, sequence)) => self.enter_section(section, sequence),
                None => self.end(Ok(Step::Done { invoke: false })),
            }
            return;
        };
        match frame.commands.next() {
            Some(command) => self.execute(command),
            // The end of a branch ends its try-each: the branches after it go with the frame.
            None => drop(self.frames.pop()),
        }
    }

    fn enter_section(&mut self, section: Section, sequence: Sequence) {
        self.section = section;
        self.component = 0;
        self.enter(sequence, FrameKind::Section);
    }

    fn enter(&mut self, sequence: Sequence, kind: FrameKind) {
        let soft = matches!(kind, FrameKind::Branch { .. });
        self.frames.push(Frame { commands: sequence.0.into_iter(), soft, kind });
    }

    fn execute(&mut self, command: Command) {
        let label = command.label();
        let result = match command {
            Command::Condition(condition, _) => self.check(condition),
            Command::SetComponentIndex(ComponentIndex::One(index)) => {
                // The walk has checked the range.
                self.component = usize::try_from(index).unwrap_or(usize::MAX);
                Ok(())
            }
            // The walk allows it with one component only, which is then every one.
            Command::SetComponentIndex(ComponentIndex::All) => {
                self.component = 0;
                Ok(())
            }
            Command::TryEach { branches, or_nothing } => {
                self.try_next(branches.into_iter(), or_nothing);
                Ok(())
            }
            Command::OverrideParameters(parameters) => {
                parameters.iter().for_each(|parameter| self.set(parameter));
                Ok(())
            }
            Command::RunSequence(sequence) => {
                self.enter(sequence, FrameKind::Run);
                Ok(())
            }
            Command::Fetch(_) => self.ask_fetch(),
            Command::Invoke(_) => {
                self.end(Ok(Step::Done { invoke: true }));
                Ok(())
            }
            Command::SetComponentIndex(ComponentIndex::List(_)) | Command::Other(..) => {
                Err(RunError::not_executed(label))
            }
        };
        if let Err(error) = result {
            self.end(Err(error));
        }
    }

    /// Evaluates a condition, here or by asking. An error is not the condition's failure but the end.
    fn check(&mut self, condition: Condition) -> Result<(), RunError> {
        let identity = self.identity;
        let command = condition.label();
        let holds = match condition {
            Condition::VendorIdentifier => {
                self.value(command, label::VENDOR_ID, |values| values.vendor_id)? == identity.vendor
            }
            Condition::ClassIdentifier => {
                self.value(command, label::CLASS_ID, |values| values.class_id)? == identity.class
            }
            Condition::ComponentSlot => {
                let slot = self.value(command, label::COMPONENT_SLOT, |values| values.component_slot)?;
                slot == identity.target_slot
            }
            Condition::Abort => false,
            Condition::ImageMatch | Condition::ImageNotMatch => {
                self.state = RunState::Asked(Step::ImageMatch {
                    component: self.component,
                    digest: self.value(command, label::IMAGE_DIGEST, |values| values.image_digest)?,
                    size: self.value(command, label::IMAGE_SIZE, |values| values.image_size)?,
                    negate: condition == Condition::ImageNotMatch,
                });
                return Ok(());
            }
        };
        if !holds {
            self.fail(RunError::Condition { section: self.section, command });
        }
        Ok(())
    }

    fn ask_fetch(&mut self) -> Result<(), RunError> {
        let transfer = self.value(FETCH, label::FETCH_ARGUMENTS, |values| values.fetch_arguments)?;
        let base = self.matched.filter(|_| transfer.codec == Codec::Patch);
        if base.is_none() && transfer.codec == Codec::Patch {
            return Err(RunError::BaseUnmatched);
        }
        let plan = FetchPlan {
            component: self.component,
            image_digest: self.value(FETCH, label::IMAGE_DIGEST, |values| values.image_digest)?,
            image_size: self.value(FETCH, label::IMAGE_SIZE, |values| values.image_size)?,
            uri: self.value(FETCH, label::URI, |values| values.uri.clone())?,
            transfer,
            base,
        };
        if !plan.transfer.fits(plan.image_size) {
            let transfer_size = plan.transfer.layout.transfer_size();
            return Err(RunError::transfer_size(transfer_size, plan.image_size));
        }
        self.state = RunState::Asked(Step::Fetch(plan));
        Ok(())
    }

    /// A parameter of the current component. Unset is a failure, which the walk excludes.
    fn value<T>(
        &self,
        command: i64,
        parameter: i64,
        pick: impl FnOnce(&Values) -> Option<T>,
    ) -> Result<T, RunError> {
        self.values.get(self.component).and_then(pick).ok_or(RunError::parameter_unset(command, parameter))
    }

    fn set(&mut self, parameter: &Parameter) {
        match (parameter, self.frames.last_mut()) {
            (Parameter::SoftFailure(soft), Some(frame)) => frame.soft = *soft,
            (other, _) => {
                if let Some(values) = self.values.get_mut(self.component) {
                    values.set(other);
                }
            }
        }
    }

    /// Enters the next branch of a try-each; without one, succeeds or fails as the command says.
    fn try_next(&mut self, mut rest: IntoIter<Sequence>, or_nothing: bool) {
        match rest.next() {
            Some(branch) => self.enter(branch, FrameKind::Branch { rest, or_nothing }),
            None if or_nothing => {}
            None => self.fail(RunError::Condition { section: self.section, command: TRY_EACH }),
        }
    }

    /// A condition failed: leaves sequences until one takes the failure softly.
    ///
    /// A try-each without a branch that succeeds fails like a condition, so that it can be an alternative of
    /// another try-each. Parameters keep what the failed branch has set.
    fn fail(&mut self, error: RunError) {
        while let Some(frame) = self.frames.pop() {
            match frame.kind {
                FrameKind::Run if frame.soft => return,
                FrameKind::Branch { mut rest, or_nothing } if frame.soft => match rest.next() {
                    Some(branch) => {
                        self.enter(branch, FrameKind::Branch { rest, or_nothing });
                        return;
                    }
                    None if or_nothing => return,
                    None => {}
                },
                FrameKind::Section | FrameKind::Branch { .. } | FrameKind::Run => {}
            }
        }
        self.end(Err(error));
    }

    fn end(&mut self, result: Result<Step, RunError>) {
        self.frames.clear();
        self.state = RunState::Ended(result);
    }
}
