//! The loop around one session: what happens outside goes into the engine's [`Controller`], and what the device wants
//! goes to the link, the medium and the hooks.
//!
//! Nothing here decides about updates. The loop never waits for more than the next thing that happens: what takes
//! long has a task or thread of its own (`mqtt`, `worker`, `hooks`), and everything that is queued has a maximum.

mod asked;
mod outputs;
mod reboot;

use alloc::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use tokio::sync::watch;
use tracing::{debug, error, info, warn};
use whimbrel_engine::slot::Slot;
use whimbrel_engine::storage::Job;
use whimbrel_engine::{Controller, Gate, Input, Inventory};
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::device::SessionConfig;
use whimbrel_protocol::ids::OpId;
use whimbrel_protocol::manifest::TransferDescriptor;
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic;

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Asked, Listener};
use crate::error::AgentError;
use crate::events::Counters;
use crate::home::{Home, Medium};
use crate::hooks::{Answer as HookAnswer, HookQueue, Progress, Question, Verdict, Watch};
use crate::mqtt::{BrokerLimits, Link, LinkError, LinkEvent, LinkSettings, Uplink};
use crate::same_id::SameId;
use crate::status::{RunningView, StatusView};
use crate::worker::{Answer, Worker};

use asked::Check;
use outputs::Payload;
use reboot::RebootCommand;

/// What lives longer than a session.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) config: Config,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) clock: Clock,
    pub(crate) listener: Listener,
    pub(crate) hooks: HookQueue,
    pub(crate) hook_watch: Watch,
    pub(crate) progress: Progress,
    pub(crate) counters: Counters,
    /// What brokers were found to carry.
    pub(crate) limits: BrokerLimits,
    /// Changes to `true` when the process is to end.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// The process is to end.
    Stop,
    /// The agent takes the boot loader's step and starts anew.
    Restart,
    /// The process ends so that somebody reboots the device.
    RebootByOther,
    /// A hook of `Rebooting_Enter` refused the new image.
    Refused,
    /// A command wants the medium for itself.
    Command(Asked),
}

/// A session, its link and its medium.
pub(crate) struct Agent<'s> {
    around: &'s mut Surroundings,
    controller: Controller,
    worker: Worker,
    /// Jobs that the worker has no room for yet.
    jobs: VecDeque<Job>,
    link: Link,
    uplink: Option<Uplink>,
    /// Since when the link is as it is, and what was wrong last.
    link_since: Instant,
    link_error: Option<String>,
    same_id: SameId,
    /// The service said that its operator has not accepted this device yet, and nothing else since.
    awaits_acceptance: bool,
    /// Topics of this connection that are not subscribed to: the broker refuses them, or closes the connection.
    left_out: Vec<String>,
    /// Topics were left out, and the device has not been told yet.
    has_left_out: bool,
    /// Operations that wait for hooks.
    gates: BTreeMap<Question, (OpId, Gate)>,
    /// Gates at which no hook could be asked: they are answered in the next round.
    unasked: VecDeque<(OpId, Gate)>,
    reboot: Option<RebootCommand>,
    checks: Vec<Check>,
    leaving: Option<Leaving>,
    running: RunningView,
    slot_files: [PathBuf; 2],
    payload: Option<Payload>,
    /// How the image on its way, or the last one, is carried.
    carried: Option<TransferDescriptor>,
}

#[derive(Debug)]
struct Leaving {
    exit: Exit,
    /// What is not written by then is as if the power had been cut.
    until: Instant,
    /// The session was asked to save once more.
    saved: bool,
}

/// What the loop wakes up for.
enum Happening {
    Handed,
    Answer(Answer),
    Link(LinkEvent),
    Verdict(OpId, Gate, HookAnswer),
    NoVerdict,
    Asked(Asked),
    RebootFailed,
    Stop,
    Time,
}

/// Jobs that may wait before messages have to.
const JOBS_WAITING_MAX: usize = 256;
/// How long what was begun on the medium may take when the session is to end.
const LEAVE_MS: u64 = 10_000;
/// The same if the process is to end: with the farewell to the broker that is shorter than
/// [`stop::LIMIT`](whimbrel_settings::daemon::stop::LIMIT).
const STOP_MS: u64 = 5_000;

impl<'s> Agent<'s> {
    /// Starts a session on the medium of `home`.
    ///
    /// # Errors
    /// [`AgentError`] if the system has no thread or no randomness.
    pub(crate) fn start(
        around: &'s mut Surroundings,
        mut home: Home,
        inventory: Inventory,
        config: SessionConfig,
        link_seed: u64,
    ) -> Result<Self, AgentError> {
        let clock = around.clock;
        let running = RunningView::of(&mut home, &inventory);
        let slot_files = Slot::ALL.map(|slot| home.slot_file(slot));
        let (now, carried) = (clock.now(), inventory.payload);
        let controller = Controller::new(inventory, config, now, clock.today());
        let worker =
            Worker::start(home.storage).map_err(|error| AgentError::System { what: "thread", error })?;
        let link = Link::start(LinkSettings::of(&around.config, link_seed), clock);
        Ok(Self {
            around,
            controller,
            worker,
            jobs: VecDeque::new(),
            link,
            uplink: None,
            link_since: now,
            link_error: None,
            same_id: SameId::default(),
            awaits_acceptance: false,
            left_out: Vec::new(),
            has_left_out: false,
            gates: BTreeMap::new(),
            unasked: VecDeque::new(),
            reboot: None,
            checks: Vec::new(),
            leaving: None,
            running,
            slot_files,
            payload: None,
            carried,
        })
    }

    /// Runs until the session is to end; gives the medium back, unless the process ends.
    ///
    /// # Errors
    /// [`AgentError::Ended`] if a part of the agent has broken.
    pub(crate) async fn run(mut self) -> Result<(Exit, Option<Medium>), AgentError> {
        self.carry_out();
        loop {
            if let Some(exit) = self.left() {
                return self.leave(exit).await;
            }
            let happening = self.next_happening().await?;
            self.take(happening);
        }
    }

    /// The one place where the agent waits.
    async fn next_happening(&mut self) -> Result<Happening, AgentError> {
        let deadline = self.deadline();
        let listening = self.leaving.is_none();
        if let Some((op, gate)) = self.unasked.pop_front() {
            let answer = HookAnswer { verdict: Verdict::Later, said: String::new() };
            return Ok(Happening::Verdict(op, gate, answer));
        }
        let Self { worker, jobs, link, reboot, around, gates, .. } = self;
        let (room, answers) = worker.parts();
        let ended = |what| AgentError::Ended { what };
        Ok(tokio::select! {
            permit = room.reserve(), if !jobs.is_empty() => {
                let permit = permit.map_err(|_| ended("storage thread"))?;
                if let Some(job) = jobs.pop_front() {
                    permit.send(job);
                }
                Happening::Handed
            }
            answer = answers.recv() => Happening::Answer(answer.ok_or(ended("storage thread"))?),
            event = link.next(), if listening && jobs.len() < JOBS_WAITING_MAX => {
                Happening::Link(event.ok_or(ended("link"))?)
            }
            answer = around.hooks.next() => {
                let (question, answer) = answer.ok_or(ended("hook queue"))?;
                let asked = gates.remove(&question);
                asked.map_or(Happening::NoVerdict, |(op, gate)| Happening::Verdict(op, gate, answer))
            }
            asked = around.listener.next(), if listening => Happening::Asked(asked.ok_or(ended("listener"))?),
            () = RebootCommand::failed(reboot) => Happening::RebootFailed,
            _ = around.stop.wait_for(|stop| *stop), if listening => Happening::Stop,
            () = around.clock.sleep_until(deadline) => Happening::Time,
        })
    }

    fn deadline(&self) -> Option<Instant> {
        let checks = self.checks.iter().map(Check::until);
        let leaving = self.leaving.as_ref().map(|leaving| leaving.until);
        let log = self.around.counters.log_due_at();
        let hooks = Some(self.around.hook_watch.due());
        [self.controller.poll_timeout(), leaving, log, hooks].into_iter().flatten().chain(checks).min()
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Handed | Happening::NoVerdict => {}
            Happening::Answer(answer) => self.answered(&answer),
            Happening::Link(event) => self.link_event(event),
            Happening::Verdict(op, gate, answer) => self.judged(op, gate, &answer),
            Happening::Asked(asked) => self.asked(asked),
            Happening::RebootFailed => self.reboot_failed(),
            Happening::Stop => self.leave_with(Exit::Stop),
            Happening::Time => {
                self.feed(Input::Timeout);
                self.end_checks();
                self.look_at_hooks();
                self.around.counters.log_due(self.around.clock.now());
            }
        }
    }

    /// Looks whether every hook can run, if it is time to.
    fn look_at_hooks(&mut self) {
        let now = self.around.clock.now();
        if self.around.hook_watch.due() <= now {
            self.around.hook_watch.look(now);
        }
    }

    /// Tells the device, and carries out what it wants.
    fn feed(&mut self, input: Input<'_>) {
        self.controller.handle_input(self.around.clock.now(), input);
        self.carry_out();
    }

    fn answered(&mut self, answer: &Answer) {
        match &answer.error {
            Some(error) => error!(reason = %error, detail = %error.source, "the medium failed"),
            None if answer.done.is_failure() => error!(answer = ?answer.done, "the medium failed"),
            None => {}
        }
        self.feed(Input::Done(&answer.done));
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(uplink) => {
                info!("connected");
                self.around.counters.count("connections");
                self.uplink = Some(uplink);
                self.left_out.clear();
                self.link_since = self.around.clock.now();
                self.feed(Input::WallClock(self.around.clock.today()));
                self.feed(Input::Connected);
            }
            LinkEvent::Message { topic, payload } => {
                self.around.counters.message_bytes = payload.len();
                let config = &self.around.config;
                let address = topic::parse(&config.broker.prefix, &topic).filter(|address| {
                    address.device.as_ref().is_none_or(|device| *device == config.device.id)
                });
                match address {
                    Some(address) => {
                        self.feed(Input::Message { channel: address.channel, payload: &payload });
                    }
                    None => {
                        self.around.counters.foreign(self.around.clock.now());
                        self.feed(Input::Foreign { bytes: payload.len() });
                    }
                }
                self.around.counters.message_bytes = 0;
            }
            LinkEvent::NotSubscribed { topics } => {
                self.around.counters.count("subscriptions-refused");
                if self.around.counters.is_news(self.around.clock.now(), ["subscriptions refused", "", ""]) {
                    error!(
                        topics = topics.join(", "),
                        "the broker refuses subscriptions: its rules must let this device have its topics"
                    );
                }
                self.left_out.extend(topics);
                self.feed(Input::NotSubscribed);
            }
            LinkEvent::Down(error) => self.link_down(&error),
        }
    }

    fn link_down(&mut self, error: &LinkError) {
        self.around.counters.count(error.name());
        self.link_error = Some(error.to_string());
        let was_up = self.uplink.take().is_some();
        match error {
            LinkError::Refused(_) | LinkError::Password(_) | LinkError::Untrusted(_) => {
                error!(reason = %error, "not connected")
            }
            _ if was_up => info!(reason = %error, "disconnected"),
            _ => warn!(reason = %error, "not connected"),
        }
        if was_up {
            self.link_since = self.around.clock.now();
            if error.is_close_by_broker() {
                self.same_id.closed(self.link_since);
                if self.same_id.closed_again(&self.around.config.device.id, self.link_since).is_some() {
                    self.warn_same_id();
                }
            }
            self.feed(Input::Disconnected);
        }
    }

    /// Ends the session as soon as what is being written is written. What is held is saved first.
    fn leave_with(&mut self, exit: Exit) {
        if self.leaving.is_some() {
            return;
        }
        debug!(?exit, "session ends");
        let limit_ms = if matches!(exit, Exit::Stop) { STOP_MS } else { LEAVE_MS };
        let until = self.around.clock.now().plus_millis(limit_ms);
        self.leaving = Some(Leaving { exit, until, saved: false });
        self.feed(Input::Disconnected);
    }

    /// Why the session ends, once everything it has is saved or the time for that is over.
    fn left(&mut self) -> Option<Exit> {
        let leaving = self.leaving.as_mut()?;
        let late = leaving.until <= self.around.clock.now();
        if self.controller.pending().stores > 0 && !late {
            return None;
        }
        if !leaving.saved && !late {
            // A checkpoint that was under way when the session was told did not have what came last.
            leaving.saved = true;
            self.feed(Input::Disconnected);
            if self.controller.pending().stores > 0 {
                return None;
            }
        }
        self.leaving.take().map(|leaving| leaving.exit)
    }

    async fn leave(mut self, exit: Exit) -> Result<(Exit, Option<Medium>), AgentError> {
        self.link.close(self.uplink.take()).await;
        if matches!(exit, Exit::Stop) {
            // An image that is being written is not waited for: the next start finds what is missing.
            return Ok((exit, None));
        }
        let storage = self.worker.finish().await.ok_or(AgentError::Ended { what: "storage thread" })?;
        Ok((exit, Some(storage)))
    }

    /// The status, as of now.
    fn status(&mut self) -> StatusView {
        let hooks = self.around.hook_watch.look(self.around.clock.now()).to_vec();
        let mut view = StatusView {
            hooks,
            device: self.around.config.device.id.to_string(),
            fingerprint: Some(self.around.fingerprint.to_string()),
            daemon: true,
            running: self.running.clone(),
            ..StatusView::default()
        };
        view.carry(self.carried.as_ref());
        self.describe(&mut view);
        view
    }
}
