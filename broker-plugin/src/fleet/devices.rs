//! What devices say, as those who serve them pass it on.

use bytes::Bytes;
use whimbrel_protocol::ids::{CampaignId, ClassTag, DeviceId, ShortDigest};
use whimbrel_protocol::message::{Enrolment, Report, Status};

use super::campaign::{self, Ask, Campaign};
use super::registry::Enrolled;
use super::{Event, Fleet, Job, Output};
use crate::store::{Applied, Change, DeploymentRow, Device, Facts, ReportRow, Reported};

/// Reports that may be on their way into the store.
const REPORTS_MAX: usize = 4096;

impl Fleet {
    pub(super) fn hello(&mut self, device: DeviceId, class: ClassTag, facts: Facts, assignment: u64) {
        self.compare_hello(&device, class, assignment);
        self.note_facts(device, facts);
    }

    fn note_facts(&mut self, device: DeviceId, facts: Facts) {
        if self.registry.heard(&device, facts) {
            self.unsaved_facts.insert(device);
            self.save_soon();
        }
    }

    /// A device says how far it is: believed of the campaign that rules it, and of no other.
    pub(super) fn progress(&mut self, device: &DeviceId, campaign: Option<CampaignId>, status: &Status) {
        if campaign == Some(status.campaign) {
            self.feed_campaign(status.campaign, campaign::Input::Told { device, status });
        }
    }

    /// A device was served something of its release.
    pub(super) fn asked(&mut self, device: &DeviceId, campaign: CampaignId, ask: Ask) {
        self.feed_campaign(campaign, campaign::Input::Asked { device, ask });
    }

    fn feed_campaign(&mut self, id: CampaignId, input: campaign::Input<'_>) {
        let Some(campaign) = self.campaigns.campaign_mut(&id) else { return };
        let device = match input {
            campaign::Input::Reported { device, .. }
            | campaign::Input::Told { device, .. }
            | campaign::Input::Asked { device, .. } => Some(device),
            campaign::Input::InForce { .. } | campaign::Input::Replaced => None,
        };
        campaign.handle_input(self.today, input);
        if let Some(device) = device {
            let known = self.registry.device(device);
            campaign.set_member(device, known.is_some_and(|known| is_member(known, campaign)));
        }
        while let Some(output) = self.campaigns.campaign_mut(&id).and_then(Campaign::poll_output) {
            match output {
                campaign::Output::Save { row, at_once: true } => {
                    self.unsaved_deployments.remove(&(row.campaign, row.device.clone()));
                    let changes = Vec::from([Change::Deployment(row)]);
                    self.outputs.push_back(Output::Store { job: Job::Note, changes });
                }
                campaign::Output::Save { row, at_once: false } => {
                    self.unsaved_deployments.insert((row.campaign, row.device.clone()), row);
                    self.save_soon();
                }
                campaign::Output::Event(campaign::Event::Counted { device, outcome, failure, said }) => {
                    self.tell(Event::Ended { device, campaign: id, outcome, failure, said });
                }
                campaign::Output::Event(campaign::Event::Ignored { device, why }) => {
                    self.tell(Event::Ignored { device, campaign: id, why });
                }
            }
        }
    }

    pub(super) fn enrolled(&mut self, enrolment: Enrolment) {
        let id = enrolment.device.clone();
        match self.registry.enrol(enrolment, self.today) {
            Enrolled::Known => self.has_its_key(&id),
            Enrolled::OtherKey => {
                self.tell(Event::OtherKey { device: id.clone() });
                self.is_rekeyed(id);
            }
            Enrolled::Pending { device, dropped } => {
                let fingerprint = device.key().map(|key| key.fingerprint().to_string()).unwrap_or_default();
                self.tell(Event::Pending { device: id.clone(), fingerprint });
                let mut changes = Vec::from([Change::Enrolled(device)]);
                if let Some(dropped) = dropped {
                    self.tell(Event::PendingDropped { device: dropped.clone() });
                    self.outputs.push_back(Output::Changed(dropped.clone()));
                    changes.insert(0, Change::DropPending(dropped));
                }
                self.outputs.push_back(Output::Changed(id));
                self.outputs.push_back(Output::Store { job: Job::Note, changes });
            }
        }
    }

    /// A verified report: into the store first, then it counts, then the device is told.
    pub(super) fn reported(
        &mut self,
        device: DeviceId,
        report: Box<Report>,
        digest: ShortDigest,
        signed: Bytes,
    ) {
        let name = (device.clone(), digest);
        if self.reports.contains_key(&name) {
            return;
        }
        if self.reports.len() >= REPORTS_MAX {
            return self.tell(Event::StoreOverrun);
        }
        let says = self.judge(&device, &report);
        if says.is_none() {
            self.tell(Event::ReportOfNothing);
        }
        let reported = says_of_device(&report);
        let row = ReportRow { device: device.clone(), digest, received: self.today, signed, reported, says };
        self.reports.insert(name, report);
        let changes = Vec::from([Change::Report(row)]);
        self.outputs.push_back(Output::Store { job: Job::Report { device, digest }, changes });
    }

    /// What a report says about a campaign of ours that its device is, or was, part of.
    fn judge(&self, device: &DeviceId, report: &Report) -> Option<DeploymentRow> {
        let campaign = self.campaigns.campaign(&report.campaign)?;
        let known = self.registry.device(device)?;
        let part = is_member(known, campaign) || campaign.progress(device).is_some();
        let deployment = campaign.read(report, self.today).filter(|_| part)?;
        Some(DeploymentRow { campaign: report.campaign, device: device.clone(), deployment })
    }

    pub(super) fn stored(&mut self, job: Job, applied: Applied) {
        if applied.is_err() {
            self.tell(Event::StoreFailed);
        }
        match job {
            Job::Change => self.change_stored(applied),
            Job::Report { device, digest } => self.report_stored(device, digest, &applied),
            Job::Note => {}
        }
    }

    pub(super) fn not_taken(&mut self, job: Job) {
        self.tell(Event::StoreOverrun);
        if let Job::Report { device, digest } = job {
            self.reports.remove(&(device, digest)); // The device sends it again.
        }
    }

    fn report_stored(&mut self, device: DeviceId, digest: ShortDigest, applied: &Applied) {
        let name = (device, digest);
        let report = self.reports.remove(&name);
        let (device, _) = name;
        let (Some(report), Ok(changed)) = (report, applied) else { return };
        if changed.first() == Some(&true) {
            self.tell(Event::ReportNew);
            // An old report that comes late, or again, says nothing about what the device runs, or which key it has, now.
            if self.registry.reported(&device, says_of_device(&report)) {
                self.has_its_key(&device);
                let facts = Facts { running: report.running, sequence: report.sequence, seen: self.today };
                self.note_facts(device.clone(), facts);
            }
            if self.judge(&device, &report).is_some() {
                self.unsaved_deployments.remove(&(report.campaign, device.clone()));
                let input = campaign::Input::Reported { device: &device, report: &report };
                self.feed_campaign(report.campaign, input);
            }
        } else {
            self.tell(Event::ReportAgain);
        }
        self.outputs.push_back(Output::ReportStored { device, digest });
    }

    /// Enters a device, and tells the campaigns of the groups that it was in, or is in now.
    pub(super) fn enter_into_registry(&mut self, device: Device) {
        let id = device.id.clone();
        let before = self.registry.device(&id).map(|before| before.groups().to_vec()).unwrap_or_default();
        let now = device.groups().to_vec();
        self.registry.enter(device);
        let Some(known) = self.registry.device(&id) else { return };
        for group in before.iter().chain(&now) {
            if let Some(campaign) = self.campaigns.of_group_mut(group) {
                let member = is_member(known, campaign);
                campaign.set_member(&id, member);
            }
        }
    }
}

fn says_of_device(report: &Report) -> Reported {
    let next = report.number.saturating_add(1);
    Reported { next, running: report.running, sequence: report.sequence }
}

/// Whether a campaign is for a device: for its class, and for one of its groups.
pub(super) fn is_member(device: &Device, campaign: &Campaign) -> bool {
    let document = campaign.document();
    device.class == document.order.class && device.groups().contains(&document.group)
}
