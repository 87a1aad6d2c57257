//! The manifest of an order: fetched, verified, executed up to the point where it fetches a payload.

use super::download::Download;
use super::fetch::Downloading;
use super::io::{Event, Found, InstallOp, Opening, PatchFailure, Place, Reason, StoreFailure, StoreOp};
use super::record::Deployment;
use super::work::{RETRY_CAP_MS, RETRY_MS, Work};
use super::{Boxed, DeviceSession};
use crate::cose::Accept;
use crate::envelope::{Envelope, Verified, VerifyError};
use crate::ids::{Digest, OpId};
use crate::manifest::consts::command::{CLASS_IDENTIFIER, VENDOR_IDENTIFIER};
use crate::manifest::{
    Codec, FetchPlan, Identity, ImageId, Interpreter, ManifestError, Procedure, RunError, Step,
};
use crate::message::{DocumentRequest, FailureCode, Order, Outcome};
use crate::topic::Channel;

/// A manifest that is being executed.
#[derive(Debug)]
pub(super) struct Run {
    interpreter: Interpreter,
    procedure: Procedure,
    envelope: Envelope<Verified>,
    /// What the last fetch installed and read back, so that it is not hashed once more.
    pub(super) verified: Option<(Digest, u64)>,
    /// What is fetched.
    pub(super) plan: Option<FetchPlan>,
}

/// Manifests with the right digest and no valid signature that end an attempt.
const UNAUTHENTIC_MAX: u32 = 3;

impl Run {
    /// The payload was fetched and installed, or was not.
    pub(super) fn fetched(&mut self, good: bool) {
        self.interpreter.answer(good);
    }

    /// Whether what is fetched is a patch.
    pub(super) fn fetches_patch(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.transfer.codec == Codec::Patch)
    }
}

impl DeviceSession {
    /// Asks for the manifest, or takes the one that is at hand.
    pub(super) fn fetch_manifest(&mut self) -> bool {
        let Some(release) = self.record.deployment.as_ref().map(|deployment| deployment.order.release) else {
            return false;
        };
        if let Some(bytes) = self.envelope.take() {
            let kept = Envelope::decode(&bytes).ok().filter(|envelope| envelope.claimed_digest() == release);
            if kept.is_some() {
                self.envelope(&bytes);
                // The next round goes on with what came of it, and asks for another one if this was refused.
                return true;
            }
        }
        let Work::Offered(offered) = &mut self.work else {
            return false;
        };
        if !self.link.is_up() || offered.ask_at.is_some_and(|at| self.now < at) {
            return false;
        }
        let wait = (RETRY_MS << offered.asked.min(8)).min(RETRY_CAP_MS);
        offered.asked += 1;
        offered.ask_at = Some(self.now.plus_millis(self.jitter.lengthened(wait)));
        self.publish(Channel::Requests, DocumentRequest::Manifest(release.short()).encode(), false);
        false
    }

    /// A SUIT envelope arrived, or is at hand.
    pub(super) fn envelope(&mut self, bytes: &[u8]) {
        let (Work::Offered(_), Some(order)) =
            (&self.work, self.record.deployment.as_ref().map(|deployment| deployment.order.clone()))
        else {
            return self.unsolicited(Channel::Answers, bytes.len(), Reason::Unsolicited);
        };
        let accept = if self.config.accept_es256 { Accept::WITH_ES256 } else { Accept::STRICT };
        // Only what the campaign's signature names can end the attempt: anybody can send something else.
        let verified = match Envelope::decode(bytes) {
            Ok(envelope) if envelope.claimed_digest() == order.release => envelope.verify(&self.root, accept),
            Ok(_) => return self.unsolicited(Channel::Answers, bytes.len(), Reason::WrongRelease),
            Err(error) => {
                return self.unsolicited(Channel::Answers, bytes.len(), Reason::WrongEnvelope(error));
            }
        };
        let error = match verified {
            Ok(envelope) => {
                self.envelope = Some(bytes.to_vec());
                return self.run(envelope, &order);
            }
            Err(error) => error,
        };
        self.unsolicited(Channel::Answers, bytes.len(), Reason::WrongEnvelope(error));
        match error {
            VerifyError::Manifest(error) if error.is_signed() => {
                self.end(Outcome::Failed, Some(code_of(error)));
            }
            VerifyError::Unsigned | VerifyError::Unauthentic(_) => {
                let Work::Offered(offered) = &mut self.work else {
                    return;
                };
                offered.unauthentic += 1;
                if offered.unauthentic >= UNAUTHENTIC_MAX {
                    self.end(Outcome::Failed, Some(FailureCode::Unauthentic));
                }
            }
            _ => {}
        }
    }

    /// Executes a verified manifest.
    fn run(&mut self, envelope: Envelope<Verified>, order: &Order) {
        let sequence = envelope.manifest().sequence_number();
        if sequence != order.sequence {
            self.reject(Channel::Answers, Reason::WrongRelease);
            return self.end(Outcome::Failed, Some(FailureCode::Unauthentic));
        }
        if sequence < self.boot.running.sequence {
            let known = self.boot.running.sequence;
            self.reject(Channel::Answers, Reason::Rollback { got: sequence, known });
            return self.end(Outcome::Failed, Some(FailureCode::Rollback));
        }
        // Another envelope of the release that runs, with other patches perhaps: there is nothing to install.
        let mut images = envelope.manifest().images().into_iter();
        if sequence == self.boot.running.sequence
            && images.any(|image| self.boot.running.image == Some(image.digest))
        {
            return self.end(Outcome::Confirmed, None);
        }
        match Interpreter::new(&envelope, &self.identity(), Procedure::Update) {
            Ok(interpreter) => {
                let procedure = Procedure::Update;
                self.step(Boxed::new(Run { interpreter, procedure, envelope, verified: None, plan: None }));
            }
            Err(error) => {
                self.reject(Channel::Answers, Reason::WrongEnvelope(error.into()));
                self.end(Outcome::Failed, Some(code_of(error)));
            }
        }
    }

    fn identity(&self) -> Identity {
        Identity { vendor: self.config.vendor, class: self.config.class, target_slot: self.boot.target_slot }
    }

    /// Runs the manifest until something outside is needed.
    pub(super) fn step(&mut self, mut run: Boxed<Run>) {
        loop {
            match run.interpreter.step() {
                Ok(Step::ImageMatch { component: 0, digest, size, negate })
                    if run.verified == Some((digest, size)) =>
                {
                    run.interpreter.answer(!negate);
                }
                Ok(Step::ImageMatch { component, digest, size, negate }) => {
                    let place = Place::of(component);
                    if place == Place::Running
                        && let Some(holds) = self.runs(ImageId { digest, size })
                    {
                        run.interpreter.answer(holds != negate);
                        continue;
                    }
                    let op = self.install(InstallOp::Match { place, image: digest, size });
                    self.work = Work::Matching { run, op, place, want: (digest, size), negate };
                    return;
                }
                Ok(Step::Fetch(plan)) if self.leaves_out(&plan) => run.fetched(true),
                Ok(Step::Fetch(plan)) => return self.open(run, plan),
                Ok(Step::Done { invoke }) => match run.procedure {
                    Procedure::Update => {
                        let next = Interpreter::new(&run.envelope, &self.identity(), Procedure::Invoke);
                        match next {
                            Ok(interpreter) => {
                                *run = Run { interpreter, procedure: Procedure::Invoke, ..*run }
                            }
                            Err(error) => return self.end(Outcome::Failed, Some(code_of(error))),
                        }
                    }
                    Procedure::Invoke if invoke => return self.image_is_installed(),
                    Procedure::Invoke => return self.end(Outcome::Failed, Some(FailureCode::Unsupported)),
                },
                Err(error) => {
                    let code = match error {
                        RunError::Condition { command: VENDOR_IDENTIFIER | CLASS_IDENTIFIER, .. } => {
                            FailureCode::WrongClass
                        }
                        RunError::Condition { .. } => FailureCode::Condition,
                        RunError::Fetch { .. } => FailureCode::Storage,
                        RunError::TransferSize { .. } | RunError::ParameterUnset { .. } => {
                            FailureCode::Malformed
                        }
                        RunError::NotExecuted { .. } | RunError::BaseUnmatched => FailureCode::Unsupported,
                    };
                    return self.end(Outcome::Failed, Some(code));
                }
            }
        }
    }

    /// A slot was compared with what the manifest says.
    pub(super) fn matched(
        &mut self,
        mut run: Boxed<Run>,
        place: Place,
        want: (Digest, u64),
        equal: bool,
        negate: bool,
    ) {
        if place == Place::Running {
            self.base_read(ImageId { digest: want.0, size: want.1 }, equal);
        } else if equal {
            run.verified = Some(want);
        }
        run.interpreter.answer(equal != negate);
        self.step(run);
    }

    /// The manifest fetches a payload: checks what can be checked before the first chunk.
    fn open(&mut self, mut run: Boxed<Run>, plan: FetchPlan) {
        let running = &self.boot.running;
        let sequence = run.envelope.manifest().sequence_number();
        if sequence == running.sequence && sequence > 0 && running.image != Some(plan.image_digest) {
            self.reject(Channel::Answers, Reason::Equivocation { version: sequence });
            return self.end(Outcome::Failed, Some(FailureCode::Rollback));
        }
        let ordered = self.record.deployment.as_ref().map(|deployment| deployment.order.image_size);
        if ordered != Some(plan.image_size) {
            self.reject(Channel::Answers, Reason::WrongRelease);
            return self.end(Outcome::Failed, Some(FailureCode::Unauthentic));
        }
        let memory = plan.transfer.decoder.map_or(0, |decoder| u64::from(decoder.memory_bytes));
        if memory > self.config.memory_max_kib * 1024 {
            return self.end(Outcome::Failed, Some(FailureCode::Unsupported));
        }
        let opening = Opening {
            envelope: run.envelope.bytes().to_vec(),
            release: run.envelope.digest(),
            sequence,
            image: plan.image_digest,
            image_size: plan.image_size,
            transfer: plan.transfer,
            base: plan.base,
        };
        run.plan = Some(plan);
        let op = self.store(StoreOp::Open(Boxed::new(opening)));
        self.work = Work::Opening { run, op };
    }

    /// The medium is ready, or is not.
    pub(super) fn opened(&mut self, op: OpId, result: Result<Found, StoreFailure>) {
        let work = core::mem::replace(&mut self.work, Work::Idle);
        let Work::Opening { run, op: expected } = work else {
            self.work = work;
            return;
        };
        let (Some(plan), true) = (&run.plan, expected == op) else {
            self.work = Work::Opening { run, op: expected };
            return;
        };
        let tag = plan.transfer.tag();
        match result {
            Ok(found) => {
                let download = Download::new(plan.image_digest, &plan.transfer, found);
                let before = self.record.deployment.as_ref().map_or((0, 0), Deployment::spent);
                self.work = Work::Downloading(Boxed::new(Downloading::new(run, download, before, self.now)));
            }
            // What has no room changed nothing, and may not be needed.
            Err(StoreFailure::NoRoom) if run.fetches_patch() => {
                let (mut run, payload) = (run, tag);
                self.tell(Event::PatchFailed { payload, why: PatchFailure::NoRoom });
                run.fetched(true);
                self.step(run);
            }
            Err(failure) => {
                self.tell(Event::StoreFailed(failure));
                self.defer(failure);
            }
        }
    }
}

/// What is reported of a manifest that is not run.
fn code_of(error: ManifestError) -> FailureCode {
    match error {
        ManifestError::Malformed(_) | ManifestError::Version { .. } => FailureCode::Malformed,
        _ => FailureCode::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::DecodeError;

    #[test]
    fn a_manifest_that_cannot_be_read_is_malformed_and_any_other_that_is_not_run_unsupported() {
        let unread = DecodeError::value("manifest");
        for error in [ManifestError::Malformed(unread), ManifestError::Version { got: 2 }] {
            assert_eq!(code_of(error), FailureCode::Malformed);
        }
        assert_eq!(code_of(ManifestError::NotValidated), FailureCode::Unsupported);
    }
}
