//! One life of the agent on any disk: its session is fed what arrives, and its wishes are carried out.

use alloc::collections::VecDeque;

use whimbrel_engine::storage::{Storage, StoreAnswer};
use whimbrel_protocol::device::{
    DeviceSession, Event, HostOp, Input, InstallFailure, InstallOp, Output, StoreOp,
};
use whimbrel_protocol::ids::OpId;
use whimbrel_protocol::message::{Outcome, State};
use whimbrel_protocol::server::{Input as ServerInput, ServerSession};
use whimbrel_protocol::testing::{Direction, Faults, Packet, SeededLink};
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic::Channel;

use crate::power_cut_device::{End, Medium, Next, Violation, World};

/// Happenings in a life of the agent before it counts as stuck.
const HAPPENINGS_MAX: u64 = 20_000;

/// A life of the agent: from its start to a reboot, a cut or the end.
pub(crate) struct Life<'w, D> {
    world: &'w mut World<D>,
    storage: Storage<&'w mut D>,
    session: DeviceSession,
    server: ServerSession,
    link: SeededLink,
    connect_at: Option<Instant>,
    subscribed: Vec<Channel>,
    rebooting: bool,
}

enum Answered {
    Store(OpId, StoreAnswer),
    Install(OpId, Result<(), InstallFailure>),
    Disconnected,
}

impl<'w, D: Medium> Life<'w, D> {
    pub(crate) fn new(world: &'w mut World<D>, storage: Storage<&'w mut D>, session: DeviceSession) -> Self {
        let faults = Faults { delay_ms: (300, 300), rate: world.rate, lose: world.lose, ..Faults::default() };
        Self {
            link: SeededLink::new(faults, 1),
            server: ServerSession::new(world.service.fixture.device.clone(), world.now),
            connect_at: Some(world.now.plus_millis(2_000)),
            subscribed: Vec::new(),
            rebooting: false,
            world,
            storage,
            session,
        }
    }

    pub(crate) fn run(mut self) -> Result<Next, Violation> {
        self.drain();
        for _ in 0..HAPPENINGS_MAX {
            if self.storage.disk_mut().is_dead() {
                return Ok(Next::End(End::Dead));
            }
            if self.rebooting {
                return Ok(Next::Reboot);
            }
            if self.world.reverts_are_ends && self.has_report_of(Outcome::Reverted) {
                return Ok(Next::End(End::Reverted));
            }
            if self.is_done() {
                let sequence = self.storage.boot_view().running.sequence;
                let wanted = self.world.service.release().sequence;
                return match sequence == wanted {
                    true => Ok(Next::End(End::Confirmed)),
                    false => Err(Violation::Sequence(sequence)),
                };
            }
            let wake = [
                self.connect_at,
                self.link.next_arrival(),
                self.session.poll_timeout(),
                self.server.poll_timeout(),
            ];
            let Some(next) = wake.into_iter().flatten().min() else {
                break;
            };
            self.world.now = self.world.now.max(next);
            self.world.heal(self.storage.disk_mut());
            self.turn();
        }
        Err(Violation::Stuck(self.session.state()))
    }

    fn is_done(&self) -> bool {
        let acknowledged = self.session.record().reports.is_empty();
        self.session.state() == State::Confirmed && acknowledged && self.has_report_of(Outcome::Confirmed)
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
                Direction::Up => self.serve(ServerInput::Message { channel, payload: &payload }),
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
        self.session.handle_input(self.world.now, input);
        self.drain();
    }

    /// Carries out what the session wants, and feeds it the answers, until it wants nothing.
    fn drain(&mut self) {
        let mut answers = VecDeque::new();
        loop {
            while let Some(output) = self.session.poll_output() {
                answers.extend(self.carry_out(output));
                // Nothing comes after a restart or a cut, whatever else was wanted.
                if self.rebooting || self.storage.disk_mut().is_dead() {
                    return;
                }
            }
            let now = self.world.now;
            match answers.pop_front() {
                Some(Answered::Store(op, answer)) => self.session.handle_input(now, answer.as_input(op)),
                Some(Answered::Install(op, result)) => {
                    self.session.handle_input(now, Input::Installed { op, result });
                }
                Some(Answered::Disconnected) => self.session.handle_input(now, Input::Disconnected),
                None => return,
            }
        }
    }

    fn carry_out(&mut self, output: Output) -> Option<Answered> {
        match output {
            Output::Subscribe(channels) => {
                for channel in channels {
                    self.subscribed.push(channel.clone());
                    self.deliver_retained(&channel);
                }
                None
            }
            Output::Publish(publish) => {
                self.send(Direction::Up, publish.channel, publish.payload);
                None
            }
            Output::Disconnect => {
                self.link.cut();
                self.subscribed.clear();
                self.connect_at = Some(self.world.now.plus_millis(5_000));
                Some(Answered::Disconnected)
            }
            Output::Event(event) => {
                self.world.store_failures += u64::from(matches!(event, Event::StoreFailed(_)));
                None
            }
            Output::Store(op, what) => Some(Answered::Store(op, self.store(what))),
            Output::Install(op, what) => Some(Answered::Install(op, self.install(what))),
            Output::Host(_, HostOp::Reboot) => {
                self.rebooting = true;
                None
            }
            Output::Host(op, HostOp::CheckHealth) => {
                let bad = self.world.service.attempt <= self.world.unhealthy_attempts;
                Some(Answered::Install(op, if bad { Err(InstallFailure::Unhealthy) } else { Ok(()) }))
            }
        }
    }

    fn store(&mut self, what: StoreOp) -> StoreAnswer {
        let chunks = match &what {
            StoreOp::WriteChunks { bytes, .. } => bytes.len() as u64,
            _ => 0,
        };
        let is_checkpoint = matches!(what, StoreOp::SaveCheckpoint(_));
        let answer = self.storage.carry_out(what);
        match answer {
            StoreAnswer::Stored(Ok(())) if is_checkpoint => self.world.unflushed = 0,
            // What was found of an earlier process is durable now.
            StoreAnswer::Opened(Ok(ref found)) => {
                self.world.unflushed = 0;
                self.world.has_payload = found.held.is_complete();
            }
            StoreAnswer::Stored(Ok(())) => {
                self.world.delivered = (self.world.delivered + chunks).min(self.world.service.served);
                self.world.unflushed += chunks;
            }
            _ => {}
        }
        answer
    }

    fn install(&mut self, what: InstallOp) -> Result<(), InstallFailure> {
        // A session has all of it durable before it asks for this.
        self.world.has_payload |= what == InstallOp::Install;
        if what == InstallOp::Install
            && let Some(bit) = self.world.rots.take()
        {
            let running = self.storage.running();
            self.storage.disk_mut().rot(running.area(), bit);
        }
        self.world.activating |= what == InstallOp::Activate;
        self.world.confirming |= what == InstallOp::Confirm;
        let result = self.storage.install(what);
        self.world.confirmed |= what == InstallOp::Confirm && result.is_ok();
        result
    }
}
