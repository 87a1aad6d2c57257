//! The connection: when to subscribe to which topics, what a silence or a flood means, and what the service's refusals
//! change. It owns the hellos and what is measured of the link.

use alloc::vec::Vec;

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
    /// The last sign of life.
    heard: Instant,
    hellos: Hellos,
    meter: Meter,
    /// Retained topics subscribed to in this connection.
    subscribed: Vec<Channel>,
    /// The service said in this connection that it does not know the device, or has not accepted it yet.
    unaccepted: bool,
    /// Enrolment was sent in this connection.
    enrolled: bool,
    /// Bytes that came without having been asked for.
    unsolicited: u64,
    /// Documents that came although they were here.
    replays: u32,
    /// Silences since something that was asked for arrived.
    silences: u32,
}

/// What a message of the download brought that had been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Milliseconds since the request, if nothing else was under way when it went out.
    pub(super) round_trip_ms: Option<u64>,
    /// Bytes of the message.
    pub(super) bytes: u64,
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

/// After this many silences in a row the connection is given up.
const SILENCES_MAX: u32 = 3;
/// How soon to say hello after enrolling.
const ENROLLED_MS: u64 = 2_000;

impl Link {
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
        self.renew(Some(cx.now), self.hellos.unanswered_ms());
        cx.outputs.subscribe(alloc::vec![Channel::Answers]);
    }

    pub(super) fn disconnected(&mut self, now: Instant) {
        self.renew(None, self.unanswered_ms(now));
        self.meter.idle();
    }

    fn renew(&mut self, up: Option<Instant>, unanswered_ms: u64) {
        let Self { mut hellos, meter, .. } = core::mem::take(self);
        hellos.renew(unanswered_ms);
        *self = Self { up, hellos, meter, ..Self::default() };
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
        let elapsed_ms = self.hellos.take_answer(cx, answer, root)?;
        self.meter.round_trip(elapsed_ms, 0);
        self.unaccepted = false;
        Ok(())
    }

    /// Compares what is held with what the last answer said is current. `true` if nothing is missing.
    pub(super) fn compare(&mut self, record: &Record) -> bool {
        self.hellos.compare(record)
    }

    /// The service does not know the device, or has not accepted it yet.
    pub(super) fn not_accepted(&mut self, cx: &mut Context, code: RefusalCode, wait_ms: Option<u64>) {
        self.unaccepted = true;
        if code == RefusalCode::Unknown && !self.enrolled {
            self.enrolled = true;
            enrol(cx);
            self.hello_within(cx, ENROLLED_MS);
        } else if let Some(wait_ms) = wait_ms {
            self.hellos.again_after(cx, wait_ms);
        }
    }

    /// The service refused what the work had asked for.
    pub(super) fn work_refused(&mut self, cx: &mut Context, refused: Refused) {
        if refused.pauses_download {
            self.meter.idle();
        }
        if let Some(ms) = refused.ask_within_ms {
            self.hello_within(cx, ms);
        }
    }

    /// Something that was asked for arrived.
    pub(super) fn arrived(&mut self, now: Instant, arrival: Arrival) {
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
        self.unsolicited = self.unsolicited.saturating_add(len as u64);
        if self.unsolicited > UNSOLICITED_BYTES_MAX && before <= UNSOLICITED_BYTES_MAX {
            cx.tell(Event::Flooded { bytes: self.unsolicited });
            cx.outputs.disconnect();
        }
    }

    /// Nothing came for too long, and `chunks` are asked for again. After a few times the connection is taken for
    /// dead.
    pub(super) fn silent(&mut self, cx: &mut Context, chunks: u32) {
        cx.tell(Event::Silent { chunks });
        self.meter.idle();
        self.heard = cx.now;
        self.silences += 1;
        if self.silences >= SILENCES_MAX {
            self.silences = 0;
            cx.outputs.disconnect();
        }
    }

    /// Subscribes to the retained topics as soon as nothing else is to be done: what they carry now, the
    /// hello answer has brought already; what they carry later, they bring at once.
    pub(super) fn subscribe(&mut self, cx: &mut Context, groups: &[GroupName], is_fetching: bool) {
        let settled = self.hellos.is_in_step() && !is_fetching;
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
    }
}

/// Introduces the device to a service that does not know it.
fn enrol(cx: &mut Context) {
    let enrolment =
        Enrolment { device: cx.config.device.clone(), key: cx.config.key.public(), class: cx.config.class };
    let message = sign_attached(&cx.config.key, Kind::Enrolment, None, &enrolment.encode());
    cx.outputs.publish(Channel::Reports, message, true);
}
