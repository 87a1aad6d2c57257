//! The half of a device that decides: its session, what the host is to do, and what the medium is to do.
//!
//! It never touches the medium. A host whose medium has a thread of its own drives a [`Controller`] and hands every
//! [`Job`] to the thread with the [`Storage`](crate::storage::Storage); a host that can wait for its medium drives a
//! [`Device`](crate::Device), which does that itself.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use whimbrel_protocol::device::{
    DeviceSession, Event, HostOp, Input as SessionInput, InstallFailure, InstallOp, Output as SessionOutput,
    Publish, SessionConfig, StoreFailure, StoreOp,
};
use whimbrel_protocol::ids::{Digest, OpId};
use whimbrel_protocol::manifest::TransferDescriptor;
use whimbrel_protocol::message::{DeferReason, State};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;

use crate::image::codecs;
use crate::inventory::Inventory;
use crate::storage::{Done, Job};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The broker accepted the connection.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// A message arrived; its bytes are not verified.
    Message {
        /// On which channel.
        channel: Channel,
        /// The bytes.
        payload: &'a [u8],
    },
    /// Bytes arrived that do not complete a message yet, on links that can tell.
    Activity,
    /// A message arrived on a topic that is none of the device's. Its bytes count as not asked for.
    Foreign {
        /// Bytes of its payload.
        bytes: usize,
    },
    /// Topics that bring news are not subscribed to in this connection: the broker refused them, or the host left them
    /// out. The device asks for news instead, more and more rarely.
    NotSubscribed,
    /// The device's calendar clock was read. It dates reports, and decides nothing.
    WallClock(UnixTime),
    /// What a health check or a hook said last, before its verdict comes: for the report.
    Said(&'a str),
    /// A person at the device asks to look for news now, and to try what waits for the medium or for the host.
    Check,
    /// The time of `poll_timeout` has come.
    Timeout,
    /// The answer to an [`Output::Ask`].
    Verdict {
        /// Which.
        op: OpId,
        /// What the host says.
        verdict: Verdict,
    },
    /// The host could not do what [`Output::Reboot`] told it to.
    RebootFailed {
        /// Which.
        op: OpId,
    },
    /// The medium has done a [`Job`]. A [`Device`](crate::Device) feeds this by itself.
    Done(&'a Done),
}

/// What the host is to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Subscribe to these channels.
    Subscribe(Vec<Channel>),
    /// Publish a message on the present connection.
    Publish(Publish),
    /// Close the connection, feed [`Input::Disconnected`], and connect again after the usual back-off.
    Disconnect,
    /// Say whether the device may go on: feed [`Input::Verdict`], at once or later.
    Ask(OpId, Gate),
    /// Start whatever the boot control chooses. The session ends with it. Feed [`Input::RebootFailed`] if it does not
    /// come about.
    Reboot(OpId),
    /// Something that people or counters should learn of.
    Event(Event),
}

/// What the host has a say in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Whether a download may begin or go on. After anything but [`Verdict::Good`] the device asks again later.
    Download {
        /// The release.
        release: Digest,
        /// How its payload becomes the image.
        transfer: TransferDescriptor,
    },
    /// Whether the complete payload may be installed.
    Install,
    /// Whether the new image, which runs now, is healthy. After [`Verdict::Bad`] it is given up.
    Health,
    /// Whether the device may reboot. [`Output::Reboot`] follows after [`Verdict::Good`].
    Reboot,
}

/// What the host says at a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Good,
    /// Ask again later.
    Later,
    /// Fail.
    Bad,
}

/// What comes out of a [`Controller`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// For the host.
    Host(Output),
    /// For the medium: [`Storage::work`](crate::storage::Storage::work), then [`Input::Done`].
    Work(Job),
}

/// Jobs that the medium has not answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// What the session stores.
    pub stores: usize,
    /// What it does with images and the boot control.
    pub installs: usize,
}

/// A session and what it waits for.
#[derive(Debug)]
pub struct Controller {
    session: DeviceSession,
    effects: VecDeque<Effect>,
    pending: Pending,
    /// What the host was asked about.
    gates: Vec<(OpId, Gated)>,
    /// A note that chunks are asked for. The request goes out when the note is written, so that the ledger is right
    /// even if the process is killed in between.
    note: Option<OpId>,
    /// Messages that wait for the note.
    held_back: Vec<Output>,
    /// The host did not let a download begin: the session takes that for a failure of the medium and tells of one.
    declined: bool,
    /// While the session waits for room: when the medium is looked at.
    look: Look,
}

/// When the medium is looked at for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nobody waits for room.
    Never,
    At(Instant),
    /// It is being looked at.
    Now,
}

/// From one look for room to the next. The session begins again by itself after ten minutes, whatever a look says.
const LOOK_EVERY_MS: u64 = 60_000;

/// What waits for the host's verdict.
#[derive(Debug)]
enum Gated {
    Job(Job),
    Health,
    Reboot,
}

/// Messages that wait for a note, at most.
const HELD_BACK_MAX: usize = 64;

impl Controller {
    /// A session that starts from `inventory`.
    pub fn new(inventory: Inventory, config: SessionConfig, now: Instant, today: UnixTime) -> Self {
        let Inventory { root, record, boot, envelope, .. } = inventory;
        let config = SessionConfig { codecs: codecs().and(config.codecs), ..config };
        let mut controller = Self {
            session: DeviceSession::new(config, root, boot, record, envelope, now, today),
            effects: VecDeque::new(),
            pending: Pending::default(),
            gates: Vec::new(),
            note: None,
            held_back: Vec::new(),
            declined: false,
            look: Look::Never,
        };
        controller.take_outputs();
        controller
    }

    /// Tells the device what happened.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        let input = match input {
            Input::Connected => {
                self.held_back.clear();
                SessionInput::Connected
            }
            Input::Disconnected => {
                self.held_back.clear();
                SessionInput::Disconnected
            }
            Input::Message { channel, payload } => SessionInput::Message { channel, payload },
            Input::Activity => SessionInput::Activity,
            Input::Foreign { bytes } => SessionInput::Foreign { bytes },
            Input::NotSubscribed => SessionInput::NotSubscribed,
            Input::WallClock(time) => SessionInput::WallClock(time),
            Input::Said(text) => SessionInput::Said(text),
            Input::Check => SessionInput::Check,
            Input::Timeout => SessionInput::Timeout,
            Input::RebootFailed { op } => {
                self.gates.retain(|(asked, _)| *asked != op);
                SessionInput::Installed { op, result: Err(InstallFailure::Boot) }
            }
            Input::Verdict { op, verdict } => match self.judge(op, verdict) {
                Some(answer) => answer,
                None => return,
            },
            Input::Done(done) => {
                self.count_done(done);
                match done.as_input() {
                    Some(answer) => answer,
                    None => return self.plan_look(now),
                }
            }
        };
        self.session.handle_input(now, input);
        self.take_outputs();
        self.plan_look(now);
        // The session tells of it at once, or it no longer waits for that verdict.
        self.declined = false;
    }

    /// The next thing to do; `None` if there is nothing.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if self.effects.is_empty() {
            // Effects are large, and most of the time there are none.
            self.effects = VecDeque::new();
        }
        effect
    }

    /// When to feed [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let look = match self.look {
            Look::At(at) => Some(at),
            Look::Never | Look::Now => None,
        };
        self.session.poll_timeout().into_iter().chain(look).min()
    }

    /// The session, to look at.
    #[must_use]
    pub fn session(&self) -> &DeviceSession {
        &self.session
    }

    /// Jobs that were given out, or wait to be polled, and are not done.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.pending
    }

    /// Has the medium looked at once a minute, as long as the session waits for room.
    fn plan_look(&mut self, now: Instant) {
        let waits = self.session.state() == State::Deferred
            && self.session.status().is_some_and(|status| status.deferred == Some(DeferReason::Room));
        match self.look {
            _ if !waits => self.look = Look::Never,
            Look::Never => self.look = Look::At(now.plus_millis(LOOK_EVERY_MS)),
            Look::At(at) if at <= now => {
                self.look = Look::Now;
                self.work(Job::FindRoom);
            }
            Look::At(_) | Look::Now => {}
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Subscribe(channels) => self.send(Output::Subscribe(channels)),
                SessionOutput::Publish(publish) => self.send(Output::Publish(publish)),
                SessionOutput::Disconnect => {
                    self.held_back.clear();
                    self.tell_host(Output::Disconnect);
                }
                SessionOutput::Store(op, what) => self.store(op, what),
                SessionOutput::Install(op, InstallOp::Install) => {
                    self.ask(op, Gate::Install, Gated::Job(Job::Install(op, InstallOp::Install)));
                }
                SessionOutput::Install(op, what) => self.work(Job::Install(op, what)),
                SessionOutput::Host(op, HostOp::CheckHealth) => self.ask(op, Gate::Health, Gated::Health),
                SessionOutput::Host(op, HostOp::Reboot) => self.ask(op, Gate::Reboot, Gated::Reboot),
                SessionOutput::Event(Event::StoreFailed(_)) if core::mem::take(&mut self.declined) => {}
                SessionOutput::Event(event) => self.tell_host(Output::Event(event)),
            }
        }
    }

    fn store(&mut self, op: OpId, what: StoreOp) {
        match &what {
            StoreOp::Open(opening) => {
                let gate = Gate::Download { release: opening.release, transfer: opening.transfer };
                return self.ask(op, gate, Gated::Job(Job::Store(op, what)));
            }
            StoreOp::NoteAsked(_) => self.note = Some(op),
            // What a hook has not allowed yet is called off with the download.
            StoreOp::Close => self.gates.retain(|(_, gated)| !matches!(gated, Gated::Job(_))),
            _ => {}
        }
        self.work(Job::Store(op, what));
    }

    fn ask(&mut self, op: OpId, gate: Gate, gated: Gated) {
        self.gates.push((op, gated));
        self.tell_host(Output::Ask(op, gate));
    }

    fn tell_host(&mut self, output: Output) {
        self.effects.push_back(Effect::Host(output));
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Store(..) | Job::FindRoom => self.pending.stores += 1,
            Job::Install(..) => self.pending.installs += 1,
        }
        self.effects.push_back(Effect::Work(job));
    }

    /// Sends a message, unless a note has to be written first.
    fn send(&mut self, message: Output) {
        self.held_back.push(message);
        if self.note.is_none() || self.held_back.len() >= HELD_BACK_MAX {
            self.release_messages();
        }
    }

    fn release_messages(&mut self) {
        for message in core::mem::take(&mut self.held_back) {
            self.tell_host(message);
        }
    }

    fn count_done(&mut self, done: &Done) {
        match done {
            Done::Installed(..) => self.pending.installs = self.pending.installs.saturating_sub(1),
            Done::Stored(..) | Done::Looked(_) => self.pending.stores = self.pending.stores.saturating_sub(1),
        }
        if matches!(done, Done::Looked(_)) {
            self.look = Look::Never;
        }
        if self.note.is_some() && self.note == done.op() {
            self.note = None;
            self.release_messages();
        }
    }

    /// What the session is told after a verdict; `None` if something is to be done first, or nobody asked.
    fn judge(&mut self, op: OpId, verdict: Verdict) -> Option<SessionInput<'static>> {
        let at = self.gates.iter().position(|(asked, _)| *asked == op)?;
        let (_, gated) = self.gates.swap_remove(at);
        let failed = |failure| Some(SessionInput::Installed { op, result: Err(failure) });
        match (gated, verdict) {
            (Gated::Job(job), Verdict::Good) => {
                self.work(job);
                None
            }
            (Gated::Job(Job::Store(..) | Job::FindRoom), Verdict::Later | Verdict::Bad) => {
                self.declined = true;
                Some(SessionInput::Opened { op, result: Err(StoreFailure::Failed) })
            }
            (Gated::Health, Verdict::Good) => Some(SessionInput::Installed { op, result: Ok(()) }),
            (Gated::Health, Verdict::Bad) => failed(InstallFailure::Unhealthy),
            (Gated::Reboot, Verdict::Good) => {
                self.tell_host(Output::Reboot(op));
                None
            }
            (Gated::Job(Job::Install(..)) | Gated::Reboot, Verdict::Bad) => failed(InstallFailure::Hook),
            (Gated::Job(Job::Install(..)) | Gated::Health | Gated::Reboot, Verdict::Later) => {
                failed(InstallFailure::Retry)
            }
        }
    }
}
