//! The context that every machine of a session works on: time, configuration, record, outputs, jitter and nonces.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::config::SessionConfig;
use super::event::{Event, Reason};
use super::io::{HostOp, InstallOp, Output, Publish, StoreOp};
use super::record::{Deployment, Record};
use super::saving::Saving;
use crate::ids::{Nonce, OpId};
use crate::limits::SAID_BYTES_MAX;
use crate::retry::Jitter;
use crate::time::{Instant, UnixTime};
use crate::topic::Channel;

/// What no machine owns alone. The session lends it to one after the other.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: SessionConfig,
    pub(super) now: Instant,
    /// The device's own calendar.
    calendar: Calendar,
    /// The service's clock, as the last answer to a hello of this connection gave it. Nothing else says what has
    /// expired or may begin, and it ends with the connection.
    clock: Option<Calendar>,
    pub(super) saving: Saving,
    pub(super) outputs: Outputs,
    pub(super) jitter: Jitter,
    /// Nonces made so far.
    nonces: u64,
}

impl Context {
    pub(super) fn new(config: SessionConfig, record: Record, now: Instant, today: UnixTime) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = config.seed;
        Self {
            jitter: Jitter::new(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            config,
            now,
            calendar: Calendar { floor: today, at: now },
            clock: None,
            saving: Saving::new(record),
            outputs: Outputs::default(),
            nonces: 0,
        }
    }

    /// Remembers the end of what a health check or a hook said. It is saved with what comes of that, if anything does.
    pub(super) fn hear(&mut self, text: &str) {
        let from = text.len().saturating_sub(SAID_BYTES_MAX);
        let end = (from..=text.len()).find_map(|at| text.get(at..)).unwrap_or_default();
        let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
        self.saving.amend(|record| {
            if let Some(deployment) = &mut record.deployment {
                deployment.said = end.chars().map(plain).collect::<String>().into_boxed_str();
            }
        });
    }

    pub(super) const fn record(&self) -> &Record {
        self.saving.record()
    }

    pub(super) const fn deployment(&self) -> Option<&Deployment> {
        self.record().deployment.as_ref()
    }

    /// Changes the record; the change takes effect when it is durable.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Record)) {
        self.saving.change(change);
    }

    /// Changes the deployment in progress, if there is one; the change takes effect when it is durable.
    pub(super) fn change_deployment(&mut self, change: impl FnOnce(&mut Deployment)) {
        self.change(|record| {
            if let Some(deployment) = &mut record.deployment {
                change(deployment);
            }
        });
    }

    /// Begins to save what has changed. `true` if there is nothing left to save.
    pub(super) fn save(&mut self) -> bool {
        self.saving.save(self.now, &mut self.outputs)
    }

    /// The calendar time that is shown to people: the service's, or else the device's own, which may be later in
    /// truth. Nothing is decided by it.
    pub(super) fn today(&self) -> UnixTime {
        self.clock().unwrap_or_else(|| self.calendar.today(self.now))
    }

    /// The host's clock was read.
    pub(super) fn raise_calendar(&mut self, time: UnixTime) {
        self.calendar.raise(self.now, time);
    }

    /// The service's time, if it answered a hello in this connection.
    pub(super) fn clock(&self) -> Option<UnixTime> {
        self.clock.as_ref().map(|clock| clock.today(self.now))
    }

    /// When it will be `time` by the service's clock. `None` until it answers in this connection.
    pub(super) fn when(&self, time: UnixTime) -> Option<Instant> {
        self.clock.as_ref().map(|clock| clock.when(time))
    }

    /// The service's clock came with an answer. A later answer sets it anew, also back.
    pub(super) const fn set_clock(&mut self, time: UnixTime) {
        self.clock = Some(Calendar { floor: time, at: self.now });
    }

    /// The connection ended, and the service's clock with it.
    pub(super) const fn forget_clock(&mut self) {
        self.clock = None;
    }

    /// The end of a wait of `ms` milliseconds and up to a quarter more, so that devices do not keep step.
    pub(super) fn after_about(&mut self, ms: u64) -> Instant {
        self.now.plus_millis(self.jitter.lengthened(ms))
    }

    /// A number that nobody can guess and that is used once.
    pub(super) fn nonce(&mut self) -> Nonce {
        self.nonces += 1;
        let mut hash = Sha256::new();
        hash.update(b"whimbrel nonce");
        hash.update(self.config.seed);
        hash.update(self.nonces.to_le_bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        Nonce([a, b, c, d, e, f, g, h])
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.outputs.tell(event);
    }

    /// Tells the host that a message is not acted on.
    pub(super) fn reject(&mut self, channel: Channel, reason: Reason) {
        self.outputs.tell(Event::Rejected { channel, reason });
    }

    /// Publishes a message with QoS 0, which is enough for what is asked again.
    pub(super) fn request(&mut self, payload: Vec<u8>) {
        self.outputs.publish(Channel::Requests, payload, false);
    }
}

/// A calendar that goes on with the host's monotonic clock.
#[derive(Debug)]
struct Calendar {
    floor: UnixTime,
    at: Instant,
}

impl Calendar {
    fn today(&self, now: Instant) -> UnixTime {
        self.floor.plus_secs(now.millis_since(self.at) / 1000)
    }

    /// A calendar that is only ever a lower bound does not run backwards.
    fn raise(&mut self, now: Instant, time: UnixTime) {
        let known = self.today(now);
        if time > known {
            *self = Self { floor: time, at: now };
        }
    }

    /// When it will be `time`.
    fn when(&self, time: UnixTime) -> Instant {
        let wait_s = time.as_secs().saturating_sub(self.floor.as_secs());
        self.at.plus_millis(wait_s.saturating_mul(1000))
    }
}

/// Effects that the host has not taken yet, in the order in which they must happen.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    queue: VecDeque<Output>,
    /// The number of the last operation.
    last_op: u32,
}

impl Outputs {
    pub(super) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn store(&mut self, what: StoreOp) -> OpId {
        let op = self.op();
        self.queue.push_back(Output::Store(op, what));
        op
    }

    pub(super) fn install(&mut self, what: InstallOp) -> OpId {
        let op = self.op();
        self.queue.push_back(Output::Install(op, what));
        op
    }

    pub(super) fn host(&mut self, what: HostOp) -> OpId {
        let op = self.op();
        self.queue.push_back(Output::Host(op, what));
        op
    }

    pub(super) fn publish(&mut self, channel: Channel, payload: Vec<u8>, at_least_once: bool) {
        self.queue.push_back(Output::Publish(Publish { channel, payload, at_least_once }));
    }

    pub(super) fn subscribe(&mut self, channels: Vec<Channel>) {
        self.queue.push_back(Output::Subscribe(channels));
    }

    pub(super) fn disconnect(&mut self) {
        self.queue.push_back(Output::Disconnect);
    }

    fn tell(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    fn op(&mut self) -> OpId {
        self.last_op = self.last_op.wrapping_add(1);
        OpId(self.last_op)
    }
}
