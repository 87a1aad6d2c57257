//! What the factory says of the image in the slot that a new device starts from.

use alloc::sync::Arc;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::ids::{ClassId, Digest};
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::message::Outcome;
use whimbrel_protocol::testing::Fixture;

use crate::broker::{Mosquitto, eventually};
use crate::power_cut_service::{Release, Service};
use crate::rig::{Attached, Device, Ran, noise, write_release};
use crate::storage_support::FRESH;

/// A new device, and the release that the factory gives it.
struct Factory {
    fixture: Fixture,
    device: Device,
    release: Release,
    stick: PathBuf,
}

impl Factory {
    fn new(port: u16, image: Vec<u8>, sequence: u64) -> Self {
        let fixture = Fixture::new();
        let device = Device::new(&fixture, port);
        let release = Release::new(&fixture, Codec::Raw, image, sequence);
        let stick = device.path("stick");
        write_release(&stick, &release);
        fs::write(device.path("image"), &release.image).unwrap();
        Self { fixture, device, release, stick }
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(self.device.path("data/slot-a.img"), bytes).unwrap();
    }

    fn provision(&self, flags: &[&str]) -> Ran {
        let envelope = self.stick.join("release.suit");
        let command = [&["provision", "--envelope", envelope.to_str().unwrap()], flags].concat();
        self.device.run(&command)
    }

    fn image(&self) -> String {
        self.device.path("image").to_str().unwrap().to_owned()
    }
}

/// The data folder is empty before. Afterwards the device runs the factory's image, says so, and fetches no more than what
/// differs from it.
#[test]
fn the_first_update_of_a_provisioned_device_is_a_patch() {
    let broker = Mosquitto::start();
    // The pair's new release has sequence number 1.
    let mut factory = Factory::new(broker.port, FRESH.old.to_vec(), 0);
    let ran = factory.provision(&["--image", &factory.image(), "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&told["slot"], &told["version"], &told["sequence"]),
        (&json!("a"), &json!("1.0.0"), &json!(0))
    );
    assert_eq!(told["image"], json!(Digest::of(FRESH.old).to_hex()));
    assert!(factory.device.slot_holds("a", FRESH.old));
    let status = factory.device.status();
    assert_eq!(status["running"]["release"], json!(factory.release.digest.to_hex()), "{status}");
    assert_eq!(
        (&status["running"]["version"], &status["running"]["image"]),
        (&json!("1.0.0"), &told["image"])
    );

    let update = Arc::new(FRESH.release(&factory.fixture));
    let service = Service::new(Arc::new(Fixture::new()), vec![Arc::clone(&update)]);
    let service = Attached::start(&broker, service);
    factory.device.start();
    let report = eventually("a report arrives", || service.lock().service.reports.first().cloned());
    assert_eq!((report.outcome, report.failure), (Outcome::Confirmed, None));
    assert_eq!(report.bytes_received, FRESH.patch.len() as u64);
    assert_eq!(service.lock().service.served_full, 0);
    assert!(factory.device.slot_holds("b", FRESH.new));
}

#[test]
fn a_provisioned_device_knows_the_sequence_number_below_which_it_installs_nothing() {
    let factory = Factory::new(1, noise(1, 30_000), 7);
    factory.put(&factory.release.image);
    let ran = factory.provision(&[]);
    let image = Digest::of(&factory.release.image);
    assert_eq!(
        (ran.code, ran.stdout),
        (Some(0), format!("slot a holds version 1.0.7, sequence 7: 30000 bytes, SHA-256 {image}\n"))
    );
    assert_eq!(factory.provision(&[]).code, Some(0), "it may be said twice");
    let older = factory.device.path("older");
    write_release(&older, &Release::new(&factory.fixture, Codec::Raw, noise(2, 30_000), 6));
    factory.device.run(&["install", older.to_str().unwrap()]).assert_refused("this device has confirmed 7");
}

#[test]
fn a_slot_that_holds_something_else_is_not_said_to_hold_the_release() {
    let factory = Factory::new(1, noise(1, 30_000), 7);
    factory.provision(&[]).assert_refused("slot-a.img does not hold the image of the release");
    let mut wrong = factory.release.image.clone();
    wrong[29_999] ^= 1;
    for bytes in [&wrong[..], &factory.release.image[..29_999]] {
        factory.put(bytes);
        for flags in [&[][..], &["--force"]] {
            factory.provision(flags).assert_refused("slot-a.img does not hold the image of the release");
        }
    }
    assert_eq!(factory.device.status()["running"]["version"], Value::Null);
    factory.provision(&["--image", &factory.image()]).assert_refused("slot-a.img holds something already");
    fs::remove_file(factory.device.path("data/slot-a.img")).unwrap();
    fs::write(factory.device.path("image"), wrong).unwrap();
    factory
        .provision(&["--image", &factory.image()])
        .assert_refused("does not hold the image of the release");
    assert!(!factory.device.path("data/slot-a.img").exists(), "it is as empty as before");
}

#[test]
fn only_a_release_that_an_update_could_install_is_taken_from_the_factory() {
    let mut factory = Factory::new(1, noise(1, 30_000), 7);
    factory.put(&factory.release.image);
    let mut stranger = Fixture::new();
    stranger.release_key = SigningKey::ed25519(&[77; 32]);
    write_release(&factory.stick, &Release::new(&stranger, Codec::Raw, noise(1, 30_000), 7));
    factory.provision(&["--force"]).assert_refused("release.suit is refused");
    factory.fixture.class = ClassId([3; 16]);
    write_release(&factory.stick, &Release::new(&factory.fixture, Codec::Raw, noise(1, 30_000), 7));
    factory.provision(&["--force"]).assert_refused("is a release for other devices");
}

#[test]
fn a_device_that_has_had_an_update_is_provisioned_by_force_only_and_never_during_one() {
    let factory = Factory::new(1, noise(1, 30_000), 7);
    factory.put(&factory.release.image);
    let update = factory.device.path("update");
    write_release(&update, &Release::new(&factory.fixture, Codec::Raw, noise(2, 30_000), 8));
    assert_eq!(factory.device.run(&["install", update.to_str().unwrap()]).code, Some(4));
    factory.provision(&["--force"]).assert_refused("an update is installed or on trial");
    assert_eq!(factory.device.run(&["rollback"]).code, Some(0));
    factory.provision(&[]).assert_refused("this device is not new: it has had an update; --force");
    assert_eq!(factory.provision(&["--force"]).code, Some(0));
}

#[test]
fn nothing_is_provisioned_under_a_running_daemon() {
    let mut factory = Factory::new(1, noise(1, 30_000), 7);
    factory.put(&factory.release.image);
    factory.device.start();
    factory.device.wait_for("the agent runs", |status| status["daemon"] == true);
    factory.provision(&[]).assert_refused("is used by another agent: stop it first");
}
