//! How long devices wait for answers while operators read views all the time. Measured by hand, for `BENCHMARKS.md`:
//!
//! ```text
//! cargo test --release -p whimbrel-service --test it -- --ignored --nocapture views_measured
//! ```

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use serde_json::json;
use whimbrel_protocol::cose::{Kind, Sign1};
use whimbrel_protocol::ids::{CampaignId, ClassId, DeviceId, GroupName, Nonce, ShortDigest};
use whimbrel_protocol::message::{Hello, State};
use whimbrel_protocol::time::UnixTime;
use whimbrel_service::store::{
    CameBy, Change, Deployment, DeploymentRow, Device, Facts, Reported, SqliteStore, Standing, Store as _,
    Why,
};

use crate::front_support::Client;
use crate::service_support::{On, Service, device_key};

/// Registered devices.
const DEVICES: usize = 100_000;
/// Groups with a campaign each. Every device is in one, and in `all`.
const GROUPS: usize = 150;
/// Devices that say hello, one after the other, and how often.
const VOICES: usize = 60;
const HELLOS: usize = 2_000;
const BETWEEN_HELLOS: Duration = Duration::from_millis(10);

fn group(number: usize) -> GroupName {
    GroupName::new(&format!("g{:03}", number % GROUPS)).unwrap()
}

fn name(number: usize) -> String {
    format!("m{number:06}")
}

/// Puts the fleet into the service's database while it does not run.
fn register(service: &Service, class: ClassId, campaign: CampaignId) {
    let device = |number: usize| Device {
        id: DeviceId::new(&name(number)).unwrap(),
        class,
        standing: Standing::Accepted {
            key: device_key(1).public(),
            groups: vec![GroupName::new("all").unwrap(), group(number)],
            assignment: Bytes::from_static(b"not a document: nobody asks for it here"),
        },
        assignment_version: 1,
        facts: Facts { running: ShortDigest([1; 8]), sequence: 1, seen: UnixTime::from_secs(1_700_000_000) },
        reported: Reported::default(),
        rekeyed: None,
    };
    let deployment = |number: usize| DeploymentRow {
        campaign,
        device: DeviceId::new(&name(number)).unwrap(),
        deployment: Deployment {
            attempt: 1,
            report: 1,
            state: State::Confirmed,
            reason: Why::Unsaid,
            bytes_received: 4096,
            bytes_twice: 0,
            came_by: CameBy::default(),
            updated: UnixTime::from_secs(1_700_000_000),
        },
    };
    let devices = (0..DEVICES).map(|number| Change::Device(device(number)));
    let deployments = (0..DEVICES / 2).map(|number| Change::Deployment(deployment(number)));
    let changes: Vec<Change> = devices.chain(deployments).collect();
    let path = service.path("data").join("whimbrel.sqlite");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut store = SqliteStore::open(&path).await.unwrap();
        store.apply(&changes).await.unwrap();
        store.close().await;
    });
}

fn hello(service: &Service, nonce: u64) -> Vec<u8> {
    Hello {
        version_max: 1,
        class: service.fixture.class.tag(),
        running: ShortDigest([1; 8]),
        sequence: 1,
        root: 1,
        assignment: 99,
        groups: Vec::new(),
        nonce: Nonce(nonce.to_be_bytes()),
        report: None,
    }
    .encode()
}

/// A document of the device's campaign is none, although it comes to the same topic.
fn is_answer(message: &[u8]) -> bool {
    Sign1::decode(message).is_ok_and(|object| object.claimed_kind() == Some(Kind::Answer))
}

/// Says hello, and gives how long each answer took, the shortest first.
#[allow(clippy::disallowed_methods, reason = "this is what it measures")]
fn hellos(service: &Service, voices: &mut [(String, Client)], nonces: &AtomicU64) -> Vec<Duration> {
    let mut took: Vec<Duration> = (0..HELLOS)
        .map(|number| {
            let (id, client) = &mut voices[number % VOICES];
            let message = hello(service, nonces.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            client.publish(&format!("ota/d/{id}/q"), &message, 0, false);
            while !is_answer(&client.expect_publish().payload) {}
            let took = begun.elapsed();
            std::thread::sleep(BETWEEN_HELLOS);
            took
        })
        .collect();
    took.sort_unstable();
    took
}

fn show(what: &str, took: &[Duration]) {
    let at = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
    println!("{what}: median {:?}, p99 {:?}, longest {:?}", at(500), at(990), at(1000));
}

#[test]
#[ignore = "measures for a minute; see the head of the file"]
fn a_hello_is_answered_while_views_are_read_all_the_time() {
    let mut service = Service::start(On::Itself);
    let release = service.release(20_000, 5);
    service.publish(&release);
    let mut first = None;
    for name in core::iter::once("all".to_owned()).chain((0..GROUPS).map(|at| group(at).to_string())) {
        let order = json!({ "release": release.digest.to_hex(), "group": name });
        let made = crate::voice::campaign_id(&service.post("/v1/campaigns", &order));
        first.get_or_insert(made);
    }
    assert!(service.stop().success());
    register(&service, service.fixture.class, first.unwrap());
    service.launch();
    let settled = || service.get("/v1/status")["counters"]["under_way"] == 0;
    while !settled() {
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut voices: Vec<(String, Client)> = (0..VOICES)
        .map(|number| {
            let id = name(number * 1000);
            let mut client = Client::let_in(service.mqtt(), 4, &id);
            client.subscribe(&[(&format!("ota/d/{id}/c"), 0)]);
            (id, client)
        })
        .collect();
    let nonces = AtomicU64::new(1);
    show("nobody reads", &hellos(&service, &mut voices, &nonces));
    let (stop, views) = (AtomicBool::new(false), AtomicU64::new(0));
    let (service, stop, views) = (&service, &stop, &views);
    let campaign = first.unwrap().to_hex();
    std::thread::scope(|scope| {
        let paths = [
            "/v1/campaigns".to_owned(),
            format!("/v1/campaigns/{campaign}?devices=1"),
            "/v1/devices?limit=1000".to_owned(),
            format!("/v1/releases/{}/bases", release.digest.to_hex()),
        ];
        for path in paths {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    service.get(&path);
                    views.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let took = hellos(service, &mut voices, &nonces);
        stop.store(true, Ordering::Relaxed);
        show("four read all the time", &took);
        println!("views read meanwhile: {}", views.load(Ordering::Relaxed));
    });
}
