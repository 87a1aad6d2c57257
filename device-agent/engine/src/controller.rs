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
    /// The calendar clock was read. It is only ever a lower bound.
    WallClock(UnixTime),
    /// What a health check or a hook said last, before its verdict comes: for the report.
    Said(&'a str),
    /// A person at the device asks to look for news now.
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
}

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
                done.as_input()
            }
        };
        self.session.handle_input(now, input);
        self.take_outputs();
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
        self.session.poll_timeout()
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
            Job::Store(..) => self.pending.stores += 1,
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
        if done.is_store() {
            self.pending.stores = self.pending.stores.saturating_sub(1);
        } else {
            self.pending.installs = self.pending.installs.saturating_sub(1);
        }
        if self.note == Some(done.op()) {
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
            (Gated::Job(Job::Store(..)), Verdict::Later | Verdict::Bad) => {
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
