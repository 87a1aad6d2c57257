//! The whole way of an update through the real service: on its own broker and on mosquitto.

use serde_json::json;
use whimbrel_protocol::device::Event;
use whimbrel_protocol::message::{Outcome, RefusalCode, State};

use crate::device_support::Device;
use crate::service_support::{On, Service, device_key, image};

/// Enrol, pending, accept, campaign, manifest, pages, chunks, reboot, report, counted.
fn a_device_is_enrolled_updated_and_counted(on: On) {
    let service = Service::start(on);
    let mut device = Device::new("m1", device_key(1), &service.fixture, service.mqtt());
    let pending = |event: &Event| matches!(event, Event::Refused { code: RefusalCode::Pending, .. });
    device.run_until_event("pending", pending);
    let listed = service.get("/v1/devices?state=pending");
    let entry = &listed["devices"][0];
    let fingerprint = device_key(1).public().fingerprint().to_string();
    assert_eq!((&entry["id"], &entry["fingerprint"]), (&json!("m1"), &json!(fingerprint)));
    assert_eq!(
        (&entry["class"], &entry["online_hint"]),
        (&json!(service.fixture.class.to_hex()), &json!(true))
    );

    let release = service.release(700 * 1024, 5);
    service.publish(&release);
    let accepted = service.post("/v1/devices/m1/accept", &json!({ "fingerprint": fingerprint }));
    assert_eq!((&accepted["state"], &accepted["groups"]), (&json!("accepted"), &json!(["all"])));
    let campaign = service.campaign(&release);
    assert_eq!((&campaign["state"], &campaign["document_version"]), (&json!("active"), &json!(1)));
    assert_eq!((&campaign["devices"]["total"], &campaign["devices"]["waiting"]), (&json!(1), &json!(1)));

    device.run_until_state(State::Downloading);
    device.run_until_state(State::Confirmed);
    assert_eq!(device.medium.running_image(), release.image);
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));

    let path = format!("/v1/campaigns/{}?devices=1", campaign["id"].as_str().unwrap());
    let campaign = service.get(&path);
    assert_eq!((&campaign["devices"]["confirmed"], &campaign["percent"]), (&json!(1), &json!(100)));
    assert_eq!(campaign["bytes_received"], json!(release.payload.len()));
    let of_device = &campaign["device_list"][0];
    assert_eq!((&of_device["id"], &of_device["state"]), (&json!("m1"), &json!("confirmed")));
    let running = service.device("m1").unwrap();
    assert_eq!(running["sequence"], json!(5));
    let image = whimbrel_protocol::ids::Digest::of(&release.image).short().to_hex();
    assert_eq!(running["running"], json!(image));
    assert_eq!(service.counter("reports"), 1);
    assert_eq!(service.counter("served_bytes"), release.payload.len() as u64);
    // 700 chunks are more than a page of the index holds.
    assert_eq!(service.counter("page_messages"), 3);
}

#[test]
fn a_device_is_enrolled_updated_and_counted_on_the_embedded_broker() {
    a_device_is_enrolled_updated_and_counted(On::Itself);
}

#[test]
fn a_device_is_enrolled_updated_and_counted_on_mosquitto() {
    a_device_is_enrolled_updated_and_counted(On::Mosquitto);
}

/// Serving needs nothing of what was before: a download goes on as if nothing had happened.
fn a_download_goes_on_after_the_service_was_killed(on: On) {
    let mut service = Service::start(on);
    service.import(&[("m1", &device_key(1).public())]);
    let release = service.release(600 * 1024, 5);
    service.publish(&release);
    service.campaign(&release);
    let mut device = Device::new("m1", device_key(1), &service.fixture, service.mqtt());
    let held = |device: &Device| device.session.status().map_or(0, |status| status.chunks_held);
    device.run_until("a part is there", |device| held(device) > 50);
    let before = held(&device);
    assert!(before < 600, "{before}");
    service.kill();
    service.launch();
    device.move_to(service.mqtt());
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
    assert_eq!(device.medium.running_image(), release.image);
    let status = device.session.status().unwrap();
    assert_eq!(status.state, State::Confirmed);
    // What was in flight is asked for again, and nothing else.
    assert!(status.bytes_twice <= 64 * 1024, "{status:?}");
    let campaigns = service.get("/v1/campaigns");
    assert_eq!(campaigns[0]["devices"]["confirmed"], json!(1));
}

#[test]
fn a_download_goes_on_after_the_service_was_killed_on_the_embedded_broker() {
    a_download_goes_on_after_the_service_was_killed(On::Itself);
}

#[test]
fn a_download_goes_on_after_the_service_was_killed_on_mosquitto() {
    a_download_goes_on_after_the_service_was_killed(On::Mosquitto);
}

#[test]
fn a_download_goes_on_after_the_broker_was_killed() {
    let mut service = Service::start(On::Mosquitto);
    service.import(&[("m1", &device_key(1).public())]);
    let release = service.release(600 * 1024, 5);
    service.publish(&release);
    service.campaign(&release);
    let mut device = Device::new("m1", device_key(1), &service.fixture, service.mqtt());
    device.run_until("a part is there", |device| {
        device.session.status().is_some_and(|status| status.chunks_held > 50)
    });
    assert!(service.broker().restart());
    device.lose_connection();
    service.await_that("the link is up", |service| service.log().matches("broker link up").count() == 2);
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
    assert_eq!(device.medium.running_image(), release.image);
}

#[test]
fn a_device_that_runs_the_image_has_nothing_to_do_when_a_campaign_moves_to_another_envelope() {
    let service = Service::start(On::Itself);
    service.import(&[("m1", &device_key(1).public())]);
    let (release, beside) =
        (service.release(100 * 1024, 5), service.fixture.release(image(100 * 1024, 5), 5, 12));
    service.publish(&release);
    service.publish(&beside);
    let mut device = Device::new("m1", device_key(1), &service.fixture, service.mqtt());
    let acknowledged = |event: &Event| matches!(event, Event::ReportAcknowledged { .. });
    let first = service.campaign(&release);
    device.run_until_event("acknowledged", acknowledged);
    let (served, running) = (service.counter("served_bytes"), device.medium.running_image().to_vec());
    let second = service.campaign(&beside);
    device.run_until("both are confirmed", |device| {
        device.events.iter().filter(|event| acknowledged(event)).count() == 2
    });
    assert_eq!((service.counter("served_bytes"), device.medium.running_image()), (served, &running[..]));
    let of = |campaign: &serde_json::Value| {
        let path = format!("/v1/campaigns/{}?devices=1", campaign["id"].as_str().unwrap());
        service.get(&path)["device_list"][0].clone()
    };
    let (first, second) = (of(&first), of(&second));
    assert_eq!((&first["state"], &second["state"]), (&json!("confirmed"), &json!("confirmed")));
    assert_eq!(first["payload"]["kind"], json!("full"), "{first}");
    assert_eq!((&second["payload"], &second["bytes_received"]), (&json!(null), &json!(0)), "{second}");
}

#[test]
fn a_device_that_fails_is_counted_with_its_reason_and_tries_again_when_it_may() {
    let service = Service::start(On::Itself);
    service.import(&[("m1", &device_key(1).public())]);
    let release = service.release(20 * 1024, 5);
    service.publish(&release);
    let campaign = service.campaign(&release);
    let path = format!("/v1/campaigns/{}", campaign["id"].as_str().unwrap());
    let mut device = Device::new("m1", device_key(1), &service.fixture, service.mqtt());
    device.medium.health = Some(whimbrel_protocol::device::InstallFailure::Unhealthy);
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
    let reverted = service.get(&path);
    assert_eq!((&reverted["devices"]["reverted"], &reverted["percent"]), (&json!(1), &json!(0)));
    assert_eq!(reverted["failures"], json!({ "unhealthy": 1 }));

    device.medium.health = None;
    let retried = service.post(&format!("{path}/retry"), &json!({}));
    assert_eq!((&retried["attempt"], &retried["devices"]["waiting"]), (&json!(2), &json!(1)));
    device.events.clear();
    device.run_until_event("confirmed", |event| {
        matches!(event, Event::Ended { outcome: Outcome::Confirmed, attempt: 2, .. })
    });
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
    let confirmed = service.get(&path);
    assert_eq!(confirmed["devices"]["confirmed"], json!(1));
    assert_eq!(confirmed["failures"], json!({}));
}

#[test]
fn an_aborted_campaign_reaches_a_device_that_is_downloading() {
    let service =
        Service::start_with(On::Itself, &["limits.device-rate=32KiB", "limits.device-burst=128KiB"]);
    service.import(&[("m1", &device_key(1).public())]);
    let release = service.release(600 * 1024, 5);
    service.publish(&release);
    let campaign = service.campaign(&release);
    let path = format!("/v1/campaigns/{}", campaign["id"].as_str().unwrap());
    let mut device = Device::new("m1", device_key(1), &service.fixture, service.mqtt());
    device.run_until("a part is there", |device| {
        device.session.status().is_some_and(|status| status.chunks_held > 20)
    });
    let aborted = service.post(&format!("{path}/abort"), &json!({}));
    assert_eq!((&aborted["state"], &aborted["document_version"]), (&json!("aborted"), &json!(2)));
    device.run_until_event("cancelled", |event| {
        matches!(event, Event::Ended { outcome: Outcome::Cancelled, .. })
    });
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
    let aborted = service.get(&path);
    assert_eq!(aborted["devices"]["cancelled"], json!(1));
    assert_eq!(aborted["failures"], json!({ "aborted": 1 }));
}
