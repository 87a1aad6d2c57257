//! What operators are told of the connection to the broker, and what is learned from how connections end.
//!
//! No I/O and no clock: times are milliseconds since the link was started. What comes out is a [`Notice`], which the
//! task writes as a log line.

use alloc::collections::BTreeMap;

use whimbrel_settings::daemon::limiter::Limiter;

use super::config::Retain;

/// How a connection, or an attempt to make one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// What happened, in a word of ours.
    pub(super) kind: &'static str,
    /// The broker closed the connection.
    pub(super) by_broker: bool,
    /// It did so right after the first message with the retain flag, of which it acknowledged none.
    pub(super) at_retain: bool,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Connected, after nothing or after a [`Notice::Lost`].
    Connected,
    /// The connection was lost, or could not be made.
    Lost {
        /// Why, in words for a person.
        reason: String,
    },
    /// The same has happened again and again since it was said.
    LostAgain {
        /// Why it happened last.
        reason: String,
        /// How often within a minute.
        times: u64,
        /// Whether there is a connection now.
        connected: bool,
    },
    /// The broker ends the connection at messages that it should keep; from now on it is not asked to keep any.
    RetainLeftOut,
    /// Connected for so long, and no device has ever been heard.
    NobodyHeard {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
}

/// Follows the connections of a link.
#[derive(Debug)]
pub(super) struct Watch {
    client_id: String,
    mode: Retain,
    limiter: Limiter<&'static str>,
    /// The last reason of each kind.
    reasons: BTreeMap<&'static str, String>,
    up_since_ms: Option<u64>,
    /// The log says that there is no connection.
    said_lost: bool,
    said_nobody_ms: Option<u64>,
    /// Connections in a row that the broker ended within [`SHORT_MS`].
    short: u32,
    /// Connections in a row that ended at the retain flag.
    at_retain: u32,
    left_out: bool,
}

impl Watch {
    pub(super) fn new(client_id: &str, mode: Retain) -> Self {
        Self {
            client_id: client_id.to_owned(),
            mode,
            limiter: Limiter::default(),
            reasons: BTreeMap::new(),
            up_since_ms: None,
            said_lost: true,
            said_nobody_ms: None,
            short: 0,
            at_retain: 0,
            left_out: false,
        }
    }

    /// Whether the broker is asked to keep messages.
    pub(super) fn retains(&self) -> bool {
        match self.mode {
            Retain::On => true,
            Retain::Off => false,
            Retain::Auto => !self.left_out,
        }
    }

    /// A connection is logged in and subscribed.
    pub(super) fn connected(&mut self, now_ms: u64) -> Option<Notice> {
        self.up_since_ms = Some(now_ms);
        self.said_nobody_ms = None;
        core::mem::take(&mut self.said_lost).then_some(Notice::Connected)
    }

    /// A connection or an attempt has ended. Returns why in words, and what to log now.
    pub(super) fn ended(&mut self, now_ms: u64, end: End, reason: String) -> (String, Vec<Notice>) {
        let lasted_ms = self.up_since_ms.take().map(|since| now_ms.saturating_sub(since));
        let mut notices = Vec::new();
        // An attempt that failed says nothing of connections.
        if let Some(lasted_ms) = lasted_ms {
            let short = end.by_broker && lasted_ms < SHORT_MS;
            self.short = if short { self.short.saturating_add(1) } else { 0 };
            self.at_retain = if end.at_retain { self.at_retain.saturating_add(1) } else { 0 };
        }
        let mut reason = reason;
        if self.retains() && self.at_retain >= AT_RETAIN {
            reason.push_str(" at the first message that it was to keep (retain flag)");
            if self.mode == Retain::Auto {
                self.left_out = true;
                self.short = 0;
                notices.push(Notice::RetainLeftOut);
            }
        } else if self.short >= SHORT_IN_A_ROW {
            reason.push_str(&format!(
                ", for the {}th time in a row within a minute: is another client called {}, or does the broker refuse \
                 one of our topics?",
                self.short, self.client_id
            ));
        }
        self.reasons.insert(end.kind, reason.clone());
        if self.limiter.is_news(now_ms, end.kind, 0) {
            self.said_lost = true;
            notices.insert(0, Notice::Lost { reason: reason.clone() });
        }
        (reason, notices)
    }

    /// What is to be logged by now. `heard`: whether any message of a device has ever come.
    pub(super) fn due(&mut self, now_ms: u64, heard: bool) -> Vec<Notice> {
        let connected = self.up_since_ms.is_some();
        let mut notices = Vec::new();
        for (kind, tally) in self.limiter.due(now_ms) {
            let reason = self.reasons.get(kind).cloned().unwrap_or_default();
            self.said_lost = !connected;
            notices.push(Notice::LostAgain { reason, times: tally.times, connected });
        }
        if let Some(since_ms) = self.up_since_ms
            && !heard
        {
            let at_ms = match self.said_nobody_ms {
                None => since_ms.saturating_add(NOBODY_MS),
                Some(said_ms) => said_ms.saturating_add(NOBODY_AGAIN_MS),
            };
            if at_ms <= now_ms {
                self.said_nobody_ms = Some(now_ms);
                notices.push(Notice::NobodyHeard { for_ms: now_ms.saturating_sub(since_ms) });
            }
        }
        notices
    }
}

/// A connection that lasted less than this, in milliseconds, is short.
const SHORT_MS: u64 = 60_000;
/// So many short connections in a row are no accident.
const SHORT_IN_A_ROW: u32 = 3;
/// So many connections in a row that end at the retain flag are no accident.
const AT_RETAIN: u32 = 2;
/// Nobody was heard for this long, in milliseconds: it is said, and then once an hour.
const NOBODY_MS: u64 = 120_000;
const NOBODY_AGAIN_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: End = End { kind: "closed", by_broker: true, at_retain: false };
    const CUT: End = End { at_retain: true, ..CLOSED };
    const REFUSED: End = End { kind: "connection", by_broker: false, at_retain: false };

    fn watch(mode: Retain) -> Watch {
        Watch::new("whimbreld", mode)
    }

    /// Connects, and is closed after `lasted_ms`.
    fn once(watch: &mut Watch, now_ms: &mut u64, lasted_ms: u64, end: End) -> (String, Vec<Notice>) {
        let mut notices: Vec<Notice> = watch.connected(*now_ms).into_iter().collect();
        *now_ms += lasted_ms;
        let (reason, more) = watch.ended(*now_ms, end, "the broker closed the connection".to_owned());
        notices.extend(more);
        (reason, notices)
    }

    #[test]
    fn a_connection_that_is_lost_a_thousand_times_is_one_line_a_minute_with_a_count() {
        let (mut watch, mut now_ms, mut lines) = (watch(Retain::On), 0, Vec::new());
        for _ in 0..1_000 {
            lines.extend(once(&mut watch, &mut now_ms, 50, CLOSED).1);
            now_ms += 250;
            lines.extend(watch.due(now_ms, true));
        }
        // 300 s: connected, lost, connected, and then a line for each minute.
        let again: Vec<u64> = lines
            .iter()
            .filter_map(|notice| match notice {
                Notice::LostAgain { times, .. } => Some(*times),
                _ => None,
            })
            .collect();
        assert_eq!(again.len(), 5 - 1, "{lines:?}");
        assert!(again.iter().all(|times| (199..=201).contains(times)), "{again:?}");
        assert!(lines.len() <= again.len() * 2 + 3, "{lines:?}");
        assert!(
            matches!(lines[..3], [Notice::Connected, Notice::Lost { .. }, Notice::Connected]),
            "{lines:?}"
        );
    }

    #[test]
    fn who_reads_the_last_line_knows_whether_there_is_a_connection() {
        let mut watch = watch(Retain::On);
        assert_eq!(watch.connected(0), Some(Notice::Connected));
        let (_, notices) = watch.ended(100_000, CLOSED, "x".to_owned());
        assert_eq!(notices, [Notice::Lost { reason: "x".to_owned() }]);
        assert_eq!(watch.connected(101_000), Some(Notice::Connected));
        assert_eq!(watch.ended(102_000, CLOSED, "y".to_owned()).1, []);
        let line = watch.due(160_000, true);
        assert_eq!(line, [Notice::LostAgain { reason: "y".to_owned(), times: 1, connected: false }]);
        assert_eq!(watch.connected(161_000), Some(Notice::Connected));
    }

    #[test]
    fn short_connections_over_and_over_ask_whether_another_client_has_our_name() {
        let (mut watch, mut now_ms) = (watch(Retain::Auto), 0);
        for number in 1..=4 {
            let (reason, _) = once(&mut watch, &mut now_ms, 3_000, CLOSED);
            let asked = reason.contains("is another client called whimbreld, or");
            assert_eq!(asked, number >= 3, "{number}: {reason}");
            // A broker that is away between them is no answer.
            now_ms += 1_000;
            watch.ended(now_ms, REFUSED, "refused".to_owned());
            now_ms += 1_000;
        }
        let (reason, _) = once(&mut watch, &mut now_ms, 100_000, CLOSED);
        assert_eq!(reason, "the broker closed the connection");
    }

    #[test]
    fn a_broker_that_cuts_the_link_at_the_retain_flag_twice_is_not_asked_to_keep_anything_more() {
        let (mut watch, mut now_ms) = (watch(Retain::Auto), 0);
        once(&mut watch, &mut now_ms, 5, CUT);
        assert!(watch.retains(), "once is an accident");
        once(&mut watch, &mut now_ms, 100_000, CLOSED);
        once(&mut watch, &mut now_ms, 5, CUT);
        assert!(watch.retains(), "they were not in a row");
        let (reason, notices) = once(&mut watch, &mut now_ms, 5, CUT);
        assert!(!watch.retains() && notices.contains(&Notice::RetainLeftOut), "{notices:?}");
        assert!(reason.ends_with("at the first message that it was to keep (retain flag)"), "{reason}");
        assert!(!once(&mut watch, &mut now_ms, 5, CLOSED).1.contains(&Notice::RetainLeftOut));
        assert!(!watch.retains(), "for as long as the service runs");
    }

    #[test]
    fn whoever_sets_it_decides_about_the_retain_flag() {
        for (mode, retains) in [(Retain::On, true), (Retain::Off, false)] {
            let (mut watch, mut now_ms) = (watch(mode), 0);
            for _ in 0..5 {
                assert!(!once(&mut watch, &mut now_ms, 5, CUT).1.contains(&Notice::RetainLeftOut));
                assert_eq!(watch.retains(), retains);
            }
        }
    }

    #[test]
    fn a_link_that_has_been_up_for_minutes_and_heard_nobody_says_so_and_then_once_an_hour() {
        let mut watch = watch(Retain::On);
        assert_eq!(watch.due(1_000_000, false), [], "it is not connected");
        watch.connected(1_000_000);
        assert_eq!(watch.due(1_119_999, false), []);
        assert_eq!(watch.due(1_120_000, true), [], "somebody was heard");
        assert_eq!(watch.due(1_120_000, false), [Notice::NobodyHeard { for_ms: 120_000 }]);
        assert_eq!(watch.due(4_719_999, false), []);
        assert_eq!(watch.due(4_720_000, false), [Notice::NobodyHeard { for_ms: 3_720_000 }]);
    }
}
