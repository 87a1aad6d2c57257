//! One device of a swarm: the task that carries out what its machine wants.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;

use tokio::time::Sleep;

use super::{DeviceEnd, Identity, Input, Machine, Output, SwarmPlan};
use crate::clock::{Clock, Moment};
use crate::error::ClientError;
use crate::fleet::{DeviceState, Fleet};
use crate::link::Link;
use crate::meter::{Ledger, Part};
use crate::mqtt::{Client, ClientOptions, Event};
use crate::outage::Cuts;
use crate::seed::{Draws, Stream};
use crate::shape::Path;

/// Runs one device from when it comes on until it is finished or given up.
///
/// Cancelling it loses its ledger and leaves it in the fleet's counters; nothing else.
pub async fn run_device<M: Machine>(
    number: u32,
    identity: Identity,
    machine: M,
    plan: Arc<SwarmPlan>,
    clock: Clock,
    fleet: Arc<Fleet>,
) -> DeviceEnd<M> {
    let start = Draws::new(plan.seed, number, Stream::Start).between(0.0, plan.start_within.as_secs_f64());
    let began = Moment::START + Duration::from_secs_f64(start);
    clock.sleep_until(began).await;
    let mut device = Device {
        number,
        machine,
        cuts: Cuts::new(&plan.outages, plan.seed, number, clock.now()),
        timer: Box::pin(clock.sleep_until(began)),
        options: ClientOptions {
            client_id: identity.client_id,
            login: identity.login,
            keep_alive_s: u16::try_from(plan.keep_alive.as_secs()).unwrap_or(u16::MAX),
            packet_bytes_max: plan.packet_bytes_max,
            classify: plan.classify,
        },
        plan,
        clock,
        fleet,
        ledger: Ledger::default(),
        received: 0,
        attempts: 0,
        state: DeviceState::Idle,
    };
    let finished = device.run().await;
    let Device { machine, ledger, state, clock, .. } = device;
    DeviceEnd { number, machine, ledger, finished, state, began, ended: clock.now() }
}

struct Device<M> {
    number: u32,
    machine: M,
    plan: Arc<SwarmPlan>,
    options: ClientOptions,
    clock: Clock,
    fleet: Arc<Fleet>,
    cuts: Cuts,
    timer: Pin<Box<Sleep>>,
    ledger: Ledger,
    /// Bytes that reached it in all connections with a login.
    received: u64,
    attempts: u32,
    state: DeviceState,
}

/// Why a connection is over.
#[derive(Debug)]
enum Over {
    /// The machine is finished.
    Finished,
    /// The machine hung up.
    HungUp,
    /// It is time to give up.
    GivenUp,
    /// The plan cut it.
    Cut,
    /// Anything else.
    Failed(ClientError),
}

impl<M: Machine> Device<M> {
    /// Whether the machine came to its end.
    async fn run(&mut self) -> bool {
        loop {
            if self.clock.now() >= self.plan.give_up_at {
                return false;
            }
            let over = self.connection().await;
            let now = self.clock.now();
            let mut ready = now;
            match over {
                Over::Finished => return true,
                Over::GivenUp => return false,
                Over::HungUp => {}
                Over::Cut => ready = self.cuts.cut(now),
                Over::Failed(error) => self.fleet.trouble(|| chain(&error)),
            }
            ready = ready.max(now + self.machine.reconnect_after());
            if self.offline_until(ready).await {
                return true;
            }
        }
    }

    /// One connection, from the first attempt to its end; the machine is told of it if it comes about.
    async fn connection(&mut self) -> Over {
        let attempt = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        let path = Path {
            rates: self.plan.profile.rates(self.plan.seed, self.number),
            round_trip: self.plan.profile.round_trip(self.plan.seed, self.number, attempt),
            cut: self.cuts.next(self.received),
            quantum: self.clock.virtual_time(self.plan.wake_every),
        };
        let login = async {
            let link = Link::connect(self.plan.broker, &path, self.clock.clone()).await?;
            // The account of what comes before CONNACK is not the device's, so nothing is lost with a failed login.
            Client::login(link, self.options.clone(), &mut self.ledger).await
        };
        self.clock.reset(self.timer.as_mut(), self.clock.now() + LOGIN_WITHIN);
        let mut client = match or_timer(login, self.timer.as_mut()).await {
            Some(Ok((client, _))) => client,
            Some(Err(error)) if error.is_cut() => return self.was_cut(),
            Some(Err(error)) => return Over::Failed(error),
            None => return Over::Failed(ClientError::Silent { waited_s: LOGIN_WITHIN.as_secs() }),
        };
        self.fleet.connected();
        self.machine.handle_input(self.clock.now(), Input::Connected);
        let mut over = self.converse(&mut client).await;
        if matches!(over, Over::Finished | Over::HungUp) {
            self.clock.reset(self.timer.as_mut(), self.clock.now() + CLOSE_WITHIN);
            let closed = or_timer(client.close(&mut self.ledger), self.timer.as_mut()).await;
            // The cut may still come while the last words are on their way. What is finished stays finished.
            if let (Over::HungUp, Some(Err(error))) = (&over, closed)
                && error.is_cut()
            {
                over = self.was_cut();
            }
        }
        let link = client.finish(&mut self.ledger);
        self.received += link.received();
        self.fleet.disconnected();
        if !matches!(over, Over::Finished) {
            self.machine.handle_input(self.clock.now(), Input::Disconnected);
        }
        over
    }

    /// Lets the machine and the broker talk until the connection is over.
    async fn converse(&mut self, client: &mut Client<Link>) -> Over {
        let mut backlog = VecDeque::new();
        let mut sent_at = self.clock.now();
        let mut pinged = false;
        loop {
            if let Some(over) = self.carry_out(client, &mut backlog) {
                return over;
            }
            if client.queued_bytes() > 0 {
                sent_at = self.clock.now();
            }
            let ping_at = sent_at + self.plan.keep_alive;
            let timeout = self.machine.poll_timeout();
            let until = timeout.map_or(ping_at, |moment| moment.min(ping_at)).min(self.plan.give_up_at);
            self.clock.reset(self.timer.as_mut(), until);
            let outcome = or_timer(client.next(&mut self.ledger), self.timer.as_mut()).await;
            let now = self.clock.now();
            match outcome {
                Some(Ok(Event::Message { topic, payload, .. })) => {
                    self.machine.handle_input(now, Input::Message { topic: &topic, payload: &payload });
                    continue;
                }
                Some(Ok(Event::Activity)) => {
                    self.machine.handle_input(now, Input::Activity);
                    continue;
                }
                Some(Ok(Event::Pong)) => pinged = false,
                Some(Ok(Event::Subscribed(granted))) if granted.contains(&false) => {
                    self.fleet.trouble(|| "the broker refused a subscription".to_owned());
                }
                Some(Ok(Event::Subscribed(_) | Event::Acknowledged(_))) | None => {}
                Some(Err(error)) if error.is_cut() => return self.was_cut(),
                Some(Err(error)) => return Over::Failed(error),
            }
            if now >= self.plan.give_up_at {
                return Over::GivenUp;
            }
            if now >= ping_at {
                if core::mem::replace(&mut pinged, true) {
                    return Over::Failed(ClientError::Silent { waited_s: self.plan.keep_alive.as_secs() });
                }
                if let Err(error) = client.ping() {
                    return Over::Failed(error);
                }
            }
            if timeout.is_some_and(|moment| moment <= now) {
                self.machine.handle_input(now, Input::Timeout);
            }
        }
    }

    /// Does everything that the machine wants. What the link does not take yet waits in the backlog.
    fn carry_out(&mut self, client: &mut Client<Link>, backlog: &mut VecDeque<Output>) -> Option<Over> {
        let mut over = None;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::HangUp => over = over.or(Some(Over::HungUp)),
                Output::Finished => over = Some(Over::Finished),
                Output::Publish { .. } | Output::Subscribe(_) if over.is_none() => backlog.push_back(output),
                output => self.note(output),
            }
        }
        while client.has_room()
            && let Some(output) = backlog.pop_front()
        {
            let outcome = match output {
                Output::Publish { topic, payload, delivery } => {
                    client.publish(&topic, payload, delivery).map(|_| ())
                }
                Output::Subscribe(topics) => client.subscribe(&topics),
                _ => Ok(()),
            };
            if let Err(error) = outcome {
                return Some(Over::Failed(error));
            }
        }
        if backlog.len() > BACKLOG_MAX {
            let (queued, limit) = (backlog.len(), BACKLOG_MAX);
            return Some(over.unwrap_or(Over::Failed(ClientError::Full { what: "messages", queued, limit })));
        }
        over
    }

    /// Waits without a connection until `ready` and until the link is there; true where the machine is finished.
    async fn offline_until(&mut self, ready: Moment) -> bool {
        loop {
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Finished => return true,
                    output => self.note(output),
                }
            }
            let now = self.clock.now();
            let ready = self.cuts.away_until(now).map_or(ready, |back| back.max(ready));
            if now >= ready.min(self.plan.give_up_at) {
                return false;
            }
            let timeout = self.machine.poll_timeout().filter(|moment| *moment < ready);
            self.clock.reset(self.timer.as_mut(), timeout.unwrap_or(ready).min(self.plan.give_up_at));
            self.timer.as_mut().await;
            if timeout.is_some_and(|moment| moment <= self.clock.now()) {
                self.machine.handle_input(self.clock.now(), Input::Timeout);
            }
        }
    }

    /// Notes what needs no connection; what does need one is dropped, as a message to nowhere is.
    fn note(&mut self, output: Output) {
        match output {
            Output::Carried { part, first_bytes, repeated_bytes } => {
                self.ledger.carried(part, first_bytes, repeated_bytes);
                if part == Part::Chunks {
                    self.fleet.fetched(first_bytes);
                }
            }
            Output::State(state) => {
                self.fleet.changed(self.state, state);
                self.state = state;
            }
            Output::Publish { .. } | Output::Subscribe(_) | Output::HangUp | Output::Finished => {}
        }
    }

    fn was_cut(&mut self) -> Over {
        self.ledger.cut();
        self.fleet.cut();
        Over::Cut
    }
}

/// The outcome of `work`, or `None` where the timer fires first.
async fn or_timer<T>(work: impl Future<Output = T>, mut timer: Pin<&mut Sleep>) -> Option<T> {
    let mut work = core::pin::pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// An error with its causes, in one line.
fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Longest that a connection and login may take, in virtual time: three minutes are not too much on the worst links.
const LOGIN_WITHIN: Duration = Duration::from_secs(300);
/// Messages of one machine that may wait for its link. More means that the machine does not mind the link at all.
const BACKLOG_MAX: usize = 64;
/// Longest that a good-bye may take, in virtual time.
const CLOSE_WITHIN: Duration = Duration::from_secs(120);
