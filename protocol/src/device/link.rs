//! The connection: hello until it is answered, subscriptions as late as possible, silence, floods.

use alloc::vec::Vec;

use super::DeviceSession;
use super::io::{Event, Output, Publish, Reason};
use crate::ids::Nonce;
use crate::limits::UNSOLICITED_BYTES_MAX;
use crate::message::{Answer, GroupVersion, Hello, HelloAnswer, Refusal, RefusalCode};
use crate::time::{Instant, UnixTime};
use crate::topic::Channel;
use crate::version::PROTOCOL_VERSION;

/// What is known of the connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Since when the broker holds a connection for us.
    up: Option<Instant>,
    /// The last sign of life.
    heard: Instant,
    /// The hello that waits for its answer.
    hello: Option<Asked>,
    /// When to say hello again.
    again_at: Option<Instant>,
    /// Hellos in a row without an answer that brought us up to date.
    fruitless: u32,
    /// The service's clock in the last answer of this connection.
    answered: Option<UnixTime>,
    /// Everything that the answer named has arrived.
    in_step: bool,
    /// What the last answer said is current.
    current: Option<HelloAnswer>,
    /// Retained topics subscribed to in this connection.
    subscribed: Vec<Channel>,
    /// The service said that it doesn't know us, or that we wait to be accepted.
    unaccepted: bool,
    /// Enrolment was sent in this connection.
    enrolled: bool,
    /// Bytes that came without having been asked for.
    unsolicited: u64,
    /// Silences in a row.
    silences: u32,
    /// Milliseconds connected without an answer, before this connection.
    unanswered_ms: u64,
}

#[derive(Debug)]
struct Asked {
    nonce: Nonce,
    at: Instant,
}

/// Hello again after this long without an answer, doubled each time up to the cap.
const HELLO_RETRY_MS: u64 = 10_000;
const HELLO_RETRY_CAP_MS: u64 = 600_000;
/// How long documents that an answer announced may take.
const DOCUMENTS_MS: u64 = 30_000;
/// Silences in a row before the connection is given up.
const SILENCES_MAX: u32 = 3;
/// How soon to say hello after enrolling.
const ENROLLED_MS: u64 = 2_000;
/// Codecs that are understood: raw and lzma.
const CODECS: u64 = 0b111;

impl Link {
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// The service's clock, where it answered in this connection.
    pub(super) fn answered(&self) -> Option<UnixTime> {
        self.answered
    }

    /// Whether everything is here that the service has for us.
    pub(super) fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Milliseconds connected without any answer, over all connections.
    pub(super) fn unanswered_ms(&self, now: Instant) -> u64 {
        let here = self.up.filter(|_| self.answered.is_none()).map_or(0, |up| now.millis_since(up));
        self.unanswered_ms + here
    }
}

impl DeviceSession {
    pub(super) fn connected(&mut self) {
        self.link = Link {
            up: Some(self.now),
            fruitless: self.link.fruitless,
            unanswered_ms: self.link.unanswered_ms,
            ..Link::default()
        };
        self.outputs.push_back(Output::Subscribe(alloc::vec![Channel::Answers]));
        self.publish_oldest_report();
        self.hello();
    }

    pub(super) fn disconnected(&mut self) {
        let unanswered_ms = self.link.unanswered_ms(self.now);
        self.link = Link { fruitless: self.link.fruitless, unanswered_ms, ..Link::default() };
        self.meter.idle();
        self.work_disconnected();
    }

    /// Somebody wants to know whether there is news.
    pub(super) fn check_now(&mut self) {
        if self.link.is_up() {
            self.hello();
        }
    }

    /// Says hello, whatever was said before.
    pub(super) fn hello(&mut self) {
        let nonce = self.nonce();
        let groups = self.groups().to_vec();
        let hello = Hello {
            version_max: u64::from(PROTOCOL_VERSION),
            message_max: self.config.message_bytes_max as u64,
            memory_max_kib: self.config.memory_max_kib,
            codecs: CODECS,
            class: self.config.class,
            running: self.boot.running.image.map(|image| image.short()).unwrap_or_default(),
            sequence: self.boot.running.sequence,
            root: self.root.version,
            assignment: self.record.version_of(&super::Scope::Assignment),
            groups: groups
                .into_iter()
                .map(|group| {
                    let version = self.record.version_of(&super::Scope::Group(group.clone()));
                    GroupVersion { group, version }
                })
                .collect(),
            nonce,
            report: self.oldest_report(),
        };
        self.publish(Channel::Requests, hello.encode(), false);
        let range = (HELLO_RETRY_MS << self.link.fruitless.min(10)).min(HELLO_RETRY_CAP_MS);
        let wait = range.max(3 * self.meter.rtt_p95_ms()) + self.jitter.below(range / 2);
        self.link.fruitless = self.link.fruitless.saturating_add(1);
        self.link.hello = Some(Asked { nonce, at: self.now });
        self.link.again_at = Some(self.now.plus_millis(wait));
    }

    /// Says hello again soon, because something changed or is missing.
    pub(super) fn hello_within(&mut self, ms: u64) {
        let at = self.now.plus_millis(self.jitter.lengthened(ms));
        self.link.again_at = Some(self.link.again_at.map_or(at, |other| other.min(at)));
    }

    pub(super) fn publish(&mut self, channel: Channel, payload: Vec<u8>, at_least_once: bool) {
        self.outputs.push_back(Output::Publish(Publish { channel, payload, at_least_once }));
    }

    pub(super) fn message(&mut self, channel: Channel, payload: &[u8]) {
        self.link.heard(self.now);
        if payload.is_empty() {
            return self.reject(channel, Reason::Empty);
        }
        match channel {
            Channel::Answers => match Answer::decode(payload) {
                Ok(Answer::Chunk(chunk)) => self.chunks(&chunk, payload.len()),
                Ok(Answer::Page(page)) => self.page(&page, payload.len()),
                Ok(Answer::Refusal(refusal)) => self.refused(refusal),
                Ok(Answer::Signed(object)) => self.signed(Channel::Answers, object),
                Err(error) => self.unsolicited(channel, payload.len(), Reason::Malformed(error)),
            },
            Channel::Assignment | Channel::Group(_) | Channel::Beacon => self.signed(channel, payload),
            Channel::Requests | Channel::Reports => {
                self.unsolicited(channel, payload.len(), Reason::WrongChannel);
            }
        }
    }

    /// Counts what nobody asked for, and hangs up when it gets too much.
    pub(super) fn unsolicited(&mut self, channel: Channel, len: usize, reason: Reason) {
        self.reject(channel, reason);
        let before = self.link.unsolicited;
        self.link.unsolicited += len as u64;
        if self.link.unsolicited > UNSOLICITED_BYTES_MAX && before <= UNSOLICITED_BYTES_MAX {
            self.tell(Event::Flooded { bytes: self.link.unsolicited });
            self.outputs.push_back(Output::Disconnect);
        }
    }

    /// A verified answer to a hello.
    ///
    /// # Errors
    /// [`Reason::WrongNonce`] where no hello waits for it.
    pub(super) fn answered(&mut self, answer: HelloAnswer) -> Result<(), Reason> {
        let asked = match self.link.hello.take() {
            Some(asked) if asked.nonce == answer.nonce => asked,
            other => {
                self.link.hello = other;
                return Err(Reason::WrongNonce);
            }
        };
        self.meter.round_trip(self.now.millis_since(asked.at), 0);
        self.clock.raise(self.now, answer.time);
        self.link.answered = Some(answer.time);
        self.link.unanswered_ms = 0;
        self.link.unaccepted = false;
        self.tell(Event::Answered { time: answer.time });
        if answer.root > self.root.version {
            self.tell(Event::RootOutdated { held: self.root.version, current: answer.root });
        }
        if let Some(report) = answer.report {
            self.acknowledged(report);
        }
        self.link.current = Some(answer);
        self.link.again_at = Some(self.now.plus_millis(DOCUMENTS_MS));
        self.compare();
        Ok(())
    }

    /// Compares what is held with what the answer said is current.
    pub(super) fn compare(&mut self) {
        let Some(current) = &self.link.current else {
            return;
        };
        let assignment = self.record.version_of(&super::Scope::Assignment) >= current.assignment;
        let groups = current
            .groups
            .iter()
            .all(|known| self.record.version_of(&super::Scope::Group(known.group.clone())) >= known.version);
        if assignment && groups {
            self.link.in_step = true;
            self.link.fruitless = 0;
            self.link.again_at = None;
            if self.oldest_report().is_some() {
                self.publish_oldest_report();
                self.hello_within(HELLO_RETRY_MS);
            }
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        self.tell(Event::Refused { code: refusal.code, retry_after_s: refusal.retry_after_s });
        let wait_ms = refusal.retry_after_s.map(|seconds| u64::from(seconds) * 1000);
        match refusal.code {
            RefusalCode::Unknown | RefusalCode::Pending => {
                self.link.unaccepted = true;
                if refusal.code == RefusalCode::Unknown && !self.link.enrolled {
                    self.link.enrolled = true;
                    self.enrol();
                    self.hello_within(ENROLLED_MS);
                } else if let Some(wait_ms) = wait_ms {
                    self.link.again_at = Some(self.now.plus_millis(self.jitter.lengthened(wait_ms)));
                }
            }
            RefusalCode::Busy
            | RefusalCode::OverQuota
            | RefusalCode::NotYours
            | RefusalCode::NotFound
            | RefusalCode::Version
            | RefusalCode::Malformed => {
                if self.concerns_work(refusal) {
                    self.work_refused(refusal.code, wait_ms);
                }
            }
        }
    }

    /// What time alone brings about on the connection.
    pub(super) fn link_timers(&mut self) {
        if self.link.is_up() && self.link.again_at.is_some_and(|at| at <= self.now) {
            self.link.in_step = false;
            self.publish_oldest_report();
            self.hello();
        }
    }

    /// Subscribes to the retained topics as soon as nothing else is to be done: what they carry now, the
    /// hello answer has brought already; what they carry later, they bring at once.
    pub(super) fn tend_link(&mut self) {
        let settled = self.link.is_in_step() && !self.is_fetching();
        if !self.link.is_up() || !(settled || self.link.unaccepted) {
            return;
        }
        let mut wanted = alloc::vec![Channel::Assignment];
        if settled {
            wanted.push(Channel::Beacon);
            wanted.extend(self.groups().iter().cloned().map(Channel::Group));
        }
        wanted.retain(|channel| !self.link.subscribed.contains(channel));
        if !wanted.is_empty() {
            self.link.subscribed.extend(wanted.iter().cloned());
            self.outputs.push_back(Output::Subscribe(wanted));
        }
    }

    /// Nothing came for too long: what is missing is asked for again, and after a few times the connection
    /// is taken for dead.
    pub(super) fn silent(&mut self, chunks: u32) {
        self.tell(Event::Silent { chunks });
        self.meter.idle();
        self.link.heard = self.now;
        self.link.silences += 1;
        if self.link.silences >= SILENCES_MAX {
            self.link.silences = 0;
            self.outputs.push_back(Output::Disconnect);
        }
    }

    /// What was asked for arrived.
    pub(super) fn not_silent(&mut self) {
        self.link.silences = 0;
    }

    pub(super) fn last_heard(&self) -> Instant {
        self.link.heard
    }

    pub(super) fn link_timeout(&self) -> Option<Instant> {
        self.link.again_at.filter(|_| self.link.is_up())
    }
}
