//! The work on one deployment at a time. It is in one state; this file says what inputs, time and refusals do to each
//! state, and the states' own files what follows.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;
use core::ops::ControlFlow::{self, Break, Continue};

use super::config::BootView;
use super::context::Context;
use super::documents::Documents;
use super::ending::{Ended, Endings};
use super::event::Reason;
use super::fetch::{Checked, Downloading};
use super::install::{Activating, Installing, Rebooting};
use super::io::{Found, InstallFailure, StoreFailure};
use super::link::{Link, Silence};
use super::orders::Basis;
use super::patch::GivingUp;
use super::record::Record;
use super::release::{self, NotTaken, Offered};
use super::run::{Matching, Preparing};
use super::slots::Slots;
use super::timer::{Timer, Timers};
use super::trial::{self, Confirming, Reverting, Testing};
use crate::envelope::{Envelope, VerifyError};
use crate::ids::OpId;
use crate::message::{ChunkMessage, DeferReason, PageMessage, Refusal, RefusalCode};
use crate::time::Instant;
use crate::trust::Root;

/// The device's work on updates.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) phase: Phase,
    pub(super) slots: Slots,
    pub(super) endings: Endings,
    /// The envelope of the deployment in progress, if it is at hand.
    envelope: Option<Vec<u8>>,
    /// What ruled when the work was looked at last. Every wait of the work belongs to it.
    basis: Basis,
}

/// The state of the work. Each transition consumes a state and makes the next one.
#[derive(Debug, Default)]
pub(super) enum Phase {
    /// Nothing, or waiting for an order.
    #[default]
    Idle,
    /// An order may not begin or go on yet.
    Deferred(Deferred),
    /// The manifest is being fetched.
    Offered(Offered),
    /// A slot is being compared with what the manifest says.
    Matching(Matching),
    /// The medium is being made ready.
    Preparing(Preparing),
    /// Chunks are being fetched.
    Downloading(Box<Downloading>),
    /// The image is being written and checked.
    Installing(Installing),
    /// Waits until it is durable that a patch is not tried again.
    GivingUp(GivingUp),
    /// Waits until it is durable that the image is installed.
    Installed,
    /// The trial boot is being armed.
    Activating(Activating),
    /// Waits until it is durable that the trial boot is armed.
    Armed,
    /// The device is about to start what the boot control chooses.
    Rebooting(Rebooting),
    /// The new image runs and proves itself.
    Testing(Testing),
    /// The new image is being made permanent.
    Confirming(Confirming),
    /// The old image is being made the next to start.
    Reverting(Reverting),
}

/// What comes after a state: the next one, or the end of the deployment.
pub(super) type Next = ControlFlow<Ended, Phase>;

/// What the host answers to an operation on images, on the boot control, or of its own.
pub(super) type Answer = Result<(), InstallFailure>;

/// The state of work that may not begin or go on before `until`.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) until: Instant,
    pub(super) reason: DeferReason,
}

/// What a refusal of something that the work had asked for means for the link.
#[derive(Debug)]
pub(super) struct Refused {
    /// No chunks come for a while.
    pub(super) pauses_download: bool,
    /// Perhaps the deployment was called off: the answer to a hello that is asked this soon says so, signed.
    pub(super) ask_within_ms: Option<u64>,
}

/// How long to wait for room on the medium, if the host cannot tell when there is some.
const ROOM_MS: u64 = 600_000;
/// How long to wait after a failure for now, doubled each time up to the cap.
pub(super) const RETRY_MS: u64 = 15_000;
pub(super) const RETRY_CAP_MS: u64 = 3_600_000;

impl Deferred {
    /// Stops for now, because the medium does not do what it should; what is held stays.
    pub(super) fn of(cx: &mut Context, failure: StoreFailure) -> Self {
        let (wait, reason) = match failure {
            StoreFailure::NoRoom => (ROOM_MS, DeferReason::Room),
            StoreFailure::Failed => (4 * RETRY_MS, DeferReason::Retry),
        };
        Self { until: cx.after_about(wait), reason }
    }
}

impl Phase {
    /// The operation on images, on the boot control or of the host that this waits for.
    const fn install_op(&self) -> Option<OpId> {
        match self {
            Self::Matching(Matching { op, .. })
            | Self::Installing(Installing { op, .. })
            | Self::Activating(Activating { op })
            | Self::Rebooting(Rebooting { op })
            | Self::Confirming(Confirming { op })
            | Self::Reverting(Reverting { op }) => Some(*op),
            Self::Testing(testing) => testing.op(),
            _ => None,
        }
    }
}

impl Work {
    pub(super) fn new(record: &Record, boot: BootView, envelope: Option<Vec<u8>>) -> Self {
        let (slots, endings) = (Slots::new(boot), Endings::of(record));
        Self { phase: Phase::Idle, slots, endings, envelope, basis: Basis::default() }
    }

    /// Goes on from what the boot control and the record say together.
    pub(super) fn resume(&mut self, cx: &mut Context) {
        let next = trial::resume(cx, &self.slots);
        self.enter(cx, next);
    }

    /// Enters the next state, or ends the deployment.
    pub(super) fn enter(&mut self, cx: &mut Context, next: Next) {
        match next {
            Continue(phase) => self.phase = phase,
            Break(ended) => {
                let ledger = self.ledger(cx.record());
                self.phase = Phase::Idle;
                self.envelope = None;
                self.endings.end(cx, &self.slots.boot.running, ledger, ended);
            }
        }
    }

    /// Leaves the state for the one that `transition` makes of it.
    fn transition(
        &mut self,
        cx: &mut Context,
        transition: impl FnOnce(Phase, &mut Context, &mut Slots) -> Next,
    ) {
        let next = transition(mem::take(&mut self.phase), cx, &mut self.slots);
        self.enter(cx, next);
    }

    /// Whether the device fetches, or will soon restart or fetch, so that nothing else should use the link.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        match &self.phase {
            Phase::Matching(_) | Phase::Preparing(_) | Phase::GivingUp(_) => true,
            Phase::Installed | Phase::Activating(_) | Phase::Armed | Phase::Rebooting(_) => true,
            Phase::Installing(work) => now < work.news_at,
            // Whoever waits for long has to hear of news.
            Phase::Offered(offered) => !offered.stands_still(),
            Phase::Downloading(work) => work.paused_for().is_none(),
            _ => false,
        }
    }

    /// The kept envelope of the deployment in progress, if that waits for one. Another one is dropped.
    pub(super) fn take_kept_envelope(&mut self, record: &Record) -> Option<Vec<u8>> {
        let (Phase::Offered(_), Some(deployment)) = (&self.phase, &record.deployment) else {
            return None;
        };
        let release = deployment.order.release;
        self.envelope.take().filter(|bytes| {
            Envelope::decode(bytes).is_ok_and(|envelope| envelope.claimed_digest() == release)
        })
    }

    /// A SUIT envelope arrived, or is at hand.
    ///
    /// # Errors
    /// Why it is not taken. [`Work::not_passed`] has to be told, if it is the one that was ordered.
    pub(super) fn take_envelope(
        &mut self,
        cx: &mut Context,
        root: &Root,
        bytes: &[u8],
    ) -> Result<(), NotTaken> {
        let (Phase::Offered(_), Some(deployment)) = (&self.phase, cx.deployment()) else {
            return Err(NotTaken::Other(Reason::Unsolicited));
        };
        let order = deployment.order.clone();
        let envelope = release::verify(cx, root, &order, bytes)?;
        let next = release::execute(cx, &self.slots, envelope, &order)?;
        self.envelope = Some(bytes.to_vec());
        self.enter(cx, next);
        Ok(())
    }

    /// The envelope that was ordered did not pass.
    pub(super) fn not_passed(&mut self, cx: &mut Context, error: VerifyError) {
        if let Phase::Offered(offered) = &mut self.phase
            && let Some(ended) = offered.not_passed(cx, error)
        {
            self.enter(cx, Break(ended));
        }
    }

    fn downloading(&mut self) -> Option<&mut Downloading> {
        match &mut self.phase {
            Phase::Downloading(work) => Some(work),
            _ => None,
        }
    }

    pub(super) fn chunks(&mut self, cx: &mut Context, message: &ChunkMessage<'_>, len: usize) -> Checked {
        let unasked = Checked::unasked(len, Reason::Unsolicited);
        self.downloading().map_or(unasked, |work| work.chunks(cx, message, len))
    }

    pub(super) fn page(&mut self, cx: &mut Context, message: &PageMessage<'_>, len: usize) -> Checked {
        let unasked = Checked::unasked(len, Reason::Unsolicited);
        self.downloading().map_or(unasked, |work| work.page(cx, message, len))
    }

    /// The service's clock came with an answer: a start time that was waited for by an earlier one is looked at anew.
    pub(super) fn clock_set(&mut self, now: Instant) {
        if let Phase::Deferred(deferred) = &mut self.phase
            && deferred.reason == DeferReason::Window
        {
            deferred.until = now;
        }
    }

    /// Something else rules than when the wait began, if the work waits: it is looked at anew. `true` if the work has
    /// to begin again.
    fn end_wait(&mut self) -> bool {
        match &mut self.phase {
            Phase::Deferred(_) => {
                self.phase = Phase::Idle;
                return true;
            }
            Phase::Offered(offered) => *offered = Offered::default(),
            Phase::Downloading(work) => work.end_pause(),
            _ => {}
        }
        false
    }

    /// The service refused a request. Unsigned, so it can delay and nothing more. `None` if the refusal cannot be the
    /// answer to what is being asked for: it was for something earlier, or is replayed.
    pub(super) fn refused(
        &mut self,
        cx: &mut Context,
        refusal: Refusal,
        wait_ms: Option<u64>,
    ) -> Option<Refused> {
        let missing = matches!(refusal.code, RefusalCode::NotYours | RefusalCode::NotFound);
        let reason = if missing { DeferReason::Retry } else { DeferReason::Busy };
        let (pauses_download, wait) = match &mut self.phase {
            Phase::Offered(offered) if refusal.payload.is_none() => {
                (false, offered.refused(cx, wait_ms, reason))
            }
            Phase::Downloading(work) if work.concerns(refusal, missing) => {
                (true, work.refused(cx, wait_ms, reason))
            }
            _ => return None,
        };
        Some(Refused { pauses_download, ask_within_ms: missing.then_some(wait.min(RETRY_MS)) })
    }

    pub(super) fn disconnected(&mut self, cx: &mut Context) {
        match &mut self.phase {
            Phase::Offered(offered) => offered.disconnected(),
            Phase::Downloading(work) => work.disconnected(cx),
            _ => {}
        }
    }

    /// What the medium or the host could not do may be possible now: a wait for that ends.
    pub(super) fn try_again(&mut self, now: Instant) {
        if let Phase::Deferred(deferred) = &mut self.phase
            && matches!(deferred.reason, DeferReason::Room | DeferReason::Retry)
        {
            deferred.until = now;
        }
    }

    /// Nothing came for too long: what was asked for counts as lost.
    pub(super) fn silent(&mut self, cx: &Context, link: &Link) -> Option<Silence> {
        self.downloading().map(|work| work.silent(cx, link))
    }

    /// What is asked for does not arrive: it is asked for more and more rarely.
    pub(super) fn pause_download(&mut self, cx: &mut Context) {
        if let Some(work) = self.downloading() {
            work.pause(cx);
        }
    }

    /// A write or a checkpoint is done.
    pub(super) fn stored(&mut self, cx: &mut Context, op: OpId, result: Result<(), StoreFailure>) {
        if let Some(deferred) = self.downloading().and_then(|work| work.stored(cx, op, result)) {
            self.phase = Phase::Deferred(deferred);
        }
    }

    pub(super) fn opened(&mut self, cx: &mut Context, op: OpId, result: Result<Found, StoreFailure>) {
        self.transition(cx, |phase, cx, slots| match phase {
            Phase::Preparing(preparing) if preparing.op == op => preparing.done(cx, slots, result),
            other => Continue(other),
        });
    }

    pub(super) fn loaded(&mut self, op: OpId, bytes: Option<&[u8]>) {
        if let Some(work) = self.downloading() {
            work.loaded(op, bytes);
        }
    }

    /// An operation on images, on the boot control or of the host is done.
    pub(super) fn installed(&mut self, cx: &mut Context, op: OpId, result: Answer) {
        if self.phase.install_op() != Some(op) {
            return;
        }
        self.transition(cx, |phase, cx, slots| match phase {
            Phase::Matching(matching) => matching.done(cx, slots, result),
            Phase::Installing(installing) => installing.done(cx, slots, result),
            Phase::Activating(activating) => activating.done(cx, slots, result),
            Phase::Rebooting(rebooting) => Continue(rebooting.done(cx, result)),
            Phase::Testing(testing) => Continue(testing.done(cx, result)),
            Phase::Confirming(confirming) => confirming.done(cx, slots, result),
            Phase::Reverting(reverting) => Continue(reverting.done(cx)),
            other => Continue(other),
        });
    }

    /// Goes on as far as what is durable allows. `true` if another round may bring more.
    pub(super) fn advance(&mut self, cx: &mut Context, documents: &Documents, link: &Link) -> bool {
        let basis = documents.basis(cx.config.class, cx.record().min_sequence);
        if mem::replace(&mut self.basis, basis) != basis && self.end_wait() {
            return true;
        }
        match &mut self.phase {
            Phase::Idle => return self.begin(cx, documents.ruling(cx.config.class), link),
            Phase::Deferred(deferred) if deferred.until <= cx.now => {
                self.phase = Phase::Idle;
                return true;
            }
            Phase::Offered(offered) => {
                if link.is_up()
                    && let Some(release) = cx.deployment().map(|it| it.order.release)
                {
                    offered.ask(cx, release);
                }
                return false;
            }
            Phase::Downloading(work) if !work.is_done() => {
                work.pump(cx, link);
                return false;
            }
            _ => {}
        }
        let again = matches!(self.phase, Phase::GivingUp(_));
        self.transition(cx, |phase, cx, slots| match phase {
            Phase::Downloading(work) => Continue(Phase::Installing(work.install(cx))),
            Phase::GivingUp(patch) => patch.durable(cx, slots),
            Phase::Installed => Continue(Activating::begin(cx)),
            Phase::Armed => Continue(Rebooting::begin(cx)),
            Phase::Testing(testing) => Continue(testing.judge(cx, link)),
            other => Continue(other),
        });
        again
    }

    pub(super) fn set_timers(&self, cx: &Context, link: &Link, timers: &mut Timers) {
        match &self.phase {
            Phase::Deferred(deferred) => timers.set(Timer::Deferral, Some(deferred.until)),
            Phase::Offered(offered) => timers.set(Timer::Manifest, offered.ask_at().filter(|_| link.is_up())),
            Phase::Downloading(work) => work.set_timers(cx, link, timers),
            Phase::Testing(testing) => testing.set_timers(cx, link, timers),
            Phase::Installing(work) => timers.set(Timer::News, Some(work.news_at).filter(|at| cx.now < *at)),
            _ => {}
        }
    }
}
