//! How deployments end: the durable outcome, and the signed report that is kept until it is acknowledged.

use alloc::string::String;

use super::config::Running;
use super::context::Context;
use super::event::Event;
use super::io::StoreOp;
use super::record::{Past, Record, Stage};
use crate::cose::{Kind, sign_attached};
use crate::ids::ShortDigest;
use crate::limits::REPORTS_MAX;
use crate::message::{FailureCode, Outcome, Report, State};
use crate::topic::Channel;

/// How a deployment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    outcome: Outcome,
    failure: Option<FailureCode>,
}

impl Ended {
    pub(super) const CONFIRMED: Self = Self { outcome: Outcome::Confirmed, failure: None };

    pub(super) const fn failed(code: FailureCode) -> Self {
        Self { outcome: Outcome::Failed, failure: Some(code) }
    }

    pub(super) const fn reverted(code: FailureCode) -> Self {
        Self { outcome: Outcome::Reverted, failure: Some(code) }
    }

    pub(super) const fn cancelled(code: FailureCode) -> Self {
        Self { outcome: Outcome::Cancelled, failure: Some(code) }
    }

    /// The state that the device is shown in afterwards.
    const fn state(self) -> State {
        match self.outcome {
            Outcome::Confirmed => State::Confirmed,
            Outcome::Reverted => State::Reverted,
            Outcome::Failed => State::Failed,
            Outcome::Cancelled => State::Cancelled,
        }
    }
}

/// The last deployment that ended, and whether its report is on its way.
#[derive(Debug)]
pub(super) struct Endings {
    /// How it ended, until the next one begins.
    last: Option<Ended>,
    /// Bytes that it received, and received twice.
    ledger: (u64, u64),
    /// Its report has not been sent yet.
    unreported: bool,
}

impl Endings {
    pub(super) fn of(record: &Record) -> Self {
        let ended = |past: &Past| Ended { outcome: past.outcome, failure: past.failure };
        Self { last: record.outcomes.last().map(ended), ledger: (0, 0), unreported: false }
    }

    /// The state after the last deployment, and why it failed.
    pub(super) fn state(&self) -> Option<(State, Option<FailureCode>)> {
        self.last.map(|ended| (ended.state(), ended.failure))
    }

    pub(super) const fn ledger(&self) -> (u64, u64) {
        self.ledger
    }

    /// The next deployment begins.
    pub(super) const fn forget(&mut self) {
        self.last = None;
    }

    /// Ends the deployment in progress. Outcome and report become durable together; both go out after that.
    pub(super) fn end(&mut self, cx: &mut Context, running: &Running, ledger: (u64, u64), ended: Ended) {
        let Some(deployment) = cx.deployment() else {
            return;
        };
        let Ended { outcome, failure } = ended;
        // The update succeeded without its patch. The report says so, because somebody has to look at that patch.
        let patch_failed = outcome == Outcome::Confirmed && !deployment.given_up.is_empty();
        let failure = failure.or(patch_failed.then_some(FailureCode::Patch));
        let (campaign, attempt) = (deployment.order.campaign, deployment.order.attempt);
        let release = deployment.order.release;
        let said = match failure {
            Some(FailureCode::Unhealthy | FailureCode::Hook) => String::from(&*deployment.said),
            _ => String::new(),
        };
        if deployment.stage == Stage::Fetching && failure.is_some() {
            cx.outputs.store(StoreOp::Close);
        }
        let report = Report {
            device: cx.config.device.clone(),
            number: cx.record().next_report,
            campaign,
            attempt,
            release,
            outcome,
            failure,
            running: running.image.map(|image| image.short()).unwrap_or_default(),
            sequence: running.sequence,
            time: cx.today(),
            bytes_received: ledger.0,
            bytes_twice: ledger.1,
            said,
        };
        let report = sign_attached(&cx.config.key, Kind::Report, None, &report.encode());
        cx.change(|record| {
            record.deployment = None;
            record.next_report += 1;
            if record.reports.len() >= REPORTS_MAX {
                record.reports.remove(0);
            }
            record.reports.push(report);
            record.remember(Past { campaign, attempt, outcome, failure });
        });
        *self = Self { last: Some(Ended { outcome, failure }), ledger, unreported: true };
        cx.tell(Event::Ended { campaign, attempt, outcome, failure });
    }

    /// Whether the report of the last ending has not been sent yet. After this call it counts as sent.
    pub(super) const fn take_unreported(&mut self) -> bool {
        core::mem::replace(&mut self.unreported, false)
    }

    /// Publishes the oldest report that nobody has acknowledged. `false` if there is none.
    pub(super) fn publish_oldest_report(&mut self, cx: &mut Context) -> bool {
        let report = cx.record().reports.first().cloned();
        report.is_some_and(|report| {
            self.unreported = false;
            cx.outputs.publish(Channel::Reports, report, true);
            true
        })
    }
}

/// What a hello names, so that the answer says whether it arrived.
pub(super) fn oldest_report(record: &Record) -> Option<ShortDigest> {
    record.reports.first().and_then(|report| Report::digest(report))
}

/// The service has the report.
pub(super) fn acknowledged(cx: &mut Context, report: ShortDigest) {
    if oldest_report(cx.record()) == Some(report) {
        cx.change(|record| {
            record.reports.remove(0);
        });
        cx.tell(Event::ReportAcknowledged { report });
    }
}
