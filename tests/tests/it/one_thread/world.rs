//! A service, its devices, the links between them, and one virtual clock: whatever is next happens, in one loop.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use whimbrel_engine::Input;
use whimbrel_protocol::ids::{DeviceId, Prefix};
use whimbrel_protocol::retry::Jitter;
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic;
use whimbrel_service::attach::{Delivery, Incoming, Outgoing};
use whimbrel_service::{fleet, serving};

use super::device::{Member, Wanted};
use super::service::Service;

/// Everything that there is.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: Instant,
    pub(super) service: Service,
    pub(super) members: Vec<Member>,
    pub(super) trace: Vec<Line>,
    /// Messages that were lost, and connections that broke.
    pub(super) lost: usize,
    pub(super) broken: usize,
    brokers: Vec<Broker>,
    draw: Jitter,
    under_way: BTreeMap<(Instant, u64), Arrival>,
    count: u64,
    /// When the last message of a lane arrives: what a device sends keeps its order, and what it gets does so within
    /// a topic.
    lanes: BTreeMap<(usize, Option<String>), Instant>,
    /// How often a machine was woken at this very moment.
    woken: BTreeMap<Machine, u32>,
}

/// One line of the trace: when, who, what, and the SHA-256 of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    at: Instant,
    who: String,
    what: String,
    sha256: String,
}

/// The broker of one link.
#[derive(Default)]
struct Broker {
    retained: BTreeMap<String, Bytes>,
    subscribers: BTreeMap<String, BTreeSet<usize>>,
}

/// Something that arrives somewhere.
enum Arrival {
    Connected { device: usize },
    Subscription { device: usize, connection: u32, topics: Vec<String> },
    ToService { device: usize, connection: u32, topic: String, payload: Bytes },
    ToDevice { device: usize, connection: u32, topic: String, payload: Bytes },
}

/// What has a time at which it wants to be woken. The earlier variant goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Machine {
    Links,
    Fleet,
    Serving(usize),
    Device(usize),
}

/// How long a message takes.
const DELAY_MS: (u64, u64) = (20, 200);
/// How much longer it takes at QoS 1 if it has to be sent again.
const AGAIN_MS: u64 = 2000;
/// How many messages of a thousand do not come through at the first try, and with how many the connection breaks.
const LOST: u64 = 30;
const BREAKS: u64 = 3;
/// How often a machine may be woken at one moment. A serving needs more than one turn for what it has begun.
const WOKEN_MAX: u32 = 16;
/// No step of a campaign takes longer than this.
const LIMIT_MS: u64 = 6 * 3600 * 1000;

impl World {
    /// Devices that run `old`, alternating over the links.
    pub(super) fn new(seed: u64, links: usize, devices: usize, old: &[u8]) -> Self {
        let service = Service::new(links, seed);
        let id = |number| DeviceId::new(&format!("dev-{number:03}")).unwrap();
        let member = |number| Member::new(&service.fixture, id(number), old, seed);
        let members = (0..devices).map(member).collect();
        let mut world = Self {
            seed,
            now: Instant::ZERO,
            service,
            members,
            trace: Vec::new(),
            lost: 0,
            broken: 0,
            brokers: (0..links).map(|_| Broker::default()).collect(),
            draw: Jitter::new(seed),
            under_way: BTreeMap::new(),
            count: 0,
            lanes: BTreeMap::new(),
            woken: BTreeMap::new(),
        };
        for link in 0..links {
            world.service.serve(world.now, link, serving::Input::Up);
        }
        for device in 0..devices {
            let wait = world.draw.below(3000);
            world.schedule(wait, Arrival::Connected { device });
        }
        world
    }

    /// Which link a device is on.
    pub(super) fn link_of(&self, device: usize) -> usize {
        device % self.brokers.len()
    }

    /// Goes on until `done`.
    pub(super) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now.plus_millis(LIMIT_MS);
        self.route();
        while !done(self) {
            let (at, machine) = self.next();
            assert!(at <= end, "seed {}: not within {LIMIT_MS} ms: {what}", self.seed);
            self.step(at, machine);
        }
    }

    /// Goes on for so long.
    pub(super) fn run_for(&mut self, ms: u64) {
        let end = self.now.plus_millis(ms);
        self.route();
        loop {
            let (at, machine) = self.next();
            if at > end {
                break;
            }
            self.step(at, machine);
        }
        self.now = end;
    }

    /// What is next, and when.
    fn next(&self) -> (Instant, Machine) {
        let arrival = self.under_way.keys().next().map(|(at, _)| (*at, Machine::Links));
        let fleet = (self.service.fleet.poll_timeout(), Machine::Fleet);
        let servings = self.service.servings.iter().enumerate();
        let servings = servings.map(|(link, serving)| (serving.poll_timeout(), Machine::Serving(link)));
        let devices = self.members.iter().enumerate();
        let devices = devices
            .filter_map(|(number, member)| Some((member.device.poll_timeout()?, Machine::Device(number))));
        let all = arrival.into_iter().chain([fleet]).chain(servings).chain(devices);
        all.map(|(at, machine)| (at.max(self.now), machine))
            .min()
            .expect("the fleet always waits for something")
    }

    fn step(&mut self, at: Instant, machine: Machine) {
        if self.now < at {
            self.now = at;
            self.woken.clear();
        }
        if machine != Machine::Links {
            let woken = self.woken.entry(machine).or_default();
            *woken += 1;
            let (seed, woken) = (self.seed, *woken);
            assert!(
                woken <= WOKEN_MAX,
                "seed {seed}: {machine:?} wants to be woken again and again at {at:?}"
            );
            self.note(format!("{machine:?}"), "woken", &[]);
        }
        match machine {
            Machine::Links => {
                let (_, arrival) = self.under_way.pop_first().expect("it is due");
                self.arrive(arrival);
            }
            Machine::Fleet => self.service.decide(at, fleet::Input::Timeout),
            Machine::Serving(link) => self.service.serve(at, link, serving::Input::Timeout),
            Machine::Device(device) => self.feed(device, Input::Timeout),
        }
        self.route();
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Connected { device } => {
                self.members[device].connected = true;
                self.note(self.members[device].id.to_string(), "connected", &[]);
                self.feed(device, Input::Connected);
            }
            Arrival::Subscription { device, connection, topics } => {
                if self.is_on(device, connection) {
                    self.subscribe(device, topics);
                }
            }
            Arrival::ToService { device, connection, topic, payload } => {
                if !self.is_on(device, connection) && self.draw.below(2) == 0 {
                    self.lost += 1;
                    return;
                }
                self.note("service".to_owned(), &topic, &payload);
                let link = self.link_of(device);
                let message = Incoming { topic: Bytes::from(topic), payload, retained: false };
                self.service.hear(self.now, link, &message);
            }
            Arrival::ToDevice { device, connection, topic, payload } => {
                if !self.is_on(device, connection) {
                    return;
                }
                if self.draw.below(1000) < BREAKS {
                    self.broken += 1;
                    self.feed(device, Input::Disconnected);
                    self.reconnect(device);
                    return;
                }
                self.note(self.members[device].id.to_string(), &topic, &payload);
                self.members[device].reconnect.reset();
                let channel = topic::parse(&Prefix::default(), &topic).unwrap().channel;
                self.feed(device, Input::Message { channel, payload: &payload });
            }
        }
    }

    fn is_on(&self, device: usize, connection: u32) -> bool {
        let member = &self.members[device];
        member.connected && member.connection == connection
    }

    fn subscribe(&mut self, device: usize, topics: Vec<String>) {
        let link = self.link_of(device);
        for topic in topics {
            if let Some(payload) = self.brokers[link].retained.get(&topic).cloned() {
                self.send_to_device(device, topic.clone(), payload, true);
            }
            self.brokers[link].subscribers.entry(topic).or_default().insert(device);
        }
    }

    /// Tells a device what happened, and sends what it has to say.
    fn feed(&mut self, device: usize, input: Input<'_>) {
        for wanted in self.members[device].feed(self.now, input) {
            let (connection, connected) = (self.members[device].connection, self.members[device].connected);
            match wanted {
                Wanted::Reconnect => self.reconnect(device),
                Wanted::Subscribe(_) | Wanted::Publish(_) if !connected => {}
                Wanted::Subscribe(channels) => {
                    let id = &self.members[device].id;
                    let topics = channels.iter().map(|channel| channel.topic(&Prefix::default(), id));
                    let topics = topics.collect();
                    self.send(device, None, true, Arrival::Subscription { device, connection, topics });
                }
                Wanted::Publish(publish) => {
                    let id = &self.members[device].id;
                    let topic = publish.channel.topic(&Prefix::default(), id);
                    let payload = Bytes::from(publish.payload);
                    self.note(id.to_string(), &topic, &payload);
                    let message = Arrival::ToService { device, connection, topic, payload };
                    self.send(device, None, publish.at_least_once, message);
                }
            }
        }
    }

    /// The connection of a device is gone; it gets another one after a while.
    fn reconnect(&mut self, device: usize) {
        let link = self.link_of(device);
        for subscribers in self.brokers[link].subscribers.values_mut() {
            subscribers.remove(&device);
        }
        let member = &mut self.members[device];
        if member.connected {
            member.connected = false;
            member.connection += 1;
            let wait = 1000 + member.reconnect.next_wait_ms();
            self.schedule(wait, Arrival::Connected { device });
        }
    }

    /// Takes what the service has published to those who have subscribed to it.
    fn route(&mut self) {
        while let Some(changes) = self.service.stored.pop_front() {
            self.note("fleet".to_owned(), "stores", changes.as_bytes());
        }
        while let Some((link, message)) = self.service.sent.pop_front() {
            let Outgoing { topic, payload, delivery, retain } = message;
            let topic = String::from_utf8(topic.to_vec()).unwrap();
            self.note(format!("link {link}"), &topic, &payload);
            if retain {
                self.brokers[link].retained.insert(topic.clone(), payload.clone());
            }
            let subscribers = self.brokers[link].subscribers.get(&topic).cloned().unwrap_or_default();
            for device in subscribers {
                let at_least_once = delivery == Delivery::AtLeastOnce;
                self.send_to_device(device, topic.clone(), payload.clone(), at_least_once);
            }
        }
    }

    fn send_to_device(&mut self, device: usize, topic: String, payload: Bytes, at_least_once: bool) {
        let connection = self.members[device].connection;
        let lane = Some(topic.clone());
        let message = Arrival::ToDevice { device, connection, topic, payload };
        self.send(device, lane, at_least_once, message);
    }

    /// Sends something over the link: it takes its time, and comes not at all or later if it does not come through.
    fn send(&mut self, device: usize, lane: Option<String>, at_least_once: bool, what: Arrival) {
        let mut wait = DELAY_MS.0 + self.draw.below(DELAY_MS.1 - DELAY_MS.0);
        if self.draw.below(1000) < LOST {
            if !at_least_once {
                self.lost += 1;
                return;
            }
            wait += AGAIN_MS;
        }
        let last = self.lanes.entry((device, lane)).or_default();
        *last = (*last).max(self.now.plus_millis(wait));
        let wait = last.millis_since(self.now);
        self.schedule(wait, what);
    }

    fn schedule(&mut self, wait_ms: u64, arrival: Arrival) {
        self.count += 1;
        self.under_way.insert((self.now.plus_millis(wait_ms), self.count), arrival);
    }

    fn note(&mut self, who: String, what: &str, bytes: &[u8]) {
        let sha256 = hex::encode(Sha256::digest(bytes));
        self.trace.push(Line { at: self.now, who, what: what.to_owned(), sha256 });
    }
}
