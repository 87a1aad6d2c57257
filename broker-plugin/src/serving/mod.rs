//! The half of the service that moves bytes: what devices ask for, on one link to a broker.
//!
//! [`Serving`] is a machine without I/O, like the [fleet](crate::fleet) that it reads from: it decides nothing about
//! devices and releases, it keeps one protocol session for each device that talks, says who is served now and who has
//! to wait, and shares the frames of chunks among all who ask for them. Each link to a broker has its own; any number
//! of them work over one fleet. What devices say comes out as inputs of the fleet ([`Output::Fleet`]), and what changes
//! there comes in ([`Input::Changed`], [`Input::Publish`], [`Input::ReportStored`]).
//!
//! | file | holds |
//! |---|---|
//! | `io` | inputs, outputs, events |
//! | `messages` | a message of a device: through its session, to what comes of it |
//! | `chunks` | chunks and pages: at hand, or read first |
//! | `retained` | documents that the broker keeps for devices that come later |
//! | `sessions`, `view` | one protocol session for each device; what the fleet knows of it |
//! | `admission` | who is served now and who is told to come back |
//! | `frames`, `cache` | messages that many devices get, and the pieces of payloads that they are made of |

pub mod admission;
mod cache;
mod chunks;
mod frames;
mod io;
mod messages;
mod retained;
mod sessions;
mod view;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use std::collections::HashMap;

use bytes::Bytes;
use whimbrel_protocol::ids::{DeviceId, Prefix};
use whimbrel_protocol::message::HelloAnswer;
use whimbrel_protocol::time::{Instant, UnixTime};

pub use frames::Extent;
pub use io::{Event, Input, Output, Settings};

use crate::attach::{Delivery, Outgoing};
use crate::fleet::Fleet;
use crate::metrics::Counters;
use admission::Admission;
use frames::Frames;
use retained::Retained;
use sessions::Sessions;

/// Serves the devices of one link.
#[derive(Debug)]
pub struct Serving {
    prefix: Prefix,
    counters: Arc<Counters>,
    now: Instant,
    today: UnixTime,
    sessions: Sessions,
    admission: Admission,
    frames: Frames,
    /// Extents that are being read or will be, and who waits for each.
    reads: HashMap<Extent, Vec<DeviceId>>,
    reads_to_start: VecDeque<Extent>,
    reads_running: usize,
    /// Devices whose extent has been read.
    ready: VecDeque<(DeviceId, Extent)>,
    retained: Retained,
    broker_forgets: bool,
    up: bool,
    /// Messages that were put out since the last flush.
    queued: usize,
    sweep_at: Instant,
    outputs: VecDeque<Output>,
}

/// Messages that go out together; one request more may be answered.
const BATCH_MESSAGES: usize = 256;
/// How often silent sessions are looked for.
const SWEEP_EVERY_MS: u64 = 60_000;

impl Serving {
    /// Serves nobody yet. `seed` makes the waits of devices differ that are told to come back.
    #[must_use]
    pub fn new(settings: Settings, counters: Arc<Counters>, seed: u64, now: Instant) -> Self {
        let Settings { prefix, sessions_max, session_idle_ms, broker_forgets, .. } = settings;
        Self {
            counters,
            now,
            today: UnixTime::default(),
            sessions: Sessions::new(prefix.clone(), sessions_max, session_idle_ms),
            prefix,
            admission: Admission::new(settings.rates, seed, now),
            frames: Frames::new(settings.frame_cache_bytes, settings.payload_cache_bytes),
            reads: HashMap::new(),
            reads_to_start: VecDeque::new(),
            reads_running: 0,
            ready: VecDeque::new(),
            retained: Retained::default(),
            broker_forgets,
            up: false,
            queued: 0,
            sweep_at: now.plus_millis(SWEEP_EVERY_MS),
            outputs: VecDeque::new(),
        }
    }

    /// Tells the serving what happened; `fleet` is what it reads from. Drain [`Serving::poll_output`] before the next
    /// call.
    pub fn handle_input(&mut self, now: Instant, today: UnixTime, fleet: &Fleet, input: Input<'_>) {
        debug_assert!(self.outputs.is_empty(), "outputs must be drained before the next input");
        (self.now, self.today) = (now, today);
        match input {
            Input::Up => {
                self.up = true;
                self.retained.all(self.broker_forgets);
            }
            Input::Down => self.up = false,
            Input::Message(message) => self.message(fleet, message),
            Input::Flushed => self.queued = 0,
            Input::Read { extent, result } => self.extent_read(fleet, extent, result),
            Input::Changed(device) => self.sessions.forget_view(&device),
            Input::Publish(publication) => self.retained.add(publication),
            Input::ReportStored { device, digest } => self.report_stored(fleet, &device, digest),
            Input::Timeout => {
                while let Some(device) = self.sessions.due(now) {
                    self.session_timeout(fleet, &device);
                }
                if self.sweep_at <= now {
                    self.sweep_at = now.plus_millis(SWEEP_EVERY_MS);
                    self.sessions.drop_idle(now);
                }
                self.serve_ready(fleet);
                self.publish_retained(fleet);
            }
        }
    }

    /// The next effect to carry out, or `None` when all are.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to feed [`Input::Timeout`], if nothing else happens before. It is the time of the last input if there is
    /// more to do at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let more = self.retained.is_due(self.up) || !self.ready.is_empty();
        if more && self.has_room() {
            return self.now;
        }
        self.sessions.next_timer().map_or(self.sweep_at, |at| at.min(self.sweep_at))
    }

    /// Whether more should be put out before what was put out is flushed. Small batches stay in the caches of the CPU;
    /// and if the broker is behind, nothing is piled up here.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.queued < BATCH_MESSAGES
    }

    /// Messages that were put out since the last flush.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// First level of all topics.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Whether the link is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// When a device was last heard here; `None` for not at all, or so long ago that its session was dropped.
    #[must_use]
    pub fn heard(&self, device: &DeviceId) -> Option<Instant> {
        self.sessions.heard(device)
    }

    /// How many sessions are kept, and how many were dropped since the start.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        (self.sessions.len(), self.sessions.dropped())
    }

    /// Bytes of chunk messages and of payloads that are kept.
    #[must_use]
    pub const fn cached_bytes(&self) -> (usize, usize) {
        self.frames.bytes()
    }

    /// What was begun and has not ended: reads, documents to publish, messages to flush.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.reads.len() + self.ready.len() + self.retained.under_way() + self.queued
    }

    /// Sends something on the device's own topic.
    fn send(&mut self, device: &DeviceId, payload: Bytes) {
        if let Some(session) = self.sessions.find(device) {
            let topic = session.answers.clone();
            self.publish(Outgoing::to_device(topic, payload));
        }
    }

    /// Sends the answer to a hello once it is signed.
    fn answer(&mut self, device: &DeviceId, answer: HelloAnswer) {
        if let Some(session) = self.sessions.find(device)
            && self.up
        {
            let topic = session.answers.clone();
            self.queued += 1;
            self.outputs.push_back(Output::Answer { topic, answer });
        }
    }

    fn publish(&mut self, message: Outgoing) {
        // Devices ask again; what is retained is published when the link is up.
        if self.up {
            self.queued += 1;
            self.outputs.push_back(Output::Publish(message));
        }
    }

    /// Publishes something that the broker keeps.
    fn retain(&mut self, topic: String, payload: Bytes) {
        let (topic, delivery) = (Bytes::from(topic), Delivery::AtLeastOnce);
        self.publish(Outgoing { topic, payload, delivery, retain: true });
    }
}
