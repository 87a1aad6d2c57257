//! What people learn of what happens: log lines with fixed words, and counters. What a broker or whoever speaks through
//! it can bring about at will is a line a minute at most for each reason.

use alloc::collections::BTreeMap;

use tracing::{debug, error, info, warn};
use whimbrel_protocol::device::{Event, StoreFailure};
use whimbrel_protocol::message::RefusalCode;
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic::Channel;

use whimbrel_settings::daemon::limiter::{Limiter, Tally};

/// What happened, of which kind, and why. All three are words of ours, so that there are few.
pub(crate) type What = [&'static str; 3];

/// Counts since the daemon started. Names are stable and few: none comes from the network.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Messages that were not acted on, by reason.
    pub(crate) rejected: BTreeMap<&'static str, u64>,
    /// Everything else.
    pub(crate) other: BTreeMap<&'static str, u64>,
    /// Bytes of the message that is being handled.
    pub(crate) message_bytes: usize,
    limiter: Limiter<What>,
}

const REJECTED: &str = "message rejected";

impl Counters {
    pub(crate) fn count(&mut self, name: &'static str) {
        *self.other.entry(name).or_default() += 1;
    }

    pub(crate) fn reject(&mut self, name: &'static str) {
        *self.rejected.entry(name).or_default() += 1;
    }

    /// Whether to log this now. What others can bring about at will is logged once a minute, by [`Counters::log_due`].
    pub(crate) fn is_news(&mut self, now: Instant, what: What) -> bool {
        let bytes = self.message_bytes as u64;
        self.limiter.is_news(now.as_millis(), what, bytes)
    }

    /// When [`Counters::log_due`] has something to say.
    pub(crate) fn log_due_at(&self) -> Option<Instant> {
        self.limiter.next().map(Instant::from_millis)
    }

    /// Logs what has happened again and again, a line for each reason.
    pub(crate) fn log_due(&mut self, now: Instant) {
        for ([what, kind, reason], Tally { times, bytes, .. }) in self.limiter.due(now.as_millis()) {
            if what == REJECTED {
                warn!(
                    channel = kind,
                    reason,
                    messages = times,
                    bytes,
                    "more messages rejected within a minute"
                );
            } else {
                info!(what, kind, reason, times, "happened again within a minute");
            }
        }
    }

    /// Counts a message on a topic that is none of this device's.
    pub(crate) fn foreign(&mut self, now: Instant) {
        const REASON: &str = "foreign-topic";
        self.reject(REASON);
        if self.is_news(now, [REJECTED, "", REASON]) {
            warn!(bytes = self.message_bytes, reason = REASON, "message rejected");
        }
    }

    /// Logs and counts an event of the session.
    pub(crate) fn log(&mut self, now: Instant, event: &Event) {
        match event {
            Event::StateChanged { state, deferred, failure } => {
                let reason = deferred.map(|reason| reason.name()).or(failure.map(|code| code.name()));
                // A busy service makes a device wait and go on, again and again.
                if self.is_news(now, ["state changed", state.name(), reason.unwrap_or_default()]) {
                    info!(state = state.name(), reason, "state changed");
                }
            }
            Event::Rejected { channel, reason } => {
                self.reject(reason.name());
                if self.is_news(now, [REJECTED, channel_name(channel), reason.name()]) {
                    warn!(channel = channel_name(channel), reason = reason.name(), detail = ?reason, "message rejected");
                }
            }
            Event::Answered { time } => {
                self.count("answers");
                debug!(time = time.as_secs(), "service answered");
            }
            Event::Refused { code, retry_after_s } => {
                self.count("refusals");
                if self.is_news(now, ["service refused", "", code.name()]) {
                    match code {
                        RefusalCode::Pending => {
                            info!(retry_after_s, "waiting for acceptance by the service's operator");
                        }
                        _ => info!(reason = code.name(), retry_after_s, "service refused"),
                    }
                }
            }
            Event::DocumentTaken { channel, version } => {
                info!(channel = channel_name(channel), version, "document taken");
            }
            Event::Ended { campaign, attempt, outcome, failure } => {
                let reason = failure.map(|code| code.name());
                info!(%campaign, attempt, outcome = outcome.name(), reason, "deployment ended");
            }
            // What to do about it, the agent logs, which knows the device's names.
            Event::OtherKey { .. } => self.count("other-key"),
            Event::ReportAcknowledged { report } => info!(%report, "report acknowledged"),
            Event::Silent { chunks } => {
                self.count("silences");
                if self.is_news(now, ["nothing came for too long", "", ""]) {
                    warn!(chunks, "nothing came for too long");
                }
            }
            // Where it asked and where it listens, the agent logs, which knows the topics.
            Event::Unanswered { .. } => self.count("unanswered"),
            Event::MessagesLost { above_bytes } => {
                self.count("messages-lost");
                warn!("{}", messages_lost(*above_bytes));
            }
            Event::MessageLimit { bytes } => info!(bytes, "larger messages are tried"),
            Event::PatchFailed { payload, why } => {
                self.count("patch-failures");
                warn!(%payload, reason = why.name(), detail = ?why, "patch not used");
            }
            Event::StoreFailed(StoreFailure::NoRoom) => {
                self.count("no-room");
                error!("no room on the medium: the update goes on when there is");
            }
            Event::StoreFailed(StoreFailure::Failed) => {
                self.count("store-failures");
                error!("the medium failed: the update goes on when it works");
            }
            Event::Flooded { bytes } => {
                self.count("floods");
                warn!(bytes, "too much arrived that was not asked for");
            }
            Event::Stale => {
                self.count("stale");
                warn!("no signed news for longer than it lives: somebody may be holding it back");
            }
            Event::RootOutdated { held, current } => {
                self.count("root-outdated");
                error!(held, current, "the service has a newer root than this device");
            }
        }
    }
}

/// What is said if large messages do not arrive, in `status` and in the log.
pub(crate) fn messages_lost(above_bytes: u32) -> String {
    format!("messages above {above_bytes} bytes do not arrive: the broker's limit?")
}

/// A channel in one word; groups by their kind only, since their names come from outside.
pub(crate) const fn channel_name(channel: &Channel) -> &'static str {
    match channel {
        Channel::Requests => "requests",
        Channel::Answers => "answers",
        Channel::Reports => "reports",
        Channel::Assignment => "assignment",
        Channel::Group(_) => "group",
        Channel::Beacon => "beacon",
    }
}
