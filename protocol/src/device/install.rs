//! From a complete payload to a confirmed image: install, trial, health, confirm or revert (SPEC section 8.8).

use super::DeviceSession;
use super::config::Trial;
use super::io::{HostOp, InstallFailure, InstallOp, Place, StoreFailure};
use super::record::{Deployment, Stage};
use super::work::Work;
use crate::ids::OpId;
use crate::message::{FailureCode, Outcome};
use crate::time::Instant;

/// A new image that runs and is not confirmed yet.
#[derive(Debug)]
pub(super) struct Testing {
    since: Instant,
    health: Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// To be checked, at this time.
    Due(Instant),
    /// Being checked.
    Checking(OpId),
    /// Good; what is missing is an answer of the service.
    Good,
}

/// How long to wait before a health check that asked for more time is run again.
const HEALTH_RETRY_MS: u64 = 10_000;
/// Times that a trial boot is armed before the image is given up.
const ARMS_MAX: u64 = 3;

impl DeviceSession {
    /// At the start of a session: what the boot control and the record say together.
    pub(super) fn resume(&mut self) {
        let Some(Deployment { order, stage, arms, .. }) = &self.record.deployment else {
            return;
        };
        let runs_new = self.boot.running.release == Some(order.release);
        let (stage, arms) = (*stage, *arms);
        match (stage, self.boot.trial) {
            (Stage::Reverting(code), Trial::Running) => self.revert(code),
            (Stage::Reverting(code), _) => self.end(Outcome::Reverted, Some(code)),
            (_, Trial::Running) if runs_new => self.test(stage),
            (Stage::Fetching, _) => {}
            // Confirmed, and cut off before the record said so.
            (_, Trial::None) if runs_new => self.end(Outcome::Confirmed, None),
            // Cut off before the restart, or the boot loader did not start what is armed: not for ever.
            (Stage::Armed, Trial::Armed) if arms < ARMS_MAX => self.armed(),
            (Stage::Armed, Trial::Armed) => self.revert(FailureCode::NotBooted),
            (_, Trial::Failed) => self.end(Outcome::Reverted, Some(FailureCode::NotBooted)),
            // Armed, and the boot environment was lost since: the image is still there.
            (Stage::Armed | Stage::Installed, _) if arms < ARMS_MAX => self.work = Work::Installed,
            (Stage::Armed | Stage::Installed, _) => self.end(Outcome::Reverted, Some(FailureCode::NotBooted)),
        }
    }

    /// The image of the deployment runs and is not confirmed. The boot control knows better than a record that
    /// lags behind because its newest copy was lost: from here on nothing is called off any more.
    fn test(&mut self, stage: Stage) {
        if stage == Stage::Fetching {
            self.change(|record| {
                if let Some(deployment) = &mut record.deployment {
                    deployment.stage = Stage::Installed;
                }
            });
        }
        let health = Health::Due(self.now);
        self.work = Work::Testing(Testing { since: self.now, health });
    }

    /// The manifest has run to its end: the target slot holds the image, read back and compared.
    pub(super) fn image_is_installed(&mut self) {
        self.change(|record| {
            if let Some(deployment) = &mut record.deployment {
                deployment.stage = Stage::Installed;
            }
        });
        self.work = Work::Installed;
    }

    /// It is durable that the image is installed: arms the trial boot.
    pub(super) fn activate(&mut self) -> bool {
        let op = self.install(InstallOp::Activate);
        self.work = Work::Activating(op);
        false
    }

    /// The trial boot is armed: the restart comes when that is durable, because nothing comes after it.
    fn armed(&mut self) {
        self.change(|record| {
            if let Some(deployment) = &mut record.deployment {
                deployment.stage = Stage::Armed;
                deployment.arms += 1;
            }
        });
        self.work = Work::Armed;
    }

    pub(super) fn reboot(&mut self) {
        let op = self.host(HostOp::Reboot);
        self.work = Work::Rebooting(op);
    }

    fn revert(&mut self, code: FailureCode) {
        self.change(|record| {
            if let Some(deployment) = &mut record.deployment {
                deployment.stage = Stage::Reverting(code);
            }
        });
        let op = self.install(InstallOp::Revert);
        self.work = Work::Reverting(op);
    }

    /// An [`InstallOp`] or a [`HostOp`] is done.
    pub(super) fn installed(&mut self, op: OpId, result: Result<(), InstallFailure>) {
        match core::mem::replace(&mut self.work, Work::Idle) {
            Work::Matching { run, op: expected, place, want, negate } if op == expected => match result {
                Ok(()) => self.matched(run, place, want, true, negate),
                Err(InstallFailure::Mismatch) => self.matched(run, place, want, false, negate),
                // A base that can't be read is none.
                Err(_) if place == Place::Running => self.matched(run, place, want, false, negate),
                Err(_) => self.defer(StoreFailure::Failed),
            },
            Work::Installing { mut run, op: expected } if op == expected => match result {
                Err(failure) if let Some(why) = self.patch_failure(&run, failure) => self.give_up(run, why),
                Ok(()) => {
                    run.verified = run.plan.as_ref().map(|plan| (plan.image_digest, plan.image_size));
                    run.fetched(true);
                    self.step(run);
                }
                Err(InstallFailure::NoRoom) => self.defer(StoreFailure::NoRoom),
                Err(InstallFailure::Failed | InstallFailure::Retry) => self.defer(StoreFailure::Failed),
                Err(failure) => self.end(Outcome::Failed, Some(code_of(failure))),
            },
            Work::Activating(expected) if op == expected => match result {
                Ok(()) => {
                    self.boot.trial = Trial::Armed;
                    self.armed();
                }
                Err(InstallFailure::Mismatch) => self.end(Outcome::Failed, Some(FailureCode::Storage)),
                Err(_) => self.end(Outcome::Failed, Some(FailureCode::BootControl)),
            },
            Work::Rebooting(expected) if op == expected => match result {
                // The session ends with the reboot; a host that goes on makes a new one.
                Ok(()) => self.work = Work::Rebooting(op),
                Err(_) => {
                    let until = self.now.plus_millis(60_000);
                    self.work = Work::Deferred { until, reason: crate::message::DeferReason::Retry };
                }
            },
            Work::Testing(testing) => self.checked(testing, op, result),
            Work::Confirming(expected) if op == expected => match result {
                Ok(()) => self.confirmed(),
                Err(_) => self.revert(FailureCode::BootControl),
            },
            Work::Reverting(expected) if op == expected => self.reboot(),
            other => self.work = other,
        }
    }

    fn checked(&mut self, mut testing: Testing, op: OpId, result: Result<(), InstallFailure>) {
        if testing.health != Health::Checking(op) {
            self.work = Work::Testing(testing);
            return;
        }
        match result {
            Ok(()) => testing.health = Health::Good,
            Err(InstallFailure::Retry)
                if self.now.millis_since(testing.since) < self.config.health_limit_s * 1000 =>
            {
                testing.health = Health::Due(self.now.plus_millis(HEALTH_RETRY_MS));
            }
            Err(_) => return self.revert(FailureCode::Unhealthy),
        }
        self.work = Work::Testing(testing);
    }

    /// Decides about the image under test, as far as that can be decided now.
    pub(super) fn judge(&mut self) -> bool {
        let Work::Testing(Testing { since, health }) = self.work else {
            return false;
        };
        match health {
            Health::Due(at) if at <= self.now => {
                let op = self.host(HostOp::CheckHealth);
                self.work = Work::Testing(Testing { since, health: Health::Checking(op) });
            }
            // An answer to our nonce proves that the next update is possible.
            Health::Good if self.link.answered().is_some() || self.config.reach_limit_s == 0 => {
                let op = self.install(InstallOp::Confirm);
                self.work = Work::Confirming(op);
            }
            Health::Good if self.link.unanswered_ms(self.now) >= self.config.reach_limit_s * 1000 => {
                self.revert(FailureCode::Unreached);
            }
            Health::Due(_) | Health::Checking(_) | Health::Good => {}
        }
        false
    }

    pub(super) fn testing_timeout(&self, testing: &Testing) -> Option<Instant> {
        match testing.health {
            Health::Due(at) => Some(at),
            Health::Checking(_) => None,
            Health::Good => self.link.is_up().then(|| {
                let left =
                    (self.config.reach_limit_s * 1000).saturating_sub(self.link.unanswered_ms(self.now));
                self.now.plus_millis(left.max(1))
            }),
        }
    }

    /// The new image is permanent: its sequence number is the floor from now on.
    fn confirmed(&mut self) {
        self.boot.trial = Trial::None;
        self.boot.target_slot = 1 - self.boot.target_slot.min(1);
        if let Some(deployment) = &self.record.deployment {
            let sequence = deployment.order.sequence;
            self.boot.running.sequence = self.boot.running.sequence.max(sequence);
        }
        self.end(Outcome::Confirmed, None);
    }
}

/// One function maps what went wrong to what is reported.
fn code_of(failure: InstallFailure) -> FailureCode {
    match failure {
        InstallFailure::NoRoom => FailureCode::NoRoom,
        InstallFailure::Failed | InstallFailure::Retry => FailureCode::Storage,
        InstallFailure::Mismatch => FailureCode::Collision,
        InstallFailure::Decode => FailureCode::Decode,
        InstallFailure::Boot => FailureCode::BootControl,
        InstallFailure::Unhealthy => FailureCode::Unhealthy,
        InstallFailure::Hook => FailureCode::Hook,
    }
}
