//! A message of a device: through its session, to what comes of it.

use bytes::Bytes;
use whimbrel_protocol::ids::{DeviceId, ShortDigest};
use whimbrel_protocol::message::Refusal;
use whimbrel_protocol::server::{self, Reason};
use whimbrel_protocol::topic::{self, Address, Channel};

use super::chunks::Asked;
use super::view::View;
use super::{Event, Output, Serving};
use crate::attach::Incoming;
use crate::fleet::campaign::Ask;
use crate::fleet::{self, Fleet};
use crate::metrics::Counters;
use crate::store::{Facts, Standing};

impl Serving {
    pub(super) fn message(&mut self, fleet: &Fleet, message: &Incoming) {
        Counters::count(&self.counters.messages_in);
        let topic = core::str::from_utf8(&message.topic).unwrap_or_default();
        match topic::parse(&self.prefix, topic) {
            Some(Address { channel, device: Some(device) })
                if matches!(channel, Channel::Requests | Channel::Reports) && !message.retained =>
            {
                self.heard_message(fleet, &device, channel, &message.payload);
            }
            _ => Counters::count(&self.counters.ignored_topic),
        }
    }

    fn heard_message(&mut self, fleet: &Fleet, device: &DeviceId, channel: Channel, payload: &[u8]) {
        let session = self.sessions.speak(device, self.now, &self.admission);
        session.refresh(fleet.epoch(), || View::of_device(fleet, device));
        if channel == Channel::Reports && !session.signed.take(self.now, 1) {
            return Counters::count(&self.counters.rejected_too_often);
        }
        let input = server::Input::message(&channel, payload);
        session.machine.handle_input(self.now, self.today, &session.view.borrow(), input);
        self.carry_out_all(fleet, device);
    }

    pub(super) fn session_timeout(&mut self, fleet: &Fleet, device: &DeviceId) {
        self.feed(fleet, device, server::Input::Timeout);
    }

    pub(super) fn report_stored(&mut self, fleet: &Fleet, device: &DeviceId, report: ShortDigest) {
        self.feed(fleet, device, server::Input::ReportStored { report });
    }

    /// Feeds a session that is there with something that is no message.
    fn feed(&mut self, fleet: &Fleet, device: &DeviceId, input: server::Input<'_>) {
        let Some(session) = self.sessions.find(device) else { return };
        session.refresh(fleet.epoch(), || View::of_device(fleet, device));
        session.machine.handle_input(self.now, self.today, &session.view.borrow(), input);
        self.carry_out_all(fleet, device);
    }

    fn carry_out_all(&mut self, fleet: &Fleet, device: &DeviceId) {
        while let Some(output) = self.sessions.find(device).and_then(|session| session.machine.poll_output())
        {
            self.carry_out(fleet, device, output);
        }
        self.sessions.set_timer(device);
    }

    fn carry_out(&mut self, fleet: &Fleet, device: &DeviceId, output: server::Output) {
        match output {
            server::Output::Chunks { payload, position, runs, bytes } => {
                self.serve_chunks(fleet, device, Asked { payload, position, runs, bytes });
            }
            server::Output::Page { position, page, .. } => self.serve_page(fleet, device, position, page),
            server::Output::Answer(answer) => {
                Counters::count(&self.counters.answers);
                self.answer(device, answer);
            }
            server::Output::Assignment => {
                let standing = fleet.registry().device(device).map(|known| &known.standing);
                if let Some(Standing::Accepted { assignment, .. }) = standing {
                    self.send(device, assignment.clone());
                }
            }
            server::Output::Campaign(group) => {
                if let Some(campaign) = fleet.campaigns().of_group(&group) {
                    self.send(device, campaign.signed().clone());
                }
            }
            server::Output::Manifest(release) => {
                if let Some(release) = fleet.catalog().release(&release) {
                    Counters::count(&self.counters.manifests);
                    self.send(device, release.envelope.clone());
                    self.asked(device, Ask::Manifest);
                }
            }
            server::Output::Refuse(refusal) => self.send_refusal(device, refusal),
            server::Output::Event(event) => self.event(device, event),
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

    /// Tells the fleet that a device was served something of its release.
    pub(super) fn asked(&mut self, device: &DeviceId, ask: Ask) {
        let campaign = self.sessions.find(device).and_then(|session| session.view.campaign());
        if let Some(campaign) = campaign {
            self.tell_fleet(fleet::Input::Asked { device: device.clone(), campaign, ask });
        }
    }

    fn event(&mut self, device: &DeviceId, event: server::Event) {
        let device = device.clone();
        match event {
            server::Event::Hello { class, running, sequence, assignment, campaign } => {
                let facts = Facts { running, sequence, seen: self.today };
                self.tell_fleet(fleet::Input::Hello { device, class, facts, assignment, campaign });
            }
            server::Event::Progress { status } => {
                let campaign = self.sessions.find(&device).and_then(|session| session.view.campaign());
                self.tell_fleet(fleet::Input::Progress { device, campaign, status });
            }
            server::Event::Enrolled { enrolment } => self.tell_fleet(fleet::Input::Enrolled(enrolment)),
            server::Event::Reported { report, digest, signed } => {
                let (report, signed) = (Box::new(report), Bytes::from(signed));
                self.tell_fleet(fleet::Input::Reported { device, report, digest, signed });
            }
            server::Event::Rejected { reason } => self.rejected(device, reason),
        }
    }

    fn rejected(&mut self, device: DeviceId, reason: Reason) {
        self.counters.reject(&reason);
        self.outputs.push_back(Output::Event(Event::Rejected { device, reason }));
    }

    pub(super) fn tell_fleet(&mut self, input: fleet::Input) {
        self.outputs.push_back(Output::Fleet(input));
    }
}
