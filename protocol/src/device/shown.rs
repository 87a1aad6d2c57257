//! What is shown of the work: the state, how far it is, and until when it waits.

use super::record::Record;
use super::work::{Phase, Work};
use crate::message::{DeferReason, FailureCode, State};
use crate::time::Instant;

impl Phase {
    /// The state that this is shown as; `None` if nothing is going on.
    fn state(&self) -> Option<(State, Option<DeferReason>)> {
        Some(match self {
            Self::Idle => return None,
            Self::Deferred(deferred) => (State::Deferred, Some(deferred.reason)),
            Self::Offered(offered) if offered.stands_still() => (State::Deferred, Some(offered.waits_for())),
            Self::Offered(_) | Self::Matching(_) | Self::Preparing(_) => (State::Offered, None),
            Self::Downloading(work) => match work.paused_for() {
                Some(reason) => (State::Deferred, Some(reason)),
                None if work.download().is_complete() => (State::Downloaded, None),
                None => (State::Downloading, None),
            },
            Self::Installing(_) | Self::GivingUp(_) => (State::Installing, None),
            Self::Installed | Self::Activating(_) | Self::Armed | Self::Rebooting(_) => {
                (State::Rebooting, None)
            }
            Self::Testing(_) | Self::Confirming(_) | Self::Reverting(_) => (State::Testing, None),
        })
    }
}

impl Work {
    /// The state that the device is shown in, what it is deferred for, and why the last deployment failed.
    pub(super) fn state(&self) -> (State, Option<DeferReason>, Option<FailureCode>) {
        match (self.phase.state(), self.endings.state()) {
            (Some((state, deferred)), _) => (state, deferred, None),
            (None, Some((state, failure))) => (state, None, failure),
            (None, None) => (State::Idle, None, None),
        }
    }

    /// Until when the work waits, in the states that are shown as deferred.
    pub(super) fn deferred_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Deferred(deferred) => Some(deferred.until),
            Phase::Offered(offered) if offered.stands_still() => offered.ask_at(),
            Phase::Downloading(work) => work.paused_until(),
            _ => None,
        }
    }

    /// Chunks held, and chunks in all if known.
    pub(super) fn progress(&self) -> (u32, u32) {
        match &self.phase {
            Phase::Downloading(work) => {
                (work.download().held().len(), work.download().layout().chunk_count())
            }
            _ => (0, 0),
        }
    }

    /// Bytes received and bytes received twice.
    pub(super) fn ledger(&self, record: &Record) -> (u64, u64) {
        match (&self.phase, &record.deployment) {
            (Phase::Downloading(work), _) => work.ledger(),
            (_, Some(deployment)) => (deployment.bytes_received, deployment.bytes_twice),
            _ => self.endings.ledger(),
        }
    }
}
