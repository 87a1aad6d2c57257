//! One life of the agent on any disk: a host of the device engine that watches every job.

use whimbrel_engine::boot::Told;
use whimbrel_engine::storage::StoreAnswer;
use whimbrel_engine::{Device, Done, Effect, Gate, Input, Job, Output, Verdict};
use whimbrel_protocol::device::{Event, InstallOp, StoreOp};
use whimbrel_protocol::message::{Outcome, State};
use whimbrel_protocol::server::{Input as ServerInput, ServerSession};
use whimbrel_protocol::testing::{Direction, Faults, Packet, SeededLink};
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic::Channel;

use crate::power_cut_device::{Control, End, Medium, Next, Violation, World};

/// Happenings in a life of the agent before it counts as stuck.
const HAPPENINGS_MAX: u64 = 20_000;

/// A life of the agent: from its start to a reboot, a cut or the end.
pub(crate) struct Life<'w, D, B> {
    world: &'w mut World<D, B>,
    device: Device<&'w mut D, Told<B>>,
    server: ServerSession,
    link: SeededLink,
    connect_at: Option<Instant>,
    subscribed: Vec<Channel>,
    rebooting: bool,
}

impl<'w, D: Medium, B: Control> Life<'w, D, B> {
    pub(crate) fn new(world: &'w mut World<D, B>, device: Device<&'w mut D, Told<B>>) -> Self {
        let faults = Faults { delay_ms: (300, 300), rate: world.rate, lose: world.lose, ..Faults::default() };
        Self {
            link: SeededLink::new(faults, 1),
            server: ServerSession::new(world.service.fixture.device.clone(), world.now),
            connect_at: Some(world.now.plus_millis(2_000)),
            subscribed: Vec::new(),
            rebooting: false,
            world,
            device,
        }
    }

    pub(crate) fn run(mut self) -> Result<Next, Violation> {
        self.drain();
        for _ in 0..HAPPENINGS_MAX {
            if self.is_dead() {
                return Ok(Next::End(End::Dead));
            }
            if self.rebooting {
                return Ok(Next::Reboot);
            }
            if self.world.reverts_are_ends && self.has_report_of(Outcome::Reverted) {
                return Ok(Next::End(End::Reverted));
            }
            if self.is_done() {
                let sequence = self.device.storage_mut().boot_view().running.sequence;
                let wanted = self.world.service.release().sequence;
                return match sequence == wanted {
                    true => Ok(Next::End(End::Confirmed)),
                    false => Err(Violation::Sequence(sequence)),
                };
            }
            let wake = [
                self.connect_at,
                self.link.next_arrival(),
                self.device.poll_timeout(),
                self.server.poll_timeout(),
            ];
            let Some(next) = wake.into_iter().flatten().min() else {
                break;
            };
            self.world.now = self.world.now.max(next);
            self.world.heal(self.device.storage_mut().disk_mut());
            self.turn();
        }
        Err(Violation::Stuck(self.device.session().state()))
    }

    fn is_dead(&mut self) -> bool {
        self.device.storage_mut().disk_mut().is_dead()
    }

    fn is_done(&self) -> bool {
        let acknowledged = self.device.session().record().reports.is_empty();
        self.device.session().state() == State::Confirmed
            && acknowledged
            && self.has_report_of(Outcome::Confirmed)
    }

    fn has_report_of(&self, outcome: Outcome) -> bool {
        let service = &self.world.service;
        let release = service.release().digest;
        service.reports.iter().any(|report| report.release == release && report.outcome == outcome)
    }

    fn turn(&mut self) {
        let now = self.world.now;
        if self.connect_at.is_some_and(|at| at <= now) {
            self.connect_at = None;
            return self.feed(Input::Connected);
        }
        if let Some(Packet { direction, channel, payload }) = self.link.receive(now) {
            match direction {
                Direction::Down => self.feed(Input::Message { channel, payload: &payload }),
                Direction::Up => self.serve(ServerInput::message(&channel, &payload)),
            }
            return;
        }
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            return self.serve(ServerInput::Timeout);
        }
        self.feed(Input::Timeout);
    }

    fn serve(&mut self, input: ServerInput<'_>) {
        let (live, attempt) = (self.world.service.live, self.world.service.attempt);
        let packets = self.world.service.serve(&mut self.server, self.world.now, input);
        for (channel, payload) in packets {
            self.send(Direction::Down, channel, payload);
        }
        if live != self.world.service.live {
            self.world.count_anew();
        }
        if (live, attempt) != (self.world.service.live, self.world.service.attempt) {
            self.deliver_retained(&Channel::Group(self.world.service.fixture.group.clone()));
        }
    }

    fn send(&mut self, direction: Direction, channel: Channel, payload: Vec<u8>) {
        self.link.send(self.world.now, Packet { direction, channel, payload });
    }

    fn deliver_retained(&mut self, channel: &Channel) {
        if self.subscribed.contains(channel)
            && let Some(payload) = self.world.service.retained(channel)
        {
            self.send(Direction::Down, channel.clone(), payload);
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        self.device.handle_input(self.world.now, input);
        self.drain();
    }

    /// Does what the device wants, until it wants nothing.
    fn drain(&mut self) {
        while let Some(effect) = self.device.poll_effect() {
            match effect {
                Effect::Host(output) => self.do_for(output),
                Effect::Work(job) => self.work(job),
            }
            // Nothing comes after a restart or a cut, whatever else was wanted.
            if self.rebooting || self.is_dead() {
                return;
            }
        }
    }

    fn do_for(&mut self, output: Output) {
        match output {
            Output::Subscribe(channels) => {
                for channel in channels {
                    self.subscribed.push(channel.clone());
                    self.deliver_retained(&channel);
                }
            }
            Output::Publish(publish) => self.send(Direction::Up, publish.channel, publish.payload),
            Output::Disconnect => {
                self.link.cut();
                self.subscribed.clear();
                self.connect_at = Some(self.world.now.plus_millis(5_000));
                self.device.handle_input(self.world.now, Input::Disconnected);
            }
            Output::Event(event) => {
                self.world.store_failures += u64::from(matches!(event, Event::StoreFailed(_)));
            }
            Output::Ask(op, gate) => {
                let unhealthy =
                    gate == Gate::Health && self.world.service.attempt <= self.world.unhealthy_attempts;
                let verdict = if unhealthy { Verdict::Bad } else { Verdict::Good };
                self.device.handle_input(self.world.now, Input::Verdict { op, verdict });
            }
            Output::Reboot(_) => self.rebooting = true,
        }
    }

    fn work(&mut self, job: Job) {
        let (mut chunks, mut is_checkpoint, mut confirms) = (0, false, false);
        match &job {
            Job::Store(_, StoreOp::WriteChunks { bytes, .. }) => chunks = bytes.len() as u64,
            Job::Store(_, StoreOp::SaveCheckpoint(_)) => is_checkpoint = true,
            Job::Store(..) => {}
            Job::Install(_, InstallOp::Install) => {
                // A session has all of it durable before it asks for this.
                self.world.has_payload = true;
                if let Some(bit) = self.world.rots.take() {
                    let running = self.device.storage().running();
                    self.device.storage_mut().disk_mut().rot(running.area(), bit);
                }
            }
            Job::Install(_, InstallOp::Activate) => self.world.activating = true,
            Job::Install(_, InstallOp::Confirm) => {
                self.world.confirming = true;
                confirms = true;
            }
            Job::Install(..) | Job::FindRoom => {}
        }
        match self.device.carry_out(job) {
            Done::Stored(_, StoreAnswer::Stored(Ok(()))) if is_checkpoint => self.world.unflushed = 0,
            // What was found of an earlier process is durable now.
            Done::Stored(_, StoreAnswer::Opened(Ok(found))) => {
                self.world.unflushed = 0;
                self.world.has_payload = found.held.is_complete();
            }
            Done::Stored(_, StoreAnswer::Stored(Ok(()))) => {
                self.world.delivered = (self.world.delivered + chunks).min(self.world.service.served);
                self.world.unflushed += chunks;
            }
            Done::Installed(_, Ok(())) => self.world.confirmed |= confirms,
            _ => {}
        }
    }
}
