//! The driver of a device against mosquitto. The machines here are toys that fetch numbered pieces from a toy service:
//! enough of a transfer to see that cuts, the ledger and the counters fit together.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::task::JoinSet;
use tokio::time::timeout;

use whimbrel_sim::clock::{Clock, Moment};
use whimbrel_sim::fleet::{DeviceState, Fleet};
use whimbrel_sim::link::Link;
use whimbrel_sim::meter::{Ledger, Part};
use whimbrel_sim::mqtt::{Client, Delivery, Event};
use whimbrel_sim::outage::Outages;
use whimbrel_sim::profile::{Profile, Profiles};
use whimbrel_sim::seed::Seed;
use whimbrel_sim::swarm::{DeviceEnd, Identity, Input, Machine, Output, SwarmPlan, run_device};

use crate::broker::Mosquitto;
use crate::support::{CHUNK, CHUNK_HEADER_BYTES, PATIENCE, REQUEST, UNSHAPED, classify, clock, options};

const PIECES: u16 = 60;
const PIECE_BYTES: usize = 2000;
const WINDOW: usize = 4;
const TRANSFER_BYTES: u64 = PIECES as u64 * PIECE_BYTES as u64;

/// Fetches all pieces, a few at a time; asks again for what is missing on each connection and when nothing comes.
#[derive(Debug)]
struct Fetcher {
    name: String,
    missing: BTreeSet<u16>,
    asked: BTreeSet<u16>,
    outputs: Vec<Output>,
    silent_at: Option<Moment>,
    connections: u32,
    timeouts: u32,
    gone_at: Option<Moment>,
    shortest_gap: Duration,
    retry_after: Duration,
    drained: bool,
}

impl Fetcher {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            missing: (0..PIECES).collect(),
            asked: BTreeSet::new(),
            outputs: Vec::new(),
            silent_at: None,
            connections: 0,
            timeouts: 0,
            gone_at: None,
            shortest_gap: Duration::MAX,
            retry_after: Duration::from_millis(500),
            drained: true,
        }
    }

    fn ask(&mut self) {
        let wanted: Vec<u16> = self.missing.difference(&self.asked).copied().collect();
        for piece in wanted.into_iter().take(WINDOW.saturating_sub(self.asked.len())) {
            self.asked.insert(piece);
            let mut payload = BytesMut::new();
            payload.put_u8(REQUEST);
            payload.put_u16(piece);
            let topic = format!("ota/d/{}/q", self.name);
            self.outputs.push(Output::Publish {
                topic,
                payload: payload.freeze(),
                delivery: Delivery::AtMostOnce,
            });
        }
    }

    fn received(&mut self, payload: &[u8]) {
        let piece = u16::from_be_bytes([payload[2], payload[3]]);
        let bytes = payload.len() as u64 - u64::from(CHUNK_HEADER_BYTES);
        self.asked.remove(&piece);
        let (first_bytes, repeated_bytes) = if self.missing.remove(&piece) { (bytes, 0) } else { (0, bytes) };
        self.outputs.push(Output::Carried { part: Part::Chunks, first_bytes, repeated_bytes });
        if self.missing.is_empty() {
            self.outputs.push(Output::State(DeviceState::Confirmed));
            self.outputs.push(Output::Finished);
        }
    }
}

impl Machine for Fetcher {
    fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        assert!(self.drained && self.outputs.is_empty(), "outputs are drained before the next input");
        self.drained = false;
        match input {
            Input::Connected => {
                self.connections += 1;
                if let Some(gone_at) = self.gone_at {
                    self.shortest_gap = self.shortest_gap.min(now.since(gone_at));
                }
                self.asked.clear();
                self.outputs.push(Output::State(DeviceState::Downloading));
                let topic = format!("ota/d/{}/c", self.name);
                self.outputs.push(Output::Subscribe(vec![(topic, Delivery::AtMostOnce)]));
                self.ask();
            }
            Input::Disconnected => {
                self.gone_at = Some(now);
                self.outputs.push(Output::State(DeviceState::Deferred));
            }
            Input::Message { payload, .. } => {
                self.received(payload);
                self.ask();
            }
            Input::Activity => {}
            Input::Timeout => {
                self.timeouts += 1;
                self.asked.clear();
                self.ask();
            }
        }
        self.silent_at = Some(now + Duration::from_secs(60));
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.drained = true;
            return None;
        }
        Some(self.outputs.remove(0))
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.silent_at
    }

    fn reconnect_after(&mut self) -> Duration {
        self.retry_after
    }
}

/// Answers every request with its piece, until the broker is gone.
async fn serve(broker: Arc<Mosquitto>, clock: Clock) {
    serve_copies(broker, clock, 1).await;
}

/// As [`serve`], each piece so many times.
async fn serve_copies(broker: Arc<Mosquitto>, clock: Clock, copies: usize) {
    let link = Link::connect(broker.address, &UNSHAPED, clock).await.unwrap();
    let mut ledger = Ledger::default();
    let (mut client, _) = Client::login(link, options("service"), &mut ledger).await.unwrap();
    client.subscribe(&[("ota/d/+/q".to_owned(), Delivery::AtMostOnce)]).unwrap();
    let mut answers = alloc::collections::VecDeque::<(String, bytes::Bytes)>::new();
    loop {
        while client.has_room() {
            let Some((topic, payload)) = answers.pop_front() else { break };
            client.publish(&topic, payload, Delivery::AtMostOnce).unwrap();
        }
        if let Event::Message { topic, payload, .. } = client.next(&mut ledger).await.unwrap() {
            let mut answer = BytesMut::from(&[CHUNK, 0][..]);
            answer.extend_from_slice(&payload[1..3]);
            answer.put_bytes(0xda, PIECE_BYTES);
            let answer = (topic.replace("/q", "/c"), answer.freeze());
            answers.extend(core::iter::repeat_n(answer, copies));
        }
    }
}

fn profile() -> Arc<Profile> {
    let text = r#"
        [[profile]]
        name = "test"
        about = "slow enough to be cut in the middle"
        source = "none"
        [profile.link]
        down_kbit_s = { p10 = 60, p50 = 100, peak = 200 }
        up_p50_kbit_s = 100
        round_trip_s = { p50 = 0.1, p95 = 0.2 }
        connected_mean_s = 5
        outage_mean_s = 5
    "#;
    Arc::new(Profiles::parse(text).unwrap().named("test").unwrap().clone())
}

fn plan(devices: u32, broker: core::net::SocketAddr, outages: Outages) -> Arc<SwarmPlan> {
    Arc::new(SwarmPlan {
        devices,
        broker,
        profile: profile(),
        outages,
        seed: Seed(11),
        start_within: Duration::from_secs(5),
        give_up_at: Moment::START + Duration::from_secs(100_000),
        keep_alive: Duration::from_secs(600),
        packet_bytes_max: 70_000,
        wake_every: Duration::from_millis(20),
        classify,
    })
}

async fn run(plan: &Arc<SwarmPlan>, clock: &Clock, fleet: &Arc<Fleet>) -> Vec<DeviceEnd<Fetcher>> {
    run_patient(plan, clock, fleet, Duration::from_millis(500)).await
}

/// As [`run`], with machines that wait so long before they connect again.
async fn run_patient(
    plan: &Arc<SwarmPlan>,
    clock: &Clock,
    fleet: &Arc<Fleet>,
    retry_after: Duration,
) -> Vec<DeviceEnd<Fetcher>> {
    let mut tasks = JoinSet::new();
    for number in 0..plan.devices {
        let name = format!("d{number}");
        let identity = Identity { client_id: name.clone(), login: None };
        let machine = Fetcher { retry_after, ..Fetcher::new(&name) };
        tasks.spawn(run_device(number, identity, machine, plan.clone(), clock.clone(), fleet.clone()));
    }
    timeout(PATIENCE, tasks.join_all()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_is_cut_as_often_as_planned_and_finishes_with_closed_books() {
    let broker = Arc::new(Mosquitto::start());
    let clock = clock(20);
    let service = tokio::spawn(serve(broker.clone(), clock.clone()));
    let (devices, cuts) = (30, 3);
    let plan = plan(devices, broker.address, Outages::Planned { cuts, transfer_bytes: TRANSFER_BYTES });
    let fleet = Arc::new(Fleet::new(devices));
    let ends = run(&plan, &clock, &fleet).await;
    service.abort();
    let mut sum = Ledger::default();
    for end in &ends {
        assert!(end.finished && end.machine.missing.is_empty(), "device {}", end.number);
        assert_eq!(end.ledger.check(), Ok(()), "device {}", end.number);
        assert_eq!(end.ledger.payload_bytes(), TRANSFER_BYTES);
        assert_eq!(end.ledger.link_cuts, u64::from(cuts), "device {}", end.number);
        assert_eq!(end.ledger.connections, u64::from(end.machine.connections));
        assert!(end.machine.shortest_gap >= Duration::from_secs(1), "a cut lasts 1 s at least");
        let in_vain = end.ledger.refetched_bytes();
        // A piece whose request was answered just before the cut may come twice; so much can be on its way.
        let at_most = u64::from(cuts + 1 + end.machine.timeouts) * (WINDOW + 1) as u64 * PIECE_BYTES as u64;
        assert!(in_vain <= at_most, "device {}: {in_vain}", end.number);
        sum += &end.ledger;
    }
    assert_eq!(ends.len(), 30);
    assert!(sum.refetched_bytes() > 0, "90 cuts at drawn bytes hit messages");
    let counts = fleet.counts();
    assert_eq!((counts.link_cuts, counts.connected), (sum.link_cuts, 0));
    assert_eq!(counts.in_state(DeviceState::Confirmed), 30);
    assert_eq!(counts.chunk_bytes, sum.chunk_bytes);
    assert_eq!(counts.troubles, 0, "{:?}", counts.last_trouble);
}

#[tokio::test]
async fn a_piece_that_comes_twice_is_payload_once() {
    let broker = Arc::new(Mosquitto::start());
    let clock = clock(20);
    let service = tokio::spawn(serve_copies(broker.clone(), clock.clone(), 2));
    let plan = plan(1, broker.address, Outages::NONE);
    let fleet = Arc::new(Fleet::new(1));
    let ends = run(&plan, &clock, &fleet).await;
    service.abort();
    let ledger = &ends[0].ledger;
    assert!(ends[0].finished);
    assert_eq!(ledger.check(), Ok(()));
    assert_eq!((ledger.payload_bytes(), fleet.counts().chunk_bytes), (TRANSFER_BYTES, TRANSFER_BYTES));
    // The copy of the last piece comes when everything is over, or not at all.
    let copies = TRANSFER_BYTES - PIECE_BYTES as u64;
    assert!(ledger.repeated_bytes >= copies, "{ledger:?}");
    assert_eq!(ledger.refetched_bytes(), ledger.repeated_bytes + ledger.cut_short_bytes);
    let carried = ledger.data_messages * PIECE_BYTES as u64;
    let booked = ledger.payload_bytes() + ledger.repeated_bytes;
    assert!(booked <= carried && carried - booked <= PIECE_BYTES as u64, "{ledger:?}");
}

#[tokio::test]
async fn links_that_come_and_go_by_profile_do_not_stop_an_update() {
    let broker = Arc::new(Mosquitto::start());
    let clock = clock(40);
    let service = tokio::spawn(serve(broker.clone(), clock.clone()));
    let plan = plan(10, broker.address, Outages::by_profile(&profile()));
    let fleet = Arc::new(Fleet::new(10));
    let ends = run(&plan, &clock, &fleet).await;
    service.abort();
    assert!(ends.iter().all(|end| end.finished && end.ledger.check().is_ok()));
    assert!(fleet.counts().link_cuts > 0, "10 devices for 10 s and more, lost every 5 s");
}

#[tokio::test]
async fn the_same_seed_comes_on_at_the_same_time() {
    let broker = Arc::new(Mosquitto::start());
    let mut starts = Vec::new();
    for _ in 0..2 {
        let clock = clock(20);
        let service = tokio::spawn(serve(broker.clone(), clock.clone()));
        let plan = plan(3, broker.address, Outages::NONE);
        let mut ends = run(&plan, &clock, &Arc::new(Fleet::new(3))).await;
        service.abort();
        ends.sort_by_key(|end| end.number);
        starts.push(ends.iter().map(|end| end.began).collect::<Vec<_>>());
        assert!(
            ends.iter().all(|end| end.ledger.refetched_bytes() == 0),
            "nothing is cut, nothing comes twice"
        );
    }
    assert_eq!(starts[0], starts[1]);
    assert_ne!(starts[0][0], starts[0][1]);
}

#[tokio::test]
async fn without_a_broker_devices_try_until_they_are_given_up() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clock = clock(100);
    let mut plan = Arc::unwrap_or_clone(plan(2, nobody, Outages::NONE));
    plan.give_up_at = Moment::START + Duration::from_secs(20);
    let fleet = Arc::new(Fleet::new(2));
    let ends = run_patient(&Arc::new(plan), &clock, &fleet, Duration::from_secs(5)).await;
    for end in &ends {
        assert!(!end.finished && end.ended >= Moment::START + Duration::from_secs(20));
        assert_eq!(end.ledger, Ledger::default());
    }
    let counts = fleet.counts();
    assert!(counts.troubles <= 2 * 5, "one attempt every 5 s: {}", counts.troubles);
    assert!(counts.troubles >= 2 && counts.last_trouble.as_ref().unwrap().contains("refused"));
    assert_eq!(counts.in_state(DeviceState::Idle), 2);
}

/// A machine that wants nothing but to stay connected.
struct Idler(u32);

impl Machine for Idler {
    fn handle_input(&mut self, _: Moment, _: Input<'_>) {
        self.0 += 1;
    }

    fn poll_output(&mut self) -> Option<Output> {
        None
    }

    fn poll_timeout(&self) -> Option<Moment> {
        None
    }

    fn reconnect_after(&mut self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn an_idle_device_pings_and_stays_connected() {
    let broker = Mosquitto::start();
    let clock = clock(100);
    let mut plan = Arc::unwrap_or_clone(plan(1, broker.address, Outages::NONE));
    plan.keep_alive = Duration::from_secs(10);
    plan.give_up_at = Moment::START + Duration::from_secs(100);
    let identity = Identity { client_id: "d0".to_owned(), login: None };
    let fleet = Arc::new(Fleet::new(1));
    let device = run_device(0, identity, Idler(0), Arc::new(plan), clock, fleet.clone());
    let end = timeout(PATIENCE, device).await.unwrap();
    assert_eq!(
        (end.ledger.connections, fleet.counts().troubles),
        (1, 0),
        "{:?}",
        fleet.counts().last_trouble
    );
    // Each ping is 2 bytes and its answer 2 more; a slow machine sends fewer.
    assert!(end.ledger.mqtt_bytes_up >= 4 && end.ledger.mqtt_bytes_up <= 2 * 10, "{:?}", end.ledger);
    assert_eq!(end.ledger.check(), Ok(()));
}
