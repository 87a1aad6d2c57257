//! From a complete payload to a restart into the new image: write and compare it, arm its trial boot, restart
//! (SPEC section 8.8). Each step is durable before the next begins.

use alloc::boxed::Box;
use core::ops::ControlFlow::{Break, Continue};

use super::config::Trial;
use super::context::Context;
use super::ending::Ended;
use super::io::{HostOp, InstallFailure, InstallOp, StoreFailure};
use super::patch::GivingUp;
use super::record::Stage;
use super::run::Fetch;
use super::slots::Slots;
use super::work::{Answer, Deferred, Next, Phase};
use crate::ids::OpId;
use crate::message::{DeferReason, FailureCode};
use crate::time::Instant;

/// The state of work while the image is written, read back and compared.
#[derive(Debug)]
pub(super) struct Installing {
    pub(super) fetch: Box<Fetch>,
    pub(super) op: OpId,
    /// From when on the device wants to hear of news although it has not restarted yet.
    pub(super) news_at: Instant,
}

/// The state of work while the trial boot is being armed.
#[derive(Debug)]
pub(super) struct Activating {
    pub(super) op: OpId,
}

/// The state of work while the host starts what the boot control chooses.
#[derive(Debug)]
pub(super) struct Rebooting {
    pub(super) op: OpId,
}

/// How long to wait before a failed restart is tried again.
const REBOOT_RETRY_MS: u64 = 60_000;
/// An installation that takes longer than this can be called off: the device subscribes to the topics that say so.
/// Most end sooner, with a restart, and what these topics hold would travel in vain.
const NEWS_MS: u64 = 10_000;

impl Installing {
    /// Begins to install what was fetched.
    pub(super) fn begin(cx: &mut Context, fetch: Box<Fetch>) -> Self {
        let op = cx.outputs.install(InstallOp::Install);
        Self { fetch, op, news_at: cx.now.plus_millis(NEWS_MS) }
    }

    pub(super) fn done(self, cx: &mut Context, slots: &mut Slots, result: Answer) -> Next {
        let Self { fetch, .. } = self;
        let Err(failure) = result else {
            return fetch.installed(cx, slots);
        };
        if fetch.is_patch()
            && let Some(why) = slots.patch_failure(failure)
        {
            return GivingUp::of(cx, slots, fetch, why);
        }
        let store_failure = match failure {
            InstallFailure::NoRoom => StoreFailure::NoRoom,
            InstallFailure::Failed | InstallFailure::Retry => StoreFailure::Failed,
            failure => return Break(Ended::failed(code_of(failure))),
        };
        Continue(Phase::Deferred(Deferred::of(cx, store_failure)))
    }
}

/// The manifest has run to its end: the target slot holds the image, read back and compared.
pub(super) fn image_is_installed(cx: &mut Context) -> Phase {
    cx.change_deployment(|deployment| deployment.stage = Stage::Installed);
    Phase::Installed
}

impl Activating {
    /// It is durable that the image is installed: arms the trial boot.
    pub(super) fn begin(cx: &mut Context) -> Phase {
        Phase::Activating(Self { op: cx.outputs.install(InstallOp::Activate) })
    }

    pub(super) fn done(self, cx: &mut Context, slots: &mut Slots, result: Answer) -> Next {
        match result {
            Ok(()) => {
                slots.boot.trial = Trial::Armed;
                Continue(armed(cx))
            }
            Err(InstallFailure::Mismatch) => Break(Ended::failed(FailureCode::Storage)),
            Err(_) => Break(Ended::failed(FailureCode::BootControl)),
        }
    }
}

/// The trial boot is armed: the restart comes when that is durable, because nothing comes after it.
pub(super) fn armed(cx: &mut Context) -> Phase {
    cx.change_deployment(|deployment| {
        deployment.stage = Stage::Armed;
        deployment.arms += 1;
    });
    Phase::Armed
}

impl Rebooting {
    pub(super) fn begin(cx: &mut Context) -> Phase {
        Phase::Rebooting(Self { op: cx.outputs.host(HostOp::Reboot) })
    }

    pub(super) fn done(self, cx: &Context, result: Answer) -> Phase {
        match result {
            // The session ends with the reboot; a host that goes on makes a new one.
            Ok(()) => Phase::Rebooting(self),
            Err(_) => {
                let until = cx.now.plus_millis(REBOOT_RETRY_MS);
                Phase::Deferred(Deferred { until, reason: DeferReason::Retry })
            }
        }
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
