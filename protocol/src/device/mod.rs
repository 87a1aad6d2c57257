//! The device's side of the protocol, as a machine without I/O (SPEC section 8).
//!
//! ```text
//! loop {
//!     while let Some(output) = session.poll_output() { carry_out(output) }
//!     let input = wait_for_one_happening_until(session.poll_timeout());
//!     session.handle_input(now, input);
//! }
//! ```
//!
//! The session decides what to believe, what to ask for and when; the host moves bytes. It never fails:
//! hostile bytes become [`Event::Rejected`], a failing medium becomes a deferred deployment.
//!
//! In the order of an update: `link` connection, hello and subscriptions; `documents` signed documents and
//! their versions; `orders` which one rules; `release` its manifest; `fetch` the running download, `download`
//! which chunks, `meter` how many at a time; `patch` when another
//! payload is taken instead; `install` from a complete payload to a confirmed image; `ending`
//! outcomes and reports. `work` is what the session is busy with. This file holds the state they share.

mod checkpoint;
mod config;
mod documents;
mod download;
mod ending;
mod fetch;
mod install;
mod io;
mod link;
mod meter;
mod orders;
mod patch;
mod record;
mod release;
mod work;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

pub use checkpoint::{BITMAP_BYTES, Checkpoint, JournalSector, SECTOR_BYTES};
pub use config::{BootView, Running, SessionConfig, Trial};
pub use io::{
    Event, Found, HostOp, Input, InstallFailure, InstallOp, Opening, Output, PatchFailure, Place, Publish,
    Reason, StoreFailure, StoreOp,
};
pub use record::{Deployment, GivenUp, Past, Record, Scope, ScopeVersion, Stage};

use documents::Documents;
use link::Link;
use meter::Meter;
use patch::Bases;
use work::Work;

use crate::ids::{Nonce, OpId};
use crate::message::{DeferReason, FailureCode, State, Status};
use crate::retry::Jitter;
use crate::time::{Instant, UnixTime};
use crate::topic::Channel;
use crate::trust::Root;

/// One device and its updates.
#[derive(Debug)]
pub struct DeviceSession {
    config: SessionConfig,
    root: Root,
    boot: BootView,
    record: Record,
    documents: Documents,
    saving: Saving,
    link: Link,
    work: Work,
    /// The envelope of the deployment in progress, where it is at hand.
    envelope: Option<Vec<u8>>,
    /// What is known of the running slot.
    bases: Bases,
    /// Times in a row that the medium failed while a patch was applied.
    medium_failures: u32,
    meter: Meter,
    clock: Clock,
    jitter: Jitter,
    nonces: u64,
    next_op: u32,
    outputs: VecDeque<Output>,
    now: Instant,
    shown: Option<(State, Option<DeferReason>, Option<FailureCode>)>,
    /// How the last deployment ended, until the next begins.
    last: Option<(State, Option<FailureCode>)>,
    /// The byte ledger of the last deployment.
    last_ledger: (u64, u64),
    /// A report was made that has not been sent yet.
    unreported: bool,
}

/// Whether the record in memory is the one on the medium. Nothing is done on account of a record that is not
/// durable: durable before acted on, durable before claimed.
#[derive(Debug, Default)]
struct Saving {
    dirty: bool,
    under_way: Option<OpId>,
    retry_at: Option<Instant>,
}

/// The calendar, as a lower bound that never runs backwards.
#[derive(Debug)]
struct Clock {
    floor: UnixTime,
    at: Instant,
}

/// Rounds of one input; more would mean that the machine turns in a circle.
const ROUNDS_MAX: usize = 16;
/// How long to wait before a failed save of the record is tried again.
const SAVE_RETRY_MS: u64 = 30_000;

impl DeviceSession {
    /// Starts a session.
    ///
    /// `root` is the pinned root, verified; `record` what was saved last (default for a new device);
    /// `envelope` the one kept with the target slot, if any; `today` the host's calendar clock or build time, whichever is later.
    #[must_use]
    pub fn new(
        config: SessionConfig,
        root: Root,
        boot: BootView,
        record: Record,
        envelope: Option<Vec<u8>>,
        now: Instant,
        today: UnixTime,
    ) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = config.seed;
        let floor = today.max(record.time);
        let last = record.outcomes.last().map(|past| (ending::state_of(past.outcome), past.failure));
        let mut session = Self {
            jitter: Jitter::new(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            config,
            boot,
            documents: Documents::of(&record, &root),
            root,
            record,
            envelope,
            saving: Saving::default(),
            link: Link::default(),
            work: Work::Idle,
            bases: Bases::default(),
            medium_failures: 0,
            meter: Meter::default(),
            clock: Clock { floor, at: now },
            nonces: 0,
            next_op: 0,
            outputs: VecDeque::new(),
            now,
            shown: None,
            last,
            last_ledger: (0, 0),
            unreported: false,
        };
        session.resume();
        session.settle();
        session
    }

    /// Tells the session what happened. Drain [`DeviceSession::poll_output`] before the next call.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        debug_assert!(self.outputs.is_empty(), "outputs must be drained before the next input");
        self.now = self.now.max(now);
        match input {
            Input::Connected => self.connected(),
            Input::Disconnected => self.disconnected(),
            Input::Message { channel, payload } => self.message(channel, payload),
            Input::Activity => self.link.heard(self.now),
            Input::WallClock(time) => self.clock.raise(self.now, time),
            Input::Stored { op, result } => self.stored(op, result),
            Input::Opened { op, result } => self.opened(op, result),
            Input::Loaded { op, bytes } => self.loaded(op, bytes),
            Input::Installed { op, result } => self.installed(op, result),
            Input::Check => self.check_now(),
            Input::Timeout => {}
        }
        self.settle();
    }

    /// The next effect to carry out, or `None` when all are.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to feed [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Work whose time has come goes on when the record is saved. Until then its time wakes nobody: the host
        // would only turn in a circle.
        let unsaved = self.saving.dirty || self.saving.under_way.is_some();
        let work = self.work_timeout().filter(|at| !unsaved || *at > self.now);
        let all = [self.saving.retry_at, self.link_timeout(), work, self.freshness_timeout()];
        all.into_iter().flatten().min()
    }

    /// What the device is doing about updates.
    #[must_use]
    pub fn state(&self) -> State {
        self.describe().0
    }

    /// The deployment in progress, or how the last one ended; `None` where there was none yet.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let (state, deferred, failure) = self.describe();
        let (campaign, attempt) = match (&self.record.deployment, self.record.outcomes.last()) {
            (Some(deployment), _) => (deployment.order.campaign, deployment.order.attempt),
            (None, Some(past)) => (past.campaign, past.attempt),
            (None, None) => return None,
        };
        let (bytes_received, bytes_twice) = self.ledger();
        let (chunks_held, chunks) = self.progress();
        Some(Status {
            campaign,
            attempt,
            state,
            deferred,
            failure,
            chunks_held,
            chunks,
            bytes_received,
            bytes_twice,
        })
    }

    /// The measured rate of the link in bytes per second, where there is one.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.meter.rate()
    }

    /// What is durable, or about to be.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The image that runs and what the boot control knows, as of the last confirmation.
    #[must_use]
    pub fn boot(&self) -> &BootView {
        &self.boot
    }

    /// After every input: saves what changed, then goes on as far as what is durable allows.
    fn settle(&mut self) {
        self.check_freshness();
        self.link_timers();
        self.work_timers();
        for _ in 0..ROUNDS_MAX {
            if !self.save() {
                break;
            }
            self.report_what_ended();
            if !self.advance() {
                break;
            }
        }
        self.tend_link();
        self.show();
    }

    /// Sees to it that the record gets saved. `true` where it is.
    fn save(&mut self) -> bool {
        if !self.saving.dirty {
            return self.saving.under_way.is_none();
        }
        let wait = self.saving.retry_at.is_some_and(|at| self.now < at);
        if self.saving.under_way.is_none() && !wait {
            let bytes = self.record.encode();
            self.saving =
                Saving { under_way: Some(self.store(StoreOp::SaveRecord(bytes))), ..Saving::default() };
        }
        false
    }

    /// Changes the record; the change takes effect when it is durable.
    fn change(&mut self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
        self.saving.dirty = true;
    }

    fn stored(&mut self, op: OpId, result: Result<(), StoreFailure>) {
        if let Err(failure) = result {
            self.tell(Event::StoreFailed(failure));
        }
        if self.saving.under_way == Some(op) {
            self.saving.under_way = None;
            if result.is_err() {
                self.saving.dirty = true;
                self.saving.retry_at = Some(self.now.plus_millis(SAVE_RETRY_MS));
            }
            return;
        }
        self.work_stored(op, result);
    }

    fn store(&mut self, what: StoreOp) -> OpId {
        let op = self.op();
        self.outputs.push_back(Output::Store(op, what));
        op
    }

    fn install(&mut self, what: InstallOp) -> OpId {
        let op = self.op();
        self.outputs.push_back(Output::Install(op, what));
        op
    }

    fn host(&mut self, what: HostOp) -> OpId {
        let op = self.op();
        self.outputs.push_back(Output::Host(op, what));
        op
    }

    fn op(&mut self) -> OpId {
        self.next_op = self.next_op.wrapping_add(1);
        OpId(self.next_op)
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn reject(&mut self, channel: Channel, reason: Reason) {
        self.tell(Event::Rejected { channel, reason });
    }

    /// A number that nobody can guess and that is used once.
    fn nonce(&mut self) -> Nonce {
        self.nonces += 1;
        let mut hash = Sha256::new();
        hash.update(b"whimbrel nonce");
        hash.update(self.config.seed);
        hash.update(self.nonces.to_le_bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        Nonce([a, b, c, d, e, f, g, h])
    }

    fn today(&self) -> UnixTime {
        self.clock.floor.plus_secs(self.now.millis_since(self.clock.at) / 1000)
    }

    /// Tells of the state where it changed.
    fn show(&mut self) {
        let shown = self.describe();
        if self.shown != Some(shown) {
            self.shown = Some(shown);
            let (state, deferred, failure) = shown;
            self.tell(Event::StateChanged { state, deferred, failure });
            self.send_status();
        }
    }

    fn describe(&self) -> (State, Option<DeferReason>, Option<FailureCode>) {
        match (self.work.state(), self.last) {
            (Some((state, deferred)), _) => (state, deferred, None),
            (None, Some((state, failure))) => (state, None, failure),
            (None, None) => (State::Idle, None, None),
        }
    }
}

impl Clock {
    fn raise(&mut self, now: Instant, time: UnixTime) {
        let known = self.floor.plus_secs(now.millis_since(self.at) / 1000);
        if time > known {
            *self = Self { floor: time, at: now };
        }
    }
}

/// Keeps large states behind a pointer, so that an idle session is small.
type Boxed<T> = Box<T>;
