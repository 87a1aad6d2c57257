//! How deployments end: the durable outcome, and the signed report that is kept until it is acknowledged.

use super::DeviceSession;
use super::io::{Event, StoreOp};
use super::record::{Past, Stage};
use super::work::Work;
use crate::cose::{Kind, sign_attached};
use crate::ids::{CampaignId, Digest, ShortDigest};
use crate::limits::REPORTS_MAX;
use crate::message::{Enrolment, FailureCode, Outcome, Report, State};
use crate::topic::Channel;

impl DeviceSession {
    /// Ends the deployment in progress. Outcome and report become durable together; both go out after that.
    pub(super) fn end(&mut self, outcome: Outcome, failure: Option<FailureCode>) {
        let (bytes_received, bytes_twice) = self.ledger();
        let was_downloading = matches!(self.work, Work::Downloading(_) | Work::Opening { .. });
        self.work = Work::Idle;
        self.envelope = None;
        let Some(deployment) = self.record.deployment.take() else {
            return;
        };
        // What became of it is good, and still somebody has to know that a patch of theirs is not.
        let patch_failed = outcome == Outcome::Confirmed && !deployment.given_up.is_empty();
        let failure = failure.or(patch_failed.then_some(FailureCode::Patch));
        let order = deployment.order;
        if deployment.stage == Stage::Fetching && (was_downloading || failure.is_some()) {
            self.store(StoreOp::Close);
        }
        let report = Report {
            device: self.config.device.clone(),
            number: self.record.next_report,
            campaign: order.campaign,
            attempt: order.attempt,
            release: order.release,
            outcome,
            failure,
            running: self.boot.running.image.map(|image| image.short()).unwrap_or_default(),
            sequence: self.boot.running.sequence,
            time: self.today(),
            bytes_received,
            bytes_twice,
        };
        let report = sign_attached(&self.config.key, Kind::Report, None, &report.encode());
        let past = Past { campaign: order.campaign, attempt: order.attempt, outcome, failure };
        self.change(|record| {
            record.next_report += 1;
            if record.reports.len() >= REPORTS_MAX {
                record.reports.remove(0);
            }
            record.reports.push(report);
            record.remember(past);
        });
        self.last_ledger = (bytes_received, bytes_twice);
        self.last = Some((state_of(outcome), failure));
        self.unreported = true;
        self.tell(Event::Ended { campaign: order.campaign, attempt: order.attempt, outcome, failure });
    }

    /// A report that has just become durable goes out, and hello asks whether it arrived.
    pub(super) fn report_what_ended(&mut self) {
        if self.unreported && self.link.is_up() {
            self.unreported = false;
            self.publish_oldest_report();
            self.hello();
        }
    }

    pub(super) fn oldest_report(&self) -> Option<ShortDigest> {
        self.record.reports.first().map(|report| Digest::of(report).short())
    }

    pub(super) fn publish_oldest_report(&mut self) {
        if let Some(report) = self.record.reports.first().cloned() {
            self.unreported = false;
            self.publish(Channel::Reports, report, true);
        }
    }

    /// The service has the report.
    pub(super) fn acknowledged(&mut self, report: ShortDigest) {
        if self.oldest_report() == Some(report) {
            self.change(|record| {
                record.reports.remove(0);
            });
            self.tell(Event::ReportAcknowledged { report });
        }
    }

    /// Introduces the device to a service that does not know it.
    pub(super) fn enrol(&mut self) {
        let enrolment = Enrolment {
            device: self.config.device.clone(),
            key: self.config.key.public(),
            class: self.config.class,
        };
        let message = sign_attached(&self.config.key, Kind::Enrolment, None, &enrolment.encode());
        self.publish(Channel::Reports, message, true);
    }

    /// Tells the service how far things are: only where somebody who watches would wonder.
    pub(super) fn send_status(&mut self) {
        let telling =
            matches!(self.state(), State::Deferred | State::Downloading | State::Installing | State::Testing);
        if !telling || !self.link.is_up() {
            return;
        }
        if let Some(status) = self.status().filter(|status| status.campaign != CampaignId::default()) {
            self.publish(Channel::Requests, status.encode(), false);
        }
    }
}

/// The state that a deployment is shown in after it ended.
pub(super) fn state_of(outcome: Outcome) -> State {
    match outcome {
        Outcome::Confirmed => State::Confirmed,
        Outcome::Reverted => State::Reverted,
        Outcome::Failed => State::Failed,
        Outcome::Cancelled => State::Cancelled,
    }
}
