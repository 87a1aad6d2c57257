//! Hello: a device says what it has, and the signed answer says what is current. This file decides when to say it,
//! compares the answer with what is held, and counts how long no answer came.
//!
//! Refusals are not signed. They make the device wait longer and never shorter, whatever they say and however many
//! come.

use core::num::NonZeroU32;

use alloc::vec::Vec;

use super::config::Running;
use super::context::Context;
use super::ending::oldest_report;
use super::event::{Event, Reason};
use super::record::{Record, Scope};
use crate::ids::{Echo, GroupName};
use crate::message::{GroupVersion, Hello, HelloAnswer};
use crate::time::Instant;
use crate::version::PROTOCOL_VERSION;

/// The hellos of a connection, with counts that outlive it.
#[derive(Debug, Default)]
pub(super) struct Hellos {
    /// The hello that waits for its answer.
    asked: Option<Asked>,
    /// When the last hello of this connection was said.
    asked_at: Instant,
    /// When to say hello again.
    again_at: Option<Instant>,
    /// Hellos since everything was last here that the service has for the device, over all connections. Each doubles
    /// the wait before the next.
    fruitless: u8,
    /// What the last answer of this connection said is current.
    current: Option<Current>,
    /// Everything that the last answer named has arrived.
    in_step: bool,
    /// Milliseconds connected without an answer, before this connection.
    unanswered_ms: u64,
    /// Hellos in a row that nobody answered or refused, over all connections.
    unheard: u8,
    /// The second, counted from 1, in which the first hello was said since the last answer or refusal.
    unheard_since_s: Option<NonZeroU32>,
    /// Hellos in a row that asked whether a report has arrived. Each doubles the wait before the next.
    reminders: u8,
    /// The second, counted from 1, in which to ask for news, because topics that bring it are not subscribed to in
    /// this connection.
    news_at_s: Option<NonZeroU32>,
    /// Hellos of this connection that asked for news. Each doubles the wait before the next.
    news_asked: u8,
}

#[derive(Debug)]
struct Current {
    /// The version of the assignment.
    assignment: u64,
    groups: Vec<GroupVersion>,
}

#[derive(Debug)]
struct Asked {
    /// What its answer repeats.
    echo: Echo,
    /// The service refused it, which is no signed answer, but shows that messages travel.
    refused: bool,
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
/// A refusal that asks for less than this is taken to ask for it.
pub(super) const REFUSED_MS_MIN: u64 = 1_000;
/// How soon to ask whether a report that was sent again has arrived, doubled each time up to the cap.
const REPORTED_MS: u64 = 10_000;
const REPORTED_CAP_MS: u64 = 3_600_000;
/// How soon to ask for news if topics that bring it are missing, doubled each time up to the cap.
const NEWS_MS: u64 = 600_000;
const NEWS_CAP_MS: u64 = 3_600_000;
/// So many hellos without an answer or a refusal are told.
const UNHEARD_MAX: u8 = 2;

impl Hellos {
    /// Another connection begins, or none is left. Hellos without success still count, so that a link that breaks
    /// again and again does not make the device say hello more often.
    pub(super) fn renew(&mut self, now: Instant, unanswered_ms: u64) {
        self.count_unheard(now);
        let Self { fruitless, unheard, unheard_since_s, reminders, .. } = *self;
        *self = Self { fruitless, unanswered_ms, unheard, unheard_since_s, reminders, ..Self::default() };
    }

    /// Counts the last hello if it has waited for long enough to say so.
    fn count_unheard(&mut self, now: Instant) {
        if self
            .asked
            .as_ref()
            .is_some_and(|asked| !asked.refused && now.millis_since(self.asked_at) >= RETRY_MS)
        {
            self.unheard = self.unheard.saturating_add(1);
        }
    }

    /// For how many milliseconds nobody has answered, if that is to be told.
    pub(super) fn unheard_ms(&self, now: Instant) -> Option<u64> {
        let since_s = self.unheard_since_s.filter(|_| self.unheard >= UNHEARD_MAX)?;
        Some(now.as_millis().saturating_sub(u64::from(since_s.get() - 1) * 1000))
    }

    /// Whether a hello waits for its answer.
    pub(super) const fn is_waiting(&self) -> bool {
        self.asked.is_some()
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

    /// When to say hello again. News is asked for only where no other hello is to be said.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at.or(self.news_at())
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
            class: cx.config.class.tag(),
            running: device.running.image.map(|image| image.short()).unwrap_or_default(),
            sequence: device.running.sequence,
            root: device.root,
            assignment: cx.record().version_of(&Scope::Assignment),
            groups: device.groups.iter().map(version_of).collect(),
            nonce,
            report: oldest_report(cx.record()),
        };
        cx.request(hello.encode());
        self.count_unheard(cx.now);
        self.unheard_since_s = self.unheard_since_s.or(second_of(cx.now));
        if self.unheard >= UNHEARD_MAX {
            cx.tell(Event::Unanswered { hellos: self.unheard.into() });
        }
        let range = (RETRY_MS << self.fruitless.min(10)).min(RETRY_CAP_MS);
        let wait = range.max(3 * rtt_p95_ms) + cx.jitter.below(range / 2);
        self.fruitless = self.fruitless.saturating_add(1);
        self.asked = Some(Asked { echo: nonce.echo(&cx.config.device), refused: false });
        self.asked_at = cx.now;
        self.again_at = Some(cx.now.plus_millis(wait));
        if self.news_at().is_some_and(|at| at <= cx.now) {
            self.news_asked = self.news_asked.saturating_add(1);
            self.plan_news(cx);
        }
    }

    /// Topics that bring news are not subscribed to. Says hello from time to time for as long as the connection holds,
    /// whatever the answers are.
    pub(super) fn ask_for_news(&mut self, cx: &mut Context) {
        if self.news_at_s.is_none() {
            self.plan_news(cx);
        }
    }

    fn plan_news(&mut self, cx: &mut Context) {
        let at = cx.after_about((NEWS_MS << self.news_asked.min(8)).min(NEWS_CAP_MS));
        self.news_at_s = second_of(at);
    }

    fn news_at(&self) -> Option<Instant> {
        self.news_at_s.map(|second| Instant::from_millis(u64::from(second.get()) * 1000))
    }

    /// Says hello again soon, because something changed or is missing.
    pub(super) fn again_within(&mut self, cx: &mut Context, ms: u64) {
        let at = cx.after_about(ms);
        self.again_at = Some(self.again_at.map_or(at, |other| other.min(at)));
    }

    /// Says hello again soon to ask whether a report has arrived: each time in a row less soon.
    pub(super) fn ask_for_report(&mut self, cx: &mut Context) {
        let ms = (REPORTED_MS << self.reminders.min(10)).min(REPORTED_CAP_MS);
        self.reminders = self.reminders.saturating_add(1);
        self.again_within(cx, ms);
    }

    /// The service has a report: the next one is asked for as soon as the first.
    pub(super) const fn report_arrived(&mut self) {
        self.reminders = 0;
    }

    /// A hello was refused. Says it again after `ms` and not before, but never sooner than without the refusal.
    pub(super) fn refused(&mut self, cx: &mut Context, ms: Option<u64>) {
        (self.unheard, self.unheard_since_s) = (0, None);
        if let Some(asked) = &mut self.asked {
            asked.refused = true;
        }
        if let Some(ms) = ms {
            let own = self.again_at.unwrap_or(cx.now.plus_millis(RETRY_MS));
            self.again_at = Some(own.max(cx.after_about(ms.max(REFUSED_MS_MIN))));
        }
    }

    /// Something else was refused, and the answer to a hello may say why: says one after `ms`, but not sooner than
    /// without an answer, and only if none is to be said anyway.
    pub(super) fn ask_why(&mut self, cx: &mut Context, ms: u64) {
        if self.again_at.is_none() {
            self.again_at = Some(cx.after_about(ms.max(RETRY_MS)));
        }
    }

    /// A verified answer to a hello came. Returns when that hello was said.
    ///
    /// # Errors
    /// [`Reason::WrongNonce`] if no hello waits for it.
    pub(super) fn take_answer(
        &mut self,
        cx: &mut Context,
        answer: HelloAnswer,
        root: u64,
    ) -> Result<Instant, Reason> {
        if self.asked.take_if(|asked| asked.echo == answer.echo).is_none() {
            return Err(Reason::WrongNonce);
        }
        cx.set_clock(answer.time);
        cx.tell(Event::Answered { time: answer.time });
        if answer.root > root {
            cx.tell(Event::RootOutdated { held: root, current: answer.root });
        }
        self.unanswered_ms = 0;
        (self.unheard, self.unheard_since_s) = (0, None);
        self.current = Some(Current { assignment: answer.assignment, groups: answer.groups });
        self.again_at = Some(cx.now.plus_millis(DOCUMENTS_MS));
        Ok(self.asked_at)
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

/// The second in which `at` lies, counted from 1.
fn second_of(at: Instant) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(at.as_millis() / 1000 + 1).unwrap_or(u32::MAX))
}
