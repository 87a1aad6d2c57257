//! A verified manifest that is being executed, up to the point where it fetches a payload or starts the image.

use alloc::boxed::Box;
use core::ops::ControlFlow::{Break, Continue};

use super::context::Context;
use super::download::Download;
use super::ending::Ended;
use super::event::{Event, PatchFailure, Reason};
use super::fetch::Downloading;
use super::install;
use super::io::{Found, InstallFailure, InstallOp, Opening, Place, StoreFailure, StoreOp};
use super::patch::leaves_out;
use super::record::Deployment;
use super::release::code_of;
use super::slots::Slots;
use super::work::{Answer, Deferred, Next, Phase};
use crate::envelope::{Envelope, Verified};
use crate::ids::OpId;
use crate::manifest::consts::command::{CLASS_IDENTIFIER, VENDOR_IDENTIFIER};
use crate::manifest::{Codec, FetchPlan, ImageId, Interpreter, Procedure, RunError, Step};
use crate::message::FailureCode;
use crate::topic::Channel;

/// A manifest that is being executed.
#[derive(Debug)]
pub(super) struct Run {
    interpreter: Interpreter,
    procedure: Procedure,
    envelope: Envelope<Verified>,
    /// What the target slot was found to hold, so that it is not hashed once more.
    verified: Option<ImageId>,
}

/// A manifest that waits for its payload to be fetched and installed.
#[derive(Debug)]
pub(super) struct Fetch {
    run: Box<Run>,
    pub(super) plan: FetchPlan,
}

/// The state of work while a slot is compared with what the manifest says.
#[derive(Debug)]
pub(super) struct Matching {
    run: Box<Run>,
    pub(super) op: OpId,
    place: Place,
    image: ImageId,
    /// The manifest requires that the slot does not hold the image.
    negate: bool,
}

/// The state of work while the medium is made ready for a download.
#[derive(Debug)]
pub(super) struct Preparing {
    fetch: Box<Fetch>,
    pub(super) op: OpId,
}

impl Run {
    /// Begins with the procedure that installs the image.
    pub(super) fn new(interpreter: Interpreter, envelope: Envelope<Verified>) -> Box<Self> {
        Box::new(Self { interpreter, procedure: Procedure::Update, envelope, verified: None })
    }

    /// Goes on until something outside is needed.
    pub(super) fn step(mut self: Box<Self>, cx: &mut Context, slots: &Slots) -> Next {
        loop {
            match self.interpreter.step() {
                Ok(Step::ImageMatch { component, digest, size, negate }) => {
                    let (place, image) = (Place::of(component), ImageId { digest, size });
                    let known = match place {
                        Place::Target => (component == 0 && self.verified == Some(image)).then_some(true),
                        Place::Running => slots.runs(image),
                    };
                    if let Some(holds) = known {
                        self.interpreter.answer(holds != negate);
                        continue;
                    }
                    let op = cx.outputs.install(InstallOp::Match { place, image: digest, size });
                    return Continue(Phase::Matching(Matching { run: self, op, place, image, negate }));
                }
                Ok(Step::Fetch(plan)) if leaves_out(cx, &plan) => self.interpreter.answer(true),
                Ok(Step::Fetch(plan)) => return self.fetch(cx, slots, plan),
                Ok(Step::Done { invoke }) => match self.procedure {
                    Procedure::Update => {
                        self.procedure = Procedure::Invoke;
                        let identity = slots.identity(&cx.config);
                        match Interpreter::new(&self.envelope, &identity, self.procedure) {
                            Ok(interpreter) => self.interpreter = interpreter,
                            Err(error) => return Break(Ended::failed(code_of(error))),
                        }
                    }
                    Procedure::Invoke if invoke => return Continue(install::image_is_installed(cx)),
                    Procedure::Invoke => return Break(Ended::failed(FailureCode::Unsupported)),
                },
                Err(error) => return Break(Ended::failed(failure_of(error))),
            }
        }
    }

    /// The manifest fetches a payload: checks what can be checked before the first chunk.
    fn fetch(self: Box<Self>, cx: &mut Context, slots: &Slots, plan: FetchPlan) -> Next {
        let running = &slots.boot.running;
        let sequence = self.envelope.manifest().sequence_number();
        if sequence == running.sequence && sequence > 0 && running.image != Some(plan.image_digest) {
            cx.reject(Channel::Answers, Reason::Equivocation { version: sequence });
            return Break(Ended::failed(FailureCode::Rollback));
        }
        let ordered = cx.deployment().map(|deployment| deployment.order.image_size);
        if ordered != Some(plan.image_size) {
            cx.reject(Channel::Answers, Reason::WrongRelease);
            return Break(Ended::failed(FailureCode::Unauthentic));
        }
        let memory = plan.transfer.decoder.map_or(0, |decoder| u64::from(decoder.memory_bytes));
        if memory > cx.config.memory_max_kib * 1024 || !cx.config.codecs.contains(plan.transfer.codec) {
            return Break(Ended::failed(FailureCode::Unsupported));
        }
        let opening = Opening {
            envelope: self.envelope.bytes().to_vec(),
            release: self.envelope.digest(),
            sequence,
            image: plan.image_digest,
            image_size: plan.image_size,
            transfer: plan.transfer,
            base: plan.base,
        };
        let op = cx.outputs.store(StoreOp::Open(Box::new(opening)));
        Continue(Phase::Preparing(Preparing { fetch: Box::new(Fetch { run: self, plan }), op }))
    }
}

impl Fetch {
    pub(super) fn is_patch(&self) -> bool {
        self.plan.transfer.codec == Codec::Patch
    }

    /// The payload became the image, which was read back.
    pub(super) fn installed(mut self, cx: &mut Context, slots: &Slots) -> Next {
        self.run.verified = Some(ImageId { digest: self.plan.image_digest, size: self.plan.image_size });
        self.go_on(cx, slots)
    }

    /// The fetch counts as done, whether anything came of it or not: the image's digest decides.
    pub(super) fn go_on(mut self, cx: &mut Context, slots: &Slots) -> Next {
        self.run.interpreter.answer(true);
        self.run.step(cx, slots)
    }
}

impl Matching {
    /// The slot was read, or could not be.
    pub(super) fn done(mut self, cx: &mut Context, slots: &mut Slots, result: Answer) -> Next {
        let equal = match result {
            Ok(()) => true,
            Err(InstallFailure::Mismatch) => false,
            // A base that can't be read is none.
            Err(_) if self.place == Place::Running => false,
            Err(_) => return Continue(Phase::Deferred(Deferred::of(cx, StoreFailure::Failed))),
        };
        if self.place == Place::Running {
            slots.running_slot_read(self.image, equal);
        } else if equal {
            self.run.verified = Some(self.image);
        }
        self.run.interpreter.answer(equal != self.negate);
        self.run.step(cx, slots)
    }
}

impl Preparing {
    /// The medium is ready, or is not.
    pub(super) fn done(self, cx: &mut Context, slots: &Slots, result: Result<Found, StoreFailure>) -> Next {
        let Self { fetch, .. } = self;
        let payload = fetch.plan.transfer.tag();
        match result {
            Ok(found) => {
                let download = Download::new(fetch.plan.image_digest, &fetch.plan.transfer, found);
                let before = cx.deployment().map_or((0, 0), Deployment::spent);
                let downloading = Downloading::new(fetch, download, before, cx.now);
                Continue(Phase::Downloading(Box::new(downloading)))
            }
            // What has no room changed nothing, and may not be needed.
            Err(StoreFailure::NoRoom) if fetch.is_patch() => {
                cx.tell(Event::PatchFailed { payload, why: PatchFailure::NoRoom });
                fetch.go_on(cx, slots)
            }
            Err(failure) => {
                cx.tell(Event::StoreFailed(failure));
                Continue(Phase::Deferred(Deferred::of(cx, failure)))
            }
        }
    }
}

/// What is reported of a manifest whose execution failed.
fn failure_of(error: RunError) -> FailureCode {
    match error {
        RunError::Condition { command: VENDOR_IDENTIFIER | CLASS_IDENTIFIER, .. } => FailureCode::WrongClass,
        RunError::Condition { .. } => FailureCode::Condition,
        RunError::Fetch { .. } => FailureCode::Storage,
        RunError::TransferSize { .. } | RunError::ParameterUnset { .. } => FailureCode::Malformed,
        RunError::NotExecuted { .. } | RunError::BaseUnmatched => FailureCode::Unsupported,
    }
}
