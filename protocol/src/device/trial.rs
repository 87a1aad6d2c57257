//! The trial of a new image: what a session makes of it at its start, health, and confirm or revert (SPEC section 8.8).

use core::ops::ControlFlow::{Break, Continue};

use super::config::Trial;
use super::context::Context;
use super::ending::Ended;
use super::install::{Rebooting, armed};
use super::io::{HostOp, InstallFailure, InstallOp};
use super::link::Link;
use super::record::{Deployment, Stage};
use super::slots::Slots;
use super::timer::{Timer, Timers};
use super::work::{Answer, Next, Phase};
use crate::ids::OpId;
use crate::message::FailureCode;
use crate::time::Instant;

/// The state of work while a new image runs and is not confirmed yet.
#[derive(Debug)]
pub(super) struct Testing {
    since: Instant,
    health: Health,
}

#[derive(Clone, Copy, Debug)]
enum Health {
    /// To be checked, at this time.
    Due(Instant),
    /// Being checked.
    Checking(OpId),
    /// Good; what is missing is an answer of the service.
    Good,
}

/// The state of work while the new image is made permanent.
#[derive(Debug)]
pub(super) struct Confirming {
    pub(super) op: OpId,
}

/// The state of work while the old image is made the next to start.
#[derive(Debug)]
pub(super) struct Reverting {
    pub(super) op: OpId,
}

/// How long to wait before a health check that asked for more time is run again.
const HEALTH_RETRY_MS: u64 = 10_000;
/// Times that a trial boot is armed before the image is given up.
const ARMS_MAX: u32 = 3;

/// What the boot control and the record say together, at the start of a session.
pub(super) fn resume(cx: &mut Context, slots: &Slots) -> Next {
    let Some(Deployment { order, stage, arms, .. }) = cx.deployment() else {
        return Continue(Phase::Idle);
    };
    let runs_new = slots.boot.running.release == Some(order.release);
    let (stage, arms) = (*stage, *arms);
    match (stage, slots.boot.trial) {
        (Stage::Reverting(code), Trial::Running) => Continue(Reverting::begin(cx, code)),
        (Stage::Reverting(code), _) => Break(Ended::reverted(code)),
        (_, Trial::Running) if runs_new => Continue(Testing::begin(cx, stage)),
        (Stage::Fetching, _) => Continue(Phase::Idle),
        // Confirmed, and cut off before the record said so.
        (_, Trial::None) if runs_new => Break(Ended::CONFIRMED),
        // Cut off before the restart, or the boot loader did not start what is armed: not for ever.
        (Stage::Armed, Trial::Armed) if arms < ARMS_MAX => Continue(armed(cx)),
        (Stage::Armed, Trial::Armed) => Continue(Reverting::begin(cx, FailureCode::NotBooted)),
        (_, Trial::Failed) => Break(Ended::reverted(FailureCode::NotBooted)),
        // Armed, and the boot environment was lost since: the image is still there.
        (Stage::Armed | Stage::Installed, _) if arms < ARMS_MAX => Continue(Phase::Installed),
        (Stage::Armed | Stage::Installed, _) => Break(Ended::reverted(FailureCode::NotBooted)),
    }
}

impl Testing {
    /// The image of the deployment runs and is not confirmed. The boot control knows better than a record that
    /// lags behind because its newest copy was lost: from here on nothing is called off any more.
    fn begin(cx: &mut Context, stage: Stage) -> Phase {
        if stage == Stage::Fetching {
            cx.change_deployment(|deployment| deployment.stage = Stage::Installed);
        }
        Phase::Testing(Self { since: cx.now, health: Health::Due(cx.now) })
    }

    /// The health check that is under way.
    pub(super) const fn op(&self) -> Option<OpId> {
        match self.health {
            Health::Checking(op) => Some(op),
            Health::Due(_) | Health::Good => None,
        }
    }

    /// The health check is done.
    pub(super) fn done(self, cx: &mut Context, result: Answer) -> Phase {
        let health = match result {
            Ok(()) => Health::Good,
            Err(InstallFailure::Retry)
                if cx.now.millis_since(self.since) < cx.config.health_limit_s * 1000 =>
            {
                Health::Due(cx.now.plus_millis(HEALTH_RETRY_MS))
            }
            Err(_) => return Reverting::begin(cx, FailureCode::Unhealthy),
        };
        Phase::Testing(Self { health, ..self })
    }

    /// Decides about the image, as far as that can be decided now.
    pub(super) fn judge(self, cx: &mut Context, link: &Link) -> Phase {
        match self.health {
            Health::Due(at) if at <= cx.now => {
                let health = Health::Checking(cx.outputs.host(HostOp::CheckHealth));
                Phase::Testing(Self { health, ..self })
            }
            // An answer to our nonce proves that the next update is possible.
            Health::Good if link.is_answered() || cx.config.reach_limit_s == 0 => {
                Phase::Confirming(Confirming { op: cx.outputs.install(InstallOp::Confirm) })
            }
            Health::Good if link.unanswered_ms(cx.now) >= cx.config.reach_limit_s * 1000 => {
                Reverting::begin(cx, FailureCode::Unreached)
            }
            Health::Due(_) | Health::Checking(_) | Health::Good => Phase::Testing(self),
        }
    }

    pub(super) fn set_timers(&self, cx: &Context, link: &Link, timers: &mut Timers) {
        match self.health {
            Health::Due(at) => timers.set(Timer::Health, Some(at)),
            Health::Checking(_) => {}
            Health::Good => {
                let left = (cx.config.reach_limit_s * 1000).saturating_sub(link.unanswered_ms(cx.now));
                timers.set(Timer::Reach, link.is_up().then(|| cx.now.plus_millis(left)));
            }
        }
    }
}

impl Confirming {
    pub(super) fn done(self, cx: &mut Context, slots: &mut Slots, result: Answer) -> Next {
        if result.is_err() {
            return Continue(Reverting::begin(cx, FailureCode::BootControl));
        }
        slots.confirmed(cx.deployment().map(|deployment| deployment.order.sequence));
        Break(Ended::CONFIRMED)
    }
}

impl Reverting {
    /// The new image is given up.
    fn begin(cx: &mut Context, code: FailureCode) -> Phase {
        cx.change_deployment(|deployment| deployment.stage = Stage::Reverting(code));
        Phase::Reverting(Self { op: cx.outputs.install(InstallOp::Revert) })
    }

    /// The old image is the next to start, or the boot control failed: a restart shows what it does.
    pub(super) fn done(self, cx: &mut Context) -> Phase {
        Rebooting::begin(cx)
    }
}
