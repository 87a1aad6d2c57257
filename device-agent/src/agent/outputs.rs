//! What the device wants, carried out in the order in which it wants it.

use tracing::{debug, error, warn};
use whimbrel_engine::{Effect, Gate, Input, Output};
use whimbrel_protocol::device::{Event, Trial};
use whimbrel_protocol::ids::{Digest, OpId};
use whimbrel_protocol::message::{RefusalCode, State};
use whimbrel_protocol::topic::Channel;

use super::Agent;
use crate::hooks::{Answer, Edge, HookContext, Moment, Verdict};
use crate::identity;
use crate::mqtt::Filter;
use crate::status::Chunks;

/// What is known of the payload that is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    release: Digest,
    chunk_bytes: u64,
    /// What was known of its chunks last.
    pub(super) chunks: Option<Chunks>,
}

impl Agent<'_> {
    /// Takes everything that the device wants.
    pub(super) fn carry_out(&mut self) {
        let mut is_stuck = false;
        while let Some(effect) = self.controller.poll_effect() {
            match effect {
                Effect::Work(job) => self.jobs.push_back(job),
                // Nothing goes out after a message that did not: the connection ends.
                Effect::Host(Output::Subscribe(_) | Output::Publish(_)) if is_stuck => {}
                Effect::Host(Output::Subscribe(channels)) => is_stuck = self.subscribe(&channels),
                Effect::Host(Output::Publish(publish)) => {
                    let topic = self.topic(&publish.channel);
                    let sent = self
                        .uplink
                        .as_ref()
                        .map(|uplink| uplink.publish(topic, publish.payload, publish.at_least_once));
                    is_stuck = self.is_stuck(sent);
                }
                Effect::Host(Output::Disconnect) => self.hang_up(),
                Effect::Host(Output::Ask(op, gate)) => self.ask(op, gate),
                Effect::Host(Output::Reboot(op)) => self.begin_reboot(op),
                Effect::Host(Output::Event(event)) => self.handle_event(&event),
            }
        }
        self.hand_over();
        self.remember_progress();
        // Only now, because the device takes the next input when everything that it wanted is taken.
        if core::mem::take(&mut self.has_left_out) {
            self.feed(Input::NotSubscribed);
        }
    }

    fn subscribe(&mut self, channels: &[Channel]) -> bool {
        // What is retained must not be lost; answers are asked for again.
        let filter = |channel: &Channel| {
            let needed = *channel == Channel::Answers;
            Filter { topic: self.topic(channel), at_least_once: !needed, needed }
        };
        let filters = channels.iter().map(filter).collect();
        let sent = self.uplink.as_ref().map(|uplink| uplink.subscribe(filters));
        if let Some(Ok(left_out)) = &sent
            && !left_out.is_empty()
        {
            warn!(
                topics = left_out.join(", "),
                "not subscribed to: the broker closed the connection at each; news comes with the answers to hellos"
            );
            self.left_out.extend(left_out.iter().cloned());
            self.has_left_out = true;
        }
        self.is_stuck(sent)
    }

    /// Logs that nobody answers, with where the device asks and where it listens: one of the two is wrong, perhaps.
    fn warn_unanswered(&self, hellos: u32) {
        let [asks, listens] = [Channel::Requests, Channel::Answers].map(|channel| self.topic(&channel));
        warn!(hellos, "no answer: hellos go to {asks} and answers are awaited on {listens}");
    }

    /// Keeps what was found out about the broker for later sessions.
    fn keep_message_limit(&mut self) {
        let limit = self.controller.session().message_limit();
        let (today, address) = (self.around.clock.today(), self.around.config.broker.url.address());
        if let Err(error) = self.around.limits.set(&address, limit, today) {
            warn!(reason = %error, "what the broker carries cannot be kept: it is found out again after a restart");
        }
    }

    fn topic(&self, channel: &Channel) -> String {
        let config = &self.around.config;
        channel.topic(&config.broker.prefix, &config.device.id)
    }

    /// Whether the link takes nothing any more. It is given up then.
    fn is_stuck<T, E>(&self, sent: Option<Result<T, E>>) -> bool {
        let is_stuck = matches!(sent, Some(Err(_)));
        if is_stuck {
            warn!("the broker takes nothing any more");
            self.hang_up();
        }
        is_stuck
    }

    fn hang_up(&self) {
        if let Some(uplink) = &self.uplink {
            uplink.hang_up();
        }
    }

    /// Asks the hooks that have a say, each time.
    fn ask(&mut self, op: OpId, gate: Gate) {
        let state = match gate {
            Gate::Download { release, transfer } => {
                let chunk_bytes = transfer.layout.chunk_size();
                let known = self.payload.filter(|payload| payload.release == release);
                let chunks = known.and_then(|payload| payload.chunks);
                self.carried = Some(transfer);
                self.payload = Some(Payload { release, chunk_bytes, chunks });
                if chunk_bytes > self.around.config.download.message_bytes_max as u64 {
                    // Asking would only bring packets that end the connection.
                    error!(bytes = chunk_bytes, "the release's chunks are larger than download.message-size");
                    return self.unasked.push_back((op, gate));
                }
                State::Downloading
            }
            Gate::Install => State::Installing,
            Gate::Health => State::Testing,
            Gate::Reboot => State::Rebooting,
        };
        self.enter(state, None);
        let moment = Moment { state, edge: Edge::Enter };
        let context = self.hook_context(state, None);
        match self.around.hooks.ask(moment, context) {
            Some(question) => {
                self.gates.insert(question, (op, gate));
            }
            None => self.unasked.push_back((op, gate)),
        }
    }

    /// The hooks have spoken.
    pub(super) fn judged(&mut self, op: OpId, gate: Gate, answer: &Answer) {
        let Answer { verdict, said } = answer;
        let verdict = *verdict;
        debug!(op = op.0, ?verdict, "hooks have spoken");
        // Of a reboot nothing is reported; what is kept for the report by then is what the health check said.
        if verdict != Verdict::Good && gate != Gate::Reboot && !said.is_empty() {
            self.feed(Input::Said(said));
        }
        if (gate, verdict) == (Gate::Reboot, Verdict::Bad) {
            self.refuse_reboot();
        } else {
            self.feed(Input::Verdict { op, verdict });
        }
    }

    /// Hands jobs over as far as the worker has room.
    fn hand_over(&mut self) {
        let (room, _) = self.worker.parts();
        while !self.jobs.is_empty()
            && let Ok(permit) = room.try_reserve()
            && let Some(job) = self.jobs.pop_front()
        {
            permit.send(job);
        }
    }

    fn handle_event(&mut self, event: &Event) {
        self.around.counters.log(self.around.clock.now(), event);
        self.add_news(event);
        match event {
            Event::Refused { code: RefusalCode::Pending, .. } => self.awaits_acceptance = true,
            Event::Answered { .. } => {
                self.awaits_acceptance = false;
                self.same_id.answered();
            }
            Event::OtherKey { accepted } => {
                self.same_id.other_key(*accepted);
                self.warn_same_id();
            }
            // Something answers hello with more than a refusal, even if it is none that is believed.
            Event::Rejected { channel: Channel::Answers, reason } if reason.name() == "unauthentic" => {
                self.awaits_acceptance = false;
            }
            Event::Unanswered { hellos } => self.warn_unanswered(*hellos),
            Event::MessagesLost { .. } | Event::MessageLimit { .. } => self.keep_message_limit(),
            _ => {}
        }
        if let Event::StateChanged { state, deferred, failure } = event {
            let reason = deferred.map(|reason| reason.name()).or(failure.map(|code| code.name()));
            self.enter(*state, reason);
            self.running.refresh(self.controller.session().boot());
        }
    }

    /// Logs what suggests that another device has this one's id, once a minute at most.
    pub(super) fn warn_same_id(&mut self) {
        if self.around.counters.is_news(self.around.clock.now(), ["same id", "", ""]) {
            for line in self.same_id_in_words() {
                warn!("{line}");
            }
        }
    }

    pub(super) fn same_id_in_words(&self) -> Vec<String> {
        let device = &self.around.config.device;
        let own = identity::fingerprint(&device.key);
        self.same_id.in_words(&device.id, own, self.around.clock.now())
    }

    /// Tells the hooks that the state changes. Those that have a say are asked when it matters, not told.
    fn enter(&mut self, state: State, reason: Option<&'static str>) {
        for moment in self.around.progress.enter(state) {
            if !moment.is_gate() {
                self.around.hooks.tell(moment, self.hook_context(state, reason));
            }
        }
    }

    fn hook_context(&self, state: State, reason: Option<&'static str>) -> HookContext {
        let order =
            self.controller.session().record().deployment.as_ref().map(|deployment| &deployment.order);
        // The new image is in the slot that is written to, until it is confirmed.
        let target = self.controller.session().boot().target_slot;
        let new = if state == State::Confirmed { 1 - target.min(1) } else { target };
        let [a, b] = &self.slot_files;
        let slot = if new == 0 { ("a", a.clone()) } else { ("b", b.clone()) };
        HookContext {
            device: self.around.config.device.id.clone(),
            campaign: order.map(|order| (order.campaign, order.attempt)),
            release: order.map(|order| (order.release, order.sequence)),
            slot,
            reason,
            goes_back: self.controller.session().boot().trial == Trial::Running,
        }
    }

    /// Remembers how many chunks are here: the session does not say so while it is deferred, and `status` does.
    fn remember_progress(&mut self) {
        let status = self.controller.session().status().filter(|status| status.chunks > 0);
        if let (Some(payload), Some(status)) = (&mut self.payload, status) {
            let (held, all) = (status.chunks_held, status.chunks);
            payload.chunks = Some(Chunks { held, all, bytes: payload.chunk_bytes });
        }
    }
}
