//! Which order rules, whether it may begin, and whether what has begun is still wanted (SPEC section 4.5).

use alloc::vec::Vec;
use core::ops::ControlFlow::{Break, Continue};

use super::config::Trial;
use super::context::Context;
use super::documents::Documents;
use super::ending::Ended;
use super::link::Link;
use super::record::{Deployment, Record, Stage};
use super::release::Offered;
use super::work::{Deferred, Phase, Work};
use crate::ids::{CampaignId, ClassId, DeviceId, Digest};
use crate::message::{Campaign, CampaignState, DeferReason, FailureCode, Order, Validity};
use crate::sorted::sort_few_by_key;
use crate::time::UnixTime;

/// Whether the deployment in progress is still wanted.
#[derive(Debug)]
pub(super) enum Wanted {
    Yes,
    /// Another order rules that names the same release. The deployment goes on under it with what is downloaded.
    Anew(Order),
    /// It is called off.
    No(FailureCode),
}

/// The order that rules, with what its document says besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruling<'d> {
    pub(super) order: &'d Order,
    validity: &'d Validity,
    /// It stands in the device's own assignment.
    is_own: bool,
}

/// What a wait belongs to: the order that rules, and the document that says so. Each wait ends when something else
/// rules. For example, a device that waits for its start within a campaign's spread begins at once if the campaign
/// that takes its place has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Basis(Option<(CampaignId, u64, u64, Standing)>);

/// Where an order stands, and whether its release may still be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    is_own: bool,
    is_withdrawn: bool,
}

/// When a device starts within its campaign's spread (SPEC section 8.4): a number below `spread_s`, the same
/// after every reboot, different for every device and campaign.
#[must_use]
fn start_offset_s(campaign: CampaignId, device: &DeviceId, spread_s: u64) -> u64 {
    let mut input = campaign.0.to_vec();
    input.extend_from_slice(device.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(&input).0;
    let fraction = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let product = u128::from(fraction) * u128::from(spread_s);
    u64::try_from(product >> 64).unwrap_or(0)
}

impl<'d> Ruling<'d> {
    const fn of(Campaign { order, validity, .. }: &'d Campaign) -> Self {
        Self { order, validity, is_own: false }
    }
}

impl Documents {
    /// The orders that name this device, the ruling one first: its own assignment, then its groups by
    /// [`Order::rank`].
    fn orders(&self, class: ClassId) -> impl Iterator<Item = Ruling<'_>> {
        let own = self.assignment.iter().filter_map(|assignment| {
            let order = assignment.order.as_ref()?;
            Some(Ruling { order, validity: &assignment.validity, is_own: true })
        });
        let mut campaigns: Vec<_> = self.campaigns.iter().collect();
        sort_few_by_key(&mut campaigns, |campaign| {
            core::cmp::Reverse(campaign.order.rank(campaign.validity.version))
        });
        own.chain(campaigns.into_iter().map(Ruling::of)).filter(move |ruling| ruling.order.class == class)
    }

    /// The order that rules now for devices of `class`.
    pub(super) fn ruling(&self, class: ClassId) -> Option<Ruling<'_>> {
        self.orders(class).find(|ruling| ruling.order.state == CampaignState::Active)
    }

    /// What a wait belongs to that begins now.
    pub(super) fn basis(&self, class: ClassId, min_sequence: u64) -> Basis {
        Basis(self.ruling(class).map(|Ruling { order, validity, is_own }| {
            let standing = Standing { is_own, is_withdrawn: order.sequence < min_sequence };
            (order.campaign, order.attempt, validity.version, standing)
        }))
    }

    /// Judges the deployment in progress. Nothing is called off once its trial is armed.
    pub(super) fn wanted(&self, class: ClassId, record: &Record) -> Wanted {
        let Some(Deployment { order, stage: Stage::Fetching, .. }) = &record.deployment else {
            return Wanted::Yes;
        };
        if self.assignment.is_none() {
            return Wanted::Yes;
        }
        if order.sequence < record.min_sequence {
            return Wanted::No(FailureCode::Withdrawn);
        }
        match self.ruling(class) {
            Some(ruling) if ruling.order == order => Wanted::Yes,
            Some(ruling) if ruling.order.release == order.release => Wanted::Anew(ruling.order.clone()),
            _ => {
                let aborted = self.orders(class).any(|Ruling { order: other, .. }| {
                    other.campaign == order.campaign && other.state == CampaignState::Aborted
                });
                Wanted::No(if aborted { FailureCode::Aborted } else { FailureCode::Superseded })
            }
        }
    }
}

impl Work {
    /// Acts on the judgement of the documents. `true` if the deployment changed.
    pub(super) fn reconsider(&mut self, cx: &mut Context, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Yes => return false,
            Wanted::Anew(order) => cx.change_deployment(|deployment| deployment.order = order),
            Wanted::No(code) => self.enter(cx, Break(Ended::cancelled(code))),
        }
        true
    }

    /// Begins the ruling order, if it may begin. `true` if another round may bring more.
    pub(super) fn begin(&mut self, cx: &mut Context, ruling: Option<Ruling<'_>>, link: &Link) -> bool {
        let stage = cx.deployment().map(|deployment| deployment.stage);
        match (stage, self.slots.boot.trial) {
            // An image runs that nobody has confirmed and that no deployment is testing: a person's, or one
            // whose deployment was lost. It has to be confirmed or given up first; in the end the boot loader
            // gives it up.
            (None | Some(Stage::Fetching), Trial::Running) => return false,
            (None, _) => {}
            (Some(Stage::Fetching), _) => {
                self.enter(cx, Continue(Phase::Offered(Offered::default())));
                return true;
            }
            // The restart failed: once more.
            (Some(Stage::Armed), Trial::Armed) => {
                self.enter(cx, Continue(Phase::Armed));
                return true;
            }
            (Some(_), _) => {
                self.resume(cx);
                return true;
            }
        }
        let Some(Ruling { order, validity, .. }) = ruling else {
            return false;
        };
        // A newer document that the answer named may be on its way, and say otherwise.
        if !link.is_in_step() {
            return false;
        }
        if cx.record().outcome_of(order.campaign, order.attempt).is_some() {
            return false;
        }
        // Judged by the service's clock in an answer to our own nonce, and by no other: the device's own may be wrong
        // by years, and a document's time may have been held back. Until there is an answer, nothing has expired and
        // nothing begins.
        let Some(time) = cx.clock() else {
            return false;
        };
        let running = &self.slots.boot.running;
        let ended = if running.release == Some(order.release) {
            Ended::CONFIRMED
        } else if time >= validity.expires {
            Ended::failed(FailureCode::Expired)
        } else if order.sequence < cx.record().min_sequence {
            Ended::failed(FailureCode::Withdrawn)
        } else if order.sequence < running.sequence {
            Ended::failed(FailureCode::Rollback)
        } else {
            return self.start(cx, order, time);
        };
        self.begin_deployment(cx, order);
        self.enter(cx, Break(ended));
        true
    }

    /// Starts when this device's turn has come.
    fn start(&mut self, cx: &mut Context, order: &Order, time: UnixTime) -> bool {
        let offset = start_offset_s(order.campaign, &cx.config.device, order.spread_s);
        let start = order.not_before.plus_secs(offset);
        let wait_s = start.as_secs().saturating_sub(time.as_secs());
        if wait_s > 0 && cx.config.obey_spread {
            let until = cx.now.plus_millis(wait_s.saturating_mul(1000));
            self.enter(cx, Continue(Phase::Deferred(Deferred { until, reason: DeferReason::Window })));
            return false;
        }
        self.begin_deployment(cx, order);
        self.enter(cx, Continue(Phase::Offered(Offered::default())));
        true
    }

    fn begin_deployment(&mut self, cx: &mut Context, order: &Order) {
        self.endings.forget();
        cx.change(|record| {
            record.deployment = Some(Deployment::new(order.clone(), Stage::Fetching));
        });
    }
}
