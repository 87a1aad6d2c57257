//! Which order rules, whether it may begin, and whether what has begun is still wanted (SPEC section 4.5).

use super::DeviceSession;
use super::config::Trial;
use super::record::{Deployment, Stage};
use super::work::{Offered, Work};
use crate::ids::{CampaignId, DeviceId, Digest};
use crate::message::{CampaignState, DeferReason, FailureCode, Order, Outcome};
use crate::sorted::sort_few_by_key;
use crate::time::UnixTime;

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

impl DeviceSession {
    /// The orders that name this device, the ruling one first: its own assignment, then its groups by
    /// [`Order::rank`].
    fn orders(&self) -> impl Iterator<Item = (&Order, UnixTime)> {
        let own = self.documents.assignment.iter().filter_map(|assignment| {
            assignment.order.as_ref().map(|order| (order, assignment.validity.expires))
        });
        let mut campaigns: alloc::vec::Vec<_> = self.documents.campaigns.iter().collect();
        sort_few_by_key(&mut campaigns, |campaign| {
            core::cmp::Reverse(campaign.order.rank(campaign.validity.version))
        });
        let class = self.config.class;
        own.chain(campaigns.into_iter().map(|campaign| (&campaign.order, campaign.validity.expires)))
            .filter(move |(order, _)| order.class == class)
    }

    /// The order that rules now.
    fn ruling(&self) -> Option<(&Order, UnixTime)> {
        self.orders().find(|(order, _)| order.state == CampaignState::Active)
    }

    /// Looks whether the deployment in progress is still wanted. Nothing is called off once its trial is armed.
    pub(super) fn reconsider(&mut self) -> bool {
        let Some(Deployment { order, stage: Stage::Fetching, .. }) = &self.record.deployment else {
            return false;
        };
        if self.documents.assignment.is_none() {
            return false;
        }
        if order.sequence < self.record.min_sequence {
            self.end(Outcome::Cancelled, Some(FailureCode::Withdrawn));
            return true;
        }
        let aborted = self
            .orders()
            .any(|(other, _)| other.campaign == order.campaign && other.state == CampaignState::Aborted);
        let ruling = self.ruling().map(|(ruling, _)| ruling);
        match ruling {
            Some(ruling) if ruling == order => false,
            // The same payload, ordered again: what is downloaded counts.
            Some(ruling) if ruling.release == order.release => {
                let ruling = ruling.clone();
                self.change(|record| {
                    if let Some(deployment) = &mut record.deployment {
                        deployment.order = ruling;
                    }
                });
                true
            }
            _ => {
                let code = if aborted { FailureCode::Aborted } else { FailureCode::Superseded };
                self.end(Outcome::Cancelled, Some(code));
                true
            }
        }
    }

    /// Begins the ruling order, if it may begin.
    pub(super) fn begin(&mut self) -> bool {
        match (self.record.deployment.as_ref().map(|deployment| deployment.stage), self.boot.trial) {
            // An image runs that nobody has confirmed and that no deployment is testing: a person's, or one
            // whose deployment was lost. It has to be confirmed or given up first; in the end the boot loader
            // gives it up.
            (None | Some(Stage::Fetching), Trial::Running) => return false,
            (None, _) => {}
            (Some(Stage::Fetching), _) => {
                self.work = Work::Offered(Offered::default());
                return true;
            }
            // The restart did not come off: once more.
            (Some(Stage::Armed), Trial::Armed) => {
                self.work = Work::Armed;
                return true;
            }
            (Some(_), _) => {
                self.resume();
                return true;
            }
        }
        let Some((order, expires)) = self.ruling() else {
            return false;
        };
        if self.record.outcome_of(order.campaign, order.attempt).is_some() {
            return false;
        }
        let order = order.clone();
        // Judged by an answer to our own nonce. Until there is one, nothing begins.
        let Some(expired) = self.has_expired(expires) else {
            return false;
        };
        let refusal = if self.boot.running.release == Some(order.release) {
            None
        } else if expired {
            Some(FailureCode::Expired)
        } else if order.sequence < self.record.min_sequence {
            Some(FailureCode::Withdrawn)
        } else if order.sequence < self.boot.running.sequence {
            Some(FailureCode::Rollback)
        } else {
            return self.start(order);
        };
        let outcome = if refusal.is_some() { Outcome::Failed } else { Outcome::Confirmed };
        self.begin_deployment(order);
        self.end(outcome, refusal);
        true
    }

    /// Starts when this device's turn has come.
    fn start(&mut self, order: Order) -> bool {
        let offset = start_offset_s(order.campaign, &self.config.device, order.spread_s);
        let start = order.not_before.plus_secs(offset);
        let wait_s = start.as_secs().saturating_sub(self.today().as_secs());
        if wait_s > 0 && self.config.obey_spread {
            let until = self.now.plus_millis(wait_s.saturating_mul(1000));
            self.work = Work::Deferred { until, reason: DeferReason::Window };
            return false;
        }
        self.begin_deployment(order);
        self.work = Work::Offered(Offered::default());
        true
    }

    fn begin_deployment(&mut self, order: Order) {
        self.last = None;
        self.change(|record| {
            record.deployment = Some(Deployment::new(order, Stage::Fetching));
        });
    }
}
