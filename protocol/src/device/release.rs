//! The manifest of an order: asked for, and verified before anything in it counts.

use core::ops::ControlFlow::Break;

use super::context::Context;
use super::ending::Ended;
use super::event::Reason;
use super::hello::REFUSED_MS_MIN;
use super::run::Run;
use super::slots::Slots;
use super::work::{Next, RETRY_CAP_MS, RETRY_MS};
use crate::cose::Accept;
use crate::envelope::{Envelope, Verified, VerifyError};
use crate::ids::Digest;
use crate::manifest::{Interpreter, ManifestError, Procedure};
use crate::message::{DocumentRequest, FailureCode, Order};
use crate::time::Instant;
use crate::topic::Channel;
use crate::trust::Root;

/// The state of work whose manifest is being fetched.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// When to ask again; `None` for at once.
    ask_at: Option<Instant>,
    /// Manifests of the right digest whose signatures did not count.
    unauthentic: u32,
    /// Times that it was asked for. Each doubles the wait before the next.
    asked: u32,
}

/// Why an envelope is not taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotTaken {
    /// It is not the one that is waited for. Anybody can send such a thing, and it ends nothing.
    Other(Reason),
    /// It has the digest that the campaign's signature names, and does not pass.
    Ordered(VerifyError),
}

/// An attempt fails after this many manifests with the right digest and no valid signature.
const UNAUTHENTIC_MAX: u32 = 3;

impl NotTaken {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Other(reason) => reason,
            Self::Ordered(error) => Reason::WrongEnvelope(error),
        }
    }
}

impl Offered {
    /// Asks for the manifest of `release` if it is time.
    pub(super) fn ask(&mut self, cx: &mut Context, release: Digest) {
        if self.ask_at.is_some_and(|at| cx.now < at) {
            return;
        }
        let wait = (RETRY_MS << self.asked.min(8)).min(RETRY_CAP_MS);
        self.asked += 1;
        self.ask_at = Some(cx.after_about(wait));
        cx.request(DocumentRequest::Manifest(release.short()).encode());
    }

    /// The link is gone: asks at once when there is another.
    pub(super) const fn disconnected(&mut self) {
        self.ask_at = None;
    }

    /// The service refused. Returns how many milliseconds to wait, before jitter.
    pub(super) fn refused(&mut self, cx: &mut Context, wait_ms: Option<u64>) -> u64 {
        let wait = wait_ms.unwrap_or(RETRY_MS << self.asked.min(8)).clamp(REFUSED_MS_MIN, RETRY_CAP_MS);
        // Never sooner than without the refusal, however many come.
        self.ask_at = self.ask_at.max(Some(cx.after_about(wait)));
        wait
    }

    /// An envelope with the right digest did not pass. Returns how that ends the deployment, if it does.
    pub(super) fn not_passed(&mut self, error: VerifyError) -> Option<Ended> {
        match error {
            VerifyError::Manifest(error) if error.is_signed() => Some(Ended::failed(code_of(error))),
            VerifyError::Unsigned | VerifyError::Unauthentic(_) => {
                self.unauthentic += 1;
                (self.unauthentic >= UNAUTHENTIC_MAX).then_some(Ended::failed(FailureCode::Unauthentic))
            }
            _ => None,
        }
    }

    pub(super) const fn ask_at(&self) -> Option<Instant> {
        self.ask_at
    }
}

/// Verifies the envelope of `order`.
///
/// # Errors
/// Why it is not taken.
pub(super) fn verify(
    cx: &Context,
    root: &Root,
    order: &Order,
    bytes: &[u8],
) -> Result<Envelope<Verified>, NotTaken> {
    let accept = if cx.config.accept_es256 { Accept::WITH_ES256 } else { Accept::STRICT };
    match Envelope::decode(bytes) {
        // Only what the campaign's signature names can end the attempt: anybody can send something else.
        Ok(envelope) if envelope.claimed_digest() == order.release => {
            envelope.verify(root, accept).map_err(NotTaken::Ordered)
        }
        Ok(_) => Err(NotTaken::Other(Reason::WrongRelease)),
        Err(error) => Err(NotTaken::Other(Reason::WrongEnvelope(error))),
    }
}

/// Executes a verified manifest.
pub(super) fn execute(cx: &mut Context, slots: &Slots, envelope: Envelope<Verified>, order: &Order) -> Next {
    let running = &slots.boot.running;
    let sequence = envelope.manifest().sequence_number();
    if sequence != order.sequence {
        cx.reject(Channel::Answers, Reason::WrongRelease);
        return Break(Ended::failed(FailureCode::Unauthentic));
    }
    if sequence < running.sequence {
        cx.reject(Channel::Answers, Reason::Rollback { got: sequence, known: running.sequence });
        return Break(Ended::failed(FailureCode::Rollback));
    }
    // Another envelope of the release that runs, with other patches perhaps: there is nothing to install.
    let mut images = envelope.manifest().images().into_iter();
    if sequence == running.sequence && images.any(|image| running.image == Some(image.digest)) {
        return Break(Ended::CONFIRMED);
    }
    match Interpreter::new(&envelope, &slots.identity(&cx.config), Procedure::Update) {
        Ok(interpreter) => Run::new(interpreter, envelope).step(cx, slots),
        Err(error) => {
            cx.reject(Channel::Answers, Reason::WrongEnvelope(error.into()));
            Break(Ended::failed(code_of(error)))
        }
    }
}

/// What is reported of a manifest that is not run.
pub(super) fn code_of(error: ManifestError) -> FailureCode {
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
