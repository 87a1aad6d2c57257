//! What operators change.
//!
//! One change after the other: it is decided on what is in force, signed on another thread, stored, and only then in
//! force here, published and confirmed to the operator. Changes that come meanwhile wait; there are as many as the
//! admin API lets in. Devices are served all the while.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use bytes::Bytes;
use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, DeviceId};
use whimbrel_protocol::limits::BEACON_GROUPS_MAX;
use whimbrel_protocol::message;
use whimbrel_protocol::time::UnixTime;

use super::command::Reply;
use super::decision::{Decision, Letterhead, Outcome, Signed, Waiter, tell};
use super::documents::{Announcement, BEACON_RETRY_MS};
use super::views;
use super::{Command, Core, Denied, Happened};
use crate::attach::BrokerLink;
use crate::campaign::{self, CAMPAIGNS_MAX, Campaign, Identity, NewCampaign};
use crate::registry::{Admission, RegistryError};
use crate::store::{CampaignRow, Change, Device, Phase, StoreError};

/// Changes that wait for their turn, and whether one is under way.
#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: VecDeque<Wish>,
    busy: bool,
}

impl Desk {
    /// How many changes have not ended.
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len() + usize::from(self.busy)
    }
}

#[derive(Debug)]
enum Wish {
    Command(Box<Command>),
    Beacon,
}

impl<L: BrokerLink> Core<L> {
    pub(super) fn command(&mut self, command: Command) {
        if let Some(command) = self.answer(command) {
            self.desk.waiting.push_back(Wish::Command(Box::new(command)));
            self.work_desk();
        }
    }

    /// Has a new beacon made; this one is not due again before it is stored or has failed.
    pub(super) fn order_beacon(&mut self) {
        self.beacon.due = self.now.plus_millis(BEACON_RETRY_MS);
        self.desk.waiting.push_back(Wish::Beacon);
        self.work_desk();
    }

    /// Takes up what waits, one at a time.
    fn work_desk(&mut self) {
        while !self.desk.busy {
            let Some(wish) = self.desk.waiting.pop_front() else { return };
            let decided = match wish {
                Wish::Beacon => Some((Decision::Beacon(self.next_beacon(None)), Waiter::Nobody)),
                Wish::Command(command) => self.decide(*command),
            };
            if let Some((decision, waiter)) = decided {
                self.desk.busy = true;
                self.carry_out_decision(decision, waiter);
            }
        }
    }

    /// Signs and stores a decision elsewhere.
    fn carry_out_decision(&self, decision: Decision, waiter: Waiter) {
        let letterhead = Letterhead {
            prefix: self.settings.prefix.clone(),
            root_version: self.authority.root().version,
            today: self.today,
        };
        let replaced = self.replaced_by(&decision);
        let (authority, store, tell) = (Arc::clone(&self.authority), self.store.clone(), self.tell.clone());
        self.elsewhere.spawn(async move {
            let signing = tokio::task::spawn_blocking(move || decision.sign(&authority, &letterhead));
            let stored = match signing.await {
                Ok(signed) => {
                    let mut changes = signed.changes();
                    changes.extend(replaced.map(Change::Campaign));
                    store.apply(changes).await.map(|_| signed)
                }
                Err(_) => Err(Arc::new(StoreError::Closed)),
            };
            let _stopping = tell.send(Happened::Decided(Box::new(Outcome { stored, waiter })));
        });
    }

    /// Decides about a command. `None` where there is nothing to store: it is answered already.
    fn decide(&self, command: Command) -> Option<(Decision, Waiter)> {
        match command {
            Command::AddRelease { release, reply } => match self.catalog.check(&release) {
                Ok(true) => {
                    let digest = release.digest;
                    Some((Decision::Release(release), Waiter::Release(digest, reply)))
                }
                Ok(false) => {
                    let known = self.catalog.release(&release.digest);
                    let view = known.map(|known| views::release(known, &self.catalog));
                    tell(reply, view.ok_or(Denied::Stopping));
                    None
                }
                Err(error) => deny(reply, error),
            },
            Command::AddPayload { row, reply } => Some((Decision::Payload(row), Waiter::Done(reply))),
            Command::NewCampaign { release, wish, reply } => match self.new_campaign(&release, &wish) {
                Ok(decision) => {
                    let id = decision.campaign().unwrap_or_default();
                    Some((decision, Waiter::Campaign(id, reply)))
                }
                Err(error) => deny(reply, error),
            },
            Command::ToCampaign { prefix, command, reply } => match self.next_document(&prefix, command) {
                Ok(decision) => {
                    let id = decision.campaign().unwrap_or_default();
                    Some((decision, Waiter::Campaign(id, reply)))
                }
                Err(error) => deny(reply, error),
            },
            Command::Accept { id, fingerprint, groups, reply } => {
                self.admit(self.registry.plan_accept(&id, fingerprint, groups), id, reply)
            }
            Command::SetGroups { id, groups, reply } => {
                self.admit(self.registry.plan_groups(&id, groups), id, reply)
            }
            Command::Reset { id, reply } => match self.registry.plan_reset(&id) {
                Ok(device) => Some((Decision::Reset(Box::new(device)), Waiter::Device(id, reply))),
                Err(error) => deny(reply, error),
            },
            Command::Import { lines, reply } => match self.registry.plan_import(lines) {
                Ok(plan) => {
                    let view = api::Imported {
                        imported: plan.admissions.len() as u64,
                        unchanged: plan.unchanged as u64,
                    };
                    if plan.admissions.is_empty() {
                        tell(reply, Ok(view));
                        return None;
                    }
                    Some((Decision::Admit(plan.admissions), Waiter::Import(view, reply)))
                }
                Err(error) => deny(reply, error),
            },
            // Questions were answered before they came here.
            _ => None,
        }
    }

    /// One device to accept, none, or an error.
    fn admit(
        &self,
        planned: Result<Option<Admission>, RegistryError>,
        id: DeviceId,
        reply: Reply<api::Device>,
    ) -> Option<(Decision, Waiter)> {
        match planned {
            Ok(Some(admission)) => Some((Decision::Admit(Vec::from([admission])), Waiter::Device(id, reply))),
            Ok(None) => {
                tell(reply, self.view_device(&id).ok_or(Denied::Stopping));
                None
            }
            Err(error) => deny(reply, error),
        }
    }

    fn new_campaign(&self, release: &str, wish: &NewCampaign) -> Result<Decision, Denied> {
        let release = self.catalog.find(release)?;
        let missing = self.catalog.missing(release).len();
        if missing > 0 {
            return Err(Denied::Incomplete { release: release.digest, missing });
        }
        if self.campaigns.len() >= CAMPAIGNS_MAX {
            return Err(Denied::TooManyCampaigns { limit: CAMPAIGNS_MAX });
        }
        let new_group = self.campaigns.of_group(&wish.group).is_none();
        if new_group && self.campaigns.groups().len() >= BEACON_GROUPS_MAX {
            return Err(Denied::TooManyGroups { limit: BEACON_GROUPS_MAX });
        }
        let identity = Identity {
            prefix: self.settings.prefix.clone(),
            id: self.new_id()?,
            version: self.campaigns.next_version(),
        };
        let document = wish.document(release, identity, self.today)?;
        Ok(self.document_decision(document, self.today, wish.life_s))
    }

    fn new_id(&self) -> Result<CampaignId, Denied> {
        loop {
            let mut id = [0; 8];
            getrandom::fill(&mut id).map_err(|error| Denied::Random { reason: error.to_string() })?;
            let id = CampaignId(id);
            if self.campaigns.campaign(&id).is_none() && id != CampaignId::default() {
                return Ok(id);
            }
        }
    }

    /// The next document of a campaign that an operator aborts or lets try again.
    fn next_document(&self, prefix: &str, command: campaign::Command) -> Result<Decision, Denied> {
        let found = self.campaigns.find(prefix)?;
        let id = found.id();
        found.may(command).map_err(|source| Denied::Command { id, source })?;
        let row = found.row(found.phase(), found.signed().clone());
        // The machine is asked on a copy without devices: what it puts out takes effect when it is in force.
        let mut draft = Campaign::new(found.document().clone(), &row);
        let version = self.campaigns.next_version();
        draft.handle_input(self.today, campaign::Input::Operator { command, version });
        let Some(campaign::Output::Sign(document)) = draft.poll_output() else {
            return Err(Denied::Stopping);
        };
        Ok(self.document_decision(*document, row.created, row.life_s))
    }

    fn document_decision(&self, document: message::Campaign, created: UnixTime, life_s: u64) -> Decision {
        let beacon = self.next_beacon(Some((&document.group, document.validity.version)));
        Decision::Campaign { document: Box::new(document), created, life_s, beacon }
    }

    /// The campaign whose place a new one takes, as it is to be stored.
    fn replaced_by(&self, decision: &Decision) -> Option<CampaignRow> {
        let Decision::Campaign { document, .. } = decision else { return None };
        let before = self.campaigns.of_group(&document.group)?;
        let other = before.id() != document.order.campaign;
        other.then(|| before.row(Phase::Replaced, before.signed().clone()))
    }

    /// A change is stored, or is not.
    pub(super) fn decided(&mut self, outcome: Outcome) {
        self.desk.busy = false;
        match outcome.stored {
            Ok(signed) => {
                self.in_force(signed);
                self.confirm(outcome.waiter);
            }
            Err(error) => {
                crate::metrics::Counters::count(&self.counters.store_failures);
                outcome.waiter.disappoint(error);
            }
        }
        self.work_desk();
    }

    fn in_force(&mut self, signed: Signed) {
        match signed {
            Signed::Release(release) => {
                tracing::info!(release = %release.digest, version = release.version, "release stored");
                self.catalog.enter(*release);
                self.epoch += 1;
            }
            Signed::Payload(row) => {
                tracing::info!(payload = %row.index, bytes = row.layout.transfer_size(), "payload stored");
                self.catalog.enter_payload(row);
                self.epoch += 1;
            }
            Signed::Campaign { document, row, beacon } => self.campaign_in_force(*document, row, beacon),
            Signed::Devices(devices) => {
                for device in devices {
                    tracing::info!(device = %device.id, version = device.assignment_version, "device accepted");
                    self.enter_device(device);
                }
            }
            Signed::Reset(device) => {
                tracing::info!(device = %device.id, "device reset");
                self.enter_device(*device);
            }
            Signed::Beacon((beacon, signed)) => self.beacon_in_force(beacon.validity.version, signed),
        }
    }

    fn enter_device(&mut self, device: Device) {
        let id: DeviceId = device.id.clone();
        self.membership.enter(&device);
        self.registry.enter(device);
        self.sessions.forget_view(&id);
        self.announcements.add(Announcement::Assignment(id));
    }

    fn campaign_in_force(
        &mut self,
        document: message::Campaign,
        row: CampaignRow,
        beacon: (message::Beacon, Bytes),
    ) {
        let group = document.group.clone();
        let version = document.validity.version;
        tracing::info!(campaign = %row.id, %group, version, phase = row.phase.name(), "campaign in force");
        let before = self.campaigns.of_group(&group).map(Campaign::id).filter(|before| *before != row.id);
        if let Some(before) = before.and_then(|before| self.campaigns.campaign_mut(&before)) {
            before.handle_input(self.today, campaign::Input::Replaced);
        }
        if let Some(campaign) = self.campaigns.campaign_mut(&row.id) {
            let document = Box::new(document);
            campaign.handle_input(
                self.today,
                campaign::Input::InForce { document, signed: row.document.clone() },
            );
            while campaign.poll_output().is_some() {} // It is published below, with everything else.
            self.campaigns.raise(version);
        } else {
            self.campaigns.enter(Campaign::new(document, &row));
        }
        self.epoch += 1;
        self.announcements.add(Announcement::Campaign(group));
        self.beacon_in_force(beacon.0.validity.version, beacon.1);
    }

    fn confirm(&self, waiter: Waiter) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::Release(digest, reply) => {
                let release = self.catalog.release(&digest);
                let view = release.map(|release| views::release(release, &self.catalog));
                tell(reply, view.ok_or(Denied::Stopping));
            }
            Waiter::Campaign(id, reply) => {
                let campaign = self.campaigns.campaign(&id);
                tell(reply, campaign.map(|campaign| self.view_campaign(campaign)).ok_or(Denied::Stopping));
            }
            Waiter::Done(reply) => tell(reply, Ok(())),
            Waiter::Device(id, reply) => tell(reply, self.view_device(&id).ok_or(Denied::Stopping)),
            Waiter::Import(view, reply) => tell(reply, Ok(view)),
        }
    }
}

fn deny<T, U>(reply: Reply<T>, error: impl Into<Denied>) -> Option<U> {
    tell(reply, Err(error.into()));
    None
}
