//! Releases that offer patches beside the full payload: stored, served, counted, and which ones are missing.

use serde_json::{Value, json};
use whimbrel_protocol::device::Event;
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::ImageId;
use whimbrel_protocol::patch::Header;
use whimbrel_protocol::testing::{FixturePatch, Release};

use crate::device_support::Device;
use crate::service_support::{On, Service, device_key, image};

/// A real pair of images and the patch between them.
struct Images {
    old: Vec<u8>,
    new: Vec<u8>,
    patch: Vec<u8>,
}

fn images() -> Images {
    let read = |name: &str| {
        let path = format!("{}/../protocol/vectors/patch/small.{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    Images { old: read("old"), new: read("new"), patch: read("patch") }
}

impl Images {
    fn patch(&self) -> FixturePatch {
        let (header, _) = Header::decode(&self.patch).unwrap();
        FixturePatch { base: header.base, bytes: self.patch.clone(), decoder: header.decoder() }
    }
}

/// A patch that nobody can apply, from an image that nobody has.
fn useless(seed: u64, bytes: usize) -> (Vec<u8>, FixturePatch) {
    let base = image(3000, seed);
    let id = ImageId { digest: Digest::of(&base), size: base.len() as u64 };
    let patch = FixturePatch { base: id, bytes: image(bytes, seed + 1), decoder: images().patch().decoder };
    (base, patch)
}

fn update(device: &mut Device) {
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
}

/// What a campaign says, with its devices by name.
fn status(service: &Service, campaign: &Value) -> (Value, impl Fn(&str) -> Value) {
    let path = format!("/v1/campaigns/{}?devices=1", campaign["id"].as_str().unwrap());
    let status = service.get(&path);
    let list = status["device_list"].clone();
    let device = move |id: &str| {
        let found = list.as_array().unwrap().iter().find(|device| device["id"] == id);
        found.unwrap_or_else(|| panic!("no {id}: {list}")).clone()
    };
    (status, device)
}

#[test]
fn a_release_is_complete_when_its_patches_and_the_full_payload_are_there() {
    let mut service = Service::start(On::Itself);
    let images = images();
    let release = service.fixture.release_with_patches(
        images.new.clone(),
        5,
        10,
        &[useless(1, 5000).1, images.patch()],
    );
    let view = service.ok("POST", "/v1/releases", &release.envelope);
    assert_eq!((&view["state"], view["missing"].as_array().unwrap().len()), (&json!("incomplete"), 3));
    let mut parts = release.parts();
    let last = parts.pop().unwrap();
    let upload = |service: &Service, part: &whimbrel_protocol::testing::Part| {
        service.ok("PUT", &format!("/v1/payloads/{}", part.index.digest), &part.bytes)
    };
    parts.iter().for_each(|part| drop(upload(&service, part)));
    let order = json!({ "release": release.digest.to_hex(), "group": "all" }).to_string();
    assert!(service.refused(409, "POST", "/v1/campaigns", order.as_bytes()).contains("1 of its payloads"));
    service.kill();
    service.launch();
    let view = service.get(&format!("/v1/releases/{}", release.digest));
    assert_eq!(view["missing"][0]["index_digest"], json!(last.index.digest.to_hex()), "also after a kill");
    upload(&service, &last);
    service.campaign(&release);
    let files = std::fs::read_dir(service.path("data/payloads")).unwrap().count();
    assert_eq!(files, 6, "three payloads with their indexes");
}

/// One campaign, and each device gets what fits it: by patch; in full because nobody knows its image; in full because
/// its image has rotted.
#[test]
fn each_device_of_a_campaign_is_served_the_payload_that_fits_it_and_counted_by_it() {
    let mut service = Service::start(On::Itself);
    let images = images();
    let names = ["by-patch", "unknown", "rotten"];
    let keys: Vec<_> = (0..3).map(|number| device_key(number).public()).collect();
    service.import(&names.into_iter().zip(&keys).collect::<Vec<_>>());
    let patches = [useless(1, 5000).1, images.patch()];
    let release = service.fixture.release_with_patches(images.new.clone(), 5, 10, &patches);
    service.publish(&release);
    let campaign = service.campaign(&release);
    for (number, name) in (0..).zip(names) {
        let running = if number == 1 { b"an image that nobody knows" } else { &images.old[..] };
        let mut device = Device::running(name, device_key(number), &service.fixture, service.mqtt(), running);
        if name == "rotten" {
            device.medium.corrupt_running(images.old.len() / 2);
        }
        update(&mut device);
        assert!(device.medium.running_image() == images.new, "{name}");
    }
    let (patch, full) = (images.patch.len() as u64, images.new.len() as u64);
    let check = |service: &Service, state: &str| {
        let (status, device) = status(service, &campaign);
        assert_eq!(status["state"], json!(state));
        for (name, kind, bytes) in
            [("by-patch", "patch", patch), ("unknown", "full", full), ("rotten", "full", full)]
        {
            let device = device(name);
            assert_eq!(device["state"], json!("confirmed"), "{device}");
            assert_eq!(
                (&device["payload"]["kind"], &device["given_up"]),
                (&json!(kind), &json!(null)),
                "{device}"
            );
            assert_eq!(device["bytes_received"], json!(bytes), "{device}");
        }
        assert_eq!(device("by-patch")["payload"]["base"], json!(Digest::of(&images.old).to_hex()));
        let shares: Vec<_> = status["payloads"].as_array().unwrap().iter().collect();
        let counts =
            |share: &Value| (share["devices"].as_u64().unwrap(), share["bytes_received"].as_u64().unwrap());
        assert_eq!(shares.into_iter().map(counts).collect::<Vec<_>>(), [(0, 0), (1, patch), (2, 2 * full)]);
    };
    check(&service, "active");
    assert_eq!(service.counter("served_bytes"), patch + 2 * full);
    assert_eq!(service.device("by-patch").unwrap()["deployment"]["payload"]["kind"], json!("patch"));
    service.stop();
    service.launch();
    check(&service, "active");
    // Of a campaign that was replaced the store says the same.
    service.campaign(&release);
    check(&service, "replaced");
}

/// Whoever built the patch made a mistake: it is well signed, and does not become the image.
#[test]
fn a_patch_that_a_device_gives_up_is_told_beside_the_full_payload_that_it_turned_to() {
    let service = Service::start(On::Itself);
    service.import(&[("misled", &device_key(1).public())]);
    let images = images();
    let (base, mistake) = useless(7, 3000);
    let release = service.fixture.release_with_patches(images.new.clone(), 5, 10, &[mistake]);
    service.publish(&release);
    let campaign = service.campaign(&release);
    let mut device = Device::running("misled", device_key(1), &service.fixture, service.mqtt(), &base);
    update(&mut device);
    assert!(device.medium.running_image() == images.new);
    let (status, of) = status(&service, &campaign);
    let told = of("misled");
    assert_eq!(told["state"], json!("confirmed"), "{told}");
    assert_eq!(
        (&told["payload"]["kind"], &told["given_up"]["kind"]),
        (&json!("full"), &json!("patch")),
        "{told}"
    );
    assert_eq!(told["given_up"]["base"], json!(Digest::of(&base).to_hex()));
    let counts: Vec<_> =
        status["payloads"].as_array().unwrap().iter().map(|share| share["devices"].clone()).collect();
    assert_eq!(counts, [json!(0), json!(1)], "it counts for the payload that made its image");
    assert_eq!(service.counter("served_bytes"), 3000 + images.new.len() as u64);
}

fn bases(service: &Service, release: &Release, query: &str) -> Value {
    service.get(&format!("/v1/releases/{}/bases{query}", release.digest))
}

#[test]
fn images_without_a_patch_are_told_with_what_a_patch_would_save() {
    let service = Service::start(On::Itself);
    let images = images();
    let names = ["m0", "m1", "m2", "m3", "m4"];
    let keys: Vec<_> = (0..5).map(|number| device_key(number).public()).collect();
    service.import(&names.into_iter().zip(&keys).collect::<Vec<_>>());
    service.ok("PUT", "/v1/devices/m4/groups", json!({ "groups": ["north"] }).to_string().as_bytes());
    let previous = service.release(4000, 4);
    let release = service.fixture.release_with_patches(images.new.clone(), 5, 10, &[images.patch()]);
    service.publish(&previous);
    service.publish(&release);
    let hello = |number: usize, running: &[u8]| {
        let key = device_key(u8::try_from(number).unwrap());
        let mut device = Device::running(names[number], key, &service.fixture, service.mqtt(), running);
        let image = json!(Digest::of(running).short().to_hex());
        device.run_until("heard", |_| service.device(names[number]).unwrap()["running"] == image);
    };
    hello(0, &images.old);
    hello(1, &previous.image);
    hello(2, &previous.image);
    hello(3, b"an image that nobody knows");
    hello(4, &images.new);
    let told = bases(&service, &release, "");
    let (full, patch) = (images.new.len() as u64, images.patch.len() as u64);
    assert_eq!((&told["devices"], &told["current"], &told["unknown"]), (&json!(5), &json!(1), &json!(0)));
    assert_eq!((&told["full_bytes"], &told["patches"][0]["devices"]), (&json!(full), &json!(1)));
    let saved = full.saturating_sub(patch);
    let first = &told["bases"][0];
    assert_eq!((&first["version"], &first["devices"]), (&json!("1.0.4"), &json!(2)));
    assert_eq!(first["image"], json!(Digest::of(&previous.image).short().to_hex()));
    assert_eq!((&first["patch_bytes"], &first["estimated"]), (&json!(patch), &json!(true)));
    assert_eq!((&first["saved_bytes"], &first["total_saved_bytes"]), (&json!(saved), &json!(2 * saved)));
    let second = &told["bases"][1];
    assert_eq!((&second["version"], &second["devices"]), (&json!(null), &json!(1)));
    assert_eq!(told["bases"].as_array().unwrap().len(), 2);
    assert_eq!(bases(&service, &release, "?group=north")["bases"], json!([]));

    // Another envelope of the same image has a patch from the previous one: its size is known.
    let known = ImageId { digest: Digest::of(&previous.image), size: previous.image.len() as u64 };
    let beside = FixturePatch { base: known, bytes: image(1234, 1), decoder: images.patch().decoder };
    let beside = service.fixture.release_with_patches(images.new.clone(), 5, 10, &[images.patch(), beside]);
    service.publish(&beside);
    let first = &bases(&service, &release, "")["bases"][0];
    assert_eq!((&first["patch_bytes"], &first["estimated"]), (&json!(1234), &json!(false)));
    let told = bases(&service, &beside, "");
    assert_eq!((&told["bases"][0]["version"], told["bases"].as_array().unwrap().len()), (&json!(null), 1));

    // A campaign says it in one line, of its own devices.
    let campaign = service.campaign(&release);
    let (status, _) = status(&service, &campaign);
    let without = &status["without_patch"];
    assert_eq!((&without["devices"], &without["images"]), (&json!(3), &json!(2)), "{status}");
    let aborted = format!("/v1/campaigns/{}/abort", campaign["id"].as_str().unwrap());
    service.post(&aborted, &json!({}));
    let (status, _) = self::status(&service, &campaign);
    assert!(status.get("without_patch").is_none(), "nobody updates any more: {status}");
}
