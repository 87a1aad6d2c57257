//! A campaign: one release for one group, as a machine without I/O.
//!
//! It decides how far each device is. Reports are what counts: they are signed, and each counts once. What devices
//! say unsigned, and what they ask for, are hints for people who watch: they move a device forward within an attempt
//! until a report speaks, and never out of an outcome.
//!
//! Documents are made by two pure functions: [`NewCampaign::document`] makes the first one, and
//! [`Campaign::next_document`] makes the one that follows when an operator aborts the campaign or lets devices try
//! again. Nothing changes until the document is signed and stored: then [`Input::InForce`] is fed.
//!
//! [`Campaigns`] knows which campaign rules which device, [`Tally`] counts.

mod campaigns;
mod counts;
mod io;
mod plan;
mod tally;

use alloc::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use thiserror::Error;
use whimbrel_protocol::ids::{CampaignId, DeviceId};
use whimbrel_protocol::message::{self, CampaignState, Outcome, Report, State, Status};
use whimbrel_protocol::time::UnixTime;

pub use campaigns::{CAMPAIGNS_MAX, Campaigns};
use counts::Counts;
pub use io::{Ask, Command, Event, Ignored, Input, Output};
pub use plan::{
    Identity, LIFE_DEFAULT_S, LIFE_MAX_S, LIFE_MIN_S, NewCampaign, PRIORITY_MAX, PlanError, SPREAD_MAX_S,
};
pub(crate) use tally::percent_of;
pub use tally::{Share, Tally};

use crate::store::{CameBy, CampaignRow, Deployment, DeploymentRow, Phase, Terms, Why};

/// One campaign.
#[derive(Debug)]
pub struct Campaign {
    document: message::Campaign,
    signed: Bytes,
    phase: Phase,
    created: UnixTime,
    terms: Terms,
    deployments: BTreeMap<DeviceId, Progress>,
    counts: Counts,
    outputs: VecDeque<Output>,
}

/// How far a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is stored of it.
    pub deployment: Deployment,
    /// How much of the payload is there, in percent. Only a hint, and gone after a restart.
    pub fetched_percent: u8,
    /// Whether the campaign is for it. Otherwise it has left the group.
    pub member: bool,
}

/// Why an operator's command is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// The campaign does not rule its group any more.
    #[error("the campaign was replaced by a newer one of its group")]
    Replaced,
    /// It is aborted already.
    #[error("the campaign is aborted already")]
    Aborted,
}

/// Most payload bytes that a device is believed to have received; more is cut to this. 1 TiB.
const BYTES_MAX: u64 = 1 << 40;

impl Campaign {
    /// A campaign whose first document is in force.
    #[must_use]
    pub fn new(document: message::Campaign, row: &CampaignRow) -> Self {
        Self::restore(document, row, [])
    }

    /// A campaign as it was stored.
    #[must_use]
    pub fn restore(
        document: message::Campaign,
        row: &CampaignRow,
        deployments: impl IntoIterator<Item = DeploymentRow>,
    ) -> Self {
        let mut campaign = Self {
            document,
            signed: row.document.clone(),
            phase: row.phase,
            created: row.created,
            terms: row.terms.clone(),
            deployments: BTreeMap::new(),
            counts: Counts::default(),
            outputs: VecDeque::new(),
        };
        for DeploymentRow { device, deployment, .. } in deployments {
            campaign.enter(&device, Progress { deployment, fetched_percent: 0, member: true });
        }
        campaign
    }

    /// Tells the campaign what happened. Drain [`Campaign::poll_output`] before the next call.
    pub fn handle_input(&mut self, today: UnixTime, input: Input<'_>) {
        debug_assert!(self.outputs.is_empty(), "outputs must be drained before the next input");
        match input {
            Input::Reported { device, report } => self.reported(today, device, report),
            Input::Told { device, status } => self.told(today, device, status),
            Input::Asked { device, ask } => self.asked(today, device, ask),
            Input::InForce { document, signed } => self.in_force(*document, signed),
            Input::Replaced => {
                self.phase = Phase::Replaced;
                self.deployments = BTreeMap::new();
                self.counts = Counts::default();
            }
        }
    }

    /// The next effect to carry out, or `None` when all are.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> CampaignId {
        self.document.order.campaign
    }

    /// What the document in force says.
    #[must_use]
    pub fn document(&self) -> &message::Campaign {
        &self.document
    }

    /// The document in force as signed.
    #[must_use]
    pub fn signed(&self) -> &Bytes {
        &self.signed
    }

    /// Whether it runs.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> UnixTime {
        self.created
    }

    /// The operator set this, and no document says it.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The row to store when `document` comes into force.
    #[must_use]
    pub fn row(&self, phase: Phase, document: Bytes) -> CampaignRow {
        let (created, terms) = (self.created, self.terms.clone());
        CampaignRow { id: self.id(), phase, created, terms, document }
    }

    /// Notes whether the campaign is for a device. Whatever is told of a device that is not known yet is counted as of
    /// one that it is for.
    pub fn set_member(&mut self, device: &DeviceId, member: bool) {
        let Some(known) = self.deployments.get(device).copied() else { return };
        if known.member != member {
            self.enter(device, Progress { member, ..known });
        }
    }

    /// How many devices are how far, of a campaign that is for `members` devices. Costs the same for any number.
    #[must_use]
    pub fn tally(&self, members: u64) -> Tally {
        self.counts.tally(members)
    }

    /// How far the devices after `after` are with the current attempt, in the order of their ids.
    pub fn progress_after(&self, after: Option<&DeviceId>) -> impl Iterator<Item = (&DeviceId, &Progress)> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let range = self.deployments.range::<DeviceId, _>((from, Unbounded));
        range.filter(|(_, progress)| self.is_current(&progress.deployment))
    }

    /// Enters how far a device is, and counts it.
    fn enter(&mut self, device: &DeviceId, progress: Progress) {
        let attempt = self.document.order.attempt;
        if let Some(before) = self.deployments.insert(device.clone(), progress) {
            self.counts.take_out(attempt, &before);
        }
        self.counts.enter(attempt, &progress);
    }

    /// How far each device is, as far as anything is known. Empty once the campaign was replaced.
    pub fn deployments(&self) -> impl Iterator<Item = (&DeviceId, &Progress)> {
        self.deployments.iter()
    }

    /// How far one device is with the current attempt; `None` if it has not begun.
    #[must_use]
    pub fn progress(&self, device: &DeviceId) -> Option<&Progress> {
        self.deployments.get(device).filter(|progress| self.is_current(&progress.deployment))
    }

    /// Whether a deployment belongs to the current attempt. What was confirmed stays so.
    pub(crate) fn is_current(&self, deployment: &Deployment) -> bool {
        deployment.attempt == self.document.order.attempt || deployment.state == State::Confirmed
    }

    /// The document that follows the one in force when an operator gives `command`, to be signed. Nothing changes
    /// here before it is in force.
    ///
    /// # Errors
    /// [`CommandError`]: the command is refused.
    pub fn next_document(
        &self,
        command: Command,
        version: u64,
        today: UnixTime,
    ) -> Result<message::Campaign, CommandError> {
        let mut document = self.document.clone();
        match (self.phase, command) {
            (Phase::Replaced, _) => return Err(CommandError::Replaced),
            (Phase::Aborted, Command::Abort) => return Err(CommandError::Aborted),
            (Phase::Active, Command::Abort) => document.order.state = CampaignState::Aborted,
            (Phase::Active | Phase::Aborted, Command::Retry) => {
                document.order.state = CampaignState::Active;
                document.order.attempt += 1;
            }
        }
        // A clock that was set back must not make the new document look older than the one it replaces.
        let issued = today.max(document.validity.issued);
        document.validity =
            message::Validity { version, issued, expires: issued.plus_secs(self.terms.life_s) };
        Ok(document)
    }

    /// What a report says, if it is about an attempt that was ordered.
    #[must_use]
    pub fn read(&self, report: &Report, today: UnixTime) -> Option<Deployment> {
        let known = (1..=self.document.order.attempt).contains(&report.attempt);
        known.then(|| Deployment {
            attempt: report.attempt,
            report: report.number.saturating_add(1),
            state: match report.outcome {
                Outcome::Confirmed => State::Confirmed,
                Outcome::Reverted => State::Reverted,
                Outcome::Failed => State::Failed,
                Outcome::Cancelled => State::Cancelled,
            },
            reason: report.failure.map_or(Why::Unsaid, Why::Failed),
            bytes_received: report.bytes_received.min(BYTES_MAX),
            bytes_twice: report.bytes_twice.min(BYTES_MAX),
            came_by: self.came_by(&report.device, report.attempt),
            updated: today,
        })
    }

    /// By which payloads the image of one attempt comes, as far as that is known here.
    fn came_by(&self, device: &DeviceId, attempt: u64) -> CameBy {
        let known = self.deployments.get(device).map(|known| known.deployment);
        known.filter(|known| known.attempt == attempt).map_or(CameBy::default(), |known| known.came_by)
    }

    /// The reports of a device are counted anew.
    pub(super) fn reports_anew(&mut self, device: &DeviceId) {
        if let Some(known) = self.deployments.get_mut(device) {
            known.deployment.report = 0;
        }
    }

    fn reported(&mut self, today: UnixTime, device: &DeviceId, report: &Report) {
        let Some(says) = self.read(report, today) else {
            return self.ignore(device, Ignored::UnknownAttempt);
        };
        if self.phase == Phase::Replaced {
            return; // It is counted in the store.
        }
        let known = self.deployments.get(device);
        if known.is_some_and(|known| !says.is_news_to(&known.deployment)) {
            return self.ignore(device, Ignored::Stale);
        }
        let member = known.is_none_or(|known| known.member);
        self.enter(device, Progress { deployment: says, fetched_percent: 100, member });
        let Report { outcome, failure, .. } = *report;
        let said = report.said.clone();
        self.outputs.push_back(Output::Event(Event::Counted {
            device: device.clone(),
            outcome,
            failure,
            said,
        }));
    }

    fn told(&mut self, today: UnixTime, device: &DeviceId, status: &Status) {
        if status.attempt != self.document.order.attempt {
            return self.ignore(device, Ignored::UnknownAttempt);
        }
        // Outcomes are reported with a signature, or not at all.
        if status.state.is_final() || status.state == State::Idle {
            return self.ignore(device, Ignored::Stale);
        }
        let reason = status.deferred.map(Why::Waits).or(status.failure.map(Why::Failed));
        let says = Deployment {
            attempt: status.attempt,
            report: 0,
            state: status.state,
            reason: reason.unwrap_or_default(),
            bytes_received: status.bytes_received.min(BYTES_MAX),
            bytes_twice: status.bytes_twice.min(BYTES_MAX),
            came_by: self.came_by(device, status.attempt),
            updated: today,
        };
        self.hint(device, says, percent(status.chunks_held, status.chunks));
    }

    fn asked(&mut self, today: UnixTime, device: &DeviceId, ask: Ask) {
        let known = self.progress(device).copied();
        let attempt = self.document.order.attempt;
        let before = self.came_by(device, attempt);
        let (state, fetched, came_by) = match ask {
            Ask::Manifest => (State::Offered, None, before),
            Ask::Chunks { payload, before: first, of } => {
                (State::Downloading, percent(first, of), before.then(payload))
            }
        };
        let earlier = [State::Offered, State::Deferred, State::Downloading];
        // Whoever turns to another payload could not use the first one, however far it was.
        let turned = came_by != before;
        let further = |state: State| !earlier.contains(&state) && (state.is_final() || !turned);
        if known.is_some_and(|known| further(known.deployment.state)) {
            return; // It is further than that, or it ended.
        }
        let known = known.map(|known| known.deployment);
        let says = Deployment {
            attempt,
            report: 0,
            state,
            reason: Why::Unsaid,
            bytes_received: known.map_or(0, |known| known.bytes_received),
            bytes_twice: known.map_or(0, |known| known.bytes_twice),
            came_by,
            updated: today,
        };
        self.hint(device, says, fetched);
    }

    /// Enters something unsigned, unless a report knows better.
    fn hint(&mut self, device: &DeviceId, says: Deployment, fetched: Option<u8>) {
        if self.phase == Phase::Replaced {
            return;
        }
        let Some(known) = self.deployments.get(device).copied() else {
            let fetched_percent = fetched.unwrap_or(0);
            self.enter(device, Progress { deployment: says, fetched_percent, member: true });
            return self.save(device, says, says.came_by != CameBy::default());
        };
        if !says.is_news_to(&known.deployment) || known.deployment.state == State::Confirmed {
            return self.ignore(device, Ignored::Stale);
        }
        let before = known.deployment;
        let fetched_before = if before.attempt == says.attempt { known.fetched_percent } else { 0 };
        let fetched_percent = fetched.unwrap_or(fetched_before);
        self.enter(device, Progress { deployment: says, fetched_percent, ..known });
        let worth = |of: Deployment| (of.attempt, of.state, of.reason, of.came_by);
        if worth(before) != worth(says) {
            self.save(device, says, before.came_by != says.came_by);
        }
    }

    fn save(&mut self, device: &DeviceId, deployment: Deployment, at_once: bool) {
        let row = DeploymentRow { campaign: self.id(), device: device.clone(), deployment };
        self.outputs.push_back(Output::Save { row, at_once });
    }

    fn ignore(&mut self, device: &DeviceId, why: Ignored) {
        self.outputs.push_back(Output::Event(Event::Ignored { device: device.clone(), why }));
    }

    fn in_force(&mut self, document: message::Campaign, signed: Bytes) {
        self.phase = match document.order.state {
            CampaignState::Active => Phase::Active,
            CampaignState::Aborted => Phase::Aborted,
        };
        if document.order.attempt != self.document.order.attempt {
            self.counts.next_attempt();
        }
        self.document = document;
        self.signed = signed;
    }
}

/// A part in percent; `None` of nothing.
fn percent(part: u32, of: u32) -> Option<u8> {
    let percent = (u64::from(part) * 100).checked_div(u64::from(of))?;
    u8::try_from(percent.min(100)).ok()
}

#[cfg(test)]
pub(crate) mod tests;
