//! What the service knows after it was stopped or killed and started again.

use serde_json::{Value, json};
use whimbrel_protocol::message::{State, Status};

use crate::service_support::{On, Service, device_key};
use crate::voice::{Voice, ask, campaign_id, confirmed, enrolment, serving};

/// What operators see of a device, without the time at which it was last heard.
fn device(service: &Service, id: &str) -> Value {
    let mut device = service.device(id).unwrap();
    device["seen"] = json!(device["seen"].is_null());
    device["online_hint"] = Value::Null;
    device
}

#[test]
fn how_far_a_device_is_and_what_it_runs_outlive_a_stop() {
    let (mut service, release) = serving(&[], 50_000);
    service.import(&[("m2", &device_key(2).public())]);
    let id = campaign_id(&service.get("/v1/campaigns")[0]);
    let mut m1 = Voice::new(&service, "m1");
    m1.hello(1, None);
    m1.hear(); // The answer, then the campaign.
    m1.hear();
    m1.say(&ask(&release, 0, 4, 4));
    m1.chunks(4);
    let status = Status {
        campaign: id,
        attempt: 1,
        state: State::Installing,
        deferred: None,
        failure: None,
        chunks_held: 49,
        chunks: 49,
        bytes_received: 50_000,
        bytes_twice: 7,
    };
    m1.say(&status.encode());
    m1.hears_no_more();
    let before = (device(&service, "m1"), device(&service, "m2"), service.get("/v1/campaigns"));
    assert_eq!(before.0["sequence"], json!(4));
    assert_eq!(before.0["deployment"]["bytes_twice"], json!(7));
    assert_eq!(before.2[0]["devices"]["installing"], json!(1));
    drop(m1);
    assert!(service.stop().success());
    service.launch();
    let after = (device(&service, "m1"), device(&service, "m2"), service.get("/v1/campaigns"));
    assert_eq!(after, before);
}

#[test]
fn what_counts_is_there_after_a_kill() {
    let (mut service, release) = serving(&[], 5_000);
    service.import(&[("m2", &device_key(2).public())]);
    let first = service.get("/v1/campaigns")[0].clone();
    let mut m1 = Voice::new(&service, "m1");
    m1.report(&confirmed("m1", &device_key(1), campaign_id(&first), release.digest));
    service.await_that("it counts", |service| service.get("/v1/campaigns")[0]["devices"]["confirmed"] == 1);
    let mut stranger = Voice::new(&service, "m9");
    stranger.report(&enrolment(&service, "m9", &device_key(9)));
    service.await_that("it is pending", |service| service.device("m9").is_some() && service.is_done());
    drop((m1, stranger));
    service.post("/v1/devices/m2/reset", &json!({}));
    service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["all","north"]}"#);
    service.post(&format!("/v1/campaigns/{}/abort", first["id"].as_str().unwrap()), &json!({}));
    let seen = |service: &Service| {
        // What a device says about itself is stored a little later: it says it again.
        let m1 = service.device("m1").unwrap();
        let m1 = (m1["state"].clone(), m1["groups"].clone(), m1["fingerprint"].clone());
        (service.get("/v1/campaigns"), m1, service.get("/v1/status")["devices"].clone())
    };
    let before = seen(&service);
    assert_eq!((&before.0[0]["state"], &before.0[0]["document_version"]), (&json!("aborted"), &json!(2)));
    assert_eq!(before.2, json!({ "accepted": 1, "pending": 1 }));
    service.kill();
    service.launch();
    assert_eq!(seen(&service), before);
    // Versions go on where they were.
    let retried = service.post(&format!("/v1/campaigns/{}/retry", first["id"].as_str().unwrap()), &json!({}));
    assert_eq!((&retried["attempt"], &retried["document_version"]), (&json!(2), &json!(3)));
    service.import(&[("m2", &device_key(3).public())]);
    assert!(service.device("m2").is_some(), "a device that was reset may bring another key");
}

#[test]
fn no_more_groups_have_campaigns_than_a_beacon_can_name() {
    let service = Service::start(On::Itself);
    let release = service.release(2_000, 5);
    service.publish(&release);
    let order = |group: &str| json!({ "release": release.digest.to_hex(), "group": group });
    let limit = whimbrel_protocol::limits::BEACON_GROUPS_MAX;
    for number in 0..limit {
        service.post("/v1/campaigns", &order(&format!("g{number}")));
    }
    let one_more = order("one-more").to_string();
    let error = service.refused(409, "POST", "/v1/campaigns", one_more.as_bytes());
    assert!(error.contains(&limit.to_string()), "{error}");
    service.post("/v1/campaigns", &order("g0"));
    assert_eq!(
        service.get("/v1/campaigns").as_array().unwrap().len(),
        limit + 1,
        "a group that is named may"
    );
}

#[test]
fn a_payload_that_was_damaged_while_the_service_was_stopped_is_missing_when_it_starts() {
    let (mut service, release) = serving(&[], 50_000);
    let name = format!("/v1/releases/{}", release.digest);
    let file = |service: &Service, extension: &str| {
        service.path("data/payloads").join(format!("{}.{extension}", release.index.digest))
    };
    for extension in ["payload", "index"] {
        assert_eq!(service.get(&name)["state"], "complete");
        assert!(service.stop().success());
        let path = file(&service, extension);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        service.launch();
        assert_eq!(service.get(&name)["state"], "incomplete", "{extension}");
        service.publish(&release);
    }
    let mut m1 = Voice::new(&service, "m1");
    m1.say(&ask(&release, 0, 4, 4));
    assert_eq!(m1.chunks(4), &release.payload[..4096]);
}
