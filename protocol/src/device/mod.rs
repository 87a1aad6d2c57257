//! The device's side of the protocol, as a machine without I/O (SPEC section 8).
//!
//! ```
//! # use std::collections::VecDeque;
//! use whimbrel_protocol::device::{DeviceSession, HostOp, Input, Output, Record, SessionConfig};
//! use whimbrel_protocol::testing::{Fixture, RamMedium, Stored};
//! use whimbrel_protocol::time::{Instant, UnixTime};
//! use whimbrel_protocol::topic::Channel;
//!
//! let Fixture { device, vendor, class, device_key, .. } = Fixture::new();
//! let config = SessionConfig::new(device, vendor, class, device_key, [7; 32]);
//! let mut medium = RamMedium::running(&[0; 100]);
//! let (root, boot, now) = (Fixture::new().root(), medium.boot_view(), Instant::ZERO);
//! let mut session =
//!     DeviceSession::new(config, root, boot, Record::default(), None, now, UnixTime::default());
//!
//! let mut happened = VecDeque::from([Input::Connected]);
//! let mut sent = Vec::new();
//! loop {
//!     // All outputs are taken before the next input.
//!     while let Some(output) = session.poll_output() {
//!         match output {
//!             Output::Publish(message) => sent.push(message.channel),
//!             // Two operations are answered with `Opened` and `Loaded` instead.
//!             Output::Store(op, what) => match medium.store(what) {
//!                 Stored::Done(result) => happened.push_back(Input::Stored { op, result }),
//!                 Stored::Opened(_) | Stored::Loaded(_) => unreachable!("nothing is downloaded here"),
//!             },
//!             Output::Install(op, what) => {
//!                 happened.push_back(Input::Installed { op, result: medium.install(what) });
//!             }
//!             Output::Host(op, HostOp::CheckHealth) => {
//!                 happened.push_back(Input::Installed { op, result: Ok(()) });
//!             }
//!             // The host starts again, with another session.
//!             Output::Host(_, HostOp::Reboot) => return,
//!             Output::Subscribe(_) | Output::Disconnect | Output::Event(_) => {}
//!         }
//!     }
//!     let Some(input) = happened.pop_front() else { break };
//!     session.handle_input(now, input);
//! }
//!
//! // It has said hello, and wants to be woken with `Input::Timeout` to say it again.
//! assert_eq!(sent, [Channel::Requests]);
//! assert!(session.poll_timeout().is_some_and(|at| at > now));
//! ```
//!
//! The session decides what to believe, what to ask for and when; the host moves bytes. It never fails:
//! hostile bytes become [`Event::Rejected`], a failing medium becomes a deferred deployment.
//!
//! The session is made of four machines, each with its own state: `link` (connection, with `hello` and `meter`),
//! `documents` (what is signed, with `orders`), `saving` (the record) and `work` (the deployment, in one state at a
//! time: `release`, `run`, `fetch` with `download`, `patch`, `install`, `trial`, `ending`). They work on a common
//! `context`, and what one needs of another is handed on here: a machine returns it, and the session tells the other.
//! `timer` lists everything that is waited for.

mod carry;
mod checkpoint;
mod config;
mod context;
mod documents;
mod download;
mod ending;
mod event;
mod fetch;
mod hello;
mod install;
mod io;
mod link;
mod messages;
mod meter;
mod orders;
mod patch;
mod record;
mod release;
mod run;
mod saving;
mod shown;
mod slots;
mod timer;
mod trial;
mod work;

use alloc::vec::Vec;

pub use carry::MessageLimit;
pub use checkpoint::{BITMAP_BYTES, Checkpoint, JournalSector, SECTOR_BYTES};
pub use config::{BootView, Running, SessionConfig, Trial};
pub use event::{Event, PatchFailure, Reason};
pub use io::{
    Found, HostOp, Input, InstallFailure, InstallOp, Opening, Output, Place, Publish, StoreFailure, StoreOp,
};
pub use record::{Deployment, GivenUp, Past, Record, Scope, ScopeVersion, Stage};

use context::Context;
use documents::Documents;
use hello::Introduction;
use link::{AfterSilence, Link};
use timer::{Timer, Timers};
use work::Work;

use crate::ids::{CampaignId, OpId};
use crate::message::{DeferReason, FailureCode, State, Status};
use crate::time::{Instant, UnixTime};
use crate::trust::Root;

/// One device and its updates.
#[derive(Debug)]
pub struct DeviceSession {
    context: Context,
    documents: Documents,
    link: Link,
    work: Work,
    /// The state that was told last, with what it is deferred for and why it failed.
    shown: Option<(State, Option<DeferReason>, Option<FailureCode>)>,
}

/// Rounds of one input; more would mean that the machine turns in a circle.
const ROUNDS_MAX: usize = 16;

impl DeviceSession {
    /// Starts a session.
    ///
    /// `root` is the pinned root, verified; `record` what was saved last (default for a new device);
    /// `envelope` the one kept with the target slot, if any; `today` the host's calendar clock or build time,
    /// whichever is later. It dates reports until the service has answered, and decides nothing.
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
        let today = today.max(root.issued);
        let mut session = Self {
            documents: Documents::of(&record, root),
            work: Work::new(&record, boot, envelope),
            link: Link::new(config.message_limit, now),
            context: Context::new(config, record, now, today),
            shown: None,
        };
        session.work.resume(&mut session.context);
        session.settle();
        session
    }

    /// Tells the session what happened. Drain [`DeviceSession::poll_output`] before the next call.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        debug_assert!(self.context.outputs.is_empty(), "outputs must be drained before the next input");
        self.context.now = self.context.now.max(now);
        match input {
            Input::Connected => self.connected(),
            Input::Disconnected => self.disconnected(),
            Input::Message { channel, payload } => self.message(channel, payload),
            Input::Activity => self.link.heard(self.context.now),
            Input::Foreign { bytes } => self.foreign(bytes),
            Input::NotSubscribed => self.link.not_subscribed(&mut self.context),
            Input::WallClock(time) => self.context.raise_calendar(time),
            Input::Stored { op, result } => self.stored(op, result),
            Input::Opened { op, result } => self.work.opened(&mut self.context, op, result),
            Input::Loaded { op, bytes } => self.work.loaded(op, bytes),
            Input::Installed { op, result } => self.work.installed(&mut self.context, op, result),
            Input::Said(text) => self.context.hear(text),
            Input::RoomFound => self.work.try_again(self.context.now),
            Input::Check => self.check(),
            Input::Timeout => {}
        }
        self.settle();
    }

    /// The next effect to carry out, or `None` when all are.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.context.outputs.pop()
    }

    /// When to feed [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers().next(self.context.now, self.context.saving.is_durable())
    }

    /// What the device is doing about updates.
    #[must_use]
    pub fn state(&self) -> State {
        self.work.state().0
    }

    /// The deployment in progress, the order whose start is waited for, or how the last deployment ended; `None` if
    /// there was none yet.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let (state, deferred, failure) = self.work.state();
        let record = self.record();
        // Nothing has begun yet, and the order that rules is waited for.
        let awaited = self.documents.ruling(self.context.config.class).filter(|_| deferred.is_some());
        let mut ledger = self.work.ledger(record);
        let (campaign, attempt) = match (&record.deployment, awaited, record.outcomes.last()) {
            (Some(deployment), ..) => (deployment.order.campaign, deployment.order.attempt),
            (None, Some(ruling), _) => {
                ledger = (0, 0);
                (ruling.order.campaign, ruling.order.attempt)
            }
            (None, None, Some(past)) => (past.campaign, past.attempt),
            (None, None, None) => return None,
        };
        let (bytes_received, bytes_twice) = ledger;
        let (chunks_held, chunks) = self.work.progress();
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

    /// Until when the deployment, or the order that rules, waits; `None` if it is not deferred.
    #[must_use]
    pub fn deferred_until(&self) -> Option<Instant> {
        self.work.deferred_until()
    }

    /// The measured rate of the link in bytes per second, if there is one.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.link.meter().rate()
    }

    /// The largest message of chunks that is asked for, if larger ones did not arrive from this broker. The host keeps
    /// it for the next session, by the broker's address.
    #[must_use]
    pub fn message_limit(&self) -> Option<MessageLimit> {
        self.link.message_limit(self.context.now)
    }

    /// For how many milliseconds nobody has answered a hello or refused it; `None` as long as two hellos in a row were
    /// not in vain.
    #[must_use]
    pub fn unanswered_ms(&self, now: Instant) -> Option<u64> {
        self.link.unheard_ms(now)
    }

    /// What is durable, or about to be.
    #[must_use]
    pub fn record(&self) -> &Record {
        self.context.record()
    }

    /// The image that runs and what the boot control knows, as of the last confirmation.
    #[must_use]
    pub fn boot(&self) -> &BootView {
        &self.work.slots.boot
    }

    /// After every input: acts on deadlines and saves what changed, then goes on as far as what is durable allows.
    fn settle(&mut self) {
        self.handle_timers();
        for _ in 0..ROUNDS_MAX {
            if !self.context.save() {
                break;
            }
            self.report_what_ended();
            if !self.advance() {
                break;
            }
        }
        // What is being saved may begin an order, and then there is something to fetch.
        let is_busy = !self.context.saving.is_durable() || self.work.is_busy(self.context.now);
        self.link.subscribe(&mut self.context, self.documents.groups(), is_busy);
        self.show();
    }

    /// Everything that is waited for now.
    fn timers(&self) -> Timers {
        let mut timers = Timers::default();
        self.context.saving.set_timers(&mut timers);
        self.documents.set_timers(&self.context, &mut timers);
        self.link.set_timers(&mut timers);
        self.work.set_timers(&self.context, &self.link, &mut timers);
        timers
    }

    /// What time alone brings about. Other deadlines end a wait of the work, which [`Self::advance`] looks at.
    fn handle_timers(&mut self) {
        let (timers, now) = (self.timers(), self.context.now);
        if timers.is_due(Timer::BeaconExpiry, now) {
            self.documents.beacon_expired(&mut self.context);
        }
        if timers.is_due(Timer::Hello, now) {
            self.work.endings.publish_oldest_report(&mut self.context);
            self.link.fall_behind();
            self.hello();
        }
        if timers.is_due(Timer::Larger, now) {
            self.link.try_larger(&mut self.context);
        }
        if timers.is_due(Timer::Silence, now) {
            self.silent();
        }
    }

    /// Nothing came for too long.
    fn silent(&mut self) {
        let Some(silence) = self.work.silent(&self.context, &self.link) else {
            return;
        };
        match self.link.silent(&mut self.context, silence) {
            AfterSilence::Nothing => {}
            AfterSilence::Hello => self.hello(),
            AfterSilence::Pause => self.work.pause_download(&mut self.context),
        }
    }

    /// Goes on with the work. `true` if another round may bring more.
    fn advance(&mut self) -> bool {
        let wanted = self.documents.wanted(self.context.config.class, self.context.record());
        if self.work.reconsider(&mut self.context, wanted) {
            return true;
        }
        if let Some(bytes) = self.work.take_kept_envelope(self.context.record()) {
            // The next round goes on with what came of it, and asks for another one if this was refused.
            self.envelope(&bytes);
            return true;
        }
        self.work.advance(&mut self.context, &self.documents, &self.link)
    }

    fn stored(&mut self, op: OpId, result: Result<(), StoreFailure>) {
        if let Err(failure) = result {
            self.context.tell(Event::StoreFailed(failure));
        }
        if !self.context.saving.stored(op, result.is_ok(), self.context.now) {
            self.work.stored(&mut self.context, op, result);
        }
    }

    fn connected(&mut self) {
        self.context.forget_clock();
        self.link.connected(&mut self.context);
        self.work.endings.publish_oldest_report(&mut self.context);
        self.hello();
    }

    fn disconnected(&mut self) {
        self.context.forget_clock();
        self.link.disconnected(self.context.now);
        self.work.disconnected(&mut self.context);
    }

    /// Says hello, whatever was said before.
    fn hello(&mut self) {
        let introduction = Introduction {
            running: self.work.slots.boot.running,
            root: self.documents.root.version,
            groups: self.documents.groups(),
        };
        self.link.hello(&mut self.context, &introduction);
    }

    /// Somebody is at the device: what it waits for by itself is tried, and the service is asked.
    fn check(&mut self) {
        self.work.try_again(self.context.now);
        if self.link.is_up() {
            self.hello();
        }
    }

    /// A report that has just become durable goes out, and hello asks whether it arrived.
    fn report_what_ended(&mut self) {
        if self.link.is_up() && self.work.endings.take_unreported() {
            self.work.endings.publish_oldest_report(&mut self.context);
            self.hello();
        }
    }

    /// Reports a state that has changed: to the host, and to the service if it is one that is waited in.
    fn show(&mut self) {
        let shown = self.work.state();
        if self.shown != Some(shown) {
            self.shown = Some(shown);
            let (state, deferred, failure) = shown;
            self.context.tell(Event::StateChanged { state, deferred, failure });
            self.send_status();
        }
    }

    /// Tells the service how far things are, in states that can last: an operator sees why a device stands still.
    fn send_status(&mut self) {
        let lasting =
            matches!(self.state(), State::Deferred | State::Downloading | State::Installing | State::Testing);
        if !lasting || !self.link.is_up() {
            return;
        }
        if let Some(status) = self.status().filter(|status| status.campaign != CampaignId::default()) {
            self.context.request(status.encode());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A microcontroller hosts one session for ever; what a download needs is allocated while there is one.
    #[test]
    fn an_idle_session_takes_no_more_than_1600_bytes() {
        assert!(size_of::<DeviceSession>() <= 1600, "{}", size_of::<DeviceSession>());
    }
}
