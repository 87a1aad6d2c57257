//! How many devices of a campaign are how far.

use alloc::collections::BTreeMap;

use whimbrel_protocol::ids::{DeviceId, ShortDigest};
use whimbrel_protocol::message::State;

use super::{Campaign, Progress};
use crate::store::{CameBy, Deployment, TallyRow, Why};

/// Devices by state, failures by reason, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    by_state: BTreeMap<&'static str, u64>,
    /// Devices that have not begun.
    pub waiting: u64,
    /// All devices.
    pub total: u64,
    /// Payload bytes received, with everything received twice.
    pub bytes_received: u64,
    /// Payload bytes received more than once.
    pub bytes_twice: u64,
    /// Why deployments did not end in a confirmed image, and how many each.
    pub failures: BTreeMap<&'static str, u64>,
    /// Devices that have begun, by the payload by which their image comes; `None` if nothing was served.
    pub by_payload: BTreeMap<Option<ShortDigest>, Share>,
    /// Sum over all devices of how far each is, in percent.
    percents: u64,
}

/// What one payload is to a campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Devices whose image comes by it.
    pub devices: u64,
    /// Payload bytes that these devices received, with everything received twice and by payloads given up.
    pub bytes_received: u64,
}

impl Tally {
    /// Counts a campaign whose members are `members`, one device after the other. Devices that have left the group
    /// count as far as they got. [`Campaign::tally`] has the same numbers without counting.
    #[must_use]
    pub fn of<'d>(campaign: &Campaign, members: impl Iterator<Item = &'d DeviceId>) -> Self {
        let mut tally = Self::default();
        let waiting = members.filter(|device| campaign.progress(device).is_none());
        tally.waiting = waiting.map(|_| 1).sum();
        tally.total = tally.waiting;
        for (_, progress) in campaign.deployments() {
            if campaign.is_current(&progress.deployment) {
                tally.enter(progress);
            }
        }
        tally
    }

    /// Counts a device that has begun.
    pub(super) fn enter(&mut self, progress: &Progress) {
        self.total += 1;
        self.add(&progress.deployment, 1);
        self.percents += u64::from(percent_of(&progress.deployment, progress.fetched_percent));
    }

    /// Counts a device no more that was entered as it is here. Nothing is left of what nobody is in.
    pub(super) fn take_out(&mut self, progress: &Progress) {
        let deployment = &progress.deployment;
        self.total -= 1;
        self.percents -= u64::from(percent_of(deployment, progress.fetched_percent));
        self.bytes_received = self.bytes_received.saturating_sub(deployment.bytes_received);
        self.bytes_twice = self.bytes_twice.saturating_sub(deployment.bytes_twice);
        take_one(&mut self.by_state, deployment.state.name());
        if is_bad(deployment.state) {
            take_one(&mut self.failures, reason_of(deployment.reason));
        }
        if let Some(share) = self.by_payload.get_mut(&deployment.came_by.payload) {
            share.devices -= 1;
            share.bytes_received = share.bytes_received.saturating_sub(deployment.bytes_received);
            if share.devices == 0 {
                self.by_payload.remove(&deployment.came_by.payload);
            }
        }
    }

    /// Adds the sums of other devices of the campaign.
    pub(super) fn add_all(&mut self, others: &Self) {
        self.waiting += others.waiting;
        self.total += others.total;
        self.percents += others.percents;
        self.bytes_received = self.bytes_received.saturating_add(others.bytes_received);
        self.bytes_twice = self.bytes_twice.saturating_add(others.bytes_twice);
        for (state, devices) in &others.by_state {
            *self.by_state.entry(state).or_default() += devices;
        }
        for (reason, devices) in &others.failures {
            *self.failures.entry(reason).or_default() += devices;
        }
        for (payload, share) in &others.by_payload {
            let sum = self.by_payload.entry(*payload).or_default();
            sum.devices += share.devices;
            sum.bytes_received = sum.bytes_received.saturating_add(share.bytes_received);
        }
    }

    /// Counts a campaign that was replaced.
    #[must_use]
    pub fn of_rows<'r>(rows: impl Iterator<Item = &'r TallyRow>) -> Self {
        let mut tally = Self::default();
        for row in rows {
            let deployment = Deployment {
                attempt: 0,
                report: 0,
                state: row.state,
                reason: row.reason,
                bytes_received: row.bytes_received,
                bytes_twice: row.bytes_twice,
                came_by: CameBy { payload: row.payload, given_up: None },
                updated: whimbrel_protocol::time::UnixTime::default(),
            };
            tally.add(&deployment, row.devices);
            tally.total += row.devices;
            tally.percents += row.devices * u64::from(percent_of(&deployment, 0));
        }
        tally
    }

    fn add(&mut self, deployment: &Deployment, devices: u64) {
        *self.by_state.entry(deployment.state.name()).or_default() += devices;
        self.bytes_received = self.bytes_received.saturating_add(deployment.bytes_received);
        self.bytes_twice = self.bytes_twice.saturating_add(deployment.bytes_twice);
        let share = self.by_payload.entry(deployment.came_by.payload).or_default();
        share.devices += devices;
        share.bytes_received = share.bytes_received.saturating_add(deployment.bytes_received);
        if is_bad(deployment.state) {
            *self.failures.entry(reason_of(deployment.reason)).or_default() += devices;
        }
    }

    /// Devices in one state.
    #[must_use]
    pub fn in_state(&self, state: State) -> u64 {
        self.by_state.get(state.name()).copied().unwrap_or(0)
    }

    /// How much of the campaign is done, in percent: 100 only if every device has confirmed.
    #[must_use]
    pub fn percent(&self) -> u8 {
        // A mean of numbers up to 100.
        self.percents.checked_div(self.total).and_then(|mean| u8::try_from(mean).ok()).unwrap_or(0)
    }
}

/// Whether a deployment ended without a confirmed image.
const fn is_bad(state: State) -> bool {
    matches!(state, State::Reverted | State::Failed | State::Cancelled)
}

/// Counts one device less.
fn take_one(counted: &mut BTreeMap<&'static str, u64>, name: &'static str) {
    let Some(devices) = counted.get_mut(name) else { return };
    *devices -= 1;
    if *devices == 0 {
        counted.remove(name);
    }
}

fn reason_of(reason: Why) -> &'static str {
    reason.name().unwrap_or("unsaid")
}

/// How far a device is, in percent: what it has fetched, 100 if it runs the image for good, and 0 if it ended in any other
/// way, because nothing of the update is in place then.
pub(crate) fn percent_of(deployment: &Deployment, fetched_percent: u8) -> u8 {
    match deployment.state {
        State::Confirmed => 100,
        State::Reverted | State::Failed | State::Cancelled => 0,
        State::Downloaded | State::Installing | State::Rebooting | State::Testing => 99,
        _ => fetched_percent.min(98),
    }
}
