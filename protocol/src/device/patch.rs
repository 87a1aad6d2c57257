//! How a device takes another payload if a patch is of no use to it (SPEC section 8.10).

use alloc::boxed::Box;
use core::ops::ControlFlow::Continue;

use super::context::Context;
use super::event::{Event, PatchFailure};
use super::record::{Deployment, GivenUp};
use super::run::Fetch;
use super::slots::Slots;
use super::work::{Next, Phase};
use crate::ids::PayloadTag;
use crate::limits::PATCHES_MAX;
use crate::manifest::{Codec, FetchPlan};

/// The state of work that waits until it is durable that a patch is not tried again.
#[derive(Debug)]
pub(super) struct GivingUp {
    fetch: Box<Fetch>,
}

impl GivingUp {
    /// A patch did not become the image. The manifest goes on when it is durable that it is not tried again.
    pub(super) fn of(cx: &mut Context, slots: &mut Slots, fetch: Box<Fetch>, why: PatchFailure) -> Next {
        let payload = fetch.plan.transfer.tag();
        slots.patch_given_up();
        cx.tell(Event::PatchFailed { payload, why });
        cx.change_deployment(|deployment| deployment.give_up(payload));
        Continue(Phase::GivingUp(Self { fetch }))
    }

    /// It is durable that the patch is given up.
    pub(super) fn durable(self, cx: &mut Context, slots: &Slots) -> Next {
        self.fetch.go_on(cx, slots)
    }
}

/// Whether a patch is left out before anything of it is fetched. A device that could not say so at once would
/// fetch what it cannot use.
pub(super) fn leaves_out(cx: &mut Context, plan: &FetchPlan) -> bool {
    if plan.transfer.codec != Codec::Patch {
        return false;
    }
    if !cx.config.codecs.contains(Codec::Patch) {
        return true;
    }
    let payload = plan.transfer.tag();
    if cx.deployment().is_some_and(|deployment| deployment.has_given_up(payload)) {
        return true;
    }
    let need_bytes = plan.transfer.decoder.map_or(0, |decoder| u64::from(decoder.memory_bytes));
    let limit_bytes = cx.config.memory_max_kib.saturating_mul(1024);
    let fits = need_bytes <= limit_bytes;
    if !fits {
        cx.tell(Event::PatchFailed { payload, why: PatchFailure::Memory { need_bytes, limit_bytes } });
    }
    !fits
}

impl Deployment {
    fn has_given_up(&self, payload: PayloadTag) -> bool {
        // A manifest with more patches than ours have would otherwise be an endless one.
        self.given_up.len() >= PATCHES_MAX || self.given_up.iter().any(|patch| patch.payload == payload)
    }

    /// Notes a patch with what is in the ledger beyond the patches before it.
    fn give_up(&mut self, payload: PayloadTag) {
        let (received, twice) = self.spent();
        if self.given_up.len() < PATCHES_MAX {
            self.given_up.push(GivenUp {
                payload,
                bytes_received: self.bytes_received.saturating_sub(received),
                bytes_twice: self.bytes_twice.saturating_sub(twice),
            });
        }
    }
}
