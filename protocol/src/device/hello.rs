//! Hello: a device says what it has, and the signed answer says what is current. This file decides when to say it,
//! compares the answer with what is held, and counts how long no answer came.

use alloc::vec::Vec;

use super::config::Running;
use super::context::Context;
use super::ending::oldest_report;
use super::event::{Event, Reason};
use super::record::{Record, Scope};
use crate::ids::{GroupName, Nonce};
use crate::message::{GroupVersion, Hello, HelloAnswer};
use crate::time::Instant;
use crate::version::PROTOCOL_VERSION;

/// The hellos of a connection, with two counts that outlive it.
#[derive(Debug, Default)]
pub(super) struct Hellos {
    /// The hello that waits for its answer.
    asked: Option<Asked>,
    /// When to say hello again.
    again_at: Option<Instant>,
    /// Hellos since everything was last here that the service has for the device, over all connections. Each doubles
    /// the wait before the next.
    fruitless: u32,
    /// What the last answer of this connection said is current.
    current: Option<Current>,
    /// Everything that the last answer named has arrived.
    in_step: bool,
    /// Milliseconds connected without an answer, before this connection.
    unanswered_ms: u64,
}

#[derive(Debug)]
struct Current {
    /// The version of the assignment.
    assignment: u64,
    groups: Vec<GroupVersion>,
}

#[derive(Debug)]
struct Asked {
    nonce: Nonce,
    at: Instant,
}

/// What a hello says of the device besides what the record has.
#[derive(Debug)]
pub(super) struct Introduction<'a> {
    pub(super) running: Running,
    /// The version of the root.
    pub(super) root: u64,
    pub(super) groups: &'a [GroupName],
}

/// Hello again after this long without an answer, doubled each time up to the cap.
const RETRY_MS: u64 = 10_000;
const RETRY_CAP_MS: u64 = 600_000;
/// How long documents that an answer announced may take.
const DOCUMENTS_MS: u64 = 30_000;
impl Hellos {
    /// Another connection begins, or none is left. Hellos without success still count, so that a link that breaks
    /// again and again does not make the device say hello more often.
    pub(super) fn renew(&mut self, unanswered_ms: u64) {
        *self = Self { fruitless: self.fruitless, unanswered_ms, ..Self::default() };
    }

    /// Whether the service answered in this connection.
    pub(super) const fn is_answered(&self) -> bool {
        self.current.is_some()
    }

    /// Milliseconds connected without an answer, before this connection.
    pub(super) const fn unanswered_ms(&self) -> u64 {
        self.unanswered_ms
    }

    /// Whether everything is here that the service has for the device.
    pub(super) const fn is_in_step(&self) -> bool {
        self.in_step
    }

    pub(super) const fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// The last answer is too old to rely on.
    pub(super) const fn fall_behind(&mut self) {
        self.in_step = false;
    }

    /// Says hello, whatever was said before.
    pub(super) fn send(&mut self, cx: &mut Context, device: &Introduction<'_>, rtt_p95_ms: u64) {
        let nonce = cx.nonce();
        let version_of = |group: &GroupName| GroupVersion {
            group: group.clone(),
            version: cx.record().version_of(&Scope::Group(group.clone())),
        };
        let hello = Hello {
            version_max: u64::from(PROTOCOL_VERSION),
            message_max: cx.config.message_bytes_max as u64,
            memory_max_kib: cx.config.memory_max_kib,
            codecs: cx.config.codecs.bits(),
            class: cx.config.class,
            running: device.running.image.map(|image| image.short()).unwrap_or_default(),
            sequence: device.running.sequence,
            root: device.root,
            assignment: cx.record().version_of(&Scope::Assignment),
            groups: device.groups.iter().map(version_of).collect(),
            nonce,
            report: oldest_report(cx.record()),
        };
        cx.request(hello.encode());
        let range = (RETRY_MS << self.fruitless.min(10)).min(RETRY_CAP_MS);
        let wait = range.max(3 * rtt_p95_ms) + cx.jitter.below(range / 2);
        self.fruitless = self.fruitless.saturating_add(1);
        self.asked = Some(Asked { nonce, at: cx.now });
        self.again_at = Some(cx.now.plus_millis(wait));
    }

    /// Says hello again soon, because something changed or is missing.
    pub(super) fn again_within(&mut self, cx: &mut Context, ms: u64) {
        let at = cx.after_about(ms);
        self.again_at = Some(self.again_at.map_or(at, |other| other.min(at)));
    }

    /// Says hello again after this long and not before, because the service asked for that.
    pub(super) fn again_after(&mut self, cx: &mut Context, ms: u64) {
        self.again_at = Some(cx.after_about(ms));
    }

    /// A verified answer to a hello came. Returns the milliseconds that it took.
    ///
    /// # Errors
    /// [`Reason::WrongNonce`] if no hello waits for it.
    pub(super) fn take_answer(
        &mut self,
        cx: &mut Context,
        answer: HelloAnswer,
        root: u64,
    ) -> Result<u64, Reason> {
        let asked = match self.asked.take() {
            Some(asked) if asked.nonce == answer.nonce => asked,
            other => {
                self.asked = other;
                return Err(Reason::WrongNonce);
            }
        };
        cx.set_clock(answer.time);
        cx.tell(Event::Answered { time: answer.time });
        if answer.root > root {
            cx.tell(Event::RootOutdated { held: root, current: answer.root });
        }
        self.unanswered_ms = 0;
        self.current = Some(Current { assignment: answer.assignment, groups: answer.groups });
        self.again_at = Some(cx.now.plus_millis(DOCUMENTS_MS));
        Ok(cx.now.millis_since(asked.at))
    }

    /// Compares what is held with what the answer said is current. `true` if nothing is missing.
    pub(super) fn compare(&mut self, record: &Record) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let assignment = record.version_of(&Scope::Assignment) >= current.assignment;
        let groups = current
            .groups
            .iter()
            .all(|known| record.version_of(&Scope::Group(known.group.clone())) >= known.version);
        let all = assignment && groups;
        if all {
            self.in_step = true;
            self.fruitless = 0;
            self.again_at = None;
        }
        all
    }
}
