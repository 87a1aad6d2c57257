//! Devices that bring another key than the accepted one, with the service as it is run.

use serde_json::json;
use whimbrel_protocol::cose::{Kind, Sign1};
use whimbrel_protocol::message::{HelloAnswer, Report};

use crate::service_support::{Service, device_key};
use crate::voice::{Voice, campaign_id, confirmed, enrolment, serving};

/// What the answer to a hello says.
fn answer(voice: &mut Voice<'_>) -> HelloAnswer {
    loop {
        let heard = voice.hear();
        if let Ok(object) = Sign1::decode(&heard.payload)
            && object.claimed_kind() == Some(Kind::Answer)
        {
            return HelloAnswer::decode(object.unverified_payload().unwrap()).unwrap();
        }
    }
}

fn lines_of_the_log(service: &Service) -> usize {
    service.log().matches("brings another key").count()
}

#[test]
fn a_device_that_lost_its_data_folder_is_told_of_and_its_campaign_ends_after_the_two_commands() {
    let (service, release) = serving(&[], 50_000);
    let id = campaign_id(&service.get("/v1/campaigns")[0]);
    let campaign = |service: &Service| service.get(&format!("/v1/campaigns/{}", id.to_hex()));
    let (old, new) = (device_key(1).public(), device_key(9).public());
    let mut m1 = Voice::new(&service, "m1");
    // The answer names the key that counts: a device that has another one introduces itself.
    m1.hello(1, None);
    assert_eq!(answer(&mut m1).key, old.id());
    for _ in 0..5 {
        m1.report(&enrolment(&service, "m1", &device_key(9)));
    }
    service.await_that("it is rekeyed", |service| service.device("m1").unwrap()["state"] == "rekeyed");
    let device = service.device("m1").unwrap();
    assert_eq!(device["fingerprint"], old.fingerprint().to_string());
    assert_eq!(device["rekeyed"]["fingerprint"], new.fingerprint().to_string());
    assert_eq!(campaign(&service)["rekeyed"], json!({ "devices": 1, "ids": ["m1"] }));
    assert_eq!(service.get("/v1/devices?state=rekeyed")["devices"][0]["id"], "m1");
    // It goes on, is served, and says that it is done; but nobody knows whether that is this device.
    let report = confirmed("m1", &device_key(9), id, release.digest);
    m1.report(&report);
    service.await_that("it is refused", |service| service.counter("rejected_unauthentic") == 1);
    assert_eq!(campaign(&service)["devices"]["confirmed"], 0);
    assert_eq!(lines_of_the_log(&service), 1, "a line a minute at most: {}", service.log());
    let commands = [
        "`whimbrel device reset m1`".to_owned(),
        format!("`whimbrel device accept m1 --fingerprint {}`", new.fingerprint()),
    ];
    for part in commands.into_iter().chain([old.fingerprint().to_string()]) {
        assert!(service.log().contains(&part), "{part}: {}", service.log());
    }

    let reset = service.ok("POST", "/v1/devices/m1/reset", b"");
    assert_eq!((&reset["state"], &reset["rekeyed"]), (&json!("pending"), &json!(null)));
    assert_eq!(reset["fingerprint"], new.fingerprint().to_string());
    let fingerprint = json!({ "fingerprint": new.fingerprint().to_string() });
    let accepted = service.post("/v1/devices/m1/accept", &fingerprint);
    assert_eq!((&accepted["state"], &accepted["groups"]), (&json!("accepted"), &json!(["all"])));
    // It sends its report before every hello until an answer names it.
    m1.report(&report);
    m1.hello(2, Report::digest(&report));
    let answered = answer(&mut m1);
    assert_eq!((answered.key, answered.report), (new.id(), Report::digest(&report)));
    let campaign = campaign(&service);
    assert_eq!((&campaign["devices"]["confirmed"], &campaign["percent"]), (&json!(1), &json!(100)));
    assert_eq!(campaign.get("rekeyed"), None);
}

#[test]
fn two_devices_with_one_id_are_told_of_again_whenever_the_other_key_comes_back() {
    let (service, release) = serving(&[], 50_000);
    let id = campaign_id(&service.get("/v1/campaigns")[0]);
    let state = |service: &Service| service.device("m1").unwrap()["state"].clone();
    let mut m1 = Voice::new(&service, "m1");
    m1.report(&enrolment(&service, "m1", &device_key(9)));
    service.await_that("the other one speaks", |service| state(service) == "rekeyed");
    m1.report(&confirmed("m1", &device_key(1), id, release.digest));
    service.await_that("its own key speaks", |service| state(service) == "accepted");
    m1.report(&enrolment(&service, "m1", &device_key(9)));
    service.await_that("the other one speaks again", |service| state(service) == "rekeyed");
}
