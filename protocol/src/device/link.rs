//! The connection: when to subscribe to which topics, what a silence or a flood means, and what the service's refusals
//! change. It owns the hellos and what is measured of the link.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::carry::{Carry, Finding, MessageLimit, Missed, Passed};
use super::context::Context;
use super::event::{Event, Reason};
use super::hello::{Hellos, Introduction};
use super::meter::Meter;
use super::record::Record;
use super::timer::{Timer, Timers};
use super::work::Refused;
use crate::cose::{Kind, sign_attached};
use crate::ids::GroupName;
use crate::limits::{REPLAYS_MAX, UNSOLICITED_BYTES_MAX};
use crate::message::{Enrolment, HelloAnswer, RefusalCode};
use crate::time::Instant;
use crate::topic::Channel;

/// What is known of the connection, and of the link that carries it.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Since when there is a connection.
    up: Option<Instant>,
    /// When something came that had been asked for, or bytes of a message that is not complete yet.
    heard: Instant,
    hellos: Hellos,
    meter: Meter,
    /// As long as something is known of it.
    carry: Option<Box<Carry>>,
    /// Retained topics subscribed to in this connection.
    subscribed: Vec<Channel>,
    /// The service said in this connection that it does not know the device, or has not accepted it yet.
    unaccepted: bool,
    /// Enrolment was sent in this connection.
    enrolled: bool,
    /// Bytes that came without having been asked for.
    unsolicited: u32,
    /// Documents that came although they were here.
    replays: u8,
    /// Silences since something that was asked for arrived.
    silences: u8,
}

/// What a message of the download brought that had been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Milliseconds since the request, if nothing else was under way when it went out.
    pub(super) round_trip_ms: Option<u64>,
    /// Bytes of the message.
    pub(super) bytes: u64,
    /// What it says of the size of messages.
    pub(super) passed: Passed,
    pub(super) kind: ArrivalKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArrivalKind {
    /// An index page. It says nothing about the rate.
    Page,
    /// Chunks, and more are under way.
    Chunks,
    /// Chunks, and nothing more is under way.
    LastChunks,
}

/// Nothing came for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// Chunks that will be asked for again.
    pub(super) chunks: u32,
    /// How long nothing came, in milliseconds, before jitter.
    pub(super) ms: u64,
    /// What was under way.
    pub(super) missed: Missed,
}

/// What follows from a silence, beyond asking again for what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterSilence {
    Nothing,
    /// A hello is to be said: its answer tells whether the service is there.
    Hello,
    /// The broker does not carry what was asked for, and it can't be asked for in parts: the download pauses.
    Pause,
}

/// After this many silences in a row the connection is given up.
const SILENCES_MAX: u8 = 3;
/// A silence that was shorter says nothing about the connection or the broker: a request was lost, perhaps.
const SILENCE_COUNTS_MS: u64 = 4_000;

impl Link {
    pub(super) fn new(limit: Option<MessageLimit>, now: Instant) -> Self {
        let carry = limit.map(|limit| Box::new(Carry::new(Some(limit), now)));
        Self { carry, ..Self::default() }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// The last sign of life.
    pub(super) const fn last_heard(&self) -> Instant {
        self.heard
    }

    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether everything has arrived that the last answer of this connection named.
    pub(super) const fn is_in_step(&self) -> bool {
        self.hellos.is_in_step()
    }

    /// Bytes of the largest message of chunks to ask for.
    pub(super) fn message_bytes_max(&self) -> u32 {
        self.carry.as_ref().map_or(u32::MAX, |carry| carry.bytes_max())
    }

    /// The limit of this broker, if one was found.
    pub(super) fn message_limit(&self, now: Instant) -> Option<MessageLimit> {
        self.carry.as_ref().and_then(|carry| carry.limit(now))
    }

    /// For how many milliseconds no hello was answered, if that is to be told.
    pub(super) fn unheard_ms(&self, now: Instant) -> Option<u64> {
        self.hellos.unheard_ms(now)
    }

    /// Whether the service answered a hello in this connection.
    pub(super) const fn is_answered(&self) -> bool {
        self.hellos.is_answered()
    }

    /// Milliseconds connected without any answer, over all connections.
    pub(super) fn unanswered_ms(&self, now: Instant) -> u64 {
        let here = self.up.filter(|_| !self.is_answered()).map_or(0, |up| now.millis_since(up));
        self.hellos.unanswered_ms() + here
    }

    /// The broker accepted a connection. Hello follows.
    pub(super) fn connected(&mut self, cx: &mut Context) {
        self.renew(cx.now, Some(cx.now), self.hellos.unanswered_ms());
        cx.outputs.subscribe(alloc::vec![Channel::Answers]);
    }

    pub(super) fn disconnected(&mut self, now: Instant) {
        self.renew(now, None, self.unanswered_ms(now));
        self.meter.idle();
    }

    fn renew(&mut self, now: Instant, up: Option<Instant>, unanswered_ms: u64) {
        let Self { mut hellos, meter, carry, .. } = core::mem::take(self);
        hellos.renew(now, unanswered_ms);
        let carry = carry.filter(|carry| carry.limit(now).is_some()).map(|carry| Box::new(carry.renew()));
        *self = Self { up, hellos, meter, carry, ..Self::default() };
    }

    /// Bytes arrived.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Says hello, whatever was said before.
    pub(super) fn hello(&mut self, cx: &mut Context, device: &Introduction<'_>) {
        self.hellos.send(cx, device, self.meter.rtt_p95_ms());
    }

    /// The last answer is too old to rely on: a hello follows.
    pub(super) const fn fall_behind(&mut self) {
        self.hellos.fall_behind();
    }

    /// Says hello again soon, because something changed or is missing.
    pub(super) fn hello_within(&mut self, cx: &mut Context, ms: u64) {
        self.hellos.again_within(cx, ms);
    }

    /// Topics that bring news are missing in this connection: hellos ask for it.
    pub(super) fn not_subscribed(&mut self, cx: &mut Context) {
        if self.is_up() {
            self.hellos.ask_for_news(cx);
        }
    }

    /// Says hello again soon to ask whether a report has arrived.
    pub(super) fn ask_for_report(&mut self, cx: &mut Context) {
        self.hellos.ask_for_report(cx);
    }

    /// The service has a report.
    pub(super) const fn report_arrived(&mut self) {
        self.hellos.report_arrived();
    }

    /// A verified answer to a hello came.
    ///
    /// # Errors
    /// [`Reason::WrongNonce`] if no hello waits for it.
    pub(super) fn take_answer(
        &mut self,
        cx: &mut Context,
        answer: HelloAnswer,
        root: u64,
    ) -> Result<(), Reason> {
        let accepted = answer.key;
        let asked_at = self.hellos.take_answer(cx, answer, root)?;
        if accepted != cx.config.key.public().id() {
            // Nothing waits for that: the service's people learn of the key, and decide.
            cx.tell(Event::OtherKey { accepted });
            self.enrol(cx);
        }
        let elapsed_ms = cx.now.millis_since(asked_at);
        self.meter.round_trip(elapsed_ms, 0);
        if let Some(carry) = &mut self.carry {
            carry.answered(asked_at);
        }
        self.unaccepted = false;
        Ok(())
    }

    /// Compares what is held with what the last answer said is current. `true` if nothing is missing.
    pub(super) fn compare(&mut self, record: &Record) -> bool {
        self.hellos.compare(record)
    }

    /// The service does not know the device, or has not accepted it yet. That it has accepted the device, the
    /// assignment says, which is subscribed to now.
    pub(super) fn not_accepted(&mut self, cx: &mut Context, code: RefusalCode, wait_ms: Option<u64>) {
        self.unaccepted = true;
        if code == RefusalCode::Unknown {
            self.enrol(cx);
        }
        self.hellos.refused(cx, wait_ms);
    }

    /// Introduces the device with its key, once in a connection.
    fn enrol(&mut self, cx: &mut Context) {
        if !core::mem::replace(&mut self.enrolled, true) {
            enrol(cx);
        }
    }

    /// The service refused what the work had asked for.
    pub(super) fn work_refused(&mut self, cx: &mut Context, refused: Refused) {
        if refused.pauses_download {
            self.meter.idle();
        }
        if let Some(ms) = refused.ask_within_ms {
            self.hellos.ask_why(cx, ms);
        }
    }

    /// Something that was asked for arrived.
    pub(super) fn arrived(&mut self, cx: &mut Context, arrival: Arrival) {
        let now = cx.now;
        // Nothing else ends a silence: anybody on the way can send what was not asked for.
        self.heard(now);
        if self.carry.get_or_insert_default().arrived(now, arrival.passed) {
            self.tell_limit(cx);
        }
        if let Some(elapsed_ms) = arrival.round_trip_ms {
            self.meter.round_trip(elapsed_ms, arrival.bytes);
        }
        if arrival.kind != ArrivalKind::Page {
            self.meter.arrived(now, arrival.bytes);
        }
        if arrival.kind == ArrivalKind::LastChunks {
            self.meter.idle();
        }
        self.silences = 0;
    }

    /// Tells of a message that nobody asked for, and counts it.
    pub(super) fn unsolicited(&mut self, cx: &mut Context, channel: Channel, len: usize, reason: Reason) {
        cx.reject(channel, reason);
        self.unasked(cx, len);
    }

    /// A document came that is no news. Brokers have good reasons to deliver a few of them again.
    pub(super) fn replayed(&mut self, cx: &mut Context, channel: Channel, len: usize) {
        self.replays = self.replays.saturating_add(1);
        if self.replays > REPLAYS_MAX {
            self.unsolicited(cx, channel, len, Reason::Unsolicited);
        }
    }

    /// Counts bytes that nobody asked for, and hangs up when they get too many.
    pub(super) fn unasked(&mut self, cx: &mut Context, len: usize) {
        let before = self.unsolicited;
        self.unsolicited = before.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        let [before, bytes] = [before, self.unsolicited].map(u64::from);
        if bytes > UNSOLICITED_BYTES_MAX && before <= UNSOLICITED_BYTES_MAX {
            cx.tell(Event::Flooded { bytes });
            cx.outputs.disconnect();
        }
    }

    /// Nothing came for too long, and what is missing is asked for again. After a few times the connection is taken
    /// for dead, unless the messages may have been too large.
    pub(super) fn silent(&mut self, cx: &mut Context, silence: Silence) -> AfterSilence {
        cx.tell(Event::Silent { chunks: silence.chunks });
        self.meter.idle();
        self.heard = cx.now;
        if silence.ms < SILENCE_COUNTS_MS {
            return AfterSilence::Nothing;
        }
        let finding = self.carry.get_or_insert_default().silent(cx.now, silence.missed);
        if finding != Finding::Nothing {
            self.silences = 0;
            cx.tell(Event::MessagesLost { above_bytes: self.message_bytes_max() });
        }
        match finding {
            Finding::Stuck => return AfterSilence::Pause,
            Finding::Smaller => return AfterSilence::Nothing,
            Finding::Nothing => self.silences += 1,
        }
        if self.silences >= SILENCES_MAX {
            self.silences = 0;
            cx.outputs.disconnect();
            return AfterSilence::Nothing;
        }
        // One that waits for its answer is said again in its own time.
        if self.hellos.is_waiting() { AfterSilence::Nothing } else { AfterSilence::Hello }
    }

    /// A limit was believed for a day: tries messages twice as large.
    pub(super) fn try_larger(&mut self, cx: &mut Context) {
        let most = u32::try_from(cx.config.message_bytes_max).unwrap_or(u32::MAX);
        if let Some(carry) = &mut self.carry {
            carry.double(cx.now, most);
            self.tell_limit(cx);
        }
    }

    fn tell_limit(&self, cx: &mut Context) {
        let bytes = self.message_limit(cx.now).map(|limit| limit.bytes.get());
        cx.tell(Event::MessageLimit { bytes });
    }

    /// Subscribes to the retained topics as soon as nothing else is to be done: what they carry now, the
    /// hello answer has brought already; what they carry later, they bring at once.
    pub(super) fn subscribe(&mut self, cx: &mut Context, groups: &[GroupName], is_busy: bool) {
        let settled = self.hellos.is_in_step() && !is_busy;
        if !self.is_up() || !(settled || self.unaccepted) {
            return;
        }
        let mut wanted = alloc::vec![Channel::Assignment];
        if settled {
            wanted.push(Channel::Beacon);
            wanted.extend(groups.iter().cloned().map(Channel::Group));
        }
        wanted.retain(|channel| !self.subscribed.contains(channel));
        if !wanted.is_empty() {
            self.subscribed.extend(wanted.iter().cloned());
            cx.outputs.subscribe(wanted);
        }
    }

    pub(super) fn set_timers(&self, timers: &mut Timers) {
        timers.set(Timer::Hello, self.hellos.again_at().filter(|_| self.is_up()));
        timers.set(Timer::Larger, self.carry.as_ref().and_then(|carry| carry.double_at()));
    }
}

/// Introduces the device to a service that does not know it, or knows it with another key.
fn enrol(cx: &mut Context) {
    let enrolment =
        Enrolment { device: cx.config.device.clone(), key: cx.config.key.public(), class: cx.config.class };
    let message = sign_attached(&cx.config.key, Kind::Enrolment, None, &enrolment.encode());
    cx.outputs.publish(Channel::Reports, message, true);
}
