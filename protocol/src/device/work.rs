//! What the session is busy with, and what time, lost links and refusals do to it.

use super::fetch::{Downloading, FLUSH_MS};
use super::install::Testing;
use super::io::{Place, StoreFailure};
use super::release::Run;
use super::{Boxed, DeviceSession};
use crate::ids::{Digest, OpId};
use crate::message::{DeferReason, Refusal, RefusalCode, State};
use crate::time::Instant;

/// What the session is busy with. One deployment at a time.
#[derive(Debug)]
pub(super) enum Work {
    /// Nothing, or waiting for an order.
    Idle,
    /// An order that may not begin or go on before `until`.
    Deferred { until: Instant, reason: DeferReason },
    /// Fetching the manifest.
    Offered(Offered),
    /// A slot is being compared with what the manifest says.
    Matching { run: Boxed<Run>, op: OpId, place: Place, want: (Digest, u64), negate: bool },
    /// The medium is being made ready.
    Opening { run: Boxed<Run>, op: OpId },
    /// Fetching chunks.
    Downloading(Boxed<Downloading>),
    /// The image is being written and checked.
    Installing { run: Boxed<Run>, op: OpId },
    /// Waits until it is durable that a patch is not tried again.
    GivingUp(Boxed<Run>),
    /// Waits until it is durable that the image is installed.
    Installed,
    /// The trial boot is being armed.
    Activating(OpId),
    /// Waits until it is durable that the trial boot is armed.
    Armed,
    /// The device is about to start what the boot control chooses.
    Rebooting(OpId),
    /// The new image runs and proves itself.
    Testing(Testing),
    /// The new image is being made permanent.
    Confirming(OpId),
    /// The old image is being made the next to start.
    Reverting(OpId),
}

/// A manifest that is being fetched.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// When to ask (again).
    pub(super) ask_at: Option<Instant>,
    /// Manifests of the right digest whose signatures did not count.
    pub(super) unauthentic: u32,
    /// Questions asked.
    pub(super) asked: u32,
}

/// How long to wait for room on the medium.
const ROOM_MS: u64 = 600_000;
/// How long to wait after a failure for now, doubled each time up to the cap.
pub(super) const RETRY_MS: u64 = 15_000;
pub(super) const RETRY_CAP_MS: u64 = 3_600_000;

impl Work {
    /// The state that this work is shown as; `None` where nothing is going on.
    pub(super) fn state(&self) -> Option<(State, Option<DeferReason>)> {
        Some(match self {
            Self::Idle => return None,
            Self::Deferred { reason, .. } => (State::Deferred, Some(*reason)),
            Self::Offered(_) | Self::Matching { .. } | Self::Opening { .. } => (State::Offered, None),
            Self::Downloading(work) => match work.paused {
                Some((_, reason)) => (State::Deferred, Some(reason)),
                None if work.download.is_complete() => (State::Downloaded, None),
                None => (State::Downloading, None),
            },
            Self::Installing { .. } | Self::GivingUp(_) => (State::Installing, None),
            Self::Installed | Self::Activating(_) | Self::Armed | Self::Rebooting(_) => {
                (State::Rebooting, None)
            }
            Self::Testing(_) | Self::Confirming(_) | Self::Reverting(_) => (State::Testing, None),
        })
    }
}

impl DeviceSession {
    /// Goes on as far as what is durable allows. `true` where another round may bring more.
    pub(super) fn advance(&mut self) -> bool {
        if self.reconsider() {
            return true;
        }
        match &self.work {
            Work::Idle => self.begin(),
            Work::Deferred { until, .. } if *until <= self.now => {
                self.work = Work::Idle;
                true
            }
            Work::Offered(_) => self.fetch_manifest(),
            Work::Downloading(_) => self.pump(),
            Work::GivingUp(_) => self.gave_up(),
            Work::Installed => self.activate(),
            Work::Armed => {
                self.reboot();
                false
            }
            Work::Testing(_) => self.judge(),
            _ => false,
        }
    }

    /// Whether a download is going on, so that nothing else should use the link.
    pub(super) fn is_fetching(&self) -> bool {
        match &self.work {
            Work::Offered(_) | Work::Matching { .. } | Work::Opening { .. } => true,
            Work::Downloading(work) => work.paused.is_none(),
            _ => false,
        }
    }

    /// Stops for now, because the medium does not do what it should; what is held stays.
    pub(super) fn defer(&mut self, failure: StoreFailure) {
        let (wait, reason) = match failure {
            StoreFailure::NoRoom => (ROOM_MS, DeferReason::Room),
            StoreFailure::Failed => (4 * RETRY_MS, DeferReason::Retry),
        };
        self.work = Work::Deferred { until: self.now.plus_millis(self.jitter.lengthened(wait)), reason };
    }

    pub(super) fn work_disconnected(&mut self) {
        match &mut self.work {
            Work::Offered(offered) => offered.ask_at = None,
            Work::Downloading(work) => {
                work.download.forget_outstanding();
                work.probe = None;
                if work.checkpoint.is_none() && work.download.has_unflushed() {
                    self.checkpoint();
                }
            }
            _ => {}
        }
    }

    /// Whether a refusal can be the answer to what is being asked for, and not to what was asked for earlier or
    /// was replayed.
    pub(super) fn concerns_work(&self, refusal: Refusal) -> bool {
        let missing = matches!(refusal.code, RefusalCode::NotYours | RefusalCode::NotFound);
        match &self.work {
            Work::Offered(_) => refusal.payload.is_none(),
            Work::Downloading(work) => match refusal.payload {
                Some(payload) => payload == work.download.tag(),
                // What is missing is always named.
                None => !missing,
            },
            _ => false,
        }
    }

    /// The service refused a request. Unsigned, so it can delay and nothing more.
    pub(super) fn work_refused(&mut self, code: RefusalCode, wait_ms: Option<u64>) {
        let missing = matches!(code, RefusalCode::NotYours | RefusalCode::NotFound);
        let wait = match &mut self.work {
            Work::Offered(offered) => {
                let wait = wait_ms.unwrap_or(RETRY_MS << offered.asked.min(8)).min(RETRY_CAP_MS);
                offered.ask_at = Some(self.now.plus_millis(self.jitter.lengthened(wait)));
                wait
            }
            Work::Downloading(work) => {
                let wait = wait_ms.unwrap_or(RETRY_MS << work.pauses.min(8)).min(RETRY_CAP_MS);
                work.pauses += 1;
                work.download.forget_outstanding();
                work.probe = None;
                let reason = if missing { DeferReason::Retry } else { DeferReason::Busy };
                let until = self.now.plus_millis(self.jitter.lengthened(wait));
                work.paused = Some((until, reason));
                self.meter.idle();
                wait
            }
            _ => return,
        };
        if missing {
            // Perhaps the deployment was called off: the answer to a hello says so, signed.
            self.hello_within(wait.min(RETRY_MS));
        }
    }

    /// What time alone brings about.
    pub(super) fn work_timers(&mut self) {
        let heard = self.last_heard();
        let sees_activity = self.config.sees_activity;
        if let (Work::Downloading(work), true) = (&mut self.work, self.link.is_up()) {
            let patience = self.meter.silence_ms(work.download.outstanding_bytes(), sees_activity);
            let since = heard.max(work.asked_at);
            if work.download.is_waiting() && self.now.millis_since(since) >= patience {
                let chunks = work.download.forget_outstanding();
                work.probe = None;
                self.silent(chunks);
            }
        }
    }

    pub(super) fn work_timeout(&self) -> Option<Instant> {
        match &self.work {
            Work::Deferred { until, .. } => Some(*until),
            Work::Offered(offered) => offered.ask_at.filter(|_| self.link.is_up()),
            Work::Downloading(work) => {
                let patience =
                    self.meter.silence_ms(work.download.outstanding_bytes(), self.config.sees_activity);
                let silence = (work.download.is_waiting() && self.link.is_up())
                    .then(|| self.last_heard().max(work.asked_at).plus_millis(patience));
                let paused = work.paused.map(|(until, _)| until);
                let flush = work
                    .unflushed_since
                    .filter(|_| work.checkpoint.is_none())
                    .map(|since| since.plus_millis(FLUSH_MS));
                [silence, paused, flush].into_iter().flatten().min()
            }
            Work::Testing(testing) => self.testing_timeout(testing),
            _ => None,
        }
    }

    /// Chunks held, and chunks in all where known.
    pub(super) fn progress(&self) -> (u32, u32) {
        match &self.work {
            Work::Downloading(work) => (work.download.held().len(), work.download.layout().chunk_count()),
            _ => (0, 0),
        }
    }

    /// Bytes received and bytes received twice.
    pub(super) fn ledger(&self) -> (u64, u64) {
        match (&self.work, &self.record.deployment) {
            (Work::Downloading(work), _) => work.ledger(),
            (_, Some(deployment)) => (deployment.bytes_received, deployment.bytes_twice),
            _ => self.last_ledger,
        }
    }
}
