//! What the session wants, carried out in the order in which it wants it.

use tracing::{debug, error, warn};
use whimbrel_protocol::device::{
    Event, HostOp, Input, InstallFailure, InstallOp, Output, StoreFailure, StoreOp,
};
use whimbrel_protocol::ids::{Digest, OpId};
use whimbrel_protocol::message::State;
use whimbrel_protocol::topic::Channel;

use super::{Agent, Gated};
use crate::hooks::{Edge, HookContext, Moment, Verdict};
use crate::status::Chunks;
use crate::worker::Job;

/// Something to send on the current connection.
#[derive(Debug)]
pub(super) enum Sending {
    Publish { topic: String, payload: Vec<u8>, at_least_once: bool },
    Subscribe(Vec<(String, bool)>),
}

/// What is known of the payload that is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    release: Digest,
    chunk_bytes: u64,
    /// What was known of its chunks last.
    pub(super) chunks: Option<Chunks>,
}

/// What may wait to be sent on a connection.
const OUTBOX_MAX: usize = 64;

impl Agent<'_> {
    /// Takes every output that the session has.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Subscribe(channels) => self.subscribe(&channels),
                Output::Publish(publish) => {
                    let topic = self.topic(&publish.channel);
                    let at_least_once = publish.at_least_once;
                    self.outbox.push_back(Sending::Publish {
                        topic,
                        payload: publish.payload,
                        at_least_once,
                    });
                }
                Output::Store(op, what) => self.store(op, what),
                Output::Install(op, what) => self.install(op, what),
                Output::Host(op, HostOp::Reboot) => self.gate(State::Rebooting, op, Gated::Reboot),
                Output::Host(op, HostOp::CheckHealth) => self.gate(State::Testing, op, Gated::Health),
                Output::Disconnect => {
                    self.outbox.clear();
                    self.hang_up();
                }
                Output::Event(event) => self.tell(&event),
            }
        }
        self.hand_over();
        self.send();
        self.remember_progress();
    }

    fn subscribe(&mut self, channels: &[Channel]) {
        // What is retained must not be lost; answers are asked for again.
        let filters =
            channels.iter().map(|channel| (self.topic(channel), *channel != Channel::Answers)).collect();
        self.outbox.push_back(Sending::Subscribe(filters));
    }

    fn topic(&self, channel: &Channel) -> String {
        let config = &self.around.config;
        channel.topic(&config.broker.prefix, &config.device.id)
    }

    /// Sends what waits, unless a note has to be written first.
    fn send(&mut self) {
        let Some(uplink) = &self.uplink else {
            self.outbox.clear();
            return;
        };
        if self.noted.is_some() && self.outbox.len() < OUTBOX_MAX {
            return;
        }
        while let Some(sending) = self.outbox.pop_front() {
            let sent = match sending {
                Sending::Publish { topic, payload, at_least_once } => {
                    uplink.publish(topic, payload, at_least_once)
                }
                Sending::Subscribe(filters) => uplink.subscribe(filters),
            };
            if sent.is_err() {
                warn!("the broker takes nothing any more");
                self.outbox.clear();
                uplink.hang_up();
            }
        }
    }

    fn hang_up(&self) {
        if let Some(uplink) = &self.uplink {
            uplink.hang_up();
        }
    }

    fn store(&mut self, op: OpId, what: StoreOp) {
        match &what {
            StoreOp::Open(opening) => {
                let chunk_bytes = opening.transfer.layout.chunk_size();
                let known = self.payload.filter(|payload| payload.release == opening.release);
                let chunks = known.and_then(|payload| payload.chunks);
                self.carried = Some(opening.transfer);
                self.payload = Some(Payload { release: opening.release, chunk_bytes, chunks });
                if chunk_bytes > self.around.config.download.message_bytes_max as u64 {
                    // Asking would only bring packets that end the connection.
                    error!(bytes = chunk_bytes, "the release's chunks are larger than download.message-size");
                    return self.unasked.push_back((op, Gated::Open(what)));
                }
                return self.gate(State::Downloading, op, Gated::Open(what));
            }
            StoreOp::NoteAsked(_) => self.noted = Some(op),
            _ => {}
        }
        self.queue_store(op, what);
    }

    fn queue_store(&mut self, op: OpId, what: StoreOp) {
        self.open.stores += 1;
        self.jobs.push_back(Job::Store(op, what));
    }

    fn install(&mut self, op: OpId, what: InstallOp) {
        match what {
            InstallOp::Install => self.gate(State::Installing, op, Gated::Install(what)),
            InstallOp::Match { .. } | InstallOp::Activate | InstallOp::Confirm | InstallOp::Revert => {
                self.queue_install(op, what);
            }
        }
    }

    fn queue_install(&mut self, op: OpId, what: InstallOp) {
        self.open.installs += 1;
        self.jobs.push_back(Job::Install(op, what));
    }

    /// Asks the hooks that have a say before `state` is entered, each time.
    fn gate(&mut self, state: State, op: OpId, gated: Gated) {
        self.enter(state, None);
        let gate = Moment { state, edge: Edge::Enter };
        let context = self.hook_context(state, None);
        match self.around.hooks.ask(gate, context) {
            Some(question) => {
                self.gates.insert(question, (op, gated));
            }
            None => self.unasked.push_back((op, gated)),
        }
    }

    /// The hooks have spoken.
    pub(super) fn judged(&mut self, op: OpId, gated: Gated, verdict: Verdict) {
        debug!(op = op.0, ?verdict, "hooks have spoken");
        match (gated, verdict) {
            (Gated::Open(what), Verdict::Good) => self.queue_store(op, what),
            (Gated::Open(_), Verdict::Later | Verdict::Bad) => {
                self.hook_waits = true;
                self.feed(Input::Opened { op, result: Err(StoreFailure::Failed) });
            }
            (Gated::Install(what), Verdict::Good) => self.queue_install(op, what),
            (Gated::Install(_), Verdict::Bad) => {
                self.feed(Input::Installed { op, result: Err(InstallFailure::Hook) });
            }
            (Gated::Health, Verdict::Good) => self.feed(Input::Installed { op, result: Ok(()) }),
            (Gated::Health, Verdict::Bad) => {
                self.feed(Input::Installed { op, result: Err(InstallFailure::Unhealthy) });
            }
            (Gated::Reboot, Verdict::Good) => self.begin_reboot(op),
            (Gated::Reboot, Verdict::Bad) => self.refuse_reboot(),
            (Gated::Install(_) | Gated::Health | Gated::Reboot, Verdict::Later) => {
                self.feed(Input::Installed { op, result: Err(InstallFailure::Retry) });
            }
        }
        self.hand_over();
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

    fn tell(&mut self, event: &Event) {
        if matches!(event, Event::StoreFailed(_)) && core::mem::take(&mut self.hook_waits) {
            return;
        }
        self.around.counters.tell(event);
        self.tell_checks(event);
        if let Event::StateChanged { state, deferred, failure } = event {
            let reason = deferred.map(|reason| reason.name()).or(failure.map(|code| code.name()));
            self.enter(*state, reason);
            self.running.refresh(self.session.boot());
        }
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
        let order = self.session.record().deployment.as_ref().map(|deployment| &deployment.order);
        // The new image is in the slot that is written to, until it is confirmed.
        let target = self.session.boot().target_slot;
        let new = if state == State::Confirmed { 1 - target.min(1) } else { target };
        let [a, b] = &self.slot_files;
        let slot = if new == 0 { ("a", a.clone()) } else { ("b", b.clone()) };
        HookContext {
            device: self.around.config.device.id.clone(),
            campaign: order.map(|order| (order.campaign, order.attempt)),
            release: order.map(|order| (order.release, order.sequence)),
            slot,
            reason,
        }
    }

    /// Progress is forgotten by the session while it is deferred, not by people.
    fn remember_progress(&mut self) {
        let status = self.session.status().filter(|status| status.chunks > 0);
        if let (Some(payload), Some(status)) = (&mut self.payload, status) {
            let (held, all) = (status.chunks_held, status.chunks);
            payload.chunks = Some(Chunks { held, all, bytes: payload.chunk_bytes });
        }
    }
}
