//! Updates by patch: each device of a campaign gets the payload that fits it, and all programs say which that
//! was.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use e2e::agent::Agent;
use e2e::bundle::{Recipe, Release, noise};
use e2e::stage::Stage;
use serde_json::{Value as Json, json};

/// Bytes of an image.
const IMAGE: usize = 200_000;

/// A later version of an image: some words are changed, some bytes are inserted, the end is replaced.
fn later(image: &[u8]) -> Vec<u8> {
    let mut later = image.to_vec();
    for at in (1000..image.len() - 1000).step_by(image.len() / 8) {
        later[at] ^= 0x55;
    }
    let middle = image.len() / 2;
    later.splice(middle..middle, noise(99, 300));
    later.truncate(image.len() - 500);
    later.extend(noise(98, 700));
    later
}

/// A release that goes from one image to another, in full and by patch.
struct Step {
    old: Release,
    new: Release,
    patch_bytes: u64,
}

impl Step {
    /// Sequence number 1 is the old image, 3 the new one.
    fn make(stage: &Stage, image: Vec<u8>) -> Self {
        let old = stage.bundle.release(Recipe { image, ..Recipe::noise(1, 0) });
        let base = old.folder.to_str().unwrap().to_owned();
        let flags = ["--codec", "raw", "--base", &base];
        let new =
            stage.bundle.release(Recipe { image: later(&old.image), flags: &flags, ..Recipe::noise(3, 0) });
        let sizes =
            std::fs::read_dir(&new.folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        // Beside the full payload, the envelope and the summary there is the patch alone.
        let known = [new.transfer_size];
        let patch_bytes = sizes.filter(|size| !known.contains(size)).max().unwrap();
        assert!(patch_bytes * 10 < new.transfer_size, "{patch_bytes} of {}", new.transfer_size);
        Self { old, new, patch_bytes }
    }
}

fn device_of(campaign: &Json, id: &str) -> Json {
    let list = campaign["device_list"].as_array().cloned().unwrap_or_default();
    list.into_iter().find(|device| device["id"] == id).unwrap_or_else(|| panic!("no {id}: {campaign}"))
}

/// Puts a device on an image by a campaign of its own.
fn put_on(stage: &Stage, device: &mut Agent, release: &Release) {
    device.start();
    stage.service.accept_into(device.id(), device.id());
    let campaign = stage.service.campaign(release, &["--group", device.id()]);
    stage.wait_until_updated(device, release, &campaign);
    stage.service.whimbrel(["device", "groups", device.id(), "all"]).good();
}

/// Orders a release for everybody while these devices are away. They learn of it from the answer to their
/// hello, whether or not the broker keeps messages.
fn order(stage: &Stage, release: &Release, devices: &mut [&mut Agent]) -> String {
    devices.iter_mut().for_each(|device| device.kill());
    let campaign = stage.service.campaign(release, &[]);
    devices.iter_mut().for_each(|device| device.start());
    campaign
}

/// Flips a bit in the running slot, without the device noticing.
fn rot(device: &mut Agent, at: u64) {
    let slot = device.status()["running"]["slot_file"].as_str().unwrap().to_owned();
    device.kill();
    let file = OpenOptions::new().read(true).write(true).open(device.path(&slot)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    device.start();
}

fn each_device_gets_what_fits_it(stage: &Stage) {
    let step = Step::make(stage, noise(1, IMAGE));
    let unknown = stage.bundle.noise_release(2, IMAGE);
    for release in [&step.old, &unknown, &step.new] {
        stage.service.publish(release);
    }
    let mut devices = ["known", "unknown", "rotten"].map(|id| stage.new_device(id));
    let [on_old, on_other, rotten] = &mut devices;
    put_on(stage, on_old, &step.old);
    put_on(stage, on_other, &unknown);
    put_on(stage, rotten, &step.old);
    rot(rotten, IMAGE as u64 / 3);

    // The service tells whoever builds the next envelope which patches are missing.
    let told = stage.service.whimbrel(["release", "bases", &step.new.digest, "--json"]).json();
    let missing = &told["bases"];
    assert_eq!((&missing[0]["version"], &missing[0]["devices"]), (&json!("1.2.0"), &json!(1)), "{told}");
    assert_eq!(missing.as_array().unwrap().len(), 1, "{told}");
    assert_eq!(
        (&told["patches"][0]["devices"], &told["full_bytes"]),
        (&json!(2), &json!(step.new.transfer_size))
    );
    assert_eq!(
        (&missing[0]["patch_bytes"], &missing[0]["estimated"]),
        (&json!(step.patch_bytes), &json!(true))
    );

    let before = devices.each_ref().map(|device| stage.proxy.traffic(device.id()).chunk_bytes);
    let campaign = order(stage, &step.new, &mut devices.each_mut()[..]);
    for device in &devices {
        stage.wait_until_updated(device, &step.new, &campaign);
    }
    let status = stage.service.campaign_status(&campaign);
    let full = step.new.transfer_size;
    let want = [("patch", step.patch_bytes), ("full", full), ("full", full)];
    for ((device, before), (kind, bytes)) in devices.iter().zip(before).zip(want) {
        let told = device_of(&status, device.id());
        assert_eq!((&told["state"], &told["payload"]["kind"]), (&json!("confirmed"), &json!(kind)), "{told}");
        assert_eq!((&told["bytes_received"], &told["given_up"]), (&json!(bytes), &Json::Null), "{told}");
        let carried = stage.proxy.traffic(device.id()).chunk_bytes - before;
        assert_eq!(carried, bytes, "what the link carried to {}", device.id());
        let listed = stage.service.whimbrel(["device", "list", "--json"]).json();
        let list = listed["devices"].as_array().unwrap();
        let listed = list.iter().find(|known| known["id"] == device.id()).unwrap();
        assert_eq!(listed["deployment"]["payload"]["kind"], json!(kind), "{listed}");
    }
    let words = stage.service.whimbrel(["campaign", "status", &campaign, "--devices"]).good();
    assert!(words.contains("1 by patch 1.1.0: ") && words.contains("2 by full: "), "{words}");
    assert!(!words.contains("no patch starts from"), "everybody is up to date: {words}");
}

#[test]
fn each_device_of_a_campaign_gets_the_payload_that_fits_it_on_the_embedded_broker() {
    each_device_gets_what_fits_it(&Stage::embedded());
}

#[test]
fn each_device_of_a_campaign_gets_the_payload_that_fits_it_on_a_broker_that_ignores_retain() {
    let stage = Stage::attached();
    stage.proxy.ignore_retain(true);
    each_device_gets_what_fits_it(&stage);
}

/// The agent's own tests cut the power at every disk operation; this one kills the real process.
fn goes_on_without_fetching_again(how: &str) {
    let stage = Stage::embedded();
    let step = Step::make(&stage, noise(1, 4 << 20));
    stage.service.publish(&step.old);
    stage.service.publish(&step.new);
    let mut device = stage.new_device("meter-1");
    device.set(&format!("install.patch={how}"));
    put_on(&stage, &mut device, &step.old);
    let campaign = order(&stage, &step.new, &mut [&mut device]);
    device.wait_for_state("installing");
    device.kill();
    let fetched = stage.proxy.traffic(device.id()).chunk_bytes;
    assert!(!device.slot_holds("a", &step.new.image), "it was killed before it was done");
    device.start();
    let status = stage.wait_until_updated(&device, &step.new, &campaign);
    assert_eq!(stage.proxy.traffic(device.id()).chunk_bytes, fetched, "nothing is fetched again");
    assert_eq!((&status["bytes_received"], &status["bytes_twice"]), (&json!(step.patch_bytes), &json!(0)));
}

#[test]
fn an_agent_that_is_killed_while_it_applies_a_patch_goes_on_without_fetching_again() {
    goes_on_without_fetching_again("replay");
}

#[test]
fn with_saved_state_it_goes_on_without_fetching_again_too() {
    goes_on_without_fetching_again("state");
}

/// Another envelope brings more patches: devices that are done have nothing to do, and the others get a
/// smaller payload.
#[test]
fn a_campaign_moves_to_an_envelope_with_more_patches() {
    let stage = Stage::embedded();
    let old = stage.bundle.noise_release(1, IMAGE);
    let image = later(&old.image);
    let without = stage.bundle.release(Recipe { image: image.clone(), ..Recipe::noise(3, 0) });
    let base = old.folder.to_str().unwrap().to_owned();
    let flags = ["--codec", "raw", "--base", &base];
    let with = stage.bundle.release(Recipe { image, flags: &flags, ..Recipe::noise(3, 0) });
    assert_ne!(with.digest, without.digest);
    for release in [&old, &without, &with] {
        stage.service.publish(release);
    }
    let mut devices = ["early", "late"].map(|id| stage.new_device(id));
    for device in &mut devices {
        put_on(&stage, device, &old);
    }
    let [early, late] = &mut devices;
    late.kill();
    let first = order(&stage, &without, &mut [early]);
    stage.wait_until_updated(early, &without, &first);
    let fetched = stage.proxy.traffic("early").chunk_bytes;
    let second = order(&stage, &with, &mut [early]);
    late.start();
    stage.wait_until_updated(late, &with, &second);
    stage.service.wait_for_end(&second, "early", "confirmed", None);
    assert_eq!(stage.proxy.traffic("early").chunk_bytes, fetched, "it runs the image");
    let status = stage.service.campaign_status(&second);
    assert_eq!(device_of(&status, "late")["payload"]["kind"], json!("patch"), "{status}");
    assert_eq!(device_of(&status, "early")["payload"], Json::Null, "{status}");
}
