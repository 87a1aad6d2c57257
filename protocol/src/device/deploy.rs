//! From an order to a running download: which order rules, whether it may begin, what its manifest says.

use super::download::{Accepted, Ask, Download};
use super::install::Testing;
use super::io::{Found, InstallOp, Opening, Reason, StoreFailure, StoreOp};
use super::meter::Terms;
use super::record::{Deployment, Stage};
use super::{Boxed, DeviceSession};
use crate::cose::Accept;
use crate::envelope::{Envelope, VerifyError};
use crate::ids::{CampaignId, DeviceId, Digest, OpId};
use crate::limits::CHUNK_HEADER_BYTES_MAX;
use crate::manifest::consts::command::{CLASS_IDENTIFIER, VENDOR_IDENTIFIER};
use crate::manifest::{FetchPlan, Identity, Interpreter, ManifestError, Procedure, RunError, Step};
use crate::message::{
    CampaignState, ChunkMessage, DeferReason, DocumentRequest, FailureCode, Order, Outcome, PageMessage,
    PageRequest, RefusalCode, State,
};
use crate::time::{Instant, UnixTime};
use crate::topic::Channel;

/// What the session is busy with. One deployment at a time.
#[derive(Debug)]
pub(super) enum Work {
    /// Nothing, or waiting for an order.
    Idle,
    /// An order that may not begin or go on before `until`.
    Deferred { until: Instant, reason: DeferReason },
    /// Fetching the manifest.
    Offered(Offered),
    /// The target slot is being compared with what the manifest says.
    Matching { run: Boxed<Run>, op: OpId, want: (Digest, u64), negate: bool },
    /// The medium is being made ready.
    Opening { run: Boxed<Run>, op: OpId },
    /// Fetching chunks.
    Downloading(Boxed<Downloading>),
    /// The image is being written and checked.
    Installing { run: Boxed<Run>, op: OpId },
    /// Waits until it is durable that the image is installed.
    Installed,
    /// The trial boot is being armed.
    Activating(OpId),
    /// The device is about to start what the boot control chooses.
    Rebooting(OpId),
    /// The new image runs and proves itself.
    Testing(Testing),
    /// The new image is being made permanent.
    Confirming(OpId),
    /// The old image is being made the next to start.
    Reverting(OpId),
}

/// A manifest that is being fetched.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// When to ask (again).
    ask_at: Option<Instant>,
    /// Manifests of the right digest whose signatures did not count.
    unauthentic: u32,
    /// Questions asked.
    asked: u32,
}

/// A manifest that is being executed.
#[derive(Debug)]
pub(super) struct Run {
    interpreter: Interpreter,
    procedure: Procedure,
    envelope: Envelope<crate::envelope::Verified>,
    /// What the last fetch installed and read back, so that it is not hashed once more.
    pub(super) verified: Option<(Digest, u64)>,
    /// What is fetched.
    pub(super) plan: Option<FetchPlan>,
}

/// A download with what surrounds it.
#[derive(Debug)]
pub(super) struct Downloading {
    run: Boxed<Run>,
    download: Download,
    /// The service or the medium asked for a pause.
    paused: Option<(Instant, DeferReason)>,
    /// A checkpoint is being saved.
    checkpoint: Option<OpId>,
    /// When the oldest write since the last checkpoint was made.
    unflushed_since: Option<Instant>,
    /// When the last request went out.
    asked_at: Instant,
    /// When a request went out that nothing was ahead of.
    probe: Option<Instant>,
    /// Pauses in a row; lengthens the next.
    pauses: u32,
}

/// Written chunks stay without a checkpoint for at most this long.
const FLUSH_MS: u64 = 30_000;
/// How long to wait for room on the medium.
const ROOM_MS: u64 = 600_000;
/// How long to wait after a failure for now, doubled each time up to the cap.
const RETRY_MS: u64 = 15_000;
const RETRY_CAP_MS: u64 = 3_600_000;
/// Manifests with the right digest and no valid signature that end an attempt.
const UNAUTHENTIC_MAX: u32 = 3;

/// When a device starts within its campaign's spread (SPEC section 8.4): a number below `spread_s`, the same
/// after every reboot, different for every device and campaign.
#[must_use]
pub(super) fn start_offset_s(campaign: CampaignId, device: &DeviceId, spread_s: u64) -> u64 {
    let mut input = campaign.0.to_vec();
    input.extend_from_slice(device.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(&input).0;
    let fraction = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let product = u128::from(fraction) * u128::from(spread_s);
    u64::try_from(product >> 64).unwrap_or(0)
}

impl Run {
    /// The payload was fetched and installed, or was not.
    pub(super) fn fetched(&mut self, good: bool) {
        self.interpreter.answer(good);
    }
}

impl Work {
    /// The state that this work is shown as; `None` where nothing is going on.
    pub(super) fn state(&self) -> Option<(State, Option<DeferReason>)> {
        Some(match self {
            Self::Idle => return None,
            Self::Deferred { reason, .. } => (State::Deferred, Some(*reason)),
            Self::Offered(_) | Self::Matching { .. } | Self::Opening { .. } => (State::Offered, None),
            Self::Downloading(work) => match work.paused {
                Some((_, reason)) => (State::Deferred, Some(reason)),
                None if work.download.is_complete() => (State::Downloaded, None),
                None => (State::Downloading, None),
            },
            Self::Installing { .. } => (State::Installing, None),
            Self::Installed | Self::Activating(_) | Self::Rebooting(_) => (State::Rebooting, None),
            Self::Testing(_) | Self::Confirming(_) | Self::Reverting(_) => (State::Testing, None),
        })
    }
}

impl DeviceSession {
    /// Goes on as far as what is durable allows. `true` where another round may bring more.
    pub(super) fn advance(&mut self) -> bool {
        if self.reconsider() {
            return true;
        }
        match &self.work {
            Work::Idle => self.begin(),
            Work::Deferred { until, .. } if *until <= self.now => {
                self.work = Work::Idle;
                true
            }
            Work::Offered(_) => self.fetch_manifest(),
            Work::Downloading(_) => self.pump(),
            Work::Installed => self.activate(),
            Work::Testing(_) => self.judge(),
            _ => false,
        }
    }

    /// Whether a download is going on, so that nothing else should use the link.
    pub(super) fn is_fetching(&self) -> bool {
        match &self.work {
            Work::Offered(_) | Work::Matching { .. } | Work::Opening { .. } => true,
            Work::Downloading(work) => work.paused.is_none(),
            _ => false,
        }
    }

    /// The orders that name this device, the ruling one first: its own assignment, then its groups by
    /// priority and version.
    fn orders(&self) -> impl Iterator<Item = (&Order, UnixTime)> {
        let own = self.documents.assignment.iter().filter_map(|assignment| {
            assignment.order.as_ref().map(|order| (order, assignment.validity.expires))
        });
        let mut campaigns: alloc::vec::Vec<_> = self.documents.campaigns.iter().collect();
        campaigns
            .sort_by_key(|campaign| core::cmp::Reverse((campaign.order.priority, campaign.validity.version)));
        let class = self.config.class;
        own.chain(campaigns.into_iter().map(|campaign| (&campaign.order, campaign.validity.expires)))
            .filter(move |(order, _)| order.class == class)
    }

    /// The order that rules now.
    fn ruling(&self) -> Option<(&Order, UnixTime)> {
        self.orders().find(|(order, _)| order.state == CampaignState::Active)
    }

    /// Looks whether the deployment in progress is still wanted. Nothing is called off once its trial is armed.
    fn reconsider(&mut self) -> bool {
        let Some(Deployment { order, stage: Stage::Fetching, .. }) = &self.record.deployment else {
            return false;
        };
        if self.documents.assignment.is_none() {
            return false;
        }
        if order.sequence < self.record.min_sequence {
            self.end(Outcome::Cancelled, Some(FailureCode::Withdrawn));
            return true;
        }
        let aborted = self
            .orders()
            .any(|(other, _)| other.campaign == order.campaign && other.state == CampaignState::Aborted);
        let ruling = self.ruling().map(|(ruling, _)| ruling);
        match ruling {
            Some(ruling) if ruling == order => false,
            // The same payload, ordered again: what is downloaded counts.
            Some(ruling) if ruling.release == order.release => {
                let ruling = ruling.clone();
                self.change(|record| {
                    if let Some(deployment) = &mut record.deployment {
                        deployment.order = ruling;
                    }
                });
                true
            }
            _ => {
                let code = if aborted { FailureCode::Aborted } else { FailureCode::Superseded };
                self.end(Outcome::Cancelled, Some(code));
                true
            }
        }
    }

    /// Begins the ruling order, if it may begin.
    fn begin(&mut self) -> bool {
        match self.record.deployment.as_ref().map(|deployment| deployment.stage) {
            Some(Stage::Fetching) => {
                self.work = Work::Offered(Offered::default());
                return true;
            }
            Some(_) => {
                self.resume();
                return true;
            }
            None => {}
        }
        let Some((order, expires)) = self.ruling() else {
            return false;
        };
        if self.record.outcome_of(order.campaign, order.attempt).is_some() {
            return false;
        }
        let order = order.clone();
        // Judged by an answer to our own nonce. Until there is one, nothing begins.
        let Some(expired) = self.has_expired(expires) else {
            return false;
        };
        let refusal = if self.boot.running.release == Some(order.release) {
            None
        } else if expired {
            Some(FailureCode::Expired)
        } else if order.sequence < self.record.min_sequence {
            Some(FailureCode::Withdrawn)
        } else if order.sequence < self.boot.running.sequence {
            Some(FailureCode::Rollback)
        } else {
            return self.start(order);
        };
        let outcome = if refusal.is_some() { Outcome::Failed } else { Outcome::Confirmed };
        self.begin_deployment(order);
        self.end(outcome, refusal);
        true
    }

    /// Starts when this device's turn has come.
    fn start(&mut self, order: Order) -> bool {
        let offset = start_offset_s(order.campaign, &self.config.device, order.spread_s);
        let start = order.not_before.plus_secs(offset);
        let wait_s = start.as_secs().saturating_sub(self.today().as_secs());
        if wait_s > 0 && self.config.obey_spread {
            let until = self.now.plus_millis(wait_s.saturating_mul(1000));
            self.work = Work::Deferred { until, reason: DeferReason::Window };
            return false;
        }
        self.begin_deployment(order);
        self.work = Work::Offered(Offered::default());
        true
    }

    fn begin_deployment(&mut self, order: Order) {
        self.last = None;
        self.change(|record| {
            record.deployment = Some(Deployment {
                order,
                stage: Stage::Fetching,
                arms: 0,
                bytes_received: 0,
                bytes_twice: 0,
            });
        });
    }

    /// Asks for the manifest, or takes the one that is at hand.
    fn fetch_manifest(&mut self) -> bool {
        let Some(release) = self.record.deployment.as_ref().map(|deployment| deployment.order.release) else {
            return false;
        };
        if let Some(bytes) = self.envelope.take() {
            let kept = Envelope::decode(&bytes).ok().filter(|envelope| envelope.claimed_digest() == release);
            if kept.is_some() {
                self.envelope(&bytes);
                return !matches!(self.work, Work::Offered(_));
            }
        }
        let Work::Offered(offered) = &mut self.work else {
            return false;
        };
        if !self.link.is_up() || offered.ask_at.is_some_and(|at| self.now < at) {
            return false;
        }
        let wait = (RETRY_MS << offered.asked.min(8)).min(RETRY_CAP_MS);
        offered.asked += 1;
        offered.ask_at = Some(self.now.plus_millis(wait + self.jitter.below(wait / 4)));
        self.publish(Channel::Requests, DocumentRequest::Manifest(release.short()).encode(), false);
        false
    }

    /// A SUIT envelope arrived, or is at hand.
    pub(super) fn envelope(&mut self, bytes: &[u8]) {
        let (Work::Offered(_), Some(order)) =
            (&self.work, self.record.deployment.as_ref().map(|deployment| deployment.order.clone()))
        else {
            return self.unsolicited(Channel::Answers, bytes.len(), Reason::Unsolicited);
        };
        let accept = if self.config.accept_es256 { Accept::WITH_ES256 } else { Accept::STRICT };
        // Only what the campaign's signature names can end the attempt: anybody can send something else.
        let verified = match Envelope::decode(bytes) {
            Ok(envelope) if envelope.claimed_digest() == order.release => envelope.verify(&self.root, accept),
            Ok(_) => return self.unsolicited(Channel::Answers, bytes.len(), Reason::WrongRelease),
            Err(error) => {
                return self.unsolicited(Channel::Answers, bytes.len(), Reason::WrongEnvelope(error));
            }
        };
        let error = match verified {
            Ok(envelope) => {
                self.envelope = Some(bytes.to_vec());
                return self.run(envelope, &order);
            }
            Err(error) => error,
        };
        self.unsolicited(Channel::Answers, bytes.len(), Reason::WrongEnvelope(error));
        match error {
            VerifyError::Manifest(error) if error.is_signed() => {
                self.end(Outcome::Failed, Some(code_of(error)));
            }
            VerifyError::Unsigned | VerifyError::Unauthentic(_) => {
                let Work::Offered(offered) = &mut self.work else {
                    return;
                };
                offered.unauthentic += 1;
                if offered.unauthentic >= UNAUTHENTIC_MAX {
                    self.end(Outcome::Failed, Some(FailureCode::Unauthentic));
                }
            }
            _ => {}
        }
    }

    /// Executes a verified manifest.
    fn run(&mut self, envelope: Envelope<crate::envelope::Verified>, order: &Order) {
        let sequence = envelope.manifest().sequence_number();
        if sequence != order.sequence {
            self.reject(Channel::Answers, Reason::WrongRelease);
            return self.end(Outcome::Failed, Some(FailureCode::Unauthentic));
        }
        if sequence < self.boot.running.sequence {
            let known = self.boot.running.sequence;
            self.reject(Channel::Answers, Reason::Rollback { got: sequence, known });
            return self.end(Outcome::Failed, Some(FailureCode::Rollback));
        }
        match Interpreter::new(&envelope, &self.identity(), Procedure::Update) {
            Ok(interpreter) => {
                let procedure = Procedure::Update;
                self.step(Boxed::new(Run { interpreter, procedure, envelope, verified: None, plan: None }));
            }
            Err(error) => {
                self.reject(Channel::Answers, Reason::WrongEnvelope(error.into()));
                self.end(Outcome::Failed, Some(code_of(error)));
            }
        }
    }

    fn identity(&self) -> Identity {
        Identity { vendor: self.config.vendor, class: self.config.class, target_slot: self.boot.target_slot }
    }

    /// Runs the manifest until something outside is needed.
    pub(super) fn step(&mut self, mut run: Boxed<Run>) {
        loop {
            match run.interpreter.step() {
                Ok(Step::ImageMatch { digest, size, negate, .. }) if run.verified == Some((digest, size)) => {
                    run.interpreter.answer(!negate);
                }
                Ok(Step::ImageMatch { digest, size, negate, .. }) => {
                    let op = self.install(InstallOp::Match { image: digest, size });
                    self.work = Work::Matching { run, op, want: (digest, size), negate };
                    return;
                }
                Ok(Step::Fetch(plan)) => return self.open(run, plan),
                Ok(Step::Done { invoke }) => match run.procedure {
                    Procedure::Update => {
                        let next = Interpreter::new(&run.envelope, &self.identity(), Procedure::Invoke);
                        match next {
                            Ok(interpreter) => {
                                *run = Run { interpreter, procedure: Procedure::Invoke, ..*run }
                            }
                            Err(error) => return self.end(Outcome::Failed, Some(code_of(error))),
                        }
                    }
                    Procedure::Invoke if invoke => return self.image_is_installed(),
                    Procedure::Invoke => return self.end(Outcome::Failed, Some(FailureCode::Unsupported)),
                },
                Err(error) => {
                    let code = match error {
                        RunError::Condition { command: VENDOR_IDENTIFIER | CLASS_IDENTIFIER, .. } => {
                            FailureCode::WrongClass
                        }
                        RunError::Condition { .. } => FailureCode::Condition,
                        RunError::Fetch { .. } => FailureCode::Storage,
                        RunError::TransferSize { .. } | RunError::ParameterUnset { .. } => {
                            FailureCode::Malformed
                        }
                        RunError::NotExecuted { .. } => FailureCode::Unsupported,
                    };
                    return self.end(Outcome::Failed, Some(code));
                }
            }
        }
    }

    /// The target slot was compared with what the manifest says.
    pub(super) fn matched(&mut self, mut run: Boxed<Run>, want: (Digest, u64), equal: bool, negate: bool) {
        if equal {
            run.verified = Some(want);
        }
        run.interpreter.answer(equal != negate);
        self.step(run);
    }

    /// The manifest fetches a payload: checks what can be checked before the first chunk.
    fn open(&mut self, mut run: Boxed<Run>, plan: FetchPlan) {
        let running = &self.boot.running;
        let sequence = run.envelope.manifest().sequence_number();
        if sequence == running.sequence && sequence > 0 && running.image != Some(plan.image_digest) {
            self.reject(Channel::Answers, Reason::Equivocation { version: sequence });
            return self.end(Outcome::Failed, Some(FailureCode::Rollback));
        }
        let ordered = self.record.deployment.as_ref().map(|deployment| deployment.order.image_size);
        if ordered != Some(plan.image_size) {
            self.reject(Channel::Answers, Reason::WrongRelease);
            return self.end(Outcome::Failed, Some(FailureCode::Unauthentic));
        }
        let memory = plan.transfer.decoder.map_or(0, |decoder| u64::from(decoder.memory_bytes));
        if memory > self.config.memory_max_kib * 1024 {
            return self.end(Outcome::Failed, Some(FailureCode::Unsupported));
        }
        let opening = Opening {
            envelope: run.envelope.bytes().to_vec(),
            release: run.envelope.digest(),
            sequence,
            image: plan.image_digest,
            image_size: plan.image_size,
            transfer: plan.transfer,
        };
        run.plan = Some(plan);
        let op = self.store(StoreOp::Open(Boxed::new(opening)));
        self.work = Work::Opening { run, op };
    }

    /// The medium is ready, or is not.
    pub(super) fn opened(&mut self, op: OpId, result: Result<Found, StoreFailure>) {
        let work = core::mem::replace(&mut self.work, Work::Idle);
        let Work::Opening { run, op: expected } = work else {
            self.work = work;
            return;
        };
        let (Some(plan), true) = (&run.plan, expected == op) else {
            self.work = Work::Opening { run, op: expected };
            return;
        };
        match result {
            Ok(found) => {
                let download = Download::new(plan.image_digest, &plan.transfer, found);
                let asked_at = self.now;
                self.work = Work::Downloading(Boxed::new(Downloading {
                    run,
                    download,
                    paused: None,
                    checkpoint: None,
                    unflushed_since: None,
                    asked_at,
                    probe: None,
                    pauses: 0,
                }));
            }
            Err(failure) => {
                self.tell(super::Event::StoreFailed(failure));
                self.defer(failure);
            }
        }
    }

    /// Stops for now, because the medium does not do what it should; what is held stays.
    pub(super) fn defer(&mut self, failure: StoreFailure) {
        let (wait, reason) = match failure {
            StoreFailure::NoRoom => (ROOM_MS, DeferReason::Room),
            StoreFailure::Failed => (4 * RETRY_MS, DeferReason::Retry),
        };
        self.work =
            Work::Deferred { until: self.now.plus_millis(wait + self.jitter.below(wait / 4)), reason };
    }

    /// Asks for more, saves a checkpoint, or goes on to the installation. `true` where the work changed.
    fn pump(&mut self) -> bool {
        let Work::Downloading(work) = &mut self.work else {
            return false;
        };
        if work.paused.is_some_and(|(until, _)| until <= self.now) {
            work.paused = None;
        }
        if work.checkpoint.is_none() && !work.download.has_unflushed() && work.download.is_complete() {
            return self.install_payload();
        }
        let due = work.unflushed_since.is_some_and(|since| self.now.millis_since(since) >= FLUSH_MS);
        if work.checkpoint.is_none() && (due || work.download.wants_checkpoint(self.meter.bytes_in_10_s())) {
            self.checkpoint();
        }
        self.ask();
        false
    }

    fn checkpoint(&mut self) {
        let Work::Downloading(work) = &mut self.work else {
            return;
        };
        let checkpoint = work.download.checkpoint();
        work.unflushed_since = None;
        let op = self.store(StoreOp::SaveCheckpoint(checkpoint));
        if let Work::Downloading(work) = &mut self.work {
            work.checkpoint = Some(op);
        }
    }

    fn ask(&mut self) {
        loop {
            let terms = Terms {
                header_bytes: self.header_bytes(),
                losses_s: self.config.mean_time_between_losses_s,
                message_bytes_max: (self.config.message_bytes_max - CHUNK_HEADER_BYTES_MAX) as u64,
                window_bytes_max: self.config.window_bytes_max,
            };
            let up = self.link.is_up();
            let Work::Downloading(work) = &mut self.work else {
                return;
            };
            let sizing = self.meter.sizing(work.download.layout(), &terms);
            let idle = !work.download.is_waiting();
            let may_ask = up && work.paused.is_none();
            let tag = work.download.tag();
            let ask = work.download.next(sizing, may_ask);
            let asked = work.download.asked();
            if matches!(ask, Ask::Page(_) | Ask::Chunks(..)) {
                work.asked_at = self.now;
                if idle {
                    work.probe = Some(self.now);
                }
            }
            match ask {
                Ask::Nothing => return,
                Ask::Load(page) => {
                    let op = self.store(StoreOp::LoadPage(page));
                    if let Work::Downloading(work) = &mut self.work {
                        work.download.loading(op, page);
                    }
                }
                Ask::Page(page) => {
                    self.publish(Channel::Requests, PageRequest { payload: tag, page }.encode(), false);
                }
                Ask::Chunks(request, fresh) => {
                    if fresh {
                        self.store(StoreOp::NoteAsked(asked));
                    }
                    self.publish(Channel::Requests, request.encode(), false);
                }
            }
        }
    }

    /// What each message costs beyond its chunks: MQTT's fixed header and topic, and ours.
    fn header_bytes(&self) -> u64 {
        let topic = self.config.prefix.as_str().len() + self.config.device.as_str().len() + 5;
        (topic + 6 + CHUNK_HEADER_BYTES_MAX) as u64
    }

    pub(super) fn chunks(&mut self, message: &ChunkMessage<'_>, len: usize) {
        let Work::Downloading(work) = &mut self.work else {
            return self.unsolicited(Channel::Answers, len, Reason::Unsolicited);
        };
        let (accepted, wrong) = work.download.chunks_arrived(message);
        if !accepted.is_empty() {
            if let Some(probe) = work.probe.take() {
                self.meter.round_trip(self.now.millis_since(probe), len as u64);
            }
            self.meter.arrived(self.now, len as u64);
            work.pauses = 0;
            if !work.download.is_waiting() {
                self.meter.idle();
            }
            self.not_silent();
        }
        let good: usize = accepted.iter().map(|run| run.bytes.len()).sum();
        for run in accepted {
            self.write(run);
        }
        if let Some(reason) = wrong {
            self.unsolicited(Channel::Answers, len.saturating_sub(good), reason);
        }
    }

    fn write(&mut self, run: Accepted) {
        let op = self.op();
        let Work::Downloading(work) = &mut self.work else {
            return;
        };
        work.download.writing(op, &run);
        work.unflushed_since.get_or_insert(self.now);
        let Accepted { first, bytes } = run;
        self.outputs.push_back(super::Output::Store(op, StoreOp::WriteChunks { first, bytes }));
    }

    pub(super) fn page(&mut self, message: &PageMessage<'_>, len: usize) {
        let Work::Downloading(work) = &mut self.work else {
            return self.unsolicited(Channel::Answers, len, Reason::Unsolicited);
        };
        match work.download.page_arrived(message) {
            Ok(()) => {
                if let Some(probe) = work.probe.take() {
                    self.meter.round_trip(self.now.millis_since(probe), len as u64);
                }
                self.not_silent();
                self.store(StoreOp::WritePage { page: message.page, bytes: message.bytes.to_vec() });
            }
            Err(reason) => self.unsolicited(Channel::Answers, len, reason),
        }
    }

    pub(super) fn loaded(&mut self, op: OpId, bytes: Option<&[u8]>) {
        if let Work::Downloading(work) = &mut self.work {
            work.download.loaded(op, bytes);
        }
    }

    /// A write or a checkpoint is done.
    pub(super) fn work_stored(&mut self, op: OpId, result: Result<(), StoreFailure>) {
        let Work::Downloading(work) = &mut self.work else {
            return;
        };
        if work.checkpoint == Some(op) {
            work.checkpoint = None;
        } else if !work.download.written(op, result.is_ok()) {
            // An index page or a note: what it would have saved can be fetched or counted again.
            return;
        }
        if let Err(failure) = result {
            self.defer(failure);
        }
    }

    pub(super) fn work_disconnected(&mut self) {
        match &mut self.work {
            Work::Offered(offered) => offered.ask_at = None,
            Work::Downloading(work) => {
                work.download.forget_outstanding();
                work.probe = None;
                if work.checkpoint.is_none() && work.download.has_unflushed() {
                    self.checkpoint();
                }
            }
            _ => {}
        }
    }

    /// The service refused a request. Unsigned, so it can delay and nothing more.
    pub(super) fn work_refused(&mut self, code: RefusalCode, wait_ms: Option<u64>) {
        let missing = matches!(code, RefusalCode::NotYours | RefusalCode::NotFound);
        let wait = match &mut self.work {
            Work::Offered(offered) => {
                let wait = wait_ms.unwrap_or(RETRY_MS << offered.asked.min(8)).min(RETRY_CAP_MS);
                offered.ask_at = Some(self.now.plus_millis(wait + self.jitter.below(wait / 4 + 1)));
                wait
            }
            Work::Downloading(work) => {
                let wait = wait_ms.unwrap_or(RETRY_MS << work.pauses.min(8)).min(RETRY_CAP_MS);
                work.pauses += 1;
                work.download.forget_outstanding();
                work.probe = None;
                let reason = if missing { DeferReason::Retry } else { DeferReason::Busy };
                let until = self.now.plus_millis(wait + self.jitter.below(wait / 4 + 1));
                work.paused = Some((until, reason));
                self.meter.idle();
                wait
            }
            _ => return,
        };
        if missing {
            // Perhaps the deployment was called off: the answer to a hello says so, signed.
            self.hello_within(wait.min(RETRY_MS));
        }
    }

    /// What time alone brings about.
    pub(super) fn work_timers(&mut self) {
        let heard = self.last_heard();
        let sees_activity = self.config.sees_activity;
        if let (Work::Downloading(work), true) = (&mut self.work, self.link.is_up()) {
            let patience = self.meter.silence_ms(work.download.outstanding_bytes(), sees_activity);
            let since = heard.max(work.asked_at);
            if work.download.is_waiting() && self.now.millis_since(since) >= patience {
                let chunks = work.download.forget_outstanding();
                work.probe = None;
                self.silent(chunks);
            }
        }
    }

    pub(super) fn work_timeout(&self) -> Option<Instant> {
        match &self.work {
            Work::Deferred { until, .. } => Some(*until),
            Work::Offered(offered) => offered.ask_at.filter(|_| self.link.is_up()),
            Work::Downloading(work) => {
                let patience =
                    self.meter.silence_ms(work.download.outstanding_bytes(), self.config.sees_activity);
                let silence = (work.download.is_waiting() && self.link.is_up())
                    .then(|| self.last_heard().max(work.asked_at).plus_millis(patience));
                let paused = work.paused.map(|(until, _)| until);
                let flush = work
                    .unflushed_since
                    .filter(|_| work.checkpoint.is_none())
                    .map(|since| since.plus_millis(FLUSH_MS));
                [silence, paused, flush].into_iter().flatten().min()
            }
            Work::Testing(testing) => self.testing_timeout(testing),
            _ => None,
        }
    }

    /// Everything is here: writes and checks the image.
    fn install_payload(&mut self) -> bool {
        let work = core::mem::replace(&mut self.work, Work::Idle);
        let Work::Downloading(work) = work else {
            self.work = work;
            return false;
        };
        let (received, twice) = (work.download.bytes_received, work.download.bytes_twice);
        if let Some(deployment) = &mut self.record.deployment {
            // Not urgent enough for a save of its own: the journal has it too.
            (deployment.bytes_received, deployment.bytes_twice) = (received, twice);
        }
        let op = self.install(InstallOp::Install);
        self.work = Work::Installing { run: work.run, op };
        false
    }

    /// Chunks held, and chunks in all where known.
    pub(super) fn progress(&self) -> (u32, u32) {
        match &self.work {
            Work::Downloading(work) => (work.download.held().len(), work.download.layout().chunk_count()),
            _ => (0, 0),
        }
    }

    /// Bytes received and bytes received twice.
    pub(super) fn ledger(&self) -> (u64, u64) {
        match (&self.work, &self.record.deployment) {
            (Work::Downloading(work), _) => (work.download.bytes_received, work.download.bytes_twice),
            (_, Some(deployment)) => (deployment.bytes_received, deployment.bytes_twice),
            _ => self.last_ledger,
        }
    }
}

/// What is reported of a manifest that is not run.
fn code_of(error: ManifestError) -> FailureCode {
    match error {
        ManifestError::Malformed(_) | ManifestError::Version { .. } => FailureCode::Malformed,
        _ => FailureCode::Unsupported,
    }
}
