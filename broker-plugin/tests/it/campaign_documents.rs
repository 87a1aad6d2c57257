//! What the service publishes: every document verifies with our own code and with coset, says what it must, and its
//! version rises whatever happens.

use coset::{CborSerializable as _, TaggedCborSerializable as _};
use p256::ecdsa::signature::Verifier as _;
use serde_json::json;
use whimbrel_protocol::cose::{Kind, PublicKey, Sign1};
use whimbrel_protocol::ids::{DeviceId, GroupName, Nonce, ShortDigest};
use whimbrel_protocol::message::{
    Assignment, Beacon, Campaign, CampaignState, Hello, HelloAnswer, Policy, group_hash,
};
use whimbrel_protocol::trust::Role;

use crate::attach_support::Mosquitto;
use crate::front_support::Client;
use crate::service_support::{On, Service, device_key};

/// Verifies a document twice and gives its payload.
fn verify(service: &Service, role: Role, kind: Kind, document: &[u8]) -> Vec<u8> {
    let root = service.fixture.root();
    let object = Sign1::decode(document).unwrap();
    let ours = root.verify_object(role, kind, &object).unwrap().to_vec();

    let theirs = coset::CoseSign1::from_tagged_slice(document).unwrap();
    let key = &root.role(role).keys[0];
    theirs
        .verify_signature(&kind.external_aad(), |signature, message| check(key, signature, message))
        .unwrap();
    assert_eq!(theirs.payload.as_deref(), Some(&ours[..]));
    // And it says what it is in the protected header, so that it never counts for another kind.
    let header = theirs.protected.header.clone().to_vec().unwrap();
    let text = format!("{:?}", ciborium::from_reader::<ciborium::Value, _>(&header[..]).unwrap());
    assert!(text.contains("-65537"), "{text}");
    ours
}

fn check(key: &PublicKey, signature: &[u8], message: &[u8]) -> Result<(), ()> {
    match key {
        PublicKey::Ed25519(key) => {
            let signature = ed25519_dalek::Signature::from_slice(signature).map_err(drop)?;
            key.verify_strict(message, &signature).map_err(drop)
        }
        PublicKey::P256(key) => {
            let signature = p256::ecdsa::Signature::from_slice(signature).map_err(drop)?;
            key.verify(message, &signature).map_err(drop)
        }
    }
}

/// What is retained on a topic now.
fn retained(service: &Service, device: &str, topic: &str) -> Vec<u8> {
    loop {
        let mut client = Client::let_in(service.mqtt(), 4, device);
        assert_eq!(client.subscribe(&[(topic, 0)]), [0], "{topic}");
        let published = client.expect_publish();
        client.disconnect();
        // Else it was published just now, and will be retained.
        if published.retain {
            return published.payload;
        }
    }
}

fn beacon(service: &Service) -> Beacon {
    let document = retained(service, "m1", "ota/t");
    Beacon::decode(&verify(service, Role::Beacon, Kind::Beacon, &document)).unwrap()
}

fn campaign(service: &Service) -> Campaign {
    let document = retained(service, "m1", "ota/g/all");
    Campaign::decode(&verify(service, Role::Campaign, Kind::Campaign, &document)).unwrap()
}

fn assignment(service: &Service) -> Assignment {
    assignment_of(service, "m1")
}

fn assignment_of(service: &Service, device: &str) -> Assignment {
    let document = retained(service, device, &format!("ota/d/{device}/s"));
    Assignment::decode(&verify(service, Role::Campaign, Kind::Assignment, &document)).unwrap()
}

fn all() -> GroupName {
    GroupName::new("all").unwrap()
}

#[test]
fn every_document_verifies_and_its_version_rises_with_every_change() {
    let mut service = Service::start(On::Itself);
    let first = beacon(&service);
    assert_eq!((first.validity.version, first.root, first.groups.len()), (1, 1, 0));
    assert_eq!(first.validity.expires.as_secs() - first.validity.issued.as_secs(), 24 * 3600);

    service.import(&[("m1", &device_key(1).public())]);
    let assigned = assignment(&service);
    assert_eq!((assigned.validity.version, assigned.device.as_str(), assigned.root), (1, "m1", 1));
    assert_eq!((assigned.groups, assigned.order), (vec![all()], None));

    let release = service.release(10_000, 5);
    service.publish(&release);
    let order = json!({
        "release": release.digest.to_hex(), "group": "all", "spread_s": 60, "policy": "download-only",
        "priority": 2, "min_sequence": 3, "expires_in_s": 3600,
    });
    let view = service.post("/v1/campaigns", &order);
    service.await_that("the beacon is out", |service| beacon(service).validity.version == 2);
    let order = campaign(&service);
    assert_eq!((order.validity.version, &order.group), (1, &all()));
    assert_eq!(order.validity.expires.as_secs() - order.validity.issued.as_secs(), 3600);
    assert_eq!(json!(order.order.campaign.to_hex()), view["id"]);
    assert_eq!((order.order.attempt, order.order.state), (1, CampaignState::Active));
    assert_eq!((order.order.release, order.order.sequence), (release.digest, 5));
    assert_eq!((order.order.image_size, order.order.envelope_size), (10_000, release.envelope.len() as u64));
    assert_eq!((order.order.min_sequence, order.order.spread_s, order.order.priority), (3, 60, 2));
    assert_eq!((order.order.class, order.order.policy), (service.fixture.class, Policy::DownloadOnly));
    let second = beacon(&service);
    assert_eq!((second.validity.version, &second.groups), (2, &vec![(group_hash(&all()), 1)]));

    let id = view["id"].as_str().unwrap();
    service.post(&format!("/v1/campaigns/{id}/abort"), &json!({}));
    service.await_that("the beacon is out", |service| beacon(service).validity.version == 3);
    let aborted = campaign(&service);
    assert_eq!((aborted.validity.version, aborted.order.state), (2, CampaignState::Aborted));
    assert_eq!(beacon(&service).groups, [(group_hash(&all()), 2)]);
    service.post(&format!("/v1/campaigns/{id}/retry"), &json!({}));
    service.await_that("the beacon is out", |service| beacon(service).validity.version == 4);
    let retried = campaign(&service);
    assert_eq!((retried.validity.version, retried.order.attempt), (3, 2));
    assert!(retried.validity.issued >= order.validity.issued);

    // A restart: the broker has forgotten all, and everything is there again; the beacon is a new one.
    assert!(service.stop().success());
    service.launch();
    assert_eq!(campaign(&service), retried);
    assert_eq!(assignment(&service).validity.version, 1);
    let third = beacon(&service);
    assert!(third.validity.version > 4, "{third:?}");
    assert_eq!(third.groups, [(group_hash(&all()), 3)]);

    service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["all","north"]}"#);
    service
        .await_that("the assignment is out", |service| service.log().matches("device accepted").count() == 1);
    service.await_that("it is the new one", |service| assignment(service).validity.version == 2);
    assert_eq!(assignment(&service).groups.len(), 2);
}

#[test]
fn beacons_come_again_and_again_with_a_higher_version() {
    let service = Service::start_with(On::Itself, &["service.beacon-every=1s", "service.beacon-life=60s"]);
    let mut client = Client::let_in(service.mqtt(), 4, "m1");
    client.subscribe(&[("ota/t", 0)]);
    let mut last = 0;
    for _ in 0..3 {
        let document = client.expect_publish().payload;
        let beacon = Beacon::decode(&verify(&service, Role::Beacon, Kind::Beacon, &document)).unwrap();
        assert!(beacon.validity.version > last);
        last = beacon.validity.version;
    }
}

#[test]
fn the_answer_to_a_hello_names_everything_and_brings_what_is_missing() {
    let service = Service::start(On::Itself);
    service.import(&[("m1", &device_key(1).public())]);
    let release = service.release(10_000, 5);
    service.publish(&release);
    service.campaign(&release);
    let mut client = Client::let_in(service.mqtt(), 4, "m1");
    client.subscribe(&[("ota/d/m1/c", 0)]);
    let mut hello = Hello {
        version_max: 1,
        class: service.fixture.class.tag(),
        running: ShortDigest([1; 8]),
        sequence: 4,
        root: 1,
        assignment: 0,
        groups: vec![],
        nonce: Nonce([7; 8]),
        report: None,
    };
    let mut ask = |hello: &Hello, documents: usize| {
        client.publish("ota/d/m1/q", &hello.encode(), 0, false);
        let mut answers: Vec<Vec<u8>> = (0..=documents).map(|_| client.expect_publish().payload).collect();
        let answer = verify(&service, Role::Beacon, Kind::Answer, &answers.remove(0));
        (HelloAnswer::decode(&answer).unwrap(), answers)
    };
    let (answer, documents) = ask(&hello, 2);
    let m1 = DeviceId::new("m1").unwrap();
    assert_eq!((answer.echo, answer.root), (hello.nonce.echo(&m1), 1));
    assert_eq!((answer.assignment, answer.groups.len(), answer.groups[0].version), (1, 1, 1));
    verify(&service, Role::Campaign, Kind::Assignment, &documents[0]);
    verify(&service, Role::Campaign, Kind::Campaign, &documents[1]);

    // A device that has all of it gets the answer alone.
    hello.assignment = 1;
    hello.groups = answer.groups;
    hello.nonce = Nonce([8; 8]);
    let (answer, _) = ask(&hello, 0);
    assert_eq!(answer.echo, hello.nonce.echo(&m1));
    hello.assignment = 0;
    hello.nonce = Nonce([9; 8]);
    let (answer, documents) = ask(&hello, 1);
    assert_eq!(answer.echo, hello.nonce.echo(&m1), "nothing else came in between");
    verify(&service, Role::Campaign, Kind::Assignment, &documents[0]);
}

/// The broker starts again with nothing: everything is published again.
#[test]
fn a_broker_that_has_forgotten_all_is_told_again() {
    let mut service = Service::start(On::Mosquitto);
    service.import(&[("m1", &device_key(1).public())]);
    let release = service.release(10_000, 5);
    service.publish(&release);
    service.campaign(&release);
    assert!(Mosquitto::restart(service.broker()));
    service.await_that("the link is up", |service| service.log().matches("broker link up").count() == 2);
    assert_eq!(campaign(&service).order.release, release.digest);
    assert_eq!(assignment(&service).groups, [all()]);
    assert_eq!(beacon(&service).groups, [(group_hash(&all()), 1)]);
}

/// They are published some at a time, so that devices are served meanwhile.
#[test]
fn the_assignments_of_many_devices_are_all_published_again() {
    let (service, names) = started_again_with_300_devices(On::Mosquitto);
    let out = service.counter("messages_out");
    assert!(
        (301..=302).contains(&out),
        "{out}: each once, and the beacon once, or twice where it was just made"
    );
    each_finds_its_assignment(&service, &names);
}

#[test]
fn the_embedded_broker_has_every_assignment_at_the_start_and_none_is_announced() {
    let (service, names) = started_again_with_300_devices(On::Itself);
    let out = service.counter("messages_out");
    assert!((1..=2).contains(&out), "{out}: the beacon once, or twice where it was just made");
    each_finds_its_assignment(&service, &names);
}

fn started_again_with_300_devices(on: On) -> (Service, Vec<String>) {
    let mut service = Service::start(on);
    let names: Vec<String> = (0..300).map(|number| format!("m{number:03}")).collect();
    let key = device_key(1).public();
    let devices: Vec<_> = names.iter().map(|name| (name.as_str(), &key)).collect();
    service.import(&devices);
    assert!(service.stop().success());
    service.launch();
    service.await_that("all is published", |service| {
        service.counter("messages_out") > 0 && service.counter("under_way") == 0
    });
    (service, names)
}

fn each_finds_its_assignment(service: &Service, names: &[String]) {
    for at in [0, 1, 126, 127, 128, 129, 255, 256, 257, 298, 299] {
        let assignment = assignment_of(service, &names[at]);
        assert_eq!((assignment.device.as_str(), assignment.validity.version), (names[at].as_str(), 1));
    }
}

#[test]
fn a_device_that_was_reset_has_no_assignment_left_on_the_broker() {
    let service = Service::start(On::Mosquitto);
    service.import(&[("m1", &device_key(1).public())]);
    service.await_that("the assignment is out", |service| service.counter("messages_out") >= 2);
    assignment(&service);
    service.post("/v1/devices/m1/reset", &json!({}));
    let mut client = Client::let_in(service.mqtt(), 4, "m1");
    service.await_that("it has gone", |service| service.counter("messages_out") >= 3);
    client.subscribe(&[("ota/d/m1/s", 0), ("ota/t", 0)]);
    assert_eq!(client.expect_publish().topic, "ota/t", "nothing comes before the beacon");
}
