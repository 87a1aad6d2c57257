//! A message of a device: through its session, to what comes of it.

use bytes::Bytes;
use whimbrel_protocol::ids::{CampaignId, DeviceId, ShortDigest};
use whimbrel_protocol::message::{Enrolment, MessageKind, Refusal, RefusalCode, Report, Status};
use whimbrel_protocol::server::{Event, Input, Output};
use whimbrel_protocol::topic::{self, Address, Channel};
use whimbrel_protocol::version::PROTOCOL_VERSION;

use super::queries::is_member;
use super::{Core, Happened};
use crate::attach::{BrokerLink, Incoming};
use crate::campaign::{self, Ask};
use crate::metrics::Counters;
use crate::registry::Enrolled;
use crate::sessions::View;
use crate::store::{Applied, Change, DeploymentRow, Facts, ReportRow, Standing};

/// The first byte of a request for chunks.
const CHUNK_REQUEST: u8 = PROTOCOL_VERSION << 4 | MessageKind::ChunkRequest as u8;
/// Reports that may be on their way into the store.
const REPORTS_MAX: usize = 4096;

impl<L: BrokerLink> Core<L> {
    pub(super) fn message(&mut self, message: &Incoming) {
        Counters::count(&self.counters.messages_in);
        let topic = core::str::from_utf8(&message.topic).unwrap_or_default();
        match topic::parse(&self.settings.prefix, topic) {
            Some(Address { channel, device: Some(device) })
                if matches!(channel, Channel::Requests | Channel::Reports) && !message.retained =>
            {
                self.heard(&device, channel, &message.payload);
            }
            _ => Counters::count(&self.counters.ignored_topic),
        }
    }

    fn heard(&mut self, device: &DeviceId, channel: Channel, payload: &[u8]) {
        let Self { sessions, admission, registry, campaigns, catalog, .. } = self;
        let session = sessions.speak(device, self.now, admission);
        let root_version = self.authority.root().version;
        session.refresh(self.epoch, || View::of(registry.device(device), campaigns, catalog, root_version));
        if channel == Channel::Reports && !session.signed.take(self.now, 1) {
            return Counters::count(&self.counters.rejected_too_often);
        }
        if let (Some(CHUNK_REQUEST), Some(crowd)) = (payload.first().copied(), session.view.crowd())
            && let Err(wait_s) =
                admission.check(self.now, &mut session.bytes, crowd, || session.view.bytes_asked(payload))
        {
            Counters::count(&self.counters.busy);
            let refusal = Refusal { code: RefusalCode::Busy, retry_after_s: Some(wait_s), payload: None };
            return self.refuse(device, refusal);
        }
        let view = session.view.borrow();
        session.machine.handle_input(self.now, self.today, &view, Input::Message { channel, payload });
        self.carry_out_all(device);
    }

    pub(super) fn session_timeout(&mut self, device: &DeviceId) {
        self.feed(device, Input::Timeout);
    }

    /// Feeds a session that is there with something that is no message.
    fn feed(&mut self, device: &DeviceId, input: Input<'_>) {
        let Self { sessions, registry, campaigns, catalog, .. } = self;
        let Some(session) = sessions.find(device) else { return };
        let root_version = self.authority.root().version;
        session.refresh(self.epoch, || View::of(registry.device(device), campaigns, catalog, root_version));
        session.machine.handle_input(self.now, self.today, &session.view.borrow(), input);
        self.carry_out_all(device);
    }

    fn carry_out_all(&mut self, device: &DeviceId) {
        while let Some(output) = self.sessions.find(device).and_then(|session| session.machine.poll_output())
        {
            self.carry_out(device, output);
        }
        self.sessions.set_timer(device);
    }

    fn carry_out(&mut self, device: &DeviceId, output: Output) {
        match output {
            Output::Chunks { payload, runs, bytes } => self.serve_chunks(device, payload, runs, bytes),
            Output::Page { payload, page } => self.serve_page(device, payload, page),
            Output::Answer(answer) => {
                Counters::count(&self.counters.answers);
                self.send(device, self.authority.answer(&answer));
            }
            Output::Assignment => {
                let standing = self.registry.device(device).map(|known| &known.standing);
                if let Some(Standing::Accepted { assignment, .. }) = standing {
                    self.send(device, assignment.clone());
                }
            }
            Output::Campaign(group) => {
                if let Some(campaign) = self.campaigns.of_group(&group) {
                    self.send(device, campaign.signed().clone());
                }
            }
            Output::Manifest(release) => {
                if let Some(release) = self.catalog.release(&release) {
                    Counters::count(&self.counters.manifests);
                    self.send(device, release.envelope.clone());
                    self.asked(device, Ask::Manifest);
                }
            }
            Output::Refuse(refusal) => self.send_refusal(device, refusal),
            Output::Event(event) => self.event(device, event),
        }
    }

    /// Sends something on the device's own topic.
    pub(super) fn send(&mut self, device: &DeviceId, payload: Bytes) {
        if let Some(session) = self.sessions.find(device) {
            let topic = session.answers.clone();
            self.outbox.send(topic, payload);
        }
    }

    fn send_refusal(&mut self, device: &DeviceId, refusal: Refusal) {
        Counters::count(&self.counters.refusals);
        self.send(device, Bytes::from(refusal.encode()));
    }

    /// Refuses something that the session's machine does not know of; a device that does not listen gets silence.
    pub(super) fn refuse(&mut self, device: &DeviceId, refusal: Refusal) {
        if self.sessions.find(device).is_some_and(|session| session.refusals.take(self.now, 1)) {
            self.send_refusal(device, refusal);
        }
    }

    fn event(&mut self, device: &DeviceId, event: Event) {
        match event {
            Event::Hello { class, running, sequence } => {
                if self.registry.device(device).is_some_and(|known| known.class != class) {
                    tracing::warn!(%device, %class, "device says it is of another class than it enrolled with");
                }
                self.note_facts(device, Facts { running, sequence, seen: self.today });
            }
            Event::Progress { status } => self.told(device, &status),
            Event::Enrolled { enrolment } => self.enrolled(enrolment),
            Event::Reported { report, digest, signed } => {
                self.reported(device, report, digest, Bytes::from(signed));
            }
            Event::Rejected { reason } => {
                self.counters.reject(&reason);
                tracing::debug!(%device, reason = ?reason, "message rejected");
            }
        }
    }

    fn note_facts(&mut self, device: &DeviceId, facts: Facts) {
        if self.registry.heard(device, facts) {
            self.unsaved_facts.insert(device.clone());
            self.save_soon();
        }
    }

    /// A device says how far it is: believed of the campaign that rules it, and of no other.
    fn told(&mut self, device: &DeviceId, status: &Status) {
        let live =
            self.sessions.find(device).and_then(|session| session.view.live().map(|live| live.campaign));
        if live == Some(status.campaign) {
            self.feed_campaign(device, campaign::Input::Told { device, status });
        }
    }

    /// A device asked for something of its release.
    pub(super) fn asked(&mut self, device: &DeviceId, ask: Ask) {
        self.feed_campaign(device, campaign::Input::Asked { device, ask });
    }

    /// Feeds the campaign that rules a device.
    fn feed_campaign(&mut self, device: &DeviceId, input: campaign::Input<'_>) {
        let Some(session) = self.sessions.find(device) else { return };
        let Some(campaign) = session.view.live().map(|live| live.campaign) else { return };
        if let Some(campaign) = self.campaigns.campaign_mut(&campaign) {
            campaign.handle_input(self.today, input);
        }
        self.carry_out_campaign(campaign);
    }

    fn carry_out_campaign(&mut self, id: CampaignId) {
        while let Some(output) = self.campaigns.campaign_mut(&id).and_then(campaign::Campaign::poll_output) {
            match output {
                campaign::Output::Save(row) => {
                    self.unsaved_deployments.insert((row.campaign, row.device.clone()), row);
                    self.save_soon();
                }
                campaign::Output::Event(campaign::Event::Counted { device, outcome }) => {
                    tracing::info!(%device, campaign = %id, outcome = outcome.name(), "deployment ended");
                }
                campaign::Output::Event(campaign::Event::Ignored { device, why }) => {
                    tracing::debug!(%device, campaign = %id, reason = ?why, "progress ignored");
                }
                // Only commands of operators and their results bring these about, and the desk takes them.
                campaign::Output::Sign(_) | campaign::Output::Publish(_) => {}
            }
        }
    }

    fn enrolled(&mut self, enrolment: Enrolment) {
        let id = enrolment.device.clone();
        match self.registry.enrol(enrolment) {
            Enrolled::Known => {}
            Enrolled::OtherKey => {
                Counters::count(&self.counters.enrolled_with_other_key);
                tracing::warn!(device = %id, "device enrols with another key than it is known with");
            }
            Enrolled::Pending { device, dropped } => {
                Counters::count(&self.counters.enrolled);
                let fingerprint = device.key().map(|key| key.fingerprint().to_string()).unwrap_or_default();
                tracing::info!(device = %id, fingerprint, "device pending");
                let mut changes = Vec::from([Change::Device(device)]);
                if let Some(dropped) = dropped {
                    Counters::count(&self.counters.pending_dropped);
                    self.sessions.forget_view(&dropped);
                    changes.insert(0, Change::DropPending(dropped));
                }
                self.sessions.forget_view(&id);
                self.save_now(changes);
            }
        }
    }

    fn save_now(&mut self, changes: Vec<Change>) {
        let tell = self.tell.clone();
        let taken = self.store.submit(changes, move |applied| {
            let _stopping = tell.send(Happened::Saved { applied });
        });
        if !taken {
            Counters::count(&self.counters.store_overruns);
        }
    }

    /// A verified report: into the store first, then it counts, then the device is told.
    fn reported(&mut self, device: &DeviceId, report: Report, digest: ShortDigest, signed: Bytes) {
        let name = (device.clone(), digest);
        if self.reports_on_the_way.contains(&name) {
            return;
        }
        if self.reports_on_the_way.len() >= REPORTS_MAX {
            return Counters::count(&self.counters.store_overruns);
        }
        let says = self.judge(device, &report);
        if says.is_none() {
            Counters::count(&self.counters.reports_of_nothing);
        }
        let row = ReportRow { device: device.clone(), digest, received: self.today, signed, says };
        let (tell, told_device) = (self.tell.clone(), device.clone());
        let report = Box::new(report);
        let taken = self.store.submit(Vec::from([Change::Report(row)]), move |applied| {
            let done = Happened::ReportStored { device: told_device, digest, report, applied };
            let _stopping = tell.send(done);
        });
        if taken {
            self.reports_on_the_way.insert(name);
        } else {
            Counters::count(&self.counters.store_overruns);
        }
    }

    /// What a report says about a campaign of ours that its device is, or was, part of.
    fn judge(&self, device: &DeviceId, report: &Report) -> Option<DeploymentRow> {
        let campaign = self.campaigns.campaign(&report.campaign)?;
        let known = self.registry.device(device)?;
        let part = is_member(known, campaign.document()) || campaign.progress(device).is_some();
        let deployment = campaign.read(report, self.today).filter(|_| part)?;
        Some(DeploymentRow { campaign: report.campaign, device: device.clone(), deployment })
    }

    pub(super) fn report_stored(
        &mut self,
        device: DeviceId,
        digest: ShortDigest,
        report: &Report,
        applied: &Applied,
    ) {
        self.note_store(applied);
        let name = (device, digest);
        self.reports_on_the_way.remove(&name);
        let (device, _) = name;
        let Ok(changed) = applied else { return };
        if changed.first() == Some(&true) {
            Counters::count(&self.counters.reports);
            self.note_facts(
                &device,
                Facts { running: report.running, sequence: report.sequence, seen: self.today },
            );
            if self.judge(&device, report).is_some()
                && let Some(campaign) = self.campaigns.campaign_mut(&report.campaign)
            {
                campaign.handle_input(self.today, campaign::Input::Reported { device: &device, report });
                self.unsaved_deployments.remove(&(report.campaign, device.clone()));
                self.carry_out_campaign(report.campaign);
            }
        } else {
            Counters::count(&self.counters.reports_again);
        }
        self.feed(&device, Input::ReportStored { report: digest });
    }
}
