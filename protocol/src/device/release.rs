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
use crate::message::{DeferReason, DocumentRequest, FailureCode, Order};
use crate::time::Instant;
use crate::topic::Channel;
use crate::trust::Root;

/// The state of work whose manifest is being fetched.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// When to ask again; `None` for at once.
    ask_at: Option<Instant>,
    /// Times that it was asked for. Each doubles the wait before the next.
    asked: u8,
    /// The last question still waits for the manifest that was ordered, good or bad.
    is_awaited: bool,
    /// Times that the manifest came as an answer and was of no use, because of something that no signature covers.
    /// Each doubles the wait before the next question.
    spoiled: u8,
    /// The service refused the last question; what that means for people.
    refused: Option<DeferReason>,
}

/// Why an envelope is not taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotTaken {
    /// It is not the one that is waited for. Anybody can send such a thing, and it ends nothing.
    Other(Reason),
    /// It has the digest that the campaign's signature names, and does not pass.
    Ordered(VerifyError),
}

/// Longest wait after an envelope whose unsigned parts are bad or missing: 6 h.
const SPOILED_CAP_MS: u64 = 6 * 3_600_000;
/// Questions without any answer, after which other news is not held up any more.
const UNANSWERED_MAX: u8 = 2;

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
        self.asked = self.asked.saturating_add(1);
        (self.is_awaited, self.refused) = (true, None);
        self.ask_at = Some(cx.after_about(wait));
        cx.request(DocumentRequest::Manifest(release.short()).encode());
    }

    /// The link is gone: asks at once when there is another, unless what came was bad. Otherwise whoever spoils
    /// envelopes and cuts links would have the device ask for one in every connection.
    pub(super) const fn disconnected(&mut self) {
        (self.is_awaited, self.refused) = (false, None);
        if !self.is_spoiled() {
            (self.ask_at, self.asked) = (None, 0);
        }
    }

    /// The service refused. Returns how many milliseconds to wait, before jitter.
    pub(super) fn refused(&mut self, cx: &mut Context, wait_ms: Option<u64>, reason: DeferReason) -> u64 {
        let wait = wait_ms.unwrap_or(RETRY_MS << self.asked.min(8)).clamp(REFUSED_MS_MIN, RETRY_CAP_MS);
        self.refused = Some(reason);
        // Never sooner than without the refusal, however many come.
        self.wait(cx, wait);
        wait
    }

    /// Asks again after about `ms` milliseconds, or later if that was decided before.
    fn wait(&mut self, cx: &mut Context, ms: u64) {
        let at = cx.after_about(ms);
        self.ask_at = Some(self.ask_at.map_or(at, |other| other.max(at)));
    }

    /// An envelope with the right digest did not pass. Returns how that ends the deployment, if it does.
    pub(super) fn not_passed(&mut self, cx: &mut Context, error: VerifyError) -> Option<Ended> {
        match error {
            // Release keys signed the manifest, and a campaign key its digest: it stays wrong for ever.
            VerifyError::Manifest(error) if error.is_signed() => return Some(Ended::failed(code_of(error))),
            // Anybody on the way can have spoiled the rest. Further copies of the same answer are no reason to wait
            // for longer.
            _ if self.is_awaited => {
                self.is_awaited = false;
                let wait = (RETRY_MS << self.spoiled.min(11)).min(SPOILED_CAP_MS);
                self.spoiled = self.spoiled.saturating_add(1);
                self.wait(cx, wait);
            }
            _ => {}
        }
        None
    }

    /// Whether the manifest came as an answer and was of no use.
    pub(super) const fn is_spoiled(&self) -> bool {
        self.spoiled > 0
    }

    /// Whether the next question is far away, so that nothing is held up for it.
    pub(super) const fn stands_still(&self) -> bool {
        self.is_spoiled() || self.refused.is_some() || self.asked > UNANSWERED_MAX
    }

    /// Why it stands still.
    pub(super) const fn waits_for(&self) -> DeferReason {
        match self.refused {
            _ if self.is_spoiled() => DeferReason::BadEnvelope,
            Some(reason) => reason,
            None => DeferReason::Retry,
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
///
/// # Errors
/// If a part of it is missing that is sent beside it.
pub(super) fn execute(
    cx: &mut Context,
    slots: &Slots,
    envelope: Envelope<Verified>,
    order: &Order,
) -> Result<Next, NotTaken> {
    let running = &slots.boot.running;
    let sequence = envelope.manifest().sequence_number();
    if sequence != order.sequence {
        cx.reject(Channel::Answers, Reason::WrongRelease);
        return Ok(Break(Ended::failed(FailureCode::Unauthentic)));
    }
    if sequence < running.sequence {
        cx.reject(Channel::Answers, Reason::Rollback { got: sequence, known: running.sequence });
        return Ok(Break(Ended::failed(FailureCode::Rollback)));
    }
    // Another envelope of the release that runs, with other patches perhaps: there is nothing to install.
    let mut images = envelope.manifest().images().into_iter();
    if sequence == running.sequence && images.any(|image| running.image == Some(image.digest)) {
        return Ok(Break(Ended::CONFIRMED));
    }
    match Interpreter::new(&envelope, &slots.identity(&cx.config), Procedure::Update) {
        Ok(interpreter) => Ok(Run::new(interpreter, envelope).step(cx, slots)),
        Err(error) if error.is_signed() => {
            cx.reject(Channel::Answers, Reason::WrongEnvelope(error.into()));
            Ok(Break(Ended::failed(code_of(error))))
        }
        // The digest of a part is signed, and that the part is sent along is not.
        Err(error) => Err(NotTaken::Ordered(error.into())),
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
