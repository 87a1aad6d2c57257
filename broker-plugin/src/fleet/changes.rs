//! What operators change, and the beacon.
//!
//! One change after the other: it is decided on what is in force, the store hands out the versions of its documents,
//! they are signed, all is stored, and only then it is in force, published and confirmed to the operator. Changes that
//! come meanwhile wait; there are as many as the admin API lets in. Devices are served all the while.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use bytes::Bytes;
use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest, GroupName};
use whimbrel_protocol::message;

use super::campaign::{self, NewCampaign};
use super::catalog::Release;
use super::command::{Command, Denied, Reply};
use super::decide::Draft;
use super::registry::{NewAssignment, RegistryError};
use super::views::{self, CampaignView};
use super::{Event, Fleet, Job, Output};
use crate::store::{Applied, CampaignRow, Device, PayloadRow, Series, StoreError};

/// Changes that wait for their turn, and the one that is under way.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: VecDeque<Waiting>,
    under_way: Option<Stage>,
}

impl Changes {
    /// How many changes have not ended.
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len() + usize::from(self.under_way.is_some())
    }
}

#[derive(Debug)]
enum Waiting {
    Command(Box<Command>),
    Beacon,
}

/// How far the change is that is under way.
#[derive(Debug)]
enum Stage {
    /// The store is asked for the versions of its documents.
    Numbering(Numbered),
    /// Its documents are being signed.
    Signing(Draft, Waiter),
    /// It is being stored.
    Storing(Box<Signed>, Waiter),
}

/// A change that has documents with versions from the store.
#[derive(Debug)]
enum Numbered {
    /// A beacon.
    Beacon,
    /// A document of a campaign, with the beacon that names it.
    Campaign(Order, Reply<CampaignView>),
    /// Assignments. They have versions of their own; the number says that something was signed.
    Assignments(Vec<NewAssignment>, Waiter),
}

/// What an operator wants of a campaign.
#[derive(Debug)]
pub(super) enum Order {
    /// That there is one.
    New { release: String, new: Box<NewCampaign>, id: CampaignId },
    /// That it is called off, or lets devices try again.
    Next { prefix: String, command: campaign::Command },
}

/// A change that can be stored.
#[derive(Debug)]
pub(super) enum Signed {
    Release(Box<Release>),
    Payload(PayloadRow),
    Campaign { document: Box<message::Campaign>, row: CampaignRow, beacon: (message::Beacon, Bytes) },
    Devices(Vec<Device>),
    Reset(Box<Device>),
    Beacon(message::Beacon, Bytes),
}

/// Who waits for a change.
#[derive(Debug)]
enum Waiter {
    Nobody,
    Release(Digest, Reply<api::Release>),
    Campaign(CampaignId, Reply<CampaignView>),
    Payload(Reply<()>),
    Device(DeviceId, Reply<api::Device>),
    Import(api::Imported, Reply<api::Imported>),
}

/// A beacon that could not be made durable is tried again after this long.
const BEACON_RETRY_MS: u64 = 30_000;

impl Fleet {
    pub(super) fn command(&mut self, command: Command) {
        self.changes.waiting.push_back(Waiting::Command(Box::new(command)));
        self.go_on();
    }

    /// Has a new beacon made; this one is not due again before it is stored or has failed.
    pub(super) fn order_beacon(&mut self) {
        self.beacon_due = self.now.plus_millis(BEACON_RETRY_MS);
        if self.may_sign().is_err() {
            return;
        }
        self.changes.waiting.push_back(Waiting::Beacon);
        self.go_on();
    }

    /// Takes up what waits, one at a time.
    fn go_on(&mut self) {
        while self.changes.under_way.is_none() {
            let Some(waiting) = self.changes.waiting.pop_front() else { return };
            self.changes.under_way = match waiting {
                Waiting::Beacon => Some(self.number(Numbered::Beacon)),
                Waiting::Command(command) => self.take_up(*command),
            };
        }
    }

    /// Begins with a command. `None` if there is nothing to store: it is answered already.
    fn take_up(&mut self, command: Command) -> Option<Stage> {
        match command {
            Command::AddRelease { release, reply } => {
                let warnings = self.warnings_of_release(&release);
                let reply = reply.with_change(|shown: &mut api::Release| shown.warnings = warnings);
                match self.catalog.check(&release) {
                    Ok(true) => {
                        let waiter = Waiter::Release(release.digest, reply);
                        Some(self.store(Signed::Release(release), waiter))
                    }
                    Ok(false) => {
                        let shown = self.show_release(&release.digest);
                        self.answer_with(reply, shown)
                    }
                    Err(error) => self.answer_with(reply, Err(error.into())),
                }
            }
            Command::AddPayload { row, reply } => {
                Some(self.store(Signed::Payload(row), Waiter::Payload(reply)))
            }
            Command::NewCampaign { release, new, id, reply } => {
                let known = self.catalog.find(&release);
                let warnings = known.map(|known| self.warnings_of_campaign(known, &new.group));
                let warnings = warnings.unwrap_or_default();
                let reply = reply.with_change(|view: &mut CampaignView| view.shown.warnings = warnings);
                self.order(Order::New { release, new, id }, reply)
            }
            Command::ToCampaign { prefix, command, reply } => {
                self.order(Order::Next { prefix, command }, reply)
            }
            Command::Accept { id, fingerprint, groups, reply } => {
                let reply = self.warning_of_device(&id, groups.as_deref(), reply);
                let planned = self.registry.plan_accept(&id, fingerprint, groups);
                self.assign(planned.map(Vec::from_iter), id, reply)
            }
            Command::SetGroups { id, groups, reply } => {
                let reply = self.warning_of_device(&id, None, reply);
                let planned = self.registry.plan_groups(&id, groups);
                self.assign(planned.map(Vec::from_iter), id, reply)
            }
            Command::Reset { id, reply } => match self.registry.plan_reset(&id) {
                Ok(device) => Some(self.store(Signed::Reset(Box::new(device)), Waiter::Device(id, reply))),
                Err(error) => self.answer_with(reply, Err(error.into())),
            },
            Command::Import { lines, reply } => match self.registry.plan_import(lines) {
                Ok(plan) => {
                    let imported = plan.counts();
                    if plan.assignments.is_empty() {
                        return self.answer_with(reply, Ok(imported));
                    }
                    if let Err(denied) = self.may_sign() {
                        return self.answer_with(reply, Err(denied));
                    }
                    let waiter = Waiter::Import(imported, reply);
                    Some(self.number(Numbered::Assignments(plan.assignments, waiter)))
                }
                Err(error) => self.answer_with(reply, Err(error.into())),
            },
        }
    }

    /// The reply, with what is to be said of a device that is accepted or gets other groups.
    fn warning_of_device(
        &self,
        id: &DeviceId,
        groups: Option<&[GroupName]>,
        reply: Reply<api::Device>,
    ) -> Reply<api::Device> {
        let known = self.registry.device(id);
        let warnings = known.map(|device| self.warnings_of_acceptance(device, groups)).unwrap_or_default();
        reply.with_change(|shown: &mut api::Device| shown.warnings.extend(warnings))
    }

    /// Looks whether an order would be carried out, and asks for the versions of its documents if so. A refusal costs
    /// no version.
    fn order(&mut self, order: Order, reply: Reply<CampaignView>) -> Option<Stage> {
        let document = self.document(&order, self.campaigns.version() + 1);
        match document.and_then(|_| self.may_sign()) {
            Ok(()) => Some(self.number(Numbered::Campaign(order, reply))),
            Err(error) => self.answer_with(reply, Err(error)),
        }
    }

    /// Assignments to sign, none, or an error.
    fn assign(
        &mut self,
        planned: Result<Vec<NewAssignment>, RegistryError>,
        id: DeviceId,
        reply: Reply<api::Device>,
    ) -> Option<Stage> {
        match planned {
            Ok(planned) if planned.is_empty() => {
                self.outputs.push_back(Output::ShowDevice { device: id, reply });
                None
            }
            Ok(planned) => match self.may_sign() {
                Ok(()) => Some(self.number(Numbered::Assignments(planned, Waiter::Device(id, reply)))),
                Err(denied) => self.answer_with(reply, Err(denied)),
            },
            Err(error) => self.answer_with(reply, Err(error.into())),
        }
    }

    fn number(&mut self, numbered: Numbered) -> Stage {
        let series = match numbered {
            Numbered::Beacon => Vec::from([Series::Beacon]),
            Numbered::Campaign(..) => Vec::from([Series::Beacon, Series::Campaign]),
            Numbered::Assignments(..) => Vec::from([Series::Assignments]),
        };
        self.outputs.push_back(Output::NextVersions(series));
        Stage::Numbering(numbered)
    }

    fn sign(&mut self, draft: Draft, waiter: Waiter) -> Stage {
        self.outputs.push_back(Output::Sign(self.documents(&draft)));
        Stage::Signing(draft, waiter)
    }

    fn store(&mut self, signed: Signed, waiter: Waiter) -> Stage {
        let changes = self.changes_of(&signed);
        self.outputs.push_back(Output::Store { job: Job::Change, changes });
        Stage::Storing(Box::new(signed), waiter)
    }

    /// The store has handed out versions, or failed.
    pub(super) fn numbered(&mut self, versions: Result<Vec<u64>, Arc<StoreError>>) {
        let Some(Stage::Numbering(numbered)) = self.changes.under_way.take() else { return };
        let versions = versions.map(|versions| (versions.first().copied(), versions.get(1).copied()));
        self.changes.under_way = match (numbered, versions) {
            // The versions are lost, which does no harm.
            (numbered, _) if self.may_sign().is_err() => match (numbered, self.may_sign()) {
                (Numbered::Campaign(_, reply), Err(denied)) => self.answer_with(reply, Err(denied)),
                (Numbered::Assignments(_, waiter), Err(denied)) => self.disappoint(waiter, denied),
                _ => None,
            },
            (Numbered::Beacon, Ok((Some(version), _))) => {
                let beacon = self.next_beacon(version, None);
                Some(self.sign(Draft::Beacon(beacon), Waiter::Nobody))
            }
            (Numbered::Campaign(order, reply), Ok((Some(beacon), Some(version)))) => {
                match self.draft(&order, version, beacon) {
                    Ok((draft, id)) => Some(self.sign(draft, Waiter::Campaign(id, reply))),
                    Err(error) => self.answer_with(reply, Err(error)),
                }
            }
            (Numbered::Assignments(planned, waiter), Ok((Some(_), _))) => {
                Some(self.sign(Draft::Assignments(planned), waiter))
            }
            (Numbered::Assignments(_, waiter), Err(error)) => {
                self.tell(Event::StoreFailed);
                self.disappoint(waiter, error.into())
            }
            (Numbered::Assignments(_, waiter), Ok(_)) => self.disappoint(waiter, Denied::Stopping),
            (Numbered::Beacon, Err(_)) => {
                self.tell(Event::StoreFailed);
                None
            }
            (Numbered::Campaign(_, reply), Err(error)) => {
                self.tell(Event::StoreFailed);
                self.answer_with(reply, Err(error.into()))
            }
            (Numbered::Beacon, Ok(_)) => None,
            (Numbered::Campaign(_, reply), Ok(_)) => self.answer_with(reply, Err(Denied::Stopping)),
        };
        self.go_on();
    }

    /// The documents of the change are signed.
    pub(super) fn signed(&mut self, documents: Vec<Bytes>) {
        let Some(Stage::Signing(draft, waiter)) = self.changes.under_way.take() else { return };
        match self.with_signatures(draft, documents) {
            Some(signed) => self.changes.under_way = Some(self.store(signed, waiter)),
            None => {
                self.tell(Event::StoreFailed);
                self.disappoint(waiter, Arc::new(StoreError::Closed).into());
            }
        }
        self.go_on();
    }

    /// The change is stored, or is not.
    pub(super) fn change_stored(&mut self, applied: Applied) {
        let Some(Stage::Storing(signed, waiter)) = self.changes.under_way.take() else { return };
        match applied {
            Ok(_) => {
                // Whoever imports many says so once.
                let each = !matches!(waiter, Waiter::Import(..));
                self.in_force(*signed, each);
                self.confirm(waiter);
            }
            Err(error) => {
                self.disappoint(waiter, error.into());
            }
        }
        self.go_on();
    }

    fn confirm(&mut self, waiter: Waiter) {
        let answer = match waiter {
            Waiter::Nobody => return,
            Waiter::Device(device, reply) => {
                return self.outputs.push_back(Output::ShowDevice { device, reply });
            }
            Waiter::Release(digest, reply) => reply.with(self.show_release(&digest)),
            Waiter::Campaign(id, reply) => {
                let campaign = self.campaigns.campaign(&id);
                reply.with(campaign.map(|campaign| self.view_campaign(campaign)).ok_or(Denied::Stopping))
            }
            Waiter::Payload(reply) => reply.with(Ok(())),
            Waiter::Import(imported, reply) => reply.with(Ok(imported)),
        };
        self.outputs.push_back(Output::Answer(answer));
    }

    fn show_release(&self, digest: &Digest) -> Result<api::Release, Denied> {
        let release = self.catalog.release(digest);
        release.map(|release| views::release(release, &self.catalog)).ok_or(Denied::Stopping)
    }

    /// Says that there will be no change.
    fn disappoint(&mut self, waiter: Waiter, error: Denied) -> Option<Stage> {
        let answer = match waiter {
            Waiter::Nobody => return None,
            Waiter::Release(_, reply) => reply.with(Err(error)),
            Waiter::Campaign(_, reply) => reply.with(Err(error)),
            Waiter::Payload(reply) => reply.with(Err(error)),
            Waiter::Device(_, reply) => reply.with(Err(error)),
            Waiter::Import(_, reply) => reply.with(Err(error)),
        };
        self.outputs.push_back(Output::Answer(answer));
        None
    }

    /// Answers a command that leads to no change.
    fn answer_with<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        answer: Result<T, Denied>,
    ) -> Option<Stage> {
        self.outputs.push_back(Output::Answer(reply.with(answer)));
        None
    }
}
