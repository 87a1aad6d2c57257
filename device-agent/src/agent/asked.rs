//! What people ask a running agent.

use tokio::sync::oneshot;
use whimbrel_engine::Input;
use whimbrel_protocol::device::Event;
use whimbrel_protocol::time::Instant;

use super::{Agent, Exit};
use crate::control::{self, Asked, Reply, Request};
use crate::events::channel_name;
use crate::status::{LinkView, StatusView, WAITS_FOR_ACCEPTANCE};

/// Somebody waits for the service's answer.
#[derive(Debug)]
pub(super) struct Check {
    reply: oneshot::Sender<Reply>,
    until: Instant,
    answered: bool,
    news: Vec<String>,
}

/// How long the service may take to answer.
const ANSWER_MS: u64 = 30_000;
/// How long what the answer announced may take.
const NEWS_MS: u64 = 3_000;
/// People who may wait at once, and lines of news for each.
const CHECKS_MAX: usize = 8;
const NEWS_MAX: usize = 32;

impl Check {
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

impl Agent<'_> {
    /// Answers what can be answered at once. What changes the medium ends the session first.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { request, reply } = asked;
        let answer = match request {
            Request::Status => Reply::status(self.status()),
            Request::Check => return self.begin_check(reply),
            Request::Commit | Request::Rollback | Request::Install { .. } => {
                // Hashing and writing an image can't be interrupted without losing it.
                if self.controller.pending().installs == 0 {
                    return self.leave_with(Exit::Command(Asked { request, reply }));
                }
                Reply::error(&"an image is being written or checked: try again when that is done")
            }
        };
        // Somebody who does not wait for the answer gets none.
        drop(reply.send(answer));
    }

    /// What waits for the medium or for hooks is tried at once, also without a connection.
    fn begin_check(&mut self, reply: oneshot::Sender<Reply>) {
        self.around.hook_watch.look(self.around.clock.now());
        if self.checks.len() >= CHECKS_MAX {
            return drop(reply.send(Reply::error(&"too many wait for an answer already")));
        }
        if self.uplink.is_some() {
            let until = self.around.clock.now().plus_millis(ANSWER_MS);
            self.checks.push(Check { reply, until, answered: false, news: Vec::new() });
            return self.feed(Input::Check);
        }
        self.feed(Input::Check);
        let refusal = match &self.link_error {
            Some(error) => format!("not connected to the broker: {error}"),
            None => "not connected to the broker yet".to_owned(),
        };
        drop(reply.send(Reply::error(&refusal)));
    }

    /// Adds what happens to the news of those who wait.
    pub(super) fn add_news(&mut self, event: &Event) {
        let now = self.around.clock.now();
        let line = match event {
            Event::Answered { .. } => {
                for check in self.checks.iter_mut().filter(|check| !check.answered) {
                    check.answered = true;
                    check.until = now.plus_millis(NEWS_MS);
                }
                return;
            }
            Event::DocumentTaken { channel, version } => {
                format!("new {}, version {version}", channel_name(channel))
            }
            Event::StateChanged { state, deferred, .. } => {
                let reason = deferred.map_or_else(String::new, |reason| format!(": {}", reason.name()));
                format!("{}{reason}", state.name())
            }
            Event::RootOutdated { current, .. } => format!("the service has root version {current}"),
            _ => return,
        };
        for check in &mut self.checks {
            if check.news.len() < NEWS_MAX {
                check.news.push(line.clone());
            }
        }
    }

    /// Answers those who have waited long enough.
    pub(super) fn end_checks(&mut self) {
        let now = self.around.clock.now();
        let (ended, waiting) =
            core::mem::take(&mut self.checks).into_iter().partition(|check| check.until <= now);
        self.checks = waiting;
        let ended: Vec<Check> = ended;
        for Check { reply, answered, news, .. } in ended {
            let answer = match (answered, news.is_empty()) {
                (false, _) => {
                    let seconds = ANSWER_MS / 1000;
                    Reply::error(&format!("the service did not answer within {seconds} s"))
                }
                (true, true) => Reply::new(control::Exit::Done, "nothing new"),
                (true, false) => Reply::new(control::Exit::Done, news.join("\n")),
            };
            drop(reply.send(answer));
        }
    }

    /// Fills in what changes while a session runs.
    pub(super) fn describe(&self, view: &mut StatusView) {
        let session = self.controller.session();
        session.state().name().clone_into(&mut view.state);
        if let Some(status) = session.status() {
            view.take(&status);
            let chunks = self.payload.and_then(|payload| payload.chunks);
            view.advance(status.state, chunks, session.rate());
        }
        let now = self.around.clock.now();
        view.wait_for(session.deferred_until().map(|until| until.millis_since(now)));
        let deployment = session.record().deployment.as_ref();
        if self.awaits_acceptance && deployment.is_none() {
            WAITS_FOR_ACCEPTANCE.clone_into(&mut view.state);
            view.reason = None;
        }
        view.release = deployment.map(|deployment| deployment.order.release.to_hex());
        view.rate_bytes_per_s = session.rate();
        let window = self.around.config.download.window_bytes_max;
        view.command_latency_ms = session.rate().map(|rate| window * 1000 / rate.max(1));
        view.link = Some(LinkView {
            up: self.uplink.is_some(),
            for_s: now.millis_since(self.link_since) / 1000,
            last_error: self.link_error.clone(),
            no_answer_s: session.unanswered_ms(now).map(|ms| ms / 1000),
            messages_above: session.message_limit().filter(|limit| limit.lost).map(|limit| limit.bytes.get()),
            left_out: self.left_out.clone(),
            same_id: self.same_id_in_words(),
        });
        view.reports_waiting = session.record().reports.len();
        let owned = |(name, count): (&&str, &u64)| ((*name).to_owned(), *count);
        view.rejected = self.around.counters.rejected.iter().map(owned).collect();
        view.counters = self.around.counters.other.iter().map(owned).collect();
    }
}
