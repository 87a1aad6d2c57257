//! The service's side of the protocol for one device, as a machine without I/O (SPEC section 9).
//!
//! Nothing here has to survive a restart: a session is made when a device speaks, and may be dropped at any
//! time. Its counters only bound what one device can cost. With every input the host passes in what the
//! service knows of the device, as a [`DeviceView`]. The outputs say what to send; bytes that many devices
//! share, such as chunks, are only named, and the host has them.

mod bucket;
mod io;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

pub use bucket::Bucket;
pub use io::{
    DeviceView, Document, Event, GroupDocument, Input, Live, LivePayload, Output, Reason, Standing,
};

use crate::codec::DecodeError;
use crate::cose::{Kind, PublicKey, Sign1};
use crate::ids::{DeviceId, Digest, PayloadTag, ShortDigest};
use crate::limits::SERVED_TIMES_PER_DAY_MAX;
use crate::message::{
    ChunkRequest, DocumentRequest, Enrolment, GroupVersion, Hello, HelloAnswer, PageNumber, PageRequest,
    Refusal, RefusalCode, Report, Request,
};
use crate::time::{Instant, UnixTime};

/// One device, as the service sees it.
#[derive(Debug)]
pub struct ServerSession {
    device: DeviceId,
    /// Limits hello answers, refusals, documents and pages: every answer that costs a signature, or more
    /// bytes than its request.
    answers: Bucket,
    served: Vec<Served>,
    /// A hello that names a report which is being stored.
    waiting: Option<(Hello, Instant)>,
    /// Reports that are stored, or being stored.
    report: Option<(ShortDigest, bool)>,
    outputs: VecDeque<Output>,
}

/// How much of one payload the device got today.
#[derive(Debug)]
struct Served {
    payload: PayloadTag,
    since: Instant,
    bytes: u64,
}

const DAY_MS: u64 = 24 * 3600 * 1000;
/// How long a hello waits for the report that it names.
const REPORT_WAIT_MS: u64 = 3_000;
/// Answers that one device may get at once, and the time after which it may get one more.
const ANSWERS_BURST: u64 = 24;
const ANSWER_EVERY_MS: u64 = 2_000;
/// Payloads whose bytes are counted per device. They are more than one release has, so that a device cannot
/// reset a count by asking for the other payloads of its release.
const PAYLOADS_MAX: usize = 16;
/// The wait that a device is told which is over its quota.
const QUOTA_RETRY_S: u32 = 3600;
/// The wait that a device is told which is not accepted yet.
const PENDING_RETRY_S: u32 = 30;

impl ServerSession {
    /// Starts a session for `device`.
    #[must_use]
    pub fn new(device: DeviceId, now: Instant) -> Self {
        Self {
            device,
            answers: Bucket::new(ANSWERS_BURST, 1000, ANSWER_EVERY_MS, now),
            served: Vec::new(),
            waiting: None,
            report: None,
            outputs: VecDeque::new(),
        }
    }

    /// Tells the session what happened; `view` is what the service knows of the device now, `today` its clock.
    pub fn handle_input(&mut self, now: Instant, today: UnixTime, view: &DeviceView<'_>, input: Input<'_>) {
        debug_assert!(self.outputs.is_empty(), "outputs must be drained before the next input");
        match input {
            Input::Request(Ok(request)) => self.request(now, today, view, request),
            Input::Request(Err(error)) => {
                self.tell(Event::Rejected { reason: Reason::Malformed(error) });
                let version = matches!(error, DecodeError::Version { .. });
                let code = if version { RefusalCode::Version } else { RefusalCode::Malformed };
                self.refuse(now, code, None, None);
            }
            Input::Signed(message) => self.signed(view, message),
            Input::WrongChannel => self.tell(Event::Rejected { reason: Reason::WrongChannel }),
            Input::ReportStored { report } => {
                self.report = Some((report, true));
                self.answer_waiting(today, view);
            }
            Input::Timeout => {
                if self.waiting.as_ref().is_some_and(|(_, until)| *until <= now) {
                    self.answer_waiting(today, view);
                }
            }
        }
    }

    /// The next effect to carry out, or `None` when all are.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to feed [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|(_, until)| *until)
    }

    /// Takes back what [`Output::Chunks`] counted against the device's quota of the day, because the host did not
    /// send the chunks. A device that is told to come back later has spent nothing.
    pub fn not_sent(&mut self, payload: PayloadTag, bytes: u64) {
        if let Some(served) = self.served.iter_mut().find(|served| served.payload == payload) {
            served.bytes = served.bytes.saturating_sub(bytes);
        }
    }

    fn request(&mut self, now: Instant, today: UnixTime, view: &DeviceView<'_>, request: Request) {
        if let Standing::Accepted { .. } = view.standing {
            return match request {
                Request::Hello(hello) => self.hello(now, today, view, hello),
                Request::Chunks(request) => self.chunks(now, view, &request),
                Request::Page(request) => self.page(now, view, request),
                Request::Document(request) => self.document(now, view, request),
                Request::Status(status) => self.tell(Event::Progress { status }),
            };
        }
        let (code, retry) = match view.standing {
            Standing::Pending => (RefusalCode::Pending, Some(PENDING_RETRY_S)),
            Standing::Unknown | Standing::Accepted { .. } => (RefusalCode::Unknown, None),
        };
        self.refuse(now, code, retry, None);
    }

    fn hello(&mut self, now: Instant, today: UnixTime, view: &DeviceView<'_>, hello: Hello) {
        if hello.version_max < u64::from(crate::version::PROTOCOL_VERSION) {
            return self.refuse(now, RefusalCode::Version, None, None);
        }
        if !self.answers.take(now, 1) {
            return self.tell(Event::Rejected { reason: Reason::TooOften });
        }
        let (class, running, sequence) = (hello.class, hello.running, hello.sequence);
        let (assignment, campaign) =
            (hello.assignment, hello.groups.iter().map(|held| held.version).max().unwrap_or(0));
        self.tell(Event::Hello { class, running, sequence, assignment, campaign });
        // The report that it names travels on another topic and may still be on its way.
        let unstored = hello.report.is_some_and(|report| self.report != Some((report, true)));
        self.waiting = Some((hello, now.plus_millis(if unstored { REPORT_WAIT_MS } else { 0 })));
        if !unstored {
            self.answer_waiting(today, view);
        }
    }

    /// Answers the hello that waits, and sends what the device lacks.
    fn answer_waiting(&mut self, today: UnixTime, view: &DeviceView<'_>) {
        let Some((hello, _)) = self.waiting.take() else {
            return;
        };
        // A device that is no longer accepted says hello again, and learns it then.
        let Standing::Accepted { key } = view.standing else {
            return;
        };
        let report = hello.report.filter(|report| self.report == Some((*report, true)));
        let assignment = view.assignment.as_ref().map_or(0, |document| document.version);
        let groups = view
            .campaigns
            .iter()
            .map(|campaign| GroupVersion {
                group: campaign.group.clone(),
                version: campaign.document.version,
            })
            .collect();
        self.outputs.push_back(Output::Answer(HelloAnswer {
            echo: hello.nonce.echo(&self.device),
            time: today,
            root: view.root_version,
            assignment,
            groups,
            report,
            key: key.id(),
        }));
        if assignment > hello.assignment {
            self.outputs.push_back(Output::Assignment);
        }
        for campaign in view.campaigns {
            let held = hello.groups.iter().find(|held| held.group == campaign.group);
            if campaign.document.version > held.map_or(0, |held| held.version) {
                self.outputs.push_back(Output::Campaign(campaign.group.clone()));
            }
        }
    }

    fn chunks(&mut self, now: Instant, view: &DeviceView<'_>, request: &ChunkRequest) {
        let Some((position, live)) = self.live(now, view, request.payload) else {
            return;
        };
        let layout = live.layout;
        if request.first.0 + request.count > layout.chunk_count() {
            self.tell(Event::Rejected { reason: Reason::OutOfRange });
            return self.refuse(now, RefusalCode::NotFound, None, Some(request.payload));
        }
        let bytes: u64 = request.runs().map(|(first, count)| span(layout.bytes_of(first, count))).sum();
        let quota = layout.transfer_size().max(layout.chunk_size()) * SERVED_TIMES_PER_DAY_MAX;
        if !self.count(now, request.payload, bytes, quota) {
            self.tell(Event::Rejected { reason: Reason::OverQuota });
            return self.refuse(now, RefusalCode::OverQuota, Some(QUOTA_RETRY_S), Some(request.payload));
        }
        let runs = request.runs().collect();
        self.outputs.push_back(Output::Chunks { payload: request.payload, position, runs, bytes });
    }

    fn page(&mut self, now: Instant, view: &DeviceView<'_>, request: PageRequest) {
        let Some((position, live)) = self.live(now, view, request.payload) else {
            return;
        };
        let exists = match request.page {
            PageNumber::List => true,
            PageNumber::Page(page) => page < live.layout.page_count(),
        };
        if !exists {
            self.tell(Event::Rejected { reason: Reason::OutOfRange });
            return self.refuse(now, RefusalCode::NotFound, None, Some(request.payload));
        }
        if !self.answers.take(now, 1) {
            return self.tell(Event::Rejected { reason: Reason::TooOften });
        }
        let PageRequest { payload, page } = request;
        self.outputs.push_back(Output::Page { payload, position, page });
    }

    fn document(&mut self, now: Instant, view: &DeviceView<'_>, request: DocumentRequest) {
        if !self.answers.take(now, 1) {
            return self.tell(Event::Rejected { reason: Reason::TooOften });
        }
        match (request, &view.live) {
            (DocumentRequest::Manifest(release), Some(live)) if live.release.short() == release => {
                self.outputs.push_back(Output::Manifest(live.release));
            }
            (DocumentRequest::Manifest(_), _) => self.not_yours(now, None),
            (DocumentRequest::Root(_), _) => self.refuse(now, RefusalCode::NotFound, None, None),
        }
    }

    /// The payload and its position, if it belongs to the device's live release.
    fn live<'v>(
        &mut self,
        now: Instant,
        view: &'v DeviceView<'_>,
        payload: PayloadTag,
    ) -> Option<(usize, &'v LivePayload)> {
        let payloads = view.live.as_ref().map_or(&[][..], |live| live.payloads);
        let live = payloads.iter().enumerate().find(|(_, live)| live.tag == payload);
        if live.is_none() {
            self.not_yours(now, Some(payload));
        }
        live
    }

    /// Refuses a request for something that does not belong, or no longer belongs, to this device. The device
    /// then says hello and learns the signed reason from the answer.
    fn not_yours(&mut self, now: Instant, payload: Option<PayloadTag>) {
        self.tell(Event::Rejected { reason: Reason::NotLive });
        self.refuse(now, RefusalCode::NotYours, None, payload);
    }

    /// Counts payload bytes; `false` if the day's quota would be exceeded.
    fn count(&mut self, now: Instant, payload: PayloadTag, bytes: u64, quota: u64) -> bool {
        self.served.retain(|served| now.millis_since(served.since) < DAY_MS);
        if let Some(served) = self.served.iter_mut().find(|served| served.payload == payload) {
            if served.bytes + bytes > quota {
                return false;
            }
            served.bytes += bytes;
            return true;
        }
        if self.served.len() >= PAYLOADS_MAX {
            self.served.remove(0);
        }
        self.served.push(Served { payload, since: now, bytes });
        bytes <= quota
    }

    /// A report or an enrolment arrived.
    fn signed(&mut self, view: &DeviceView<'_>, message: &[u8]) {
        match self.read_signed(view, message) {
            Ok(event) => self.tell(event),
            Err(reason) => self.tell(Event::Rejected { reason }),
        }
    }

    fn read_signed(&mut self, view: &DeviceView<'_>, message: &[u8]) -> Result<Event, Reason> {
        let object = Sign1::decode(message).map_err(Reason::Malformed)?;
        match object.claimed_kind() {
            Some(Kind::Enrolment) => {
                let payload = object.unverified_payload().unwrap_or_default();
                let enrolment = Enrolment::decode(payload).map_err(Reason::Malformed)?;
                object.verify_attached(Kind::Enrolment, &enrolment.key).map_err(Reason::Unauthentic)?;
                self.check_device(&enrolment.device)?;
                Ok(Event::Enrolled { enrolment })
            }
            Some(Kind::Report) => {
                let Standing::Accepted { key } = view.standing else {
                    return Err(Reason::NotAccepted);
                };
                let (report, digest) = self.read_report(&object, key)?;
                let stored = self.report == Some((digest, true));
                self.report = Some((digest, stored));
                Ok(Event::Reported { report, digest, signed: message.to_vec() })
            }
            _ => Err(Reason::WrongChannel),
        }
    }

    /// The report, and the digest of what was signed: whatever else is written beside it, it is the same report.
    fn read_report(&self, object: &Sign1<'_>, key: &PublicKey) -> Result<(Report, ShortDigest), Reason> {
        let payload = object.verify_attached(Kind::Report, key).map_err(Reason::Unauthentic)?;
        let report = Report::decode(payload).map_err(Reason::Malformed)?;
        self.check_device(&report.device)?;
        Ok((report, Digest::of(payload).short()))
    }

    fn check_device(&self, device: &DeviceId) -> Result<(), Reason> {
        if *device == self.device { Ok(()) } else { Err(Reason::WrongScope) }
    }

    fn refuse(
        &mut self,
        now: Instant,
        code: RefusalCode,
        retry_after_s: Option<u32>,
        payload: Option<PayloadTag>,
    ) {
        if self.answers.take(now, 1) {
            self.outputs.push_back(Output::Refuse(Refusal { code, retry_after_s, payload }));
        }
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

fn span(range: core::ops::Range<u64>) -> u64 {
    range.end - range.start
}
